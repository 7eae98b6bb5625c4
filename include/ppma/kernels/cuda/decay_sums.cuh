#pragma once
#include "ppma/core/names_begin.hpp"
// On the GPU: decay sums along the lines of a grid, and back from their gradients; and how a thread
// of the attentions holds one vector of a head.
//
//   a[i,j] = sum over 1 <= m <= j of ln alpha[i,m]
//         b[i,j] = sum over 1 <= m <= i of ln beta[m,j]
//
// Masks are differences of two sums here: a walk outwards from every query, as on the CPU, would
// not be shared by threads. A closed edge (-1e9, -infinity) must not make a sum so large that the
// decays behind it are lost: it counts for a little more than a limit, and a path whose sum reaches
// the limit is closed, whatever the score.

#include <limits>
#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/head.hpp"
#include "ppma/kernels/cuda/pack.cuh"
#include "ppma/kernels/cuda/table.cuh"

namespace ppma::inline PPMA_ABI::kernels::polyline_gpu {

/// A path whose log decays sum to -limit or less is closed: the weight of its key is 0, and so are
/// its gradients.
///   bf16   single sums: right to 1e-3 with ten closed edges in a line, to 1e-2 with 64
///   float  sums of twice the digits (Sum): right to 1e-6
inline constexpr float limit_bf16 = 1024, limit_wide = 1e6f;
/// What an edge counts for; a closed one for so much that no rounding opens it. NaN stays NaN.
template <class A>
__device__ __forceinline__ A counted(A log_decay, float limit) {
  return log_decay <= A(-limit) ? A(-limit) * A(1.0625f) : log_decay;
}
/// Minus a path's log mask, from the distance of its sums.
template <class A>
__device__ __forceinline__ A closing(A distance) {
  return distance >= A(limit_wide) ? positive_infinity<A>() : distance;
}
/// The least finite score. (A running maximum begins there: from -infinity a closed path's would be
/// NaN.)
template <class A>
inline constexpr A lowest = -std::numeric_limits<A>::max();

/// A running sum hi + lo.
template <class A>
struct Sum {
  A hi, lo;
};
template <class A>
__device__ __forceinline__ A distance(Sum<A> x, Sum<A> y) {
  return ::fabs((x.hi - y.hi) + (x.lo - y.lo));
}

/// In which orders the places of each row (h,w) and column (w,h) are visited; null: as they lie.
struct LineOrders {
  const int *rows = nullptr, *columns = nullptr;

  /// Place m of the order of line r, which are the rows and then the columns.
  __device__ __forceinline__ int place(int r, int h, int w, int m) const {
    const int* const order = r < h ? rows : columns;
    return order == nullptr ? m : order[(r < h ? r * w : (r - h) * h) + m];
  }
};

/// a and b (planes, h, w) of the log decays; a thread a line.
template <class A>
__global__ void __launch_bounds__(128)
    decay_sums(i64 planes, int h, int w, LineOrders orders, const A* log_alpha, const A* log_beta,
               Sum<A>* a, Sum<A>* b) {
  const i64 lines = planes * (h + w);
  for (i64 e = cuda::first(); e < lines; e += cuda::stride()) {
    const int r = static_cast<int>(e % (h + w));
    const bool row = r < h;
    const i64 at = e / (h + w) * h * w + (row ? r * w : r - h);
    const int n = row ? w : h, step = row ? 1 : w;
    const A* const from = row ? log_alpha : log_beta;
    Sum<A>* const to = row ? a : b;
    double sum = 0;
    for (int m = 0; m < n; ++m) {
      const i64 here = at + static_cast<i64>(orders.place(r, h, w, m)) * step;
      if (m > 0) sum += static_cast<double>(counted(from[here], limit_wide));
      const A hi = static_cast<A>(sum);
      to[here] = {hi, static_cast<A>(sum - static_cast<double>(hi))};
    }
  }
}

/// Those of an attention's arguments, on the GPU.
template <class T>
LineOrders line_orders(const AttentionArgs<T>& in) {
  const auto sent = [&](const i64* order) -> const int* {
    if (order == nullptr) return nullptr;
    std::vector<int> table;
    detail::append(table, order, in.shape.tokens());
    return detail::table_on_gpu(table);
  };
  return {sent(in.row_orders), sent(in.column_orders)};
}

template <class A>
void run_decay_sums(const AttentionShape& x, const A* log_alpha, const A* log_beta, Sum<A>* a,
                    Sum<A>* b, const LineOrders& orders = {}) {
  const i64 planes = x.batch * x.heads, lines = planes * (x.height + x.width);
  decay_sums<<<cuda::blocks(lines, 128), 128, 0, cuda::stream()>>>(
      planes, static_cast<int>(x.height), static_cast<int>(x.width), orders, log_alpha, log_beta, a,
      b);
  cuda::launched("decay sums");
}

/// v = the d channels of one token and head, 0 beyond them.
template <int D, class T, class A>
__device__ __forceinline__ void load_vector(const T* p, int d, A (&v)[D]) {
  constexpr int V = pack_width<T> < D ? pack_width<T> : D;
  if (d == D) {
#pragma unroll
    for (int c = 0; c < D; c += V) load_pack<V>(p + c, reinterpret_cast<A(&)[V]>(v[c]));
  } else {
#pragma unroll
    for (int c = 0; c < D; ++c) v[c] = c < d ? A(p[c]) : A(0);
  }
}
template <int D, class T, class A>
__device__ __forceinline__ void store_vector(T* p, int d, const A (&v)[D]) {
  constexpr int V = pack_width<T> < D ? pack_width<T> : D;
  if (d == D) {
#pragma unroll
    for (int c = 0; c < D; c += V) store_pack<V>(p + c, reinterpret_cast<const A(&)[V]>(v[c]));
  } else {
#pragma unroll
    for (int c = 0; c < D; ++c)
      if (c < d) p[c] = T(v[c]);
  }
}
template <int D, class A>
__device__ __forceinline__ A dot(const A (&a)[D], const A* b) {
  A even = 0, odd = 0;
#pragma unroll
  for (int c = 0; c < D; c += 2) even += a[c] * b[c], odd += a[c + 1] * b[c + 1];
  return even + odd;
}
template <int D, class A>
__device__ __forceinline__ void add_scaled(A (&y)[D], A s, const A* x) {
#pragma unroll
  for (int c = 0; c < D; ++c) y[c] += s * x[c];
}

/// Calls f with the head width rounded up to what the kernels are made for.
template <class F>
void with_head_width(i64 d, const char* op, F&& f) {
  if (d <= 16)
    f(std::integral_constant<int, 16>{});
  else if (d <= 32)
    f(std::integral_constant<int, 32>{});
  else if (d <= 64)
    f(std::integral_constant<int, 64>{});
  else if (d <= 128)
    f(std::integral_constant<int, 128>{});
  else
    fail(op, ": heads of ", d, " channels are too wide for the GPU (128 at most); use more heads");
}

}  // namespace ppma::inline PPMA_ABI::kernels::polyline_gpu

#include "ppma/core/names_end.hpp"
