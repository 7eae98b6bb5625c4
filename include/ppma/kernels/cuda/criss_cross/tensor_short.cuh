#pragma once
#include "ppma/core/names_begin.hpp"
// tensor_pass.cuh's passes for lines of at most 56 tokens with heads of 16, or 32 with heads of 32,
// if there are many: a block has a line of four heads, a warp one of them; all that warps share is
// to load tiles and to write them.
// What costs most, a score's gradient, is worked out once, and used for all that asks for it:
//
//   by queries, 16 at a time:  z, sum P dP (and P x0)
//   by keys, 16 at a time:     dS^T;  dk = dS^T q,  P^T g,  dq += dS k (transposed in
//         registers), dc of the keys and of all queries
//
// Results go to the tiles of what is not read any more, so that whole rows of all heads go out.

#include "ppma/kernels/cuda/criss_cross/short_rows.cuh"
#include "ppma/kernels/cuda/criss_cross/tensor_pass.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// dc of 16 keys (rows of t) and of all queries (columns), from the gradients of their scores: +
/// for a key whose query is before it, - for its query, and the other way round. near[e]: the
/// sign of row lane / 4 less column lane % 4 * 2 + e, which is all that the own 16 x 16 need:
/// others there are before or behind.
template <int NT>
__device__ __forceinline__ void add_both(Two& keys, float (&queries)[NT][2],
                                         const float (&t)[NT][4], int row0,
                                         const float (&near)[2]) {
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    if (n / 2 * 16 == row0) {
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const float upper = n % 2 == 0 ? t[n][e] * near[e] : -t[n][e],
                    lower = n % 2 == 0 ? t[n][2 + e] : t[n][2 + e] * near[e];
        keys.upper += upper, keys.lower += lower, queries[n][e] -= upper + lower;
      }
    } else {
      const float sign = 8 * n < row0 ? 1.0f : -1.0f;
      keys.upper = ::fmaf(sign, t[n][0] + t[n][1], keys.upper);
      keys.lower = ::fmaf(sign, t[n][2] + t[n][3], keys.lower);
      queries[n][0] = ::fmaf(-sign, t[n][0] + t[n][2], queries[n][0]);
      queries[n][1] = ::fmaf(-sign, t[n][1] + t[n][3], queries[n][1]);
    }
  }
}

/// What a warp works with: its head's columns of the tiles, and its sums.
struct Own {
  bf16 *queries, *keys, *x0, *g0, *x1, *g1, *mixed;
  float *sums, *log_sums, *less, *dsums;  // less: minus sum P dP
  bool walls;
};

/// log_sums, less and P x0.
template <int D, int NT, int pairs>
__device__ __forceinline__ void by_queries(const Own& own, int length, bool mix_x0) {
  constexpr int stride = Rows<D, NT>::stride;
  const int lane = lane_index();
#pragma unroll 1
  for (int row0 = 0; row0 < length; row0 += 16) {
    const int row = row0 + lane / 4, at = row0 * stride;
    unsigned query[D / 16][4];
    load_left<D>(query, own.queries + at, stride);
    float t[NT][4], z[4] = {};
    Two most{nowhere, nowhere};
    masked_scores<D, NT>(t, query, own.keys, stride, {own.sums[row], own.sums[row + 8]}, own.sums,
                         own.walls);
    softmax_step<NT>(t, most);
    Left<NT> p;
    round_left<NT>(p, t);
    add_sums<NT>(z, p);
    const Two inverse{reciprocal(z[0]), reciprocal(z[2])};
    if (pairs != 1 && mix_x0) {
      float mixed[D / 8][4] = {};
      add_mix<D, NT>(mixed, p, own.x0, stride);
      to_tile<D>(own.mixed + at, stride, mixed, inverse);
    }
    Two mean{0, 0};
    if constexpr (pairs > 0) {
      unsigned up[D / 16][4];
      float dp[NT][4] = {};
      load_left<D>(up, own.g0 + at, stride);
      add_scores<D, NT>(dp, up, own.x0, stride);
      if constexpr (pairs == 2) {
        load_left<D>(up, own.g1 + at, stride);
        add_scores<D, NT>(dp, up, own.x1, stride);
      }
      Two odd{0, 0};
#pragma unroll
      for (int n = 0; n < NT; ++n)
        mean.upper = ::fmaf(t[n][0], dp[n][0], mean.upper),
        mean.lower = ::fmaf(t[n][2], dp[n][2], mean.lower),
        odd.upper = ::fmaf(t[n][1], dp[n][1], odd.upper),
        odd.lower = ::fmaf(t[n][3], dp[n][3], odd.lower);
      mean = {over_quad(mean.upper + odd.upper) * inverse.upper,
              over_quad(mean.lower + odd.lower) * inverse.lower};
    }
    if (lane % 4 == 0) {
      // as if with no weight behind the line's end, where sums may have overflowed
      const bool upper = row < length, lower = row + 8 < length;
      own.log_sums[row] = upper ? most.upper * log2_e + ::log2f(z[0]) : -nowhere;
      own.log_sums[row + 8] = lower ? most.lower * log2_e + ::log2f(z[2]) : -nowhere;
      own.less[row] = upper ? -mean.upper : 0, own.less[row + 8] = lower ? -mean.lower : 0;
    }
  }
}

/// The rest, everything transposed: into the tiles of q, k, x0, x1, and dsums.
template <int D, int NT, int pairs>
__device__ __forceinline__ void by_keys(const Own& own, int length, const Backward& to) {
  constexpr int stride = Rows<D, NT>::stride;
  const int lane = lane_index(), column = lane % 4 * 2, behind = lane / 4 - column;
  const float near[2] = {static_cast<float>(::min(::max(behind, -1), 1)),
                         static_cast<float>(::min(::max(behind - 1, -1), 1))};
  float dquery[pairs > 0 ? (NT + 1) / 2 : 1][D / 8][4] = {}, queries_dc[NT][2] = {};
#pragma unroll 1
  for (int row0 = 0; row0 < length; row0 += 16) {
    const int row = row0 + lane / 4, at = row0 * stride;
    float t[NT][4], out0[D / 8][4] = {}, out1[D / 8][4] = {};
    Left<NT> p;
    {
      unsigned key[D / 16][4];
      load_left<D>(key, own.keys + at, stride);
      masked_scores<D, NT>(t, key, own.queries, stride, {own.sums[row], own.sums[row + 8]},
                           own.sums, own.walls);
    }
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float2 shift = *reinterpret_cast<const float2*>(own.log_sums + n * 8 + column);
      t[n][0] = exp2_fast(::fmaf(t[n][0], log2_e, -shift.x)),
      t[n][1] = exp2_fast(::fmaf(t[n][1], log2_e, -shift.y));
      t[n][2] = exp2_fast(::fmaf(t[n][2], log2_e, -shift.x)),
      t[n][3] = exp2_fast(::fmaf(t[n][3], log2_e, -shift.y));
    }
    round_left<NT>(p, t);
    add_mix<D, NT>(out0, p, own.g0, stride);
    if (pairs == 2 && to.back1) add_mix<D, NT>(out1, p, own.g1, stride);
    if constexpr (pairs > 0) {
      float dp[NT][4], dkey[D / 8][4] = {};
      load_columns<NT>(dp, own.less);
      unsigned value[D / 16][4];
      load_left<D>(value, own.x0 + at, stride);
      add_scores<D, NT>(dp, value, own.g0, stride);
      if constexpr (pairs == 2) {
        load_left<D>(value, own.x1 + at, stride);
        add_scores<D, NT>(dp, value, own.g1, stride);
      }
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) t[n][e] *= dp[n][e];
      if (to.dlog_decay) {
        Two dc{0, 0};
        add_both<NT>(dc, queries_dc, t, row0, near);
        dc = {over_quad(dc.upper), over_quad(dc.lower)};
        if (lane % 4 == 0) own.dsums[row] = dc.upper, own.dsums[row + 8] = dc.lower;
      }
      round_left<NT>(p, t);
      add_mix<D, NT>(dkey, p, own.queries, stride);
#pragma unroll
      for (int j = 0; j < D / 16; ++j) {
        unsigned key[4];
        detail::load_turned(key, own.keys + at + lane % 16 * stride + lane / 16 * 8 + j * 16);
#pragma unroll
        for (int i = 0; i < (NT + 1) / 2; ++i) {
          const bool half = 2 * i + 1 == NT;
          const unsigned ds[4] = {
              detail::transposed(p[i][0]), half ? 0 : detail::transposed(p[i][2]),
              detail::transposed(p[i][1]), half ? 0 : detail::transposed(p[i][3])};
          detail::multiply(dquery[i][2 * j], ds, key[0], key[1]);
          detail::multiply(dquery[i][2 * j + 1], ds, key[2], key[3]);
        }
      }
      __syncwarp();  // the keys and x of these rows have been read
      to_tile<D>(own.keys + at, stride, dkey, {to.share, to.share});
    } else {
      __syncwarp();
    }
    const float f = to.back0_is_dv ? to.share : 1.0f;
    to_tile<D>(own.x0 + at, stride, out0, {f, f});
    if (pairs == 2 && to.back1) to_tile<D>(own.x1 + at, stride, out1, {1, 1});
  }
  if constexpr (pairs > 0) {
    __syncwarp();  // the queries have been read
#pragma unroll
    for (int i = 0; i < (NT + 1) / 2; ++i)
      to_tile<D>(own.queries + i * 16 * stride, stride, dquery[i], {to.share, to.share});
    if (!to.dlog_decay) return;
#pragma unroll
    for (int n = 0; n < NT; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float x = queries_dc[n][e];
#pragma unroll
        for (int far = 4; far < 32; far *= 2) x += __shfl_xor_sync(~0u, x, far);
        if (lane / 4 == 0) own.dsums[8 * n + column + e] += x;
      }
    __syncwarp();
  }
}

template <int D, int NT, int pairs>
inline constexpr int short_tiles = pairs == 1   ? 4
                                   : pairs == 2 ? 7
                                                : 5;  // with one for P x0

/// As backward(); s.d = D, s.group = most_group; no order.
template <int D, int NT, int pairs>
__global__ void __launch_bounds__(short_threads, pairs == 0 ? 4 : 3)
    short_backward(Lines s, const bf16* q, const bf16* k, const float* log_decay, Backward to) {
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr int tile = short_tile<D, NT>, padded = Rows<D, NT>::padded;
  const Spot here(s);
  bf16 *const queries = reinterpret_cast<bf16*>(memory), *const keys = queries + tile,
              *const x0 = keys + tile, *const g0 = x0 + tile;
  bf16 *const x1 = g0 + (pairs == 2 ? tile : 0), *const g1 = x1 + (pairs == 2 ? tile : 0),
              *const mixed = g1 + (pairs == 1 ? 0 : tile);
  float* const sums = reinterpret_cast<float*>(mixed + tile);
  float *const log_sums = sums + 4 * padded, *const less = log_sums + 4 * padded,
               *const dsums = less + 4 * padded;
  const Rows<D, NT> rows(s, here);
  if constexpr (pairs == 2)
    rows.template fetch<6>(queries, {q, k, to.x0, to.g0, to.x1, to.g1});
  else
    rows.template fetch<4>(queries, {q, k, to.x0, to.g0});
  detail::copies_issued();
  if constexpr (pairs > 0) {
    if (to.add) rows.ask_for(to.dq), rows.ask_for(to.dk);
    if (to.add_back0) rows.ask_for(to.back0);
  }
  sum_decays<NT>(sums, log_decay, s, here);
  detail::copies_done<0>();
  __syncthreads();
  const int head = warp_index(), c = head * D, first = head * padded;
  if (head < here.heads) {
    const Own own{queries + c,  keys + c,      x0 + c,
                  g0 + c,       x1 + c,        g1 + c,
                  mixed + c,    sums + first,  log_sums + first,
                  less + first, dsums + first, any_closed(sums + first, s.length)};
#pragma unroll
    for (int i = lane_index(); i < padded; i += 32)  // of tokens behind the last 16 queries
      own.log_sums[i] = -nowhere, own.less[i] = 0;
    __syncwarp();
    by_queries<D, NT, pairs>(own, s.length, to.mixed != nullptr);
    __syncwarp();
    by_keys<D, NT, pairs>(own, s.length, to);
  }
  if (pairs > 0 && to.dlog_decay) sums_to_decays<NT>(sums, dsums, to.share, to.dlog_decay, s, here);
  __syncthreads();
  if (pairs != 1 && to.mixed) rows.write(to.mixed, mixed, false);
  rows.write(to.back0, x0, to.add_back0);
  if constexpr (pairs > 0) {
    if (pairs == 2 && to.back1) rows.write(to.back1, x1, false);
    rows.write(to.dq, queries, to.add), rows.write(to.dk, keys, to.add);
  }
}

/// False where lines are longer or visited in an order, or blocks would not have four heads as wide
/// as their tiles.
template <int D, int NT, int pairs>
bool run_short(const AttentionArgs<bf16>& in, const Lines& s, bool along_rows, const Backward& to) {
  if constexpr (NT < 8 && D <= 32 && most_group<D, NT> * 32 == short_threads) {
    if (s.d != D || s.group != most_group<D, NT> || s.order != nullptr) return false;
    constexpr int bytes =
        short_tiles<D, NT, pairs> * short_tile<D, NT> * 2 + 4 * 4 * ((NT + 1) / 2 * 16) * 4;
    detail::allow_shared(short_backward<D, NT, pairs>, bytes, "criss_cross_attention");
    const dim3 blocks(static_cast<unsigned>(in.shape.batch * s.count),
                      static_cast<unsigned>(s.groups));
    short_backward<D, NT, pairs><<<blocks, short_threads, bytes, cuda::stream()>>>(
        s, in.q, in.k, along_rows ? in.log_alpha : in.log_beta, to);
    return true;
  } else {
    return false;
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
