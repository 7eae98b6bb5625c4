#pragma once
#include "ppma/core/names_begin.hpp"
// The backward of small.cuh: queries first, then keys.

#include "ppma/kernels/cuda/whole/small.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// See tensor_backward.cuh's backward. The queries go first: they leave `stats` (query_sums there)
/// for the keys, by padded cells, the last bit of the first telling whether forward took the
/// logarithms.
template <int D, int WT, bool of_keys>
__global__ void __launch_bounds__(32 * small_warps, small_blocks)
    small_backward(Lines g, const bf16* q, const bf16* k, const bf16* v, const float* log_a,
                   const float* log_b, const bf16* y, const bf16* y1, const bf16* dy,
                   const float2* log_sums, float share1, float share2, float4* stats, bf16* out1,
                   bf16* out2, float2* dsums) {
  extern __shared__ float4 whole_attention_memory[];
  const i64 head = blockIdx.y, base = g.base(head);
  const Small<D, WT, float2> map(g, whole_attention_memory);
  cuda::wait();
  float4* const of_head = stats + head * map.rows;
  // Of every query, for the keys: least log2 of its sums, means of both softmaxes; its factors in
  // the row and the column path.
  float *const least = map.stats(), *const row_factor = least + map.rows,
               *const col_factor = row_factor + map.rows;
  float2* const means = reinterpret_cast<float2*>(col_factor + map.rows);
  map.copy(g, (of_keys ? q : k) + base, map.x);
  map.copy(g, (of_keys ? dy : v) + base, map.z);
  copies_issued();
  map.scan(log_a + head * g.tokens, log_b + head * g.tokens);
  bool key_logs = false;
  if constexpr (of_keys) {
    for (int e = static_cast<int>(threadIdx.x); e < map.rows; e += static_cast<int>(blockDim.x)) {
      const float4 s = of_head[e];
      const float low = ::fminf(s.x, s.y);
      least[e] = low, row_factor[e] = exp2_fast(low - s.y), col_factor[e] = exp2_fast(low - s.x),
      means[e] = {s.w, s.z};
      key_logs |= (__float_as_int(s.x) & 1) != 0;
    }
    key_logs = __syncthreads_or(key_logs) != 0;
  } else {
    __syncthreads();
  }
  map.fill_along(of_keys ? col_factor : nullptr);
  copies_done<0>();
  __syncthreads();
  map.each_group([&](int group) {
    const int token[2] = {map.token(group, 0), map.token(group, 1)};
    unsigned left_x[D / 16][4], left_z[D / 16][4];
    load_left<D>((of_keys ? k : q) + base, g.channels, g.head_width, token[0], token[1], left_x);
    load_left<D>((of_keys ? v : dy) + base, g.channels, g.head_width, token[0], token[1], left_z);
    [[maybe_unused]] float4 mine[2];
    [[maybe_unused]] float top[2], mine_row[2], mine_col[2];
    bool by_logs = key_logs;
    if constexpr (!of_keys) {
      unsigned other[D / 16][4];
      float whole[2], one[2] = {};
      load_left<D>(y + base, g.channels, g.head_width, token[0], token[1], other);
      row_products<D>(other, left_z, whole);
      if (y1 != nullptr) {
        load_left<D>(y1 + base, g.channels, g.head_width, token[0], token[1], other);
        row_products<D>(other, left_z, one);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float4 s = {far, far, 0, 0};
        bool logs = false;
        if (token[r] >= 0) {
          const float2 log = log_sums[head * g.tokens + token[r]];
          logs = (__float_as_int(log.x) & 1) != 0;
          if (share1 > 0) s.x = log.x - ::log2f(share1), s.z = y1 != nullptr ? one[r] : whole[r];
          if (share2 > 0)
            s.y = log.y - ::log2f(share2),
            s.w = y1 != nullptr ? (whole[r] - share1 * one[r]) / share2 : whole[r];
        }
        by_logs |= logs;
        const int bits = __float_as_int(s.x);
        s.x = __int_as_float(logs ? bits | 1 : bits & ~1);
        if (map.lane % 4 == 0) of_head[16 * group + 8 * r + map.lane / 4] = s;
        mine[r] = s, top[r] = ::fminf(s.x, s.y);
        mine_row[r] = exp2_fast(top[r] - s.x), mine_col[r] = exp2_fast(top[r] - s.y);
      }
      by_logs = __any_sync(0xffffffffu, by_logs);
    }
    map.fill_across(group, of_keys ? row_factor : nullptr);
    float2 own[2][WT];
    map.own_lines(group, own);
    if constexpr (!of_keys)
#pragma unroll
      for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int w = 0; w < WT; ++w) own[r][w] = times(own[r][w], {mine_row[r], mine_row[r]});

    float sum1[D / 8][4] = {};
    [[maybe_unused]] float sum2[of_keys ? D / 8 : 1][4] = {};
    // dS of the row path by columns of a line: of all lines, and of those above the owner's less
    // those below.
    float along[WT][4] = {}, across[WT][4] = {}, own_b[2] = {};
    const auto pass = [&](auto with_logs) {
      constexpr bool logs = decltype(with_logs)::value;
      for (int m = 0; m < map.groups; ++m) {
        float ds[2][4], p[2][4];
        [[maybe_unused]] float2 row[2][2], col[2][2];
        if constexpr (!logs) map.masks(m, own, row, col);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int n = 2 * m + half, w = WT == 2 ? half : 0, cell = 8 * n + map.lane % 4 * 2;
          float s[4], dp[4], below[2];
          times_rows<D>(s, left_x, map.x + 8 * n);
          times_rows<D>(dp, left_z, map.z + 8 * n);
          float p_row[4], p_col[4];
          if constexpr (logs) {
            map.add_logs(group, n, s, p_row, p_col);
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              const float4 of_query = of_keys ? of_head[cell + e % 2] : mine[e / 2];
              p_row[e] = exp2_fast(::fmaf(p_row[e], log2_e, of_keys ? -of_query.y : -of_query.x));
              p_col[e] = exp2_fast(::fmaf(p_col[e], log2_e, of_keys ? -of_query.x : -of_query.y));
            }
          } else {
            [[maybe_unused]] float2 shift;
            if constexpr (of_keys) shift = *reinterpret_cast<const float2*>(least + cell);
#pragma unroll
            for (int r = 0; r < 2; ++r) {
              const float2 weight{
                  exp2_fast(::fmaf(s[2 * r], log2_e, of_keys ? -shift.x : -top[r])),
                  exp2_fast(::fmaf(s[2 * r + 1], log2_e, of_keys ? -shift.y : -top[r]))};
              const float2 by_row = times(weight, row[half][r]),
                           by_col =
                               of_keys
                                   ? times(weight, col[half][r])
                                   : times(weight, times(col[half][r], {mine_col[r], mine_col[r]}));
              p_row[2 * r] = by_row.x, p_row[2 * r + 1] = by_row.y, p_col[2 * r] = by_col.x,
                        p_col[2 * r + 1] = by_col.y;
            }
          }
          [[maybe_unused]] float4 mean;  // of both softmaxes, of both columns
          if constexpr (of_keys) mean = *reinterpret_cast<const float4*>(means + cell);
          // before and after it, so that the total taken off leaves above less below
          const auto of_own_line = [&] {
            if (m != group) return;
#pragma unroll
            for (int e = 0; e < 4; ++e)
              if (WT == 2 || e / 2 == half) across[w][e] += along[w][e];
          };
          of_own_line();
#pragma unroll
          for (int r = 0; r < 2; ++r)
            below[r] =
                static_cast<float>((map.line(group, r) > n / WT) - (map.line(group, r) < n / WT));
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float mean_row = of_keys ? (e % 2 == 0 ? mean.x : mean.z) : mine[e / 2].z,
                        mean_col = of_keys ? (e % 2 == 0 ? mean.y : mean.w) : mine[e / 2].w;
            const float ds_row = p_row[e] * (dp[e] - mean_row),
                        ds_col = p_col[e] * (dp[e] - mean_col);
            along[w][e] += ds_row;
            own_b[e / 2] += below[e / 2] * ds_col;
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
          load_columns<D>(right, map.x + 16 * m, at);
          multiply(sum1[at / 8], left_ds, right[0], right[1]);
          multiply(sum1[at / 8 + 1], left_ds, right[2], right[3]);
          if constexpr (of_keys) {
            load_columns<D>(right, map.z + 16 * m, at);
            multiply(sum2[at / 8], left_p, right[0], right[1]);
            multiply(sum2[at / 8 + 1], left_p, right[2], right[3]);
          }
        }
      }
    };
    if (by_logs)
      pass(std::true_type{});
    else
      pass(std::false_type{});
    store_rows<D>(out1 + base, g.channels, g.head_width, token[0], token[1], sum1);
    if constexpr (of_keys)
      store_rows<D>(out2 + base, g.channels, g.head_width, token[0], token[1], sum2);

    // What a and b get: a falls along a line, so the sign of -(a[i,j] - a[i,l]) is that of j - l.
    // Summed over l for the owner, over j for the others of its line.
    float own_a[2] = {};
    float2 others[2];
#pragma unroll
    for (int w = 0; w < WT; ++w)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int l = 8 * w + map.lane % 4 * 2 + e;
        float a[2], b[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          a[r] =
              static_cast<float>((map.column(r) > l) - (map.column(r) < l)) * along[w][2 * r + e],
          b[r] = across[w][2 * r + e] - along[w][2 * r + e];
          own_a[r] += a[r];
        }
        if (WT == 2) a[0] += a[1], b[0] += b[1];  // one line
#pragma unroll
        for (int r = 0; r < 2 / WT; ++r) {
#pragma unroll
          for (int step = 4; step < 32; step *= 2)
            a[r] += __shfl_xor_sync(0xffffffffu, a[r], step),
                b[r] += __shfl_xor_sync(0xffffffffu, b[r], step);
          // Now all lanes of a column l have it: the lane whose row is that column takes it.
          const int to = WT == 2 ? w : r, from = map.lane / 4 / 2;
          const float2 taken{__shfl_sync(0xffffffffu, -a[r], from),
                             __shfl_sync(0xffffffffu, b[r], from)};
          if (map.lane / 4 % 2 == e) others[to] = taken;
        }
      }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int step = 1; step < 4; step *= 2) {
        own_a[r] += __shfl_xor_sync(0xffffffffu, own_a[r], step);
        own_b[r] += __shfl_xor_sync(0xffffffffu, own_b[r], step);
      }
      if (map.lane % 4 == 0 && token[r] >= 0)
        dsums[head * g.tokens + token[r]] = {own_a[r] + others[r].x, own_b[r] + others[r].y};
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
