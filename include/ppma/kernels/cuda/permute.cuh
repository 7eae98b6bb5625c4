#pragma once
#include "ppma/core/names_begin.hpp"
// Permuted axes and blocks of rows on the GPU.

#include <cstdint>

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

// Images (batch, 3, pixels) to channels last. A warp has neighbouring pixels, 16 bytes of each
// channel a lane, and exchanges them so that it writes in order as well.
template <class T>
__global__ void __launch_bounds__(256) interleave_three(i64 packs, i64 pixels, const T* x, T* y) {
  constexpr int V = 16 / static_cast<int>(sizeof(T));
  struct Pack {
    alignas(16) T of[V];
  };
  __shared__ Pack pieces[8][96];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const i64 first = blockIdx.x * i64{256} + warp * 32, at = first + lane;
  if (at < packs) {
    const i64 row = pixels / V, image = at / row;
    Pack channel[3];
#pragma unroll
    for (int c = 0; c < 3; ++c)
      channel[c] = *reinterpret_cast<const Pack*>(x + (image * 3 + c) * pixels + at % row * V);
#pragma unroll
    for (int k = 0; k < 3; ++k) {
      Pack mixed;
#pragma unroll
      for (int i = 0; i < V; ++i) mixed.of[i] = channel[(k * V + i) % 3].of[(k * V + i) / 3];
      pieces[warp][lane * 3 + k] = mixed;
    }
  }
  __syncwarp();
#pragma unroll
  for (int k = 0; k < 3; ++k)
    if (first * 3 + k * 32 + lane < packs * 3)
      reinterpret_cast<Pack*>(y)[first * 3 + k * 32 + lane] = pieces[warp][k * 32 + lane];
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
  if constexpr (sizeof(T) < 8) {
    constexpr i64 V = 16 / static_cast<i64>(sizeof(T));
    const int last = s.rank - 1;
    const i64 pixels = s.rank >= 2 ? s.size[last - 1] : 0, packs = n / (3 * V);
    const bool whole = s.rank == 2 || (s.rank == 3 && s.step[0] == 3 * pixels);
    if (whole && s.size[last] == 3 && s.step[last] == pixels && s.step[last - 1] == 1 &&
        pixels % V == 0 && packs < i64{256} << 31 &&
        reinterpret_cast<std::uintptr_t>(x) % 16 == 0) {
      detail::
          interleave_three<<<static_cast<unsigned>((packs + 255) / 256), 256, 0, cuda::stream()>>>(
              packs, pixels, x, y);
      return cuda::launched("permute");
    }
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
