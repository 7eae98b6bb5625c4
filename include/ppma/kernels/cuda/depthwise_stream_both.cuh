#pragma once
#include "ppma/core/names_begin.hpp"
// All gradients of a depthwise convolution of bf16 maps on the GPU in one pass, k = 3:
//
//   dx[q] = sum over o of dy[q - o] w[o],  dw[o] = sum over q of dy[q - o] h[q],  db = sum of dy
//
// with h = x, or GELU(x), whose slope dx is multiplied by then; there the sum of dx is found too,
// the gradient of a bias that is in x. The sums over o and q see the same neighbourhood of dy,
// whose last K rows a thread has in registers, of two channels and a strip of seven pixels, as in
// depthwise_stream.cuh; of x it needs its own pixels alone.
//
// Floor: dy and x read and dx written once. Instructions are near it: 128 maps of 56 x 56 x 192
// with GELU are 107 us of bytes at 4.3 TB/s and 100 of instructions. With k = 5 nothing is gained:
// twelve warps a multiprocessor have no room for it.

#include <utility>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/depthwise_back.cuh"
#include "ppma/kernels/cuda/depthwise_stream.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// Sums a channel: of each tap, of dy, with GELU of dx.
template <int K, class F>
constexpr int sums_of_both = 1 + K* K + (F::acts ? 1 : 0);

// Block (32, strips), grid (C / 64, parts): units (image, chunk, tile). partial (parts,
// sums_of_both, C). `same`: the result had x, or h, added; `add`, or null, is added to dx.
template <int K, class F>
__global__ void __launch_bounds__(128, 3)
    depthwise_stream_both(int units, StreamCut d, const bf16* x, const bf16* dy, const float* w,
                          bool same, const bf16* add, bf16* dx, float* partial) {
  constexpr int P = strip_width, N = P + K - 1, R = K / 2, sums = sums_of_both<K, F>;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ __align__(16) float2 weights[K * K * 32];  // as dx sees dy: turned
  const int lane = static_cast<int>(threadIdx.x), strip = static_cast<int>(threadIdx.y),
            threads = d.strips * 32, c0 = static_cast<int>(blockIdx.x) * 64, c = c0 + lane * 2,
            cols = d.strips * P + K - 1;
  unsigned char* const memory_x = memory + ring_rows * cols * 128;
  for (int i = strip * 32 + lane; i < K * K * 64; i += threads) {
    const int at = i / (K * K), t = K * K - 1 - i % (K * K);
    const float own = c0 + at < d.c ? w[static_cast<i64>(c0) * K * K + i] : 0.f;
    reinterpret_cast<float*>(weights)[t * 64 + at] = own + (same && t == K * K / 2 ? 1.f : 0.f);
  }
  const bool on = c < d.c;
  float sum[sums][2] = {};
  float g[K][N][2];
  const unsigned pixel = static_cast<unsigned>(d.c) * 2;
  for (int unit = static_cast<int>(blockIdx.y); unit < units; unit += static_cast<int>(gridDim.y)) {
    const int x0 = unit % d.tiles * d.strips * P, y0 = unit / d.tiles % d.chunks * d.rows,
              y1 = ::min(d.h, y0 + d.rows);
    const i64 image = static_cast<i64>(unit / d.tiles / d.chunks) * d.image;
    copies_done<0>();
    __syncthreads();  // nobody reads the last unit's rows any more
    RowRing ups(d, dy + image, memory, x0 - R, cols, c0, y0 - R, y1 + R);
    StreamCut of_x = d;  // its rows begin when a row of dx can be finished
    of_x.h = y1 - y0;
    RowRing rows(of_x, x + image + static_cast<i64>(y0) * d.w * d.c, memory_x, x0, cols - K + 1, c0,
                 1 - K, y1 - y0);
    const auto fetch = [&] { ups.fetch(threads), rows.fetch(threads), copies_issued(); };
    for (int n = 0; n < ring_rows - 1; ++n) fetch();
    const int there = on ? d.w - x0 - strip * P : 0;
    unsigned taken = 0, taken_x = 0,
             out = static_cast<unsigned>(((y0 * d.w + x0 + strip * P) * d.c + c) * 2);
    // Row y0 - R + n of dy, n mod K = J: row y0 + n - K + 1 of dx.
    const auto step = [&](auto index, int n) {
      constexpr int J = decltype(index)::value;
      const bool done = n >= K - 1;
      [[maybe_unused]] unsigned raw_add[P];
      if (add && done) {
        const auto* const base = reinterpret_cast<const unsigned char*>(add + image);
#pragma unroll
        for (int p = 0; p < P; ++p)
          if (p < there) raw_add[p] = *reinterpret_cast<const unsigned*>(base + (out + p * pixel));
      }
      copies_done<ring_rows - 2>();
      __syncthreads();
      fetch();
      unsigned raw_x[P];
      const unsigned char *const from = memory + taken + (strip * P * 32 + lane) * 4,
                                 *const from_x = memory_x + taken_x + (strip * P * 32 + lane) * 4;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const unsigned raw = *reinterpret_cast<const unsigned*>(from + j * 128);
        g[J][j][0] = low_of(raw), g[J][j][1] = high_of(raw);
      }
#pragma unroll
      for (int p = 0; p < P; ++p) raw_x[p] = *reinterpret_cast<const unsigned*>(from_x + p * 128);
      ups.advance(taken), rows.advance(taken_x);
      if (!done) return;
      float h[P][2], acc[P][2] = {};
      [[maybe_unused]] float slope[P][2];
#pragma unroll
      for (int p = 0; p < P; ++p) {
        const float in[2] = {low_of(raw_x[p]), high_of(raw_x[p])};
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          if constexpr (F::acts)
            F::both(in[v], h[p][v], slope[p][v]);
          else
            h[p][v] = in[v];
        }
      }
#pragma unroll
      for (int i = 0; i < K; ++i) {
        const int slot = (J + 1 + i) % K;  // the oldest row first
#pragma unroll
        for (int k = 0; k < K; ++k) {
          const float2 weight = weights[(i * K + k) * 32 + lane];
#pragma unroll
          for (int p = 0; p < P; ++p) {
            acc[p][0] = ::fmaf(g[slot][p + k][0], weight.x, acc[p][0]);
            acc[p][1] = ::fmaf(g[slot][p + k][1], weight.y, acc[p][1]);
            sum[i * K + k][0] = ::fmaf(g[slot][p + k][0], h[p][0], sum[i * K + k][0]);
            sum[i * K + k][1] = ::fmaf(g[slot][p + k][1], h[p][1], sum[i * K + k][1]);
          }
        }
        if (i == R) {
#pragma unroll
          for (int p = 0; p < P; ++p)
            sum[K * K][0] += g[slot][p + R][0], sum[K * K][1] += g[slot][p + R][1];
        }
      }
      auto* const to = reinterpret_cast<unsigned char*>(dx + image);
#pragma unroll
      for (int p = 0; p < P; ++p) {
        if (add) acc[p][0] += low_of(raw_add[p]), acc[p][1] += high_of(raw_add[p]);
        if constexpr (F::acts) acc[p][0] *= slope[p][0], acc[p][1] *= slope[p][1];
        if (p < there) {
          store_pack<2>(reinterpret_cast<bf16*>(to + (out + p * pixel)), acc[p]);
          if constexpr (F::acts) sum[sums - 1][0] += acc[p][0], sum[sums - 1][1] += acc[p][1];
        }
      }
      out += static_cast<unsigned>(d.w) * pixel;
    };
    const int end = y1 - y0 + K - 1;
    for (int n = 0; n < end; n += K) [&]<int... J>(std::integer_sequence<int, J...>) {
        ((n + J < end ? (step(std::integral_constant<int, J>{}, n + J), true) : false) && ...);
      }
    (std::make_integer_sequence<int, K>{});
  }
  copies_done<0>();
  float* const shared = reinterpret_cast<float*>(memory);
#pragma unroll
  for (int t = 0; t < sums; ++t) {
    __syncthreads();
    *reinterpret_cast<float2*>(shared + (strip * 32 + lane) * 2) =
        make_float2(sum[t][0], sum[t][1]);
    __syncthreads();
    const int tap = t < K * K ? K * K - 1 - t : t;
    for (int at = strip * 32 + lane; at < 64; at += threads) {
      float total = 0;
      for (int s = 0; s < d.strips; ++s) total += shared[s * 64 + at];
      if (c0 + at < d.c)
        partial[(static_cast<i64>(blockIdx.y) * sums + tap) * d.c + c0 + at] = total;
    }
  }
}

template <int K, class F>
void run_depthwise_stream_both(const DepthwiseShape& s, const bf16* x, const bf16* dy,
                               const float* w, bool same, const bf16* add, bf16* dx,
                               const ColumnPlaces<float>& to) {
  StreamCut d = stream_cut(s, 4);
  const i64 sixty_fours = (s.c + 63) / 64;
  const i64 at_once =
      std::max<i64>(1, cuda::device().multiProcessorCount * (12 / d.strips) / sixty_fours);
  cut_rows(d, s.batch * d.tiles, at_once, K + 1);
  const i64 units = s.batch * d.tiles * d.chunks, rounds = (units + at_once - 1) / at_once,
            parts = (units + rounds - 1) / rounds;
  auto partial =
      std::make_unique<const Workspace<float>>(parts * sums_of_both<K, F> * s.c, Device::cuda);
  const auto kernel = depthwise_stream_both<K, F>;
  const int bytes =
      std::max(ring_rows * (2 * d.strips * strip_width + K - 1) * 128, d.strips * 256);
  allow_shared(kernel, bytes, "depthwise_conv2d");
  kernel<<<dim3(static_cast<unsigned>(sixty_fours), static_cast<unsigned>(parts)),
           dim3(32, static_cast<unsigned>(d.strips)), static_cast<std::size_t>(bytes),
           cuda::stream()>>>(static_cast<int>(units), d, x, dy, w, same, add, dx, partial->data());
  cuda::launched("depthwise_conv2d");
  finish_columns_later(std::move(partial), parts, sums_of_both<K, F> * s.c, to, "depthwise_conv2d");
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
