#pragma once
#include "ppma/core/names_begin.hpp"
// softmax and log_softmax on the GPU: a block or a warp a row, the row read three times, from a
// cache after the first.

#include <algorithm>

#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

struct Most {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return a > b ? a : b;
  }
};
struct Total {
  template <class A>
  __device__ A operator()(A a, A b) const {
    return a + b;
  }
};

/// Who works on a row: a block, or, where there are many short rows, a warp. over(): all get f over
/// one value a thread, in a fixed order.
struct BlockOfRow {
  static constexpr int rows_a_block = 1;
  __device__ __forceinline__ static i64 row() { return blockIdx.x; }
  __device__ __forceinline__ static int first() { return static_cast<int>(threadIdx.x); }
  __device__ __forceinline__ static int step() { return 128; }
  template <class A, class F>
  __device__ __forceinline__ static A over(A value, F f) {
    __shared__ A shared[128];
    __syncthreads();
    shared[threadIdx.x] = value;
    for (unsigned half = 64; half > 0; half /= 2) {
      __syncthreads();
      if (threadIdx.x < half)
        shared[threadIdx.x] = f(shared[threadIdx.x], shared[threadIdx.x + half]);
    }
    __syncthreads();
    return shared[0];
  }
};
struct WarpOfRow {
  static constexpr int rows_a_block = 4;
  __device__ __forceinline__ static i64 row() {
    return static_cast<i64>(blockIdx.x) * rows_a_block + threadIdx.x / 32;
  }
  __device__ __forceinline__ static int first() { return static_cast<int>(threadIdx.x % 32); }
  __device__ __forceinline__ static int step() { return 32; }
  template <class A, class F>
  __device__ __forceinline__ static A over(A value, F f) {
#pragma unroll
    for (int half = 16; half > 0; half /= 2)
      value = f(value, __shfl_xor_sync(0xffffffffu, value, half));
    return value;
  }
};
/// Calls launch(who, blocks) for rows of n elements.
template <class F>
void by_rows(i64 rows, i64 n, F&& launch) {
  const auto blocks = [rows](int a_block) {
    return static_cast<unsigned>(std::clamp<i64>((rows + a_block - 1) / a_block, 1, 65535));
  };
  if (rows >= 4096 && n <= 1024)
    launch(WarpOfRow{}, blocks(WarpOfRow::rows_a_block));
  else
    launch(BlockOfRow{}, blocks(BlockOfRow::rows_a_block));
}

// Largest element of a row, and the sum of e^(x - largest).
template <class Who, class T>
__device__ __forceinline__ void row_statistics(i64 n, const T* x, acc_t<T>& most, acc_t<T>& sum) {
  using A = acc_t<T>;
  A m = A(x[0]), s = 0;
  for (i64 i = Who::first(); i < n; i += Who::step()) m = ::max(m, A(x[i]));
  most = Who::over(m, Most{});
  for (i64 i = Who::first(); i < n; i += Who::step()) s += ::exp(A(x[i]) - most);
  sum = Who::over(s, Total{});
}

template <class T, bool log, class Who>
__global__ void __launch_bounds__(128) softmax_row(i64 rows, i64 n, const T* x, T* y, Who) {
  using A = acc_t<T>;
  for (i64 r = Who::row(); r < rows; r += static_cast<i64>(gridDim.x) * Who::rows_a_block) {
    A most, sum;
    row_statistics<Who>(n, x + r * n, most, sum);
    const A shift = log ? most + ::log(sum) : most, factor = A(1) / sum;
    for (i64 i = Who::first(); i < n; i += Who::step()) {
      const A v = A(x[r * n + i]) - shift;
      y[r * n + i] = T(log ? v : ::exp(v) * factor);
    }
  }
}

template <class T, bool log, class Who>
__global__ void __launch_bounds__(128)
    softmax_row_backward(i64 rows, i64 n, const T* y, const T* dy, T* dx, Who) {
  using A = acc_t<T>;
  for (i64 r = Who::row(); r < rows; r += static_cast<i64>(gridDim.x) * Who::rows_a_block) {
    A s = 0;
    for (i64 i = Who::first(); i < n; i += Who::step())
      s += log ? A(dy[r * n + i]) : A(dy[r * n + i]) * A(y[r * n + i]);
    s = Who::over(s, Total{});
    for (i64 i = Who::first(); i < n; i += Who::step()) {
      const A p = A(y[r * n + i]), g = A(dy[r * n + i]);
      dx[r * n + i] = T(log ? g - ::exp(p) * s : p * (g - s));
    }
  }
}

}  // namespace detail

template <class T>
void softmax(Cuda, i64 rows, i64 n, const T* x, T* y) {
  detail::by_rows(rows, n, [&](auto who, unsigned blocks) {
    detail::softmax_row<T, false><<<blocks, 128, 0, cuda::stream()>>>(rows, n, x, y, who);
  });
  cuda::launched("softmax");
}
template <class T>
void log_softmax(Cuda, i64 rows, i64 n, const T* x, T* y) {
  detail::by_rows(rows, n, [&](auto who, unsigned blocks) {
    detail::softmax_row<T, true><<<blocks, 128, 0, cuda::stream()>>>(rows, n, x, y, who);
  });
  cuda::launched("log_softmax");
}
template <class T>
void softmax_backward(Cuda, i64 rows, i64 n, const T* y, const T* dy, T* dx) {
  detail::by_rows(rows, n, [&](auto who, unsigned blocks) {
    detail::softmax_row_backward<T, false>
        <<<blocks, 128, 0, cuda::stream()>>>(rows, n, y, dy, dx, who);
  });
  cuda::launched("softmax");
}
template <class T>
void log_softmax_backward(Cuda, i64 rows, i64 n, const T* y, const T* dy, T* dx) {
  detail::by_rows(rows, n, [&](auto who, unsigned blocks) {
    detail::softmax_row_backward<T, true>
        <<<blocks, 128, 0, cuda::stream()>>>(rows, n, y, dy, dx, who);
  });
  cuda::launched("log_softmax");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
