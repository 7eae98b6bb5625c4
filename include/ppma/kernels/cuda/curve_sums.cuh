#pragma once
#include "ppma/core/names_begin.hpp"
// Sums along a curve that visits all tokens, on the GPU (kernels/cpu/curve_sums.hpp). A block takes
// a line and walks along the curve, a visit a thread; sums are in double. A sum between two visits
// is the difference of two running sums: a closed edge counts for 1e6 there, not for infinity, so
// that it stays closed and takes no digits from others. Floor: a line is read and written once.

#include <vector>

#include "ppma/kernels/cpu/scan.hpp"
#include "ppma/kernels/cuda/decay_sums.cuh"
#include "ppma/kernels/cuda/table.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int curve_threads = 256;

/// v summed over the block's threads up to this one; `total`: over all. For all threads of a block.
__device__ __forceinline__ double block_running_sum(double v, double& total) {
  __shared__ double of_warp[curve_threads / 32];
  const int warp = static_cast<int>(threadIdx.x / 32), lane = static_cast<int>(threadIdx.x % 32);
  v = running_sum(v, lane);
  __syncthreads();  // what was there has been read
  if (lane == 31) of_warp[warp] = v;
  __syncthreads();
  double before = 0;
  total = 0;
#pragma unroll
  for (int w = 0; w < curve_threads / 32; ++w) {
    if (w < warp) before += of_warp[w];
    total += of_warp[w];
  }
  return before + v;
}

/// store(t, sum of value(0) .. value(t)) for the n places t of a curve; for all threads of a block.
template <class Value, class Store>
__device__ __forceinline__ void running_sums(int n, const Value& value, const Store& store) {
  double before = 0, total;
  for (int first = 0; first < n; first += curve_threads) {
    const int t = first + static_cast<int>(threadIdx.x);
    const double sum = before + block_running_sum(t < n ? value(t) : 0.0, total);
    if (t < n) store(t, sum);
    before += total;
  }
}

// table: order, first and, visit by visit, the one whose sum begins there, -1 where none does.
template <class T>
__global__ void __launch_bounds__(curve_threads)
    sums_between(int n, const int* table, const T* x, T* y, double* sums) {
  const int *const order = table, *const first = table + n;
  x += static_cast<i64>(blockIdx.x) * n, y += static_cast<i64>(blockIdx.x) * n,
      sums += static_cast<i64>(blockIdx.x) * n;
  running_sums(
      n,
      [&](int t) {
        return t > 0 ? polyline_gpu::counted(static_cast<double>(x[order[t]]),
                                             polyline_gpu::limit_wide)
                     : 0.0;
      },
      [&](int t, double sum) { sums[t] = sum; });
  __syncthreads();
  for (int t = static_cast<int>(threadIdx.x); t < n; t += curve_threads) {
    const int from = first[t];
    y[order[t]] = T(static_cast<acc_t<T>>(from <= t ? sums[t] - sums[from - 1] : 0.0));
  }
}
template <class T>
__global__ void __launch_bounds__(curve_threads)
    sums_between_backward(int n, const int* table, const T* x, const T* dy, T* dx) {
  const int *const order = table, *const first = table + n, *const begins = table + 2 * n;
  x += static_cast<i64>(blockIdx.x) * n, dy += static_cast<i64>(blockIdx.x) * n,
      dx += static_cast<i64>(blockIdx.x) * n;
  running_sums(
      n,
      [&](int t) {  // sums that begin here, less those that ended before
        const int b = begins[t];
        const double more = b >= 0 ? static_cast<double>(dy[order[b]]) : 0.0;
        return t > 0 && first[t - 1] < t ? more - static_cast<double>(dy[order[t - 1]]) : more;
      },
      [&](int t, double sum) {
        const int u = order[t];
        const bool closed = static_cast<double>(x[u]) <= -polyline_gpu::limit_wide;
        dx[u] = T(static_cast<acc_t<T>>(t > 0 && !closed ? sum : 0.0));
      });
}

/// Their table, on the GPU. No sum begins at visit 0, and no two at one.
inline const int* curve_table(i64 n, const i64* order, const i64* first) {
  std::vector<int> table, begins(static_cast<std::size_t>(n), -1);
  append(table, order, n), append(table, first, n);
  for (i64 t = 0; t < n; ++t)
    if (first[t] <= t) begins[static_cast<std::size_t>(first[t])] = static_cast<int>(t);
  table.insert(table.end(), begins.begin(), begins.end());
  return table_on_gpu(table);
}

}  // namespace detail

/// As on the CPU; what first says is that every sum begins behind another token of its own.
template <class T>
void curve_sums(Cuda, i64 lines, i64 n, const i64* order, const i64* first, const T* x, T* y) {
  const Workspace<double> sums(lines * n, Device::cuda);
  detail::sums_between<<<static_cast<unsigned>(lines), detail::curve_threads, 0, cuda::stream()>>>(
      static_cast<int>(n), detail::curve_table(n, order, first), x, y, sums.data());
  cuda::launched("sums along a curve");
}
template <class T>
void curve_sums_backward(Cuda, i64 lines, i64 n, const i64* order, const i64* first, const T* x,
                         const T* dy, T* dx) {
  detail::sums_between_backward<<<static_cast<unsigned>(lines), detail::curve_threads, 0,
                                  cuda::stream()>>>(
      static_cast<int>(n), detail::curve_table(n, order, first), x, dy, dx);
  cuda::launched("sums along a curve");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
