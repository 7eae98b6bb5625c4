#pragma once
#include "ppma/core/names_begin.hpp"
// Gates on the GPU: a thread takes 16 bytes of a row of y. Floor: g, m and in backward dy read
// once, what is written once. In backward the channels that are 0 are written by threads of the
// same row, so that the gradient of the map is one pass over it.

#include "ppma/kernels/activation.hpp"
#include "ppma/kernels/cuda/fast_gelu.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// A function of results that are rounded to bf16.
template <class F>
struct FastGate;
template <>
struct FastGate<functions::Gelu> {
  __device__ __forceinline__ float f(float x) const { return FastGelu::value(x); }
  __device__ __forceinline__ float df(float x) const { return FastGelu::slope(x); }
};
template <>
struct FastGate<functions::Silu> {
  // 1 / (1 + e^-x); far below 0, where e^-x is infinite, 0
  static __device__ __forceinline__ float share(float x) {
    return __fdividef(1.0f, 1.0f + __expf(fminf(-x, 80.0f)));
  }
  __device__ __forceinline__ float f(float x) const { return x * share(x); }
  __device__ __forceinline__ float df(float x) const {
    const float s = share(x);
    return s * fmaf(x, 1.0f - s, 1.0f);
  }
};
template <class T, class F>
using GateOf = std::conditional_t<std::is_same_v<T, bf16>, FastGate<F>, F>;

template <int V, class T, class I, class F>
__global__ void __launch_bounds__(256)
    gate_packs(I n, GateShape s, const T* map, const T* tail, T* y, F f) {
  const I each = static_cast<I>(s.width / V);
  for (I i = static_cast<I>(cuda::first()); i < n; i += static_cast<I>(cuda::stride())) {
    const I row = i / each;
    const i64 c = static_cast<i64>(i - row * each) * V;
    const T* const g = map + row * s.map + s.first + c;
    acc_t<T> vg[V], vm[V];
    load_pack<V>(g, vg);
    load_pack<V>(c < s.plain() ? g + s.width : tail + row * s.tail + (c - s.plain()), vm);
#pragma unroll
    for (int k = 0; k < V; ++k) vm[k] *= f.f(vg[k]);
    store_pack<V>(y + static_cast<i64>(i) * V, vm);
  }
}

template <int V, class T, class I, class F>
__global__ void __launch_bounds__(256)
    gate_back_packs(I n, GateShape s, const T* map, const T* tail, const T* dy, T* dmap, T* dtail,
                    F f) {
  const I own = static_cast<I>(s.width / V),  // threads of a row: those of y, then those of zeros
      each = own + static_cast<I>((s.map - s.used()) / V);
  for (I i = static_cast<I>(cuda::first()); i < n; i += static_cast<I>(cuda::stride())) {
    const I row = i / each, at = i - row * each;
    acc_t<T> vg[V] = {}, vm[V], vy[V];
    if (at >= own) {
      const i64 c = static_cast<i64>(at - own) * V;
      store_pack<V>(dmap + row * s.map + (c < s.first ? c : c + s.used()), vg);
      continue;
    }
    const i64 c = static_cast<i64>(at) * V, g = row * s.map + s.first + c,
              m = row * s.tail + (c - s.plain());
    const bool plain = c < s.plain();
    load_pack<V>(map + g, vg);
    load_pack<V>(plain ? map + g + s.width : tail + m, vm);
    load_pack<V>(dy + row * s.width + c, vy);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const acc_t<T> x = vg[k];
      vg[k] = vy[k] * vm[k] * f.df(x), vm[k] = vy[k] * f.f(x);
    }
    store_pack<V>(dmap + g, vg);
    store_pack<V>(plain ? dmap + g + s.width : dtail + m, vm);
  }
}

// f(constant V, threads as an index) for packs that no channel of either side cuts.
template <class T, class F>
void with_gate_packs(const GateShape& s, i64 channels, F&& f) {
  const auto by = [&](auto v) {
    constexpr int V = decltype(v)::value;
    const i64 n = s.rows * channels / V;
    if (n < (i64{1} << 31) - (i64{1} << 26))
      f(v, static_cast<u32>(n));
    else
      f(v, static_cast<u64>(n));
  };
  if ((s.map | s.first | s.width | s.tail) % pack_width<T> == 0)
    by(std::integral_constant<int, pack_width<T>>{});
  else
    by(std::integral_constant<int, 1>{});
}

}  // namespace detail

template <class T, class F>
void gate(Cuda, const GateShape& s, const T* map, const T* tail, T* y, F) {
  detail::with_gate_packs<T>(s, s.width, [&](auto v, auto n) {
    detail::gate_packs<decltype(v)::value><<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(
        n, s, map, tail, y, detail::GateOf<T, F>{});
  });
  cuda::launched("gate");
}

template <class T, class F>
void gate_backward(Cuda, const GateShape& s, const T* map, const T* tail, const T* dy, T* dmap,
                   T* dtail, F) {
  detail::with_gate_packs<T>(s, s.width + s.map - s.used(), [&](auto v, auto n) {
    detail::gate_back_packs<decltype(v)::value><<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(
        n, s, map, tail, dy, dmap, dtail, detail::GateOf<T, F>{});
  });
  cuda::launched("gate");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
