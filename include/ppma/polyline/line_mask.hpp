#pragma once
// The symmetric 1-D structured mask (spec 1.3): the building block of the 2-D polyline mask, and by itself the mask of
// a sequence, in any visiting order.
//
//   L1[i,j] = prod(a; i..j)  = product of a_t over min(i,j) < t <= max(i,j)
//   c_t = ln a_0 + ... + ln a_t            log L1[i,j] = -|c_i - c_j|
//
// Diagonal 0, no -inf anywhere. Every block of L1 inside the lower (or the upper) triangle has rank <= 1:
// L1[i,j] = e^{c_i} e^{-c_j} for i >= j. (Never compute the factors themselves: e^{-c_j} overflows.)
//
// Backward (spec 1.6), G = dLoss/d(log L1), S = G + G^T:
//   dc_i = sum_{j<i} S[i,j] - sum_{j>i} S[i,j],   d(ln a_t) = sum_{i>=t} dc_i,   d(ln a_0) = 0
// c never rises, so which of c_i, c_j is larger follows from the indices alone, also where a decay is exactly 1.

#include <vector>

#include "ppma/ops/elementwise.hpp"

namespace ppma::inline PPMA_ABI {

namespace kernels {

/// out (lines,n,n): out[order[i], order[j]] = -|c_i - c_j|, c the running sum of log decays x (lines,n) in visiting
/// order; a null order visits 0, 1, ..., n-1.
template <class T>
void line_log_mask(Cpu, i64 lines, i64 n, const i64* order, const T* x, T* out) {
  parallel_for(lines, 1 + 16384 / (n * n), [=](i64 begin, i64 end) {
    const Workspace<T> sums(n);
    T* const c = sums.data();  // by token
    for (i64 line = begin; line < end; ++line) {
      T sum = 0;
      for (i64 i = 0; i < n; ++i) {
        const i64 u = order != nullptr ? order[i] : i;
        if (i > 0) sum += x[line * n + u];
        c[u] = sum;
      }
      T* const m = out + line * n * n;
      for (i64 u = 0; u < n; ++u)
        for (i64 v = 0; v < n; ++v) m[u * n + v] = -std::fabs(c[u] - c[v]);
    }
  });
}

/// dx (lines,n) from the gradient g (lines,n,n) of line_log_mask.
template <class T>
void line_log_mask_backward(Cpu, i64 lines, i64 n, const i64* order, const T* g, T* dx) {
  parallel_for(lines, 1 + 16384 / (n * n), [=](i64 begin, i64 end) {
    const Workspace<T> room(2 * n);
    T *const dc = room.data(), *const rank = room.data() + n;  // both by token
    for (i64 line = begin; line < end; ++line) {
      for (i64 i = 0; i < n; ++i) rank[order != nullptr ? order[i] : i] = static_cast<T>(i);
      std::fill_n(dc, n, T(0));
      const T* const gm = g + line * n * n;
      // -|c_u - c_v| = c_u - c_v where u comes after v, c_v - c_u where it comes before.
      for (i64 u = 0; u < n; ++u) {
        T total = 0;
        for (i64 v = 0; v < n; ++v) {
          const T x = rank[u] > rank[v] ? gm[u * n + v] : rank[u] < rank[v] ? -gm[u * n + v] : T(0);
          total += x;
          dc[v] -= x;
        }
        dc[u] += total;
      }
      T sum = 0;
      for (i64 i = n - 1; i >= 0; --i) {
        const i64 u = order != nullptr ? order[i] : i;
        sum += dc[u];
        dx[line * n + u] = i > 0 ? sum : T(0);
      }
    }
  });
}

}  // namespace kernels
}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/polyline/line_mask.cuh"
#endif

namespace ppma::inline PPMA_ABI {

/// Log mask (...,n,n) of a sequence whose tokens are visited in `order` (a permutation of 0..n-1; empty: as they lie).
///   log_decay (...,n), each <= 0, by token: the decay between a token and the one visited before it
/// Differentiable; backward keeps nothing.
inline Tensor sequence_log_mask(const Tensor& log_decay, const std::vector<i64>& order = {}) {
  detail::check_defined("sequence_log_mask", log_decay);
  check(log_decay.rank() >= 1 && log_decay.numel() > 0, "sequence_log_mask: needs log decays (...,n), got ",
        log_decay.shape());
  const i64 n = log_decay.dim(-1), lines = log_decay.numel() / n;
  if (!order.empty()) {
    std::vector<bool> seen(static_cast<std::size_t>(n));
    check(static_cast<i64>(order.size()) == n, "sequence_log_mask: an order of ", order.size(), " tokens for ", n,
          " decays");
    for (const i64 u : order) {
      check(u >= 0 && u < n && !seen[static_cast<std::size_t>(u)], "sequence_log_mask: the order must name each of 0..",
            n - 1, " once; ", u, " is out of range or named twice");
      seen[static_cast<std::size_t>(u)] = true;
    }
  }
  Shape shape = log_decay.shape();
  shape.push_back(n);
  Tensor mask = Tensor::empty(shape, log_decay.dtype(), log_decay.device());
  visit(mask.device(), mask.dtype(), "sequence_log_mask", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::line_log_mask(on, lines, n, order.empty() ? nullptr : order.data(), log_decay.data<T>(), mask.data<T>());
  });
  return record(mask, "sequence_log_mask", {log_decay},
                [lines, n, order, before = log_decay.shape()](const Tensor& dy) {
                  Tensor dx = Tensor::empty(before, dy.dtype(), dy.device());
                  visit(dy.device(), dy.dtype(), "sequence_log_mask", [&](auto on, auto t) {
                    using T = decltype(t);
                    kernels::line_log_mask_backward(on, lines, n, order.empty() ? nullptr : order.data(), dy.data<T>(),
                                                    dx.data<T>());
                  });
                  return Grads{dx};
                });
}

}  // namespace ppma::inline PPMA_ABI
