#pragma once
#include "ppma/core/names_begin.hpp"
// Scans on the GPU: a thread walks a line, neighbouring threads neighbouring lines; where the lines
// lie one behind the other, a warp adds 32 steps of a line at once. The gradient of the decays is a
// warp a decay.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/lanes.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T>
__global__ void __launch_bounds__(256)
    cumsum_threads(i64 lines, i64 n, i64 inner, bool reverse, const T* x, T* y) {
  for (i64 e = cuda::first(); e < lines; e += cuda::stride()) {
    const i64 first = e / inner * n * inner + e % inner + (reverse ? (n - 1) * inner : 0),
              step = reverse ? -inner : inner;
    acc_t<T> sum = 0;
    for (i64 t = 0; t < n; ++t) y[first + t * step] = T(sum += acc_t<T>(x[first + t * step]));
  }
}

template <class T>
__global__ void __launch_bounds__(256)
    cumsum_warps(i64 lines, i64 n, i64 inner, bool reverse, const T* x, T* y) {
  using A = acc_t<T>;
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (i64 e = cuda::first() / 32; e < lines; e += cuda::stride() / 32) {
    const i64 first = e / inner * n * inner + e % inner + (reverse ? (n - 1) * inner : 0),
              step = reverse ? -inner : inner;
    A before = 0;
    for (i64 t = lane; t - lane < n; t += 32) {
      const A sum = before + running_sum(t < n ? A(x[first + t * step]) : A(0), lane);
      if (t < n) y[first + t * step] = T(sum);
      before = __shfl_sync(all_lanes, sum, 31);
    }
  }
}

// A thread an element of (outer, decays, width).
template <class T>
__global__ void __launch_bounds__(256)
    decay_scan_lines(i64 lines, ScanShape s, ScanDirection direction, const T* x, const acc_t<T>* d,
                     T* y) {
  using A = acc_t<T>;
  const i64 row = s.decays * s.width;
  for (i64 e = cuda::first(); e < lines; e += cuda::stride()) {
    const i64 o = e / row, c = e % row, at = o * s.n * row + c,
              edge = o * s.n * s.decays + c / s.width;
    if (direction != ScanDirection::backward) {
      A f = 0;
      for (i64 t = 0; t < s.n; ++t) {
        f = A(x[at + t * row]) + (t > 0 ? d[edge + t * s.decays] * f : A(0));
        y[at + t * row] = T(f);
      }
    }
    if (direction != ScanDirection::forward) {
      A g = 0;
      for (i64 t = s.n - 1; t >= 0; --t) {
        const A from_behind = t + 1 < s.n ? d[edge + (t + 1) * s.decays] * g : A(0);
        g = A(x[at + t * row]) + from_behind;
        y[at + t * row] =
            T(direction == ScanDirection::backward ? g : A(y[at + t * row]) + from_behind);
      }
    }
  }
}

// A warp (or, where width is 1, a thread) a decay; h (as x) keeps the scan of x.
template <class T, bool single>
__global__ void __launch_bounds__(256)
    decay_scan_gradient(i64 lines, ScanShape s, ScanDirection direction, const T* x,
                        const acc_t<T>* d, const T* r, acc_t<T>* h, acc_t<T>* dlog) {
  using A = acc_t<T>;
  constexpr int group = single ? 1 : 32;
  const i64 row = s.decays * s.width;
  const int lane = single ? 0 : static_cast<int>(threadIdx.x % 32);
  const auto total = [](A v) {
    if constexpr (single)
      return v;
    else
      return sum_lanes(v, 32);
  };
  for (i64 e = cuda::first() / group; e < lines; e += cuda::stride() / group) {
    const i64 o = e / s.decays, j = e % s.decays, edge = o * s.n * s.decays + j;
    for (i64 w = lane; w - lane < s.width; w += group) {
      const bool here = w < s.width, first = w - lane == 0;
      const i64 at = o * s.n * row + j * s.width + w;
      const auto add = [&](i64 t, A term, bool fresh) {
        const i64 to = edge + t * s.decays;
        term = total(term);
        if (lane == 0) dlog[to] = (fresh ? A(0) : dlog[to]) + d[to] * term;
      };
      const auto in = [&](const T* p, i64 t) { return here ? A(p[at + t * row]) : A(0); };
      if (lane == 0 && first) dlog[edge] = 0;
      if (direction != ScanDirection::backward) {  // d_t p_t f_{t-1}
        A f = 0, p = 0;
        for (i64 t = 0; t < s.n; ++t) {
          f = in(x, t) + (t > 0 ? d[edge + t * s.decays] * f : A(0));
          if (here) h[at + t * row] = f;
        }
        for (i64 t = s.n - 1; t > 0; --t) {
          p = in(r, t) + (t + 1 < s.n ? d[edge + (t + 1) * s.decays] * p : A(0));
          add(t, here ? p * h[at + (t - 1) * row] : A(0), first);
        }
      }
      if (direction != ScanDirection::forward) {  // d_t q_{t-1} g_t
        A g = 0, q = 0;
        for (i64 t = s.n - 1; t >= 0; --t) {
          g = in(x, t) + (t + 1 < s.n ? d[edge + (t + 1) * s.decays] * g : A(0));
          if (here) h[at + t * row] = g;
        }
        for (i64 t = 1; t < s.n; ++t) {
          q = in(r, t - 1) + (t > 1 ? d[edge + (t - 1) * s.decays] * q : A(0));
          add(t, here ? q * h[at + t * row] : A(0), first && direction == ScanDirection::backward);
        }
      }
    }
  }
}

}  // namespace detail

template <class T>
void cumsum(Cuda, i64 outer, i64 n, i64 inner, bool reverse, const T* x, T* y) {
  const i64 lines = outer * inner;
  if (inner >= 32 || n < 32)
    detail::cumsum_threads<<<cuda::blocks(lines, 256), 256, 0, cuda::stream()>>>(lines, n, inner,
                                                                                 reverse, x, y);
  else
    detail::cumsum_warps<<<cuda::blocks(lines * 32, 256), 256, 0, cuda::stream()>>>(lines, n, inner,
                                                                                    reverse, x, y);
  cuda::launched("cumsum");
}

template <class T>
void decay_scan(Cuda, const ScanShape& s, ScanDirection direction, const T* x, const acc_t<T>* d,
                T* y) {
  const i64 lines = s.outer * s.decays * s.width;
  detail::decay_scan_lines<<<cuda::blocks(lines, 256), 256, 0, cuda::stream()>>>(
      lines, s, direction, x, d, y);
  cuda::launched("decay_scan");
}

template <class T>
void decay_scan_log_gradient(Cuda, const ScanShape& s, ScanDirection direction, const T* x,
                             const acc_t<T>* d, const T* r, acc_t<T>* dlog) {
  const i64 lines = s.outer * s.decays;
  const Workspace<acc_t<T>> h(s.outer * s.n * s.decays * s.width, Device::cuda);
  if (s.width == 1)
    detail::decay_scan_gradient<T, true><<<cuda::blocks(lines, 256), 256, 0, cuda::stream()>>>(
        lines, s, direction, x, d, r, h.data(), dlog);
  else
    detail::decay_scan_gradient<T, false>
        <<<cuda::blocks(lines * 32, 256), 256, 0, cuda::stream()>>>(lines, s, direction, x, d, r,
                                                                    h.data(), dlog);
  cuda::launched("decay_scan");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
