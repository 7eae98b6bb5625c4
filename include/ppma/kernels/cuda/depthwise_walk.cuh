#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution on the GPU for any type: a thread owns V neighbouring channels of a strip P
// pixels wide and walks down its rows. Each input row is read once and serves the K output rows
// that see it, which are unfinished sums in registers. With the K*K weights in registers too,
// memory is touched for images alone. The gradient of the weights walks the same way with K rows of
// dy in registers (depthwise_back.cuh).

#include "ppma/kernels/cuda/depthwise_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

template <class T, int V, int K, int P>
struct DepthwiseWalk {
  using A = acc_t<T>;
  static constexpr int R = K / 2, N = P + K - 1;
  const T* add;  // at the thread's channels of its image
  T* y;
  int x0, y0, y1, h, w, c;
  A weight[K * K][V], bias[V], acc[K][P][V];

  // The weights of the thread's channels, packed (k*k, C).
  __device__ __forceinline__ void take_weights(const A* packed) {
#pragma unroll
    for (int t = 0; t < K * K; ++t) load_pack<V>(packed + t * c, weight[t]);
  }
  // Begins at channels `at`; `same`: what is added is x itself, a one in the middle of the kernel.
  __device__ __forceinline__ void start(const A* b, int at, bool same) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
      bias[v] = b ? b[at + v] : A(0);
      if (same) weight[K * K / 2][v] += A(1);
    }
#pragma unroll
    for (int s = 0; s < K; ++s)
#pragma unroll
      for (int p = 0; p < P; ++p)
#pragma unroll
        for (int v = 0; v < V; ++v) acc[s][p][v] = 0;
    begin<0>(y0);
  }
  // The sums of output row o begin: in slot `at`.
  template <int at>
  __device__ __forceinline__ void begin(int o) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
#pragma unroll
      for (int v = 0; v < V; ++v) acc[at][p][v] = bias[v];
      if (add && o < y1 && x0 + p < w) {
        A plus[V];
        load_pack<V>(add + (o * w + x0 + p) * c, plus);
#pragma unroll
        for (int v = 0; v < V; ++v) acc[at][p][v] += plus[v];
      }
    }
  }
  // Input row y0 - R + n with n mod K = J: output rows y0 + n - ky take it, y0 + n - K + 1 is done
  // then.
  template <int J, class Rows>
  __device__ __forceinline__ void step(int n, Rows& rows) {
    const int r = y0 - R + n, o = y0 + n - (K - 1);
    RawElements<T, V> raw[N];
    rows.take(n, raw);
    A in[N][V];
#pragma unroll
    for (int j = 0; j < N; ++j) unpack<T, V>(raw[j], in[j]);
    if (r >= 0 && r < h) {
#pragma unroll
      for (int ky = 0; ky < K; ++ky) {
        constexpr int wrap = 2 * K;
        const int slot = (J - ky + wrap) % K;
        if (n - ky >= 0 && n - ky < y1 - y0) {
#pragma unroll
          for (int kx = 0; kx < K; ++kx)
#pragma unroll
            for (int p = 0; p < P; ++p)
#pragma unroll
              for (int v = 0; v < V; ++v) acc[slot][p][v] += in[p + kx][v] * weight[ky * K + kx][v];
        }
      }
    }
    constexpr int done = (J + 1) % K;
    if (o >= y0) {
#pragma unroll
      for (int p = 0; p < P; ++p)
        if (x0 + p < w) store_pack<V>(y + (o * w + x0 + p) * c, acc[done][p]);
    }
    begin<done>(o + K);
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
__global__ void __launch_bounds__(128)
    depthwise_walk(i64 units, DepthwiseCut d, const T* x, const acc_t<T>* packed,
                   const acc_t<T>* bias, const T* add, T* y) {
  using A = acc_t<T>;
  const i64 unit = static_cast<i64>(blockIdx.x) * 128 + threadIdx.x;
  if (unit >= units) return;
  const int packs = d.c / V, c = static_cast<int>(unit % packs) * V;
  const i64 rest = unit / packs;
  const int strip = static_cast<int>(rest % d.strips),
            chunk = static_cast<int>(rest / d.strips % d.chunks);
  const i64 image = rest / d.strips / d.chunks * d.image + c;
  DepthwiseWalk<T, V, K, P> walk;
  walk.add = add && add != x ? add + image : nullptr, walk.y = y + image;
  walk.x0 = strip * P, walk.y0 = chunk * d.rows, walk.y1 = ::min(d.h, walk.y0 + d.rows);
  walk.h = d.h, walk.w = d.w, walk.c = d.c;
  OwnRows<T, V, P + K - 1> rows{
      x + image, walk.x0 - K / 2, walk.y0 - K / 2, walk.y1 + K / 2, d.h, d.w, d.c, {}};
  rows.fetch(rows.first);
  walk.take_weights(packed + c);
  walk.start(bias, c, add == x);
  walk.run(rows);
}

// Any odd k, one output element a thread.
template <class T>
__global__ void depthwise_any(DepthwiseShape s, const T* x, const acc_t<T>* packed,
                              const acc_t<T>* bias, const T* add, T* y) {
  const i64 n = s.batch * s.h * s.w * s.c, r = s.k / 2;
  for (i64 at = cuda::first(); at < n; at += cuda::stride()) {
    const i64 c = at % s.c, j = at / s.c % s.w, i = at / (s.c * s.w) % s.h;
    acc_t<T> sum =
        (bias ? bias[c] : acc_t<T>(0)) + (add ? static_cast<acc_t<T>>(add[at]) : acc_t<T>(0));
    for (i64 ky = ::max(i64{0}, r - i); ky < ::min(s.k, s.h + r - i); ++ky)
      for (i64 kx = ::max(i64{0}, r - j); kx < ::min(s.k, s.w + r - j); ++kx)
        sum += static_cast<acc_t<T>>(x[at + ((ky - r) * s.w + kx - r) * s.c]) *
               packed[(ky * s.k + kx) * s.c + c];
    y[at] = T(sum);
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
