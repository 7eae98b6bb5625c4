#pragma once
#include "ppma/core/names_begin.hpp"
// Batch norm on the GPU: statistics of columns in one read, and the passes that use them.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/column_sums.cuh"
#include "ppma/kernels/cuda/later_sums.cuh"
#include "ppma/kernels/cuda/norm.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// (count, mean, squares) takes in another group of numbers: Chan, Golub and LeVeque, 1983.
template <class A>
__device__ __forceinline__ void join_statistics(A& count, A& mean, A& squares, A n, A m, A s) {
  if (n == 0) return;
  const A all = count + n, gap = m - mean, part = n / all;
  squares += s + gap * gap * count * part;
  mean += gap * part;
  count = all;
}

// partial (pieces, 2, cols): mean and sum of squared distances. Eight rows a thread are one group.
template <class T, int V>
__global__ void __launch_bounds__(256)
    statistics_pieces(i64 rows, i64 cols, i64 per_block, const T* x, acc_t<T>* partial) {
  using A = acc_t<T>;
  constexpr int group = 8;
  __shared__ A shared[3][256];
  const i64 c = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) * V;
  const i64 end = ::min(rows, (blockIdx.y + 1) * per_block);
  A count = 0, mean[V] = {}, squares[V] = {};
  const i64 step = blockDim.y;
  i64 r = c < cols ? blockIdx.y * per_block + threadIdx.y : end;
  for (; r + (group - 1) * step < end; r += group * step) {
    A v[group][V];
#pragma unroll
    for (int j = 0; j < group; ++j) load_pack<V>(x + (r + j * step) * cols + c, v[j]);
    const A all = count + A(group), part = A(group) / all, weight = count * part;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      A m = 0, s = 0;
#pragma unroll
      for (int j = 0; j < group; ++j) m += v[j][i];
      m *= A(1) / A(group);
#pragma unroll
      for (int j = 0; j < group; ++j) s += (v[j][i] - m) * (v[j][i] - m);
      const A gap = m - mean[i];
      squares[i] += s + gap * gap * weight;
      mean[i] += gap * part;
    }
    count = all;
  }
  for (; r < end; r += step) {
    A v[V];
    load_pack<V>(x + r * cols + c, v);
    const A all = count + A(1), part = A(1) / all, weight = count * part;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const A gap = v[i] - mean[i];
      squares[i] += gap * gap * weight;
      mean[i] += gap * part;
    }
    count = all;
  }
  const int at = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
#pragma unroll
  for (int i = 0; i < V; ++i) {
    __syncthreads();
    shared[0][at] = count, shared[1][at] = mean[i], shared[2][at] = squares[i];
    for (int half = static_cast<int>(blockDim.y) / 2; half > 0; half /= 2) {
      __syncthreads();
      if (static_cast<int>(threadIdx.y) < half) {
        const int other = at + half * static_cast<int>(blockDim.x);
        join_statistics(shared[0][at], shared[1][at], shared[2][at], shared[0][other],
                        shared[1][other], shared[2][other]);
      }
    }
    if (threadIdx.y == 0 && c < cols)
#pragma unroll
      for (int k = 0; k < 2; ++k)
        partial[(static_cast<i64>(blockIdx.y) * 2 + k) * cols + c + i] = shared[k + 1][at];
  }
}

// Pieces of per_block rows, the last of what is left.
template <class A>
__global__ void __launch_bounds__(1024)
    statistics_finish(i64 pieces, i64 rows, i64 per_block, i64 cols, const A* partial, A* mean,
                      A* var) {
  __shared__ double shared[1024];
  const i64 c = static_cast<i64>(blockIdx.x) * 32 + threadIdx.x;
  const auto count = [=](i64 i) {
    return static_cast<double>(::min(per_block, rows - i * per_block));
  };
  double sum = 0;
  if (c < cols) {
#pragma unroll 4
    for (i64 i = threadIdx.y; i < pieces; i += 32) sum += count(i) * partial[2 * i * cols + c];
  }
  sum_block_rows<double, 1024>(sum, shared);
  __syncthreads();
  const double m = shared[threadIdx.x] / static_cast<double>(rows);
  double squares = 0;
  if (c < cols) {
#pragma unroll 4
    for (i64 i = threadIdx.y; i < pieces; i += 32) {
      const double gap = partial[2 * i * cols + c] - m;
      squares += partial[(2 * i + 1) * cols + c] + gap * gap * count(i);
    }
  }
  squares = sum_block_rows<double, 1024>(squares, shared);
  if (threadIdx.y == 0 && c < cols)
    mean[c] = static_cast<A>(m), var[c] = static_cast<A>(squares / static_cast<double>(rows));
}

// What stands for an activation F where results are rounded to bf16.
template <class F>
struct Narrow {
  using type = F;
};
template <class T, class F>
using Activation = std::conditional_t<std::is_same_v<T, bf16>, typename Narrow<F>::type, F>;

// y = a u + b (x - mean) + c a column; `u` null: y = act((x - mean) b + c). Each thread keeps its
// columns' numbers.
template <class T, int V, class F>
__global__ void __launch_bounds__(256)
    columns_affine(i64 rows, i64 cols, i64 per_block, const T* u, const acc_t<T>* a, const T* x,
                   const acc_t<T>* mean, const acc_t<T>* b, const acc_t<T>* shift, T* y, F act) {
  using A = acc_t<T>;
  const i64 c = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) * V;
  if (c >= cols) return;
  A av[V] = {}, mv[V], bv[V], sv[V];
  if (u) load_pack<V>(a + c, av);
  load_pack<V>(mean + c, mv);
  load_pack<V>(b + c, bv);
  load_pack<V>(shift + c, sv);
  const i64 end = ::min(rows, (blockIdx.y + 1) * per_block);
#pragma unroll 4
  for (i64 r = blockIdx.y * per_block + threadIdx.y; r < end; r += blockDim.y) {
    A v[V], uv[V];
    load_pack<V>(x + r * cols + c, v);
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] = (v[i] - mv[i]) * bv[i] + sv[i];
    if (u) {
      load_pack<V>(u + r * cols + c, uv);
#pragma unroll
      for (int i = 0; i < V; ++i) v[i] += av[i] * uv[i];
    }
    if constexpr (activates<F>) {
#pragma unroll
      for (int i = 0; i < V; ++i) v[i] = act.f(v[i]);
    }
    store_pack<V>(y + r * cols + c, v);
  }
}
template <class T, class F = NoActivation>
void affine_of_columns(i64 rows, i64 cols, const T* u, const acc_t<T>* a, const T* x,
                       const acc_t<T>* mean, const acc_t<T>* b, const acc_t<T>* shift, T* y,
                       F act = {}) {
  with_pack<T>(cols, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const ColumnGrid g = column_grid(rows, cols, V, 32 * cuda::device().multiProcessorCount);
    columns_affine<T, V, F><<<g.grid, g.block, 0, cuda::stream()>>>(rows, cols, g.per_block, u, a,
                                                                    x, mean, b, shift, y, act);
  });
  cuda::launched("batch_norm");
}

template <class T, class F>
struct BatchNormTerms {
  const T *x, *dy;
  const acc_t<T>* mean;
  i64 cols;
  const acc_t<T>*scale, *shift;  // with an activation: of what it is applied to
  T* dz;
  F act;
  template <int V>
  __device__ void operator()(i64 r, i64 c, acc_t<T> (&sum)[2][V]) const {
    acc_t<T> v[V], g[V], m[V];
    load_pack<V>(x + r * cols + c, v);
    load_pack<V>(dy + r * cols + c, g);
    load_pack<V>(mean + c, m);
    if constexpr (activates<F>) {
      acc_t<T> a[V], b[V];
      load_pack<V>(scale + c, a);
      load_pack<V>(shift + c, b);
#pragma unroll
      for (int i = 0; i < V; ++i) g[i] *= act.df((v[i] - m[i]) * a[i] + b[i]);
      store_pack<V>(dz + r * cols + c, g);
    }
#pragma unroll
    for (int i = 0; i < V; ++i) sum[0][i] += g[i], sum[1][i] += g[i] * (v[i] - m[i]);
  }
};

template <class F>
__global__ void each_channel(i64 n, F f) {
  for (i64 c = cuda::first(); c < n; c += cuda::stride()) f(c);
}

}  // namespace detail

template <class T>
void column_statistics(Cuda, i64 rows, i64 cols, const T* x, acc_t<T>* mean, acc_t<T>* var) {
  using A = acc_t<T>;
  with_pack<T>(cols, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const detail::ColumnGrid g = detail::column_grid(rows, cols, V);
    const Workspace<A> partial(static_cast<i64>(g.grid.y) * 2 * cols, Device::cuda);
    detail::statistics_pieces<T, V>
        <<<g.grid, g.block, 0, cuda::stream()>>>(rows, cols, g.per_block, x, partial.data());
    detail::statistics_finish<A>
        <<<static_cast<unsigned>((cols + 31) / 32), dim3(32, 32), 0, cuda::stream()>>>(
            g.grid.y, rows, g.per_block, cols, partial.data(), mean, var);
  });
  cuda::launched("batch_norm");
}

template <class T, class F = NoActivation>
void normalize_columns(Cuda, i64 rows, i64 cols, const T* x, const acc_t<T>* mean,
                       const acc_t<T>* scale, const acc_t<T>* shift, T* y, F = {}) {
  detail::affine_of_columns<T>(rows, cols, nullptr, nullptr, x, mean, scale, shift, y,
                               detail::Activation<T, F>{});
}

template <class T, class F = NoActivation>
void column_gradient_sums(Cuda, i64 rows, i64 cols, const T* x, const acc_t<T>* mean, const T* dy,
                          acc_t<T>* sum_dz, acc_t<T>* sum_dzx, const acc_t<T>* scale = nullptr,
                          const acc_t<T>* shift = nullptr, T* dz = nullptr, F = {}) {
  using Act = detail::Activation<T, F>;
  using A = acc_t<T>;
  with_pack<T>(cols, [&](auto v) {
    detail::sum_columns_of<A, decltype(v)::value, 2>(
        rows, cols, detail::BatchNormTerms<T, Act>{x, dy, mean, cols, scale, shift, dz, Act{}},
        detail::ColumnPlaces<A>(sum_dz, cols, sum_dzx, cols), "batch_norm",
        // where there is more to compute, more threads and each shorter
        (activates<Act> ? 6 : 4) * cuda::device().multiProcessorCount, activates<Act> ? 128 : 256);
  });
}

template <class T>
void batch_norm_dx(Cuda, i64 rows, i64 cols, const T* dy, const T* x, const acc_t<T>* mean,
                   const acc_t<T>* a, const acc_t<T>* b, const acc_t<T>* c, T* dx) {
  detail::affine_of_columns(rows, cols, dy, a, x, mean, b, c, dx);
}

template <class F>
void channels(Cuda, i64 n, F f) {
  detail::each_channel<<<cuda::blocks(n, 128), 128, 0, cuda::stream()>>>(n, f);
  cuda::launched("batch_norm");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
