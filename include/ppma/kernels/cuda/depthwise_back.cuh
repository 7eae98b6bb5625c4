#pragma once
#include "ppma/core/names_begin.hpp"
// The gradients of the weights and the bias of depthwise.cuh, as sums of each block's part of the
// images.

#include "ppma/kernels/cuda/depthwise_rows.cuh"
#include "ppma/kernels/cuda/later_sums.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

// The same walk for the gradients of weights: K rows of dy stay in registers, every row of x meets
// them.
template <class T, int V, int K, int P>
struct DepthwiseBack {
  using A = acc_t<T>;
  static constexpr int R = K / 2, N = P + K - 1;
  int y0, y1, h;
  A sum[K * K + 1][V], g[K][P][V];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int t = 0; t <= K * K; ++t)
#pragma unroll
      for (int v = 0; v < V; ++v) sum[t][v] = 0;
  }
  // Row y0 - R + n of x, row y0 + n of dy (zeros behind y1).
  template <int J, class Rows>
  __device__ __forceinline__ void step(int n, Rows& rows) {
    const int r = y0 - R + n;
    RawElements<T, V> raw[N], raw_g[P];
    rows.take(n, raw, raw_g);
    A in[N][V];
#pragma unroll
    for (int j = 0; j < N; ++j) unpack<T, V>(raw[j], in[j]);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      unpack<T, V>(raw_g[p], g[J][p]);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[K * K][v] += g[J][p][v];
    }
    if (r >= 0 && r < h) {
#pragma unroll
      for (int ky = 0; ky < K; ++ky) {
        const int slot = (J - ky + 2 * K) % K;
        if (n - ky >= 0 && n - ky < y1 - y0) {
#pragma unroll
          for (int kx = 0; kx < K; ++kx)
#pragma unroll
            for (int p = 0; p < P; ++p)
#pragma unroll
              for (int v = 0; v < V; ++v) sum[ky * K + kx][v] += in[p + kx][v] * g[slot][p][v];
        }
      }
    }
  }
  template <int J, class Rows>
  __device__ __forceinline__ void steps(int n, int end, Rows& rows) {
    if constexpr (J < K) {
      if (n + J >= end) return;
      step<J>(n + J, rows);
      steps<J + 1>(n, end, rows);
    }
  }
  template <class Rows>
  __device__ __forceinline__ void run(Rows& rows) {
    const int end = y1 - y0 + K - 1;
    for (int n = 0; n < end; n += K) steps<0>(n, end, rows);
  }
};

template <class T, int V, int K, int P>
struct OwnTwoRows {
  OwnRows<T, V, P + K - 1> x;
  OwnRows<T, V, P> dy;
  __device__ __forceinline__ void take(int n, RawElements<T, V> (&raw)[P + K - 1],
                                       RawElements<T, V> (&raw_g)[P]) {
    x.take(n, raw);
    dy.take(n, raw_g);
    if (dy.first + n + 1 >= dy.last) dy.fetch(dy.last);  // zeros
  }
};

// partial (parts, K*K + 1, C).
template <class T, int V, int K, int P>
__global__ void __launch_bounds__(256)
    depthwise_back(i64 units, DepthwiseCut d, const T* x, const T* dy, acc_t<T>* partial) {
  using A = acc_t<T>;
  __shared__ A shared[256];
  const int c = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x) * V;
  DepthwiseBack<T, V, K, P> walk;
  walk.h = d.h;
  walk.clear();
  if (c < d.c)
    for (i64 unit = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; unit < units;
         unit += static_cast<i64>(gridDim.y) * blockDim.y) {
      const int strip = static_cast<int>(unit % d.strips),
                chunk = static_cast<int>(unit / d.strips % d.chunks);
      const i64 image = unit / d.strips / d.chunks * d.image + c;
      walk.y0 = chunk * d.rows, walk.y1 = ::min(d.h, walk.y0 + d.rows);
      OwnTwoRows<T, V, K, P> rows{
          {x + image, strip * P - K / 2, walk.y0 - K / 2, walk.y1 + K / 2, d.h, d.w, d.c, {}},
          {dy + image, strip * P, walk.y0, walk.y1, d.h, d.w, d.c, {}}};
      rows.x.fetch(rows.x.first);
      rows.dy.fetch(rows.dy.first);
      walk.run(rows);
    }
#pragma unroll
  for (int t = 0; t <= K * K; ++t)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const A total = sum_block_rows<A, 256>(walk.sum[t][v], shared);
      if (threadIdx.y == 0 && c < d.c)
        partial[(static_cast<i64>(blockIdx.y) * (K * K + 1) + t) * d.c + c + v] = total;
    }
}

// Any odd k: a block has 32 channels of one tap (or of db) and a part of the pixels.
template <class T>
__global__ void __launch_bounds__(256)
    depthwise_back_any(DepthwiseShape s, const T* x, const T* dy, acc_t<T>* partial) {
  using A = acc_t<T>;
  __shared__ A shared[256];
  const i64 taps = s.k * s.k, c = static_cast<i64>(blockIdx.x) * 32 + threadIdx.x, t = blockIdx.y,
            r = s.k / 2;
  const i64 pixels = s.batch * s.h * s.w;
  A sum = 0;
  if (c < s.c)
    for (i64 p = static_cast<i64>(blockIdx.z) * 8 + threadIdx.y; p < pixels;
         p += static_cast<i64>(gridDim.z) * 8) {
      const A g = static_cast<A>(dy[p * s.c + c]);
      if (t == taps) {
        sum += g;
        continue;
      }
      const i64 oy = t / s.k - r, ox = t % s.k - r, i = p / s.w % s.h + oy, j = p % s.w + ox;
      if (i >= 0 && i < s.h && j >= 0 && j < s.w)
        sum += g * static_cast<A>(x[(p + oy * s.w + ox) * s.c + c]);
    }
  sum = sum_block_rows<A, 256>(sum, shared);
  if (threadIdx.y == 0 && c < s.c)
    partial[(static_cast<i64>(blockIdx.z) * (taps + 1) + t) * s.c + c] = sum;
}

// Large K: a block has 32 channels of the K taps of one row and a part of the rows of pixels, which
// a thread walks along with K pixels of x in registers.
template <class T, int K>
__global__ void __launch_bounds__(256)
    depthwise_back_rows(DepthwiseShape s, const T* x, const T* dy, acc_t<T>* partial) {
  using A = acc_t<T>;
  constexpr int R = K / 2;
  __shared__ A shared[256];
  const i64 c = static_cast<i64>(blockIdx.x) * 32 + threadIdx.x, rows = s.batch * s.h;
  const int ky = static_cast<int>(blockIdx.y), width = static_cast<int>(s.w);
  A sum[K + 1] = {};  // the last one of db
  if (c < s.c)
    for (i64 row = static_cast<i64>(blockIdx.z) * 8 + threadIdx.y; row < rows;
         row += static_cast<i64>(gridDim.z) * 8) {
      const i64 i = row % s.h + ky - R;
      if (i < 0 || i >= s.h) continue;
      const T *const from = x + (row + ky - R) * s.w * s.c + c, *const up =
                                                                    dy + row * s.w * s.c + c;
      const auto at = [&](int j) { return j >= 0 && j < width ? A(from[j * s.c]) : A(0); };
      A seen[K];  // x from j - R to j + R
#pragma unroll
      for (int k = 0; k < K; ++k) seen[k] = at(k - R - 1);
#pragma unroll 4
      for (int j = 0; j < width; ++j) {
#pragma unroll
        for (int k = 0; k + 1 < K; ++k) seen[k] = seen[k + 1];
        seen[K - 1] = at(j + R);
        const A g = A(up[j * s.c]);
#pragma unroll
        for (int k = 0; k < K; ++k) sum[k] += g * seen[k];
        sum[K] += g;
      }
    }
#pragma unroll
  for (int k = 0; k <= K; ++k) {
    const A all = sum_block_rows<A, 256>(sum[k], shared);
    const i64 tap = k < K ? ky * K + k : K * K;
    if (threadIdx.y == 0 && c < s.c && (k < K || ky == R))
      partial[(static_cast<i64>(blockIdx.z) * (K * K + 1) + tap) * s.c + c] = all;
  }
}

// Where sums (k*k + 1, C) go: to dw (C, k*k) and db, which may be null; a row more: to `more`.
template <class A>
ColumnPlaces<A> tap_places(i64 c, i64 taps, A* dw, A* db, A* more = nullptr) {
  ColumnPlaces<A> to(dw, taps * c, db, c, more);
  to.taps = taps;
  return to;
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
