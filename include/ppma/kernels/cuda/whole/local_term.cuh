#pragma once
#include "ppma/core/names_begin.hpp"
// A depthwise convolution of the values that small.cuh adds to its results: the map's values lie in
// the block's shared memory, and a lane reads there what is around its cells.

#include "ppma/kernels/cuda/whole/pieces.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// w null: none.
struct LocalTerm {
  static constexpr int k = 5, taps = k * k;
  const float *w, *bias;  // (C,1,5,5), (C) or null: parameters
};

/// The taps of a head's D channels and their bias into shared memory, in the background: rows of D,
/// the bias last.
template <int D>
__device__ __forceinline__ void copy_taps(const LocalTerm& local, int channel0, int channels,
                                          float* to) {
  constexpr int each = LocalTerm::taps + 1;
  for (int e = static_cast<int>(threadIdx.x); e < D * each; e += static_cast<int>(blockDim.x)) {
    const int c = e / each, tap = e % each;
    const bool of_bias = tap == LocalTerm::taps;
    const float* const from = of_bias ? local.bias : local.w;
    const bool there = c < channels && from != nullptr;
    detail::copy_async_one(
        to + tap * D + c,
        there ? from + (of_bias ? channel0 + c : (channel0 + c) * LocalTerm::taps + tap) : local.w,
        there);
  }
}

/// Floats from a cell of a group to the next in what local_terms() leaves.
template <int D>
inline constexpr int term_pitch = D + 8;

/// The local terms of a group's 16 cells into `terms`, by the `splits` warps of its owner: a lane
/// has eight channels of `each` neighbours, which share most of what they see.
template <int D, int splits, class Map>
__device__ __forceinline__ void local_terms(const Map& map, const float* taps, int group,
                                            float* terms) {
  constexpr int k = LocalTerm::k, pieces = D / 8,
                each = pieces > 2 * splits ? pieces / 2 / splits : 1;
  const int unit = map.part * 32 + map.lane, c = unit % pieces * 8, first = unit / pieces * each,
            line = group * Map::lines_a_group + first / Map::padded, at = first % Map::padded;
  if (first >= 16) return;
  float v[each][8];
#pragma unroll
  for (int i = 0; i < each; ++i) load_pack<8>(taps + LocalTerm::taps * D + c, v[i]);
#pragma unroll 1
  for (int ky = 0; ky < k; ++ky) {
    const int l = line + ky - k / 2;
    if (l < 0 || l >= map.lines) continue;
    uint4 raw[each + k - 1];
#pragma unroll
    for (int x = 0; x < each + k - 1; ++x) {
      const int column = at + x - k / 2;
      raw[x] = column >= 0 && column < map.length
                   ? *reinterpret_cast<const uint4*>(map.tokens +
                                                     Map::place(1, l * Map::padded + column, c))
                   : uint4{};
    }
#pragma unroll
    for (int kx = 0; kx < k; ++kx) {
      float w[8];
      load_pack<8>(taps + (ky * k + kx) * D + c, w);
#pragma unroll
      for (int i = 0; i < each; ++i) {
        float seen[8];
        load_pack<8>(reinterpret_cast<const bf16*>(&raw[i + kx]), seen);
#pragma unroll
        for (int e = 0; e < 8; ++e) v[i][e] = ::fmaf(seen[e], w[e], v[i][e]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < each; ++i) store_pack<8>(terms + (first + i) * term_pitch<D> + c, v[i]);
}
/// sum (16, D) += these, as products have their results.
template <int D>
__device__ __forceinline__ void add_terms(const float* terms, int lane, float (&sum)[D / 8][4]) {
#pragma unroll
  for (int s = 0; s < D / 8; ++s)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float2 two = *reinterpret_cast<const float2*>(
          terms + (8 * r + lane / 4) * term_pitch<D> + 8 * s + lane % 4 * 2);
      sum[s][2 * r] += two.x, sum[s][2 * r + 1] += two.y;
    }
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
