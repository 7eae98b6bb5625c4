#pragma once
#include "ppma/core/names_begin.hpp"
// What the kernels of decayed sums (ops/decayed_sums.hpp) multiply with: factors in shared memory
// and in registers, on the tensor cores (kernels/cuda/mma.cuh).
//
// A bf16 factor is itself. One in f32 is the sum of three in bf16, whose 24 bits are its own, and a
// product is the six of parts that are not below its last bit: f32, at a sixth of the rate.
//
// A warp multiplies 16 rows; a result of W columns is [W / 16][2][4] numbers of a lane (mma.cuh),
// a left factor of W columns [W / 16] squares of 16 x 16.

#include <type_traits>

#include "ppma/kernels/cuda/lanes.cuh"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels::decayed {

using detail::exp2_fast;

template <class T>
inline constexpr int parts_of = std::is_same_v<T, bf16> ? 1 : 3;
inline constexpr float log2_e = 1.44269504088896341f;

/// R rows of W columns. Behind each row lie 8 elements more, so that no two rows of a load meet in
/// a bank.
template <int parts, int R, int W>
struct alignas(16) Tile {
  static constexpr int stride = W + 8;
  bf16 part[parts][R][stride];
};

/// A result of 16 rows and W columns, and a square of a left factor.
template <int W>
using Result = float[W / 16][2][4];
template <int parts>
using Square = unsigned[parts][4];

__device__ __forceinline__ float2 two_floats(unsigned pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}

/// Two numbers as sums of `parts` in bf16, whose pairs are to[0], to[step], ...
template <int parts>
__device__ __forceinline__ void split(float x, float y, unsigned* to, int step) {
#pragma unroll
  for (int i = 0; i < parts; ++i) {
    const unsigned pair = detail::rounded_pair(x, y);
    const float2 taken = two_floats(pair);
    to[i * step] = pair, x -= taken.x, y -= taken.y;
  }
}
/// Two neighbouring results (16 x 16) as a left factor.
template <int parts>
__device__ __forceinline__ void as_square(Square<parts>& a, const float (&c)[2][4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i)
    split<parts>(c[i / 2][i % 2 * 2], c[i / 2][i % 2 * 2 + 1], &a[0][i], 4);
}
/// What the elements i and i + 1 of a square stand for.
template <int parts>
__device__ __forceinline__ float2 value_of(const Square<parts>& a, int i) {
  float2 sum = two_floats(a[0][i]);
#pragma unroll
  for (int p = 1; p < parts; ++p) {
    const float2 more = two_floats(a[p][i]);
    sum.x += more.x, sum.y += more.y;
  }
  return sum;
}

/// Rows row .. row + 15 of a tile, its columns from `column` on.
template <int parts, int R, int W>
__device__ __forceinline__ void load_square(Square<parts>& a, const Tile<parts, R, W>& tile,
                                            int row, int column) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int p = 0; p < parts; ++p)
    detail::load_matrices(a[p], &tile.part[p][row + lane % 16][column + lane / 16 * 8]);
}
/// The same of the tile transposed: its columns from `column` on are rows.
template <int parts, int R, int W>
__device__ __forceinline__ void load_turned(Square<parts>& a, const Tile<parts, R, W>& tile,
                                            int row, int column) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int p = 0; p < parts; ++p)
    detail::load_turned(a[p],
                        &tile.part[p][row + lane / 16 * 8 + lane % 8][column + lane / 8 % 2 * 8]);
}
/// All columns of 16 rows.
template <int parts, int R, int W>
__device__ __forceinline__ void load_rows(Square<parts> (&a)[W / 16], const Tile<parts, R, W>& tile,
                                          int row) {
#pragma unroll
  for (int i = 0; i < W / 16; ++i) load_square(a[i], tile, row, i * 16);
}

/// c (16 x 16) += a b, b given in the layout of four 8 x 8 matrices.
template <int parts>
__device__ __forceinline__ void multiply(float (&c)[2][4], const Square<parts>& a,
                                         const unsigned (&b)[parts][4]) {
#pragma unroll
  for (int i = parts - 1; i >= 0; --i)
#pragma unroll
    for (int j = parts - 1 - i; j >= 0; --j)
#pragma unroll
      for (int h = 0; h < 2; ++h) detail::multiply(c[h], a[i], b[j][2 * h], b[j][2 * h + 1]);
}
/// c (16 x 16) += a t^T, t the 16 rows of a tile from `row` on.
template <int parts, int R, int W>
__device__ __forceinline__ void times_rows(float (&c)[2][4], const Square<parts> (&a)[W / 16],
                                           const Tile<parts, R, W>& tile, int row) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < W / 16; ++i) {
    unsigned b[parts][4];
#pragma unroll
    for (int p = 0; p < parts; ++p)
      detail::load_matrices(
          b[p], &tile.part[p][row + lane / 16 * 8 + lane % 8][i * 16 + lane / 8 % 2 * 8]);
    multiply<parts>(c, a[i], b);
  }
}
/// c (16 x N) += a t, t the 16 rows of a tile from `row` on, N columns from `column` on.
template <int N, int parts, int R, int W>
__device__ __forceinline__ void times_columns(Result<N>& c, const Square<parts>& a,
                                              const Tile<parts, R, W>& tile, int row,
                                              int column = 0) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < N / 16; ++n) {
    unsigned b[parts][4];
#pragma unroll
    for (int p = 0; p < parts; ++p)
      detail::load_turned(b[p], &tile.part[p][row + lane % 16][column + n * 16 + lane / 16 * 8]);
    multiply<parts>(c[n], a, b);
  }
}

/// c's rows of a lane, lane / 4 and 8 below, times f.
template <int N>
__device__ __forceinline__ void scale_rows(float (&c)[N][2][4], float near, float far) {
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < 8; ++i) c[n][i / 4][i % 4] *= i % 4 < 2 ? near : far;
}
/// The products of a left factor's rows with those of a result: of rows lane / 4 and 8 below.
template <int parts, int N>
__device__ __forceinline__ float2 dot_rows(const Square<parts> (&a)[N], const float (&c)[N][2][4]) {
  float2 sum{0, 0};
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float2 near = value_of<parts>(a[n], 2 * h), far = value_of<parts>(a[n], 2 * h + 1);
      sum.x += near.x * c[n][h][0] + near.y * c[n][h][1];
      sum.y += far.x * c[n][h][2] + far.y * c[n][h][3];
    }
  return sum;
}
/// A row's sum over the four lanes that have it.
__device__ __forceinline__ float over_row(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}

/// R rows of `width` elements, `step` apart, of which there are `rows`: to a tile by all `threads`
/// of a block; zeros beyond. Those in bf16 arrive in the background (detail::copies_done).
template <int threads, class T, int R, int W>
__device__ __forceinline__ void fetch(Tile<parts_of<T>, R, W>& to, const T* from, i64 step,
                                      int width, int rows) {
  constexpr int parts = parts_of<T>, pack = parts == 1 ? 8 : 4;
#pragma unroll
  for (int n = 0; n < (R * W / pack + threads - 1) / threads; ++n) {
    const int e = static_cast<int>(threadIdx.x) + n * threads;
    if (R * W / pack % threads != 0 && e >= R * W / pack) break;
    const int r = e / (W / pack), c = e % (W / pack) * pack;
    const bool there = r < rows && c < width;
    const T* const at = from + (there ? r * step + c : 0);
    if constexpr (parts == 1) {
      detail::copy_async(&to.part[0][r][c], at, there);
    } else {
      float x[4] = {};
      if (there) load_pack<4>(at, x);
      unsigned pairs[parts][2];
      split<parts>(x[0], x[1], &pairs[0][0], 2), split<parts>(x[2], x[3], &pairs[0][1], 2);
#pragma unroll
      for (int p = 0; p < parts; ++p)
        *reinterpret_cast<uint2*>(&to.part[p][r][c]) = {pairs[p][0], pairs[p][1]};
    }
  }
}
/// A result's 16 rows from `row` on, of which there are `rows`, to memory.
template <class T, int N>
__device__ __forceinline__ void store_rows(T* to, i64 step, const float (&c)[N][2][4], int row,
                                           int width, int rows) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = row + lane / 4 + i % 2 * 8, column = n * 16 + i / 2 * 8 + lane % 4 * 2;
      const float two[2] = {c[n][i / 2][i % 2 * 2], c[n][i / 2][i % 2 * 2 + 1]};
      if (r < rows && column < width) store_pack<2>(to + r * step + column, two);
    }
}

/// The running sums of a chunk's log decays, in powers of two, by one warp: what it reads long
/// before it needs it, two tokens a lane; and the sums.
struct ChunkDecays {
  float of[2];
  __device__ void load(const float* log_decay, i64 step, int rows) {
    const int t = static_cast<int>(threadIdx.x) % 32 * 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) of[i] = t + i < rows ? log2_e * log_decay[(t + i) * step] : 0.f;
  }
  __device__ void put(float* sums) const {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const float sum = detail::running_sum(of[0] + of[1], lane);
    sums[2 * lane + 1] = sum, sums[2 * lane] = sum - of[1];
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::decayed

#include "ppma/core/names_end.hpp"
