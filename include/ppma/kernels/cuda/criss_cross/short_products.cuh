#pragma once
#include "ppma/core/names_begin.hpp"
// The products of tensor_short.cuh, whose 16 queries are known when it is compiled: rows with rows,
// sums over queries of all keys of a line, and the gradients of the sums of decays, which are
// products too, with columns of +-1. Tiles are given by the address of their first row and a lane's
// place (Place).

#include "ppma/kernels/cuda/criss_cross/short_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Every 16 x 16 of a left factor, of which `rows` are not 0, transposed.
template <int NT, int rows>
__device__ __forceinline__ void turn(Left<NT>& to, const Left<NT>& a) {
#pragma unroll
  for (int i = 0; i < (NT + 1) / 2; ++i)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      // of `a`: e % 2 the lower eight rows, e / 2 the eight columns behind
      const bool none = (e / 2 == 1 && rows == 8) || (e % 2 == 1 && 2 * i + 1 == NT);
      to[i][e] = none ? 0 : detail::transposed(a[i][e % 2 * 2 + e / 2]);
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
/// A left factor of 16 rows.
template <int D>
__device__ __forceinline__ void load_rows(unsigned (&a)[D / 16][4], unsigned at, unsigned left) {
#pragma unroll
  for (int i = 0; i < D / 16; ++i) detail::load_matrices(a[i], at + Place<D>::pack(left, 2 * i));
}
/// t[m] = start(m, e) + a x^T, x the rows 8 m to 8 m + 7 of a tile, for m = n and n + 1.
template <int D, int NT, class Start>
__device__ __forceinline__ void multiply_rows(float (&t)[NT][4], int n,
                                              const unsigned (&a)[D / 16][4], unsigned x,
                                              unsigned right, const Start& start) {
#pragma unroll
  for (int i = 0; i < D / 16; ++i) {
    unsigned b[4];
    detail::load_matrices(
        b, x + Place<D>::pack(right, 2 * i) + static_cast<unsigned>(8 * n * short_row<D>));
#pragma unroll
    for (int m = n; m < n + 2 && m < NT; ++m) {
      if (i == 0) {
        // not in its own place: many products begin with the same four registers
        const float c[4] = {start(m, 0), start(m, 1), start(m, 2), start(m, 3)};
        detail::multiply(t[m], a[i], b[m % 2 * 2], b[m % 2 * 2 + 1], c);
      } else {
        detail::multiply(t[m], a[i], b[m % 2 * 2], b[m % 2 * 2 + 1]);
      }
    }
  }
}
/// Sums over queries, of all keys of a line: c = turned x, or added to it, x 16 rows of a tile.
template <int D, int NT>
using OfKeys = float[(NT + 1) / 2][D / 8][4];
template <bool fresh, int D, int NT>
__device__ __forceinline__ void sum_turned(OfKeys<D, NT>& c, const Left<NT>& turned, unsigned x,
                                           unsigned left) {
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    unsigned b[4];
    detail::load_turned(b, x + Place<D>::pack(left, 2 * j));
#pragma unroll
    for (int i = 0; i < (NT + 1) / 2; ++i) {
      product<fresh>(c[i][2 * j], turned[i], b[0], b[1]);
      product<fresh>(c[i][2 * j + 1], turned[i], b[2], b[3]);
    }
  }
}
/// c = a x with 8 NT rows x of a tile.
template <int D, int NT>
__device__ __forceinline__ void mix_rows(float (&c)[D / 8][4], const Left<NT>& a, unsigned x,
                                         unsigned left) {
#pragma unroll
  for (int i = 0; i < (NT + 1) / 2; ++i)
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
      unsigned b[4];
      detail::load_turned(
          b, x + Place<D>::pack(left, 2 * j) + static_cast<unsigned>(16 * i * short_row<D>));
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

/// dp = g0 x0^T (and g1 x1^T if there are two pairs), 16 rows g and 8 NT rows x of tiles; returns
/// the sums over rows of t dp.
template <int D, int NT, int pairs, int rows>
__device__ __forceinline__ Two slopes(float (&dp)[NT][4], const float (&t)[NT][4], unsigned g0,
                                      unsigned x0, unsigned g1, unsigned x1, const Place<D>& in) {
  unsigned left0[D / 16][4], left1[D / 16][4];
  load_rows<D>(left0, g0, in.left);
  if constexpr (pairs == 2) load_rows<D>(left1, g1, in.left);
  Two even{0, 0}, odd{0, 0};
#pragma unroll
  for (int n = 0; n < NT; n += 2) {
    multiply_rows<D, NT>(dp, n, left0, x0, in.right, [](int, int) { return 0.f; });
    if constexpr (pairs == 2)
      multiply_rows<D, NT>(dp, n, left1, x1, in.right, [&](int m, int e) { return dp[m][e]; });
#pragma unroll
    for (int m = n; m < n + 2 && m < NT; ++m) {
      even.upper = ::fmaf(t[m][0], dp[m][0], even.upper),
      odd.upper = ::fmaf(t[m][1], dp[m][1], odd.upper);
      if constexpr (rows == 16)
        even.lower = ::fmaf(t[m][2], dp[m][2], even.lower),
        odd.lower = ::fmaf(t[m][3], dp[m][3], odd.lower);
    }
  }
  return {over_quad(even.upper + odd.upper), rows == 16 ? over_quad(even.lower + odd.lower) : 0.f};
}
}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
