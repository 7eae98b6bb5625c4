#pragma once
#include "ppma/core/names_begin.hpp"
// Backward of squares.cuh: queries, then keys.
//
// Gradients of the decays: the row path touches a[i,j], a[i,l], b[i,l] in the owner's own line.
// What [i,l] gets from the owner's eight columns j is complete when the column of squares of l has
// passed: it is written once a column, and summed over the squares of the line afterwards. No
// atomics, the same bits every time; O(N min(H,W)) memory.

#include "ppma/kernels/cuda/whole/squares.cuh"
#include "ppma/kernels/cuda/whole/tensor_backward.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

// Blocks on a multiprocessor.
template <int D, bool of_keys>
inline constexpr int square_blocks_back = D == 32   ? 4
                                          : of_keys ? 2
                                                    : 3;

/// What the keys need of the queries of a square: the least log2 of a sum; in the row and in the
/// column path of the key, the factor that is left of the sum, and the mean.
struct Seen {
  alignas(16) float least[cells], row[cells], col[cells];
  float2 means[cells];
};

/// query_stats() of all cells, and their Seen; logs[head]: whether forward took
/// logarithms for some query of it.
template <class T>
__global__ void __launch_bounds__(128)
    square_stats(Squares g, i64 heads, const T* y, const T* y1, const T* dy, const float2* log_sums,
                 float share1, float share2, float4* stats, Seen* seen, int* logs) {
  const int tiles = g.tiles();
  for (i64 e = cuda::first(); e < heads * tiles * cells; e += cuda::stride()) {
    const i64 head = e / (tiles * cells);
    const int tile = static_cast<int>(e / cells % tiles), cell = static_cast<int>(e % cells);
    const int token = g.token(tile, cell);
    const float4 s = query_stats(g, head, token, y, y1, dy, log_sums, share1, share2);
    if (token >= 0 && (__float_as_int(log_sums[head * g.tokens + token].x) & 1) != 0)
      logs[head] = 1;
    stats[e] = s;
    Seen& to = seen[e / cells];
    const float low = ::fminf(s.x, s.y);
    to.least[cell] = low, to.row[cell] = exp2_fast(low - s.y), to.col[cell] = exp2_fast(low - s.x);
    to.means[cell] = {s.w, s.z};
  }
}

/// of_keys: dk (out1), dv (out2) of the keys of a square, all queries passing by; else dq (out1) of
/// its queries. What the mask's sums get of the square's cells: dsums, from the row path and the
/// column path of the owner; crossings, from the row path of the owner's line.
template <int D, bool of_keys>
__global__ void __launch_bounds__(threads, square_blocks_back<D, of_keys>)
    square_backward(Squares g, const bf16* q, const bf16* k, const bf16* v, const bf16* dy,
                    const float2* sums, const float4* stats, const Seen* of_queries,
                    const int* logs_of, bf16* out1, bf16* out2, float2* dsums, float2* crossings) {
  __shared__ alignas(16) bf16 xs[2][cells][D + 8], zs[2][cells][D + 8];
  __shared__ PassingSums passing;
  __shared__ float2 table[side][32];           // A_k[j,l] by lines and lanes
  __shared__ float2 over_rows[4][2][side][4];  // B_i[k,l] by warps, rows, lines and pairs l
  __shared__ Seen seen[of_keys ? 2 : 1];
  const int tile = static_cast<int>(blockIdx.x), tiles = g.tiles();
  const i64 head = blockIdx.y, base = g.base(head);
  const float2* const plane = sums + head * tiles * cells;
  const float4* const of_head = stats + head * tiles * cells;
  const bf16 *const x = of_keys ? q : k, *const z = of_keys ? dy : v;  // s = own x^T, dp = own z^T
  const SquareCopy<D> copy(g);
  const auto fetch = [&](int down, int over, int t) {
    copy(g, down, over, x + base, xs[t % 2]);
    copy(g, down, over, z + base, zs[t % 2]);
    passing.fetch(g, plane, tile, down, over, t);
    if constexpr (of_keys)
      load_block(&seen[t % 2], of_queries + head * tiles + (over * g.down + down), sizeof(Seen));
    copies_issued();
  };
  fetch(0, 0, 0);
  SquareOwner o(g, tile, plane);
  const int token[2] = {g.token(tile, o.cell(0)), g.token(tile, o.cell(1))};
  const int own_down = tile % g.down, own_over = tile / g.down;
  const bool idle = o.line >= g.lines;
  unsigned left_x[D / 16][4], left_z[D / 16][4];
  load_left<D>((of_keys ? k : q) + base, g.channels, g.head_width, token[0], token[1], left_x);
  load_left<D>((of_keys ? v : dy) + base, g.channels, g.head_width, token[0], token[1], left_z);
  [[maybe_unused]] float4 mine[2];
  [[maybe_unused]] float top[2], mine_row[2], mine_col[2];
  if constexpr (!of_keys) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      mine[r] = of_head[tile * cells + o.cell(r)], top[r] = ::fminf(mine[r].x, mine[r].y);
      mine_row[r] = exp2_fast(top[r] - mine[r].x), mine_col[r] = exp2_fast(top[r] - mine[r].y);
    }
  }
  float sum1[D / 8][4] = {};
  [[maybe_unused]] float sum2[of_keys ? D / 8 : 1][4] = {};
  // dS while a column of squares passes, of its two columns: of the row path, by columns, of all
  // lines, and of those above the owner's and above or in it; of the column path likewise.
  float along[4] = {}, upper[4] = {}, own_col[2] = {};
  float own_a[2] = {}, own_b[2] = {};
  const auto end_column = [&](int over) {
    const int j = own_over * side + o.lane / 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float a[2], b[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int l = over * side + o.column() + e;
        // a falls along a line, so the sign of -(a[i,j] - a[i,l]) is that of j - l
        a[e] = static_cast<float>((j > l) - (j < l)) * along[2 * r + e];
        b[e] = upper[2 * r + e] - along[2 * r + e];
        own_a[r] += a[e];
#pragma unroll
        for (int step = 4; step < 32; step *= 2)
          a[e] += __shfl_xor_sync(0xffffffffu, a[e], step),
              b[e] += __shfl_xor_sync(0xffffffffu, b[e], step);
        along[2 * r + e] = upper[2 * r + e] = 0;
      }
      own_b[r] -= own_col[r], own_col[r] = 0;
      if (o.lane < 4)
        *reinterpret_cast<float4*>(crossings + ((head * tiles + tile) * g.over + over) * cells +
                                   (2 * o.warp + r) * side +
                                   o.column()) = {-a[0], b[0], -a[1], b[1]};
    }
  };
  const auto pass = [&](auto with_logs) {
    constexpr bool logs = decltype(with_logs)::value;
    [[maybe_unused]] float2 own[2];
    for (int over = 0, t = 0; over < g.over; ++over)
      for (int down = 0; down < g.down; ++down, ++t) {
        copies_done<0>();
        __syncthreads();  // and nobody reads the square before any more
        const bool last = down + 1 == g.down;
        if (t + 1 < tiles) fetch(last ? 0 : down + 1, last ? over + 1 : over, t + 1);
        const float2 *const other = passing.other[t % 2], *const crossing = passing.crossing[t % 2];
        [[maybe_unused]] const Seen& queries = seen[of_keys ? t % 2 : 0];
        if (down == 0) {
          o.begin(passing.line[over % 2]);
          if constexpr (!logs) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              own[r] = o.own_line(r);
              if constexpr (!of_keys) own[r] = times(own[r], {mine_row[r], mine_row[r]});
            }
          }
        }
        [[maybe_unused]] float2 across_col[2];
        if constexpr (!logs) {
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const int line = 2 * o.warp + r;
            float2 over_line = o.along_line(line, other, crossing), row = o.across_row(r, other);
            across_col[r] = o.across_column(r, crossing);
            if constexpr (of_keys) {
              over_line =
                  times(over_line,
                        *reinterpret_cast<const float2*>(queries.col + line * side + o.column()));
              row = times(row, *reinterpret_cast<const float2*>(queries.row + o.lane / 4 * side +
                                                                o.column()));
            } else {
              across_col[r] = times(across_col[r], {mine_col[r], mine_col[r]});
            }
            table[line][o.lane] = over_line;
            over_rows[o.warp][r][o.lane / 4][o.lane % 4] = row;
          }
          __syncthreads();
        }
        if (idle) continue;
#pragma unroll
        for (int m = 0; m < 4; ++m) {  // lines 2 m and 2 m + 1 of the square
          float ds[2][4], p[2][4];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int n = 2 * m + half;
            float s[4], dp[4], p_row[4], p_col[4];
            times_rows<D>(s, left_x, &xs[t % 2][8 * n]);
            times_rows<D>(dp, left_z, &zs[t % 2][8 * n]);
            if constexpr (logs) {
              o.add_logs(s, n, other, crossing, p_row, p_col);
#pragma unroll
              for (int e = 0; e < 4; ++e) {
                const float4 of_query =
                    of_keys
                        ? of_head[(over * g.down + down) * cells + side * n + o.column() + e % 2]
                        : mine[e / 2];
                p_row[e] = exp2_fast(::fmaf(p_row[e], log2_e, of_keys ? -of_query.y : -of_query.x));
                p_col[e] = exp2_fast(::fmaf(p_col[e], log2_e, of_keys ? -of_query.x : -of_query.y));
              }
            } else {
              [[maybe_unused]] float2 shift;
              if constexpr (of_keys)
                shift = *reinterpret_cast<const float2*>(queries.least + side * n + o.column());
              const float2 along_line = table[n][o.lane];
#pragma unroll
              for (int r = 0; r < 2; ++r) {
                const float2 weight{
                    exp2_fast(::fmaf(s[2 * r], log2_e, of_keys ? -shift.x : -top[r])),
                    exp2_fast(::fmaf(s[2 * r + 1], log2_e, of_keys ? -shift.y : -top[r]))};
                const float across = __shfl_sync(
                    0xffffffffu, half == 0 ? across_col[r].x : across_col[r].y, o.lane / 4 * 4 + m);
                const float2 by_row =
                                 times(weight, times(own[r], over_rows[o.warp][r][n][o.lane % 4])),
                             by_col = times(weight, times(along_line, {across, across}));
                p_row[2 * r] = by_row.x, p_row[2 * r + 1] = by_row.y;
                p_col[2 * r] = by_col.x, p_col[2 * r + 1] = by_col.y;
              }
            }
            [[maybe_unused]] float4 mean;  // of both softmaxes, of both columns
            if constexpr (of_keys)
              mean = *reinterpret_cast<const float4*>(queries.means + side * n + o.column());
            // before and after it, so that the total taken off leaves above less below
            const auto of_own_line = [&] {
              if (down != own_down) return;
#pragma unroll
              for (int r = 0; r < 2; ++r)
                if (2 * o.warp + r == n)
                  upper[2 * r] += along[2 * r], upper[2 * r + 1] += along[2 * r + 1],
                      own_b[r] += own_col[r];
            };
            of_own_line();
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const float mean_row = of_keys ? (e % 2 == 0 ? mean.x : mean.z) : mine[e / 2].z,
                          mean_col = of_keys ? (e % 2 == 0 ? mean.y : mean.w) : mine[e / 2].w;
              const float ds_row = p_row[e] * (dp[e] - mean_row),
                          ds_col = p_col[e] * (dp[e] - mean_col);
              along[e] += ds_row, own_col[e / 2] += ds_col;
              ds[half][e] = ds_row + ds_col, p[half][e] = p_row[e] + p_col[e];
            }
            of_own_line();
          }
          unsigned left_ds[4];
          [[maybe_unused]] unsigned left_p[4];
          as_left(left_ds, ds[0], ds[1]);
          if constexpr (of_keys) as_left(left_p, p[0], p[1]);
#pragma unroll
          for (int at = 0; at < D; at += 16) {
            unsigned right[4];
            load_columns<D>(right, &xs[t % 2][16 * m], at);
            multiply(sum1[at / 8], left_ds, right[0], right[1]);
            multiply(sum1[at / 8 + 1], left_ds, right[2], right[3]);
            if constexpr (of_keys) {
              load_columns<D>(right, &zs[t % 2][16 * m], at);
              multiply(sum2[at / 8], left_p, right[0], right[1]);
              multiply(sum2[at / 8 + 1], left_p, right[2], right[3]);
            }
          }
        }
        if (last) end_column(over);
      }
  };
  if (logs_of[head] != 0)
    pass(std::true_type{});
  else
    pass(std::false_type{});
  store_rows<D>(out1 + base, g.channels, g.head_width, token[0], token[1], sum1);
  if constexpr (of_keys)
    store_rows<D>(out2 + base, g.channels, g.head_width, token[0], token[1], sum2);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
      own_a[r] += __shfl_xor_sync(0xffffffffu, own_a[r], step);
      own_b[r] += __shfl_xor_sync(0xffffffffu, own_b[r], step);
    }
    if (o.lane % 4 == 0 && token[r] >= 0) dsums[head * g.tokens + token[r]] = {own_a[r], own_b[r]};
  }
}

/// dsums += the crossings of all squares of a line.
template <class Pair>
__global__ void __launch_bounds__(128)
    add_crossings(Squares g, i64 heads, const Pair* crossings, Pair* dsums) {
  const int tiles = g.tiles();
  for (i64 e = cuda::first(); e < heads * tiles * cells; e += cuda::stride()) {
    const i64 head = e / (tiles * cells);
    const int tile = static_cast<int>(e / cells % tiles), cell = static_cast<int>(e % cells);
    const int token = g.token(tile, cell), over = tile / g.down;
    if (token < 0) continue;
    const Pair* from = crossings + ((head * tiles + tile % g.down) * g.over + over) * cells + cell;
    Pair sum = dsums[head * g.tokens + token];
    for (int j = 0; j < g.over; ++j, from += i64{g.down} * g.over * cells)
      sum.x += from->x, sum.y += from->y;
    dsums[head * g.tokens + token] = sum;
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
