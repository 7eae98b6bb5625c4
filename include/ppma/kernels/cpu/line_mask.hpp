#pragma once
#include "ppma/core/names_begin.hpp"
// The 1-D structured log mask, each entry a sum of its own; formulas: polyline/line_mask.hpp.

#include <vector>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/head.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// out (lines,n,n): out[order[i], order[j]] = log L1[i,j] of the log decays x (lines,n) in visiting
/// order; a null order visits 0, 1, ..., n-1.
template <class T>
void line_log_mask(Cpu, i64 lines, i64 n, const i64* order, const T* x, T* out) {
  constexpr i64 block = 16;
  parallel_for(lines, 1 + 16384 / (n * n), [=](i64 begin, i64 end) {
    const Workspace<i64> ranks(n);
    i64* const rank = ranks.data();
    for (i64 i = 0; i < n; ++i) rank[order != nullptr ? order[i] : i] = i;
    for (i64 line = begin; line < end; ++line) {
      T* const m = out + line * n * n;
      // Rows in visiting order: to those visited before it is one step more than from the row
      // before. What a row has for later ones is overwritten below.
      for (i64 i = 0; i < n; ++i) {
        const i64 u = order != nullptr ? order[i] : i;
        T* const row = m + u * n;
        if (i == 0) {
          std::fill_n(row, n, T(0));
          continue;
        }
        const T *const before = m + (order != nullptr ? order[i - 1] : i - 1) * n,
                       step = x[line * n + u];
        for (i64 v = 0; v < n; ++v) row[v] = before[v] + step;
        row[u] = T(0);
      }
      for (i64 u0 = 0; u0 < n; u0 += block)
        for (i64 v0 = 0; v0 < n; v0 += block)
          for (i64 u = u0; u < std::min(u0 + block, n); ++u)
            for (i64 v = v0; v < std::min(v0 + block, n); ++v)
              if (rank[u] < rank[v]) m[u * n + v] = m[v * n + u];
    }
  });
}

/// dx (lines,n) from the gradient g (lines,n,n) of line_log_mask of the log decays x.
template <class T>
void line_log_mask_backward(Cpu, i64 lines, i64 n, const i64* order, const T* x, const T* g,
                            T* dx) {
  parallel_for(lines, 1 + 16384 / (n * n), [=](i64 begin, i64 end) {
    const Workspace<T> room(2 * n);
    T *const dc = room.data(), *const rank = room.data() + n;  // both by token
    for (i64 line = begin; line < end; ++line) {
      for (i64 i = 0; i < n; ++i) rank[order != nullptr ? order[i] : i] = static_cast<T>(i);
      std::fill_n(dc, n, T(0));
      const T* const gm = g + line * n * n;
      // -|c_u - c_v| = c_u - c_v where u comes after v, c_v - c_u where it comes before.
      for (i64 u = 0; u < n; ++u) {
        T total = 0;
        for (i64 v = 0; v < n; ++v) {
          const T y = rank[u] > rank[v] ? gm[u * n + v] : rank[u] < rank[v] ? -gm[u * n + v] : T(0);
          total += y;
          dc[v] -= y;
        }
        dc[u] += total;
      }
      T sum = 0;
      for (i64 i = n - 1; i >= 0; --i) {
        const i64 u = order != nullptr ? order[i] : i;
        sum += dc[u];
        dx[line * n + u] = i > 0 && !is_closed(x[line * n + u]) ? sum : T(0);
      }
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/line_mask.cuh"
#endif

#include "ppma/core/names_end.hpp"
