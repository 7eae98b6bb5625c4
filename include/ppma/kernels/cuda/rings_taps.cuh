#pragma once
#include "ppma/core/names_begin.hpp"
// Gradients of the taps of rings.cuh: the same walk, with rows of dy in the registers where sums
// are there. A block adds those of its threads, each block writes a part of its own, and the parts
// are added in order. Floor: x and dy read once; 25 fused multiply-adds a number.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/reduce.cuh"
#include "ppma/kernels/cuda/rings.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int ring_lines = 4;  // columns that a block has at a time

// parts (gridDim.y,27,C). A block: 32 packs of channels, `ring_lines` columns.
template <class T, int V, bool edges>
__global__ void __launch_bounds__(32 * ring_lines, 4)
    rings_taps_back(RingsCut s, i64 columns, const T* x, const T* dy, acc_t<T>* parts) {
  using A = acc_t<T>;
  const int c = static_cast<int>(blockIdx.x * 32 + threadIdx.x) * V;
  const bool own = c < s.c;
  A tap[7][7][V] = {};
  for (i64 line = static_cast<i64>(blockIdx.y) * ring_lines + threadIdx.y; own && line < columns;
       line += static_cast<i64>(gridDim.y) * ring_lines) {
    const int column = static_cast<int>(line % s.w);
    const i64 first = line / s.w * s.h * s.w * s.c + c;
    int at[7];
#pragma unroll
    for (int k = 0; k < 7; ++k) {
      at[k] = column + ring_offset(k);
      if (edges) at[k] = held_in(at[k], s.w);
      if (at[k] < 0 || at[k] >= s.w) at[k] = -1;
    }
    A up[ring_slots][V] = {};
    for (int base = -rings_reach; base < s.h + (edges ? rings_reach : 0); base += ring_slots) {
#pragma unroll
      for (int u = 0; u < ring_slots; ++u) {
        const int q = base + u, ahead = q + rings_reach, row = edges ? held_in(q, s.h) : q;
        const bool there = edges ? q < s.h + rings_reach : q >= 0 && q < s.h;
        if (q >= s.h + (edges ? rings_reach : 0)) break;
        // rows of dy: q + 5 comes, where q - 6 was
        if (ahead < s.h)
          load_pack<V>(dy + first + (static_cast<i64>(ahead) * s.w + column) * s.c, up[u]);
        else
#pragma unroll
          for (int l = 0; l < V; ++l) up[u][l] = 0;
        if (!there) continue;
        A v[7][V];
#pragma unroll
        for (int k = 0; k < 7; ++k) {
#pragma unroll
          for (int l = 0; l < V; ++l) v[k][l] = 0;
          if (at[k] >= 0)
            load_pack<V>(x + first + (static_cast<i64>(row) * s.w + at[k]) * s.c, v[k]);
        }
#pragma unroll
        for (int j = 0; j < 7; ++j)
#pragma unroll
          for (int k = 0; k < 7; ++k)
            if (ring_tap(j, k) >= 0) {
#pragma unroll
              for (int l = 0; l < V; ++l)
                tap[j][k][l] +=
                    up[(u - rings_reach - ring_offset(j) + 2 * ring_slots) % ring_slots][l] *
                    v[k][l];
            }
      }
    }
  }
  __shared__ A room[ring_lines][32 * V];
#pragma unroll
  for (int j = 0; j < 7; ++j)
#pragma unroll
    for (int k = 0; k < 7; ++k) {
      const int t = ring_tap(j, k);
      if (t < 0) continue;
      __syncthreads();
#pragma unroll
      for (int l = 0; l < V; ++l) room[threadIdx.y][threadIdx.x * V + l] = tap[j][k][l];
      __syncthreads();
      if (threadIdx.y != 0 || !own) continue;
#pragma unroll
      for (int l = 0; l < V; ++l) {
        A total = 0;
        for (int r = 0; r < ring_lines; ++r) total += room[r][threadIdx.x * V + l];
        for (int more = t; more < rings_taps; more += j == 3 && k == 3 ? 9 : rings_taps)
          parts[(static_cast<i64>(blockIdx.y) * rings_taps + more) * s.c + c + l] = total;
      }
    }
}

}  // namespace detail

/// Gradients of the taps, (27,C).
template <class T>
void rings_dtaps(Cuda, const RingsShape& s, const T* x, const T* dy, bool edges, acc_t<T>* dtaps) {
  const detail::RingsCut cut = detail::rings_cut(s, s.w, 2);
  const i64 across = (s.c + 63) / 64, columns = s.batch * s.w,
            down = std::clamp<i64>(8 * cuda::device().multiProcessorCount / across, 1,
                                   (columns + detail::ring_lines - 1) / detail::ring_lines);
  const Workspace<acc_t<T>> parts(down * detail::rings_taps * s.c, Device::cuda);
  const auto kernel =
      edges ? detail::rings_taps_back<T, 2, true> : detail::rings_taps_back<T, 2, false>;
  kernel<<<dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)),
           dim3(32, detail::ring_lines), 0, cuda::stream()>>>(cut, columns, x, dy, parts.data());
  cuda::launched("rings");
  sum_rows(Cuda{}, down, detail::rings_taps * s.c, static_cast<const acc_t<T>*>(parts.data()),
           dtaps);
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
