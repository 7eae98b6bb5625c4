#pragma once
#include "ppma/core/names_begin.hpp"
// tensor_pass.cuh's passes for lines of at most 56 tokens with heads of 16, or 32 with heads of 32,
// if there are many: a block has a line of four heads, a warp one of them; all that warps share is
// to load tiles and to write them.
// A line's weights P, the most that a pass has to work out, are made by queries, 16 at a time; the
// scores of all keys are in registers, and so are the sums over queries of all keys:
//
//   P x0;  sum P dP, dS;  dq = dS k;  dc of the queries and of all keys
//   dk += dS^T q,  P^T g  (transposed in registers)
//
// Results go to the tiles of what is not read any more, so that whole rows of all heads go out.
// Floor of 56 x 56 tokens of 4 heads of 16, batch 128, at 4.3 TB/s: 72 us for the first pass of
// both orders, 131 for the columns, 143 for the last, which reads what it adds to.

#include "ppma/kernels/cuda/criss_cross/short_products.cuh"
#include "ppma/kernels/cuda/criss_cross/tensor_pass.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// What a warp works with: its head's columns of the tiles, and its sums.
struct Own {
  bf16 *queries, *keys, *x0, *g0, *x1, *g1;
  float *sums, *log_sums;  // of decays; log2 of the weights' sums, later dc
  float* log_sums_to;      // where those go, null if nowhere
  int step;                // from position to position there
  bool walls;
};

/// Of each pass: what there is beside dq, dk and P^T g0.
template <int pairs, bool known>
struct ShortPass {
  // Two pairs whose weights' sums are not known: the second of three passes.
  static constexpr bool back1 = pairs == 2 && !known, mixes = pairs == 0 || back1;
  static constexpr int tiles = pairs == 2 ? 6 : 4;
};

/// Calls f with every 16 queries of a line: a constant.
template <int NT, class F>
__device__ __forceinline__ void each_tile(int length, F&& f) {
  f(std::integral_constant<int, 0>{});
  if (length > 16) f(std::integral_constant<int, 1>{});
  if constexpr (NT > 4) {
    if (length > 32) f(std::integral_constant<int, 2>{});
    if (length > 48) f(std::integral_constant<int, 3>{});
  }
}

/// Of 16 queries: log2 of their weights' sums, and what is left to multiply the weights by.
struct Sums {
  Two logs, factor;
};
/// t: the weights of the queries 16 tile to 16 tile + 15, zeros behind the line's end; p: rounded.
/// known: own.log_sums are those of the weights' sums. Not `scaled`: t is left to be multiplied.
template <int D, int NT, int tile, bool known, bool scaled = true>
__device__ __forceinline__ Sums weights_of(float (&t)[NT][4], Left<NT>& p, const Own& own,
                                           int length) {
  constexpr int stride = Rows<D, NT>::stride;
  const int row = 16 * tile + lane_index() / 4;
  unsigned query[D / 16][4];
  load_left<D>(query, own.queries + 16 * tile * stride, stride);
  scores_of<D, NT, tile>(t, query, own.keys, stride, own.sums, own.walls);
  Sums of{{-nowhere, -nowhere}, {1, 1}};
  if constexpr (known) {
    of.logs = {own.log_sums[row], own.log_sums[row + 8]};
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      t[n][0] = exp2_fast(::fmaf(t[n][0], log2_e, -of.logs.upper)),
      t[n][1] = exp2_fast(::fmaf(t[n][1], log2_e, -of.logs.upper));
      t[n][2] = exp2_fast(::fmaf(t[n][2], log2_e, -of.logs.lower)),
      t[n][3] = exp2_fast(::fmaf(t[n][3], log2_e, -of.logs.lower));
    }
  } else {
    Two most{nowhere, nowhere};
    float z[4] = {};
    softmax_step<NT>(t, most);
    round_left<NT>(p, t);
    add_sums<NT>(z, p);
    const bool upper = row < length, lower = row + 8 < length;
    of.factor = {upper ? reciprocal(z[0]) : 0, lower ? reciprocal(z[2]) : 0};
    if (upper) of.logs.upper = most.upper * log2_e + __log2f(z[0]);
    if (lower) of.logs.lower = most.lower * log2_e + __log2f(z[2]);
  }
  if constexpr (scaled) {
    if constexpr (!known) scale_rows(t, of.factor);
    round_left<NT>(p, t);
    of.factor = {1, 1};
  }
  return of;
}

/// p = dS of weights that are t times a factor of their row; dq = dS k.
template <int D, int NT, int pairs>
__device__ __forceinline__ void slopes_of(Left<NT>& p, float (&dquery)[D / 8][4], float (&t)[NT][4],
                                          Two f, const Own& own, int at) {
  constexpr int stride = Rows<D, NT>::stride;
  float dp[NT][4];
  const Two sum = slopes<D, NT, pairs>(dp, t, own.g0 + at, own.x0, own.g1 + at, own.x1, stride),
            less{-sum.upper * f.upper * f.upper, -sum.lower * f.lower * f.lower};
#pragma unroll
  for (int n = 0; n < NT; ++n)
    t[n][0] *= ::fmaf(dp[n][0], f.upper, less.upper),
        t[n][1] *= ::fmaf(dp[n][1], f.upper, less.upper),
        t[n][2] *= ::fmaf(dp[n][2], f.lower, less.lower),
        t[n][3] *= ::fmaf(dp[n][3], f.lower, less.lower);
  round_left<NT>(p, t);
  mix_rows<D, NT>(dquery, p, own.keys, stride);
}

/// All of a head: into the tiles of q, g0 (P x0), k, x0, and dc.
template <int D, int NT, int pairs, bool known>
__device__ __forceinline__ void by_queries(const Own& own, int length, const Backward& to) {
  constexpr int stride = Rows<D, NT>::stride;
  constexpr unsigned one = 0x3f803f80;
  const unsigned share = detail::rounded_pair(to.share, to.share);  // 1/2 or 1
  const int lane = lane_index();
  OfKeys<D, NT> out;
  [[maybe_unused]] OfKeys<D, pairs == 0 ? 1 : NT> dkey;
  [[maybe_unused]] DecaySums<NT> dc;
  each_tile<NT>(length, [&](auto which) {
    constexpr int tile = decltype(which)::value, at = 16 * tile * stride;
    float t[NT][4], result[D / 8][4];
    Left<NT> p, turned;
    const Sums of = weights_of<D, NT, tile, known>(t, p, own, length);
    if (pairs == 0 && own.log_sums_to != nullptr && lane % 4 == 0) {
      const int row = 16 * tile + lane / 4;
      if (row < length) own.log_sums_to[row * own.step] = of.logs.upper;
      if (row + 8 < length) own.log_sums_to[(row + 8) * own.step] = of.logs.lower;
    }
    if constexpr (pairs == 0) mix_rows<D, NT>(result, p, own.x0, stride);
    turn<NT>(turned, p);
    sum_turned<tile == 0, D, NT>(out, turned, own.g0 + at, stride);
    if constexpr (pairs > 0) {
      slopes_of<D, NT, pairs>(p, result, t, of.factor, own, at);
      turn<NT>(turned, p);
      sum_turned<tile == 0, D, NT>(dkey, turned, own.queries + at, stride);
      if (pairs == 2 || to.dlog_decay) dc.template add<tile>(p, turned);
    }
    __syncwarp();  // these rows of q and g have been read
    to_tile<D>((pairs == 0 ? own.g0 : own.queries) + at, stride, result, pairs == 0 ? one : share);
  });
  __syncwarp();  // the keys and x have been read
  to_tiles<D, NT>(own.x0, stride, out, to.back0_is_dv ? share : one);
  if constexpr (pairs > 0) {
    to_tiles<D, NT>(own.keys, stride, dkey, share);
    if (to.dlog_decay) dc.store(own.log_sums);
    __syncwarp();
  }
}

/// The same of two pairs whose weights' sums are not known: into the tiles of q, x1 (dk), g1
/// (P x0), x0, k (P^T g1), and dc. Three sums over queries do not fit beside weights and slopes, so
/// that the weights are made twice.
template <int D, int NT>
__device__ __forceinline__ void in_two_sweeps(const Own& own, int length, const Backward& to) {
  constexpr int stride = Rows<D, NT>::stride;
  constexpr unsigned one = 0x3f803f80;
  const unsigned share = detail::rounded_pair(to.share, to.share);
  const int lane = lane_index();
  unsigned dquery[(NT + 1) / 2][D / 8][2];
  DecaySums<NT> dc;
  {
    OfKeys<D, NT> dkey;
    each_tile<NT>(length, [&](auto which) {
      constexpr int tile = decltype(which)::value, at = 16 * tile * stride;
      float t[NT][4], dq[D / 8][4];
      Left<NT> p, turned;
      const Sums of = weights_of<D, NT, tile, false, false>(t, p, own, length);
      if (lane % 4 == 0)
        own.log_sums[16 * tile + lane / 4] = of.logs.upper,
                                        own.log_sums[16 * tile + lane / 4 + 8] = of.logs.lower;
      slopes_of<D, NT, 2>(p, dq, t, of.factor, own, at);
      pack_rows<D>(dquery[tile], dq, share);
      turn<NT>(turned, p);
      sum_turned<tile == 0, D, NT>(dkey, turned, own.queries + at, stride);
      dc.template add<tile>(p, turned);
    });
    __syncwarp();  // x1 has been read
    to_tiles<D, NT>(own.x1, stride, dkey, share);
  }
  OfKeys<D, NT> out0, out1;
  each_tile<NT>(length, [&](auto which) {
    constexpr int tile = decltype(which)::value, at = 16 * tile * stride;
    float t[NT][4], mixed[D / 8][4];
    Left<NT> p, turned;
    weights_of<D, NT, tile, true>(t, p, own, length);
    mix_rows<D, NT>(mixed, p, own.x0, stride);
    turn<NT>(turned, p);
    sum_turned<tile == 0, D, NT>(out0, turned, own.g0 + at, stride);
    sum_turned<tile == 0, D, NT>(out1, turned, own.g1 + at, stride);
    __syncwarp();  // these rows of q and g1 have been read
    put_rows<D>(own.queries + at, stride, dquery[tile]);
    to_tile<D>(own.g1 + at, stride, mixed, one);
  });
  __syncwarp();  // the keys and x0 have been read
  to_tiles<D, NT>(own.x0, stride, out0, to.back0_is_dv ? share : one);
  to_tiles<D, NT>(own.keys, stride, out1, one);
  if (to.dlog_decay) dc.store(own.log_sums);
  __syncwarp();
}

// Of a multiprocessor: 96, 128 or 168 registers. Of lines of 56 four blocks are slower than three:
// 225 us instead of 199 for the last pass.
template <int NT, int pairs>
inline constexpr int short_blocks = pairs == 0 ? 5
                                    : NT <= 4  ? 4
                                               : 3;

/// As backward(); s.d = D, s.group = most_group; no order. known: to.log_sums are those of these
/// lines' weights; else, without pairs, they are written.
template <int D, int NT, int pairs, bool known>
__global__ void __launch_bounds__(short_threads, short_blocks<NT, pairs>)
    short_backward(Lines s, const bf16* q, const bf16* k, const float* log_decay, Backward to) {
  using Pass = ShortPass<pairs, known>;
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr int tile = short_tile<D, NT>, padded = Rows<D, NT>::padded;
  const Spot here(s);
  bf16 *const queries = reinterpret_cast<bf16*>(memory), *const keys = queries + tile,
              *const x0 = keys + tile, *const g0 = x0 + tile;
  bf16 *const x1 = g0 + (pairs == 2 ? tile : 0), *const g1 = x1 + (pairs == 2 ? tile : 0);
  float* const sums = reinterpret_cast<float*>(g1 + tile);
  float* const log_sums = sums + 4 * padded;
  const Rows<D, NT> rows(s, here);
  if constexpr (pairs == 2)
    rows.template fetch<6>(queries, {q, k, to.x0, to.g0, to.x1, to.g1});
  else
    rows.template fetch<4>(queries, {q, k, to.x0, to.g0});
  detail::copies_issued();
  const int head = warp_index(), c = head * D, first = head * padded;
  const i64 plane = here.plane + static_cast<i64>(head) * s.tokens;
  if constexpr (known)
    if (head < here.heads)
#pragma unroll
      for (int i = lane_index(); i < padded; i += 32)
        log_sums[first + i] = i < s.length ? to.log_sums[plane + i * s.step] : -nowhere;
  if constexpr (pairs > 0) {
    if (to.add) rows.ask_for(to.dq), rows.ask_for(to.dk);
    if (to.add_back0) rows.ask_for(to.back0);
  }
  sum_decays<NT>(sums, log_decay, s, here);
  detail::copies_done<0>();
  __syncthreads();
  if (head < here.heads) {
    const Own own{queries + c,
                  keys + c,
                  x0 + c,
                  g0 + c,
                  x1 + c,
                  g1 + c,
                  sums + first,
                  log_sums + first,
                  to.log_sums ? to.log_sums + plane : nullptr,
                  s.step,
                  any_closed(sums + first, s.length)};
    if constexpr (Pass::back1)
      in_two_sweeps<D, NT>(own, s.length, to);
    else
      by_queries<D, NT, pairs, known>(own, s.length, to);
  }
  if (pairs > 0 && to.dlog_decay)
    sums_to_decays<NT>(sums, log_sums, to.share, to.dlog_decay, s, here);
  __syncthreads();
  if constexpr (Pass::mixes) rows.write(to.mixed, g1, false);
  rows.write(to.back0, x0, to.add_back0);
  if constexpr (Pass::back1) rows.write(to.back1, keys, false);
  if constexpr (pairs > 0)
    rows.write(to.dq, queries, to.add), rows.write(to.dk, Pass::back1 ? x1 : keys, to.add);
}

/// False where lines are longer or visited in an order, or blocks would not have four heads as wide
/// as their tiles.
template <int D, int NT, int pairs, bool known>
bool run_short(const AttentionArgs<bf16>& in, const Lines& s, bool along_rows, const Backward& to) {
  if constexpr (NT < 8 && D <= 32 && most_group<D, NT> * 32 == short_threads) {
    if (s.d != D || s.group != most_group<D, NT> || s.order != nullptr) return false;
    constexpr int bytes =
        ShortPass<pairs, known>::tiles * short_tile<D, NT> * 2 + 2 * 4 * Rows<D, NT>::padded * 4;
    detail::allow_shared(short_backward<D, NT, pairs, known>, bytes, "criss_cross_attention");
    const dim3 blocks(static_cast<unsigned>(in.shape.batch * s.count),
                      static_cast<unsigned>(s.groups));
    short_backward<D, NT, pairs, known><<<blocks, short_threads, bytes, cuda::stream()>>>(
        s, in.q, in.k, along_rows ? in.log_alpha : in.log_beta, to);
    return true;
  } else {
    return false;
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
