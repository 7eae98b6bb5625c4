#pragma once
#include "ppma/core/names_begin.hpp"
// Where results of map.cuh go: to a map in shared memory, or to memory.

#include "ppma/kernels/cuda/criss_cross/map_parts.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// 16 rows of a line to a map.
template <bool rows, int D>
__device__ __forceinline__ void to_map(const Map<D>& map, int line, int first, int length, int lane,
                                       const float (&c)[D / 8][4]) {
#pragma unroll
  for (int j = 0; j < D / 8; ++j) {
    const unsigned at = map.template pack<rows>(line, lane / 4, j) + lane % 4 * 4u;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int eights = first / 8 + r;
      store_shared(at + static_cast<unsigned>(eights) * map.template eight<rows>(),
                   detail::rounded_pair(c[j][2 * r], c[j][2 * r + 1]),
                   8 * eights + lane / 4 < length);
    }
  }
}
/// 16 rows of a line, plus those of a map, to memory: lanes exchange halves, so that each writes 8
/// bytes in a row.
template <bool rows, int D, bool add>
__device__ __forceinline__ void to_memory(bf16* y, const Grid& g, int line, int first, int lane,
                                          const float (&c)[D / 8][4], const Map<D>& plus) {
  const Way<rows> way(g);
  const bool odd = lane % 2 == 1;
  char* const to =
      reinterpret_cast<char*>(y + static_cast<i64>(line * way.line_step) * g.channels) +
      16 * (lane % 2) + lane % 4 / 2 * 8;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int position = first + 8 * r + lane / 4, clamped = ::min(position, way.length - 1);
    char* const here = to + static_cast<u64>(static_cast<unsigned>(position)) *
                                static_cast<unsigned>(way.step * g.channels * 2);
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
      unsigned pair[2];
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        float low = c[j + u][2 * r], high = c[j + u][2 * r + 1];
        if constexpr (add) {
          const unsigned more =
              load_shared(plus.template pack<rows>(line, clamped, j + u) + lane % 4 * 4u);
          low += __uint_as_float(more << 16), high += __uint_as_float(more & 0xffff0000u);
        }
        pair[u] = detail::rounded_pair(low, high);
      }
      // an even lane writes four channels of pack j, an odd one of pack j + 1
      const unsigned other = __shfl_xor_sync(~0u, odd ? pair[0] : pair[1], 1);
      const uint2 four = odd ? make_uint2(other, pair[1]) : make_uint2(pair[0], other);
      if (position < way.length) *reinterpret_cast<uint2*>(here + 16 * j) = four;
    }
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
