#pragma once
#include "ppma/core/names_begin.hpp"
// Whole attention with the mask on maps of at most 16 x 16 in bf16: one exponential a score (the
// words are tensor.cuh's).
//
// With A_i[j,l] = e^-|a[i,j] - a[i,l]| and B_i[k,c] = e^-|b[i,c] - b[k,c]| the two weights of a
// score s are
//
//   row path      e^(s - r) A_i[j,l] B_i[k,l]        column path   e^(s - r) A_k[j,l] B_i[k,j]
//
// All A and all B of a map are 16 x 16 numbers a line: tables in shared memory; A_i of the lines
// that a warp works on are constants of the thread. All keys of the map lie in shared memory too,
// so nothing but the start waits for others, and the running sums of the decays are scanned here.
// Of few heads a group's keys are shared out to two warps of its block; both have the same r, and
// their sums are added in one order.
//
// Queries and keys may come as they leave their products: they are turned (rotary positions) where
// they lie in shared memory. A convolution of the values may be added, the network's local term
// (local_term.cuh): all warps make that of the block's lines before they begin.
//
// r must not come from scores that the mask removes, or the sums might vanish: it is the owner's
// own score less 30, which no mask weakens (both paths give it 1). A sum is then at least e^30, and
// whatever underflows is below e^-27 of it.
// Where the sum leaves the range (some score exceeds the own by more than 49, or a masked one by
// 58: 2^x is then no number), the warp starts again with the logarithms of the masks and the
// largest masked score: any finite score is right. The last bit of the first log sum tells
// backward, whose weights e^(s - log sum) have the same range.

#include "ppma/kernels/cuda/whole/small_tables.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// Keys, values and queries.
template <int D, int WT>
using ForwardMap = Small<D, WT, 3>;

/// Every query's score with its own key; `at` is map.rows_at().
template <int D, int WT>
__device__ __forceinline__ void own_scores(const ForwardMap<D, WT>& map, int group,
                                           const unsigned (&left)[D / 16][4], unsigned at,
                                           float (&own_score)[2]) {
  const int j = map.lane / 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float s[4];
    const float zero[4] = {};
    // these eight cells are the columns, so the diagonal is in row j = column
    ForwardMap<D, WT>::template rows_product<0>(s, left, at, group, r, zero);
    own_score[r] = __shfl_sync(0xffffffffu, j % 2 == 0 ? s[2 * r] : s[2 * r + 1], j * 4 + j / 2);
  }
}

/// Adds what the warps of an owner have, for the first of them; true for that one.
template <int D, int splits, int WT>
__device__ __forceinline__ bool join(const ForwardMap<D, WT>& map, float (&out1)[D / 8][4],
                                     float (&out2)[D / 8][4], float (&sums)[4]) {
  constexpr int each = ForwardMap<D, WT>::joined;
  float* const all = map.rest() + map.owner * (splits - 1) * each * 32 + map.lane;
  const auto over = [&](float* at, auto&& f) {
#pragma unroll
    for (int s = 0; s < D / 8; ++s)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        f(out1[s][e], at[(s * 8 + e) * 32]), f(out2[s][e], at[(s * 8 + 4 + e) * 32]);
#pragma unroll
    for (int e = 0; e < 4; ++e) f(sums[e], at[(D + e) * 32]);
  };
  if (map.part > 0)
    over(all + (map.part - 1) * each * 32, [](float mine, float& to) { to = mine; });
  asm volatile("bar.sync %0, %1;" ::"r"(map.owner + 1), "n"(splits * 32) : "memory");
  if (map.part > 0) return false;
#pragma unroll 1
  for (int i = 0; i < splits - 1; ++i)
    over(all + i * each * 32, [](float& mine, float other) { mine += other; });
  return true;
}

// Warps of a block at most, and how many blocks a multiprocessor is to hold, which bounds a
// thread's registers: the fastest of those tried on an H200.
template <int WT>
inline constexpr int forward_warps = WT == 2 ? 8 : 5;
template <int D, int WT>
inline constexpr int forward_blocks = WT == 2 || D > 32 ? 2 : 4;
// Of no more blocks than these a multiprocessor, each has one group a warp: tables several times,
// but sooner done.
inline constexpr int few_blocks = 2;
// Of few heads two warps share the keys of a group, where every block with so many groups, of lines
// of WT pieces of eight cells, has a multiprocessor to itself (measured on an H200).
inline constexpr int few_splits = 2;
constexpr int few_owners(int WT) { return 2 * WT; }

/// Bytes of shared memory behind the map's: what warps that share an owner's keys leave for the
/// first, and the local term's.
template <int D, int splits>
int join_bytes(int owners, bool local) {
  const int joined = owners * (splits - 1) * ForwardMap<D, 1>::joined * 32,
            terms = local ? (LocalTerm::taps + 1) * D + owners * term_pitch<D> * 16 : 0;
  return (joined + terms) * 4;
}

/// See tensor.cuh's forward. Weights and masks are multiplied in bf16, two at a time. A block has
/// all groups, or of several in x a group a warp; with several splits an owner has one at most. Of
/// `most` owners at most.
template <int D, int WT, int splits, int most>
__global__ void __launch_bounds__(32 * splits * most, splits > 1 ? 1 : forward_blocks<D, WT>)
    small_forward(Lines g, const bf16* q, const bf16* k, const bf16* v, const float* log_a,
                  const float* log_b, float share1, float share2, LocalTerm local, Turn turn,
                  bf16* y, bf16* y1, float2* log_sums) {
  using Map = ForwardMap<D, WT>;
  constexpr int at_once = D == 32 && WT == 2 ? 2 : 1;  // two more cost too many registers
  extern __shared__ __align__(128) uint4 whole_attention_memory[];
  const i64 head = blockIdx.y, base = g.base(head);
  const Map map(g, whole_attention_memory, splits);
  float* const taps = map.rest() + map.owners * (splits - 1) * Map::joined * 32;
  float *const terms = taps + (LocalTerm::taps + 1) * D, *const own_terms =
                                                             terms + map.owner * term_pitch<D> * 16;
  if (local.w != nullptr)
    copy_taps<D>(local, static_cast<int>(head % g.heads) * g.head_width, g.head_width, taps);
  cuda::wait();
  map.copy(g, {k + base, v + base, q + base});
  copies_issued();
  const int begin = static_cast<int>(blockIdx.x) * map.owners,
            end = gridDim.x == 1 ? map.groups : ::min(begin + map.owners, map.groups);
  scan_sums(map, log_a + head * g.tokens, log_b + head * g.tokens);
  __syncthreads();
  fill_tables(map, begin, end);
  copies_done<0>();
  if (turn.cosine != nullptr) map.template turn<2>(g, turn);
  __syncthreads();
  if (local.w != nullptr) {  // of no more groups than owners
    local_terms<D>(map, taps, begin * Map::lines_a_group, map.owners * Map::lines_a_group, terms);
    __syncthreads();
  }
  const unsigned rows = map.rows_at(), squares = map.squares_at();
  const float zero[4] = {};
  // Of both sums at once: the first in even columns, the second in odd ones.
  const unsigned ones1 = map.lane / 4 % 2 == 0 ? two_ones : 0, ones2 = two_ones - ones1;
  for (int group = begin + map.owner; group < end; group += map.owners) {
    unsigned own[2][WT], query[D / 16][4];
    Map::template load_group<2>(query, squares, group);
    map.own_lines(group, own);
    const auto masks = map.masks_of(group, map.along, map.across);
    float out1[D / 8][4], out2[D / 8][4], sums[4], top1[2], top2[2];
    // The averages of the values with weights 2^(log2_e s - top).
    const auto average = [&](auto by_logs, int from, int to) {
      constexpr bool logs = decltype(by_logs)::value;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        sums[e] = 0;
#pragma unroll
        for (int s = 0; s < D / 8; ++s) out1[s][e] = out2[s][e] = 0;
      }
#pragma unroll at_once
      for (int m = from; m < to; ++m) {
        unsigned left1[4], left2[4];
        [[maybe_unused]] unsigned mask_row[2][2], mask_col[2][2];
        if constexpr (!logs) map.masks(masks, m, own, mask_row, mask_col);
        float both[2][4];
#pragma unroll
        for (int half = 0; half < 2; ++half)
          Map::template rows_product<0>(both[half], query, rows, m, half, zero);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float(&s)[4] = both[half];
          if constexpr (logs) {
            float row[4], col[4];
            map.add_logs(group, 2 * m + half, s, row, col);
#pragma unroll
            for (int e = 0; e < 4; ++e)
              row[e] = exp2_fast(row[e] - top1[e / 2]), col[e] = exp2_fast(col[e] - top2[e / 2]);
#pragma unroll
            for (int r = 0; r < 2; ++r)
              left1[2 * half + r] = detail::rounded_pair(row[2 * r], row[2 * r + 1]),
                               left2[2 * half + r] =
                                   detail::rounded_pair(col[2 * r], col[2 * r + 1]);
          } else {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              const unsigned weights =
                  detail::rounded_pair(exp2_fast(::fmaf(s[2 * r], log2_e, -top1[r])),
                                       exp2_fast(::fmaf(s[2 * r + 1], log2_e, -top1[r])));
              left1[2 * half + r] = times(weights, mask_row[half][r]),
                               left2[2 * half + r] = times(weights, mask_col[half][r]);
            }
          }
        }
        multiply(sums, left1, ones1, ones1);
        multiply(sums, left2, ones2, ones2);
#pragma unroll
        for (int at = 0; at < D; at += 16) {
          unsigned right[4];
          Map::template load_columns<1>(right, squares, m, at);
          multiply(out1[at / 8], left1, right[0], right[1]);
          multiply(out1[at / 8 + 1], left1, right[2], right[3]);
          multiply(out2[at / 8], left2, right[0], right[1]);
          multiply(out2[at / 8 + 1], left2, right[2], right[3]);
        }
      }
    };
    own_scores(map, group, query, rows, top1);
#pragma unroll
    for (int r = 0; r < 2; ++r) top1[r] = top2[r] = top1[r] * log2_e - headroom;
    average(std::false_type{}, map.first_passing(), map.end_passing());
    if constexpr (splits > 1)
      if (!join<D, splits>(map, out1, out2, sums)) return;
    const bool left_range =
        !(sums[0] < sum_limit && sums[1] < sum_limit && sums[2] < sum_limit && sums[3] < sum_limit);
    const bool again = __any_sync(0xffffffffu, left_range);
    if (again) {
#pragma unroll
      for (int r = 0; r < 2; ++r) top1[r] = top2[r] = -far;
      for (int n = 0; n < 2 * map.groups; ++n) {
        float s[4], row[4], col[4];
        Map::template rows_product<0>(s, query, rows, n / 2, n % 2, zero);
        map.add_logs(group, n, s, row, col);
#pragma unroll
        for (int e = 0; e < 4; ++e)
          top1[e / 2] = ::fmaxf(top1[e / 2], row[e]), top2[e / 2] = ::fmaxf(top2[e / 2], col[e]);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int step = 1; step < 4; step *= 2) {
          top1[r] = ::fmaxf(top1[r], __shfl_xor_sync(0xffffffffu, top1[r], step));
          top2[r] = ::fmaxf(top2[r], __shfl_xor_sync(0xffffffffu, top2[r], step));
        }
      }
      average(std::true_type{}, 0, map.groups);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float sum1 = sums[2 * r], sum2 = sums[2 * r + 1];
      const int token = map.token(group, r);
      if (log_sums != nullptr && map.lane % 4 == 0 && token >= 0) {
        const int log1 = __float_as_int(top1[r] + __log2f(sum1));
        log_sums[head * g.tokens + token] = {__int_as_float(again ? log1 | 1 : log1 & ~1),
                                             top2[r] + __log2f(sum2)};
      }
      const float factor1 = __fdividef(1, sum1), factor2 = __fdividef(share2, sum2);
#pragma unroll
      for (int s = 0; s < D / 8; ++s)
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e)
          out1[s][e] *= factor1, out2[s][e] = share1 * out1[s][e] + factor2 * out2[s][e];
    }
    if (y1 != nullptr) map.template store_group<2>(g, y1 + base, group, out1);
    if (local.w != nullptr) add_terms<D>(own_terms, map.lane, out2);
    map.template store_group<2>(g, y + base, group, out2);
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
