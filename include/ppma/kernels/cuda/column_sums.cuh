#pragma once
#include "ppma/core/names_begin.hpp"
// Sums over rows on the GPU, in two stages whose order depends on the shape alone: blocks of rows,
// then the blocks.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// Threads over (rows, cols): `block.x` packs of columns next to each other, block.y rows at once,
// grid.y pieces of rows.
struct ColumnGrid {
  dim3 grid, block;
  i64 per_block;  // rows
};
inline ColumnGrid column_grid(i64 rows, i64 cols, int pack, i64 blocks = 528, i64 threads = 256) {
  const i64 packs = (cols + pack - 1) / pack;
  i64 x = 1;
  while (x < packs && x < 32) x *= 2;
  const i64 y = threads / x, tiles = (packs + x - 1) / x;
  const i64 most = std::clamp<i64>((rows + 4 * y - 1) / (4 * y), 1, 32768);
  const i64 pieces = std::clamp<i64>(blocks / tiles, 1, most);
  const i64 per_block = std::max<i64>(1, (rows + pieces - 1) / pieces);
  const i64 used = std::max<i64>(1, (rows + per_block - 1) / per_block);
  return {dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(used)),
          dim3(static_cast<unsigned>(x), static_cast<unsigned>(y)), per_block};
}

// sum (threads.y) of one value a thread, for threads.y == 0; the block is at most `most` threads.
template <class A, int most>
__device__ __forceinline__ A sum_block_rows(A value, A* shared) {
  const int at = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
  __syncthreads();
  shared[at] = value;
  for (int half = static_cast<int>(blockDim.y) / 2; half > 0; half /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.y) < half)
      shared[at] += shared[at + half * static_cast<int>(blockDim.x)];
  }
  return shared[at];
}

// partial (pieces, N, cols): N sums a column. term(r, c, sum) adds what row r has for the columns c
// .. c + V.
template <class A, int V, int N, class F>
__global__ void __launch_bounds__(256)
    column_pieces(i64 rows, i64 cols, i64 per_block, F term, A* partial) {
  __shared__ A shared[256];
  const i64 c = (static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x) * V;
  const i64 end = ::min(rows, (blockIdx.y + 1) * per_block);
  A sum[N][V] = {};
  if (c < cols) {
#pragma unroll 4
    for (i64 r = blockIdx.y * per_block + threadIdx.y; r < end; r += blockDim.y) term(r, c, sum);
  }
#pragma unroll
  for (int n = 0; n < N; ++n)
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const A total = sum_block_rows<A, 256>(sum[n][v], shared);
      if (threadIdx.y == 0 && c < cols)
        partial[(static_cast<i64>(blockIdx.y) * N + n) * cols + c + v] = total;
    }
}

// put(c, sum of partial (pieces, cols) over the pieces).
template <class A, class F>
__global__ void __launch_bounds__(1024)
    column_finish(i64 pieces, i64 cols, const A* partial, F put) {
  __shared__ A shared[1024];
  const i64 c = static_cast<i64>(blockIdx.x) * 32 + threadIdx.x;
  A sum = 0;
  if (c < cols) {
#pragma unroll 4
    for (i64 i = threadIdx.y; i < pieces; i += 32) sum += partial[i * cols + c];
  }
  sum = sum_block_rows<A, 1024>(sum, shared);
  if (threadIdx.y == 0 && c < cols) put(c, sum);
}
template <class A, class F>
void finish_columns(i64 pieces, i64 cols, const A* partial, F put, const char* op) {
  column_finish<<<static_cast<unsigned>((cols + 31) / 32), dim3(32, 32), 0, cuda::stream()>>>(
      pieces, cols, partial, put);
  cuda::launched(op);
}

// N sums over rows, given to put(n * cols + c, sum).
template <class A, int V, int N, class F, class Put>
void sum_columns_of(i64 rows, i64 cols, F term, Put put, const char* op) {
  const ColumnGrid g = column_grid(rows, cols, V);
  const Workspace<A> partial(static_cast<i64>(g.grid.y) * N * cols, Device::cuda);
  column_pieces<A, V, N>
      <<<g.grid, g.block, 0, cuda::stream()>>>(rows, cols, g.per_block, term, partial.data());
  cuda::launched(op);
  finish_columns(g.grid.y, N * cols, static_cast<const A*>(partial.data()), put, op);
}

template <class A>
struct PutSum {
  A* y;
  __device__ void operator()(i64 c, A sum) const { y[c] = sum; }
};

template <class T>
struct AddElement {
  const T* x;
  i64 cols;
  template <int V>
  __device__ void operator()(i64 r, i64 c, acc_t<T> (&sum)[1][V]) const {
    acc_t<T> v[V];
    load_pack<V>(x + r * cols + c, v);
#pragma unroll
    for (int i = 0; i < V; ++i) sum[0][i] += v[i];
  }
};

}  // namespace detail

template <class T>
void column_sums(Cuda, i64 rows, i64 cols, const T* x, acc_t<T>* y) {
  using A = acc_t<T>;
  if (cols == 0) return;
  with_pack<T>(cols, [&](auto v) {
    detail::sum_columns_of<A, decltype(v)::value, 1>(rows, cols, detail::AddElement<T>{x, cols},
                                                     detail::PutSum<A>{y}, "column_sums");
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
