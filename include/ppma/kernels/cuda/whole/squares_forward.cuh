#pragma once
#include "ppma/core/names_begin.hpp"
// Forward of squares.cuh.

#include "ppma/kernels/cuda/whole/squares.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

// Blocks on a multiprocessor.
template <int D>
inline constexpr int square_blocks = D == 32 ? 4 : 3;

/// Every row's score with itself.
template <int D>
__device__ __forceinline__ void scores_of_own(const unsigned (&query)[D / 16][4], const bf16* keys,
                                              const Squares& g, int token0, int token1,
                                              float (&own)[2]) {
  unsigned key[D / 16][4];
  load_left<D>(keys, g.channels, g.head_width, token0, token1, key);
  row_products<D>(query, key, own);
}

/// The half of a pair that stands at place n, twice.
__device__ __forceinline__ unsigned twice(unsigned pair, int n) {
  return __byte_perm(pair, 0, n % 2 == 0 ? 0x1010 : 0x3232);
}

/// y; and for backward y1, the average of the first softmax alone, and (log2 z1, log2 z2) of every
/// token and head, the last bit of the first telling whether logarithms were taken. Weights and
/// masks are multiplied in bf16, two at a time.
template <int D>
__global__ void __launch_bounds__(threads, square_blocks<D>)
    square_forward(Squares g, const bf16* q, const bf16* k, const bf16* v, const float2* sums,
                   float share1, float share2, bf16* y, bf16* y1, float2* log_sums) {
  __shared__ alignas(16) bf16 ks[2][cells][D + 8], vs[2][cells][D + 8];
  __shared__ PassingSums passing;
  __shared__ unsigned table[side][32];  // A_k[j,l] by lines and lanes
  const int tile = static_cast<int>(blockIdx.x), tiles = g.tiles();
  const i64 head = blockIdx.y, base = g.base(head);
  const float2* const plane = sums + head * tiles * cells;
  const SquareCopy<D> copy(g);
  const auto fetch = [&](int down, int over, int t) {
    copy(g, down, over, k + base, ks[t % 2]);
    copy(g, down, over, v + base, vs[t % 2]);
    passing.fetch(g, plane, tile, down, over, t);
    copies_issued();
  };
  SquareOwner o(g, tile, plane);
  const int token[2] = {g.token(tile, o.cell(0)), g.token(tile, o.cell(1))};
  const bool idle = o.line >= g.lines;
  unsigned query[D / 16][4];
  load_left<D>(q + base, g.channels, g.head_width, token[0], token[1], query);
  float out1[D / 8][4], out2[D / 8][4], sum1[4], sum2[4], top1[2], top2[2];
  // The averages of the values with weights 2^(log2_e s - top).
  const auto average = [&](auto by_logs) {
    constexpr bool logs = decltype(by_logs)::value;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      sum1[e] = sum2[e] = 0;
#pragma unroll
      for (int s = 0; s < D / 8; ++s) out1[s][e] = out2[s][e] = 0;
    }
    fetch(0, 0, 0);
    [[maybe_unused]] unsigned own[2];
    for (int over = 0, t = 0; over < g.over; ++over)
      for (int down = 0; down < g.down; ++down, ++t) {
        copies_done<0>();
        __syncthreads();  // and nobody reads the square before any more
        const bool last = down + 1 == g.down;
        if (t + 1 < tiles) fetch(last ? 0 : down + 1, last ? over + 1 : over, t + 1);
        const float2 *const other = passing.other[t % 2], *const crossing = passing.crossing[t % 2];
        if (down == 0) {
          o.begin(passing.line[over % 2]);
          if constexpr (!logs) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              const float2 two = o.own_line(r);
              set(own[r], two.x, two.y);
            }
          }
        }
        [[maybe_unused]] unsigned across_row[2], across_col[2];
        if constexpr (!logs) {
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const int line = 2 * o.warp + r;
            const float2 along = o.along_line(line, other, crossing), row = o.across_row(r, other),
                         col = o.across_column(r, crossing);
            set(table[line][o.lane], along.x, along.y);
            set(across_row[r], row.x, row.y), set(across_col[r], col.x, col.y);
          }
          __syncthreads();
        }
        if (idle) continue;
#pragma unroll
        for (int m = 0; m < 4; ++m) {  // lines 2 m and 2 m + 1 of the square
          unsigned left1[4], left2[4];
          if constexpr (logs) {
            float row[2][4], col[2][4], now1[2] = {top1[0], top1[1]}, now2[2] = {top2[0], top2[1]};
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const int n = 2 * m + half;
              float s[4];
              times_rows<D>(s, query, &ks[t % 2][8 * n]);
              o.add_logs(s, n, other, crossing, row[half], col[half]);
#pragma unroll
              for (int e = 0; e < 4; ++e)
                row[half][e] *= log2_e, col[half][e] *= log2_e,
                    now1[e / 2] = ::fmaxf(now1[e / 2], row[half][e]),
                             now2[e / 2] = ::fmaxf(now2[e / 2], col[half][e]);
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) {
#pragma unroll
              for (int step = 1; step < 4; step *= 2)
                now1[r] = ::fmaxf(now1[r], __shfl_xor_sync(0xffffffffu, now1[r], step)),
                now2[r] = ::fmaxf(now2[r], __shfl_xor_sync(0xffffffffu, now2[r], step));
              const float factor1 = exp2_fast(top1[r] - now1[r]),
                          factor2 = exp2_fast(top2[r] - now2[r]);
              top1[r] = now1[r], top2[r] = now2[r];
#pragma unroll
              for (int e = 2 * r; e < 2 * r + 2; ++e) {
                sum1[e] *= factor1, sum2[e] *= factor2;
#pragma unroll
                for (int s = 0; s < D / 8; ++s) out1[s][e] *= factor1, out2[s][e] *= factor2;
              }
#pragma unroll
              for (int half = 0; half < 2; ++half)
                set(left1[2 * half + r], exp2_fast(row[half][2 * r] - top1[r]),
                    exp2_fast(row[half][2 * r + 1] - top1[r])),
                    set(left2[2 * half + r], exp2_fast(col[half][2 * r] - top2[r]),
                        exp2_fast(col[half][2 * r + 1] - top2[r]));
            }
          } else {
            unsigned across_of_m[2];
#pragma unroll
            for (int r = 0; r < 2; ++r)
              across_of_m[r] = __shfl_sync(0xffffffffu, across_col[r], o.lane / 4 * 4 + m);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
              const int n = 2 * m + half;
              float s[4];
              times_rows<D>(s, query, &ks[t % 2][8 * n]);
              const unsigned along = table[n][o.lane];
#pragma unroll
              for (int r = 0; r < 2; ++r) {
                unsigned weights;
                set(weights, exp2_fast(::fmaf(s[2 * r], log2_e, -top1[r])),
                    exp2_fast(::fmaf(s[2 * r + 1], log2_e, -top1[r])));
                const unsigned across = __shfl_sync(0xffffffffu, across_row[r], 4 * n + o.lane % 4);
                left1[2 * half + r] = times(weights, times(own[r], across));
                left2[2 * half + r] = times(weights, times(along, twice(across_of_m[r], half)));
              }
            }
          }
          multiply(sum1, left1, two_ones, two_ones);
          multiply(sum2, left2, two_ones, two_ones);
#pragma unroll
          for (int at = 0; at < D; at += 16) {
            unsigned right[4];
            load_columns<D>(right, &vs[t % 2][16 * m], at);
            multiply(out1[at / 8], left1, right[0], right[1]);
            multiply(out1[at / 8 + 1], left1, right[2], right[3]);
            multiply(out2[at / 8], left2, right[0], right[1]);
            multiply(out2[at / 8 + 1], left2, right[2], right[3]);
          }
        }
      }
  };
  scores_of_own<D>(query, k + base, g, token[0], token[1], top1);
#pragma unroll
  for (int r = 0; r < 2; ++r) top1[r] = top2[r] = top1[r] * log2_e - headroom;
  average(std::false_type{});
  const bool again = __syncthreads_or(!idle && !(sum1[0] < sum_limit && sum1[2] < sum_limit &&
                                                 sum2[0] < sum_limit && sum2[2] < sum_limit)) != 0;
  if (again) {
#pragma unroll
    for (int r = 0; r < 2; ++r) top1[r] = top2[r] = -far;
    average(std::true_type{});
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (log_sums != nullptr && o.lane % 4 == 0 && token[r] >= 0) {
      const int log1 = __float_as_int(top1[r] + ::log2f(sum1[2 * r]));
      log_sums[head * g.tokens + token[r]] = {__int_as_float(again ? log1 | 1 : log1 & ~1),
                                              top2[r] + ::log2f(sum2[2 * r])};
    }
    const float factor1 = 1 / sum1[2 * r], factor2 = share2 / sum2[2 * r];
#pragma unroll
    for (int s = 0; s < D / 8; ++s)
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; ++e)
        out1[s][e] *= factor1, out2[s][e] = share1 * out1[s][e] + factor2 * out2[s][e];
  }
  if (y1 != nullptr) store_rows<D>(y1 + base, g.channels, g.head_width, token[0], token[1], out1);
  store_rows<D>(y + base, g.channels, g.head_width, token[0], token[1], out2);
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
