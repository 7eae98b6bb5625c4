#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution of few pixels in bf16, channels last: one image does not fill the GPU with
// threads that walk down rows, so a thread has only two pixels of two channels and reads their
// neighbourhood at once. The sums run in the order of the walk: the same bits.
//
// Weights and bias are float, and of those kernels of cuda::launch() write no parameters: they are
// read before the kernel ahead is done.
//
// Floor: a launch and one trip to memory. Each value is read K (K + 1) / 2 times, from the caches.

#include "ppma/kernels/cuda/depthwise_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// Block (32, 8): 64 channels of 8 strips of two pixels; grid (C / 64, strips / 8). F: what is
/// applied to x. S: results are multiplied by its slope at `slope_at`.
template <int K, class F, class S>
__global__ void __launch_bounds__(256)
    depthwise_few(int strips, int h, int w, int c, const bf16* x, const float* published,
                  bool turned, const float* bias, const bf16* add,
                  [[maybe_unused]] const bf16* slope_at, bf16* y) {
  constexpr int P = 2, R = K / 2;
  __shared__ __align__(16) float weights[64 * K * K];
  const int c0 = static_cast<int>(blockIdx.x) * 64, at = static_cast<int>(threadIdx.x) * 2;
  for (int i = static_cast<int>(threadIdx.y * 32 + threadIdx.x); i < 16 * K * K; i += 256)
    copy_async(weights + i * 4, published + c0 * K * K + i * 4, true);
  copies_issued();
  const int across = (w + P - 1) / P,
            strip = static_cast<int>(blockIdx.y) * 8 + static_cast<int>(threadIdx.y);
  // its first pixel
  const int j = strip % across * P, i = strip / across % h,
            first = ((strip / across) * w + j) * c + c0 + at;
  float sum[P][2];
#pragma unroll
  for (int p = 0; p < P; ++p)
    sum[p][0] = bias ? bias[c0 + at] : 0.f, sum[p][1] = bias ? bias[c0 + at + 1] : 0.f;
  cuda::wait();
  unsigned raw[K][P + K - 1], plus[P] = {}, slope[P] = {};
#pragma unroll
  for (int ky = 0; ky < K; ++ky)
#pragma unroll
    for (int kx = 0; kx < P + K - 1; ++kx) {
      const int row = i + ky - R, col = j + kx - R;
      const bool there = strip < strips && row >= 0 && row < h && col >= 0 && col < w;
      raw[ky][kx] =
          there ? *reinterpret_cast<const unsigned*>(x + (first + ((ky - R) * w + kx - R) * c))
                : 0u;
    }
  const bool same = add == x;  // what is added is x itself: a one in the middle of the kernel
#pragma unroll
  for (int p = 0; p < P; ++p) {
    if (strip >= strips || j + p >= w) continue;
    if (add && !same) plus[p] = *reinterpret_cast<const unsigned*>(add + (first + p * c));
    if constexpr (S::acts)
      slope[p] = *reinterpret_cast<const unsigned*>(slope_at + (first + p * c));
  }
  copies_done<0>();
  __syncthreads();
  if (strip >= strips) return;
#pragma unroll
  for (int ky = 0; ky < K; ++ky) {
    float in[P + K - 1][2];
#pragma unroll
    for (int kx = 0; kx < P + K - 1; ++kx)
      in[kx][0] = F::value(low_of(raw[ky][kx])), in[kx][1] = F::value(high_of(raw[ky][kx]));
#pragma unroll
    for (int kx = 0; kx < K; ++kx) {
      const int tap = ky * K + kx, from = at * K * K + (turned ? K * K - 1 - tap : tap);
      const float one = tap == K * K / 2 && same ? 1.f : 0.f, w0 = weights[from] + one,
                  w1 = weights[from + K * K] + one;
#pragma unroll
      for (int p = 0; p < P; ++p) sum[p][0] += in[p + kx][0] * w0, sum[p][1] += in[p + kx][1] * w1;
    }
  }
#pragma unroll
  for (int p = 0; p < P; ++p) {
    if (j + p >= w) continue;
    sum[p][0] += low_of(plus[p]), sum[p][1] += high_of(plus[p]);
    if constexpr (S::acts)
      sum[p][0] *= S::slope(low_of(slope[p])), sum[p][1] *= S::slope(high_of(slope[p]));
    store_pack<2>(y + (first + p * c), sum[p]);
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
