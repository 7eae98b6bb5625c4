#pragma once
#include "ppma/core/names_begin.hpp"
// The symmetric 1-D structured mask (algorithm 1.3): the building block of the 2-D polyline mask,
// and by itself the mask of a sequence, in any visiting order.
//
//   L1[i,j] = prod(a; i..j)  = product of a_t over min(i,j) < t <= max(i,j)
//   log L1[i,j] = log L1[i-1,j] + ln a_i   for i > j;   0 for i = j;   log L1 is symmetric
//
// In exact arithmetic log L1[i,j] = -|c_i - c_j| with c_t = ln a_0 + ... + ln a_t. The difference
// is not taken: behind a closed edge (ln a = -1e9, or -inf) the running sums have lost all smaller
// decays. Sums from j outwards keep them, and log L1 is -inf exactly where an edge in between is.
// Every block of L1 inside the lower (or the upper) triangle has rank <= 1: L1[i,j] = e^{c_i}
// e^{-c_j} for i >= j. (Never compute the factors themselves: e^{-c_j} overflows.)
//
// Backward (algorithm 1.6), G = dLoss/d(log L1), S = G + G^T:
//   dc_i = sum_{j<i} S[i,j] - sum_{j>i} S[i,j],   d(ln a_t) = sum_{i>=t} dc_i,   d(ln a_0) = 0
// c never rises, so which of c_i, c_j is larger follows from the indices alone, also where a decay
// is exactly 1. A closed edge (-1e30 or less) gets exactly 0: nothing passes it.

#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Log mask (...,n,n) of a sequence whose tokens are visited in `order` (a permutation of 0..n-1;
/// empty: as they lie).
///   log_decay (...,n), each <= 0, by token: the decay between a token and the one visited before
///   it; that of the first
///             is not read; -infinity closes the edge
/// Differentiable; the gradient of an edge of -1e30 or less is 0.
PPMA_API Tensor sequence_log_mask(const Tensor& log_decay, const std::vector<i64>& order = {});

/// Visiting orders of a grid's tokens: column by column, and along the Hilbert curve of the
/// smallest 2^k x 2^k square that holds the grid (cells outside it are dropped); `transposed`
/// exchanges rows and columns of the curve.
PPMA_API std::vector<i64> column_major_order(i64 height, i64 width);
PPMA_API std::vector<i64> hilbert_order(i64 height, i64 width, bool transposed = false);

/// The restriction of a log mask (B,G,N,N) to each row of the grid, (B,G,H,W,W), or to each column,
/// (B,G,W,H,H).
PPMA_API Tensor restrict_to_lines(const Tensor& log_mask, i64 height, i64 width, bool rows);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include "ppma/kernels/cpu/head.hpp"
#include "ppma/kernels/cpu/line_mask.hpp"
#include "ppma/kernels/cpu/restrict_mask.hpp"
#include "ppma/ops/elementwise.hpp"

namespace ppma::inline PPMA_ABI {

Tensor sequence_log_mask(const Tensor& log_decay, const std::vector<i64>& order) {
  detail::check_defined("sequence_log_mask", log_decay);
  check(log_decay.rank() >= 1 && log_decay.numel() > 0,
        "sequence_log_mask: needs log decays (...,n), got ", log_decay.shape());
  const i64 n = log_decay.dim(-1), lines = log_decay.numel() / n;
  if (!order.empty()) {
    std::vector<bool> seen(static_cast<std::size_t>(n));
    check(static_cast<i64>(order.size()) == n, "sequence_log_mask: an order of ", order.size(),
          " tokens for ", n, " decays");
    for (const i64 u : order) {
      check(u >= 0 && u < n && !seen[static_cast<std::size_t>(u)],
            "sequence_log_mask: the order must name each of 0..", n - 1, " once; ", u,
            " is out of range or named twice");
      seen[static_cast<std::size_t>(u)] = true;
    }
  }
  Shape shape = log_decay.shape();
  shape.push_back(n);
  Tensor mask = Tensor::empty(shape, log_decay.dtype(), log_decay.device());
  visit(mask.device(), mask.dtype(), "sequence_log_mask", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::line_log_mask(on, lines, n, order.empty() ? nullptr : order.data(),
                           log_decay.data<T>(), mask.data<T>());
  });
  return record(mask, "sequence_log_mask", {log_decay},
                [lines, n, order, log_decay = log_decay.detach()](const Tensor& dy) {
                  Tensor dx = Tensor::empty(log_decay.shape(), dy.dtype(), dy.device());
                  visit(dy.device(), dy.dtype(), "sequence_log_mask", [&](auto on, auto t) {
                    using T = decltype(t);
                    kernels::line_log_mask_backward(
                        on, lines, n, order.empty() ? nullptr : order.data(), log_decay.data<T>(),
                        dy.data<T>(), dx.data<T>());
                  });
                  return Grads{dx};
                });
}

std::vector<i64> column_major_order(i64 height, i64 width) {
  std::vector<i64> order;
  for (i64 j = 0; j < width; ++j)
    for (i64 i = 0; i < height; ++i) order.push_back(i * width + j);
  return order;
}

std::vector<i64> hilbert_order(i64 height, i64 width, bool transposed) {
  i64 side = 1;
  while (side < height || side < width) side *= 2;
  std::vector<i64> order;
  for (i64 at = 0; at < side * side; ++at) {
    // Position of step `at`: quadrant by quadrant, from the smallest, turning what lies inside.
    i64 x = 0, y = 0, rest = at;
    for (i64 s = 1; s < side; s *= 2, rest /= 4) {
      const i64 right = 1 & (rest / 2), down = 1 & (rest ^ right);
      if (down == 0) {
        if (right == 1) x = s - 1 - x, y = s - 1 - y;
        std::swap(x, y);
      }
      x += s * right, y += s * down;
    }
    if (transposed) std::swap(x, y);
    if (y < height && x < width) order.push_back(y * width + x);
  }
  return order;
}

Tensor restrict_to_lines(const Tensor& log_mask, i64 height, i64 width, bool rows) {
  check(log_mask.defined() && log_mask.rank() == 4 && log_mask.dim(2) == height * width &&
            log_mask.dim(3) == height * width,
        "restrict_to_lines: the mask must be (B,G,N,N) with N = ", height * width, ", got ",
        log_mask.shape());
  const i64 b = log_mask.dim(0), g = log_mask.dim(1);
  Tensor lines =
      Tensor::empty(rows ? Shape{b, g, height, width, width} : Shape{b, g, width, height, height},
                    log_mask.dtype(), log_mask.device());
  visit(log_mask.device(), log_mask.dtype(), "restrict_to_lines", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::restrict_mask(on, b * g, height, width, rows, log_mask.data<T>(), lines.data<T>());
  });
  return record(lines, "restrict_to_lines", {log_mask},
                [=, shape = log_mask.shape()](const Tensor& dy) {
                  Tensor dm = Tensor::zeros(shape, dy.dtype(), dy.device());
                  visit(dy.device(), dy.dtype(), "restrict_to_lines", [&](auto on, auto t) {
                    using T = decltype(t);
                    kernels::restrict_mask_backward(on, b * g, height, width, rows, dy.data<T>(),
                                                    dm.data<T>());
                  });
                  return Grads{dm};
                });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
