#pragma once
#include "ppma/core/names_begin.hpp"
// Tokens on their way from memory to the tensor cores: normalised, they are left factors of
// mma.sync in registers (feed_forward.cuh).
//
// The sum of a product may run over the channels in any order, as long as both factors have the
// same. A lane of a left factor needs elements 2q, 2q + 1, 2q + 8 and 2q + 9 (q = lane % 4) of
// every sixteen: here it has eight neighbours of every 32 channels, 16 bytes as they lie in memory,
// which are its share of two steps; so have the lanes of the right factor.

#include "ppma/kernels/cuda/fast_gelu.cuh"
#include "ppma/kernels/cuda/lanes.cuh"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/norm_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// Of how many products eight wide a lane's results are neighbours.
template <int products>
inline constexpr int dealt = products % 4 == 0   ? 4
                             : products % 2 == 0 ? 2
                                                 : 1;

/// Two of the rows of a warp's 16 x C left factor: lane / 4 and that + 8.
template <int C>
struct NormedRows {
  static constexpr int groups = C / 32;
  uint4 raw[2][groups];  // channels 32 g + 8 (lane % 4) and on

  /// `from`: the rows' first elements; null: zeros.
  __device__ __forceinline__ void load(const bf16* const (&from)[2]) {
    const int q = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int g = 0; g < groups; ++g)
        raw[r][g] = from[r] ? *reinterpret_cast<const uint4*>(from[r] + g * 32 + q * 8) : uint4{};
  }
  /// LN of each; gamma and beta lie in shared memory.
  __device__ __forceinline__ void normalise(const float* gamma, const float* beta, float eps) {
    const int q = static_cast<int>(threadIdx.x) % 4;
    float mean[2], by[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = 0, squares = 0;
      each(r, [&](float v) { sum += v; });
      mean[r] = sum_lanes(sum, 4) * (1.f / C);
      forget(r);
      each(r, [&](float v) { squares = ::fmaf(v - mean[r], v - mean[r], squares); });
      by[r] = inverse_root(sum_lanes(squares, 4) * (1.f / C) + eps);
      forget(r);
    }
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      float w[8], b[8];
      load_pack<8>(gamma + g * 32 + q * 8, w);
      load_pack<8>(beta + g * 32 + q * 8, b);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float v[8];
        load_pack<8>(reinterpret_cast<const bf16*>(&raw[r][g]), v);
#pragma unroll
        for (int e = 0; e < 8; ++e) v[e] = ::fmaf((v[e] - mean[r]) * by[r], w[e], b[e]);
        store_pack<8>(reinterpret_cast<bf16*>(&raw[r][g]), v);
      }
    }
  }
  /// c += these rows times 8 N rows of w, which lie `pitch` apart in shared memory: 16 words beside
  /// a multiple of 32, and no two lanes wait for each other. Element e of c[n], n = G i + j with
  /// G = dealt<N>, is column 8 G i + 2 G (lane % 4) + 2 j + e % 2 of row lane / 4 + e / 2 * 8.
  template <int pitch, int N>
  __device__ __forceinline__ void multiply_by(const bf16* w, float (&c)[N][4]) const {
    static_assert(pitch / 2 % 32 == 16);
    constexpr int G = dealt<N>;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const bf16* const from = w + (lane / 8 * 2 * G + lane / 4 % 2) * pitch + lane % 4 * 8;
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      const unsigned first[4] = {raw[0][g].x, raw[1][g].x, raw[0][g].y, raw[1][g].y},
                     second[4] = {raw[0][g].z, raw[1][g].z, raw[0][g].w, raw[1][g].w};
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const uint4 right =
            *reinterpret_cast<const uint4*>(from + (n / G * 8 * G + n % G * 2) * pitch + g * 32);
        multiply(c[n], first, right.x, right.y);
        multiply(c[n], second, right.z, right.w);
      }
    }
  }

 private:
  // Of long rows nothing unpacked is to stay in registers from one pass to the next.
  __device__ __forceinline__ void forget(int r) {
    if constexpr (C > 256)
#pragma unroll
      for (int g = 0; g < groups; ++g)
        asm volatile(""
                     : "+r"(raw[r][g].x), "+r"(raw[r][g].y), "+r"(raw[r][g].z), "+r"(raw[r][g].w));
  }
  template <class F>
  __device__ __forceinline__ void each(int r, F&& f) const {
#pragma unroll
    for (int g = 0; g < groups; ++g) {
      float v[8];
      load_pack<8>(reinterpret_cast<const bf16*>(&raw[r][g]), v);
#pragma unroll
      for (int e = 0; e < 8; ++e) f(v[e]);
    }
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
