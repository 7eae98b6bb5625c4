#pragma once
#include "ppma/core/names_begin.hpp"
// The backward of tensor.cuh in three passes (tensor_pass.cuh has the formulas): one direction
// leaves T and dT; the other works out its own T and dT with its gradients; then the first
// direction's gradients, added.

#include "ppma/kernels/cuda/criss_cross/tensor_short.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// `known`: to.log_sums has what the first pass along these lines left. Returns whether it did.
template <int D, int pairs>
bool run_backward(const AttentionArgs<bf16>& in, const polyline_gpu::LineOrders& orders,
                  bool along_rows, const Backward& to, bool known = false) {
  const AttentionShape& x = in.shape;
  bool left = false;
  with_length(along_rows ? x.width : x.height, [&](auto length) {
    constexpr int NT = decltype(length)::value, tiles = pairs == 2 ? 6 : 4;
    constexpr int most = backward_threads / 32;
    const Lines s = lines<D, NT>(x, along_rows, orders, most, tiles, most, 4);
    if constexpr (pairs == 2)
      if (known && run_short<D, NT, pairs, true>(in, s, along_rows, to)) return;
    if (run_short<D, NT, pairs, false>(in, s, along_rows, to)) {
      left = pairs == 0;
      return;
    }
    const int tasks = (s.length + 15) / 16,
              warps = s.group * std::clamp(tasks, (4 + s.group - 1) / s.group, most / s.group),
              bytes = shared_bytes<D, NT>(s, tiles, warps, 4);
    if (bytes > 48 * 1024)
      detail::allow_shared(backward<D, NT, pairs>, bytes, "criss_cross_attention");
    const dim3 blocks(static_cast<unsigned>(x.batch * s.count), static_cast<unsigned>(s.groups));
    const unsigned threads = static_cast<unsigned>(warps) * 32;
    backward<D, NT, pairs><<<blocks, threads, static_cast<std::size_t>(bytes), cuda::stream()>>>(
        s, in.q, in.k, along_rows ? in.log_alpha : in.log_beta, to);
  });
  cuda::launched("criss_cross_attention");
  return left;
}

template <class T>
void backward(Order order, const AttentionArgs<T>& in, const T* dy,
              const AttentionGradients<T>& d) {
  const AttentionShape& x = in.shape;
  const bf16* const v = in.v;
  const bool both = order == Order::both;
  const polyline_gpu::LineOrders orders = polyline_gpu::line_orders(in);
  const i64 size = x.batch * x.tokens() * x.channels();
  const Workspace<bf16> work((both ? 4 : 2) * size, Device::cuda);
  bf16 *const t1 = work.data(), *const d1 = t1 + size, *const t2 = d1 + (both ? size : 0),
              *const d2 = t2 + (both ? size : 0);
  const Workspace<float> logs(both ? x.batch * x.heads * x.tokens() : 0, Device::cuda);
  detail::with_tile_width<16>(x.head_width, [&](auto width) {
    constexpr int D = decltype(width)::value;
    if (both) {
      const bool known = run_backward<D, 0>(
          in, orders, true, {.x0 = v, .g0 = dy, .mixed = t1, .back0 = d2, .log_sums = logs.data()});
      run_backward<D, 2>(in, orders, false,
                         {.x0 = v,
                          .g0 = d2,
                          .x1 = t1,
                          .g1 = dy,
                          .mixed = t2,
                          .back0 = d.dv,
                          .back1 = d1,
                          .dq = d.dq,
                          .dk = d.dk,
                          .dlog_decay = d.dlog_beta,
                          .share = 0.5f,
                          .back0_is_dv = true});
      run_backward<D, 2>(in, orders, true,
                         {.x0 = v,
                          .g0 = d1,
                          .x1 = t2,
                          .g1 = dy,
                          .back0 = d.dv,
                          .dq = d.dq,
                          .dk = d.dk,
                          .dlog_decay = d.dlog_alpha,
                          .log_sums = logs.data(),
                          .share = 0.5f,
                          .add = true,
                          .back0_is_dv = true,
                          .add_back0 = true},
                         known);
    } else {
      // T along the first direction, the pair (g, T) along the second, (dT, v) along the first
      const bool rows = order == Order::rows_first;
      run_apply<D>(in, orders, rows, {.x0 = v, .y0 = t1});
      run_backward<D, 1>(in, orders, !rows,
                         {.x0 = t1,
                          .g0 = dy,
                          .back0 = d1,
                          .dq = d.dq,
                          .dk = d.dk,
                          .dlog_decay = rows ? d.dlog_beta : d.dlog_alpha});
      run_backward<D, 1>(in, orders, rows,
                         {.x0 = v,
                          .g0 = d1,
                          .back0 = d.dv,
                          .dq = d.dq,
                          .dk = d.dk,
                          .dlog_decay = rows ? d.dlog_alpha : d.dlog_beta,
                          .add = true,
                          .back0_is_dv = true});
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
