#pragma once
#include "ppma/core/names_begin.hpp"
// Sums over rows on the GPU, in two stages whose order depends on the shape alone: blocks of rows,
// then the blocks.

#include <algorithm>
#include <memory>
#include <utility>

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
inline ColumnGrid column_grid(i64 rows, i64 cols, int pack,
                              i64 blocks = 4 * cuda::device().multiProcessorCount,
                              i64 threads = 256) {
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

/// Where sums of columns go: the first end[0] to to[0], those up to end[1] to to[1], the rest to
/// to[2]; to nowhere where that is null. The first come as (taps, channels) and go as (channels,
/// taps).
template <class A>
struct ColumnPlaces {
  A* to[3];
  i64 end[2], taps = 1;

  __host__ __device__ explicit ColumnPlaces(A* y)
      : to{y, nullptr, nullptr}, end{i64{1} << 62, i64{1} << 62} {}
  __host__ __device__ ColumnPlaces(A* first, i64 firsts, A* second, i64 of_second,
                                   A* third = nullptr)
      : to{first, second, third}, end{firsts, firsts + of_second} {}

  __device__ void put(i64 c, A sum) const {
    const int part = c < end[0] ? 0 : c < end[1] ? 1 : 2;
    if (to[part] == nullptr) return;
    if (part > 0) c -= end[part - 1];
    if (part == 0 && taps > 1) c = c % (end[0] / taps) * taps + c / (end[0] / taps);
    to[part][c] = sum;
  }
};

/// Columns that a block of 1024 threads finishes, a power of two: the fewer pieces, the more.
inline int columns_at_once(i64 pieces) { return pieces > 64 ? 32 : pieces > 8 ? 128 : 1024; }

// Sums of partial (pieces, cols) over the pieces, of the block's columns `first` .. + at_once.
template <class A>
__device__ __forceinline__ void finish_block(i64 pieces, i64 cols, const A* partial, i64 first,
                                             int at_once, const ColumnPlaces<A>& to) {
  __shared__ A shared[1024];
  const int thread = static_cast<int>(threadIdx.x), y = thread >> (__ffs(at_once) - 1),
            rows = 1024 >> (__ffs(at_once) - 1);
  const i64 c = first + (thread & (at_once - 1));
  A sum = 0;
  if (c < cols) {
#pragma unroll 4
    for (i64 i = y; i < pieces; i += rows) sum += partial[i * cols + c];
  }
  shared[thread] = sum;
  for (int half = rows / 2; half > 0; half /= 2) {
    __syncthreads();
    if (y < half) shared[thread] += shared[thread + half * at_once];
  }
  if (y == 0 && c < cols) to.put(c, shared[thread]);
}

template <class A>
__global__ void __launch_bounds__(1024)
    column_finish(i64 pieces, i64 cols, const A* partial, int at_once, ColumnPlaces<A> to) {
  finish_block(pieces, cols, partial, static_cast<i64>(blockIdx.x) * at_once, at_once, to);
}
template <class A>
void finish_columns(i64 pieces, i64 cols, const A* partial, const ColumnPlaces<A>& to,
                    const char* op) {
  const int at_once = columns_at_once(pieces);
  column_finish<<<static_cast<unsigned>((cols + at_once - 1) / at_once), 1024, 0, cuda::stream()>>>(
      pieces, cols, partial, at_once, to);
  cuda::launched(op);
}

/// The first stage of N sums over rows: (pieces, N, cols).
template <class A>
struct ColumnPieces {
  std::unique_ptr<const Workspace<A>> partial;
  i64 pieces;
};
template <class A, int V, int N, class F>
ColumnPieces<A> sum_pieces_of(i64 rows, i64 cols, F term, const char* op,
                              i64 blocks = 4 * cuda::device().multiProcessorCount,
                              i64 threads = 256) {
  const ColumnGrid g = column_grid(rows, cols, V, blocks, threads);
  const i64 pieces = g.grid.y;
  auto partial = std::make_unique<const Workspace<A>>(pieces * N * cols, Device::cuda);
  column_pieces<A, V, N>
      <<<g.grid, g.block, 0, cuda::stream()>>>(rows, cols, g.per_block, term, partial->data());
  cuda::launched(op);
  return {std::move(partial), pieces};
}
// Sum n of column c to place n * cols + c.
template <class A, int V, int N, class F>
void sum_columns_of(i64 rows, i64 cols, F term, const ColumnPlaces<A>& to, const char* op,
                    i64 blocks = 4 * cuda::device().multiProcessorCount, i64 threads = 256) {
  const ColumnPieces<A> sums = sum_pieces_of<A, V, N>(rows, cols, term, op, blocks, threads);
  finish_columns(sums.pieces, N * cols, static_cast<const A*>(sums.partial->data()), to, op);
}

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

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
