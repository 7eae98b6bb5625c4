#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA in bf16 on the tensor cores: what its passes leave in layers, put together (the idea of the
// whole is in tensor.cuh).

#include "ppma/kernels/cuda/linear/states.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_tensor {

/// y (n) = the sum of `count` layers of n, one or two; n divides by 8.
template <class T>
struct Sums {
  const float* layers[3];
  T* y[3];
  int count[3];
};
template <class T>
__global__ void __launch_bounds__(256) add_layers(i64 n, const __grid_constant__ Sums<T> sums) {
  cuda::wait();
  const float* const layers = sums.layers[blockIdx.y];
  T* const y = sums.y[blockIdx.y];
  const int count = sums.count[blockIdx.y];
  for (i64 e = cuda::first() * 4; e < n; e += cuda::stride() * 4) {
    float a[4], b[4] = {};
    load_pack<4>(layers + e, a);
    if (count > 1) load_pack<4>(layers + n + e, b);
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] += b[i];
    store_pack<4>(y + e, a);
  }
}

/// What a call's chunks leave for the log decays: layers (.., 2, planes, tokens) of gradients of
/// running sums, of which rows have the first count[0], columns count[1], and for chunks of each
/// line what passes over their last place, (.., lines x chunks of all rows, then columns).
struct DecaySums {
  const float *layers, *passing;
  i64 passing_step;
  int count[2], chunk;
};
/// From those to gradients of the log decays. What is behind a chunk is not summed up from all
/// places there, of which most cancels. A warp a line.
template <class A>
__global__ void __launch_bounds__(128)
    decays_back(Grid g, const __grid_constant__ DecaySums sums, const A* log_alpha,
                const A* log_beta, A* dlog_alpha, A* dlog_beta) {
  cuda::wait();
  const i64 lines = g.planes * (g.height + g.width);
  for (i64 e = cuda::first() / 32; e < lines; e += cuda::stride() / 32) {
    const auto [head, turned, line] = LineOfAll(g, e);
    const Lines s = g.lines(turned);
    const i64 plane = head * g.tokens();
    const float* const from = sums.layers + (turned ? g.all() : 0) + plane;
    const float* const log = (turned ? log_beta : log_alpha) + plane;
    float* const to = (turned ? dlog_beta : dlog_alpha) + plane;
    const int lane = lane_index(), count = sums.count[turned];
    const auto chunks = [&](int length) { return (length + sums.chunk - 1) / sums.chunk; };
    const int chunks_here = chunks(s.length);
    const float* const passing = sums.passing +
                                 (turned ? g.planes * g.height * chunks(g.width) : 0) +
                                 (head * s.count + line) * chunks_here;
    float behind = 0;
    for (int last = (s.length - 1) / 32 * 32 + 31; last > 0; last -= 32) {
      const int place = last - lane, at = s.token(line, ::min(place, s.length - 1));
      if ((last + 1) % sums.chunk == 0 && chunks_here > 1) {
        behind = 0;
        for (int i = 0; i < count; ++i)
          behind += passing[i * sums.passing_step + last / sums.chunk];
      }
      float sum = 0;
      if (place > 0 && place < s.length)
        for (int i = 0; i < count; ++i) sum += from[2 * i * g.all() + at];
      sum = detail::running_sum(sum, lane) + behind;
      behind = __shfl_sync(~0u, sum, 31);
      if (place < s.length)
        to[at] = place > 0 && !(log[at] <= -polyline_gpu::limit_bf16) ? sum : 0.f;
    }
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::linear_tensor

#include "ppma/core/names_end.hpp"
