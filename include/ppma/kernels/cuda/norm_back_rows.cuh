#pragma once
#include "ppma/core/names_begin.hpp"
// Backward of layer norm on the GPU: rows in registers, as in norm.cuh. A block adds its rows'
// share of the gradients of weight and bias in order, and the blocks' are added in order later.
// What a thread reads of its next row is on its way meanwhile, to places in shared memory that are
// the thread's own: there it takes no registers. What else reads the normalised rows may add to
// their gradient before it is used (norm_decay_backward.cuh).
//
// Floor: x, dy and what dx has read, dx written: 25,088 rows of 256 at 4.3 TB/s: 12 us. Measured
// there: 15, where 220 instructions a row of packs and thread count.

#include <algorithm>
#include <memory>
#include <utility>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/copy_async.cuh"
#include "ppma/kernels/cuda/later_sums.cuh"
#include "ppma/kernels/cuda/norm.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// a and b, each summed over `width` neighbouring lanes, a power of two. Even lanes go on with a,
/// odd ones with b: half of the exchanges.
template <class A>
__device__ __forceinline__ void sum_lanes_of_two(A& a, A& b, int width) {
  if (width == 1) return;
  const bool odd = threadIdx.x % 2 != 0;
  A v = (odd ? b : a) + __shfl_xor_sync(all_lanes, odd ? a : b, 1);
#pragma unroll
  for (int o = 2; o < 32; o *= 2) {
    const A far = __shfl_xor_sync(all_lanes, v, o);  // in any case: no branch
    if (o < width) v += far;
  }
  const A other = __shfl_xor_sync(all_lanes, v, 1);
  a = odd ? other : v, b = odd ? v : other;
}

/// Nothing else reads a norm's rows.
template <class T, int V, int K>
struct OnlyGradient {
  /// Of a block, and blocks that a multiprocessor has room for.
  static constexpr int threads = 256;
  static constexpr int blocks = !std::is_same_v<T, bf16> ? 1 : K == 1 ? 4 : 2;
  /// Channels of a pack at a time.
  static constexpr int part = V;
  /// Sums a channel, numbers kept in shared memory, and left there behind the sums.
  static constexpr int sums = 0, kept = 0, left = 0;
  struct Lane {
    __device__ Lane(const OnlyGradient&, int, int) {}
  };
  __device__ void fetch(Lane&, int, bool) const {}
  __device__ void start(Lane&) const {}
  template <class Lay>
  __device__ void keep(Lane&, acc_t<T>*, const Lay&) const {}
  template <class Sums>
  __device__ void add(Lane&, const acc_t<T>*, int, int, const acc_t<T> (&)[V], acc_t<T> (&)[V],
                      Sums&) const {}
  __device__ void leave(Lane&, acc_t<T>*) const {}
  template <int n, class Laid>
  __device__ void channels(int, int, int, const acc_t<T> (&)[n], const acc_t<T>*, const acc_t<T>*,
                           acc_t<T>*, const Laid&) const {}
  __device__ void finish(int, int, const acc_t<T>*) const {}
};

/// Where a block's numbers are in shared memory, in vectors of 16 bytes: what is under way for two
/// rows a thread, or later the sums of all threads; then what is kept, w first.
template <class T, int V, int K, class More>
struct NormBackPlaces {
  static constexpr int vector = 16 / static_cast<int>(sizeof(acc_t<T>)), threads = More::threads,
                       sums = (2 + More::sums) * K * V / vector * threads,
                       kept = std::max(2 * 3 * K * threads, sums + More::left / vector),
                       all = kept + (32 * K * V + More::kept) / vector;
};

// dx of rows in registers, and the rows' share of dw and db: partial (blocks, 2, cols).
// y = xhat w + b, xhat = (x - mean) rstd, g = dy w:  dx = rstd (g - mean(g) - xhat mean(g xhat))
// with xhat as a multiple of x and a constant: as exact as x and mean are.
// `more` keeps numbers in shared memory, is told which row a lane fetches and when it begins with
// it, adds to dy of each pack, and has sums of its own.
template <class T, int V, int K, class More>
__global__ void __launch_bounds__(More::threads, More::blocks)
    layer_norm_back_rows(int rows, int cols, int shift, const T* x, const acc_t<T>* w,
                         const acc_t<T>* mean, const acc_t<T>* rstd, const T* dy, T* dx,
                         bool accumulate, acc_t<T>* partial, More more) {
  using A = acc_t<T>;
  using Places = NormBackPlaces<T, V, K, More>;
  constexpr int part = More::part, threads = More::threads;
  extern __shared__ uint4 staged[];  // x, dy and what dx has, of this row and the next
  // A row has `width` lanes, 2 to the power of `shift`.
  const int tid = static_cast<int>(threadIdx.x), width = 1 << shift, lane = tid & (width - 1),
            in_block = threads >> shift;
  A sums[2 + More::sums][K][V] = {};  // of w, of b, and others
  const auto place = [tid](int stage, int what, int k) {
    return staged + ((stage * 3 + what) * K + k) * threads + tid;
  };
  const auto copy = [](uint4* to, const T* from, bool there) {
    copy_async_once(reinterpret_cast<bf16*>(to), reinterpret_cast<const bf16*>(from), there);
  };
  const auto numbers = [](const uint4* from, A(&to)[V]) {
    load_pack<V>(reinterpret_cast<const T*>(from), to);
  };
  typename More::Lane own(more, lane, width);
  A next_mean, next_rstd;
  const auto fetch = [&](int r, int stage) {
    const bool there = r < rows;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * width + lane) * V;
      const bool mine = there && c < cols;
      const i64 at = mine ? static_cast<i64>(r) * cols + c : 0;
      copy(place(stage, 0, k), x + at, mine);
      copy(place(stage, 1, k), dy + at, mine);
      if (accumulate) copy(place(stage, 2, k), dx + at, mine);
    }
    copies_issued();
    next_mean = there ? mean[r] : A(0), next_rstd = there ? rstd[r] : A(0);
    more.fetch(own, r, there);
  };
  const A share = A(1) / static_cast<A>(cols);
  const int step = static_cast<int>(gridDim.x) * in_block, row = tid >> shift;
  int first = static_cast<int>(blockIdx.x) * in_block;
  fetch(first + row, 0);
  // A parameter of channels as lanes take it, a few channels at a time: those of a pack are `width`
  // lanes apart. Zeros behind the last.
  const auto lay = [&](A* to, const A* from) {
#pragma unroll
    for (int turn = 0; turn < (32 * K * V + threads - 1) / threads; ++turn) {
      const int at = turn * threads + tid, n = at / part >> shift,
                c = ((n * part / V << shift) + (at / part & (width - 1))) * V + n * part % V +
                    at % part;
      if (at < K * V << shift) copy_async_one(to + at, from + (c < cols ? c : 0), c < cols);
    }
  };
  A* const factors = reinterpret_cast<A*>(staged + Places::kept);
  A* const kept = factors + 32 * K * V;
  lay(factors, w);
  more.keep(own, kept, lay);
  copies_issued();
  copies_done<0>();
  __syncthreads();
  for (int stage = 0; first < rows; first += step, stage ^= 1) {
    copies_done<0>();
    const A s = next_rstd, offset = -next_mean * s;  // xhat = s x + offset
    more.start(own);
    if (rows - first > step) fetch(first + row + step, stage ^ 1);
    A g[K][V];
    A sum_g = 0, sum_gx = 0;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      A xhat[V];
      numbers(place(stage, 0, k), xhat);
      numbers(place(stage, 1, k), g[k]);
      // A few channels at a time: what they need of parameters is then asked for late, and lies in
      // few registers.
#pragma unroll
      for (int from = 0; from < V; from += part) {
        asm volatile("" ::: "memory");
        A wk[part];
        load_pack<part>(factors + (((k * V + from) / part << shift) + lane) * part, wk);
#pragma unroll
        for (int i = from; i < from + part; ++i) xhat[i] = s * xhat[i] + offset;
        more.add(own, kept, k, from, xhat, g[k], sums);
#pragma unroll
        for (int i = from; i < from + part; ++i) {
          // where there is nothing, dy and rstd are 0
          const A h = xhat[i], d = g[k][i], gw = d * wk[i - from];
          g[k][i] = gw;
          sums[0][k][i] += d * h, sums[1][k][i] += d;
          sum_g += gw, sum_gx += gw * h;
        }
      }
    }
    if (dx == nullptr) continue;
    sum_lanes_of_two(sum_g, sum_gx, width);
    // dx = s g + slope x + level
    const A slope = -s * s * share * sum_gx, level = -s * share * (sum_g + offset * sum_gx);
    const int r = first + row;
    if (r >= rows) continue;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * width + lane) * V;
      if (c >= cols) continue;
      A from[V];
      numbers(place(stage, 0, k), from);
#pragma unroll
      for (int i = 0; i < V; ++i) g[k][i] = s * g[k][i] + (slope * from[i] + level);
      if (accumulate) {
        A before[V];
        numbers(place(stage, 2, k), before);
#pragma unroll
        for (int i = 0; i < V; ++i) g[k][i] += before[i];
      }
      store_pack<V>(dx + static_cast<i64>(r) * cols + c, g[k]);
    }
  }
  // The block's rows are added in order. All threads leave their sums where the stages were, vector
  // v of them at v threads + tid; then each adds some vectors over the rows.
  constexpr int vector = Places::vector, of_pack = V / vector;
  A* const left = reinterpret_cast<A*>(staged + Places::sums);
  const auto numbers_at = [&](int at) { return reinterpret_cast<A*>(staged + at); };
  __syncthreads();
#pragma unroll
  for (int v = 0; v < (2 + More::sums) * K * of_pack; ++v) {
    A some[vector];
#pragma unroll
    for (int i = 0; i < vector; ++i)
      some[i] = sums[v / of_pack / K][v / of_pack % K][v % of_pack * vector + i];
    store_pack<vector>(numbers_at(v * threads + tid), some);
  }
  more.leave(own, left);
  __syncthreads();
#pragma unroll 1
  for (int at = tid; at < ((2 + More::sums) * K * of_pack) << shift; at += threads) {
    const int v = at >> shift, n = v / of_pack / K, k = v / of_pack % K,
              from = v % of_pack * vector, c = ((k << shift) + lane) * V + from;
    if (c >= cols) continue;
    A total[vector] = {};
#pragma unroll 1
    for (int q = 0; q < in_block; q += threads / 32)
#pragma unroll
      for (int i = 0; i < threads / 32; ++i) {
        A some[vector];
        load_pack<vector>(numbers_at(v * threads + ((q + i) << shift) + lane), some);
#pragma unroll
        for (int e = 0; e < vector; ++e) total[e] += some[e];
      }
    if (n < 2)
      store_pack<vector>(partial + (static_cast<i64>(blockIdx.x) * 2 + n) * cols + c, total);
    else  // and how it finds a parameter of channel c + e
      more.channels(n - 2, c, width, total, factors, kept, left, [&](const A* of, int e) {
        const int i = k * V + from + e;
        return of[((i / part << shift) + lane) * part + i % part];
      });
  }
  more.finish(cols, width, left);
}

/// Whether the rows of a norm's backward lie in registers.
template <class T>
bool norm_back_in_registers(i64 rows, i64 cols) {
  return cols % pack_width<T> == 0 && cols <= 64 * pack_width<T> && rows < (i64{1} << 30);
}
/// Runs it then. make(constant K, blocks) gives what else reads the rows.
template <class T, class Make>
void run_layer_norm_back_rows(i64 rows, i64 cols, const T* x, const acc_t<T>* w,
                              const acc_t<T>* mean, const acc_t<T>* rstd, const T* dy, T* dx,
                              bool accumulate, acc_t<T>* dw, acc_t<T>* db, const char* op,
                              Make&& make) {
  using A = acc_t<T>;
  constexpr int V = pack_width<T>;
  const int width = row_width(cols, V);
  int shift = 0;
  while (1 << shift < width) ++shift;
  const auto run = [&](auto k) {
    using More = std::decay_t<decltype(make(k, i64{}))>;
    using Places = NormBackPlaces<T, V, decltype(k)::value, More>;
    const i64 most = (std::is_same_v<T, bf16> ? More::blocks : 4) *
                     static_cast<i64>(cuda::device().multiProcessorCount),
              blocks = std::clamp<i64>((rows * width + 4 * More::threads - 1) / (4 * More::threads),
                                       1, most);
    auto partial = std::make_unique<const Workspace<A>>(blocks * 2 * cols, Device::cuda);
    const More more = make(k, blocks);
    constexpr int shared = 16 * Places::all;
    const auto kernel = layer_norm_back_rows<T, V, decltype(k)::value, More>;
    allow_shared(kernel, shared, op);
    kernel<<<static_cast<unsigned>(blocks), More::threads, shared, cuda::stream()>>>(
        static_cast<int>(rows), static_cast<int>(cols), shift, x, w, mean, rstd, dy, dx, accumulate,
        partial->data(), more);
    cuda::launched(op);
    finish_columns_later(std::move(partial), blocks, 2 * cols, ColumnPlaces<A>(dw, cols, db, cols),
                         op);
  };
  if (cols <= 32 * V)
    run(std::integral_constant<int, 1>{});
  else
    run(std::integral_constant<int, 2>{});
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
