#pragma once
#include "ppma/core/names_begin.hpp"
// Backward of whole attention in bf16 on the tensor cores (the words are tensor.cuh's).

#include "ppma/kernels/cuda/whole/pieces.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// What the gradients need of a query: log2 of the sums, less log2 of the shares; and sum p dP of
/// both softmaxes, which is dy times the average of each: y = share1 y1 + share2 y2. y1 null: y is
/// the one that counts. Of padding (token -1) what leaves it no weight.
template <class T>
__device__ __forceinline__ float4 query_stats(const Lines& g, i64 head, int token, const T* y,
                                              const T* y1, const T* dy, const float2* log_sums,
                                              float share1, float share2) {
  float4 s = {far, far, 0, 0};
  if (token < 0) return s;
  const i64 at = g.base(head) + token * g.channels;
  float whole = 0, one = 0;
  for (int c = 0; c < g.head_width; c += 8) {
    float a[8], b[8], d[8];
    load_pack<8>(y + at + c, a);
    load_pack<8>(dy + at + c, d);
    if (y1 != nullptr) load_pack<8>(y1 + at + c, b);
#pragma unroll
    for (int i = 0; i < 8; ++i) whole += a[i] * d[i], one += y1 != nullptr ? b[i] * d[i] : 0.f;
  }
  const float2 log = log_sums[head * g.tokens + token];
  if (share1 > 0) s.x = log.x - ::log2f(share1), s.z = y1 != nullptr ? one : whole;
  if (share2 > 0)
    s.y = log.y - ::log2f(share2), s.w = y1 != nullptr ? (whole - share1 * one) / share2 : whole;
  return s;
}

/// query_stats() of all cells.
template <class T>
__global__ void __launch_bounds__(128)
    query_sums(Flat g, i64 heads, const T* y, const T* y1, const T* dy, const float2* log_sums,
               float share1, float share2, float4* stats) {
  const int tiles = g.tiles();
  for (i64 e = cuda::first(); e < heads * tiles * cells; e += cuda::stride())
    stats[e] =
        query_stats(g, e / (tiles * cells),
                    g.token(static_cast<int>(e / cells % tiles), static_cast<int>(e % cells)), y,
                    y1, dy, log_sums, share1, share2);
}

/// of_keys: dk (out1), dv (out2) of the keys of a tile, all queries passing by; else dq (out1) of
/// its queries. And what the mask's sums get of the tile's cells.
template <int D, class Mask, bool of_keys>
__global__ void __launch_bounds__(threads, blocks_at_once<D>)
    backward(Flat g, Mask mask, const bf16* q, const bf16* k, const bf16* v, const bf16* dy,
             const typename Mask::Cell* sums, const float4* stats, bf16* out1, bf16* out2,
             float2* dsums) {
  using Cell = typename Mask::Cell;
  constexpr bool masked = Mask::masked;
  __shared__ alignas(16) bf16 xs[2][cells][D + 8], zs[2][cells][D + 8];
  __shared__ alignas(16) Cell other[2][cells];
  __shared__ alignas(16) float4 seen[of_keys ? 2 : 1][of_keys ? cells : 1];
  const int tile = static_cast<int>(blockIdx.x), tiles = static_cast<int>(gridDim.x),
            lane = static_cast<int>(threadIdx.x) % 32;
  const i64 head = blockIdx.y, base = g.base(head);
  const Cell* const plane = sums + head * tiles * cells;
  const float4* const of_head = stats + head * tiles * cells;
  const bf16 *const x = of_keys ? q : k, *const z = of_keys ? dy : v;  // s = own x^T, dp = own z^T
  const TileCopy<D> copy(g);
  const auto fetch = [&](int t) {
    copy(t, x + base, xs[t % 2]);
    copy(t, z + base, zs[t % 2]);
    if constexpr (masked) load_block(other[t % 2], plane + t * cells, sizeof other[0]);
    if constexpr (of_keys) load_block(seen[t % 2], of_head + t * cells, sizeof seen[0]);
    copies_issued();
  };
  fetch(0);
  [[maybe_unused]] bool walls = false;
  if constexpr (masked) walls = Mask::any_closed(g, plane);
  Owner<Cell> o;
  if constexpr (masked)
    o.sums[0] = plane[tile * cells + o.cell[0]], o.sums[1] = plane[tile * cells + o.cell[1]];
  const int token0 = g.token(tile, o.cell[0]), token1 = g.token(tile, o.cell[1]);
  const bool idle = g.is_idle(tile);
  unsigned left_x[D / 16][4], left_z[D / 16][4];
  load_left<D>((of_keys ? k : q) + base, g.channels, g.head_width, token0, token1, left_x);
  load_left<D>((of_keys ? v : dy) + base, g.channels, g.head_width, token0, token1, left_z);
  [[maybe_unused]] float4 mine[2];
  if constexpr (!of_keys)
    mine[0] = of_head[tile * cells + o.cell[0]], mine[1] = of_head[tile * cells + o.cell[1]];
  float sum1[D / 8][4] = {};
  [[maybe_unused]] float sum2[of_keys ? D / 8 : 1][4] = {};
  [[maybe_unused]] typename Mask::Gradients gradients;
  if constexpr (masked) gradients.begin(mask, o, tile);
  const auto pass = [&](auto with_walls) {
    for (int t = 0; t < tiles; ++t) {
      if (t + 1 < tiles) {
        fetch(t + 1);
        copies_done<1>();
      } else {
        copies_done<0>();
      }
      __syncthreads();
      if (!idle) {
#pragma unroll
        for (int m = 0; m < 4; ++m) {  // 16 cells of the tile
          float ds[2][4], p[2][4];
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const int n = 2 * m + half;
            float s[4], dp[4];
            times_rows<D>(s, left_x, &xs[t % 2][8 * n]);
            times_rows<D>(dp, left_z, &zs[t % 2][8 * n]);
            [[maybe_unused]] float first[4], second[4];
            if constexpr (masked) {
              Mask::template add<decltype(with_walls)::value>(s, n, o, other[t % 2], first, second);
              gradients.piece(mask, t, n);
            }
#pragma unroll
            for (int e = 0; e < 4; ++e) {
              float4 of_query;
              if constexpr (of_keys)
                of_query = seen[t % 2][8 * n + lane % 4 * 2 + e % 2];
              else
                of_query = mine[e / 2];
              if constexpr (masked) {
                const float p_first = exp2_fast(::fmaf(first[e], log2_e, -of_query.x)),
                            p_second = exp2_fast(::fmaf(second[e], log2_e, -of_query.y));
                const float ds_first = p_first * (dp[e] - of_query.z),
                            ds_second = p_second * (dp[e] - of_query.w);
                gradients.add(e, ds_first, ds_second);
                ds[half][e] = ds_first + ds_second, p[half][e] = p_first + p_second;
              } else {
                const bool there = of_keys || t * cells + 8 * n + lane % 4 * 2 + e % 2 < g.tokens;
                p[half][e] = there ? exp2_fast(::fmaf(s[e], log2_e, -of_query.x)) : 0.f;
                ds[half][e] = p[half][e] * (dp[e] - of_query.z);
              }
            }
          }
          unsigned left_ds[4];
          [[maybe_unused]] unsigned left_p[4];
          as_left(left_ds, ds[0], ds[1]);
          if constexpr (of_keys) as_left(left_p, p[0], p[1]);
#pragma unroll
          for (int at = 0; at < D; at += 16) {
            unsigned b[4];
            load_columns<D>(b, &xs[t % 2][16 * m], at);
            multiply(sum1[at / 8], left_ds, b[0], b[1]);
            multiply(sum1[at / 8 + 1], left_ds, b[2], b[3]);
            if constexpr (of_keys) {
              load_columns<D>(b, &zs[t % 2][16 * m], at);
              multiply(sum2[at / 8], left_p, b[0], b[1]);
              multiply(sum2[at / 8 + 1], left_p, b[2], b[3]);
            }
          }
        }
      }
      __syncthreads();
    }
  };
  if (walls)
    pass(std::bool_constant<masked>{});
  else
    pass(std::false_type{});
  store_rows<D>(out1 + base, g.channels, g.head_width, token0, token1, sum1);
  if constexpr (of_keys) store_rows<D>(out2 + base, g.channels, g.head_width, token0, token1, sum2);
  if constexpr (masked) gradients.finish(g, o, tile, dsums + head * g.tokens);
}

/// Gradients of the log decays: sums of those of a along each line, of b across, from the far end.
/// A thread a line.
template <class A>
__global__ void __launch_bounds__(128)
    decay_gradients(Lines g, i64 heads, const float2* queries, const float2* keys, const A* log_a,
                    const A* log_b, A* dlog_a, A* dlog_b) {
  for (i64 e = cuda::first(); e < heads * (g.lines + g.length); e += cuda::stride()) {
    const int r = static_cast<int>(e % (g.lines + g.length));
    const bool along = r < g.lines;
    const i64 at =
        e / (g.lines + g.length) * g.tokens + (along ? r * g.line_step : (r - g.lines) * g.step);
    const int n = along ? g.length : g.lines, step = along ? g.step : g.line_step;
    A sum = 0;
    for (int m = n - 1; m >= 0; --m) {
      const i64 here = at + m * step;
      sum += along ? queries[here].x + keys[here].x : queries[here].y + keys[here].y;
      (along ? dlog_a : dlog_b)[here] =
          m > 0 && !((along ? log_a : log_b)[here] <= A(-polyline_gpu::limit_bf16)) ? sum : A(0);
    }
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
