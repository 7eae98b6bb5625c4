#pragma once
#include "ppma/core/names_begin.hpp"
// Backward of layer norm on the GPU. Rows lie in registers as in norm.cuh; a block adds its rows'
// share of the gradients of weight and bias in order, and the blocks' are added in order later.

#include <algorithm>
#include <memory>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/later_sums.cuh"
#include "ppma/kernels/cuda/norm.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// dx of rows in registers, and the rows' share of dw and db: partial (blocks, 2, cols).
// y = xhat w + b, xhat = (x - mean) rstd, g = dy w:  dx = rstd (g - mean(g) - xhat mean(g xhat))
template <class T, int V, int K>
__global__ void __launch_bounds__(256)
    layer_norm_back_rows(i64 rows, int cols, int width, const T* x, const acc_t<T>* w,
                         const acc_t<T>* mean, const acc_t<T>* rstd, const T* dy, T* dx,
                         bool accumulate, acc_t<T>* partial) {
  using A = acc_t<T>;
  __shared__ A shared[256 * V];
  const int lane = static_cast<int>(threadIdx.x) & (width - 1), in_block = 256 / width;
  A sum_w[K][V] = {}, sum_b[K][V] = {};
  // A row's packs as they lie in memory. Those of the next one are on their way meanwhile, where
  // there are registers for them.
  constexpr bool early = K == 1;
  struct Row {
    uint4 x[K], dy[K], before[K];
    A mean, rstd;
  };
  const auto raw = [](const T* p) { return *reinterpret_cast<const uint4*>(p); };
  const auto numbers = [](const uint4& from, A(&to)[V]) {
    load_pack<V>(reinterpret_cast<const T*>(&from), to);
  };
  const i64 step = static_cast<i64>(gridDim.x) * in_block;
  const auto fetch = [&](i64 r) {
    Row row{};
    if (r >= rows) return row;
    row.mean = mean[r], row.rstd = rstd[r];
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * width + lane) * V;
      if (c >= cols) continue;
      row.x[k] = raw(x + r * cols + c);
      row.dy[k] = raw(dy + r * cols + c);
      if (accumulate) row.before[k] = raw(dx + r * cols + c);
    }
    return row;
  };
  i64 r = static_cast<i64>(blockIdx.x) * in_block + static_cast<int>(threadIdx.x) / width;
  Row next{};
  if (early) next = fetch(r);
  for (i64 r0 = static_cast<i64>(blockIdx.x) * in_block; r0 < rows; r0 += step, r += step) {
    const Row row = early ? next : fetch(r);
    if (early) next = fetch(r + step);
    const bool there = r < rows;
    const A m = row.mean, s = row.rstd;
    A xhat[K][V], g[K][V];
    A sum_g = 0, sum_gx = 0;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * width + lane) * V;
      A wk[V] = {};
      if (c < cols) load_pack<V>(w + c, wk);
      numbers(row.x[k], xhat[k]);
      numbers(row.dy[k], g[k]);
#pragma unroll
      for (int i = 0; i < V; ++i) {
        // where there is nothing, dy and rstd are 0
        const A h = (xhat[k][i] - m) * s, d = g[k][i], gw = d * wk[i];
        xhat[k][i] = h, g[k][i] = gw;
        sum_w[k][i] += d * h, sum_b[k][i] += d;
        sum_g += gw, sum_gx += gw * h;
      }
    }
    if (dx == nullptr) continue;
    sum_g = sum_lanes(sum_g, width) / static_cast<A>(cols);
    sum_gx = sum_lanes(sum_gx, width) / static_cast<A>(cols);
    if (!there) continue;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * width + lane) * V;
      if (c >= cols) continue;
#pragma unroll
      for (int i = 0; i < V; ++i) g[k][i] = s * (g[k][i] - sum_g - xhat[k][i] * sum_gx);
      if (accumulate) {
        A before[V];
        numbers(row.before[k], before);
#pragma unroll
        for (int i = 0; i < V; ++i) g[k][i] += before[i];
      }
      store_pack<V>(dx + r * cols + c, g[k]);
    }
  }
  // The block's rows are added in order.
#pragma unroll
  for (int which = 0; which < 2; ++which)
#pragma unroll
    for (int k = 0; k < K; ++k) {
      __syncthreads();
#pragma unroll
      for (int i = 0; i < V; ++i)
        shared[i * 256 + static_cast<int>(threadIdx.x)] = which ? sum_b[k][i] : sum_w[k][i];
      __syncthreads();
      for (int at = static_cast<int>(threadIdx.x); at < width * V; at += 256) {
        const int i = at / width, l = at % width, c = (k * width + l) * V + i;
        A total = 0;
        for (int row = 0; row < in_block; ++row) total += shared[i * 256 + row * width + l];
        if (c < cols) partial[(static_cast<i64>(blockIdx.x) * 2 + which) * cols + c] = total;
      }
    }
}

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
  constexpr int V = pack_width<T>;
  const int width = detail::row_width(cols, V);
  const detail::ColumnPlaces<A> to(dw, cols, db, cols);
  const auto run = [&](auto k) {
    const i64 blocks =
        std::clamp<i64>((rows * width + 1023) / 1024, 1, 4 * cuda::device().multiProcessorCount);
    auto partial = std::make_unique<const Workspace<A>>(blocks * 2 * cols, Device::cuda);
    detail::layer_norm_back_rows<T, V, decltype(k)::value>
        <<<static_cast<unsigned>(blocks), 256, 0, cuda::stream()>>>(rows, static_cast<int>(cols),
                                                                    width, x, w, mean, rstd, dy, dx,
                                                                    accumulate, partial->data());
    cuda::launched("layer_norm");
    detail::finish_columns_later(std::move(partial), blocks, 2 * cols, to, "layer_norm");
  };
  if (cols % V == 0 && cols <= 32 * V) return run(std::integral_constant<int, 1>{});
  if (cols % V == 0 && cols <= 64 * V) return run(std::integral_constant<int, 2>{});
  if (dx) {
    detail::layer_norm_back_wide<<<static_cast<unsigned>((rows + 7) / 8), 256, 0, cuda::stream()>>>(
        rows, cols, x, w, mean, rstd, dy, dx, accumulate);
    cuda::launched("layer_norm");
  }
  with_pack<T>(cols, [&](auto v) {
    detail::sum_columns_of_later<A, decltype(v)::value, 2>(
        rows, cols, detail::LayerNormTerms<T>{x, dy, mean, rstd, cols}, to, "layer_norm");
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
