#pragma once
#include "ppma/core/names_begin.hpp"
// A depthwise convolution of the values that small.cuh adds to its results: the map's values lie in
// the block's shared memory, and a lane reads the neighbours of its two cells there.

#include "ppma/kernels/cuda/whole/pieces.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// w null: none.
struct LocalTerm {
  static constexpr int k = 5, taps = k * k;
  const float *w, *bias;  // (C,1,5,5), (C) or null: parameters
};

/// The taps of a head's D channels and their bias into shared memory: rows of D, the bias last.
template <int D>
__device__ __forceinline__ void copy_taps(const LocalTerm& local, int channel0, int channels,
                                          float* to) {
  constexpr int each = LocalTerm::taps + 1;
  for (int e = static_cast<int>(threadIdx.x); e < D * each; e += static_cast<int>(blockDim.x)) {
    const int c = e / each, tap = e % each;
    float v = 0;
    if (c < channels && tap < LocalTerm::taps)
      v = local.w[(channel0 + c) * LocalTerm::taps + tap];
    else if (c < channels && local.bias != nullptr)
      v = local.bias[channel0 + c];
    to[tap * D + c] = v;
  }
}

/// v[i] += of a group the local term of channels 8 (first + i) + lane % 4 * 2 and the next, as
/// products have their results.
template <int D, class Map, int N>
__device__ __forceinline__ void add_local(const Map& map, const float* taps, int group, int first,
                                          float (&v)[N][4]) {
  const int c0 = 8 * first + map.lane % 4 * 2;
  const auto weight = [&](int tap, int i) {
    return *reinterpret_cast<const float2*>(taps + tap * D + c0 + 8 * i);
  };
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const float2 bias = weight(LocalTerm::taps, i);
#pragma unroll
    for (int r = 0; r < 2; ++r) v[i][2 * r] += bias.x, v[i][2 * r + 1] += bias.y;
  }
#pragma unroll 1
  for (int ky = 0; ky < LocalTerm::k; ++ky)
#pragma unroll
    for (int kx = 0; kx < LocalTerm::k; ++kx)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int line = map.line(group, r) + ky - LocalTerm::k / 2,
                  at = map.column(r) + kx - LocalTerm::k / 2;
        const bool there = line >= 0 && line < map.lines && at >= 0 && at < map.length;
        const int cell = there ? line * Map::padded + at : 0;
#pragma unroll
        for (int i = 0; i < N; ++i) {
          const unsigned pair = there ? map.value(cell, c0 + 8 * i) : 0u;
          const float2 w = weight(ky * LocalTerm::k + kx, i);
          v[i][2 * r] = ::fmaf(__uint_as_float(pair << 16), w.x, v[i][2 * r]);
          v[i][2 * r + 1] = ::fmaf(__uint_as_float(pair & 0xffff0000u), w.y, v[i][2 * r + 1]);
        }
      }
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
