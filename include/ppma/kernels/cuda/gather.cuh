#pragma once
#include "ppma/core/names_begin.hpp"
// Rows by index on the GPU: a thread a pack of a row; for gradients a warp a part of a row that may
// have been taken: it finds in order by whom. The largest numbers of a row: a warp looks for the
// largest behind the one before, again and again.
//
// Floor of the gradients: what was taken is read and the rows are written; 128 images, 2 heads,
// 49 rows of 2048 bf16 taken once each: 24 us at 4.3 TB/s.

#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

template <class T>
__global__ void __launch_bounds__(256) top_k_rows(i64 rows, i64 n, i64 k, const T* x, i64* index) {
  using A = acc_t<T>;
  const i64 lane = threadIdx.x % 32;
  for (i64 row = cuda::first() / 32; row < rows; row += cuda::stride() / 32) {
    // places after (last, place) in the order of the result: smaller, or equal and further behind
    A last = 0;
    i64 place = -1;
    for (i64 j = 0; j < k; ++j) {
      A best = negative_infinity<A>();
      i64 at = n;
      for (i64 i = lane; i < n; i += 32) {
        A v = A(x[row * n + i]);
        if (is_nan(v)) v = negative_infinity<A>();
        const bool left = place < 0 || v < last || (v == last && i > place);
        if (left && (v > best || (v == best && i < at))) best = v, at = i;
      }
#pragma unroll
      for (int step = 16; step > 0; step /= 2) {
        const A other = __shfl_xor_sync(0xffffffffu, best, step);
        const i64 there = __shfl_xor_sync(0xffffffffu, at, step);
        if (other > best || (other == best && there < at)) best = other, at = there;
      }
      last = best, place = at;
      if (lane == 0) index[row * k + j] = at;
    }
  }
}

template <class T, int V>
__global__ void __launch_bounds__(256) gather_packs(GatherShape s, const RawElements<T, V>* x,
                                                    const i64* index, RawElements<T, V>* y) {
  const i64 packs = s.width / V, all = s.batch * s.taken * packs;
  for (i64 e = cuda::first(); e < all; e += cuda::stride()) {
    const i64 row = e / packs, from = index[row];
    RawElements<T, V> v{};
    if (from >= 0 && from < s.rows) v = x[(row / s.taken * s.rows + from) * packs + e % packs];
    y[e] = v;
  }
}

inline constexpr int scatter_places = 1024;  // looked through at a time

// Block (8 rows of x, 32 packs of their width): a warp a row, whose takers it finds in order.
template <class T, int V>
__global__ void __launch_bounds__(256)
    scatter_packs(GatherShape s, i64 groups, const T* dy, const i64* index, T* dx) {
  __shared__ int taken[scatter_places];
  __shared__ short takers[8][scatter_places];
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const i64 image = blockIdx.x / groups, row = blockIdx.x % groups * 8 + warp,
            at = (blockIdx.y * i64{32} + lane) * V;
  acc_t<T> sum[V] = {};
  for (i64 first = 0; first < s.taken; first += scatter_places) {
    const int n = static_cast<int>(::min(s.taken - first, i64{scatter_places}));
    if (first > 0) __syncthreads();  // the places before are still looked at
    for (int j = static_cast<int>(threadIdx.x); j < n; j += 256) {
      const i64 from = index[image * s.taken + first + j];
      taken[j] = from >= 0 && from < s.rows ? static_cast<int>(from) : -1;
    }
    __syncthreads();
    int found = 0;
    for (int j = lane; j - lane < n; j += 32) {
      const bool ours = j < n && taken[j] == static_cast<int>(row);
      const unsigned votes = __ballot_sync(0xffffffffu, ours);
      if (ours) takers[warp][found + __popc(votes & ((1u << lane) - 1))] = static_cast<short>(j);
      found += __popc(votes);
    }
    __syncwarp();
    if (at < s.width) {
      const T* const from = dy + (image * s.taken + first) * s.width + at;
#pragma unroll 4
      for (int i = 0; i < found; ++i) {
        acc_t<T> v[V];
        load_pack<V>(from + takers[warp][i] * s.width, v);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += v[k];
      }
    }
  }
  if (at < s.width && row < s.rows) store_pack<V>(dx + (image * s.rows + row) * s.width + at, sum);
}

}  // namespace detail

template <class T>
void top_k(Cuda, i64 rows, i64 n, i64 k, const T* x, i64* index) {
  if (rows == 0) return;
  detail::top_k_rows<<<cuda::blocks(rows * 32, 256), 256, 0, cuda::stream()>>>(rows, n, k, x,
                                                                               index);
  cuda::launched("top_k");
}

template <class T>
void gather_rows(Cuda, const GatherShape& s, const T* x, const i64* index, T* y) {
  if (s.batch * s.taken * s.width == 0) return;
  with_widest_pack<T>(s.width, [&](auto v) {
    constexpr int V = decltype(v)::value;
    using Raw = RawElements<T, V>;
    detail::gather_packs<T, V>
        <<<cuda::blocks(s.batch * s.taken * s.width / V, 256), 256, 0, cuda::stream()>>>(
            s, reinterpret_cast<const Raw*>(x), index, reinterpret_cast<Raw*>(y));
  });
  cuda::launched("gather_rows");
}

template <class T>
void scatter_rows(Cuda, const GatherShape& s, const T* dy, const i64* index, T* dx) {
  if (s.batch * s.rows * s.width == 0) return;
  with_pack<T>(s.width, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const i64 parts = (s.width / V + 31) / 32, groups = (s.rows + 7) / 8;
    check(s.batch * groups < (i64{1} << 31) && s.rows < (i64{1} << 31) && parts < 65536,
          "gather_rows: ", s.batch * s.rows, " rows of ", s.width,
          " elements are too many for one call");
    detail::scatter_packs<T, V>
        <<<dim3(static_cast<unsigned>(s.batch * groups), static_cast<unsigned>(parts)), 256, 0,
           cuda::stream()>>>(s, groups, dy, index, dx);
  });
  cuda::launched("gather_rows");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
