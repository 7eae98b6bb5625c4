#pragma once
#include "ppma/core/names_begin.hpp"
// whole_attention() in bf16 on the tensor cores, float sums. Scores, masks and probabilities live
// in registers.
//
//   row path      s - |a[i,j] - a[i,l]| - |b[i,l] - b[k,l]|       along the owner's line,
//                                                                 then across
//   column path   s - |a[k,j] - a[k,l]| - |b[i,j] - b[k,j]|       across in the owner's
//                                                                 column, then along
//
// (i,j) is the owner, (k,l) the other. Seen from a query the row path is V2H, from a key it is H2V:
// so one kernel makes the gradients of both. a and b are the running sums of the log decays.
//
// A block owns a tile of 64 cells, a warp 16 of them; all tiles pass by. A tile is a square of the
// grid (squares.cuh), so that in every 8 x 8 piece of scores i and k are the same for all, j and l
// are consecutive, and a piece's decays are products of few numbers. Maps of at most 16 x 16, whose
// tables fit in shared memory: small.cuh. Without a mask, and with that of two sequences, tiles are
// tokens as they lie: here, where the running maximum is kept in every tile (Average).

#include "ppma/kernels/cuda/whole/pieces.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// One softmax and its average of values, while keys pass by.
template <int D>
struct Average {
  float most[2] = {-far, -far}, sum[2] = {}, out[D / 8][4] = {};

  /// t -> e^(t - most) as left factors; what came before is rescaled.
  __device__ __forceinline__ void absorb(float (&t)[8][4], unsigned (&left)[4][4]) {
    float now[2] = {most[0], most[1]};
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int r = 0; r < 2; ++r) now[r] = ::fmaxf(now[r], ::fmaxf(t[n][2 * r], t[n][2 * r + 1]));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      now[r] = ::fmaxf(now[r], __shfl_xor_sync(0xffffffffu, now[r], 1));
      now[r] = ::fmaxf(now[r], __shfl_xor_sync(0xffffffffu, now[r], 2));
    }
    if (__any_sync(0xffffffffu, now[0] > most[0] || now[1] > most[1])) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float factor = exp2_fast((most[r] - now[r]) * log2_e);
        most[r] = now[r], sum[r] *= factor;
#pragma unroll
        for (int s = 0; s < D / 8; ++s) out[s][2 * r] *= factor, out[s][2 * r + 1] *= factor;
      }
    }
    const float shift[2] = {most[0] * log2_e, most[1] * log2_e};
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        t[n][e] = exp2_fast(::fmaf(t[n][e], log2_e, -shift[e / 2]));
        sum[e / 2] += t[n][e];
      }
#pragma unroll
    for (int s = 0; s < 4; ++s) as_left(left[s], t[2 * s], t[2 * s + 1]);
  }
  __device__ __forceinline__ void add_values(int at, const unsigned (&left)[4],
                                             const unsigned (&b)[4]) {
    multiply(out[at / 8], left, b[0], b[1]);
    multiply(out[at / 8 + 1], left, b[2], b[3]);
  }
  /// out /= sum over all keys; returns log2 of that sum for row r in log_sum.
  __device__ __forceinline__ void finish(float (&log_sum)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
      log_sum[r] = most[r] * log2_e + ::log2f(sum[r]);
      const float factor = 1 / sum[r];
#pragma unroll
      for (int s = 0; s < D / 8; ++s) out[s][2 * r] *= factor, out[s][2 * r + 1] *= factor;
    }
  }
};

/// y; and for backward y1, the average of the first softmax alone, and (log2 z1, log2 z2) of every
/// token and head.
template <int D, class Mask>
__global__ void __launch_bounds__(threads, blocks_at_once<D>)
    forward(Flat g, const bf16* q, const bf16* k, const bf16* v, const typename Mask::Cell* sums,
            float share1, float share2, bf16* y, bf16* y1, float2* log_sums) {
  using Cell = typename Mask::Cell;
  constexpr bool masked = Mask::masked;
  __shared__ alignas(16) bf16 ks[2][cells][D + 8], vs[2][cells][D + 8];
  __shared__ alignas(16) Cell other[2][cells];
  const int tile = static_cast<int>(blockIdx.x), tiles = static_cast<int>(gridDim.x);
  const i64 head = blockIdx.y, base = g.base(head);
  const Cell* const plane = sums + head * tiles * cells;
  const TileCopy<D> copy(g);
  const auto fetch = [&](int t) {
    copy(t, k + base, ks[t % 2]);
    copy(t, v + base, vs[t % 2]);
    if constexpr (masked) load_block(other[t % 2], plane + t * cells, sizeof other[0]);
    copies_issued();
  };
  fetch(0);
  [[maybe_unused]] bool walls = false;
  if constexpr (masked) walls = Mask::any_closed(g, plane);
  Owner<Cell> o;
  if constexpr (masked)
    o.sums[0] = plane[tile * cells + o.cell[0]], o.sums[1] = plane[tile * cells + o.cell[1]];
  const int token0 = g.token(tile, o.cell[0]), token1 = g.token(tile, o.cell[1]);
  unsigned query[D / 16][4];
  load_left<D>(q + base, g.channels, g.head_width, token0, token1, query);
  const bool idle = g.is_idle(tile);
  Average<D> first;
  [[maybe_unused]] Average<masked ? D : 8> second;
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
        float s[8][4], row[8][4];
        unsigned left1[4][4];
        [[maybe_unused]] unsigned left2[4][4];
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          times_rows<D>(s[n], query, &ks[t % 2][8 * n]);
          if constexpr (masked) {
            float other_mask[4];
            Mask::template add<decltype(with_walls)::value>(s[n], n, o, other[t % 2], row[n],
                                                            other_mask);
#pragma unroll
            for (int e = 0; e < 4; ++e) s[n][e] = other_mask[e];
          } else {
            const int c = t * cells + 8 * n + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
            for (int e = 0; e < 4; ++e) row[n][e] = c + e % 2 < g.tokens ? s[n][e] : -far;
          }
        }
        first.absorb(row, left1);
        if constexpr (masked) second.absorb(s, left2);
#pragma unroll
        for (int m = 0; m < 4; ++m)
#pragma unroll
          for (int at = 0; at < D; at += 16) {
            unsigned b[4];
            load_columns<D>(b, &vs[t % 2][16 * m], at);
            first.add_values(at, left1[m], b);
            if constexpr (masked) second.add_values(at, left2[m], b);
          }
      }
      __syncthreads();
    }
  };
  // Apart, so that heads without closed paths do not look for them.
  if (walls)
    pass(std::bool_constant<masked>{});
  else
    pass(std::false_type{});
  float log1[2], log2[2] = {};
  first.finish(log1);
  if constexpr (masked) second.finish(log2);
  if (log_sums != nullptr && threadIdx.x % 4 == 0) {
    if (token0 >= 0) log_sums[head * g.tokens + token0] = {log1[0], log2[0]};
    if (token1 >= 0) log_sums[head * g.tokens + token1] = {log1[1], log2[1]};
  }
  if (y1 != nullptr) store_rows<D>(y1 + base, g.channels, g.head_width, token0, token1, first.out);
#pragma unroll
  for (int s = 0; s < D / 8; ++s)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      first.out[s][e] *= share1;
      if constexpr (masked) first.out[s][e] += share2 * second.out[s][e];
    }
  store_rows<D>(y + base, g.channels, g.head_width, token0, token1, first.out);
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
