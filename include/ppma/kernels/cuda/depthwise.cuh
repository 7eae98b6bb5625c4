#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution on the GPU, channels last.
//
// A thread owns V neighbouring channels of a strip P pixels wide and walks down its rows: each
// input row is read once and serves the K output rows that see it, which are unfinished sums in
// registers. With the K*K weights in registers too, memory is touched for images alone. The
// gradient of the weights walks the same way with K rows of dy in registers (depthwise_back.cuh).
//
// bf16 has kernels of its own (depthwise_stream.cuh, depthwise_stream_back.cuh); images too few to
// fill the GPU this way go to depthwise_few.cuh.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/column_sums.cuh"
#include "ppma/kernels/cuda/depthwise_back.cuh"
#include "ppma/kernels/cuda/depthwise_few.cuh"
#include "ppma/kernels/cuda/depthwise_stream_back.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

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

template <class A>
__global__ void depthwise_pack_kernel(i64 c, i64 k, const A* w, bool turned, A* packed) {
  for (i64 at = cuda::first(); at < c * k * k; at += cuda::stride()) {
    const i64 t = at / c, i = at % c;
    packed[at] = w[i * k * k + (turned ? k * k - 1 - t : t)];
  }
}

// Calls f(V, K, P constants) with the walk for a shape; returns false where there is none.
template <class T, class F>
bool with_walk(const DepthwiseShape& s, F&& f) {
  constexpr int pair = std::is_same_v<T, double> ? 1 : 2;
  const auto k_of = [&](auto v) {
    if (s.k == 3)
      return f(v, std::integral_constant<int, 3>{}, std::integral_constant<int, 4>{}), true;
    if (s.k == 5)
      return f(v, std::integral_constant<int, 5>{}, std::integral_constant<int, 4>{}), true;
    if (s.k == 7)
      return f(v, std::integral_constant<int, 7>{}, std::integral_constant<int, 4>{}), true;
    return false;
  };
  if (s.h * s.w * s.c >= (i64{1} << 31)) return false;
  if (s.k == 11)
    return f(std::integral_constant<int, 1>{}, std::integral_constant<int, 11>{},
             std::integral_constant<int, 2>{}),
           true;
  if (s.c % pair == 0) return k_of(std::integral_constant<int, pair>{});
  return k_of(std::integral_constant<int, 1>{});
}

}  // namespace detail

template <class A>
void depthwise_pack(Cuda, i64 c, i64 k, const A* w, bool turned, A* packed) {
  detail::depthwise_pack_kernel<<<cuda::blocks(c * k * k, 256), 256, 0, cuda::stream()>>>(
      c, k, w, turned, packed);
  cuda::launched("depthwise_conv2d");
}

namespace detail {
/// Results up to which depthwise_few takes over: about where its threads fill the GPU.
inline constexpr i64 few_results = i64{1} << 20;
template <class F, class S>
void run_depthwise_few(const DepthwiseShape& s, const bf16* x, const float* w, bool turned,
                       const float* bias, const bf16* add, const bf16* slope_at, bf16* y) {
  const i64 strips = s.batch * s.h * ((s.w + 1) / 2);
  const dim3 grid(static_cast<unsigned>(s.c / 64), static_cast<unsigned>((strips + 7) / 8));
  const auto run = [&](auto kernel) {
    kernel<<<grid, dim3(32, 8), 0, cuda::stream()>>>(
        static_cast<int>(strips), static_cast<int>(s.h), static_cast<int>(s.w),
        static_cast<int>(s.c), x, w, turned, bias, add, slope_at, y);
  };
  if (s.k == 3)
    run(depthwise_few<3, F, S>);
  else if constexpr (!F::acts && !S::acts)
    run(depthwise_few<5, F, S>);
  cuda::launched("depthwise_conv2d");
}
/// f(constant k) for the k of a shape that streams.
template <class F>
void with_streamed_k(const DepthwiseShape& s, F&& f) {
  if (s.k == 3)
    f(std::integral_constant<int, 3>{});
  else if (s.k == 5)
    f(std::integral_constant<int, 5>{});
  else
    f(std::integral_constant<int, 7>{});
}
inline bool is_few(const DepthwiseShape& s) {
  return s.k <= 5 && s.c % 64 == 0 && s.batch * s.h * s.w * s.c <= few_results;
}
}  // namespace detail

/// Whether depthwise_gelu takes this shape and type.
template <class T>
bool fuses_gelu(Cuda, const DepthwiseShape& s) {
  return s.k == 3 && detail::streams<T>(s);
}
/// y = conv(h) + bias + h, h = GELU(u), for a shape that fuses_gelu takes.
inline void depthwise_gelu(Cuda, const DepthwiseShape& s, const bf16* u, const float* w,
                           const float* bias, bf16* y) {
  using detail::AsItIs, detail::FastGelu;
  if (detail::is_few(s))
    detail::run_depthwise_few<FastGelu, AsItIs>(s, u, w, false, bias, u, nullptr, y);
  else
    detail::run_depthwise_stream<3, FastGelu, AsItIs, false>(s, u, w, false, bias, u, nullptr, y);
}
/// du = GELU'(u) (turned conv(dy) + dy).
inline void depthwise_gelu_du(Cuda, const DepthwiseShape& s, const bf16* u, const float* w,
                              const bf16* dy, bf16* du) {
  using detail::AsItIs, detail::FastGelu;
  if (detail::is_few(s))
    detail::run_depthwise_few<AsItIs, FastGelu>(s, dy, w, true, nullptr, dy, u, du);
  else
    detail::run_depthwise_stream<3, AsItIs, FastGelu, false>(s, dy, w, true, nullptr, dy, u, du);
}
/// dw and db from dy and h.
inline void depthwise_gelu_dw(Cuda, const DepthwiseShape& s, const bf16* u, const bf16* dy,
                              float* dw, float* db) {
  detail::run_depthwise_stream_back<3, detail::FastGelu>(s, u, dy, {s.c, 9, dw, db});
}

template <class T>
void depthwise(Cuda on, const DepthwiseShape& s, const T* x, const acc_t<T>* w, bool turned,
               const acc_t<T>* bias, const T* add, T* y) {
  using A = acc_t<T>;
  if constexpr (std::is_same_v<T, bf16>)
    if (detail::streams<T>(s)) {
      using detail::AsItIs;
      if (detail::is_few(s))
        return detail::run_depthwise_few<AsItIs, AsItIs>(s, x, w, turned, bias, add, nullptr, y);
      return detail::with_streamed_k(s, [&](auto k) {
        constexpr int K = decltype(k)::value;
        if (add && add != x)
          detail::run_depthwise_stream<K, AsItIs, AsItIs, true>(s, x, w, turned, bias, add, nullptr,
                                                                y);
        else
          detail::run_depthwise_stream<K, AsItIs, AsItIs, false>(s, x, w, turned, bias, add,
                                                                 nullptr, y);
      });
    }
  const Workspace<A> storage(s.c * s.k * s.k, Device::cuda);
  depthwise_pack(on, s.c, s.k, w, turned, storage.data());
  const A* const packed = storage.data();
  const bool walked = detail::with_walk<T>(s, [&](auto v, auto k, auto p) {
    constexpr int V = decltype(v)::value, K = decltype(k)::value, P = decltype(p)::value;
    const detail::DepthwiseCut d = detail::depthwise_cut(s, P, V, 200000, 7);
    const i64 units = s.batch * d.chunks * d.strips * (s.c / V);
    detail::depthwise_walk<T, V, K, P>
        <<<static_cast<unsigned>((units + 127) / 128), 128, 0, cuda::stream()>>>(
            units, d, x, packed, bias, add, y);
  });
  if (!walked)
    detail::depthwise_any<<<cuda::blocks(s.batch * s.h * s.w * s.c, 256), 256, 0, cuda::stream()>>>(
        s, x, packed, bias, add, y);
  cuda::launched("depthwise_conv2d");
}

template <class T>
void depthwise_dw(Cuda, const DepthwiseShape& s, const T* x, const T* dy, acc_t<T>* dw,
                  acc_t<T>* db) {
  using A = acc_t<T>;
  const i64 taps = s.k * s.k;
  const detail::PutTaps<A> put{s.c, taps, dw, db};
  if constexpr (std::is_same_v<T, bf16>)
    if (detail::streams<T>(s))
      return detail::with_streamed_k(s, [&](auto k) {
        detail::run_depthwise_stream_back<decltype(k)::value, detail::AsItIs>(s, x, dy, put);
      });
  if (s.k == 11) {
    const i64 parts = std::clamp<i64>(s.batch * s.h / 32, 1, 64);
    const Workspace<A> partial(parts * (taps + 1) * s.c, Device::cuda);
    detail::depthwise_back_rows<T, 11>
        <<<dim3(static_cast<unsigned>((s.c + 31) / 32), 11, static_cast<unsigned>(parts)),
           dim3(32, 8), 0, cuda::stream()>>>(s, x, dy, partial.data());
    cuda::launched("depthwise_conv2d");
    return detail::finish_columns(parts, (taps + 1) * s.c, static_cast<const A*>(partial.data()),
                                  put, "depthwise_conv2d");
  }
  const bool walked = detail::with_walk<T>(s, [&](auto v, auto k, auto p) {
    constexpr int V = decltype(v)::value, K = decltype(k)::value, P = decltype(p)::value;
    if constexpr (K <= 7) {
      const detail::DepthwiseCut d = detail::depthwise_cut(s, P, V, 100000, 14);
      const i64 units = s.batch * d.chunks * d.strips, packs = s.c / V;
      i64 across = 1;
      while (across < packs && across < 32) across *= 2;
      const i64 down = 256 / across, tiles = (packs + across - 1) / across;
      const i64 parts =
          std::clamp<i64>((units + down - 1) / down, 1, std::max<i64>(1, 528 / tiles));
      const Workspace<A> partial(parts * (taps + 1) * s.c, Device::cuda);
      detail::depthwise_back<T, V, K, P>
          <<<dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(parts)),
             dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)), 0, cuda::stream()>>>(
              units, d, x, dy, partial.data());
      cuda::launched("depthwise_conv2d");
      detail::finish_columns(parts, (taps + 1) * s.c, static_cast<const A*>(partial.data()), put,
                             "depthwise_conv2d");
    }
  });
  if (walked) return;
  const i64 parts = std::clamp<i64>(s.batch * s.h * s.w / 256, 1, 64);
  const Workspace<A> partial(parts * (taps + 1) * s.c, Device::cuda);
  const dim3 grid(static_cast<unsigned>((s.c + 31) / 32), static_cast<unsigned>(taps + 1),
                  static_cast<unsigned>(parts));
  detail::depthwise_back_any<<<grid, dim3(32, 8), 0, cuda::stream()>>>(s, x, dy, partial.data());
  cuda::launched("depthwise_conv2d");
  detail::finish_columns(parts, (taps + 1) * s.c, static_cast<const A*>(partial.data()), put,
                         "depthwise_conv2d");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
