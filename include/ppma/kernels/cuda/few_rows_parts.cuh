#pragma once
#include "ppma/core/names_begin.hpp"
// What the kernel of few_rows.cuh is told and made of: the product, the tile of a block, how its
// threads share out rows, and the norm of rows on their way.

#include "ppma/kernels/cuda/fast_gelu.cuh"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/norm.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail::few_rows {

/// What a row is: as it lies in memory, that normalised, or what the taps of a pixel see.
enum class Rows { plain, normed, taps };

/// A convolution, whose weights are (n, taps, ci): ci a multiple of 8.
struct Taps {
  int h, w, ci, oh, ow, stride, y0, x0, tw, count;
};

struct Product {
  int rows, k, n;  // results of a part: n
  const bf16* x;   // (rows, k), or images
  struct Part {
    const bf16 *w, *bias;  // (n, k), (n) or null
    bf16* y;
  } part[3];
  int parts, pitch;  // from row to row of y and add
  const bf16* add;   // of part 0, or null
  bool lasting;      // w, bias and what belongs to the norm are parameters: see cuda::launch()
  const float *gamma, *beta;  // of the norm
  float eps;
  const float *cosine, *sine;  // (tokens, d): part 0 is turned and so is part 1
  int d, tokens;
  float scale;  // of part 1
  Taps taps;
};

/// MT rows by NT results of a block; WM x WN warps share them, WK the sum. A multiprocessor is to
/// hold so many blocks.
template <int MT_, int NT_, int WM_, int WN_, int WK_, int blocks_ = 1>
struct Tile {
  static constexpr int MT = MT_, NT = NT_, WM = WM_, WN = WN_, WK = WK_, blocks = blocks_,
                       threads = 32 * WM * WN * WK, across = NT / 4,  // threads of a row of results
      each = (MT * across + threads - 1) / threads, pitch = NT + 8;
  /// Bytes of shared memory. Rows in it are 16 bytes longer, so that eight are in different banks.
  static i64 bytes(i64 k, Rows rows) {
    return std::max<i64>((MT + NT) * (k + 8) * 2 + (rows == Rows::taps ? MT * 16 + k : 0),
                         i64{WK} * MT * pitch * 4);
  }
};

// f(row, pack) for all packs of 8 of `rows` rows, dealt to the threads of a block.
template <int threads, class F>
__device__ __forceinline__ void each_pack(int rows, int packs, F&& f) {
  const int tid = static_cast<int>(threadIdx.x), down = threads / packs, on = threads % packs;
  for (int r = tid / packs, pack = tid % packs; r < rows;) {
    f(r, pack);
    r += down, pack += on;
    if (pack >= packs) pack -= packs, ++r;
  }
}

/// Rows of C channels on their way to a block's tile: C / 8 lanes share one, or 32.
template <class T, int C>
struct Norm {
  static constexpr int lanes = C / 8 < 32 ? C / 8 : 32, packs = C / 8 / lanes,
                       at_once = T::threads / lanes, all = (T::MT + at_once - 1) / at_once,
                       rounds = all < 4 / packs ? all : 4 / packs;  // rows under way in a thread
  float gamma[packs][8], beta[packs][8];

  static __device__ __forceinline__ int channel(int j) {
    return (static_cast<int>(threadIdx.x) % lanes + j * 32) * 8;
  }
  __device__ __forceinline__ explicit Norm(const Product& p) {
#pragma unroll
    for (int j = 0; j < packs; ++j)
      load_pack<8>(p.gamma + channel(j), gamma[j]), load_pack<8>(p.beta + channel(j), beta[j]);
  }
  // f(row of the tile, pack, v) for all rows from row0 on; those that are not there are the bias.
  template <class F>
  __device__ __forceinline__ void each(const Product& p, int row0, F&& f) const {
    const int mine = static_cast<int>(threadIdx.x) / lanes;
#pragma unroll 1
    for (int r0 = 0; r0 < T::MT; r0 += at_once * rounds) {
      uint4 raw[rounds][packs];
#pragma unroll
      for (int i = 0; i < rounds; ++i)
#pragma unroll
        for (int j = 0; j < packs; ++j) {
          const int r = r0 + i * at_once + mine;
          raw[i][j] = r < T::MT && row0 + r < p.rows
                          ? *reinterpret_cast<const uint4*>(p.x + static_cast<i64>(row0 + r) * C +
                                                            channel(j))
                          : uint4{};
        }
      float v[rounds][packs][8], sum[rounds], squares[rounds];
#pragma unroll
      for (int i = 0; i < rounds; ++i) {
        sum[i] = squares[i] = 0;
#pragma unroll
        for (int j = 0; j < packs; ++j) {
          load_pack<8>(reinterpret_cast<const bf16*>(&raw[i][j]), v[i][j]);
#pragma unroll
          for (int e = 0; e < 8; ++e) sum[i] += v[i][j][e];
        }
      }
      over_lanes(sum);
#pragma unroll
      for (int i = 0; i < rounds; ++i) {
        sum[i] *= 1.f / C;
#pragma unroll
        for (int j = 0; j < packs; ++j)
#pragma unroll
          for (int e = 0; e < 8; ++e)
            v[i][j][e] -= sum[i], squares[i] = ::fmaf(v[i][j][e], v[i][j][e], squares[i]);
      }
      over_lanes(squares);
#pragma unroll
      for (int i = 0; i < rounds; ++i) {
        const float rstd = inverse_root(squares[i] * (1.f / C) + p.eps);
#pragma unroll
        for (int j = 0; j < packs; ++j) {
#pragma unroll
          for (int e = 0; e < 8; ++e)
            v[i][j][e] = ::fmaf(v[i][j][e] * rstd, gamma[j][e], beta[j][e]);
          f(r0 + i * at_once + mine, j, v[i][j]);
        }
      }
    }
  }

 private:
  static __device__ __forceinline__ void over_lanes(float (&sum)[rounds]) {
#pragma unroll
    for (int o = lanes / 2; o > 0; o /= 2)
#pragma unroll
      for (int i = 0; i < rounds; ++i) sum[i] += __shfl_xor_sync(all_lanes, sum[i], o);
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::detail::few_rows

#include "ppma/core/names_end.hpp"
