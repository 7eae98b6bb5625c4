#pragma once
#include "ppma/core/names_begin.hpp"
// The tiles of tensor_short.cuh: a line of four heads of one tensor each, whose rows all threads of
// a block load and write together, 16 bytes each.

#include "ppma/kernels/cuda/criss_cross/lines.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

inline constexpr int short_threads = 128;
template <int D, int NT>
inline constexpr int short_row = most_group<D, NT>* D;  // channels of a block: a head a warp
template <int D, int NT>
inline constexpr int short_tile = (NT + 1) / 2 * 16 * (short_row<D, NT> + 8);

/// Two bf16 each, added.
__device__ __forceinline__ unsigned add_pairs(unsigned a, unsigned b) {
  const __nv_bfloat162 sum = __hadd2(reinterpret_cast<const __nv_bfloat162&>(a),
                                     reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const unsigned&>(sum);
}
__device__ __forceinline__ unsigned multiply_pairs(unsigned a, unsigned b) {
  const __nv_bfloat162 x = __hmul2(reinterpret_cast<const __nv_bfloat162&>(a),
                                   reinterpret_cast<const __nv_bfloat162&>(b));
  return reinterpret_cast<const unsigned&>(x);
}
/// 16 rows of a head, rounded and then times f (two bf16, powers of two).
template <int D>
__device__ __forceinline__ void pack_rows(unsigned (&to)[D / 8][2], const float (&c)[D / 8][4],
                                          unsigned f) {
#pragma unroll
  for (int j = 0; j < D / 8; ++j)
    to[j][0] = multiply_pairs(detail::rounded_pair(c[j][0], c[j][1]), f),
    to[j][1] = multiply_pairs(detail::rounded_pair(c[j][2], c[j][3]), f);
}
/// Those to the head's columns of a tile.
template <int D>
__device__ __forceinline__ void put_rows(bf16* tile, int stride, const unsigned (&c)[D / 8][2]) {
  const int lane = lane_index();
  bf16* const at = tile + lane / 4 * stride + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < D / 8; ++j)
    *reinterpret_cast<unsigned*>(at + 8 * j) = c[j][0],
                                          *reinterpret_cast<unsigned*>(at + 8 * j + 8 * stride) =
                                              c[j][1];
}
template <int D>
__device__ __forceinline__ void to_tile(bf16* tile, int stride, const float (&c)[D / 8][4],
                                        unsigned f) {
  unsigned packed[D / 8][2];
  pack_rows<D>(packed, c, f);
  put_rows<D>(tile, stride, packed);
}

/// What a thread has of every tile: the same 16 bytes of each `rows`-th row.
template <int D, int NT>
struct Rows {
  static constexpr int width = short_row<D, NT>, packs = width / 8, stride = width + 8,
                       rows = short_threads / packs, padded = (NT + 1) / 2 * 16,
                       count = padded / rows;
  i64 from;         // of the line's first token
  int row, length;  // 0 where there is no such head
  unsigned step;    // elements from token to token
  unsigned place;   // in a tile
  __device__ __forceinline__ Rows(const Lines& s, const Spot& here)
      : from(here.at + static_cast<int>(threadIdx.x) % packs * 8),
        row(static_cast<int>(threadIdx.x) / packs),
        length(static_cast<int>(threadIdx.x) % packs * 8 < here.heads * D ? s.length : 0),
        step(static_cast<unsigned>(here.row_step)),
        place(threadIdx.x / packs * stride + threadIdx.x % packs * 8) {}
  __device__ __forceinline__ bool there(int i) const { return row + i * rows < length; }
  __device__ __forceinline__ unsigned offset(int i) const {
    return static_cast<unsigned>(row + i * rows) * step;
  }

  /// The line's vectors of `n` tensors into tiles behind each other, in the background; zeros where
  /// there is nothing.
  template <int n>
  __device__ __forceinline__ void fetch(bf16* tiles, const bf16* const (&x)[n]) const {
    const bf16* begin[n];
#pragma unroll
    for (int t = 0; t < n; ++t) begin[t] = x[t] + from;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const unsigned at = offset(i);
#pragma unroll
      for (int t = 0; t < n; ++t)
        detail::copy_async_once(tiles + t * short_tile<D, NT> + place + i * rows * stride,
                                begin[t] + at, there(i));
    }
  }
  /// Asks for what write() will add, so that it comes from the L2 cache.
  __device__ __forceinline__ void ask_for(const bf16* plus) const {
    if (threadIdx.x % 8 != 0) return;  // 128 bytes each
#pragma unroll
    for (int i = 0; i < count; ++i)
      if (there(i)) asm volatile("prefetch.global.L2 [%0];" ::"l"(plus + from + offset(i)));
  }
  /// to = tile, or to += tile
  __device__ __forceinline__ void write(bf16* to, const bf16* tile, bool add) const {
    to += from, tile += place;
    uint4 before[count];
#pragma unroll
    for (int i = 0; i < count; ++i)
      before[i] = add && there(i) ? *reinterpret_cast<const uint4*>(to + offset(i)) : uint4{};
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if (!there(i)) continue;
      uint4 x = *reinterpret_cast<const uint4*>(tile + i * rows * stride);
      if (add)
        x = {add_pairs(x.x, before[i].x), add_pairs(x.y, before[i].y), add_pairs(x.z, before[i].z),
             add_pairs(x.w, before[i].w)};
      *reinterpret_cast<uint4*>(to + offset(i)) = x;
    }
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
