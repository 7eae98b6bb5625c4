#pragma once
#include "ppma/core/names_begin.hpp"
// Layer norm and batch norm on the GPU. Statistics are in acc_t<T>.
//
// A row of a layer norm lies in the registers of up to 32 neighbouring threads, so that mean and
// variance cost one read.
// Statistics of columns join small groups of rows, each with its own mean and sum of squared
// distances, first in a thread, then in a block, then of all blocks, in an order that depends on
// the shape alone.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/later_sums.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr unsigned all_lanes = 0xffffffffu;

// Sum over `width` neighbouring lanes, a power of two; all of them get it.
template <class A>
__device__ __forceinline__ A sum_lanes(A v, int width) {
  for (int o = width / 2; o > 0; o /= 2) v += __shfl_xor_sync(all_lanes, v, o);
  return v;
}
__device__ __forceinline__ float inverse_root(float v) { return 1.0f / sqrtf(v); }
__device__ __forceinline__ double inverse_root(double v) { return 1.0 / ::sqrt(v); }

/// Lanes a row takes and packs a lane takes, so that width * packs * V elements hold a row of cols.
inline int row_width(i64 cols, int pack) {
  int width = 1;
  while (width < 32 && static_cast<i64>(width) * pack < cols) width *= 2;
  return width;
}

struct NothingMore {
  struct Pack {};
  __device__ Pack pack_of(int, bool) const { return {}; }
  template <class... A>
  __device__ void of_pack(const A&...) const {}
  template <class... A>
  __device__ void operator()(const A&...) const {}
};

// Rows in registers: lane l of a row has the packs l, l + width, ... Of every pack after(row,
// column, there, y): by all lanes.
template <class T, int V, int K, class After>
__global__ void __launch_bounds__(256)
    layer_norm_rows(i64 rows, int cols, int width, const T* x, const acc_t<T>* w, const acc_t<T>* b,
                    acc_t<T> eps, T* y, acc_t<T>* mean, acc_t<T>* rstd, After after) {
  using A = acc_t<T>;
  const int lane = static_cast<int>(threadIdx.x) & (width - 1);
  const i64 r = (static_cast<i64>(blockIdx.x) * 256 + threadIdx.x) / width;
  const bool there = r < rows;
  cuda::wait();
  A v[K][V];
  A sum = 0;
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int c = (k * width + lane) * V;
    if (there && c < cols) {
      load_pack<V>(x + r * cols + c, v[k]);
    } else {
#pragma unroll
      for (int i = 0; i < V; ++i) v[k][i] = 0;
    }
#pragma unroll
    for (int i = 0; i < V; ++i) sum += v[k][i];
  }
  const A m = sum_lanes(sum, width) / static_cast<A>(cols);
  A squares = 0;
#pragma unroll
  for (int k = 0; k < K; ++k)
    if ((k * width + lane) * V < cols) {
#pragma unroll
      for (int i = 0; i < V; ++i) squares += (v[k][i] - m) * (v[k][i] - m);
    }
  const A s = inverse_root(sum_lanes(squares, width) / static_cast<A>(cols) + eps);
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int c = (k * width + lane) * V;
    const bool mine = there && c < cols;
    if (mine) {
      A wk[V], bk[V];
      load_pack<V>(w + c, wk);
      load_pack<V>(b + c, bk);
#pragma unroll
      for (int i = 0; i < V; ++i) v[k][i] = (v[k][i] - m) * s * wk[i] + bk[i];
      store_pack<V>(y + r * cols + c, v[k]);
    }
    after(r, c, mine, v[k]);
  }
  if (mean && there && lane == 0) mean[r] = m, rstd[r] = s;
}

// Launches it for cols <= 128 V, a multiple of V.
template <class T, class After>
void run_layer_norm_rows(i64 rows, i64 cols, const T* x, const acc_t<T>* w, const acc_t<T>* b,
                         acc_t<T> eps, T* y, acc_t<T>* mean, acc_t<T>* rstd, const After& after) {
  constexpr int V = pack_width<T>;
  const int width = row_width(cols, V);
  const auto run = [&](auto k) {
    const unsigned blocks = static_cast<unsigned>((rows * width + 255) / 256);
    const auto kernel = layer_norm_rows<T, V, decltype(k)::value, After>;
    if constexpr (std::is_same_v<T, bf16>)
      cuda::launch("layer_norm", kernel, blocks, 256, 0, rows, cols, width, x, w, b, eps, y, mean,
                   rstd, after);
    else  // float results: see depthwise_few.cuh
      kernel<<<blocks, 256, 0, cuda::stream()>>>(rows, static_cast<int>(cols), width, x, w, b, eps,
                                                 y, mean, rstd, after);
  };
  if (cols <= 32 * V)
    run(std::integral_constant<int, 1>{});
  else if (cols <= 64 * V)
    run(std::integral_constant<int, 2>{});
  else
    run(std::integral_constant<int, 4>{});
}

// Any width: a warp a row, element by element.
template <class T>
__global__ void __launch_bounds__(256)
    layer_norm_wide(i64 rows, i64 cols, const T* x, const acc_t<T>* w, const acc_t<T>* b,
                    acc_t<T> eps, T* y, acc_t<T>* mean, acc_t<T>* rstd) {
  using A = acc_t<T>;
  const i64 r = static_cast<i64>(blockIdx.x) * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (r >= rows) return;
  const T* const xr = x + r * cols;
  A sum = 0, squares = 0;
  for (i64 c = lane; c < cols; c += 32) sum += static_cast<A>(xr[c]);
  const A m = sum_lanes(sum, 32) / static_cast<A>(cols);
  for (i64 c = lane; c < cols; c += 32) {
    const A d = static_cast<A>(xr[c]) - m;
    squares += d * d;
  }
  const A s = inverse_root(sum_lanes(squares, 32) / static_cast<A>(cols) + eps);
  for (i64 c = lane; c < cols; c += 32)
    y[r * cols + c] = T((static_cast<A>(xr[c]) - m) * s * w[c] + b[c]);
  if (mean && lane == 0) mean[r] = m, rstd[r] = s;
}

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
  const i64 step = static_cast<i64>(gridDim.x) * in_block;
  for (i64 r0 = static_cast<i64>(blockIdx.x) * in_block; r0 < rows; r0 += step) {
    const i64 r = r0 + static_cast<int>(threadIdx.x) / width;
    const bool there = r < rows;
    A xhat[K][V], g[K][V];
    const A m = there ? mean[r] : A(0), s = there ? rstd[r] : A(0);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * width + lane) * V;
      if (there && c < cols) {
        load_pack<V>(x + r * cols + c, xhat[k]);
        load_pack<V>(dy + r * cols + c, g[k]);
      } else {
#pragma unroll
        for (int i = 0; i < V; ++i) xhat[k][i] = m, g[k][i] = 0;
      }
    }
    A sum_g = 0, sum_gx = 0;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * width + lane) * V;
      A wk[V] = {};
      if (c < cols) load_pack<V>(w + c, wk);
#pragma unroll
      for (int i = 0; i < V; ++i) {
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
        load_pack<V>(dx + r * cols + c, before);
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
void layer_norm(Cuda, i64 rows, i64 cols, const T* x, const acc_t<T>* w, const acc_t<T>* b,
                acc_t<T> eps, T* y, acc_t<T>* mean, acc_t<T>* rstd) {
  constexpr int V = pack_width<T>;
  if (rows == 0) return;
  if (cols % V == 0 && cols <= 128 * V)
    detail::run_layer_norm_rows<T>(rows, cols, x, w, b, eps, y, mean, rstd, detail::NothingMore{});
  else
    detail::layer_norm_wide<<<static_cast<unsigned>((rows + 7) / 8), 256, 0, cuda::stream()>>>(
        rows, cols, x, w, b, eps, y, mean, rstd);
  cuda::launched("layer_norm");
}

template <class T>
void layer_norm_backward(Cuda, i64 rows, i64 cols, const T* x, const acc_t<T>* w,
                         const acc_t<T>* mean, const acc_t<T>* rstd, const T* dy, T* dx,
                         bool accumulate, acc_t<T>* dw, acc_t<T>* db) {
  using A = acc_t<T>;
  constexpr int V = pack_width<T>;
  const int width = detail::row_width(cols, V);
  const detail::ColumnPlaces<A> to(dw, cols, db, cols);
  const auto run = [&](auto k) {
    const i64 blocks = std::clamp<i64>((rows * width + 1023) / 1024, 1, 528);
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
