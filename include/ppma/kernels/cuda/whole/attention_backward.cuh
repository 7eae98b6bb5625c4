#pragma once
#include "ppma/core/names_begin.hpp"
// The backward of attention.cuh: two passes (attention_passes.cuh), and what they leave for the log
// decays added up.

#include "ppma/kernels/cuda/whole/attention_passes.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_gpu {

// Gradients of a and b added up, then of the log decays: sums from the far end of each line. A
// thread a line.
template <class A>
__global__ void __launch_bounds__(128)
    decay_gradients(AttentionShape x, Saved<A> queries, Saved<A> keys, const A* log_alpha,
                    const A* log_beta, A* dlog_alpha, A* dlog_beta) {
  const int h = static_cast<int>(x.height), w = static_cast<int>(x.width), tokens = h * w;
  const i64 lines = x.batch * x.heads * (h + w), slots = slots_of(x) * w;
  for (i64 e = cuda::first(); e < lines; e += cuda::stride()) {
    const int r = static_cast<int>(e % (h + w));
    const bool row = r < h;
    const i64 head = e / (h + w);
    const int n = row ? w : h;
    A sum = 0;
    for (int m = n - 1; m >= 0; --m) {
      const int i = row ? r : m, j = row ? m : r - h;
      const i64 at = head * tokens + i * w + j;
      sum += (row ? queries.own_a : queries.own_b)[at] + (row ? keys.own_a : keys.own_b)[at];
      for (int warp = i * w / 32; warp <= (i * w + w - 1) / 32; ++warp) {
        const i64 slot = head * slots + static_cast<i64>(i + warp) * w + j;
        sum += (row ? queries.slot_a : queries.slot_b)[slot];
        sum += (row ? keys.slot_a : keys.slot_b)[slot];
      }
      (row ? dlog_alpha : dlog_beta)[at] =
          m > 0 && !((row ? log_alpha : log_beta)[at] <= A(-polyline_gpu::limit_wide)) ? sum : A(0);
    }
  }
}

template <class T>
void backward(Paths paths, const AttentionArgs<T>& in, const T* dy,
              const AttentionGradients<T>& to) {
  const AttentionShape& x = in.shape;
  const bool masked = paths != Paths::none;
  const i64 all = x.batch * x.heads * x.tokens(),
            slots = masked ? x.batch * x.heads * slots_of(x) * x.width : 0;
  const Workspace<Sum<T>> a(masked ? all : 0, Device::cuda), b(masked ? all : 0, Device::cuda);
  const Workspace<T> rows(8 * all, Device::cuda), crossings(4 * slots, Device::cuda);
  if (masked) polyline_gpu::run_decay_sums(x, in.log_alpha, in.log_beta, a.data(), b.data());
  T *const r = rows.data(), *const c = crossings.data();
  const Saved<T> of_queries{r,           r + all,     r + 2 * all, r + 3 * all,
                            r + 4 * all, r + 5 * all, c,           c + slots};
  const Saved<T> of_keys{nullptr,     nullptr,     nullptr,       nullptr,
                         r + 6 * all, r + 7 * all, c + 2 * slots, c + 3 * slots};
  const dim3 grid(static_cast<unsigned>((x.tokens() + threads - 1) / threads),
                  static_cast<unsigned>(x.batch * x.heads));
  polyline_gpu::with_head_width(x.head_width, "whole_attention", [&](auto d) {
    const auto run = [&](auto masks) {
      constexpr int D = decltype(d)::value;
      constexpr Masks M = decltype(masks)::value;
      const T one = share1<T>(paths), other = share2<T>(paths);
      backward_queries<T, D, M><<<grid, threads, 0, cuda::stream()>>>(
          x, in.q, in.k, in.v, a.data(), b.data(), dy, one, other, to.dq, of_queries, nullptr);
      backward_keys<T, D, M>
          <<<grid, threads, 0, cuda::stream()>>>(x, in.q, in.k, in.v, a.data(), b.data(), dy, one,
                                                 other, to.dk, to.dv, of_queries, of_keys, nullptr);
    };
    if (masked)
      run(std::integral_constant<Masks, Masks::polylines>{});
    else
      run(std::integral_constant<Masks, Masks::none>{});
  });
  cuda::launched("whole_attention");
  if (!masked) return;
  const i64 lines = x.batch * x.heads * (x.height + x.width);
  decay_gradients<<<cuda::blocks(lines, 128), 128, 0, cuda::stream()>>>(
      x, of_queries, of_keys, in.log_alpha, in.log_beta, to.dlog_alpha, to.dlog_beta);
  cuda::launched("whole_attention");
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_gpu

namespace ppma::inline PPMA_ABI::kernels {

template <class T>
void whole_attention_backward(Cuda on, Paths paths, const AttentionArgs<T>& in,
                              const WholeKept<T>& kept, const T* dy,
                              const AttentionGradients<T>& to) {
  const AttentionShape& x = in.shape;
  const bool masked = paths != Paths::none;
  if constexpr (!std::is_same_v<T, bf16>) {
    whole_gpu::backward(paths, in, dy, to);
  } else if (whole_tensor::Lines::suits(x)) {
    const whole_tensor::Call call(paths, x, in.log_alpha, in.log_beta);
    if (masked)
      whole_tensor::run_backward<true>(call, in, kept, dy, to);
    else
      whole_tensor::run_backward<false>(call, in, kept, dy, to);
  } else {
    polyline_gpu::in_float(on, in, dy, to,
                           [&](const AttentionArgs<float>& wide, const float* wide_dy,
                               const AttentionGradients<float>& wide_to) {
                             whole_gpu::backward(paths, wide, wide_dy, wide_to);
                           });
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
