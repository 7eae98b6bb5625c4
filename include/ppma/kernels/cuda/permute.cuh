#pragma once
#include "ppma/core/names_begin.hpp"
// Permuted axes, and blocks of rows, copied or added, on the GPU. Floor: what is moved, read and
// written once.

#include <cstdint>

#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// n packs P, `each` of them a row: what lies at distance from_step is put at distance to_step.
template <class P, class I>
__global__ void __launch_bounds__(256)
    copy_packs(I n, I each, const char* from, i64 from_step, char* to, i64 to_step) {
  for (I i = static_cast<I>(cuda::first()); i < n; i += static_cast<I>(cuda::stride())) {
    const I row = i / each, at = i - row * each;
    reinterpret_cast<P*>(to + row * to_step)[at] =
        reinterpret_cast<const P*>(from + row * from_step)[at];
  }
}

// As above, added to what is there.
template <class T, int V, class I>
__global__ void __launch_bounds__(256)
    add_packs(I n, I each, const T* from, i64 from_step, T* to, i64 to_step) {
  for (I i = static_cast<I>(cuda::first()); i < n; i += static_cast<I>(cuda::stride())) {
    const I row = i / each, at = (i - row * each) * V;
    acc_t<T> a[V], b[V];
    load_pack<V>(from + row * from_step + at, a);
    load_pack<V>(static_cast<const T*>(to) + row * to_step + at, b);
#pragma unroll
    for (int v = 0; v < V; ++v) b[v] += a[v];
    store_pack<V>(to + row * to_step + at, b);
  }
}

// f(n) with n as an unsigned integer that a loop over n packs does not leave.
template <class F>
void with_index(i64 n, F&& f) {
  if (n < (i64{1} << 31) - (i64{1} << 26))
    f(static_cast<u32>(n));
  else
    f(static_cast<u64>(n));
}

inline bool divides(i64 pack, i64 bytes, const void* from, i64 from_step, const void* to,
                    i64 to_step) {
  return (bytes | from_step | to_step | reinterpret_cast<i64>(from) | reinterpret_cast<i64>(to)) %
             pack ==
         0;
}

}  // namespace detail

// Rows are copied by a kernel: the driver's copies of short rows are many times slower.
inline void copy_rows(Cuda, i64 rows, i64 bytes, const void* from, i64 from_step, void* to,
                      i64 to_step) {
  if (bytes == 0 || rows == 0) return;
  if (rows == 1 || (bytes == from_step && bytes == to_step))
    return cuda::require(cudaMemcpyAsync(to, from, static_cast<std::size_t>(rows * bytes),
                                         cudaMemcpyDeviceToDevice, cuda::stream()),
                         "copy of rows");
  const auto by = [&](auto pack) {
    using P = decltype(pack);
    const i64 each = bytes / static_cast<i64>(sizeof(P));
    detail::with_index(rows * each, [&](auto n) {
      using I = decltype(n);
      detail::copy_packs<P, I><<<cuda::blocks(rows * each, 256), 256, 0, cuda::stream()>>>(
          n, static_cast<I>(each), static_cast<const char*>(from), from_step,
          static_cast<char*>(to), to_step);
    });
  };
  const auto divides = [&](i64 pack) {
    return detail::divides(pack, bytes, from, from_step, to, to_step);
  };
  if (divides(16))
    by(uint4{});
  else if (divides(8))
    by(uint2{});
  else if (divides(4))
    by(u32{});
  else if (divides(2))
    by(std::uint16_t{});
  else
    by(u8{});
  cuda::launched("copy of rows");
}

/// The rows of `from` (rows, cols) added to rows of `to`, both at distances in elements.
template <class T>
void add_rows(Cuda, i64 rows, i64 cols, const T* from, i64 from_step, T* to, i64 to_step) {
  if (rows == 0 || cols == 0) return;
  const auto by = [&](auto pack) {
    constexpr int V = decltype(pack)::value;
    detail::with_index(rows * cols / V, [&](auto n) {
      using I = decltype(n);
      detail::add_packs<T, V, I><<<cuda::blocks(rows * cols / V, 256), 256, 0, cuda::stream()>>>(
          n, static_cast<I>(cols / V), from, from_step, to, to_step);
    });
  };
  constexpr i64 size = sizeof(T);
  if (detail::divides(16, cols * size, from, from_step * size, to, to_step * size))
    by(std::integral_constant<int, pack_width<T>>{});
  else
    by(std::integral_constant<int, 1>{});
  cuda::launched("sum of rows");
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

template <class T>
void permute_by(const Strides& s, const void* x, void* y) {
  i64 n = 1;
  for (int k = 0; k < s.rank; ++k) n *= s.size[k];
  with_index(n, [&](auto count) {
    permute_elements<<<cuda::blocks(n, 256, 256 * cuda::device().multiProcessorCount), 256, 0,
                       cuda::stream()>>>(count, s, static_cast<const T*>(x), static_cast<T*>(y));
  });
}

// Whether elements can be moved `pack` at a time, as one wide element: they stay neighbours.
inline bool joins(Strides& s, i64 pack) {
  const int last = s.rank - 1;
  if (last < 0 || s.step[last] != 1 || s.size[last] % pack != 0) return false;
  for (int k = 0; k < last; ++k)
    if (s.step[k] % pack != 0) return false;
  s.size[last] /= pack;
  for (int k = 0; k < last; ++k) s.step[k] /= pack;
  return true;
}

}  // namespace detail

template <class T>
void permute(Cuda, const Shape& shape, const int* axes, const T* x, T* y) {
  if (shape.numel() == 0) return;
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
    const i64 pixels = s.rank >= 2 ? s.size[last - 1] : 0, packs = shape.numel() / (3 * V);
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
  constexpr i64 size = sizeof(T);
  const auto aligned = [&](i64 bytes) {
    return (reinterpret_cast<i64>(x) | reinterpret_cast<i64>(y)) % bytes == 0;
  };
  if (size < 16 && aligned(16) && detail::joins(s, 16 / size))
    detail::permute_by<uint4>(s, x, y);
  else if (size < 8 && aligned(8) && detail::joins(s, 8 / size))
    detail::permute_by<uint2>(s, x, y);
  else
    detail::permute_by<T>(s, x, y);
  cuda::launched("permute");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
