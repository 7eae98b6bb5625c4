#pragma once
#include "ppma/core/names_begin.hpp"
// The 1-D structured mask on the GPU: a thread a column of the mask, which it walks outwards from
// the diagonal; neighbours write next to each other. Floor: forward writes n x n entries a line
// once; backward reads them once by rows and once by columns.

#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/core/cuda.cuh"
#include "ppma/kernels/cpu/head.hpp"
#include "ppma/kernels/cpu/scan.hpp"
#include "ppma/kernels/cuda/table.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// A visiting order on the GPU, and behind it the rank of each token.
inline const i64* order_on_gpu(const i64* order, i64 n) {
  if (order == nullptr) return nullptr;
  std::vector<i64> both(order, order + n);
  both.resize(static_cast<std::size_t>(2 * n));
  for (i64 i = 0; i < n; ++i) both[static_cast<std::size_t>(n + order[i])] = i;
  return table_on_gpu(both);
}

__device__ __forceinline__ i64 visited(const i64* order, i64 i) { return order ? order[i] : i; }

// out (lines,n,n): a thread a line and token v. The threads of a warp are at the same row at a
// time.
template <class T>
__global__ void __launch_bounds__(128)
    line_mask_columns_of(i64 total, i64 n, const i64* order, const T* x, T* out) {
  using A = acc_t<T>;
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const i64 line = e / n, v = e - line * n, r = order ? order[n + v] : v;
    T* const column = out + line * n * n + v;
    column[v * n] = T(A(0));
    A sum = 0;
    for (i64 i = 1; i < n; ++i) {
      if (i <= r) continue;
      const i64 u = visited(order, i);
      column[u * n] = T(sum += A(x[line * n + u]));
    }
    sum = 0;
    for (i64 i = n - 1; i > 0; --i)
      if (i <= r) column[visited(order, i - 1) * n] = T(sum += A(x[line * n + visited(order, i)]));
  }
}

// dc (lines,n) from g (lines,n,n): a thread a token adds its column, then a warp a token its row.
template <class T>
__global__ void __launch_bounds__(128)
    line_mask_columns(i64 total, i64 n, const i64* rank, const T* g, acc_t<T>* dc) {
  using A = acc_t<T>;
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const i64 line = e / n, u = e - line * n, r = visited(rank, u);
    A sum = 0;
    for (i64 v = 0; v < n; ++v) {
      const i64 other = visited(rank, v);
      const A x = A(g[(line * n + v) * n + u]);
      sum += other < r ? x : other > r ? -x : A(0);
    }
    dc[e] = sum;
  }
}
template <class T>
__global__ void __launch_bounds__(128)
    line_mask_rows(i64 total, i64 n, const i64* rank, const T* g, acc_t<T>* dc) {
  using A = acc_t<T>;
  const i64 lane = threadIdx.x % 32;
  for (i64 e = cuda::first() / 32; e < total; e += cuda::stride() / 32) {
    const i64 r = visited(rank, e % n);
    A sum = 0;
    for (i64 v = lane; v < n; v += 32) {
      const i64 other = visited(rank, v);
      const A x = A(g[e * n + v]);
      sum += other < r ? x : other > r ? -x : A(0);
    }
    sum = sum_lanes(sum, 32);
    if (lane == 0) dc[e] += sum;
  }
}

// dx of the token visited i-th = the sum of dc from there on; of the first and of closed edges 0. A
// warp a line, from its end.
template <class T>
__global__ void __launch_bounds__(128)
    line_mask_decays(i64 lines, i64 n, const i64* order, const T* x, const acc_t<T>* dc, T* dx) {
  using A = acc_t<T>;
  const i64 lane = threadIdx.x % 32;
  for (i64 line = cuda::first() / 32; line < lines; line += cuda::stride() / 32) {
    A behind = 0;
    for (i64 k = lane; k - lane < n; k += 32) {
      const i64 i = n - 1 - k, u = k < n ? visited(order, i) : 0;
      const A sum = behind + running_sum(k < n ? dc[line * n + u] : A(0), static_cast<int>(lane));
      if (k < n) dx[line * n + u] = T(i > 0 && !is_closed(A(x[line * n + u])) ? sum : A(0));
      behind = __shfl_sync(all_lanes, sum, 31);
    }
  }
}

}  // namespace detail

template <class T>
void line_log_mask(Cuda, i64 lines, i64 n, const i64* order, const T* x, T* out) {
  detail::line_mask_columns_of<<<cuda::blocks(lines * n, 128), 128, 0, cuda::stream()>>>(
      lines * n, n, detail::order_on_gpu(order, n), x, out);
  cuda::launched("sequence_log_mask");
}

template <class T>
void line_log_mask_backward(Cuda, i64 lines, i64 n, const i64* order, const T* x, const T* g,
                            T* dx) {
  using A = acc_t<T>;
  const i64* const there = detail::order_on_gpu(order, n);
  const i64* const rank = there ? there + n : nullptr;
  const Workspace<A> dc(lines * n, Device::cuda);
  detail::line_mask_columns<<<cuda::blocks(lines * n, 128), 128, 0, cuda::stream()>>>(
      lines * n, n, rank, g, dc.data());
  detail::line_mask_rows<<<cuda::blocks(lines * n * 32, 128), 128, 0, cuda::stream()>>>(
      lines * n, n, rank, g, dc.data());
  detail::line_mask_decays<<<cuda::blocks(lines * 32, 128), 128, 0, cuda::stream()>>>(
      lines, n, there, x, static_cast<const A*>(dc.data()), dx);
  cuda::launched("sequence_log_mask");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
