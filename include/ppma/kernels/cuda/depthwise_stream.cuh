#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution of bf16 maps on the GPU, channels last, k = 3, 5 or 7.
//
// A thread owns two neighbouring channels of a strip seven pixels wide and walks down its rows.
// Rows come through a ring in shared memory; each is read once and serves the K output rows that
// see it, which are unfinished sums in registers, as are the K K weights. Rows beside the image
// are zeros that are added like others: a row costs 14 K K multiplications and about 100 other
// instructions, no branches.
//
// A GELU before the convolution needs no pass of its own: the threads that brought a piece of a
// row put the function's values in its place; for the gradient the results are multiplied by its
// slope before they are stored.
//
// Floor: x read and y written once. What a multiprocessor can issue is near it: 128 maps of 56 x
// 56 x 192, k = 3, are 72 us of bytes at 4.3 TB/s and 40 of instructions; an H200 takes 92, with
// GELU 124.

#include <utility>

#include "ppma/kernels/cuda/depthwise_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// Threads of a block at most, and blocks a multiprocessor has at least: registers follow.
constexpr int stream_threads(int k) { return k == 3 ? 256 : 128; }
constexpr int stream_blocks(int k) { return k == 5 ? 3 : 2; }

// Block (32, strips), grid (C / 64, tiles x chunks, batch). F: what is applied to x. S: results are
// multiplied by its slope at `slope_at`. `same`: x is added to the result, a one in the middle of
// the kernel; `plus`: `add` is.
template <int K, class F, class S, bool plus>
__global__ void __launch_bounds__(stream_threads(K), stream_blocks(K))
    depthwise_stream(StreamCut d, const bf16* x, const float* w, bool turned, const float* bias,
                     bool same, [[maybe_unused]] const bf16* add,
                     [[maybe_unused]] const bf16* slope_at, bf16* y) {
  constexpr int P = strip_width, N = P + K - 1;
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ __align__(16) float weights[64 * K * K];
  const int lane = static_cast<int>(threadIdx.x), strip = static_cast<int>(threadIdx.y),
            threads = d.strips * 32, c0 = static_cast<int>(blockIdx.x) * 64, c = c0 + lane * 2;
  const int tile = static_cast<int>(blockIdx.y) % d.tiles,
            chunk = static_cast<int>(blockIdx.y) / d.tiles;
  const int y0 = chunk * d.rows, y1 = ::min(d.h, y0 + d.rows);
  const i64 image = static_cast<i64>(blockIdx.z) * d.image;

  for (int i = strip * 32 + lane; i < ::min(64, d.c - c0) * K * K / 4; i += threads)
    copy_async(weights + i * 4, w + static_cast<i64>(c0) * K * K + i * 4, true);
  copies_issued();
  cuda::wait();  // weights are parameters
  const int left = tile * d.strips * P - K / 2;
  RowRing rows(d, x + image, memory, left, d.strips * P + K - 1, c0, y0 - K / 2, y1 + K / 2);
  for (int n = 0; n < ring_rows - 1; ++n) rows.fetch(threads), copies_issued();
  copies_done<ring_rows - 1>();  // the weights, not the rows after them
  __syncthreads();
  const bool on = c < d.c;
  float weight[K * K][2], b[2], acc[K][P][2];
#pragma unroll
  for (int v = 0; v < 2; ++v) {
    b[v] = bias && on ? bias[c + v] : 0.f;
#pragma unroll
    for (int t = 0; t < K * K; ++t)
      weight[t][v] = weights[(lane * 2 + v) * K * K + (turned ? K * K - 1 - t : t)];
    if (same) weight[K * K / 2][v] += 1.f;
  }

  const int x0 = (tile * d.strips + strip) * P, there = on ? d.w - x0 : 0;  // columns of the strip
  unsigned taken = 0;
  unsigned out = static_cast<unsigned>(((y0 * d.w + x0) * d.c + c) * 2);  // bytes, of row n - K + 1
  const unsigned pixel = static_cast<unsigned>(d.c) * 2;
  const auto of_row = [&](const bf16* map, unsigned(&raw)[P]) {
    const auto* const base = reinterpret_cast<const unsigned char*>(map + image);
#pragma unroll
    for (int p = 0; p < P; ++p)
      if (p < there) raw[p] = *reinterpret_cast<const unsigned*>(base + (out + p * pixel));
  };
  // Input row y0 - K/2 + n with n mod K = J: output rows y0 + n - ky take it, and y0 + n - K + 1 is
  // done then.
  const auto step = [&](auto index, int n) {
    constexpr int J = decltype(index)::value, finished = (J + 1) % K;
    const bool done = n >= K - 1;
    [[maybe_unused]] unsigned raw_add[P], raw_slope[P], raw[N];
    if constexpr (plus)
      if (done) of_row(add, raw_add);
    if constexpr (S::acts)
      if (done) of_row(slope_at, raw_slope);
    copies_done<ring_rows - 2>();
    rows.apply<F>(threads);
    __syncthreads();
    rows.fetch(threads);
    copies_issued();
    const unsigned char* const from = memory + taken + (strip * P * 32 + lane) * 4;
#pragma unroll
    for (int j = 0; j < N; ++j) raw[j] = *reinterpret_cast<const unsigned*>(from + j * 128);
    rows.advance(taken);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const float in[2] = {low_of(raw[j]), high_of(raw[j])};
#pragma unroll
      for (int kx = 0; kx < K; ++kx) {
        const int p = j - kx;
        if (p < 0 || p >= P) continue;
#pragma unroll
        for (int ky = 0; ky < K; ++ky) {
          const int slot = (J - ky + K) % K;
#pragma unroll
          for (int v = 0; v < 2; ++v)
            acc[slot][p][v] =
                ::fmaf(in[v], weight[ky * K + kx][v], ky == 0 && kx == 0 ? b[v] : acc[slot][p][v]);
        }
      }
    }
    if (!done) return;
    auto* const to = reinterpret_cast<unsigned char*>(y + image);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      float result[2] = {acc[finished][p][0], acc[finished][p][1]};
      if constexpr (plus) result[0] += low_of(raw_add[p]), result[1] += high_of(raw_add[p]);
      if constexpr (S::acts)
        result[0] *= S::slope(low_of(raw_slope[p])), result[1] *= S::slope(high_of(raw_slope[p]));
      if (p < there) store_pack<2>(reinterpret_cast<bf16*>(to + (out + p * pixel)), result);
    }
    out += static_cast<unsigned>(d.w) * pixel;
  };
  const int end = y1 - y0 + K - 1;
  for (int n = 0; n < end; n += K) [&]<int... J>(std::integer_sequence<int, J...>) {
      ((n + J < end ? (step(std::integral_constant<int, J>{}, n + J), true) : false) && ...);
    }
  (std::make_integer_sequence<int, K>{});
}

/// Chunks so that the rounds of blocks, each as long as its rows and those beside them, end
/// soonest.
inline void cut_rows(StreamCut& d, i64 blocks, i64 at_once, int beside) {
  i64 best = 0;
  for (int n = 1; n <= d.h; ++n) {
    const int rows = (d.h + n - 1) / n, chunks = (d.h + rows - 1) / rows;
    const i64 cost = (blocks * chunks + at_once - 1) / at_once * (rows + beside);
    if (n == 1 || cost < best) best = cost, d.rows = rows, d.chunks = chunks;
  }
}
inline StreamCut stream_cut(const DepthwiseShape& s, int most_strips) {
  StreamCut d{};
  d.h = static_cast<int>(s.h), d.w = static_cast<int>(s.w), d.c = static_cast<int>(s.c);
  d.image = s.h * s.w * s.c;
  const int across = (d.w + strip_width - 1) / strip_width;
  d.tiles = (across + most_strips - 1) / most_strips;
  d.strips = (across + d.tiles - 1) / d.tiles;
  return d;
}
/// Whether the streaming kernels take this shape and type.
template <class T>
bool streams(const DepthwiseShape& s) {
  return std::is_same_v<T, bf16> && s.c % 8 == 0 && (s.k == 3 || s.k == 5 || s.k == 7) &&
         s.batch < 65536 && s.h * s.w * s.c < (i64{1} << 31) && s.h < (1 << 15) && s.w < (1 << 15);
}

template <int K, class F, class S, bool plus>
void run_depthwise_stream(const DepthwiseShape& s, const bf16* x, const float* w, bool turned,
                          const float* bias, const bf16* add, const bf16* slope_at, bf16* y) {
  StreamCut d = stream_cut(s, stream_threads(K) / 32);
  const auto kernel = depthwise_stream<K, F, S, plus>;
  const int bytes = ring_rows * (d.strips * strip_width + K - 1) * 128;
  allow_shared(kernel, bytes, "depthwise_conv2d");
  const i64 sixty_fours = (s.c + 63) / 64,
            at_once = cuda::device().multiProcessorCount *
                      (stream_threads(K) * stream_blocks(K) / 32 / d.strips);
  cut_rows(d, s.batch * d.tiles * sixty_fours, at_once, K + 1);
  cuda::launch("depthwise_conv2d", kernel,
               dim3(static_cast<unsigned>(sixty_fours), static_cast<unsigned>(d.tiles * d.chunks),
                    static_cast<unsigned>(s.batch)),
               dim3(32, static_cast<unsigned>(d.strips)), static_cast<std::size_t>(bytes), d, x, w,
               turned, bias, add == x && add, add, slope_at, y);
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
