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

#include "ppma/kernels/cuda/whole/small_backward.cuh"
#include "ppma/kernels/cuda/whole/squares_backward.cuh"
#include "ppma/kernels/cuda/whole/squares_forward.cuh"
#include "ppma/kernels/cuda/whole/tensor_backward.cuh"

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

/// Calls f with the head width rounded up to 32 or 64 as a constant.
template <class F>
void with_head(const Lines& g, F&& f) {
  if (g.head_width <= 32)
    f(std::integral_constant<int, 32>{});
  else
    f(std::integral_constant<int, 64>{});
}

/// What both passes share: the shares of the two paths, the decays and, on large maps, their sums.
struct Call {
  Flat flat;
  Squares squares;
  i64 heads;
  bool large;            // under a mask, and small.cuh does not take it
  float share1, share2;  // of the row path and the column path of a query
  const float *log_a, *log_b;
  Workspace<float2> sums;

  Call(Paths paths, const AttentionShape& x, const float* log_alpha, const float* log_beta)
      : flat(x),
        squares(x),
        heads(x.batch * x.heads),
        large(paths != Paths::none && !flat.small()),
        share1(paths == Paths::both  ? 0.5f
               : paths == Paths::h2v ? 0.f
                                     : 1.f),
        share2(paths == Paths::none ? 0.f : 1 - share1),
        log_a(log_alpha),
        log_b(log_beta),
        sums(large ? heads * squares.tiles() * cells : 0, Device::cuda) {
    if (!large) return;
    if (squares.turned) std::swap(share1, share2), std::swap(log_a, log_b);
    square_sums<<<cuda::blocks(heads * side * (squares.down + squares.over), 128), 128, 0,
                  cuda::stream()>>>(squares, heads, log_a, log_b, sums.data());
    cuda::launched("whole_attention");
  }
  /// Blocks of a kernel that owns a tile.
  dim3 grid() const {
    return dim3(static_cast<unsigned>(large ? squares.tiles() : flat.tiles()),
                static_cast<unsigned>(heads));
  }
};

/// Launches a kernel of small.cuh: kernel(head width, width of a line, splits) gives it; Pair and
/// `stats` as in Small. shares: of few heads several warps share a group's keys. local: whether a
/// term is added.
template <class Pair, bool shares, class Kernel, class... A>
void run_small(const Lines& g, i64 heads, int stats, bool local, Kernel&& kernel, const A&... a) {
  const auto run = [&](auto d, auto width, auto shared_by) {
    using Map = Small<decltype(d)::value, decltype(width)::value, Pair>;
    constexpr int by = decltype(shared_by)::value;
    const auto f = kernel(d, width, shared_by);
    const int owners = by > 1 ? few_owners : Map::warps_of(g),
              rounds = (Map::groups_of(g) + owners - 1) / owners,
              bytes = Map::bytes(g, owners, stats, by, local);
    // then a block a round: the tables twice, but sooner done
    const bool few = by > 1 || heads * rounds <= small_blocks * cuda::device().multiProcessorCount;
    allow_shared(f, bytes, "whole_attention");
    cuda::launch("whole_attention", f,
                 dim3(few ? static_cast<unsigned>(rounds) : 1u, static_cast<unsigned>(heads)),
                 dim3(static_cast<unsigned>(32 * by * owners)), static_cast<std::size_t>(bytes), g,
                 a...);
  };
  const auto with_width = [&](auto d, auto width) {
    using Map = Small<decltype(d)::value, decltype(width)::value, Pair>;
    if constexpr (shares)  // where every block has a multiprocessor to itself
      if (heads * ((Map::groups_of(g) + few_owners - 1) / few_owners) <=
          cuda::device().multiProcessorCount)
        return run(d, width, std::integral_constant<int, few_splits(decltype(width)::value)>{});
    run(d, width, std::integral_constant<int, 1>{});
  };
  with_head(g, [&](auto d) {
    if (g.length <= 8)
      with_width(d, std::integral_constant<int, 1>{});
    else
      with_width(d, std::integral_constant<int, 2>{});
  });
}

/// local: only where the map is small.
template <bool masked>
void run_forward(const Call& call, const bf16* q, const bf16* k, const bf16* v,
                 const LocalTerm& local, bf16* y, bf16* y1, float* log_sums) {
  float2* const logs = reinterpret_cast<float2*>(log_sums);
  if (masked && !call.large)
    return run_small<unsigned, true>(
        call.flat, call.heads, 0, local.w != nullptr,
        [](auto d, auto width, auto splits) {
          return small_forward<decltype(d)::value, decltype(width)::value, decltype(splits)::value>;
        },
        q, k, v, call.log_a, call.log_b, call.share1, call.share2, local, y, y1, logs);
  with_head(call.flat, [&](auto d) {
    constexpr int D = decltype(d)::value;
    if constexpr (masked)
      square_forward<D><<<call.grid(), threads, 0, cuda::stream()>>>(
          call.squares, q, k, v, call.sums.data(), call.share1, call.share2, y, y1, logs);
    else
      forward<D, NoMask><<<call.grid(), threads, 0, cuda::stream()>>>(
          call.flat, q, k, v, nullptr, call.share1, call.share2, y, y1, logs);
  });
  cuda::launched("whole_attention");
}

/// Gradients of the log decays from those of their sums, at queries and at keys.
inline void run_decay_gradients(const Lines& g, const Call& call, const float2* dsums,
                                const AttentionGradients<bf16>& d) {
  float *dlog_a = d.dlog_alpha, *dlog_b = d.dlog_beta;
  if (g.turned) std::swap(dlog_a, dlog_b);
  decay_gradients<<<cuda::blocks(call.heads * (g.lines + g.length), 128), 128, 0, cuda::stream()>>>(
      g, call.heads, dsums, dsums + call.heads * g.tokens, call.log_a, call.log_b, dlog_a, dlog_b);
  cuda::launched("whole_attention");
}

inline void run_backward_small(const Call& call, const AttentionArgs<bf16>& in,
                               const WholeKept<bf16>& kept, const bf16* dy,
                               const AttentionGradients<bf16>& d) {
  const Lines& g = call.flat;
  const i64 tokens = call.heads * g.tokens;
  const Workspace<float4> stats(call.heads * 16 * 16, Device::cuda);  // padded cells at most
  const Workspace<float2> dsums(2 * tokens, Device::cuda);
  const auto run = [&](auto of_keys, bf16* out1, bf16* out2, float2* to) {
    run_small<float2, false>(
        g, call.heads, decltype(of_keys)::value ? 20 : 0, false,
        [](auto head_width, auto width, auto) {
          return small_backward<decltype(head_width)::value, decltype(width)::value,
                                decltype(of_keys)::value>;
        },
        in.q, in.k, in.v, call.log_a, call.log_b, kept.y, kept.y1, dy,
        reinterpret_cast<const float2*>(kept.log_sums), call.share1, call.share2, stats.data(),
        out1, out2, to);
  };
  run(std::false_type{}, d.dq, static_cast<bf16*>(nullptr), dsums.data());
  run(std::true_type{}, d.dk, d.dv, dsums.data() + tokens);
  run_decay_gradients(g, call, dsums.data(), d);
}

inline void run_backward_large(const Call& call, const AttentionArgs<bf16>& in,
                               const WholeKept<bf16>& kept, const bf16* dy,
                               const AttentionGradients<bf16>& d) {
  const Squares& g = call.squares;
  const i64 all = call.heads * g.tiles(), tokens = call.heads * g.tokens;
  const Workspace<float4> stats(all * cells, Device::cuda);
  const Workspace<Seen> seen(all, Device::cuda);
  const Workspace<int> logs(call.heads, Device::cuda);
  const Workspace<float2> dsums(2 * tokens, Device::cuda),
      crossings(all * g.over * cells, Device::cuda);
  const auto each_cell = cuda::blocks(all * cells, 128);
  cuda::require(cudaMemsetAsync(logs.data(), 0, static_cast<std::size_t>(call.heads) * sizeof(int),
                                cuda::stream()),
                "whole_attention");
  square_stats<<<each_cell, 128, 0, cuda::stream()>>>(
      g, call.heads, kept.y, kept.y1, dy, reinterpret_cast<const float2*>(kept.log_sums),
      call.share1, call.share2, stats.data(), seen.data(), logs.data());
  const auto run = [&](auto of_keys, bf16* out1, bf16* out2, float2* to) {
    with_head(g, [&](auto head_width) {
      square_backward<decltype(head_width)::value, decltype(of_keys)::value>
          <<<call.grid(), threads, 0, cuda::stream()>>>(g, in.q, in.k, in.v, dy, call.sums.data(),
                                                        stats.data(), seen.data(), logs.data(),
                                                        out1, out2, to, crossings.data());
    });
    add_crossings<<<each_cell, 128, 0, cuda::stream()>>>(
        g, call.heads, static_cast<const float2*>(crossings.data()), to);
  };
  run(std::false_type{}, d.dq, static_cast<bf16*>(nullptr), dsums.data());
  run(std::true_type{}, d.dk, d.dv, dsums.data() + tokens);
  cuda::launched("whole_attention");
  run_decay_gradients(g, call, dsums.data(), d);
}

template <bool masked>
void run_backward(const Call& call, const AttentionArgs<bf16>& in, const WholeKept<bf16>& kept,
                  const bf16* dy, const AttentionGradients<bf16>& d) {
  if constexpr (masked)
    return call.large ? run_backward_large(call, in, kept, dy, d)
                      : run_backward_small(call, in, kept, dy, d);
  const Flat& g = call.flat;
  const i64 all = call.heads * g.tiles() * cells;
  const Workspace<float4> stats(all, Device::cuda);
  query_sums<<<cuda::blocks(all, 128), 128, 0, cuda::stream()>>>(
      g, call.heads, kept.y, kept.y1, dy, reinterpret_cast<const float2*>(kept.log_sums),
      call.share1, call.share2, stats.data());
  with_head(g, [&](auto head_width) {
    constexpr int D = decltype(head_width)::value;
    backward<D, NoMask, false><<<call.grid(), threads, 0, cuda::stream()>>>(
        g, NoMask{}, in.q, in.k, in.v, dy, nullptr, stats.data(), d.dq, nullptr, nullptr);
    backward<D, NoMask, true><<<call.grid(), threads, 0, cuda::stream()>>>(
        g, NoMask{}, in.q, in.k, in.v, dy, nullptr, stats.data(), d.dk, d.dv, nullptr);
  });
  cuda::launched("whole_attention");
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
