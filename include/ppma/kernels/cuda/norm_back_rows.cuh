#pragma once
#include "ppma/core/names_begin.hpp"
// Backward of layer norm on the GPU: rows in registers, as in norm.cuh. A block adds its rows'
// share of the gradients of weight and bias in order, and the blocks' are added in order later.
// What a thread reads of its next row is on its way meanwhile, to places in shared memory that are
// the thread's own: there it takes no registers. What else reads the normalised rows may add to
// their gradient before it is used (norm_decay_backward.cuh).
//
// Floor: x, dy and what dx has read, dx written: 25,088 rows of 256 at 4.3 TB/s: 12 us.

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
  /// Blocks of 256 threads that a multiprocessor has room for.
  static constexpr int blocks = !std::is_same_v<T, bf16> ? 1 : K == 1 ? 4 : 2;
  /// Channels of a pack at a time.
  static constexpr int part = V;
  struct Lane {
    __device__ Lane(const OnlyGradient&, int, int) {}
  };
  __device__ void fetch(Lane&, int, bool) const {}
  __device__ void start(Lane&) const {}
  i64 kept() const { return 0; }
  __device__ void keep(acc_t<T>*) const {}
  __device__ void add(Lane&, const acc_t<T>*, int, int, const acc_t<T> (&)[V],
                      acc_t<T> (&)[V]) const {}
  template <class Sum>
  __device__ void finish(Lane&, int, const acc_t<T>*, acc_t<T>*, const Sum&) const {}
};

/// Vectors of 16 bytes that a block has under way.
template <int K>
inline constexpr int norm_back_stages = 2 * 3 * K * 256;

// dx of rows in registers, and the rows' share of dw and db: partial (blocks, 2, cols).
// y = xhat w + b, xhat = (x - mean) rstd, g = dy w:  dx = rstd (g - mean(g) - xhat mean(g xhat))
// with xhat as a multiple of x and a constant: as exact as x and mean are.
// `more` keeps numbers in shared memory, is told which row a lane fetches and when it begins with
// it, adds to dy of each pack, and has sums of its own.
template <class T, int V, int K, class More>
__global__ void __launch_bounds__(256, More::blocks)
    layer_norm_back_rows(int rows, int cols, int shift, const T* x, const acc_t<T>* w,
                         const acc_t<T>* mean, const acc_t<T>* rstd, const T* dy, T* dx,
                         bool accumulate, acc_t<T>* partial, More more) {
  using A = acc_t<T>;
  constexpr int part = More::part;
  extern __shared__ uint4 staged[];  // x, dy and what dx has, of this row and the next
  // A row has `width` lanes, 2 to the power of `shift`.
  const int tid = static_cast<int>(threadIdx.x), width = 1 << shift, lane = tid & (width - 1),
            in_block = 256 >> shift;
  A sum_w[K][V] = {}, sum_b[K][V] = {};
  const auto place = [tid](int stage, int what, int k) {
    return staged + ((stage * 3 + what) * K + k) * 256 + tid;
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
    next_mean = there ? mean[r] : A(0), next_rstd = there ? rstd[r] : A(0);
    more.fetch(own, r, there);
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
  };
  const A share = A(1) / static_cast<A>(cols);
  const int step = static_cast<int>(gridDim.x) * in_block, row = tid >> shift;
  int first = static_cast<int>(blockIdx.x) * in_block;
  fetch(first + row, 0);
  // w as lanes take it, a few channels at a time: those of a pack are `width` lanes apart. Zeros
  // behind the last.
  A* const factors = reinterpret_cast<A*>(staged + norm_back_stages<K>);
  for (int at = tid; at < K * V << shift; at += 256) {
    const int n = at / part >> shift,
              c = ((n * part / V << shift) + (at / part & (width - 1))) * V + n * part % V +
                  at % part;
    factors[at] = c < cols ? w[c] : A(0);
  }
  more.keep(factors + K * V * 32);
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
        more.add(own, factors + K * V * 32, k, from, xhat, g[k]);
#pragma unroll
        for (int i = from; i < from + part; ++i) {
          // where there is nothing, dy and rstd are 0
          const A h = xhat[i], d = g[k][i], gw = d * wk[i - from];
          g[k][i] = gw;
          sum_w[k][i] += d * h, sum_b[k][i] += d;
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
  // The block's rows are added in order, where the stages were: channel i of pack k of lane l in
  // row q is at 256 (k V + i) + q width + l.
  static_assert((K * V * 256 + 32 * K * V + 64) * sizeof(A) <= norm_back_stages<K> * sizeof(uint4));
  A* const shared = reinterpret_cast<A*>(staged);
  const auto sum_rows = [&](const A(&v)[K][V], const auto& put) {
    __syncthreads();
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int i = 0; i < V; ++i) shared[(k * V + i) * 256 + tid] = v[k][i];
    __syncthreads();
    for (int at = tid; at < K * V << shift; at += 256) {
      const int i = at >> shift, l = at & (width - 1), c = ((i / V << shift) + l) * V + i % V;
      A total = 0;
      for (int q = 0; q < in_block; ++q) total += shared[i * 256 + (q << shift) + l];
      if (c < cols) put(c, total);
    }
  };
#pragma unroll
  for (int which = 0; which < 2; ++which)
    sum_rows(which ? sum_b : sum_w, [&](int c, A total) {
      partial[(static_cast<i64>(blockIdx.x) * 2 + which) * cols + c] = total;
    });
  more.finish(own, width, w, shared, sum_rows);
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
    const i64 most = (std::is_same_v<T, bf16> ? More::blocks : 4) *
                     static_cast<i64>(cuda::device().multiProcessorCount),
              blocks = std::clamp<i64>((rows * width + 1023) / 1024, 1, most);
    auto partial = std::make_unique<const Workspace<A>>(blocks * 2 * cols, Device::cuda);
    const More more = make(k, blocks);
    const i64 shared = norm_back_stages<decltype(k)::value> * static_cast<i64>(sizeof(uint4)) +
                       (decltype(k)::value * V * 32 + more.kept()) * static_cast<i64>(sizeof(A));
    const auto kernel = layer_norm_back_rows<T, V, decltype(k)::value, More>;
    allow_shared(kernel, static_cast<int>(shared), op);
    kernel<<<static_cast<unsigned>(blocks), 256, static_cast<unsigned>(shared), cuda::stream()>>>(
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
