#pragma once
#include "ppma/core/names_begin.hpp"
// Whole attention in bf16 on the tensor cores: the launches of a call (the idea is in tensor.cuh).

#include "ppma/kernels/cuda/whole/small_run.cuh"
#include "ppma/kernels/cuda/whole/squares_backward.cuh"
#include "ppma/kernels/cuda/whole/squares_forward.cuh"
#include "ppma/kernels/cuda/whole/tensor.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

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

/// local, turn: only where the map is small.
template <bool masked>
void run_forward(const Call& call, const bf16* q, const bf16* k, const bf16* v,
                 const LocalTerm& local, const Turn& turn, bf16* y, bf16* y1, float* log_sums) {
  float2* const logs = reinterpret_cast<float2*>(log_sums);
  if (masked && !call.large)
    return run_small_forward(call.flat, call.heads, q, k, v, call.log_a, call.log_b, call.share1,
                             call.share2, local, turn, y, y1, logs);
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
  float *dlog_a = d.dlog_alpha, *dlog_b = d.dlog_beta;
  if (g.turned) std::swap(dlog_a, dlog_b);
  decay_gradients<<<cuda::blocks(call.heads * (g.lines + g.length), 128), 128, 0, cuda::stream()>>>(
      g, call.heads, dsums.data(), dsums.data() + tokens, call.log_a, call.log_b, dlog_a, dlog_b);
  cuda::launched("whole_attention");
}

template <bool masked>
void run_backward(const Call& call, const AttentionArgs<bf16>& in, const WholeKept<bf16>& kept,
                  const bf16* dy, const AttentionGradients<bf16>& d) {
  if constexpr (masked)
    return call.large ? run_backward_large(call, in, kept, dy, d)
                      : run_small_backward(call.flat, call.heads, in, kept, dy, call.share1,
                                           call.share2, d);
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
