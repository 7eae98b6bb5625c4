#pragma once
#include "ppma/core/names_begin.hpp"
// Launches of small.cuh's kernels.

#include "ppma/kernels/cuda/whole/small.cuh"
#include "ppma/kernels/cuda/whole/small_backward.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// Calls f with the head width rounded up to 32 or 64 as a constant.
template <class F>
void with_head(const Lines& g, F&& f) {
  detail::with_tile_width<32>(g.head_width, f);
}
/// The same, and with the width of a line in pieces of eight cells, 1 or 2.
template <class F>
void with_small(const Lines& g, F&& f) {
  with_head(g, [&](auto d) {
    if (g.length <= 8)
      f(d, std::integral_constant<int, 1>{});
    else
      f(d, std::integral_constant<int, 2>{});
  });
}

/// Of few heads two warps share a group's keys, where every block has a multiprocessor to itself;
/// of more a block has one group a warp, or several. local.w and turn.cosine may be null; local.w
/// is, where there are more heads than multiprocessors.
template <std::same_as<bf16> T>
void run_small_forward(const Lines& g, i64 heads, const T* q, const T* k, const T* v,
                       const float* log_a, const float* log_b, float share1, float share2,
                       const LocalTerm& local, const Turn& turn, T* y, T* y1, float2* log_sums) {
  with_small(g, [&](auto d, auto width) {
    constexpr int D = decltype(d)::value, WT = decltype(width)::value;
    using Map = ForwardMap<D, WT>;
    const int groups = Map::groups_of(g);
    const i64 processors = cuda::device().multiProcessorCount;
    const auto rounds_of = [&](int owners) { return (groups + owners - 1) / owners; };
    const auto run = [&](auto shared_by, auto at_most, i64 blocks) {
      constexpr int by = decltype(shared_by)::value, most = decltype(at_most)::value;
      const int owners = Map::warps_of(groups, most);
      const bool few = heads * rounds_of(owners) <= blocks;
      if (by > 1 && !few) return false;
      const auto f = small_forward<D, WT, by, most>;
      const int bytes = Map::bytes(g, 1) + join_bytes<D, by>(owners, local.w != nullptr),
                rounds = few ? rounds_of(owners) : 1;
      allow_shared(f, bytes, "whole_attention");
      cuda::launch("whole_attention", f,
                   dim3(static_cast<unsigned>(rounds), static_cast<unsigned>(heads)),
                   dim3(static_cast<unsigned>(32 * by * owners)), static_cast<std::size_t>(bytes),
                   g, q, k, v, log_a, log_b, share1, share2, local, turn, y, y1, log_sums);
      return true;
    };
    using std::integral_constant;
    if (!run(integral_constant<int, few_splits>{}, integral_constant<int, few_owners(WT)>{},
             processors))
      run(integral_constant<int, 1>{}, integral_constant<int, forward_warps<WT>>{},
          few_blocks * processors);
  });
}

template <std::same_as<bf16> T>
void run_small_backward(const Lines& g, i64 heads, const AttentionArgs<T>& in,
                        const WholeKept<T>& kept, const T* dy, float share1, float share2,
                        const AttentionGradients<T>& d) {
  with_small(g, [&](auto head_width, auto width) {
    constexpr int D = decltype(head_width)::value, WT = decltype(width)::value;
    using Stats = SmallStats<D, WT>;
    const auto f = small_backward<D, WT>;
    const int warps = backward_warps_of<D, WT>(heads, 2 * Stats::Map::groups_of(g),
                                               cuda::device().multiProcessorCount),
              bytes = Stats::bytes(g);
    allow_shared(f, bytes, "whole_attention");
    cuda::launch("whole_attention", f, dim3(1, static_cast<unsigned>(heads)),
                 dim3(static_cast<unsigned>(32 * warps)), static_cast<std::size_t>(bytes), g, in.q,
                 in.k, in.v, in.log_alpha, in.log_beta, kept.y, kept.y1, dy,
                 reinterpret_cast<const float2*>(kept.log_sums), share1, share2, d.dq, d.dk, d.dv,
                 d.dlog_alpha, d.dlog_beta);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
