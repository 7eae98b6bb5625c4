#pragma once
// Resizing on the GPU: a thread a pack of channels of one cell, of the output or, for gradients, of the input, which
// gathers from the outputs that read it. Floor: each map read and written once; overlapping reads come from the cache.

#include "ppma/kernels/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T, int V>
__global__ void __launch_bounds__(256) resize_outputs(i64 total, i64 packs, Axis rows, Axis cols, const T* x, T* y) {
  using A = acc_t<T>;
  const i64 channels = packs * V;
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const i64 cell = e / packs, line = cell / cols.n, c = (e - cell * packs) * V;
    const Axis::Tap row = rows.out(line % rows.n), col = cols.out(cell % cols.n);
    const A fr = static_cast<A>(row.f), fc = static_cast<A>(col.f);
    const auto at = [&](i64 i, i64 j, A(&v)[V]) { load_pack<V>(x + ((line / rows.n * rows.size + i) * cols.size + j) * channels + c, v); };
    A v00[V], v01[V], v10[V], v11[V];
    at(row.low, col.low, v00), at(row.low, col.high, v01), at(row.high, col.low, v10), at(row.high, col.high, v11);
#pragma unroll
    for (int k = 0; k < V; ++k) v00[k] = (1 - fr) * ((1 - fc) * v00[k] + fc * v01[k]) + fr * ((1 - fc) * v10[k] + fc * v11[k]);
    store_pack<V>(y + e * V, v00);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(256) resize_inputs(i64 total, i64 packs, Axis rows, Axis cols, const T* dy, T* dx) {
  using A = acc_t<T>;
  const i64 channels = packs * V;
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const i64 cell = e / packs, line = cell / cols.size, c = (e - cell * packs) * V, i = line % rows.size, j = cell % cols.size;
    const Axis::Range above = rows.in(i), beside = cols.in(j);
    A sum[V] = {};
    for (i64 a = above.begin; a < above.end; ++a)
      for (i64 b = beside.begin; b < beside.end; ++b) {
        const A share = static_cast<A>(rows.out(a).share(i) * cols.out(b).share(j));
        if (share == 0) continue;
        A v[V];
        load_pack<V>(dy + ((line / rows.size * rows.n + a) * cols.n + b) * channels + c, v);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += share * v[k];
      }
    store_pack<V>(dx + e * V, sum);
  }
}

}  // namespace detail

template <class T>
void resize(Cuda, i64 batch, i64 channels, const Axis& rows, const Axis& cols, const T* x, T* y) {
  with_pack<T>(channels, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const i64 total = batch * rows.n * cols.n * (channels / V);
    detail::resize_outputs<T, V><<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(total, channels / V, rows, cols, x, y);
  });
  cuda::launched("resize");
}

template <class T>
void resize_backward(Cuda, i64 batch, i64 channels, const Axis& rows, const Axis& cols, const T* dy, T* dx) {
  with_pack<T>(channels, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const i64 total = batch * rows.size * cols.size * (channels / V);
    detail::resize_inputs<T, V><<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(total, channels / V, rows, cols, dy, dx);
  });
  cuda::launched("resize");
}

}  // namespace ppma::inline PPMA_ABI::kernels
