#pragma once
#include "ppma/core/names_begin.hpp"
// The backward of small.cuh in one kernel: a block has a head, with q, k, v, dy and the tables of
// the masks in shared memory. A warp's task is a group of queries, whose keys pass by, or a group
// of keys, whose queries do; so every score is computed twice, but every sum stays with one warp:
// the same bits every time.
//
// With T[j,l] = sum over k of dS of the row path of line i, what a gets along that line are sums of
// T with the sign of j - l, and what b gets in it across those of U[j,l] = sum over k of
// sign(i - k) dS. T is a product with the unit matrix, summed by the tensor cores; U are two
// snapshots of it, before and after the own line, less the whole. The column path gives b at the
// owner: a product with columns of +-1. The rest of the decays' gradients are sums along the lines,
// taken when all tasks are done.
//
// p, dP less its mean and dS are multiplied in bf16, two at a time, as dS is rounded for the
// products with k and q anyway. A dS has eight such roundings in it, and forward's sum: a few
// thousandths of it, rarely more than a hundredth.

#include "ppma/kernels/cuda/whole/small_stats.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

// Warps of a block at most: 128 registers each fill a multiprocessor, whether they are of one block
// or of several. Wider heads need more registers.
template <int D>
inline constexpr int backward_warps = D > 32 ? 8 : 16;
/// Those of a block of so many heads and tasks. Tasks of few heads go to as many warps as fit; of
/// many, several small blocks hide each other's start (on an H200): four warps for lines of 8, and
/// of 16 eight, as shared memory holds no more than two blocks of these.
template <int D, int WT>
int backward_warps_of(i64 heads, int tasks, i64 processors) {
  const i64 heads_at_once = (heads + processors - 1) / processors;
  const i64 warps = std::max<i64>(4 * WT, 16 / heads_at_once);
  return Small<D, WT, 4>::warps_of(tasks,
                                   static_cast<int>(std::min<i64>(warps, backward_warps<D>)));
}

/// See tensor_backward.cuh's backward and decay_gradients, which this one is too.
template <int D, int WT>
__global__ void __launch_bounds__(32 * backward_warps<D>)
    small_backward(Lines g, const bf16* q, const bf16* k, const bf16* v, const float* log_a,
                   const float* log_b, const bf16* y, const bf16* y1, const bf16* dy,
                   const float2* log_sums, float share1, float share2, bf16* dq, bf16* dk, bf16* dv,
                   float* dlog_a, float* dlog_b) {
  using Map = Small<D, WT, 4>;
  extern __shared__ __align__(128) uint4 whole_attention_memory[];
  const i64 head = blockIdx.y, base = g.base(head), plane = head * g.tokens;
  const Map map(g, whole_attention_memory);
  const SmallStats<D, WT> stats(map);
  cuda::wait();
  const bf16* const y1_here = y1 != nullptr ? y1 + base : nullptr;
  typename SmallStats<D, WT>::Outputs outputs{};
  if constexpr (SmallStats<D, WT>::early)
    outputs = stats.ask(map, g, static_cast<int>(threadIdx.x), y + base, y1_here, dy + base,
                        log_sums + plane);
  map.copy(g, {q + base, k + base, v + base, dy + base});
  copies_issued();
  scan_sums(map, log_a + plane, log_b + plane);
  const bool some_logs =
      stats.fill(map, g, outputs, y + base, y1_here, dy + base, log_sums + plane, share1, share2);
  const bool by_logs = __syncthreads_or(some_logs) != 0;
  stats.fill_tables(map);
  copies_done<0>();
  __syncthreads();

  const int lane = map.lane;
  const unsigned rows = map.rows_at(), squares = map.squares_at();
  // Columns of a right factor: the unit matrix's, which adds what it multiplies, and +-1.
  const unsigned unit = lane % 4 == lane / 8 ? (lane / 4 % 2 == 0 ? 0x3f80u : 0x3f800000u) : 0u;
  constexpr unsigned one = two_ones, minus_one = 0xbf80bf80;
  const float zero[4] = {};

  const auto run = [&](auto keys, auto with_logs, int group) {
    constexpr bool of_keys = decltype(keys)::value, logs = decltype(with_logs)::value;
    // own: k, v, and q, dy pass by; or q, dy and k, v
    constexpr int x = of_keys ? 0 : 1, z = of_keys ? 3 : 2;
    unsigned left_x[D / 16][4], left_z[D / 16][4], own[2][WT];
    Map::template load_group<1 - x>(left_x, squares, group);
    Map::template load_group<5 - z>(left_z, squares, group);
    map.own_lines(group, own);
    const auto masks =
        map.masks_of(group, of_keys ? stats.along : map.along, of_keys ? stats.across : map.across);
    // of the own queries
    [[maybe_unused]] float top[2], other[2], mean[4];
    [[maybe_unused]] unsigned col_factor[2];
    if constexpr (!of_keys) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int cell = 16 * group + 8 * r + lane / 4;
        const float* const of =
            reinterpret_cast<const float*>(stats.of_pair + cell / 2 * 2) + cell % 2;
        top[r] = of[4], other[r] = -of[6], mean[2 * r] = mean[2 * r + 1] = of[0] + of[6];
        const float2 factor = stats.factors[cell];
        col_factor[r] = detail::rounded_pair(factor.y, factor.y);
#pragma unroll
        for (int w = 0; w < WT; ++w) {
          const float2 a = __bfloat1622float2(as_bf16(own[r][w]));
          own[r][w] = detail::rounded_pair(a.x * factor.x, a.y * factor.x);
        }
      }
    }
    float sum1[D / 8][4] = {};
    [[maybe_unused]] float sum2[of_keys ? D / 8 : 1][4] = {};
    float along[WT][4] = {}, across[WT][4] = {}, own_b[4] = {};
    const auto snapshot = [&](int r) {
#pragma unroll
      for (int w = 0; w < WT; ++w)
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) across[w][e] += along[w][e];
    };
    const auto pass = [&](int m, unsigned sign) {
      unsigned p[4], d_row[4], d_col[4], ds[4];
      [[maybe_unused]] unsigned row[2][2], col[2][2];
      if constexpr (!logs) map.masks(masks, m, own, row, col);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int n = 2 * m + half, cell = 8 * n + lane % 4 * 2;
        float s[4], dp[4], less[4], shift[4], change[4];  // dp less the row path's mean
        if constexpr (of_keys) {
          const float4 means = stats.of_pair[cell], more = stats.of_pair[cell + 1];
          less[0] = means.x, less[1] = means.y, less[2] = means.z, less[3] = means.w;
#pragma unroll
          for (int r = 0; r < 2; ++r)
            shift[2 * r] = more.x, shift[2 * r + 1] = more.y, change[2 * r] = more.z,
                      change[2 * r + 1] = more.w;
        } else {
#pragma unroll
          for (int e = 0; e < 4; ++e)
            less[e] = mean[e], shift[e] = top[e / 2], change[e] = other[e / 2];
        }
        Map::template rows_product<x>(s, left_x, rows, m, half, zero);
        Map::template rows_product<z>(dp, left_z, rows, m, half, less);
        [[maybe_unused]] float by_row[4], by_col[4];
        if constexpr (logs) {
          map.add_logs(group, n, s, by_row, by_col);
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            // of the query: log2 of both sums, less that of the shares
            const int at = of_keys ? cell + e % 2 : 16 * group + 8 * (e / 2) + lane / 4,
                      l = at / Map::padded, token = l * map.length + at % Map::padded;
            float2 log{far, far};
            if (l < map.lines && at % Map::padded < map.length) log = log_sums[plane + token];
            const float log1 = share1 > 0 ? log.x - ::log2f(share1) : far,
                        log2 = share2 > 0 ? log.y - ::log2f(share2) : far;
            by_row[e] = exp2_fast(by_row[e] - (of_keys ? log2 : log1));
            by_col[e] = exp2_fast(by_col[e] - (of_keys ? log1 : log2));
          }
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          const int at = 2 * half + r;
          unsigned p_row, p_col;
          if constexpr (logs) {
            p_row = detail::rounded_pair(by_row[2 * r], by_row[2 * r + 1]);
            p_col = detail::rounded_pair(by_col[2 * r], by_col[2 * r + 1]);
          } else {
            const unsigned weights =
                detail::rounded_pair(exp2_fast(::fmaf(s[2 * r], log2_e, -shift[2 * r])),
                                     exp2_fast(::fmaf(s[2 * r + 1], log2_e, -shift[2 * r + 1])));
            p_row = times(weights, row[half][r]);
            p_col = times(weights, of_keys ? col[half][r] : times(col[half][r], col_factor[r]));
          }
          const unsigned dp_row = detail::rounded_pair(dp[2 * r], dp[2 * r + 1]),
                         dp_col = detail::rounded_pair(dp[2 * r] + change[2 * r],
                                                       dp[2 * r + 1] + change[2 * r + 1]);
          d_row[at] = times(p_row, dp_row), d_col[at] = times(p_col, dp_col);
          ds[at] = times_plus(p_col, dp_col, d_row[at]);
          if constexpr (of_keys) p[at] = plus(p_row, p_col);
        }
      }
      if (WT == 2 || m != group) {
        multiply(along[0], d_row, unit, WT == 2 ? 0 : unit);
        if (WT == 2) multiply(along[WT - 1], d_row, 0, unit);
        multiply(own_b, d_col, sign, sign);
      } else {  // two lines, each the own one of a row r
        snapshot(0);
        multiply(along[0], d_row, unit, 0);
        snapshot(0), snapshot(1);
        multiply(along[0], d_row, 0, unit);
        snapshot(1);
        const unsigned crossed[4] = {0, d_col[1], d_col[2], 0};
        multiply(own_b, crossed, one, minus_one);
      }
      Map::template add_columns<x>(sum1, ds, squares, m);
      if constexpr (of_keys) Map::template add_columns<z>(sum2, p, squares, m);
    };
    // what lies before the own group, it, and what lies behind
#pragma unroll 1
    for (int m = 0, place = 0; place < 3; ++place) {
      const int to = place == 0 ? group : place == 1 ? group + 1 : map.groups;
      const unsigned sign = place == 0 ? one : place == 1 ? 0 : minus_one;
#pragma unroll 1
      for (; m < to; ++m) pass(m, sign);
      if (WT == 2 && place < 2) snapshot(0), snapshot(1);
    }
    const int token[2] = {map.token(group, 0), map.token(group, 1)};
    store_rows<D>((of_keys ? dk : dq) + base, g.channels, g.head_width, token[0], token[1], sum1);
    if constexpr (of_keys)
      store_rows<D>(dv + base, g.channels, g.head_width, token[0], token[1], sum2);
    decay_sums_of(map, group, along, across, own_b, stats.sums + (of_keys ? map.rows : 0));
  };
  for (int task = map.warp; task < 2 * map.groups; task += map.warps) {
    const auto of = [&](auto with_logs) {
      if (task < map.groups)
        run(std::true_type{}, with_logs, task);
      else
        run(std::false_type{}, with_logs, task - map.groups);
    };
    if (by_logs)
      of(std::true_type{});
    else
      of(std::false_type{});
  }
  __syncthreads();
  // From the far end of every line and column: sums of what a and b get. Half a warp has one.
  const int at = lane % 16;
  for (int first = 2 * map.warp; first < g.lines + g.length; first += 2 * map.warps) {
    const int task = first + lane / 16, c = task - g.lines;
    const bool in_line = c < 0,
               there = task < g.lines + g.length && at < (in_line ? g.length : g.lines);
    const int cell = in_line ? task * Map::padded + at : at * Map::padded + c;
    float sum = 0;
    if (there) {
      const float2 x = stats.sums[cell], z = stats.sums[map.rows + cell];
      sum = in_line ? x.x + z.x : x.y + z.y;
    }
#pragma unroll
    for (int far_off = 1; far_off < 16; far_off *= 2) {
      const float behind = __shfl_down_sync(0xffffffffu, sum, far_off, 16);
      if (at + far_off < 16) sum += behind;
    }
    if (!there) continue;
    const i64 to = plane + (in_line ? task * g.length + at : at * g.length + c);
    const bool open = at > 0 && !((in_line ? log_a : log_b)[to] <= -polyline_gpu::limit_bf16);
    (in_line ? dlog_a : dlog_b)[to] = open ? sum : 0.f;
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
