#pragma once
// Optimiser updates on the GPU, a launch a tensor.

#include "ppma/core/cuda.cuh"
#include "ppma/core/device.hpp"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T, class Step>
__global__ void __launch_bounds__(256) adamw_elements(i64 n, Step s, const T* g, T* w, T* m, T* v) {
  for (i64 i = cuda::first(); i < n; i += cuda::stride()) {
    const T gradient = g[i] * s.gradient_factor;
    m[i] = s.beta1 * m[i] + (T(1) - s.beta1) * gradient;
    v[i] = s.beta2 * v[i] + (T(1) - s.beta2) * gradient * gradient;
    w[i] = w[i] * s.keep - s.rate * m[i] / (::sqrt(v[i]) * s.root_correction + s.eps);
  }
}

template <class T>
__global__ void __launch_bounds__(256) average_elements(i64 n, T keep, T take, const T* x, T* e) {
  for (i64 i = cuda::first(); i < n; i += cuda::stride()) e[i] = keep * e[i] + take * x[i];
}

}  // namespace detail

template <class T, class Step>
void adamw(Cuda, i64 n, const Step& s, const T* g, T* w, T* m, T* v) {
  detail::adamw_elements<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(n, s, g, w, m, v);
  cuda::launched("AdamW");
}

template <class T>
void average_into(Cuda, i64 n, double d, const T* x, T* e) {
  detail::average_elements<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(n, static_cast<T>(d), static_cast<T>(1 - d), x, e);
  cuda::launched("EMA");
}

}  // namespace ppma::inline PPMA_ABI::kernels
