#pragma once
#include "ppma/core/names_begin.hpp"
// Conversion between dtypes on the GPU.

#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {
template <class From, class To>
__global__ void __launch_bounds__(256) convert_elements(i64 n, const From* x, To* y) {
  for (i64 i = cuda::first(); i < n; i += cuda::stride()) y[i] = converted<To>(x[i]);
}
template <class T>
__global__ void __launch_bounds__(256) fill_elements(i64 n, T value, T* y) {
  for (i64 i = cuda::first(); i < n; i += cuda::stride()) y[i] = value;
}
}  // namespace detail

template <class From, class To>
void convert(Cuda, i64 n, const From* x, To* y) {
  if (n == 0) return;
  detail::convert_elements<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(n, x, y);
  cuda::launched("convert");
}

template <class T>
void fill(Cuda, i64 n, T value, T* y) {
  if (n == 0) return;
  detail::fill_elements<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(n, value, y);
  cuda::launched("fill");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
