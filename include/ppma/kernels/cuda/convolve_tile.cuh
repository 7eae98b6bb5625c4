#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution of a tile of a map that lies in shared memory, bf16, channels last, inside
// of other kernels.
//
// A thread has two channels of a column and walks down, so that it reads each line once, with K
// unfinished sums. Lines and columns beside the map are zeros. Lanes are neighbours in channels.

#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// Results from line y0 and column x0 on of a map h x w, `down` lines and `across` columns; and the
/// pixels they see within the map, R around them: lines y .. y_end, columns x .. x_end.
struct MapTile {
  int y0, x0, y, x, y_end, x_end, wide;

  __device__ __forceinline__ MapTile(int y0_, int x0_, int down, int across, int R, int h, int w)
      : y0(y0_),
        x0(x0_),
        y(::max(0, y0_ - R)),
        x(::max(0, x0_ - R)),
        y_end(::min(h, y0_ + down + R)),
        x_end(::min(w, x0_ + across + R)),
        wide(x_end - x) {}
  __device__ __forceinline__ int pixels() const { return (y_end - y) * wide; }
};

/// conv(v) + b (+ v) for TH x TW pixels of N channels: v (pixels of the tile, pitch), the taps
/// (N, K, K) and b (N) in shared memory. put(channel, line, column, sum of two channels): lines and
/// columns count from the first result.
template <int K, int TH, int TW, int N, int pitch, int threads, class F>
__device__ __forceinline__ void convolve_tile(const MapTile& t, const bf16* v, const float* taps,
                                              const float* b, bool plus, F&& put) {
  constexpr int pairs = N / 2, R = K / 2;
  for (int i = static_cast<int>(threadIdx.x); i < pairs * TW; i += threads) {
    const int c = i % pairs * 2, col = i / pairs, at = t.x0 + col - t.x;
    float w[K * K][2], sum[K][2];
#pragma unroll
    for (int k = 0; k < K * K; ++k)
      w[k][0] = taps[c * K * K + k], w[k][1] = taps[(c + 1) * K * K + k];
    if (plus) w[K * K / 2][0] += 1.f, w[K * K / 2][1] += 1.f;
    const float b0 = b[c], b1 = b[c + 1];
    const bf16* from = v + ((t.y0 - R - t.y) * t.wide + at) * pitch + c;
#pragma unroll
    for (int row = 0; row < TH + K - 1; ++row) {
      const int line = t.y0 - R + row;
      const bool there = line >= t.y && line < t.y_end;
      unsigned raw[K];
#pragma unroll
      for (int kx = 0; kx < K; ++kx) {
        const int x = at + kx - R;
        raw[kx] = there && x >= 0 && x < t.wide
                      ? *reinterpret_cast<const unsigned*>(from + (kx - R) * pitch)
                      : 0u;
      }
      from += t.wide * pitch;
      // Result line row - ky has this line for its taps ky.
#pragma unroll
      for (int ky = 0; ky < K; ++ky) {
        const int out = row - ky;
        if (out < 0 || out >= TH) continue;
        float(&s)[2] = sum[out % K];
        if (ky == 0) s[0] = b0, s[1] = b1;
#pragma unroll
        for (int kx = 0; kx < K; ++kx) {
          s[0] = ::fmaf(__uint_as_float(raw[kx] << 16), w[ky * K + kx][0], s[0]);
          s[1] = ::fmaf(__uint_as_float(raw[kx] & 0xffff0000u), w[ky * K + kx][1], s[1]);
        }
      }
      if (row >= K - 1) put(c, row - K + 1, col, sum[(row - K + 1) % K]);
    }
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
