#pragma once
#include "ppma/core/names_begin.hpp"
// The tiles of tensor_short.cuh: a line of four heads of one tensor each, whose rows all threads of
// a block load and write together, 16 bytes (a pack) each. A row is 128 or 256 bytes; its packs are
// swapped among eight, by the row's number, so that products find eight rows' packs in other banks
// and a row is whole lines of 128 bytes: a warp's copy to rows of 144 took 9.6 wavefronts, of
// which 4 are needed.

#include "ppma/kernels/cuda/criss_cross/lines.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

inline constexpr int short_threads = 128, short_heads = 4;
/// Bytes of a row, and of a tile of 8 NT rows, rounded up to 16.
template <int D>
inline constexpr int short_row = 2 * D* short_heads;
template <int D, int NT>
inline constexpr int short_tile = (NT + 1) / 2 * 16 * short_row<D>;

/// Where a lane begins in a tile, in bytes: in its head's columns.
template <int D>
struct Place {
  // the row lane % 16 of left factors, and of right ones of sums over rows; lane % 8 and 8 rows
  // below of those of products of rows; lane / 4 of results
  unsigned left, right, result;
  __device__ __forceinline__ explicit Place(int head) {
    const unsigned lane = threadIdx.x % 32, first = static_cast<unsigned>(head) * (D / 8);
    const auto at = [&](unsigned row, unsigned pack) {
      return row * short_row<D> + 16 * ((first + pack) ^ row % 8);
    };
    left = at(lane % 16, lane / 16), right = at(lane / 16 * 8 + lane % 8, lane / 8 % 2);
    result = at(lane / 4, 0) + lane % 4 * 4;
  }
  /// The same of a pack further on; its bits are none of the head's.
  __device__ __forceinline__ static unsigned pack(unsigned at, int pack) {
    return at ^ static_cast<unsigned>(16 * pack);
  }
};

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
/// 16 rows of a head, or the first 8, rounded and then times f (two bf16, powers of two).
template <int D>
using Packed = unsigned[D / 8][2];
template <int D, int rows = 16>
__device__ __forceinline__ void pack_rows(Packed<D>& to, const float (&c)[D / 8][4]) {
#pragma unroll
  for (int j = 0; j < D / 8; ++j)
#pragma unroll
    for (int r = 0; r < rows / 8; ++r)
      to[j][r] = detail::rounded_pair(c[j][2 * r], c[j][2 * r + 1]);
}
template <int D, int rows = 16>
__device__ __forceinline__ void pack_rows(Packed<D>& to, const float (&c)[D / 8][4], unsigned f) {
  pack_rows<D, rows>(to, c);
#pragma unroll
  for (int j = 0; j < D / 8; ++j)
#pragma unroll
    for (int r = 0; r < rows / 8; ++r) to[j][r] = multiply_pairs(to[j][r], f);
}
/// Those to a tile's rows from `at` on, the head's columns.
template <int D, int rows = 16>
__device__ __forceinline__ void put_rows(unsigned char* at, unsigned place, const Packed<D>& c) {
#pragma unroll
  for (int j = 0; j < D / 8; ++j)
#pragma unroll
    for (int r = 0; r < rows / 8; ++r)
      *reinterpret_cast<unsigned*>(at + Place<D>::pack(place, j) + 8 * r * short_row<D>) = c[j][r];
}

/// What a thread has of every tile: the same 16 bytes of each `rows`-th row.
template <int D, int NT>
struct Rows {
  static constexpr int packs = short_row<D> / 16, rows = short_threads / packs,
                       padded = (NT + 1) / 2 * 16, count = padded / rows;
  static_assert(rows % 8 == 0, "packs of a thread's rows are swapped alike");
  i64 from;         // of the line's first token
  int row, length;  // 0 where there is no such head
  unsigned step;    // elements from token to token
  unsigned place;   // in a tile, bytes
  __device__ __forceinline__ Rows(const Lines& s, const Spot& here, unsigned thread)
      : from(here.at + static_cast<int>(thread) % packs * 8),
        row(static_cast<int>(thread) / packs),
        length(static_cast<int>(thread) % packs * 8 < here.heads * D ? s.length : 0),
        step(static_cast<unsigned>(here.row_step)),
        place(thread / packs * short_row<D> + 16 * (thread % packs ^ thread / packs % 8)) {}
  __device__ __forceinline__ bool there(int i) const { return row + i * rows < length; }
  __device__ __forceinline__ unsigned offset(int i) const {
    return static_cast<unsigned>(row + i * rows) * step;
  }

  /// The line's vectors of `n` tensors into tiles behind each other, in the background; zeros where
  /// there is nothing.
  template <int n>
  __device__ __forceinline__ void fetch(unsigned char* tiles, const bf16* const (&x)[n]) const {
    const bf16* begin[n];
#pragma unroll
    for (int t = 0; t < n; ++t) begin[t] = x[t] + from;
#pragma unroll
    for (int i = 0; i < count; ++i) {
      const unsigned at = offset(i);
#pragma unroll
      for (int t = 0; t < n; ++t)
        detail::copy_async_once(reinterpret_cast<bf16*>(tiles + place + t * short_tile<D, NT> +
                                                        i * rows * short_row<D>),
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
  /// What write() will add, if there is any.
  using Vectors = uint4[count];
  __device__ __forceinline__ void load(Vectors& before, const bf16* x, bool any) const {
#pragma unroll
    for (int i = 0; i < count; ++i)
      before[i] = any && there(i) ? *reinterpret_cast<const uint4*>(x + from + offset(i)) : uint4{};
  }
  /// to = tile
  __device__ __forceinline__ void write(bf16* to, const unsigned char* tile) const {
#pragma unroll
    for (int i = 0; i < count; ++i)
      if (there(i))
        *reinterpret_cast<uint4*>(to + from + offset(i)) =
            *reinterpret_cast<const uint4*>(tile + place + i * rows * short_row<D>);
  }
  /// to = tile + before
  __device__ __forceinline__ void write(bf16* to, const unsigned char* tile,
                                        const Vectors& before) const {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      if (!there(i)) continue;
      const uint4 x = *reinterpret_cast<const uint4*>(tile + place + i * rows * short_row<D>);
      *reinterpret_cast<uint4*>(to + from + offset(i)) = {
          add_pairs(x.x, before[i].x), add_pairs(x.y, before[i].y), add_pairs(x.z, before[i].z),
          add_pairs(x.w, before[i].w)};
    }
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
