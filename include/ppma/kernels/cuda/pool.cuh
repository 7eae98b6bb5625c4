#pragma once
#include "ppma/core/names_begin.hpp"
// Pooling on the GPU: a thread a pack of channels of one output cell; backward a thread a pack of
// one input cell, which gathers from the windows that hold it. Floor: forward reads x once, from
// the cache where windows overlap.

#include <limits>

#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

struct PoolShape {
  i64 packs;  // of channels
  Windows rows, cols;
};

// Where a thread's pack lies: image, cell of a (h, w) grid, first channel.
struct PoolCell {
  i64 image, i, j, c;
};
template <int V>
__device__ __forceinline__ PoolCell pool_cell(i64 e, i64 packs, i64 h, i64 w) {
  const i64 cell = e / packs, line = cell / w;
  return {line / h, line % h, cell % w, (e - cell * packs) * V};
}

template <class T, int V>
__global__ void __launch_bounds__(256)
    avg_pool_cells(i64 total, PoolShape s, i64 area, const T* x, T* y) {
  using A = acc_t<T>;
  const i64 channels = s.packs * V, h = s.rows.outputs(), w = s.cols.outputs();
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const PoolCell at = pool_cell<V>(e, s.packs, h, w);
    const auto r = s.rows.out(at.i), c = s.cols.out(at.j);
    A sum[V] = {};
    for (i64 a = r.begin; a < r.end; ++a)
      for (i64 b = c.begin; b < c.end; ++b) {
        A v[V];
        load_pack<V>(x + ((at.image * s.rows.inputs() + a) * s.cols.inputs() + b) * channels + at.c,
                     v);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += v[k];
      }
    const A scale = A(1) / static_cast<A>(area > 0 ? area : (r.end - r.begin) * (c.end - c.begin));
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] *= scale;
    store_pack<V>(y + e * V, sum);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(256)
    avg_pool_inputs(i64 total, PoolShape s, i64 area, const T* dy, T* dx) {
  using A = acc_t<T>;
  const i64 channels = s.packs * V, h = s.rows.outputs(), w = s.cols.outputs();
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const PoolCell at = pool_cell<V>(e, s.packs, s.rows.inputs(), s.cols.inputs());
    const auto r = s.rows.in(at.i), c = s.cols.in(at.j);
    A sum[V] = {};
    for (i64 a = r.begin; a < r.end; ++a)
      for (i64 b = c.begin; b < c.end; ++b) {
        const auto wr = s.rows.out(a), wc = s.cols.out(b);
        const A scale =
            A(1) / static_cast<A>(area > 0 ? area : (wr.end - wr.begin) * (wc.end - wc.begin));
        A v[V];
        load_pack<V>(dy + ((at.image * h + a) * w + b) * channels + at.c, v);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += scale * v[k];
      }
    store_pack<V>(dx + e * V, sum);
  }
}

// Largest of a window for V channels, and the number of the first cell that holds it; a NaN wins.
// x: the image's first of these channels.
template <class T, int V>
__device__ __forceinline__ void window_most(const Windows::Range& r, const Windows::Range& c,
                                            i64 width, i64 channels, const T* x,
                                            acc_t<T> (&most)[V], int (&where)[V]) {
  int cell = 0;
  for (i64 a = r.begin; a < r.end; ++a)
    for (i64 b = c.begin; b < c.end; ++b, ++cell) {
      acc_t<T> v[V];
      load_pack<V>(x + (a * width + b) * channels, v);
#pragma unroll
      for (int k = 0; k < V; ++k)
        if (cell == 0 || v[k] > most[k] || (v[k] != v[k] && most[k] == most[k]))
          most[k] = v[k], where[k] = cell;
    }
}

template <class T, int V>
__global__ void __launch_bounds__(256) max_pool_cells(i64 total, PoolShape s, const T* x, T* y) {
  const i64 channels = s.packs * V, height = s.rows.inputs(), width = s.cols.inputs();
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const PoolCell at = pool_cell<V>(e, s.packs, s.rows.outputs(), s.cols.outputs());
    acc_t<T> most[V];
    int where[V];
    window_most<T, V>(s.rows.out(at.i), s.cols.out(at.j), width, channels,
                      x + at.image * height * width * channels + at.c, most, where);
    store_pack<V>(y + e * V, most);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(256)
    max_pool_inputs(i64 total, PoolShape s, const T* x, const T* dy, T* dx) {
  using A = acc_t<T>;
  const i64 channels = s.packs * V, height = s.rows.inputs(), width = s.cols.inputs(),
            h = s.rows.outputs(), w = s.cols.outputs();
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const PoolCell at = pool_cell<V>(e, s.packs, height, width);
    const auto r = s.rows.in(at.i), c = s.cols.in(at.j);
    A sum[V] = {};
    for (i64 a = r.begin; a < r.end; ++a)
      for (i64 b = c.begin; b < c.end; ++b) {
        const auto wr = s.rows.out(a), wc = s.cols.out(b);
        A most[V], v[V];
        int where[V];
        window_most<T, V>(wr, wc, width, channels, x + at.image * height * width * channels + at.c,
                          most, where);
        load_pack<V>(dy + ((at.image * h + a) * w + b) * channels + at.c, v);
        const int mine =
            static_cast<int>((at.i - wr.begin) * (wc.end - wc.begin) + at.j - wc.begin);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += where[k] == mine ? v[k] : A(0);
      }
    store_pack<V>(dx + e * V, sum);
  }
}

// y (images, channels) = means over the cells of silu(x); grid (channels / 64, images). A block's
// 32 rows of threads share the cells, and their sums are joined in one order.
template <class T>
__global__ void __launch_bounds__(256) silu_mean_cells(int cells, int channels, const T* x, T* y) {
  __shared__ float sums[8][64];
  cuda::wait();
  const int tid = static_cast<int>(threadIdx.x), c = tid % 8 * 8,
            at = static_cast<int>(blockIdx.x) * 64;
  const T* const from = x + static_cast<i64>(blockIdx.y) * cells * channels + at + c;
  float sum[8] = {};
#pragma unroll 2
  for (int cell = tid / 8; cell < cells; cell += 32) {
    float v[8];
    load_pack<8>(from + static_cast<i64>(cell) * channels, v);
#pragma unroll
    for (int k = 0; k < 8; ++k) sum[k] += v[k] / (1 + __expf(-v[k]));
  }
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], 8);
    sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], 16);
    if (tid % 32 < 8) sums[tid / 32][c + k] = sum[k];
  }
  __syncthreads();
  if (tid >= 64) return;
  float all = 0;
#pragma unroll
  for (int k = 0; k < 8; ++k) all += sums[k][tid];
  y[static_cast<i64>(blockIdx.y) * channels + at + tid] = T(all / static_cast<float>(cells));
}

// Calls f(constant V, shape, number of threads over a grid of `cells` cells).
template <class T, class F>
void over_pool(i64 batch, i64 channels, const Windows& rows, const Windows& cols, i64 cells, F f) {
  with_pack<T>(channels, [&](auto v) {
    const PoolShape s{channels / decltype(v)::value, rows, cols};
    f(v, s, batch * cells * s.packs);
  });
}

}  // namespace detail

/// Means over the cells of silu(x (images, cells, channels)); channels in 64s.
inline void silu_means(Cuda, i64 images, i64 cells, i64 channels, const bf16* x, bf16* y) {
  cuda::launch("silu_avg_pool", detail::silu_mean_cells<bf16>,
               dim3(static_cast<unsigned>(channels / 64), static_cast<unsigned>(images)), 256, 0,
               cells, channels, x, y);
}

template <class T>
void avg_pool(Cuda, i64 batch, i64 channels, const Windows& rows, const Windows& cols, i64 area,
              const T* x, T* y) {
  detail::over_pool<T>(batch, channels, rows, cols, rows.outputs() * cols.outputs(),
                       [&](auto v, const auto& s, i64 total) {
                         detail::avg_pool_cells<T, decltype(v)::value>
                             <<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(total, s, area,
                                                                                    x, y);
                       });
  cuda::launched("avg_pool");
}

template <class T>
void avg_pool_backward(Cuda, i64 batch, i64 channels, const Windows& rows, const Windows& cols,
                       i64 area, const T* dy, T* dx) {
  detail::over_pool<T>(batch, channels, rows, cols, rows.inputs() * cols.inputs(),
                       [&](auto v, const auto& s, i64 total) {
                         detail::avg_pool_inputs<T, decltype(v)::value>
                             <<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(total, s, area,
                                                                                    dy, dx);
                       });
  cuda::launched("avg_pool");
}

template <class T>
void max_pool(Cuda, i64 batch, i64 channels, const Windows& rows, const Windows& cols, const T* x,
              T* y) {
  detail::over_pool<T>(batch, channels, rows, cols, rows.outputs() * cols.outputs(),
                       [&](auto v, const auto& s, i64 total) {
                         detail::max_pool_cells<T, decltype(v)::value>
                             <<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(total, s, x, y);
                       });
  cuda::launched("max_pool2d");
}

template <class T>
void max_pool_backward(Cuda, i64 batch, i64 channels, const Windows& rows, const Windows& cols,
                       const T* x, const T* dy, T* dx) {
  detail::over_pool<T>(batch, channels, rows, cols, rows.inputs() * cols.inputs(),
                       [&](auto v, const auto& s, i64 total) {
                         detail::max_pool_inputs<T, decltype(v)::value>
                             <<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(total, s, x, dy,
                                                                                    dx);
                       });
  cuda::launched("max_pool2d");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
