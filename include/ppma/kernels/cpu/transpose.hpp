#pragma once
#include "ppma/core/names_begin.hpp"
// Transpose of a square block in registers: the quick way from (out, in) weights to panels along
// `out`.

#include <utility>

#include "ppma/core/config.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

// Exchanges the off-diagonal step x step blocks of rows a and b: lane l of a keeps its value where
// (l & step) is 0 and takes b[l - step] elsewhere; b the other way round.
template <class T, std::size_t step, std::size_t... l>
PPMA_INLINE void exchange_blocks(Vec<T>& a, Vec<T>& b, std::index_sequence<l...>) {
#if PPMA_CUDA  // nvcc 13 hands the pack to the host compiler unexpanded
  const Vec<T> a0 = a, b0 = b;
  ((a[l] = (l & step) == 0 ? a0[l] : b0[l & ~step], b[l] = (l & step) == 0 ? a0[l | step] : b0[l]),
   ...);
#else
  constexpr std::size_t n = sizeof...(l);
  const Vec<T> low = __builtin_shufflevector(a, b, ((l & step) == 0 ? l : n + l - step)...);
  b = __builtin_shufflevector(a, b, ((l & step) == 0 ? l + step : n + l)...);
  a = low;
#endif
}

template <class T, std::size_t step>
PPMA_INLINE void exchange_rows(Vec<T> (&row)[static_cast<std::size_t>(lanes<T>)]) {
  constexpr std::size_t n = static_cast<std::size_t>(lanes<T>);
  if constexpr (step < n) {
    PPMA_UNROLL
    for (std::size_t r = 0; r < n; ++r)
      if ((r & step) == 0)
        exchange_blocks<T, step>(row[r], row[r + step], std::make_index_sequence<n>{});
    exchange_rows<T, 2 * step>(row);
  }
}

}  // namespace detail

/// row[i][j] becomes row[j][i]; lanes x lanes.
template <class T>
PPMA_INLINE void transpose_block(Vec<T> (&row)[static_cast<std::size_t>(lanes<T>)]) {
  detail::exchange_rows<T, 1>(row);
}

/// Packs `rows` (<= 2 lanes) rows of B^T, `step` apart and `run` elements long, into a panel two
/// vectors wide: element u of every row goes to line to_line(u), unless that is negative. Missing
/// rows become zeros.
template <class T, class F>
void pack_rows(const T* from, i64 step, i64 rows, i64 run, T* panel, F&& to_line) {
  constexpr i64 w = lanes<T>;
  for (i64 half = 0; half < 2; ++half)
    for (i64 u0 = 0; u0 < run; u0 += w) {
      Vec<T> block[static_cast<std::size_t>(w)];
      const i64 cols = run - u0 < w ? run - u0 : w;
      for (i64 j = 0; j < w; ++j) {
        const T* const f = from + (half * w + j) * step + u0;
        // this many rows at once are too many streams for the hardware's prefetcher
        __builtin_prefetch(f + 8 * w);
        block[j] = half * w + j >= rows ? Vec<T>{} : cols == w ? load(f) : load_some(f, cols);
      }
      transpose_block<T>(block);
      for (i64 u = 0; u < cols; ++u)
        if (const i64 line = to_line(u0 + u); line >= 0)
          store(panel + (2 * line + half) * w, block[u]);
    }
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
