#pragma once
#include "ppma/core/names_begin.hpp"
// One step of AdamW; formulas: optim/adamw.hpp.

#include <cmath>

#include "ppma/core/device.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

template <class T>
struct AdamWStep {
  T keep;  // 1 - r d
  T beta1, beta2;
  T rate;             // r / (1 - b1^t)
  T root_correction;  // 1 / sqrt(1 - b2^t)
  // g is multiplied by it: clipping and accumulation cost no pass of their own
  T eps, gradient_factor;
};

/// sqrt of every lane.
template <class T>
PPMA_INLINE Vec<T> sqrt_lanes(Vec<T> x) {
  Vec<T> y{};
  for (i64 i = 0; i < lanes<T>; ++i) y[i] = std::sqrt(x[i]);
  return y;
}

template <class T>
PPMA_INLINE void adamw_vector(const AdamWStep<T>& s, Vec<T> g, Vec<T>& w, Vec<T>& m, Vec<T>& v) {
  g *= s.gradient_factor;
  m = s.beta1 * m + (1 - s.beta1) * g;
  v = s.beta2 * v + (1 - s.beta2) * g * g;
  w = w * s.keep - s.rate * m / (sqrt_lanes<T>(v) * s.root_correction + s.eps);
}

/// One step on n elements, on the calling thread.
template <class T>
void adamw(Cpu, i64 n, const AdamWStep<T>& s, const T* g, T* w, T* m, T* v) {
  i64 i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) {
    Vec<T> wi = load(w + i), mi = load(m + i), vi = load(v + i);
    adamw_vector<T>(s, load(g + i), wi, mi, vi);
    store<T>(w + i, wi), store<T>(m + i, mi), store<T>(v + i, vi);
  }
  if (const i64 rest = n - i; rest > 0) {
    Vec<T> wi = load_some(w + i, rest), mi = load_some(m + i, rest), vi = load_some(v + i, rest);
    adamw_vector<T>(s, load_some(g + i, rest), wi, mi, vi);
    store_some<T>(w + i, wi, rest), store_some<T>(m + i, mi, rest), store_some<T>(v + i, vi, rest);
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
