#pragma once
#include "ppma/core/names_begin.hpp"
// Nine maps of a small grid, one a tap of a 3x3 convolution, resized and added where their taps see
// them, on the GPU.
//
// Forward a thread walks down a column of the output. Of each map and row of taps it keeps the two
// small rows between which it is, already resized along the row, so that a small row is read once:
// six packs a row of taps. Backward a thread has one small cell and gathers from the outputs near
// it, along a row first: each is read once for all nine taps.
// Floor: z of all maps and y read, the output written once (16 x 128 x 128 x 512 bf16 and maps of a
// half, a quarter, an eighth: 1.3 GB, 0.31 ms at 4.3 TB/s).

#include <span>

#include "ppma/kernels/cuda/resize.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int taps_maps = 3;    // at once
inline constexpr int taps_strip = 32;  // rows of the output a thread

/// A map's grid, its taps (h, then w outputs) and z.
template <class T>
struct TapsLevel {
  int height, width;
  const ResizeTap<acc_t<T>>* taps;
  const T* z;
};
template <class T>
struct TapsLevels {
  TapsLevel<T> at[taps_maps];
};

// Block (columns x packs, strip of rows, image). L maps.
template <class T, int V, int L>
__global__ void __launch_bounds__(256, sizeof(acc_t<T>) == 4 ? 2 : 1)
    taps_outputs(int h, int w, unsigned packs, TapsLevels<T> levels, const T* y, T* out) {
  using A = acc_t<T>;
  const unsigned e = blockIdx.x * 256 + threadIdx.x;
  const int j = static_cast<int>(e / packs), first = static_cast<int>(blockIdx.y) * taps_strip,
            last = ::min(h, first + taps_strip);
  if (j >= w) return;
  const i64 channels = static_cast<i64>(packs) * V, at = e % packs * static_cast<i64>(V);
  A held[L][3][2][V];
  int low[L][3];  // of the two small rows held
#pragma unroll
  for (int l = 0; l < L; ++l)
#pragma unroll
    for (int ty = 0; ty < 3; ++ty) low[l][ty] = -2;

  for (int i = first; i < last; ++i) {
    const i64 to = ((static_cast<i64>(blockIdx.z) * h + i) * w + j) * channels + at;
    A sum[V];
    load_pack<V>(y + to, sum);
#pragma unroll
    for (int l = 0; l < L; ++l) {
      const TapsLevel<T>& map = levels.at[l];
      // v = sum over tx of the small row i, resized, where the tap sees it
      const auto load = [&](int ty, int row, A(&v)[V]) {
        const T* const from =
            map.z + (static_cast<i64>(blockIdx.z) * map.height + row) * map.width * 9 * channels +
            3 * ty * channels + at;
#pragma unroll
        for (int k = 0; k < V; ++k) v[k] = 0;
#pragma unroll
        for (int tx = 0; tx < 3; ++tx) {
          const int seen = j + tx - 1;
          if (seen < 0 || seen >= w) continue;
          const ResizeTap<A> col = map.taps[h + seen];
          A a[V], b[V];
          load_pack<V>(from + (col.low * i64{9} + tx) * channels, a);
          load_pack<V>(from + (col.high * i64{9} + tx) * channels, b);
#pragma unroll
          for (int k = 0; k < V; ++k) v[k] += (1 - col.f) * a[k] + col.f * b[k];
        }
      };
#pragma unroll
      for (int ty = 0; ty < 3; ++ty) {
        const int seen = i + ty - 1;
        if (seen < 0 || seen >= h) continue;
        const ResizeTap<A> row = map.taps[seen];
        if (row.low != low[l][ty]) {
          if (row.low == low[l][ty] + 1) {
#pragma unroll
            for (int k = 0; k < V; ++k) held[l][ty][0][k] = held[l][ty][1][k];
          } else {
            load(ty, row.low, held[l][ty][0]);
          }
          load(ty, row.high, held[l][ty][1]);
          low[l][ty] = row.low;
        }
#pragma unroll
        for (int k = 0; k < V; ++k)
          sum[k] += (1 - row.f) * held[l][ty][0][k] + row.f * held[l][ty][1][k];
      }
    }
    store_pack<V>(out + to, sum);
  }
}

// dz (lines of all images, width, 9, packs V); ranges and taps as resize_inputs has them.
template <class T, int V>
__global__ void __launch_bounds__(256)
    taps_inputs(i64 lines, int height, int h, int width, int w, unsigned packs,
                const ResizeTap<acc_t<T>>* taps, const ResizeRange* ranges, const T* dy, T* dz) {
  using A = acc_t<T>;
  const unsigned e = blockIdx.x * 256 + threadIdx.x;
  const int j = static_cast<int>(e / packs);
  if (j >= width) return;
  const i64 channels = static_cast<i64>(packs) * V, at = e % packs * static_cast<i64>(V);
  const ResizeRange beside = ranges[height + j];
  const int left = ::max(beside.begin - 1, 0), right = ::min(beside.end + 1, w);
  const auto share_of_col = [&](int seen) {
    return seen >= 0 && seen < w ? taps[h + seen].share(j) : A(0);
  };
  for (i64 line = blockIdx.y; line < lines; line += gridDim.y) {
    const i64 image = line / height;
    const int i = static_cast<int>(line - image * height);
    const auto share_of_row = [&](int seen) {
      return seen >= 0 && seen < h ? taps[seen].share(i) : A(0);
    };
    A sum[3][3][V] = {};
    const ResizeRange above = ranges[i];
    for (int a = ::max(above.begin - 1, 0); a < ::min(above.end + 1, h); ++a) {
      const A down[3] = {share_of_row(a - 1), share_of_row(a), share_of_row(a + 1)};
      if (down[0] == 0 && down[1] == 0 && down[2] == 0) continue;
      const T* const from = dy + (image * h + a) * w * channels + at;
      A across[3][V] = {}, shares[3] = {A(0), share_of_col(left - 1), share_of_col(left)};
      for (int b = left; b < right; ++b) {
        shares[0] = shares[1], shares[1] = shares[2], shares[2] = share_of_col(b + 1);
        A v[V];
        load_pack<V>(from + b * channels, v);
#pragma unroll
        for (int tx = 0; tx < 3; ++tx)
#pragma unroll
          for (int k = 0; k < V; ++k) across[tx][k] += shares[tx] * v[k];
      }
#pragma unroll
      for (int ty = 0; ty < 3; ++ty)
#pragma unroll
        for (int tx = 0; tx < 3; ++tx)
#pragma unroll
          for (int k = 0; k < V; ++k) sum[ty][tx][k] += down[ty] * across[tx][k];
    }
#pragma unroll
    for (int tap = 0; tap < 9; ++tap)
      store_pack<V>(dz + ((line * width + j) * 9 + tap) * channels + at, sum[tap / 3][tap % 3]);
  }
}

}  // namespace detail

template <class T>
void add_resized_taps(Cuda, i64 batch, i64 channels, std::span<const TapsMap<T>> maps, const T* y,
                      T* out) {
  using A = acc_t<T>;
  const i64 h = maps[0].rows.n, w = maps[0].cols.n;
  check(batch < 65536 && h < (i64{1} << 20) && w * channels < (i64{1} << 31),
        "conv2d_of_resized: ", batch, " maps of ", h, " x ", w, " with ", channels,
        " channels are too many for the GPU");
  const Workspace<detail::ResizeTap<A>> taps(static_cast<i64>(maps.size()) * (h + w), Device::cuda);
  const auto run = [&](auto v, auto l, const detail::TapsLevels<T>& levels, const T* from) {
    constexpr int V = decltype(v)::value;
    const dim3 grid(static_cast<unsigned>((w * channels / V + 255) / 256),
                    static_cast<unsigned>((h + detail::taps_strip - 1) / detail::taps_strip),
                    static_cast<unsigned>(batch));
    detail::taps_outputs<T, V, decltype(l)::value>
        <<<grid, 256, 0, cuda::stream()>>>(static_cast<int>(h), static_cast<int>(w),
                                           static_cast<unsigned>(channels / V), levels, from, out);
    cuda::launched("conv2d_of_resized");
  };
  const std::size_t most = detail::taps_maps;
  for (std::size_t first = 0; first < maps.size();) {
    // three at once, or one
    const std::size_t count = maps.size() - first >= most ? most : 1;
    detail::TapsLevels<T> levels{};
    for (std::size_t l = 0; l < count; ++l) {
      const TapsMap<T>& map = maps[first + l];
      detail::ResizeTap<A>* const of_map = taps.data() + static_cast<i64>(first + l) * (h + w);
      detail::resize_axes<<<cuda::blocks(h + w, 128), 128, 0, cuda::stream()>>>(
          map.rows, map.cols, of_map, static_cast<detail::ResizeRange*>(nullptr));
      levels.at[l] = {static_cast<int>(map.rows.size), static_cast<int>(map.cols.size), of_map,
                      map.z};
    }
    const T* const from = first == 0 ? y : out;
    const auto by_width = [&](auto l) {
      constexpr int V = sizeof(T) == 8 ? 2 : 4;
      if (channels % V == 0)
        run(std::integral_constant<int, V>{}, l, levels, from);
      else
        run(std::integral_constant<int, 1>{}, l, levels, from);
    };
    if (count == most)
      by_width(std::integral_constant<int, detail::taps_maps>{});
    else
      by_width(std::integral_constant<int, 1>{});
    first += count;
  }
}

template <class T>
void resized_taps_backward(Cuda, i64 batch, i64 channels, const Axis& rows, const Axis& cols,
                           const T* dy, T* dz) {
  const int height = static_cast<int>(rows.size), h = static_cast<int>(rows.n),
            width = static_cast<int>(cols.size), w = static_cast<int>(cols.n);
  detail::with_axes<T>(
      channels, rows, cols, true, [&](auto v, unsigned packs, auto* taps, auto* ranges) {
        detail::taps_inputs<T, decltype(v)::value>
            <<<detail::resize_grid(width, packs, batch * height), 256, 0, cuda::stream()>>>(
                batch * height, height, h, width, w, packs, taps, ranges, dy, dz);
      });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
