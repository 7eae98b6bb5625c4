#pragma once
#include "ppma/core/names_begin.hpp"
// Where results of map.cuh go: to a map in shared memory, or to memory.

#include "ppma/kernels/cuda/criss_cross/map_parts.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Whether a lane's row of eight is one of the line: only the last eight rows of 8 NT may end.
template <int NT>
__device__ __forceinline__ bool in_line(int eights, int length, int lane) {
  return eights < NT - 1 || 8 * eights + lane / 4 < length;
}
/// 16 rows of a line of at most 8 NT tokens to a map.
template <bool rows, int D, int NT>
__device__ __forceinline__ void to_map(const Map<D>& map, int line, int first, int length, int lane,
                                       const float (&c)[D / 8][4]) {
#pragma unroll
  for (int j = 0; j < D / 8; ++j) {
    const unsigned at = map.template pack<rows>(line, lane / 4, j) + lane % 4 * 4u;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int eights = first / 8 + r;
      if (eights >= NT) continue;
      store_shared(at + static_cast<unsigned>(eights) * map.template eight<rows>(),
                   detail::rounded_pair(c[j][2 * r], c[j][2 * r + 1]),
                   in_line<NT>(eights, length, lane));
    }
  }
}
/// 16 rows of a line, plus those of a map, to memory: lanes exchange halves, so that each writes 8
/// bytes in a row.
template <bool rows, int D, int NT, bool add>
__device__ __forceinline__ void to_memory(bf16* y, const Grid& g, int line, int first, int lane,
                                          const float (&c)[D / 8][4], const Map<D>& plus) {
  const Way<rows> way(g);
  const bool odd = lane % 2 == 1;
  const int token = line * way.line_step + lane / 4 * way.step;
  char* const to = reinterpret_cast<char*>(y + static_cast<i64>(token) * g.channels) +
                   16 * (lane % 2) + lane % 4 / 2 * 8;
  const unsigned eight = static_cast<unsigned>(8 * way.step * g.channels * 2);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int eights = first / 8 + r;
    if (eights >= NT) continue;
    const bool there = in_line<NT>(eights, way.length, lane);
    // A row behind the end reads the last one.
    const int from = eights < NT - 1 ? lane / 4 : ::min(8 * eights + lane / 4, way.length - 1);
    const unsigned behind =
        eights < NT - 1 ? static_cast<unsigned>(eights) * plus.template eight<rows>() : 0;
#pragma unroll
    for (int j = 0; j < D / 8; j += 2) {
      unsigned pair[2];
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        float low = c[j + u][2 * r], high = c[j + u][2 * r + 1];
        if constexpr (add) {
          const unsigned more =
              load_shared(plus.template pack<rows>(line, from, j + u) + lane % 4 * 4u + behind);
          low += __uint_as_float(more << 16), high += __uint_as_float(more & 0xffff0000u);
        }
        pair[u] = detail::rounded_pair(low, high);
      }
      // an even lane writes four channels of pack j, an odd one of pack j + 1
      const unsigned other = __shfl_xor_sync(~0u, odd ? pair[0] : pair[1], 1);
      const uint2 four = odd ? make_uint2(other, pair[1]) : make_uint2(pair[0], other);
      if (there) *reinterpret_cast<uint2*>(to + static_cast<u64>(eights) * eight + 16 * j) = four;
    }
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
