#pragma once
#include "ppma/core/names_begin.hpp"
// tensor_pass.cuh's passes for lines of at most 56 tokens with heads of 16, or 32 with heads of 32,
// if there are many: a block has a line of four heads, a warp one of them; all that warps share is
// to load tiles and to write them.
// A line's weights P, the most that a pass has to work out, are made once: by queries, 16 at a
// time, whose scores of all keys are in registers, and so are the sums over queries of all keys:
//
//   P x0;  sum P dP, dS;  dq = dS k;  dc of the queries and of all keys
//   dk += dS^T q,  P^T g  (transposed in registers)
//
// Results go to the tiles of what is not read any more, so that whole rows of all heads go out.

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
  static constexpr bool mixes = pairs != 1 && !known, back1 = pairs == 2 && !known;
  static constexpr int tiles = pairs == 2 ? 6 : 4;
};

/// All of a head: into the tiles of q, g0 or g1 (P x0), k, x0, x1, and dc.
template <int D, int NT, int pairs, bool known>
__device__ __forceinline__ void by_queries(const Own& own, int length, const Backward& to) {
  using Pass = ShortPass<pairs, known>;
  constexpr int stride = Rows<D, NT>::stride;
  constexpr unsigned one = 0x3f803f80;
  const unsigned share = detail::rounded_pair(to.share, to.share);  // 1/2 or 1
  const int lane = lane_index();
  OfKeys<D, NT> out0;
  [[maybe_unused]] OfKeys<D, pairs == 0 ? 1 : NT> dkey;
  [[maybe_unused]] OfKeys<D, Pass::back1 ? NT : 1> out1;
  [[maybe_unused]] DecaySums<NT> dc;
  const auto of_rows = [&](auto which) {
    constexpr int tile = decltype(which)::value, at = 16 * tile * stride;
    const int row = 16 * tile + lane / 4;
    unsigned query[D / 16][4];
    load_left<D>(query, own.queries + at, stride);
    float t[NT][4];
    scores_of<D, NT, tile>(t, query, own.keys, stride, own.sums, own.walls);
    Left<NT> p;
    if constexpr (known) {
      const Two shift{own.log_sums[row], own.log_sums[row + 8]};
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        t[n][0] = exp2_fast(::fmaf(t[n][0], log2_e, -shift.upper)),
        t[n][1] = exp2_fast(::fmaf(t[n][1], log2_e, -shift.upper));
        t[n][2] = exp2_fast(::fmaf(t[n][2], log2_e, -shift.lower)),
        t[n][3] = exp2_fast(::fmaf(t[n][3], log2_e, -shift.lower));
      }
    } else {
      Two most{nowhere, nowhere};
      float z[4] = {};
      softmax_step<NT>(t, most);
      round_left<NT>(p, t);
      add_sums<NT>(z, p);
      // no weight behind the line's end
      const bool upper = row < length, lower = row + 8 < length;
      const Two inverse{upper ? reciprocal(z[0]) : 0, lower ? reciprocal(z[2]) : 0};
      if (pairs == 0 && own.log_sums_to != nullptr && lane % 4 == 0) {
        if (upper) own.log_sums_to[row * own.step] = most.upper * log2_e + ::log2f(z[0]);
        if (lower) own.log_sums_to[(row + 8) * own.step] = most.lower * log2_e + ::log2f(z[2]);
      }
      scale_rows(t, inverse);
    }
    round_left<NT>(p, t);
    [[maybe_unused]] float mixed[D / 8][4], dquery[D / 8][4];
    if constexpr (Pass::mixes) mix_rows<D, NT>(mixed, p, own.x0, stride);
    Left<NT> turned;
    turn<NT>(turned, p);
    sum_turned<tile == 0, D, NT>(out0, turned, own.g0 + at, stride);
    if constexpr (Pass::back1) sum_turned<tile == 0, D, NT>(out1, turned, own.g1 + at, stride);
    if constexpr (pairs > 0) {
      float dp[NT][4];
      products<D, NT>(dp, own.g0 + at, own.x0, stride);
      if constexpr (pairs == 2) {
        unsigned up[D / 16][4];
        load_left<D>(up, own.g1 + at, stride);
        add_scores<D, NT>(dp, up, own.x1, stride);
      }
      Two mean{0, 0}, odd{0, 0};
#pragma unroll
      for (int n = 0; n < NT; ++n)
        mean.upper = ::fmaf(t[n][0], dp[n][0], mean.upper),
        mean.lower = ::fmaf(t[n][2], dp[n][2], mean.lower),
        odd.upper = ::fmaf(t[n][1], dp[n][1], odd.upper),
        odd.lower = ::fmaf(t[n][3], dp[n][3], odd.lower);
      mean = {over_quad(mean.upper + odd.upper), over_quad(mean.lower + odd.lower)};
#pragma unroll
      for (int n = 0; n < NT; ++n)
        t[n][0] *= dp[n][0] - mean.upper, t[n][1] *= dp[n][1] - mean.upper,
            t[n][2] *= dp[n][2] - mean.lower, t[n][3] *= dp[n][3] - mean.lower;
      round_left<NT>(p, t);
      mix_rows<D, NT>(dquery, p, own.keys, stride);
      turn<NT>(turned, p);
      sum_turned<tile == 0, D, NT>(dkey, turned, own.queries + at, stride);
      if (pairs == 2 || to.dlog_decay) dc.template add<tile>(p, turned);
    }
    __syncwarp();  // these rows of q and g have been read
    if constexpr (pairs > 0) to_tile<D>(own.queries + at, stride, dquery, share);
    if constexpr (Pass::mixes) to_tile<D>((pairs == 2 ? own.g1 : own.g0) + at, stride, mixed, one);
  };
  of_rows(std::integral_constant<int, 0>{});
  if (length > 16) of_rows(std::integral_constant<int, 1>{});
  if constexpr (NT > 4) {
    if (length > 32) of_rows(std::integral_constant<int, 2>{});
    if (length > 48) of_rows(std::integral_constant<int, 3>{});
  }
  __syncwarp();  // the keys and x have been read
  to_tiles<D, NT>(own.x0, stride, out0, to.back0_is_dv ? share : one);
  if constexpr (Pass::back1) to_tiles<D, NT>(own.x1, stride, out1, one);
  if constexpr (pairs > 0) {
    to_tiles<D, NT>(own.keys, stride, dkey, share);
    if (to.dlog_decay) dc.store(own.log_sums);
    __syncwarp();
  }
}

template <int pairs>
inline constexpr int short_blocks = pairs == 0 ? 5 : 3;  // of a multiprocessor: 96 or 168 registers

/// As backward(); s.d = D, s.group = most_group; no order. known: to.log_sums are those of these
/// lines' weights; else, without pairs, they are written.
template <int D, int NT, int pairs, bool known>
__global__ void __launch_bounds__(short_threads, short_blocks<pairs>)
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
    by_queries<D, NT, pairs, known>(own, s.length, to);
  }
  if (pairs > 0 && to.dlog_decay)
    sums_to_decays<NT>(sums, log_sums, to.share, to.dlog_decay, s, here);
  __syncthreads();
  if constexpr (Pass::mixes) rows.write(to.mixed, g1, false);
  rows.write(to.back0, x0, to.add_back0);
  if constexpr (Pass::back1) rows.write(to.back1, x1, false);
  if constexpr (pairs > 0) rows.write(to.dq, queries, to.add), rows.write(to.dk, keys, to.add);
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
