#pragma once
#include "ppma/core/names_begin.hpp"
// Restrictions of a mask to the lines of the grid on the GPU: a thread an entry of the lines.

#include "ppma/core/cuda.cuh"
#include "ppma/core/device.hpp"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// lines = the mask's entries, or back where `back`; each entry of the lines is one of the mask.
template <class T, bool back>
__global__ void __launch_bounds__(256)
    restrict_entries(i64 total, i64 height, i64 width, bool rows, T* mask, T* lines) {
  const i64 n = height * width, count = rows ? height : width, length = rows ? width : height,
            step = rows ? 1 : width;
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const i64 v = e % length, u = e / length % length, line = e / (length * length) % count,
              g = e / (length * length * count);
    const i64 first = rows ? line * width : line,
              at = (g * n + first + u * step) * n + first + v * step;
    if (back)
      mask[at] = lines[e];
    else
      lines[e] = mask[at];
  }
}

}  // namespace detail

template <class T>
void restrict_mask(Cuda, i64 heads, i64 height, i64 width, bool rows, const T* mask, T* lines) {
  const i64 total = heads * height * width * (rows ? width : height);
  detail::restrict_entries<T, false><<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(
      total, height, width, rows, const_cast<T*>(mask), lines);
  cuda::launched("restrict_to_lines");
}

template <class T>
void restrict_mask_backward(Cuda, i64 heads, i64 height, i64 width, bool rows, const T* dlines,
                            T* dmask) {
  const i64 total = heads * height * width * (rows ? width : height);
  detail::restrict_entries<T, true><<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(
      total, height, width, rows, dmask, const_cast<T*>(dlines));
  cuda::launched("restrict_to_lines");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
