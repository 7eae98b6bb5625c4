#pragma once
#include "ppma/core/names_begin.hpp"
// Permuted axes and blocks of rows on the GPU.

#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::kernels {

inline void copy_rows(Cuda, i64 rows, i64 bytes, const void* from, i64 from_step, void* to,
                      i64 to_step) {
  if (bytes == 0 || rows == 0) return;
  if (bytes == from_step && bytes == to_step) bytes *= rows, rows = 1, from_step = to_step = bytes;
  if (rows == 1) from_step = to_step = bytes;
  cuda::require(
      cudaMemcpy2DAsync(to, static_cast<std::size_t>(to_step), from,
                        static_cast<std::size_t>(from_step), static_cast<std::size_t>(bytes),
                        static_cast<std::size_t>(rows), cudaMemcpyDeviceToDevice, cuda::stream()),
      "copy of rows");
}

namespace detail {

struct Strides {
  int rank = 0;
  i64 size[Shape::max_rank] = {}, step[Shape::max_rank] = {};
};

// Written in order; reads that jump share their cache lines with the neighbours'.
template <class T, class I>
__global__ void __launch_bounds__(256) permute_elements(I n, Strides s, const T* x, T* y) {
  for (I i = static_cast<I>(cuda::first()); i < n; i += static_cast<I>(cuda::stride())) {
    I rest = i, at = 0;
#pragma unroll
    for (int k = Shape::max_rank - 1; k >= 0; --k) {
      if (k >= s.rank) continue;
      const I size = static_cast<I>(s.size[k]), next = rest / size;
      at += (rest - next * size) * static_cast<I>(s.step[k]);
      rest = next;
    }
    y[i] = x[at];
  }
}

}  // namespace detail

template <class T>
void permute(Cuda, const Shape& shape, const int* axes, const T* x, T* y) {
  const i64 n = shape.numel();
  if (n == 0) return;
  detail::Strides s;
  for (int k = 0; k < shape.rank(); ++k) {
    const int a = axes[k];
    const i64 size = shape[a], step = shape.product(a + 1, shape.rank());
    if (size == 1) continue;
    if (s.rank > 0 && s.step[s.rank - 1] == step * size)
      s.size[s.rank - 1] *= size, s.step[s.rank - 1] = step;
    else
      s.size[s.rank] = size, s.step[s.rank] = step, ++s.rank;
  }
  const unsigned blocks = cuda::blocks(n, 256, 132 * 256);
  if (n < (i64{1} << 31) - (i64{1} << 26))
    detail::permute_elements<T, u32>
        <<<blocks, 256, 0, cuda::stream()>>>(static_cast<u32>(n), s, x, y);
  else
    detail::permute_elements<T, i64><<<blocks, 256, 0, cuda::stream()>>>(n, s, x, y);
  cuda::launched("permute");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
