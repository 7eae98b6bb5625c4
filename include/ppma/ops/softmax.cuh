#pragma once
// softmax and log_softmax on the GPU: a block a row, the row read three times, from the L2 cache after the first.

#include "ppma/kernels/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

struct Most {
  template <class A> __device__ A operator()(A a, A b) const { return a > b ? a : b; }
};
struct Total {
  template <class A> __device__ A operator()(A a, A b) const { return a + b; }
};

// All threads get f over one value a thread, in a fixed order.
template <class A, class F>
__device__ __forceinline__ A over_block(A value, A* shared, F f) {
  __syncthreads();
  shared[threadIdx.x] = value;
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) shared[threadIdx.x] = f(shared[threadIdx.x], shared[threadIdx.x + half]);
  }
  __syncthreads();
  return shared[0];
}

// Largest element of a row, and the sum of e^(x - largest).
template <class T>
__device__ __forceinline__ void row_statistics(i64 n, const T* x, acc_t<T>* shared, acc_t<T>& most, acc_t<T>& sum) {
  using A = acc_t<T>;
  A m = A(x[0]), s = 0;
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) m = ::max(m, A(x[i]));
  most = over_block(m, shared, Most{});
  for (i64 i = threadIdx.x; i < n; i += blockDim.x) s += ::exp(A(x[i]) - most);
  sum = over_block(s, shared, Total{});
}

template <class T, bool log>
__global__ void __launch_bounds__(128) softmax_row(i64 rows, i64 n, const T* x, T* y) {
  using A = acc_t<T>;
  __shared__ A shared[128];
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    A most, sum;
    row_statistics(n, x + r * n, shared, most, sum);
    const A shift = log ? most + ::log(sum) : most, factor = A(1) / sum;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
      const A v = A(x[r * n + i]) - shift;
      y[r * n + i] = T(log ? v : ::exp(v) * factor);
    }
  }
}

template <class T, bool log>
__global__ void __launch_bounds__(128) softmax_row_backward(i64 rows, i64 n, const T* y, const T* dy, T* dx) {
  using A = acc_t<T>;
  __shared__ A shared[128];
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    A s = 0;
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) s += log ? A(dy[r * n + i]) : A(dy[r * n + i]) * A(y[r * n + i]);
    s = over_block(s, shared, Total{});
    for (i64 i = threadIdx.x; i < n; i += blockDim.x) {
      const A p = A(y[r * n + i]), g = A(dy[r * n + i]);
      dx[r * n + i] = T(log ? g - ::exp(p) * s : p * (g - s));
    }
  }
}

inline unsigned row_blocks(i64 rows) { return static_cast<unsigned>(std::min<i64>(std::max<i64>(rows, 1), 65535)); }

}  // namespace detail

template <class T>
void softmax(Cuda, i64 rows, i64 n, const T* x, T* y) {
  detail::softmax_row<T, false><<<detail::row_blocks(rows), 128, 0, cuda::stream()>>>(rows, n, x, y);
  cuda::launched("softmax");
}
template <class T>
void log_softmax(Cuda, i64 rows, i64 n, const T* x, T* y) {
  detail::softmax_row<T, true><<<detail::row_blocks(rows), 128, 0, cuda::stream()>>>(rows, n, x, y);
  cuda::launched("log_softmax");
}
template <class T>
void softmax_backward(Cuda, i64 rows, i64 n, const T* y, const T* dy, T* dx) {
  detail::softmax_row_backward<T, false><<<detail::row_blocks(rows), 128, 0, cuda::stream()>>>(rows, n, y, dy, dx);
  cuda::launched("softmax");
}
template <class T>
void log_softmax_backward(Cuda, i64 rows, i64 n, const T* y, const T* dy, T* dx) {
  detail::softmax_row_backward<T, true><<<detail::row_blocks(rows), 128, 0, cuda::stream()>>>(rows, n, y, dy, dx);
  cuda::launched("log_softmax");
}

}  // namespace ppma::inline PPMA_ABI::kernels
