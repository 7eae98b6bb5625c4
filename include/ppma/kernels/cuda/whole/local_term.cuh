#pragma once
#include "ppma/core/names_begin.hpp"
// A depthwise convolution of the values that small.cuh adds to its results: the map's values lie in
// the block's shared memory, and its threads walk down their columns there.

#include <utility>

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

/// The local terms of `lines` lines of the map, from `first` on, into `terms` (lines, padded
/// cells, term_pitch), by all threads of the block: one has two channels of a column and walks
/// down, with k unfinished sums. Padding gets none: what is added there nobody stores.
template <int D, class Map>
__device__ __forceinline__ void local_terms(const Map& map, const float* taps, int first, int lines,
                                            float* terms) {
  constexpr int k = LocalTerm::k, pairs = D / 2;
  for (int i = static_cast<int>(threadIdx.x); i < pairs * map.length;
       i += static_cast<int>(blockDim.x)) {
    const int c = i % pairs * 2, column = i / pairs;
    float w[LocalTerm::taps][2], bias[2], sum[k][2] = {};
    int offset[k];  // from the line's first cell; negative: beside the map
#pragma unroll
    for (int t = 0; t < LocalTerm::taps; ++t) load_pack<2>(taps + t * D + c, w[t]);
    load_pack<2>(taps + LocalTerm::taps * D + c, bias);
#pragma unroll
    for (int kx = 0; kx < k; ++kx) {
      const int x = column + kx - k / 2;
      offset[kx] = x >= 0 && x < map.length ? Map::place(0, x, c / 8 * 8) + c % 8 : -1;
    }
    // Line first + n - k / 2 with n mod k = J: results of the lines n - ky see it.
    const auto step = [&](auto index, int n) {
      constexpr int J = decltype(index)::value;
      const int line = first + n - k / 2;
      const bool there = line >= 0 && line < map.lines;
      const bf16* const from = map.tokens + Map::place(1, line * Map::padded, 0);
      unsigned raw[k];
#pragma unroll
      for (int kx = 0; kx < k; ++kx)
        raw[kx] =
            there && offset[kx] >= 0 ? *reinterpret_cast<const unsigned*>(from + offset[kx]) : 0u;
#pragma unroll
      for (int ky = 0; ky < k; ++ky) {
        float(&s)[2] = sum[(J - ky + k) % k];
        if (ky == 0) s[0] = bias[0], s[1] = bias[1];
#pragma unroll
        for (int kx = 0; kx < k; ++kx) {
          s[0] = ::fmaf(__uint_as_float(raw[kx] << 16), w[ky * k + kx][0], s[0]);
          s[1] = ::fmaf(__uint_as_float(raw[kx] & 0xffff0000u), w[ky * k + kx][1], s[1]);
        }
      }
      if (n >= k - 1)
        store_pack<2>(terms + ((n - k + 1) * Map::padded + column) * term_pitch<D> + c,
                      sum[(J + 1) % k]);
    };
    for (int n = 0; n < lines + k - 1; n += k) [&]<int... J>(std::integer_sequence<int, J...>) {
        ((n + J < lines + k - 1 ? (step(std::integral_constant<int, J>{}, n + J), true) : false) &&
         ...);
      }
    (std::make_integer_sequence<int, k>{});
  }
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
