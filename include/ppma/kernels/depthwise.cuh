#pragma once
// Depthwise convolution on the GPU, channels last.
//
// A thread owns V neighbouring channels of a strip P pixels wide and walks down its rows: each input row is read once
// and serves the K output rows that see it, which are unfinished sums in registers. With the K*K weights in registers
// too, memory is touched for images alone. The gradient of the weights walks the same way with K rows of dy in registers.
//
// A GELU before the convolution needs no pass of its own: the threads that brought a piece of a row of shared memory put
// the function's values in its place; for the gradient the results are multiplied by its slope before they are stored.
//
// Images too few to fill the GPU this way go to depthwise_few.cuh.
//
// Where rows come from: a thread's own loads, one row ahead; or, for bf16 with whole blocks of 64 channels, a ring of
// rows in shared memory that the block's threads fill several rows ahead.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/column_sums.cuh"
#include "ppma/kernels/copy_async.cuh"
#include "ppma/kernels/depthwise_few.cuh"
#include "ppma/kernels/fast_gelu.cuh"
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

// A thread's own loads of N pixels a row: pixel columns from `col`, elements of one channel `c` apart.
template <class T, int V, int N>
struct OwnRows {
  using Raw = RawElements<T, V>;
  const T* x;
  int col, first, last, h, w, c;  // rows first .. last, of which 0 .. h are in the image
  Raw next[N];

  __device__ __forceinline__ void fetch(int r) {
#pragma unroll
    for (int j = 0; j < N; ++j)
      next[j] = r >= 0 && r < h && r < last && col + j >= 0 && col + j < w ? load_raw<T, V>(x + (r * w + col + j) * c) : Raw{};
  }
  // Row first + n; called for n = 0, 1, ...
  __device__ __forceinline__ void take(int n, Raw (&raw)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) raw[j] = next[j];
    if (first + n + 1 < last) fetch(first + n + 1);
  }
};

// Rows of 64 channels that a block of 32 x strips threads keeps in shared memory, `ring_rows` - 1 rows ahead.
inline constexpr int ring_rows = 6;
struct RingRows {
  const bf16* x;  // of the image, at the block's first channel
  bf16* ring;     // (ring_rows, cols, 64)
  int col, cols, first, last, h, w, c;

  __device__ __forceinline__ void fetch(int n) {
    const int r = first + n;
    if (r < last) {
      bf16* const to = ring + n % ring_rows * cols * 64;
      for (int i = static_cast<int>(threadIdx.y * 32 + threadIdx.x); i < cols * 8; i += static_cast<int>(blockDim.y) * 32) {
        const int at = col + i / 8;
        const bool there = r >= 0 && r < h && at >= 0 && at < w;
        copy_async(to + i * 8, there ? x + (r * w + at) * c + i % 8 * 8 : x, there);
      }
    }
  }
  // F of what this thread brought of row n, which is there for itself, not yet for others.
  template <class F>
  __device__ __forceinline__ void apply(int n) {
    if constexpr (F::acts) {
      bf16* const at = ring + n % ring_rows * cols * 64;
      if (first + n < 0 || first + n >= h) return;
      for (int i = static_cast<int>(threadIdx.y * 32 + threadIdx.x); i < cols * 8; i += static_cast<int>(blockDim.y) * 32) {
        float v[8];
        load_pack<8>(at + i * 8, v);
#pragma unroll
        for (int k = 0; k < 8; ++k) v[k] = F::value(v[k]);
        store_pack<8>(at + i * 8, v);
      }
    }
  }
  __device__ __forceinline__ const bf16* row(int n) const { return ring + n % ring_rows * cols * 64 + threadIdx.x * 2; }
};

// Pixels from `at` on of a ring's rows.
template <int N, class F>
struct OneRing {
  RingRows rows;
  int at;
  __device__ __forceinline__ void start() {
    for (int n = 0; n < ring_rows - 1; ++n) rows.fetch(n), copies_issued();
  }
  __device__ __forceinline__ void take(int n, RawElements<bf16, 2> (&raw)[N]) {
    copies_done<ring_rows - 2>();
    rows.template apply<F>(n);
    __syncthreads();
    rows.fetch(n + ring_rows - 1);
    copies_issued();
    const bf16* const from = rows.row(n) + at * 64;
#pragma unroll
    for (int j = 0; j < N; ++j) raw[j] = load_raw<bf16, 2>(from + j * 64);
  }
};

// S: results are multiplied by its slope at `slope_at`.
template <class T, int V, int K, int P, class S = AsItIs>
struct DepthwiseWalk {
  using A = acc_t<T>;
  static constexpr int R = K / 2, N = P + K - 1;
  const T* slope_at = nullptr;
  const T* add;  // at the thread's channels of its image
  T* y;
  int x0, y0, y1, h, w, c;
  A weight[K * K][V], bias[V], acc[K][P][V];

  // The weights of the thread's channels, packed (k*k, C).
  __device__ __forceinline__ void take_weights(const A* packed) {
#pragma unroll
    for (int t = 0; t < K * K; ++t) load_pack<V>(packed + t * c, weight[t]);
  }
  // The same as they are published, (C, k*k).
  __device__ __forceinline__ void take_weights(const A* published, bool turned) {
#pragma unroll
    for (int v = 0; v < V; ++v)
#pragma unroll
      for (int t = 0; t < K * K; ++t) weight[t][v] = published[v * K * K + (turned ? K * K - 1 - t : t)];
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
  // Input row y0 - R + n with n mod K = J: output rows y0 + n - ky take it, y0 + n - K + 1 is done then.
  template <int J, class Rows>
  __device__ __forceinline__ void step(int n, Rows& rows) {
    const int r = y0 - R + n, o = y0 + n - (K - 1);
    RawElements<T, V> raw[N];
    [[maybe_unused]] RawElements<T, V> raw_slope[P];
    if constexpr (S::acts) {
#pragma unroll
      for (int p = 0; p < P; ++p)
        if (o >= y0 && x0 + p < w) raw_slope[p] = load_raw<T, V>(slope_at + (o * w + x0 + p) * c);
    }
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
      if constexpr (S::acts) {
#pragma unroll
        for (int p = 0; p < P; ++p) {
          A at[V];
          unpack<T, V>(raw_slope[p], at);
#pragma unroll
          for (int v = 0; v < V; ++v) acc[done][p][v] *= S::slope(at[v]);
        }
      }
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
    depthwise_walk(i64 units, DepthwiseCut d, const T* x, const acc_t<T>* packed, const acc_t<T>* bias, const T* add, T* y) {
  using A = acc_t<T>;
  const i64 unit = static_cast<i64>(blockIdx.x) * 128 + threadIdx.x;
  if (unit >= units) return;
  const int packs = d.c / V, c = static_cast<int>(unit % packs) * V;
  const i64 rest = unit / packs;
  const int strip = static_cast<int>(rest % d.strips), chunk = static_cast<int>(rest / d.strips % d.chunks);
  const i64 image = rest / d.strips / d.chunks * d.image + c;
  DepthwiseWalk<T, V, K, P> walk;
  walk.add = add && add != x ? add + image : nullptr, walk.y = y + image;
  walk.x0 = strip * P, walk.y0 = chunk * d.rows, walk.y1 = ::min(d.h, walk.y0 + d.rows);
  walk.h = d.h, walk.w = d.w, walk.c = d.c;
  OwnRows<T, V, P + K - 1> rows{x + image, walk.x0 - K / 2, walk.y0 - K / 2, walk.y1 + K / 2, d.h, d.w, d.c, {}};
  rows.fetch(rows.first);
  walk.take_weights(packed + c);
  walk.start(bias, c, add == x);
  walk.run(rows);
}

// Block (32, strips of a tile), grid (C / 64, tiles x chunks, batch).
// F: what is applied to x. S: results are multiplied by its slope at `slope_at`.
template <int K, int P, class F, class S>
__global__ void __launch_bounds__(224, K == 3 ? (S::acts ? 3 : 4) : 2)
    depthwise_stream(DepthwiseCut d, int tiles, const bf16* x, const float* w, bool turned, const float* bias, const bf16* add,
                     [[maybe_unused]] const bf16* slope_at, bf16* y) {
  extern __shared__ __align__(16) unsigned char memory[];
  __shared__ __align__(16) float weights[64 * K * K];
  for (int i = static_cast<int>(threadIdx.y * 32 + threadIdx.x); i < 16 * K * K; i += static_cast<int>(blockDim.y) * 32)
    copy_async(weights + i * 4, w + static_cast<int>(blockIdx.x) * 64 * K * K + i * 4, true);
  copies_issued();
  const int strips = static_cast<int>(blockDim.y), c0 = static_cast<int>(blockIdx.x) * 64, c = c0 + static_cast<int>(threadIdx.x) * 2;
  const int tile = static_cast<int>(blockIdx.y) % tiles, chunk = static_cast<int>(blockIdx.y) / tiles;
  const i64 image = blockIdx.z * d.image;
  DepthwiseWalk<bf16, 2, K, P, S> walk;
  if constexpr (S::acts) walk.slope_at = slope_at + image + c;
  walk.add = add && add != x ? add + image + c : nullptr, walk.y = y + image + c;
  walk.x0 = (tile * strips + static_cast<int>(threadIdx.y)) * P, walk.y0 = chunk * d.rows, walk.y1 = ::min(d.h, walk.y0 + d.rows);
  walk.h = d.h, walk.w = d.w, walk.c = d.c;
  OneRing<P + K - 1, F> rows{{x + image + c0, reinterpret_cast<bf16*>(memory), tile * strips * P - K / 2, strips * P + K - 1,
                           walk.y0 - K / 2, walk.y1 + K / 2, d.h, d.w, d.c}, static_cast<int>(threadIdx.y) * P};
  rows.start();
  copies_done<ring_rows - 1>();  // the weights, not the rows after them
  __syncthreads();
  walk.take_weights(weights + threadIdx.x * 2 * K * K, turned);
  walk.start(bias, c, add == x);
  walk.run(rows);
}

// Any odd k, one output element a thread.
template <class T>
__global__ void depthwise_any(DepthwiseShape s, const T* x, const acc_t<T>* packed, const acc_t<T>* bias, const T* add, T* y) {
  const i64 n = s.batch * s.h * s.w * s.c, r = s.k / 2;
  for (i64 at = cuda::first(); at < n; at += cuda::stride()) {
    const i64 c = at % s.c, j = at / s.c % s.w, i = at / (s.c * s.w) % s.h;
    acc_t<T> sum = (bias ? bias[c] : acc_t<T>(0)) + (add ? static_cast<acc_t<T>>(add[at]) : acc_t<T>(0));
    for (i64 ky = ::max(i64{0}, r - i); ky < ::min(s.k, s.h + r - i); ++ky)
      for (i64 kx = ::max(i64{0}, r - j); kx < ::min(s.k, s.w + r - j); ++kx)
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
  __device__ __forceinline__ void take(int n, RawElements<T, V> (&raw)[P + K - 1], RawElements<T, V> (&raw_g)[P]) {
    x.take(n, raw);
    dy.take(n, raw_g);
    if (dy.first + n + 1 >= dy.last) dy.fetch(dy.last);  // zeros
  }
};

template <int K, int P, class F>
struct TwoRings {
  RingRows x, dy;
  int at;
  __device__ __forceinline__ void fetch(int n) {
    x.fetch(n);
    dy.fetch(n);
    copies_issued();
  }
  __device__ __forceinline__ void start() {
    for (int n = 0; n < ring_rows - 1; ++n) fetch(n);
  }
  __device__ __forceinline__ void take(int n, RawElements<bf16, 2> (&raw)[P + K - 1], RawElements<bf16, 2> (&raw_g)[P]) {
    copies_done<ring_rows - 2>();
    x.template apply<F>(n);
    __syncthreads();
    fetch(n + ring_rows - 1);
    const bf16 *const from = x.row(n) + at * 64, *const from_g = dy.row(n) + at * 64;
#pragma unroll
    for (int j = 0; j < P + K - 1; ++j) raw[j] = load_raw<bf16, 2>(from + j * 64);
#pragma unroll
    for (int p = 0; p < P; ++p) raw_g[p] = dy.first + n < dy.last ? load_raw<bf16, 2>(from_g + p * 64) : RawElements<bf16, 2>{};
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
      const int strip = static_cast<int>(unit % d.strips), chunk = static_cast<int>(unit / d.strips % d.chunks);
      const i64 image = unit / d.strips / d.chunks * d.image + c;
      walk.y0 = chunk * d.rows, walk.y1 = ::min(d.h, walk.y0 + d.rows);
      OwnTwoRows<T, V, K, P> rows{{x + image, strip * P - K / 2, walk.y0 - K / 2, walk.y1 + K / 2, d.h, d.w, d.c, {}},
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
      if (threadIdx.y == 0 && c < d.c) partial[(static_cast<i64>(blockIdx.y) * (K * K + 1) + t) * d.c + c + v] = total;
    }
}

// Block (32, strips of a tile), grid (C / 64, parts): units (image, chunk, tile).
template <int K, int P, class F>
__global__ void __launch_bounds__(224, K == 3 ? 3 : 2)
    depthwise_back_stream(int units, DepthwiseCut d, int tiles, const bf16* x, const bf16* dy, float* partial) {
  extern __shared__ __align__(16) unsigned char memory[];
  bf16* const ring = reinterpret_cast<bf16*>(memory);
  const int strips = static_cast<int>(blockDim.y), c0 = static_cast<int>(blockIdx.x) * 64, cols = strips * P + K - 1;
  DepthwiseBack<bf16, 2, K, P> walk;
  walk.h = d.h;
  walk.clear();
  for (int unit = static_cast<int>(blockIdx.y); unit < units; unit += static_cast<int>(gridDim.y)) {
    const int tile = unit % tiles, chunk = unit / tiles % d.chunks, x0 = tile * strips * P;
    const i64 image = static_cast<i64>(unit / tiles / d.chunks) * d.image + c0;
    walk.y0 = chunk * d.rows, walk.y1 = ::min(d.h, walk.y0 + d.rows);
    TwoRings<K, P, F> rows{{x + image, ring, x0 - K / 2, cols, walk.y0 - K / 2, walk.y1 + K / 2, d.h, d.w, d.c},
                        {dy + image, ring + ring_rows * cols * 64, x0, strips * P, walk.y0, walk.y1, d.h, d.w, d.c},
                        static_cast<int>(threadIdx.y) * P};
    copies_done<0>();
    __syncthreads();  // nobody reads the last unit's rows any more
    rows.start();
    walk.run(rows);
  }
  copies_done<0>();
  float* const shared = reinterpret_cast<float*>(memory);
#pragma unroll
  for (int t = 0; t <= K * K; ++t) {
    __syncthreads();
    *reinterpret_cast<float2*>(shared + (threadIdx.y * 32 + threadIdx.x) * 2) = make_float2(walk.sum[t][0], walk.sum[t][1]);
    __syncthreads();
    for (int c = static_cast<int>(threadIdx.y * 32 + threadIdx.x); c < 64; c += strips * 32) {
      float sum = 0;
      for (int s = 0; s < strips; ++s) sum += shared[s * 64 + c];
      partial[(static_cast<i64>(blockIdx.y) * (K * K + 1) + t) * d.c + c0 + c] = sum;
    }
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

// Strips of four pixels side by side in a block of the streaming kernels, at most 7; `strips`: of all blocks, at least.
struct StreamCut {
  DepthwiseCut cut;
  int strips, tiles;
};
inline StreamCut stream_cut(const DepthwiseShape& s, i64 strips, int least_rows) {
  const int across = static_cast<int>((s.w + 3) / 4), tiles = (across + 6) / 7;
  return {depthwise_cut(s, 4, 64, strips, least_rows), (across + tiles - 1) / tiles, tiles};
}
/// Whether the streaming kernels take this shape and type.
template <class T>
bool streams(const DepthwiseShape& s) {
  return std::is_same_v<T, bf16> && s.c % 64 == 0 && (s.k == 3 || s.k == 5) && s.batch < 65536 &&
         s.h * s.w * s.c < (i64{1} << 31) && s.h < (1 << 15) && s.w < (1 << 15);
}

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

namespace detail {
/// Results up to which depthwise_few takes over: about where its threads fill the GPU.
inline constexpr i64 few_results = i64{1} << 20;
template <class F, class S>
void run_depthwise_few(const DepthwiseShape& s, const bf16* x, const float* w, bool turned, const float* bias, const bf16* add, const bf16* slope_at, bf16* y) {
  const i64 strips = s.batch * s.h * ((s.w + 1) / 2);
  const dim3 grid(static_cast<unsigned>(s.c / 64), static_cast<unsigned>((strips + 7) / 8));
  const auto run = [&](auto kernel) {
    kernel<<<grid, dim3(32, 8), 0, cuda::stream()>>>(static_cast<int>(strips), static_cast<int>(s.h), static_cast<int>(s.w), static_cast<int>(s.c), x, w, turned,
                                                      bias, add, slope_at, y);
  };
  if (s.k == 3) run(depthwise_few<3, F, S>);
  else if constexpr (!F::acts && !S::acts) run(depthwise_few<5, F, S>);
  cuda::launched("depthwise_conv2d");
}
template <class F, class S>
void run_depthwise_walk(const DepthwiseShape& s, const bf16* x, const float* w, bool turned, const float* bias, const bf16* add,
                        const bf16* slope_at, bf16* y) {
  const StreamCut cut = stream_cut(s, 3500, 7);
  const dim3 grid(static_cast<unsigned>(s.c / 64), static_cast<unsigned>(cut.tiles * cut.cut.chunks), static_cast<unsigned>(s.batch));
  const dim3 block(32, static_cast<unsigned>(cut.strips));
  const int bytes = ring_rows * static_cast<int>(cut.strips * 4 + s.k - 1) * 128;
  const auto run = [&](auto kernel) {
    allow_shared(kernel, bytes, "depthwise_conv2d");
    kernel<<<grid, block, static_cast<std::size_t>(bytes), cuda::stream()>>>(cut.cut, cut.tiles, x, w, turned, bias, add, slope_at, y);
  };
  if (s.k == 3) run(depthwise_stream<3, 4, F, S>);
  else if constexpr (!F::acts && !S::acts) run(depthwise_stream<5, 4, F, S>);
  cuda::launched("depthwise_conv2d");
}
template <class F, class S>
void run_depthwise_stream(const DepthwiseShape& s, const bf16* x, const float* w, bool turned, const float* bias, const bf16* add,
                          const bf16* slope_at, bf16* y) {
  if (s.batch * s.h * s.w * s.c <= few_results) run_depthwise_few<F, S>(s, x, w, turned, bias, add, slope_at, y);
  else run_depthwise_walk<F, S>(s, x, w, turned, bias, add, slope_at, y);
}
template <class F>
void run_depthwise_back_stream(const DepthwiseShape& s, const bf16* x, const bf16* dy, const PutTaps<float>& put) {
  const i64 taps = s.k * s.k;
  const StreamCut cut = stream_cut(s, 1700, 14);
  const i64 units = s.batch * cut.tiles * cut.cut.chunks;
  // About 16 warps a multiprocessor, each with as many units as the others.
  const i64 most = std::max<i64>(1, 132 * 16 / (cut.strips * (s.c / 64))), rounds = (units + most - 1) / most;
  const i64 parts = (units + rounds - 1) / rounds;
  const Workspace<float> partial(parts * (taps + 1) * s.c, Device::cuda);
  const int bytes = std::max(ring_rows * static_cast<int>(cut.strips * 8 + s.k - 1) * 128, cut.strips * 256);
  const auto run = [&](auto kernel) {
    allow_shared(kernel, bytes, "depthwise_conv2d");
    kernel<<<dim3(static_cast<unsigned>(s.c / 64), static_cast<unsigned>(parts)), dim3(32, static_cast<unsigned>(cut.strips)),
             static_cast<std::size_t>(bytes), cuda::stream()>>>(static_cast<int>(units), cut.cut, cut.tiles, x, dy, partial.data());
  };
  if (s.k == 3) run(depthwise_back_stream<3, 4, F>);
  else if constexpr (!F::acts) run(depthwise_back_stream<5, 4, F>);
  cuda::launched("depthwise_conv2d");
  finish_columns(parts, (taps + 1) * s.c, static_cast<const float*>(partial.data()), put, "depthwise_conv2d");
}
}  // namespace detail

/// Whether depthwise_gelu takes this shape and type.
template <class T>
bool fuses_gelu(Cuda, const DepthwiseShape& s) {
  return s.k == 3 && detail::streams<T>(s);
}
/// y = conv(h) + bias + h, h = GELU(u), for a shape that fuses_gelu takes.
inline void depthwise_gelu(Cuda, const DepthwiseShape& s, const bf16* u, const float* w, const float* bias, bf16* y) {
  detail::run_depthwise_stream<detail::FastGelu, detail::AsItIs>(s, u, w, false, bias, u, nullptr, y);
}
/// du = GELU'(u) (turned conv(dy) + dy).
inline void depthwise_gelu_du(Cuda, const DepthwiseShape& s, const bf16* u, const float* w, const bf16* dy, bf16* du) {
  detail::run_depthwise_stream<detail::AsItIs, detail::FastGelu>(s, dy, w, true, nullptr, dy, u, du);
}
/// dw and db from dy and h.
inline void depthwise_gelu_dw(Cuda, const DepthwiseShape& s, const bf16* u, const bf16* dy, float* dw, float* db) {
  detail::run_depthwise_back_stream<detail::FastGelu>(s, u, dy, {s.c, s.k * s.k, dw, db});
}

template <class T>
void depthwise(Cuda on, const DepthwiseShape& s, const T* x, const acc_t<T>* w, bool turned, const acc_t<T>* bias, const T* add, T* y) {
  using A = acc_t<T>;
  if constexpr (std::is_same_v<T, bf16>)
    if (detail::streams<T>(s)) return detail::run_depthwise_stream<detail::AsItIs, detail::AsItIs>(s, x, w, turned, bias, add, nullptr, y);
  const Workspace<A> storage(s.c * s.k * s.k, Device::cuda);
  depthwise_pack(on, s.c, s.k, w, turned, storage.data());
  const A* const packed = storage.data();
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
  if constexpr (std::is_same_v<T, bf16>)
    if (detail::streams<T>(s)) return detail::run_depthwise_back_stream<detail::AsItIs>(s, x, dy, put);
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
