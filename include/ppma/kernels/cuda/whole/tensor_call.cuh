#pragma once
#include "ppma/core/names_begin.hpp"
// Whole attention in bf16 on the tensor cores: the launches of a call (the idea is in tensor.cuh).

#include "ppma/kernels/cuda/whole/small_backward.cuh"
#include "ppma/kernels/cuda/whole/squares_backward.cuh"
#include "ppma/kernels/cuda/whole/squares_forward.cuh"
#include "ppma/kernels/cuda/whole/tensor.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

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
