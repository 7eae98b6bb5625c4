#pragma once
// Depthwise convolution on the GPU, channels last.
//
// A thread owns V neighbouring channels of a strip P pixels wide and walks down its rows: each input row is read once,
// while the next is on its way, and serves the K output rows that see it, which are unfinished sums in registers. With
// the K*K weights in registers too, memory is touched for images alone. The gradient of the weights walks the same way
// with K rows of dy in registers.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/column_sums.cuh"
#include "ppma/kernels/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T, int V>
__device__ __forceinline__ RawElements<T, V> load_raw(const T* p) {
  return *reinterpret_cast<const RawElements<T, V>*>(p);
}
template <class T, int V>
__device__ __forceinline__ void unpack(const RawElements<T, V>& raw, acc_t<T> (&v)[V]) {
  load_pack<V>(reinterpret_cast<const T*>(&raw), v);
}

/// How an image is cut: strips of P columns, chunks of rows.
struct DepthwiseCut {
  int h, w, c, strips, chunks, rows;
  i64 image;  // elements of one
};
inline DepthwiseCut depthwise_cut(const DepthwiseShape& s, int pixels, int pack, i64 threads, int least_rows) {
  DepthwiseCut d{};
  d.h = static_cast<int>(s.h), d.w = static_cast<int>(s.w), d.c = static_cast<int>(s.c);
  d.image = s.h * s.w * s.c;
  d.strips = (d.w + pixels - 1) / pixels;
  d.chunks = 1;
  while (s.batch * d.strips * d.chunks * (s.c / pack) < threads && (d.h + 2 * d.chunks - 1) / (2 * d.chunks) >= least_rows) d.chunks *= 2;
  d.rows = (d.h + d.chunks - 1) / d.chunks;
  d.chunks = (d.h + d.rows - 1) / d.rows;
  return d;
}

template <class T, int V, int K, int P>
struct DepthwiseWalk {
  using A = acc_t<T>;
  using Raw = RawElements<T, V>;
  static constexpr int R = K / 2, N = P + K - 1;
  const T* x;  // the strip's first channel in its image; column x0 - R may lie outside
  const T* add;
  T* y;
  int x0, y0, y1, h, w, c;
  A weight[K * K][V], bias[V], acc[K][P][V];
  Raw next[N];

  __device__ __forceinline__ void fetch(int r) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int col = x0 - R + j;
      next[j] = r >= 0 && r < h && col >= 0 && col < w ? load_raw<T, V>(x + (r * w + col) * c) : Raw{};
    }
  }
  // The sums of output row o begin: in slot S.
  template <int S>
  __device__ __forceinline__ void begin(int o) {
#pragma unroll
    for (int p = 0; p < P; ++p) {
#pragma unroll
      for (int v = 0; v < V; ++v) acc[S][p][v] = bias[v];
      if (add && o < y1 && x0 + p < w) {
        A plus[V];
        load_pack<V>(add + (o * w + x0 + p) * c, plus);
#pragma unroll
        for (int v = 0; v < V; ++v) acc[S][p][v] += plus[v];
      }
    }
  }
  // Input row y0 - R + n with n mod K = J: output rows y0 + n - ky take it, y0 + n - K + 1 is done then.
  template <int J>
  __device__ __forceinline__ void step(int n) {
    const int r = y0 - R + n;
    A in[N][V];
#pragma unroll
    for (int j = 0; j < N; ++j) unpack<T, V>(next[j], in[j]);
    if (r + 1 < y1 + R) fetch(r + 1);
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
    const int o = y0 + n - (K - 1);
    if (o >= y0) {
#pragma unroll
      for (int p = 0; p < P; ++p)
        if (x0 + p < w) store_pack<V>(y + (o * w + x0 + p) * c, acc[done][p]);
    }
    begin<done>(o + K);
  }
  template <int J>
  __device__ __forceinline__ void steps(int n, int end) {
    if constexpr (J < K) {
      if (n + J >= end) return;
      step<J>(n + J);
      steps<J + 1>(n, end);
    }
  }
};

template <class T, int V, int K, int P>
__global__ void __launch_bounds__(128)
    depthwise_walk(i64 units, DepthwiseCut d, const T* x, const acc_t<T>* packed, const acc_t<T>* bias, const T* add, T* y) {
  using A = acc_t<T>;
  const i64 unit = static_cast<i64>(blockIdx.x) * 128 + threadIdx.x;
  if (unit >= units) return;
  const int packs = d.c / V, c = static_cast<int>(unit % packs) * V;
  const i64 rest = unit / packs;
  const int strip = static_cast<int>(rest % d.strips), chunk = static_cast<int>(rest / d.strips % d.chunks);
  const i64 image = rest / d.strips / d.chunks * d.image + c;
  DepthwiseWalk<T, V, K, P> walk;
  walk.x = x + image, walk.add = add ? add + image : nullptr, walk.y = y + image;
  walk.x0 = strip * P, walk.y0 = chunk * d.rows, walk.y1 = min(d.h, walk.y0 + d.rows);
  walk.h = d.h, walk.w = d.w, walk.c = d.c;
  walk.fetch(walk.y0 - K / 2);
#pragma unroll
  for (int t = 0; t < K * K; ++t) load_pack<V>(packed + t * d.c + c, walk.weight[t]);
#pragma unroll
  for (int v = 0; v < V; ++v) walk.bias[v] = bias ? bias[c + v] : A(0);
#pragma unroll
  for (int s = 0; s < K; ++s)
#pragma unroll
    for (int p = 0; p < P; ++p)
#pragma unroll
      for (int v = 0; v < V; ++v) walk.acc[s][p][v] = 0;
  walk.template begin<0>(walk.y0);
  const int end = walk.y1 - walk.y0 + K - 1;
  for (int n = 0; n < end; n += K) walk.template steps<0>(n, end);
}

// Any odd k, one output element a thread.
template <class T>
__global__ void depthwise_any(DepthwiseShape s, const T* x, const acc_t<T>* packed, const acc_t<T>* bias, const T* add, T* y) {
  const i64 n = s.batch * s.h * s.w * s.c, r = s.k / 2;
  for (i64 at = cuda::first(); at < n; at += cuda::stride()) {
    const i64 c = at % s.c, j = at / s.c % s.w, i = at / (s.c * s.w) % s.h;
    acc_t<T> sum = (bias ? bias[c] : acc_t<T>(0)) + (add ? static_cast<acc_t<T>>(add[at]) : acc_t<T>(0));
    for (i64 ky = max(i64{0}, r - i); ky < min(s.k, s.h + r - i); ++ky)
      for (i64 kx = max(i64{0}, r - j); kx < min(s.k, s.w + r - j); ++kx)
        sum += static_cast<acc_t<T>>(x[at + ((ky - r) * s.w + kx - r) * s.c]) * packed[(ky * s.k + kx) * s.c + c];
    y[at] = T(sum);
  }
}

template <class A>
__global__ void depthwise_pack_kernel(i64 c, i64 k, const A* w, bool turned, A* packed) {
  for (i64 at = cuda::first(); at < c * k * k; at += cuda::stride()) {
    const i64 t = at / c, i = at % c;
    packed[at] = w[i * k * k + (turned ? k * k - 1 - t : t)];
  }
}

// The same walk for the gradients of weights: K rows of dy stay in registers, every row of x meets them.
template <class T, int V, int K, int P>
struct DepthwiseBack {
  using A = acc_t<T>;
  using Raw = RawElements<T, V>;
  static constexpr int R = K / 2, N = P + K - 1;
  const T *x, *dy;
  int x0, y0, y1, h, w, c;
  A sum[K * K + 1][V], g[K][P][V];
  Raw next[N], next_g[P];

  __device__ __forceinline__ void fetch(int n) {
    const int r = y0 - R + n, o = y0 + n;
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int col = x0 - R + j;
      next[j] = r >= 0 && r < h && col >= 0 && col < w ? load_raw<T, V>(x + (r * w + col) * c) : Raw{};
    }
#pragma unroll
    for (int p = 0; p < P; ++p) next_g[p] = o < y1 && x0 + p < w ? load_raw<T, V>(dy + (o * w + x0 + p) * c) : Raw{};
  }
  template <int J>
  __device__ __forceinline__ void step(int n, int end) {
    const int r = y0 - R + n;
    A in[N][V];
#pragma unroll
    for (int j = 0; j < N; ++j) unpack<T, V>(next[j], in[j]);
#pragma unroll
    for (int p = 0; p < P; ++p) {
      unpack<T, V>(next_g[p], g[J][p]);
#pragma unroll
      for (int v = 0; v < V; ++v) sum[K * K][v] += g[J][p][v];
    }
    if (n + 1 < end) fetch(n + 1);
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
  template <int J>
  __device__ __forceinline__ void steps(int n, int end) {
    if constexpr (J < K) {
      if (n + J >= end) return;
      step<J>(n + J, end);
      steps<J + 1>(n, end);
    }
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
  walk.h = d.h, walk.w = d.w, walk.c = d.c;
#pragma unroll
  for (int t = 0; t <= K * K; ++t)
#pragma unroll
    for (int v = 0; v < V; ++v) walk.sum[t][v] = 0;
  if (c < d.c)
    for (i64 unit = static_cast<i64>(blockIdx.y) * blockDim.y + threadIdx.y; unit < units;
         unit += static_cast<i64>(gridDim.y) * blockDim.y) {
      const int strip = static_cast<int>(unit % d.strips), chunk = static_cast<int>(unit / d.strips % d.chunks);
      const i64 image = unit / d.strips / d.chunks * d.image + c;
      walk.x = x + image, walk.dy = dy + image;
      walk.x0 = strip * P, walk.y0 = chunk * d.rows, walk.y1 = min(d.h, walk.y0 + d.rows);
      const int end = walk.y1 - walk.y0 + K - 1;
      walk.fetch(0);
      for (int n = 0; n < end; n += K) walk.template steps<0>(n, end);
    }
#pragma unroll
  for (int t = 0; t <= K * K; ++t)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const A total = sum_block_rows<A, 256>(walk.sum[t][v], shared);
      if (threadIdx.y == 0 && c < d.c) partial[(static_cast<i64>(blockIdx.y) * (K * K + 1) + t) * d.c + c + v] = total;
    }
}

// Any odd k: a block has 32 channels of one tap (or of db) and a part of the pixels.
template <class T>
__global__ void __launch_bounds__(256) depthwise_back_any(DepthwiseShape s, const T* x, const T* dy, acc_t<T>* partial) {
  using A = acc_t<T>;
  __shared__ A shared[256];
  const i64 taps = s.k * s.k, c = static_cast<i64>(blockIdx.x) * 32 + threadIdx.x, t = blockIdx.y, r = s.k / 2;
  const i64 pixels = s.batch * s.h * s.w;
  A sum = 0;
  if (c < s.c)
    for (i64 p = static_cast<i64>(blockIdx.z) * 8 + threadIdx.y; p < pixels; p += static_cast<i64>(gridDim.z) * 8) {
      const A g = static_cast<A>(dy[p * s.c + c]);
      if (t == taps) {
        sum += g;
        continue;
      }
      const i64 oy = t / s.k - r, ox = t % s.k - r, i = p / s.w % s.h + oy, j = p % s.w + ox;
      if (i >= 0 && i < s.h && j >= 0 && j < s.w) sum += g * static_cast<A>(x[(p + oy * s.w + ox) * s.c + c]);
    }
  sum = sum_block_rows<A, 256>(sum, shared);
  if (threadIdx.y == 0 && c < s.c) partial[(static_cast<i64>(blockIdx.z) * (taps + 1) + t) * s.c + c] = sum;
}

// Sums (k*k + 1, C) to dw (C, k*k) and db.
template <class A>
struct PutTaps {
  i64 c, taps;
  A *dw, *db;
  __device__ void operator()(i64 at, A sum) const {
    const i64 t = at / c, i = at % c;
    if (t < taps) dw[i * taps + t] = sum;
    else if (db) db[i] = sum;
  }
};

// Calls f(V, K, P constants) with the walk for a shape; returns false where there is none.
template <class T, class F>
bool with_walk(const DepthwiseShape& s, F&& f) {
  constexpr int pair = std::is_same_v<T, double> ? 1 : 2;
  const auto k_of = [&](auto v) {
    if (s.k == 3) return f(v, std::integral_constant<int, 3>{}, std::integral_constant<int, 4>{}), true;
    if (s.k == 5) return f(v, std::integral_constant<int, 5>{}, std::integral_constant<int, 4>{}), true;
    return false;
  };
  if (s.h * s.w * s.c >= (i64{1} << 31)) return false;
  if (s.c % pair == 0) return k_of(std::integral_constant<int, pair>{});
  return k_of(std::integral_constant<int, 1>{});
}

}  // namespace detail

template <class A>
void depthwise_pack(Cuda, i64 c, i64 k, const A* w, bool turned, A* packed) {
  detail::depthwise_pack_kernel<<<cuda::blocks(c * k * k, 256), 256, 0, cuda::stream()>>>(c, k, w, turned, packed);
  cuda::launched("depthwise_conv2d");
}

template <class T>
void depthwise(Cuda, const DepthwiseShape& s, const T* x, const acc_t<T>* packed, const acc_t<T>* bias, const T* add, T* y) {
  const bool walked = detail::with_walk<T>(s, [&](auto v, auto k, auto p) {
    constexpr int V = decltype(v)::value, K = decltype(k)::value, P = decltype(p)::value;
    const detail::DepthwiseCut d = detail::depthwise_cut(s, P, V, 200000, 7);
    const i64 units = s.batch * d.chunks * d.strips * (s.c / V);
    detail::depthwise_walk<T, V, K, P><<<static_cast<unsigned>((units + 127) / 128), 128, 0, cuda::stream()>>>(
        units, d, x, packed, bias, add, y);
  });
  if (!walked)
    detail::depthwise_any<<<cuda::blocks(s.batch * s.h * s.w * s.c, 256), 256, 0, cuda::stream()>>>(s, x, packed, bias, add, y);
  cuda::launched("depthwise_conv2d");
}

template <class T>
void depthwise_dw(Cuda, const DepthwiseShape& s, const T* x, const T* dy, acc_t<T>* dw, acc_t<T>* db) {
  using A = acc_t<T>;
  const i64 taps = s.k * s.k;
  const detail::PutTaps<A> put{s.c, taps, dw, db};
  const bool walked = detail::with_walk<T>(s, [&](auto v, auto k, auto p) {
    constexpr int V = decltype(v)::value, K = decltype(k)::value, P = decltype(p)::value;
    const detail::DepthwiseCut d = detail::depthwise_cut(s, P, V, 100000, 14);
    const i64 units = s.batch * d.chunks * d.strips, packs = s.c / V;
    i64 across = 1;
    while (across < packs && across < 32) across *= 2;
    const i64 down = 256 / across, tiles = (packs + across - 1) / across;
    const i64 parts = std::clamp<i64>((units + down - 1) / down, 1, std::max<i64>(1, 528 / tiles));
    const Workspace<A> partial(parts * (taps + 1) * s.c, Device::cuda);
    detail::depthwise_back<T, V, K, P>
        <<<dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(parts)),
           dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), 0, cuda::stream()>>>(units, d, x, dy, partial.data());
    cuda::launched("depthwise_conv2d");
    detail::finish_columns(parts, (taps + 1) * s.c, static_cast<const A*>(partial.data()), put, "depthwise_conv2d");
  });
  if (walked) return;
  const i64 parts = std::clamp<i64>(s.batch * s.h * s.w / 256, 1, 64);
  const Workspace<A> partial(parts * (taps + 1) * s.c, Device::cuda);
  const dim3 grid(static_cast<unsigned>((s.c + 31) / 32), static_cast<unsigned>(taps + 1), static_cast<unsigned>(parts));
  detail::depthwise_back_any<<<grid, dim3(32, 8), 0, cuda::stream()>>>(s, x, dy, partial.data());
  cuda::launched("depthwise_conv2d");
  detail::finish_columns(parts, (taps + 1) * s.c, static_cast<const A*>(partial.data()), put, "depthwise_conv2d");
}

}  // namespace ppma::inline PPMA_ABI::kernels
