#pragma once
#include "ppma/core/names_begin.hpp"
// Backward of layer norm on the GPU: rows in registers (norm_back_rows.cuh), or element by element.

#include "ppma/kernels/cuda/norm_back_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T>
__global__ void __launch_bounds__(256)
    layer_norm_back_wide(i64 rows, i64 cols, const T* x, const acc_t<T>* w, const acc_t<T>* mean,
                         const acc_t<T>* rstd, const T* dy, T* dx, bool accumulate) {
  using A = acc_t<T>;
  const i64 r = static_cast<i64>(blockIdx.x) * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (r >= rows) return;
  const A m = mean[r], s = rstd[r];
  const T *const xr = x + r * cols, *const gr = dy + r * cols;
  A sum_g = 0, sum_gx = 0;
  for (i64 c = lane; c < cols; c += 32) {
    const A g = static_cast<A>(gr[c]) * w[c];
    sum_g += g, sum_gx += g * ((static_cast<A>(xr[c]) - m) * s);
  }
  sum_g = sum_lanes(sum_g, 32) / static_cast<A>(cols);
  sum_gx = sum_lanes(sum_gx, 32) / static_cast<A>(cols);
  for (i64 c = lane; c < cols; c += 32) {
    const A d =
        s * (static_cast<A>(gr[c]) * w[c] - sum_g - (static_cast<A>(xr[c]) - m) * s * sum_gx);
    dx[r * cols + c] = T(accumulate ? static_cast<A>(dx[r * cols + c]) + d : d);
  }
}

// Terms of dw and db, or of batch norm's two sums: sum 0 += dy (x - mean) rstd, sum 1 += dy.
// Statistics of rows.
template <class T>
struct LayerNormTerms {
  const T *x, *dy;
  const acc_t<T>*mean, *rstd;
  i64 cols;
  template <int V>
  __device__ void operator()(i64 r, i64 c, acc_t<T> (&sum)[2][V]) const {
    acc_t<T> v[V], g[V];
    load_pack<V>(x + r * cols + c, v);
    load_pack<V>(dy + r * cols + c, g);
    const acc_t<T> m = mean[r], s = rstd[r];
#pragma unroll
    for (int i = 0; i < V; ++i) sum[0][i] += g[i] * ((v[i] - m) * s), sum[1][i] += g[i];
  }
};

}  // namespace detail

template <class T>
void layer_norm_backward(Cuda, i64 rows, i64 cols, const T* x, const acc_t<T>* w,
                         const acc_t<T>* mean, const acc_t<T>* rstd, const T* dy, T* dx,
                         bool accumulate, acc_t<T>* dw, acc_t<T>* db) {
  using A = acc_t<T>;
  if (detail::norm_back_in_registers<T>(rows, cols))
    return detail::run_layer_norm_back_rows(
        rows, cols, x, w, mean, rstd, dy, dx, accumulate, dw, db, "layer_norm",
        [](auto k, i64) { return detail::OnlyGradient<T, pack_width<T>, decltype(k)::value>{}; });
  if (dx) {
    detail::layer_norm_back_wide<<<static_cast<unsigned>((rows + 7) / 8), 256, 0, cuda::stream()>>>(
        rows, cols, x, w, mean, rstd, dy, dx, accumulate);
    cuda::launched("layer_norm");
  }
  with_pack<T>(cols, [&](auto v) {
    detail::sum_columns_of_later<A, decltype(v)::value, 2>(
        rows, cols, detail::LayerNormTerms<T>{x, dy, mean, rstd, cols},
        detail::ColumnPlaces<A>(dw, cols, db, cols), "layer_norm");
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
