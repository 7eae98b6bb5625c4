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
// Tokens are laid out in lines of at most 64, each padded to 8, 16, 32 or 64 cells; a tile is 64
// cells: whole lines. Then in every 8 x 8 piece of scores i and k are the same for all, j and l are
// consecutive, and the decays of a piece are a handful of reads from shared memory. A block owns a
// tile, a warp 16 of its cells; all tiles pass by.
//
// In every tile of this kernel the running maximum is kept (Average). Maps of at most 16 x 16:
// small.cuh.
//
// Floor, forward: two exponentials a score (16 a cycle and multiprocessor) = 0.28 ms for 537 M
// scores on an H200; about 16 other instructions a score would take 0.29 ms more where they do not
// overlap. Measured there: 0.79 ms, backward 2.05.

#include "ppma/kernels/cuda/whole/small_run.cuh"
#include "ppma/kernels/cuda/whole/tensor_backward.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// (a, b) of every cell of every head, `far` in the padding. A thread a line or a column of lines.
template <class A>
__global__ void __launch_bounds__(128)
    cell_sums(Lines g, i64 heads, int tiles, const A* log_a, const A* log_b, float2* sums) {
  const int padded = 8 * g.width, all_lines = tiles * (8 / g.width);
  for (i64 e = cuda::first(); e < heads * (all_lines + padded); e += cuda::stride()) {
    const i64 head = e / (all_lines + padded);
    const int r = static_cast<int>(e % (all_lines + padded));
    const A *const from_a = log_a + head * g.tokens, *const from_b = log_b + head * g.tokens;
    float2* const to = sums + head * tiles * cells;
    float sum = 0;
    if (r < all_lines) {
      for (int at = 0; at < padded; ++at) {
        const bool there = r < g.lines && at < g.length;
        if (there && at > 0)
          sum += polyline_gpu::counted(from_a[r * g.line_step + at * g.step],
                                       polyline_gpu::limit_bf16);
        to[r * padded + at].x = there ? sum : far;
      }
    } else {
      const int at = r - all_lines;
      for (int line = 0; line < all_lines; ++line) {
        const bool there = line < g.lines && at < g.length;
        if (there && line > 0)
          sum += polyline_gpu::counted(from_b[line * g.line_step + at * g.step],
                                       polyline_gpu::limit_bf16);
        to[line * padded + at].y = there ? sum : far;
      }
    }
  }
}

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
    forward(Lines g, const bf16* q, const bf16* k, const bf16* v, const typename Mask::Cell* sums,
            float share1, float share2, bf16* y, bf16* y1, float2* log_sums) {
  using Cell = typename Mask::Cell;
  constexpr int WT = Mask::width;
  constexpr bool masked = Mask::masked;
  __shared__ alignas(16) bf16 ks[2][cells][D + 8], vs[2][cells][D + 8];
  __shared__ alignas(16) Cell own[cells], other[2][cells];
  const int tile = static_cast<int>(blockIdx.x), tiles = static_cast<int>(gridDim.x);
  const i64 head = blockIdx.y, base = g.base(head);
  const Cell* const plane = sums + head * tiles * cells;
  const TileCopy<D, WT> copy(g);
  const auto fetch = [&](int t) {
    copy(t, k + base, ks[t % 2]);
    copy(t, v + base, vs[t % 2]);
    if constexpr (masked) load_block(other[t % 2], plane + t * cells, sizeof own);
    copies_issued();
  };
  if constexpr (masked) load_block(own, plane + tile * cells, sizeof own);
  fetch(0);
  [[maybe_unused]] bool walls = false;
  if constexpr (masked) walls = Mask::any_closed(g, plane);
  Owner<Cell> o;
  o.template place<WT>(tile);
  const int token0 = g.token<WT>(tile, o.cell[0]), token1 = g.token<WT>(tile, o.cell[1]);
  unsigned query[D / 16][4];
  load_left<D>(q + base, g.channels, g.head_width, token0, token1, query);
  const bool idle = is_idle<Mask>(g, tile);
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
      if constexpr (masked)
        if (t == 0) o.sums[0] = own[o.cell[0]], o.sums[1] = own[o.cell[1]];
      if (!idle) {
        float s[8][4], row[8][4];
        unsigned left1[4][4];
        [[maybe_unused]] unsigned left2[4][4];
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          times_rows<D>(s[n], query, &ks[t % 2][8 * n]);
          if constexpr (masked) {
            float column[4];
            Mask::template add<decltype(with_walls)::value>(s[n], n, o, own, other[t % 2], row[n],
                                                            column);
#pragma unroll
            for (int e = 0; e < 4; ++e) s[n][e] = column[e];
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

/// Calls f with the head width rounded up to 32 or 64 as a constant.
template <class F>
void with_head(const Lines& g, F&& f) {
  if (g.head_width <= 32)
    f(std::integral_constant<int, 32>{});
  else
    f(std::integral_constant<int, 64>{});
}
/// The same, and with the mask, whose lines' width is a constant too.
template <bool masked, class F>
void with_constants(const Lines& g, F&& f) {
  with_head(g, [&](auto d) {
    if constexpr (masked) {
      if (g.width == 1) return f(d, Polylines<1>{});
      if (g.width == 2) return f(d, Polylines<2>{});
      if (g.width == 4) return f(d, Polylines<4>{});
      return f(d, Polylines<8>{});
    } else {
      return f(d, NoMask{});
    }
  });
}

/// What both passes share: the lines, the sums of the decays, the shares of the two paths.
struct Call {
  Lines g;
  i64 heads;
  int tiles;
  bool masked, small;
  float share1, share2;  // of the row path and the column path of a query
  const float *log_a, *log_b;
  Workspace<float2> sums;
  dim3 grid;

  Call(Paths paths, const AttentionShape& x, const float* log_alpha, const float* log_beta)
      : g(x, paths != Paths::none),
        heads(x.batch * x.heads),
        tiles(g.tiles()),
        masked(paths != Paths::none),
        small(g.small(masked)),
        share1(paths == Paths::both  ? 0.5f
               : paths == Paths::h2v ? 0.f
                                     : 1.f),
        share2(masked ? 1 - share1 : 0.f),
        log_a(log_alpha),
        log_b(log_beta),
        sums(masked && !small ? heads * tiles * cells : 0, Device::cuda),
        grid(static_cast<unsigned>(tiles), static_cast<unsigned>(heads)) {
    if (!masked || small) return;
    if (g.turned) std::swap(share1, share2), std::swap(log_a, log_b);
    cell_sums<<<cuda::blocks(heads * (tiles * 8 / g.width + 8 * g.width), 128), 128, 0,
                cuda::stream()>>>(g, heads, tiles, log_a, log_b, sums.data());
    cuda::launched("whole_attention");
  }
};

/// local: only where the call is small.
template <bool masked>
void run_forward(const Call& call, const bf16* q, const bf16* k, const bf16* v,
                 const LocalTerm& local, bf16* y, bf16* y1, float* log_sums) {
  if (masked && call.small)
    return run_small_forward(call.g, call.heads, q, k, v, call.log_a, call.log_b, call.share1,
                             call.share2, local, y, y1, reinterpret_cast<float2*>(log_sums));
  with_constants<masked>(call.g, [&](auto d, auto mask) {
    forward<decltype(d)::value, decltype(mask)><<<call.grid, threads, 0, cuda::stream()>>>(
        call.g, q, k, v, call.sums.data(), call.share1, call.share2, y, y1,
        reinterpret_cast<float2*>(log_sums));
  });
  cuda::launched("whole_attention");
}

template <bool masked>
void run_backward(const Call& call, const AttentionArgs<bf16>& in, const WholeKept<bf16>& kept,
                  const bf16* dy, const AttentionGradients<bf16>& d) {
  if (masked && call.small)
    return run_small_backward(call.g, call.heads, in, kept, dy, call.share1, call.share2, d);
  const float2* const log_sums = reinterpret_cast<const float2*>(kept.log_sums);
  const i64 all = call.heads * call.tiles * cells, tokens = masked ? call.heads * call.g.tokens : 0;
  const Workspace<float4> stats(all, Device::cuda);
  const Workspace<float2> dsums(2 * tokens, Device::cuda);
  query_sums<<<cuda::blocks(all, 128), 128, 0, cuda::stream()>>>(
      call.g, call.heads, call.tiles, kept.y, kept.y1, dy, log_sums, call.share1, call.share2,
      stats.data());
  with_constants<masked>(call.g, [&](auto head_width, auto mask) {
    constexpr int D = decltype(head_width)::value;
    using Mask = decltype(mask);
    backward<D, Mask, false><<<call.grid, threads, 0, cuda::stream()>>>(
        call.g, mask, in.q, in.k, in.v, dy, call.sums.data(), stats.data(), d.dq, nullptr,
        dsums.data());
    backward<D, Mask, true><<<call.grid, threads, 0, cuda::stream()>>>(
        call.g, mask, in.q, in.k, in.v, dy, call.sums.data(), stats.data(), d.dk, d.dv,
        dsums.data() + tokens);
  });
  cuda::launched("whole_attention");
  if (!masked) return;
  float *dlog_a = d.dlog_alpha, *dlog_b = d.dlog_beta;
  if (call.g.turned) std::swap(dlog_a, dlog_b);
  decay_gradients<<<cuda::blocks(call.heads * (call.g.lines + call.g.length), 128), 128, 0,
                    cuda::stream()>>>(call.g, call.heads, dsums.data(), dsums.data() + tokens,
                                      call.log_a, call.log_b, dlog_a, dlog_b);
  cuda::launched("whole_attention");
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
