#pragma once
#include "ppma/core/names_begin.hpp"
// The products of tensor_short.cuh, whose 16 queries are known when it is compiled: scores under
// the mask, sums over queries of all keys of a line, and the gradients of the sums of decays, which
// are products too, with columns of +-1.

#include "ppma/kernels/cuda/criss_cross/short_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Every 16 x 16 of a left factor transposed.
template <int NT>
__device__ __forceinline__ void turn(Left<NT>& to, const Left<NT>& a) {
#pragma unroll
  for (int i = 0; i < (NT + 1) / 2; ++i) {
    const bool half = 2 * i + 1 == NT;
    to[i][0] = detail::transposed(a[i][0]), to[i][1] = half ? 0 : detail::transposed(a[i][2]);
    to[i][2] = detail::transposed(a[i][1]), to[i][3] = half ? 0 : detail::transposed(a[i][3]);
  }
}
/// c = a b, or added to it.
template <bool fresh>
__device__ __forceinline__ void product(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                        unsigned b1) {
  constexpr float zero[4] = {};
  if constexpr (fresh)
    detail::multiply(c, a, b0, b1, zero);
  else
    detail::multiply(c, a, b0, b1);
}
/// Sums over queries, of all keys of a line: c = turned x, or added to it, x 16 rows of a tile.
template <int D, int NT>
using OfKeys = float[(NT + 1) / 2][D / 8][4];
template <bool fresh, int D, int NT>
__device__ __forceinline__ void sum_turned(OfKeys<D, NT>& c, const Left<NT>& turned, const bf16* x,
                                           int stride) {
  const int lane = lane_index();
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    unsigned b[4];
    detail::load_turned(b, x + lane % 16 * stride + lane / 16 * 8 + j * 16);
#pragma unroll
    for (int i = 0; i < (NT + 1) / 2; ++i) {
      product<fresh>(c[i][2 * j], turned[i], b[0], b[1]);
      product<fresh>(c[i][2 * j + 1], turned[i], b[2], b[3]);
    }
  }
}
template <int D, int NT>
__device__ __forceinline__ void to_tiles(bf16* tile, int stride, const OfKeys<D, NT>& c,
                                         unsigned f) {
#pragma unroll
  for (int i = 0; i < (NT + 1) / 2; ++i) to_tile<D>(tile + i * 16 * stride, stride, c[i], f);
}

/// c = a x with 8 NT rows x of a tile.
template <int D, int NT>
__device__ __forceinline__ void mix_rows(float (&c)[D / 8][4], const Left<NT>& a, const bf16* tile,
                                         int stride) {
  const int lane = lane_index();
  const bf16* const from = tile + lane % 16 * stride + lane / 16 * 8;
#pragma unroll
  for (int i = 0; i < (NT + 1) / 2; ++i)
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
      unsigned b[4];
      detail::load_turned(b, from + i * 16 * stride + j * 16);
      if (i == 0) {
        product<true>(c[2 * j], a[i], b[0], b[1]), product<true>(c[2 * j + 1], a[i], b[2], b[3]);
      } else {
        product<false>(c[2 * j], a[i], b[0], b[1]), product<false>(c[2 * j + 1], a[i], b[2], b[3]);
      }
    }
}

/// dc of a line as a product's result: column i has positions 16 i to 16 i + 15. What is added are
/// sums over rows of dS (a query's own, + where the key is before it) and of its transpose (a
/// key's).
template <int NT>
struct DecaySums {
  float c[4] = {};
  unsigned keep, flip;  // of two neighbours in an 8 x 8 on the diagonal
  __device__ __forceinline__ DecaySums() {
    const int behind = lane_index() / 4 - lane_index() % 4 * 2;
    keep = (behind == 0 ? 0u : 0xffffu) | (behind == 1 ? 0u : 0xffff0000u);
    flip = (behind < 0 ? 0x8000u : 0u) | (behind < 1 ? 0x80000000u : 0u);
    flip &= keep;
  }
  __device__ __forceinline__ void add_own(const unsigned (&a)[4], unsigned ones) {
    const unsigned near[4] = {(a[0] & keep) ^ flip, a[1], a[2] ^ 0x80008000u, (a[3] & keep) ^ flip};
    detail::multiply(c, near, ones, ones);
  }
  /// dS of the queries 16 tile to 16 tile + 15.
  template <int tile>
  __device__ __forceinline__ void add(const Left<NT>& ds, const Left<NT>& turned) {
    constexpr unsigned one = 0x3f803f80, minus_one = 0xbf80bf80;
    const int column = lane_index() / 4;
#pragma unroll
    for (int i = 0; i < (NT + 1) / 2; ++i) {
      const unsigned query = column == tile ? (i <= tile ? one : minus_one) : 0,
                     key = column == i ? (i >= tile ? one : minus_one) : 0;
      if (i == tile) {
        add_own(ds[i], query), add_own(turned[i], key);
      } else {
        detail::multiply(c, ds[i], query, query);
        detail::multiply(c, turned[i], key, key);
      }
    }
  }
  __device__ __forceinline__ void store(float* to) const {
    const int tile = lane_index() % 4 * 2;
#pragma unroll
    for (int e = 0; e < 2; ++e)
      if (tile + e < (NT + 1) / 2) {
        to[16 * (tile + e) + lane_index() / 4] = c[e];
        to[16 * (tile + e) + lane_index() / 4 + 8] = c[2 + e];
      }
  }
};

/// As masked_scores(), of the queries 16 tile to 16 tile + 15. Sums of decays fall along a line, so
/// that the sign of a difference is known but near the diagonal. Queries behind the line's end have
/// finite weights, which the caller makes zero: of an odd number of tiles no key is as far away as
/// the last eight queries, so that these are where the eight before them are.
template <int D, int NT, int tile>
__device__ __forceinline__ void scores_of(float (&t)[NT][4], const unsigned (&query)[D / 16][4],
                                          const bf16* keys, int stride, const float* sums,
                                          bool walls) {
  const int lane = lane_index();
  constexpr int lower = 2 * tile + 1 < NT ? 8 : 0;
  const Two own{sums[16 * tile + lane / 4], sums[16 * tile + lane / 4 + lower]};
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    const float2 c = *reinterpret_cast<const float2*>(sums + n * 8 + lane % 4 * 2);
    if (n / 2 < tile)
      t[n][0] = own.upper - c.x, t[n][1] = own.upper - c.y, t[n][2] = own.lower - c.x,
      t[n][3] = own.lower - c.y;
    else if (n / 2 > tile)
      t[n][0] = c.x - own.upper, t[n][1] = c.y - own.upper, t[n][2] = c.x - own.lower,
      t[n][3] = c.y - own.lower;
    else
      t[n][0] = -::fabsf(own.upper - c.x), t[n][1] = -::fabsf(own.upper - c.y),
      t[n][2] = -::fabsf(own.lower - c.x), t[n][3] = -::fabsf(own.lower - c.y);
  }
  if (walls) close_paths<NT>(t);
  add_scores<D, NT>(t, query, keys, stride);
}
/// dp = g0 x0^T (and g1 x1^T if there are two pairs), 16 rows g and 8 NT rows x of tiles; returns
/// the sums over rows of t dp.
template <int D, int NT, int pairs>
__device__ __forceinline__ Two slopes(float (&dp)[NT][4], const float (&t)[NT][4], const bf16* g0,
                                      const bf16* x0, const bf16* g1, const bf16* x1, int stride) {
  const int lane = lane_index(), place = (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
  unsigned left0[D / 16][4], left1[D / 16][4];
  load_left<D>(left0, g0, stride);
  if constexpr (pairs == 2) load_left<D>(left1, g1, stride);
  Two even{0, 0}, odd{0, 0};
#pragma unroll
  for (int n = 0; n < NT; n += 2) {
    const auto add = [&](auto fresh, const unsigned(&left)[4], const bf16* from) {
      unsigned right[4];
      detail::load_matrices(right, from + place + n * 8 * stride);
      product<decltype(fresh)::value>(dp[n], left, right[0], right[1]);
      if (n + 1 < NT) product<decltype(fresh)::value>(dp[n + 1], left, right[2], right[3]);
    };
    add(std::true_type{}, left0[0], x0);
#pragma unroll
    for (int i = 1; i < D / 16; ++i) add(std::false_type{}, left0[i], x0 + i * 16);
    if constexpr (pairs == 2)
#pragma unroll
      for (int i = 0; i < D / 16; ++i) add(std::false_type{}, left1[i], x1 + i * 16);
#pragma unroll
    for (int m = n; m < n + 2 && m < NT; ++m)
      even.upper = ::fmaf(t[m][0], dp[m][0], even.upper),
      even.lower = ::fmaf(t[m][2], dp[m][2], even.lower),
      odd.upper = ::fmaf(t[m][1], dp[m][1], odd.upper),
      odd.lower = ::fmaf(t[m][3], dp[m][3], odd.lower);
  }
  return {over_quad(even.upper + odd.upper), over_quad(even.lower + odd.lower)};
}
}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
