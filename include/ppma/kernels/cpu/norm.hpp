#pragma once
#include "ppma/core/names_begin.hpp"
// Layer norm: statistics of a row of x (rows, cols).
//
// Sums over rows are taken over row blocks whose size depends on the shape alone, then over the
// blocks in order: the result does not depend on the threads. The variance is a sum of squared
// distances from the mean, never E[x^2] - E[x]^2.

#include <algorithm>
#include <cmath>

#include "ppma/core/buffer.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/columns.hpp"
#include "ppma/kernels/cpu/reduce.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// y = (x - mean) * rstd * w + b with each row's mean and rstd = 1 / sqrt(var + eps), both kept
/// (null: not kept).
template <class T>
void layer_norm(Cpu, i64 rows, i64 cols, const T* x, const T* w, const T* b, T eps, T* y, T* mean,
                T* rstd) {
  parallel_for(rows, std::max<i64>(1, 32768 / cols), [=](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) {
      const T* xr = x + r * cols;
      T* yr = y + r * cols;
      const T m =
          sum_columns<T>(cols, [=](i64 c, auto lane) { return get<decltype(lane)>(xr + c); }) /
          static_cast<T>(cols);
      const T var = sum_columns<T>(cols,
                                   [=](i64 c, auto lane) {
                                     const auto d = get<decltype(lane)>(xr + c) - m;
                                     return d * d;
                                   }) /
                    static_cast<T>(cols);
      const T s = T(1) / std::sqrt(var + eps);
      columns<T>(cols, [=](i64 c, auto lane) {
        using V = decltype(lane);
        put(yr + c, V((get<V>(xr + c) - m) * s * get<V>(w + c) + get<V>(b + c)));
      });
      if (mean) mean[r] = m, rstd[r] = s;
    }
  });
}

/// dx (null: not wanted; `accumulate`: added to what is there), dw and db from dy and what the
/// forward pass kept.
template <class T>
void layer_norm_backward(Cpu, i64 rows, i64 cols, const T* x, const T* w, const T* mean,
                         const T* rstd, const T* dy, T* dx, bool accumulate, T* dw, T* db) {
  constexpr i64 block = 128;
  const i64 blocks = (rows + block - 1) / block;
  const Workspace<T> partial(2 * blocks * cols);  // (2, blocks, cols): dw, db of each row block
  T* const pw = partial.data();
  T* const pb = pw + blocks * cols;
  parallel_for(blocks, std::max<i64>(1, 32768 / (block * cols)), [=](i64 begin, i64 end) {
    for (i64 k = begin; k < end; ++k) {
      T* const dwk = pw + k * cols;
      T* const dbk = pb + k * cols;
      std::fill_n(dwk, cols, T(0));
      std::fill_n(dbk, cols, T(0));
      for (i64 r = k * block; r < std::min(rows, (k + 1) * block); ++r) {
        const T *xr = x + r * cols, *gr = dy + r * cols;
        const T m = mean[r], s = rstd[r];
        // y = xhat w + b, xhat = (x - mean) rstd:  dw += dy xhat, db += dy;
        // g = dy w:  dx = rstd (g - mean(g) - xhat mean(g xhat))
        T sum_gx = 0;
        const T sum_g = [&] {
          Vec<T> g1{}, gx{};
          T tail = 0;
          columns<T>(cols, [&](i64 c, auto lane) {
            using V = decltype(lane);
            const V d = get<V>(gr + c), xhat = (get<V>(xr + c) - m) * s, g = d * get<V>(w + c);
            put(dwk + c, V(get<V>(dwk + c) + d * xhat));
            put(dbk + c, V(get<V>(dbk + c) + d));
            if constexpr (std::is_same_v<V, T>)
              tail += g, sum_gx += g * xhat;
            else
              g1 += g, gx += g * xhat;
          });
          sum_gx += lane_sum<T>(gx);
          return tail + lane_sum<T>(g1);
        }();
        if (dx == nullptr) continue;
        const T g_mean = sum_g / static_cast<T>(cols), gx_mean = sum_gx / static_cast<T>(cols);
        T* const dxr = dx + r * cols;
        columns<T>(cols, [=](i64 c, auto lane) {
          using V = decltype(lane);
          const V xhat = (get<V>(xr + c) - m) * s, g = get<V>(gr + c) * get<V>(w + c);
          const V d = s * (g - g_mean - xhat * gx_mean);
          put(dxr + c, accumulate ? V(get<V>(dxr + c) + d) : d);
        });
      }
    }
  });
  sum_rows(Cpu{}, blocks, cols, pw, dw);
  sum_rows(Cpu{}, blocks, cols, pb, db);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/norm_backward.cuh"
#endif

#include "ppma/core/names_end.hpp"
