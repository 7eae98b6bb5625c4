#pragma once
#include "ppma/core/names_begin.hpp"
// Decaying sums along an axis; formulas: ops/scan.hpp.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/map.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

struct ExpOf {
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V x) const {
    return exp_of(x);
  }
};

// The axes around the scan: x is (outer, n, decays, width), d is (outer, n, decays): one decay
// serves `width` elements.
struct ScanShape {
  i64 outer, n, decays, width;
};

namespace detail {

// y = x + d * s for one step; y may be s.
template <class T>
void scan_step(i64 decays, i64 width, const T* d, const T* s, const T* x, T* y) {
  if (width == 1) {
    i64 i = 0;
    for (; i + lanes<T> <= decays; i += lanes<T>)
      store<T>(y + i, load(x + i) + load(d + i) * load(s + i));
    for (; i < decays; ++i) y[i] = x[i] + d[i] * s[i];
    return;
  }
  for (i64 j = 0; j < decays; ++j) {
    const T decay = d[j];
    map_row<true, true>(width, x + j * width, s + j * width, y + j * width,
                        [decay](Vec<T> a, Vec<T> b) { return a + decay * b; });
  }
}

// out_j += d_j * sum over width of a * b.
template <class T>
void scan_dot(i64 decays, i64 width, const T* d, const T* a, const T* b, T* out) {
  for (i64 j = 0; j < decays; ++j) {
    T sum = 0;
    i64 i = 0;
    if (width >= lanes<T>) {
      Vec<T> v{};
      for (; i + lanes<T> <= width; i += lanes<T>)
        v += load(a + j * width + i) * load(b + j * width + i);
      sum = lane_sum<T>(v);
    }
    for (; i < width; ++i) sum += a[j * width + i] * b[j * width + i];
    out[j] += d[j] * sum;
  }
}

// Calls f(x offset, d offset, decays) for each independent line; lines of many decays are cut into
// strips.
template <class F>
void for_lines(const ScanShape& s, F f) {
  const i64 strip = std::max<i64>(1, 256 / s.width), strips = (s.decays + strip - 1) / strip;
  parallel_for(
      s.outer * strips, std::max<i64>(1, 8192 / (s.n * std::min(strip, s.decays) * s.width)),
      [=](i64 begin, i64 end) {
        for (i64 unit = begin; unit < end; ++unit) {
          const i64 first = unit % strips * strip, at = unit / strips * s.n * s.decays + first;
          f(at * s.width, at, std::min(strip, s.decays - first));
        }
      });
}

}  // namespace detail

/// y = scan of x with decays d (not their logarithms). y must not be x.
template <class T>
void decay_scan(Cpu, const ScanShape& s, ScanDirection direction, const T* all_x, const T* all_d,
                T* all_y) {
  const i64 row = s.decays * s.width;  // from one step to the next
  detail::for_lines(s, [=](i64 at_x, i64 at_d, i64 decays) {
    const T *x = all_x + at_x, *d = all_d + at_d;
    T* y = all_y + at_x;
    const i64 count = decays * s.width;
    if (direction != ScanDirection::backward) {
      std::copy_n(x, count, y);
      for (i64 t = 1; t < s.n; ++t)
        detail::scan_step(decays, s.width, d + t * s.decays, y + (t - 1) * row, x + t * row,
                          y + t * row);
    }
    if (direction == ScanDirection::backward) {
      std::copy_n(x + (s.n - 1) * row, count, y + (s.n - 1) * row);
      for (i64 t = s.n - 1; t-- > 0;)
        detail::scan_step(decays, s.width, d + (t + 1) * s.decays, y + (t + 1) * row, x + t * row,
                          y + t * row);
    }
    if (direction == ScanDirection::symmetric) {
      const Workspace<T> state(count);  // g_{t+1}
      T* g = state.data();
      std::copy_n(x + (s.n - 1) * row, count, g);
      for (i64 t = s.n - 1; t-- > 0;) {
        // y_t += g_t - x_t = d_{t+1} g_{t+1}
        detail::scan_step(decays, s.width, d + (t + 1) * s.decays, g, y + t * row, y + t * row);
        detail::scan_step(decays, s.width, d + (t + 1) * s.decays, g, x + t * row, g);
      }
    }
  });
}

/// dlog (outer, n, decays) = gradient of the logarithms of the decays, from x and the upstream
/// gradient r.
template <class T>
void decay_scan_log_gradient(Cpu, const ScanShape& s, ScanDirection direction, const T* all_x,
                             const T* all_d, const T* all_r, T* all_dlog) {
  const i64 row = s.decays * s.width;
  std::fill_n(all_dlog, s.outer * s.n * s.decays, T(0));
  detail::for_lines(s, [=](i64 at_x, i64 at_d, i64 decays) {
    const T *x = all_x + at_x, *d = all_d + at_d, *r = all_r + at_x;
    T* dlog = all_dlog + at_d;
    const i64 count = decays * s.width;
    const Workspace<T> line(s.n * count), one(count);
    T *h = line.data(), *state = one.data();
    if (direction != ScanDirection::backward) {
      // f_t = x_t + d_t f_{t-1}:  d ln d_t = d_t p_t f_{t-1}
      std::copy_n(x, count, h);
      for (i64 t = 1; t < s.n; ++t)
        detail::scan_step(decays, s.width, d + t * s.decays, h + (t - 1) * count, x + t * row,
                          h + t * count);
      std::copy_n(r + (s.n - 1) * row, count, state);
      for (i64 t = s.n - 1; t > 0; --t) {
        detail::scan_dot(decays, s.width, d + t * s.decays, state, h + (t - 1) * count,
                         dlog + t * s.decays);
        detail::scan_step(decays, s.width, d + t * s.decays, state, r + (t - 1) * row, state);
      }
    }
    if (direction != ScanDirection::forward) {
      // g_t = x_t + d_{t+1} g_{t+1}:  d ln d_t = d_t q_{t-1} g_t
      std::copy_n(x + (s.n - 1) * row, count, h + (s.n - 1) * count);
      for (i64 t = s.n - 1; t-- > 0;)
        detail::scan_step(decays, s.width, d + (t + 1) * s.decays, h + (t + 1) * count, x + t * row,
                          h + t * count);
      std::copy_n(r, count, state);
      for (i64 t = 1; t < s.n; ++t) {
        detail::scan_dot(decays, s.width, d + t * s.decays, state, h + t * count,
                         dlog + t * s.decays);
        detail::scan_step(decays, s.width, d + t * s.decays, state, r + t * row, state);
      }
    }
  });
}

/// y_t = x_0 + ... + x_t along the middle axis of (outer, n, inner), or x_t + ... + x_{n-1} if
/// reverse.
template <class T>
void cumsum(Cpu, i64 outer, i64 n, i64 inner, bool reverse, const T* x, T* y) {
  parallel_for(outer, std::max<i64>(1, 8192 / (n * inner)), [=](i64 begin, i64 end) {
    for (i64 o = begin; o < end; ++o) {
      const i64 step = reverse ? -inner : inner,
                first = o * n * inner + (reverse ? (n - 1) * inner : 0);
      std::copy_n(x + first, inner, y + first);
      T running = y[first];  // for a line of single elements
      for (i64 t = 1; t < n; ++t) {
        const i64 at = first + t * step;
        if (inner == 1)
          y[at] = running += x[at];
        else
          detail::map_row<true, true>(inner, x + at, y + at - step, y + at,
                                      [](Vec<T> a, Vec<T> b) { return a + b; });
      }
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/scan.cuh"
#endif

#include "ppma/core/names_end.hpp"
