#pragma once
#include "ppma/core/names_begin.hpp"
// Running sums of the log decays of two sequences, and back: what scans.cuh's masks are made of. A
// sum is a pair high + low, whose differences are taken apart: high - high rounds as the difference
// does, not as the sums, which grow along all tokens. An edge counts for its limit at most
// (decay_sums.cuh).

#include <vector>

#include "ppma/kernels/cuda/curve_sums.cuh"
#include "ppma/kernels/cuda/decay_sums.cuh"
#include "ppma/kernels/cuda/whole/pieces.cuh"

namespace ppma::inline PPMA_ABI::kernels::scans_gpu {

using polyline_gpu::Sum;

/// The order of each sequence (2,N), and when each token is visited in both (N, padded with zeros
/// to tiles of 64), on the GPU.
struct Orders {
  const int* order;
  const int2* visits;

  Orders(const i64* orders, i64 n) {
    const std::size_t padded = static_cast<std::size_t>((n + 63) / 64 * 64);
    std::vector<int> table(2 * padded, 0);
    for (i64 t = 0; t < 2 * n; ++t)
      table[static_cast<std::size_t>(2 * orders[t] + t / n)] = static_cast<int>(t % n);
    detail::append(table, orders, 2 * n);
    const int* const there = detail::table_on_gpu(table);
    visits = reinterpret_cast<const int2*>(there), order = there + 2 * padded;
  }
};

/// Where a head, a sequence and a token have a number.
struct Places {
  i64 head, sequence, token;
  PPMA_HD i64 at(i64 h, int s, int t) const { return h * head + s * sequence + t * token; }
};

/// c of both sequences, and `far` up to `padded` tokens. A block a head and sequence.
template <class A>
__global__ void __launch_bounds__(detail::curve_threads)
    scan_sums(int n, int padded, const int* orders, const A* log_a, const A* log_b, float limit,
              Places places, Sum<A>* to) {
  const i64 head = blockIdx.x / 2;
  const int sequence = static_cast<int>(blockIdx.x % 2);
  const int* const order = orders + sequence * n;
  const A* const from = (sequence == 0 ? log_a : log_b) + head * n;
  detail::running_sums(
      n,
      [&](int t) {
        return t > 0 ? static_cast<double>(polyline_gpu::counted(from[order[t]], limit)) : 0.0;
      },
      [&](int t, double sum) {
        const A high = static_cast<A>(sum);
        to[places.at(head, sequence, order[t])] = {high,
                                                   static_cast<A>(sum - static_cast<double>(high))};
      });
  for (int t = n + static_cast<int>(threadIdx.x); t < padded; t += detail::curve_threads)
    to[places.at(head, sequence, t)] = {static_cast<A>(whole_tensor::far), 0};
}

/// The log decays' gradients from those of c, at queries and at keys, from the end of each
/// sequence. A block a head and sequence.
template <class A>
__global__ void __launch_bounds__(detail::curve_threads)
    scan_gradients(int n, const int* orders, const A* log_a, const A* log_b, float limit,
                   Places places, const A* queries, const A* keys, A* dlog_a, A* dlog_b) {
  const i64 head = blockIdx.x / 2;
  const int sequence = static_cast<int>(blockIdx.x % 2);
  const int* const order = orders + sequence * n;
  const A* const log_decay = (sequence == 0 ? log_a : log_b) + head * n;
  A* const to = (sequence == 0 ? dlog_a : dlog_b) + head * n;
  detail::running_sums(
      n,
      [&](int t) {
        const i64 at = places.at(head, sequence, order[n - 1 - t]);
        return static_cast<double>(queries[at]) + static_cast<double>(keys[at]);
      },
      [&](int t, double sum) {
        const int u = order[n - 1 - t];
        const bool open = t < n - 1 && !(log_decay[u] <= A(-limit));
        to[u] = open ? static_cast<A>(sum) : A(0);
      });
}

template <class A>
void run_sums(const AttentionShape& x, const A* log_a, const A* log_b, const Orders& orders,
              i64 padded, float limit, const Places& places, Sum<A>* to) {
  scan_sums<<<static_cast<unsigned>(2 * x.batch * x.heads), detail::curve_threads, 0,
              cuda::stream()>>>(static_cast<int>(x.tokens()), static_cast<int>(padded),
                                orders.order, log_a, log_b, limit, places, to);
  cuda::launched("sequence_attention");
}
template <class A>
void run_gradients(const AttentionShape& x, const A* log_a, const A* log_b, const Orders& orders,
                   float limit, const Places& places, const A* queries, const A* keys, A* dlog_a,
                   A* dlog_b) {
  scan_gradients<<<static_cast<unsigned>(2 * x.batch * x.heads), detail::curve_threads, 0,
                   cuda::stream()>>>(static_cast<int>(x.tokens()), orders.order, log_a, log_b,
                                     limit, places, queries, keys, dlog_a, dlog_b);
  cuda::launched("sequence_attention");
}

}  // namespace ppma::inline PPMA_ABI::kernels::scans_gpu

#include "ppma/core/names_end.hpp"
