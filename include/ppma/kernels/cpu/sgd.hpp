#pragma once
#include "ppma/core/names_begin.hpp"
// One step of SGD; formulas: optim/sgd.hpp.

#include "ppma/core/device.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

template <class T>
struct SgdStep {
  T rate, decay, momentum, gradient_factor;
  bool nesterov;
};

/// One step on n elements, on the calling thread.
template <class T>
void sgd(Cpu, i64 n, const SgdStep<T>& s, const T* g, T* w, T* b) {
  const auto update = [&s](Vec<T> gi, Vec<T>& wi, Vec<T>& bi) {
    const Vec<T> d = gi * s.gradient_factor + wi * s.decay;
    bi = bi * s.momentum + d;
    wi -= s.rate * (s.nesterov ? d + bi * s.momentum : bi);
  };
  i64 i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) {
    Vec<T> wi = load(w + i), bi = load(b + i);
    update(load(g + i), wi, bi);
    store<T>(w + i, wi), store<T>(b + i, bi);
  }
  if (const i64 rest = n - i; rest > 0) {
    Vec<T> wi = load_some(w + i, rest), bi = load_some(b + i, rest);
    update(load_some(g + i, rest), wi, bi);
    store_some<T>(w + i, wi, rest), store_some<T>(b + i, bi, rest);
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
