#pragma once
#include "ppma/core/names_begin.hpp"
// The gradients of the weights and the bias of depthwise_stream.cuh, as sums of each block's part
// of the images.
//
// The same walk: K rows of dy are in registers, as are the K K sums; every row of x meets them.
// Floor: x and dy read once, as much arithmetic as forward.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/depthwise_back.cuh"
#include "ppma/kernels/cuda/depthwise_stream.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

constexpr int stream_back_blocks(int k) { return k == 3 ? 4 : k == 5 ? 3 : 2; }

// Block (32, strips), grid (C / 64, parts): units (image, chunk, tile). F: what is applied to x.
// partial (parts, K*K + 1, C), the sums of dy last.
template <int K, class F>
__global__ void __launch_bounds__(128, stream_back_blocks(K))
    depthwise_stream_back(int units, StreamCut d, const bf16* x, const bf16* dy, float* partial) {
  constexpr int P = strip_width, N = P + K - 1;
  extern __shared__ __align__(16) unsigned char memory[];
  const int lane = static_cast<int>(threadIdx.x), strip = static_cast<int>(threadIdx.y),
            threads = d.strips * 32, c0 = static_cast<int>(blockIdx.x) * 64,
            cols = d.strips * P + K - 1;
  unsigned char* const memory_dy = memory + ring_rows * cols * 128;
  float sum[K * K + 1][2] = {}, g[K][P][2];
  for (int unit = static_cast<int>(blockIdx.y); unit < units; unit += static_cast<int>(gridDim.y)) {
    const int x0 = unit % d.tiles * d.strips * P, y0 = unit / d.tiles % d.chunks * d.rows,
              y1 = ::min(d.h, y0 + d.rows);
    const i64 image = static_cast<i64>(unit / d.tiles / d.chunks) * d.image;
    copies_done<0>();
    __syncthreads();  // nobody reads the last unit's rows any more
    RowRing rows(d, x + image, memory, x0 - K / 2, cols, c0, y0 - K / 2, y1 + K / 2);
    RowRing ups(d, dy + image, memory_dy, x0, cols - K + 1, c0, y0, y1);
    const auto fetch = [&] { rows.fetch(threads), ups.fetch(threads), copies_issued(); };
    for (int n = 0; n < ring_rows - 1; ++n) fetch();
#pragma unroll
    for (int s = 0; s < K; ++s)
#pragma unroll
      for (int p = 0; p < P; ++p) g[s][p][0] = g[s][p][1] = 0;
    unsigned taken = 0, taken_dy = 0;
    // Row y0 - K/2 + n of x, row y0 + n of dy (zeros behind y1), n mod K = J.
    const auto step = [&](auto index) {
      constexpr int J = decltype(index)::value;
      copies_done<ring_rows - 2>();
      rows.apply<F>(threads);
      __syncthreads();
      fetch();
      unsigned raw[N], raw_g[P];
      const unsigned char *const from = memory + taken + (strip * P * 32 + lane) * 4,
                                 *const from_dy =
                                     memory_dy + taken_dy + (strip * P * 32 + lane) * 4;
#pragma unroll
      for (int p = 0; p < P; ++p) raw_g[p] = *reinterpret_cast<const unsigned*>(from_dy + p * 128);
#pragma unroll
      for (int j = 0; j < N; ++j) raw[j] = *reinterpret_cast<const unsigned*>(from + j * 128);
      rows.advance(taken), ups.advance(taken_dy);
#pragma unroll
      for (int p = 0; p < P; ++p) {
        g[J][p][0] = low_of(raw_g[p]), g[J][p][1] = high_of(raw_g[p]);
        sum[K * K][0] += g[J][p][0], sum[K * K][1] += g[J][p][1];
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float in[2] = {low_of(raw[j]), high_of(raw[j])};
#pragma unroll
        for (int kx = 0; kx < K; ++kx) {
          const int p = j - kx;
          if (p < 0 || p >= P) continue;
#pragma unroll
          for (int ky = 0; ky < K; ++ky)
#pragma unroll
            for (int v = 0; v < 2; ++v)
              sum[ky * K + kx][v] = ::fmaf(in[v], g[(J - ky + K) % K][p][v], sum[ky * K + kx][v]);
        }
      }
    };
    const int end = y1 - y0 + K - 1;
    for (int n = 0; n < end; n += K) [&]<int... J>(std::integer_sequence<int, J...>) {
        ((n + J < end ? (step(std::integral_constant<int, J>{}), true) : false) && ...);
      }
    (std::make_integer_sequence<int, K>{});
  }
  copies_done<0>();
  float* const shared = reinterpret_cast<float*>(memory);
#pragma unroll
  for (int t = 0; t <= K * K; ++t) {
    __syncthreads();
    *reinterpret_cast<float2*>(shared + (strip * 32 + lane) * 2) =
        make_float2(sum[t][0], sum[t][1]);
    __syncthreads();
    for (int c = strip * 32 + lane; c < 64; c += threads) {
      float total = 0;
      for (int s = 0; s < d.strips; ++s) total += shared[s * 64 + c];
      if (c0 + c < d.c)
        partial[(static_cast<i64>(blockIdx.y) * (K * K + 1) + t) * d.c + c0 + c] = total;
    }
  }
}

template <int K, class F>
void run_depthwise_stream_back(const DepthwiseShape& s, const bf16* x, const bf16* dy,
                               const ColumnPlaces<float>& to) {
  StreamCut d = stream_cut(s, 4);
  const i64 sixty_fours = (s.c + 63) / 64;
  const i64 at_once = std::max<i64>(
      1, cuda::device().multiProcessorCount * (4 * stream_back_blocks(K) / d.strips) / sixty_fours);
  cut_rows(d, s.batch * d.tiles, at_once, K + 1);
  const i64 units = s.batch * d.tiles * d.chunks, rounds = (units + at_once - 1) / at_once,
            parts = (units + rounds - 1) / rounds;
  auto partial = std::make_unique<const Workspace<float>>(parts * (K * K + 1) * s.c, Device::cuda);
  const auto kernel = depthwise_stream_back<K, F>;
  const int bytes =
      std::max(ring_rows * (2 * d.strips * strip_width + K - 1) * 128, d.strips * 256);
  allow_shared(kernel, bytes, "depthwise_conv2d");
  kernel<<<dim3(static_cast<unsigned>(sixty_fours), static_cast<unsigned>(parts)),
           dim3(32, static_cast<unsigned>(d.strips)), static_cast<std::size_t>(bytes),
           cuda::stream()>>>(static_cast<int>(units), d, x, dy, partial->data());
  cuda::launched("depthwise_conv2d");
  finish_columns_later(std::move(partial), parts, (K * K + 1) * s.c, to, "depthwise_conv2d");
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
