#pragma once
#include "ppma/core/names_begin.hpp"
// softmax and log_softmax on the GPU: a block or a warp a row, the row read three times, from a
// cache after the first. Many short rows, of an attention's weights: a few lanes a row, which each
// hold 16 bytes of it or up to 64; they are read once.
//
// Floor of those: read and written once (backward: two read, one written), 802,816 rows of 64 bf16:
// 48 us at 4.3 TB/s.

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

// The lanes of a row.
struct LanesOfRow {
  int width, lane;
  i64 row;

  __device__ __forceinline__ explicit LanesOfRow(int lanes)
      : width(lanes),
        lane(static_cast<int>(threadIdx.x) % lanes),
        row((blockIdx.x * i64{256} + threadIdx.x) / lanes) {}
  template <class A, class F>
  __device__ __forceinline__ A over(A value, F f) const {
    for (int half = width / 2; half > 0; half /= 2)
      value = f(value, __shfl_xor_sync(0xffffffffu, value, half));
    return value;
  }
  // v = what this lane has of a row of n elements; the rest is `none`.
  template <int V, int K, class T>
  __device__ __forceinline__ void load(i64 rows, int n, const T* x, acc_t<T> (&v)[K][V],
                                       acc_t<T> none) const {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * width + lane) * V;
      if (row < rows && c < n) {
        load_pack<V>(x + row * n + c, v[k]);
      } else {
#pragma unroll
        for (int i = 0; i < V; ++i) v[k][i] = none;
      }
    }
  }
  template <int V, int K, class T>
  __device__ __forceinline__ void store(i64 rows, int n, const acc_t<T> (&v)[K][V], T* y) const {
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * width + lane) * V;
      if (row < rows && c < n) store_pack<V>(y + row * n + c, v[k]);
    }
  }
};

template <class T, int V, int K>
__global__ void __launch_bounds__(256) softmax_packs(i64 rows, int n, int width, const T* x, T* y) {
  using A = acc_t<T>;
  const LanesOfRow lanes(width);
  A v[K][V], most = negative_infinity<A>(), sum = 0;
  lanes.load(rows, n, x, v, negative_infinity<A>());
#pragma unroll
  for (int i = 0; i < K * V; ++i) most = ::max(most, v[i / V][i % V]);
  most = lanes.over(most, Most{});
#pragma unroll
  for (int i = 0; i < K * V; ++i) sum += v[i / V][i % V] = ::exp(v[i / V][i % V] - most);
  const A factor = A(1) / lanes.over(sum, Total{});
#pragma unroll
  for (int i = 0; i < K * V; ++i) v[i / V][i % V] *= factor;
  lanes.store(rows, n, v, y);
}

template <class T, int V, int K>
__global__ void __launch_bounds__(256)
    softmax_packs_backward(i64 rows, int n, int width, const T* y, const T* dy, T* dx) {
  using A = acc_t<T>;
  const LanesOfRow lanes(width);
  A p[K][V], g[K][V], sum = 0;
  lanes.load(rows, n, y, p, A(0));
  lanes.load(rows, n, dy, g, A(0));
#pragma unroll
  for (int i = 0; i < K * V; ++i) sum += g[i / V][i % V] * p[i / V][i % V];
  sum = lanes.over(sum, Total{});
#pragma unroll
  for (int i = 0; i < K * V; ++i) g[i / V][i % V] = p[i / V][i % V] * (g[i / V][i % V] - sum);
  lanes.store(rows, n, g, dx);
}

/// Calls launch(constant K, lanes of a row, blocks) where rows of n elements are many, and short.
template <class T, class F>
bool in_packs(i64 rows, i64 n, F&& launch) {
  constexpr int V = pack_width<T>;
  const i64 packs = n / V;
  if (rows < 4096 || n % V != 0 || packs > 4 * 32) return false;
  int width = 1;
  while (width < 32 && width < packs) width *= 2;
  const i64 blocks = (rows + 256 / width - 1) / (256 / width);
  if (blocks >= i64{1} << 31) return false;
  const auto with = [&](auto k) { launch(k, width, static_cast<unsigned>(blocks)); };
  if (packs <= width)
    with(std::integral_constant<int, 1>{});
  else if (packs <= 2 * width)
    with(std::integral_constant<int, 2>{});
  else
    with(std::integral_constant<int, 4>{});
  return true;
}

}  // namespace detail

template <class T>
void softmax(Cuda, i64 rows, i64 n, const T* x, T* y) {
  const bool done = detail::in_packs<T>(rows, n, [&](auto k, int width, unsigned blocks) {
    detail::softmax_packs<T, pack_width<T>, decltype(k)::value>
        <<<blocks, 256, 0, cuda::stream()>>>(rows, static_cast<int>(n), width, x, y);
  });
  if (done) return cuda::launched("softmax");
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
  const bool done = detail::in_packs<T>(rows, n, [&](auto k, int width, unsigned blocks) {
    detail::softmax_packs_backward<T, pack_width<T>, decltype(k)::value>
        <<<blocks, 256, 0, cuda::stream()>>>(rows, static_cast<int>(n), width, y, dy, dx);
  });
  if (done) return cuda::launched("softmax");
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
