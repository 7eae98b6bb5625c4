#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution of a few images by tiles of a map in shared memory, bf16, channels last:
// what they leave for a multiprocessor is there at once, and a walk down a column reads each line
// once (convolve_tile.cuh).
//
// Floor of the kernel: a launch, a trip to memory, and 2 K K multiplications a pair of results.

#include "ppma/kernels/cuda/convolve_tile.cuh"
#include "ppma/kernels/cuda/copy_async.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

template <int K, int TH, int TW>
struct DepthwiseTile {
  static constexpr int N = 64, threads = 224;
  static constexpr int bytes = (TH + K - 1) * (TW + K - 1) * N * 2 + (K * K + 1) * N * 4;
  static constexpr int blocks = K == 3 ? 4 : 2;
};

/// Grid: 64 channels, tiles of an image, images. bias or `add` may be null; add == x: x is added.
template <int K, int TH, int TW>
__global__ void __launch_bounds__(DepthwiseTile<K, TH, TW>::threads,
                                  DepthwiseTile<K, TH, TW>::blocks)
    depthwise_tile(int h, int w, int c, const bf16* x, const float* published, const float* bias,
                   const bf16* add, bf16* y) {
  using P = DepthwiseTile<K, TH, TW>;
  extern __shared__ __align__(16) unsigned char memory[];
  bf16* const v = reinterpret_cast<bf16*>(memory);
  float* const taps = reinterpret_cast<float*>(v + (TH + K - 1) * (TW + K - 1) * P::N);
  float* const b = taps + P::N * K * K;
  const int tid = static_cast<int>(threadIdx.x), c0 = static_cast<int>(blockIdx.x) * P::N,
            across = w / TW, tile = static_cast<int>(blockIdx.y);
  for (int i = tid * 4; i < P::N * K * K; i += P::threads * 4)
    copy_async(taps + i, published + c0 * K * K + i, true);
  if (tid < P::N) b[tid] = bias ? bias[c0 + tid] : 0.f;
  const MapTile t(tile / across * TH, tile % across * TW, TH, TW, K / 2, h, w);
  const i64 image = static_cast<i64>(blockIdx.z) * h * w * c + c0;
  cuda::wait();  // what is above are parameters
  for (int i = tid; i < t.pixels() * (P::N / 8); i += P::threads) {
    const int pixel = i / (P::N / 8), pack = i % (P::N / 8) * 8, line = pixel / t.wide,
              at = ((t.y + line) * w + t.x + pixel - line * t.wide) * c + pack;
    copy_async(v + pixel * P::N + pack, x + image + at, true);
  }
  copies_issued();
  copies_done<0>();
  __syncthreads();
  const bool same = add == x;
  const i64 first = image + (t.y0 * w + t.x0) * c;
  convolve_tile<K, TH, TW, P::N, P::N, P::threads>(
      t, v, taps, b, same, [&](int channel, int line, int col, float(&sum)[2]) {
        const i64 at = first + (line * w + col) * c + channel;
        if (add && !same) {
          const unsigned more = *reinterpret_cast<const unsigned*>(add + at);
          sum[0] += __uint_as_float(more << 16), sum[1] += __uint_as_float(more & 0xffff0000u);
        }
        store_pack<2>(y + at, sum);
      });
}

template <int K, int TH, int TW>
void run_depthwise_tile(const DepthwiseShape& s, const bf16* x, const float* w, const float* bias,
                        const bf16* add, bf16* y) {
  using P = DepthwiseTile<K, TH, TW>;
  const auto kernel = depthwise_tile<K, TH, TW>;
  allow_shared(kernel, P::bytes, "depthwise_conv2d");
  cuda::launch("depthwise_conv2d", kernel,
               dim3(static_cast<unsigned>(s.c / P::N), static_cast<unsigned>(s.h / TH * (s.w / TW)),
                    static_cast<unsigned>(s.batch)),
               P::threads, P::bytes, static_cast<int>(s.h), static_cast<int>(s.w),
               static_cast<int>(s.c), x, w, bias, add, y);
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
