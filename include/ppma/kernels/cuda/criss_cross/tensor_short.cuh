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

#include "ppma/kernels/cuda/criss_cross/short_rows.cuh"
#include "ppma/kernels/cuda/criss_cross/tensor_pass.cuh"

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
/// that the sign of a difference is known but near the diagonal.
template <int D, int NT, int tile>
__device__ __forceinline__ void scores_of(float (&t)[NT][4], const unsigned (&query)[D / 16][4],
                                          const bf16* keys, int stride, const float* sums,
                                          bool walls) {
  const int lane = lane_index();
  const Two own{sums[16 * tile + lane / 4], sums[16 * tile + lane / 4 + 8]};
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
/// c = a b^T with 8 NT rows b of a tile.
template <int D, int NT>
__device__ __forceinline__ void products(float (&c)[NT][4], const bf16* a, const bf16* b,
                                         int stride) {
  const int lane = lane_index();
  const bf16* const from = b + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
  unsigned left[D / 16][4];
  load_left<D>(left, a, stride);
#pragma unroll
  for (int i = 0; i < D / 16; ++i)
#pragma unroll
    for (int n = 0; n < NT; n += 2) {
      unsigned right[4];
      detail::load_matrices(right, from + n * 8 * stride + i * 16);
      if (i == 0) {
        product<true>(c[n], left[i], right[0], right[1]);
        if (n + 1 < NT) product<true>(c[n + 1], left[i], right[2], right[3]);
      } else {
        product<false>(c[n], left[i], right[0], right[1]);
        if (n + 1 < NT) product<false>(c[n + 1], left[i], right[2], right[3]);
      }
    }
}

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

template <int pairs, bool known>
inline constexpr int short_blocks = pairs == 0             ? 4
                                    : pairs == 2 && !known ? 2
                                                           : 3;

/// As backward(); s.d = D, s.group = most_group; no order. known: to.log_sums are those of these
/// lines' weights; else, without pairs, they are written.
template <int D, int NT, int pairs, bool known>
__global__ void __launch_bounds__(short_threads, short_blocks<pairs, known>)
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
