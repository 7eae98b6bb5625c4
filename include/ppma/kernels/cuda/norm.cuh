#pragma once
#include "ppma/core/names_begin.hpp"
// Layer norm on the GPU; statistics are in acc_t<T>.
//
// A row lies in the registers of up to 32 neighbouring threads, so that mean and variance cost one
// read.

#include "ppma/kernels/cuda/norm_rows.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// Lanes a row takes and packs a lane takes, so that width * packs * V elements hold a row of cols.
inline int row_width(i64 cols, int pack) {
  int width = 1;
  while (width < 32 && static_cast<i64>(width) * pack < cols) width *= 2;
  return width;
}

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

// Launches it for cols <= 128 V, or 64 V where something is made of y; a multiple of V.
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
  constexpr bool alone = std::is_same_v<After, NothingMore>;
  if (cols <= 32 * V) return run(std::integral_constant<int, 1>{});
  if constexpr (!alone || !std::is_same_v<T, bf16>) {  // else see layer_norm_many
    if (cols <= 64 * V) return run(std::integral_constant<int, 2>{});
  }
  if constexpr (alone) run(std::integral_constant<int, 4>{});
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

}  // namespace detail

template <class T>
void layer_norm(Cuda, i64 rows, i64 cols, const T* x, const acc_t<T>* w, const acc_t<T>* b,
                acc_t<T> eps, T* y, acc_t<T>* mean, acc_t<T>* rstd) {
  constexpr int V = pack_width<T>;
  if (rows == 0) return;
  if constexpr (std::is_same_v<T, bf16>) {
    if (detail::suits_layer_norm_many(cols))
      return detail::run_layer_norm_many(rows, cols, x, w, b, eps, y, mean, rstd,
                                         detail::NothingMore{});
  }
  if (cols % V == 0 && cols <= 128 * V)
    detail::run_layer_norm_rows<T>(rows, cols, x, w, b, eps, y, mean, rstd, detail::NothingMore{});
  else
    detail::layer_norm_wide<<<static_cast<unsigned>((rows + 7) / 8), 256, 0, cuda::stream()>>>(
        rows, cols, x, w, b, eps, y, mean, rstd);
  cuda::launched("layer_norm");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
