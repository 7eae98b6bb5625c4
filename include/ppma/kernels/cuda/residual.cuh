#pragma once
#include "ppma/core/names_begin.hpp"
// The residual connection on the GPU. Floor: x and a read, y written.

#include "ppma/kernels/cuda/later_sums.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T, int V>
__global__ void __launch_bounds__(256)
    residual_packs(i64 packs, i64 row_packs, i64 sample_packs, const T* x, const T* a,
                   const acc_t<T>* gamma, const acc_t<T>* keep, T* y) {
  using A = acc_t<T>;
  for (i64 i = cuda::first(); i < packs; i += cuda::stride()) {
    const A k = keep ? keep[i / sample_packs] : A(1);
    A va[V];
    load_pack<V>(a + i * V, va);
    if (gamma) {
      A g[V];
      load_pack<V>(gamma + i % row_packs * V, g);
#pragma unroll
      for (int v = 0; v < V; ++v) va[v] *= k * g[v];
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) va[v] *= k;
    }
    if (x) {
      A vx[V];
      load_pack<V>(x + i * V, vx);
#pragma unroll
      for (int v = 0; v < V; ++v) va[v] += vx[v];
    }
    store_pack<V>(y + i * V, va);
  }
}

template <class T>
struct GammaTerm {
  const T *a, *dy;
  const acc_t<T>* keep;
  i64 rows, cols;
  template <int V>
  __device__ void operator()(i64 r, i64 c, acc_t<T> (&sum)[1][V]) const {
    acc_t<T> va[V], vy[V];
    load_pack<V>(a + r * cols + c, va);
    load_pack<V>(dy + r * cols + c, vy);
    const acc_t<T> k = keep ? keep[r / rows] : acc_t<T>(1);
#pragma unroll
    for (int v = 0; v < V; ++v) sum[0][v] += k * va[v] * vy[v];
  }
};

}  // namespace detail

template <class T>
void residual(Cuda, i64 batch, i64 rows, i64 cols, const T* x, const T* a, const acc_t<T>* gamma,
              const acc_t<T>* keep, T* y) {
  with_pack<T>(cols, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const i64 packs = batch * rows * cols / V;
    detail::residual_packs<T, V><<<cuda::blocks(packs, 256), 256, 0, cuda::stream()>>>(
        packs, cols / V, rows * cols / V, x, a, gamma, keep, y);
  });
  cuda::launched("residual");
}

template <class T>
void residual_dgamma(Cuda, i64 batch, i64 rows, i64 cols, const T* a, const acc_t<T>* keep,
                     const T* dy, acc_t<T>* dgamma) {
  using A = acc_t<T>;
  with_pack<T>(cols, [&](auto v) {
    detail::sum_columns_of_later<A, decltype(v)::value, 1>(
        batch * rows, cols, detail::GammaTerm<T>{a, dy, keep, rows, cols},
        detail::ColumnPlaces<A>(dgamma), "residual");
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
