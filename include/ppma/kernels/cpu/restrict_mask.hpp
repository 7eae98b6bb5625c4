#pragma once
#include "ppma/core/names_begin.hpp"
// The entries of an N x N mask within each row or column of the grid.

#include "ppma/core/device.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

// Calls f(entry of a mask (heads,N,N), entry of its restriction to rows (heads,H,W,W) or columns
// (heads,W,H,H)).
template <class F>
void for_restriction(i64 heads, i64 height, i64 width, bool rows, F f) {
  const i64 n = height * width, count = rows ? height : width, length = rows ? width : height,
            step = rows ? 1 : width;
  for (i64 g = 0; g < heads; ++g)
    for (i64 line = 0; line < count; ++line) {
      const i64 first = rows ? line * width : line;
      for (i64 u = 0; u < length; ++u)
        for (i64 v = 0; v < length; ++v)
          f((g * n + first + u * step) * n + first + v * step,
            ((g * count + line) * length + u) * length + v);
    }
}

}  // namespace detail

/// lines = the entries of a mask (heads,N,N) within each row (heads,H,W,W) or column (heads,W,H,H)
/// of the grid.
template <class T>
void restrict_mask(Cpu, i64 heads, i64 height, i64 width, bool rows, const T* mask, T* lines) {
  detail::for_restriction(heads, height, width, rows,
                          [=](i64 from, i64 to) { lines[to] = mask[from]; });
}
/// dmask (zeros) = dlines there.
template <class T>
void restrict_mask_backward(Cpu, i64 heads, i64 height, i64 width, bool rows, const T* dlines,
                            T* dmask) {
  detail::for_restriction(heads, height, width, rows,
                          [=](i64 to, i64 from) { dmask[to] = dlines[from]; });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/restrict_mask.cuh"
#endif

#include "ppma/core/names_end.hpp"
