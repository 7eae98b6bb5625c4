#pragma once
#include "ppma/core/names_begin.hpp"
// Attention with the mask of a sequence, fused: a grid's tokens are visited in some order (row by
// row, along a Hilbert curve), and what lies between two of them decays along that order (algorithm
// 1.3, 2.7). Without any N x N array:
//
//   whole        Tokens in the order of their visits are a grid of one row, whose polyline mask is
//                the sequence's: whole_attention() of Paths::v2h.
//   criss-cross  The tokens of a line, in the order in which the curve visits them, are a sequence
//                again: between one and the next decays what the curve passes in between, which is
//                the sum of those log decays. So a line has its 1-D mask of n sums, as the
//                polyline mask has, but in an order of its own.

#include <vector>

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// rowsoftmax(Q K^T + M) V with the log mask M of sequence_log_mask(log_decay, order).
///   q, k, v    (B,H,W,C), k scaled
///   log_decay  (B,G,H,W), by token, each <= 0: the decay between it and the one visited before
///   order      of the N tokens, row-major
PPMA_API Tensor sequence_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                   const Tensor& log_decay, const std::vector<i64>& order);

/// Criss-cross attention, the mean of both orders, with the restrictions of two sequence masks: to
/// the rows that of log_decays[0] and `along_rows`, to the columns that of log_decays[1] and
/// `along_columns`. Arguments as sequence_attention(), log_decays (2,B,G,H,W) or (1,B,G,H,W); on
/// the CPU.
PPMA_API Tensor sequence_criss_cross(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                     const Tensor& log_decays, const std::vector<i64>& along_rows,
                                     const std::vector<i64>& along_columns);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include "ppma/kernels/cpu/curve_sums.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/polyline/fused.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// How a curve visits the lines of a grid.
struct Visits {
  std::vector<i64> order;  // of all tokens
  std::vector<i64>
      first;  // visit t: the one behind the last visit of its line; t + 1: there was none
  std::vector<i64> lines;  // (lines, places): the places of each line in the order of their visits

  Visits(const std::vector<i64>& curve, i64 height, i64 width, bool rows) : order(curve) {
    const i64 places = rows ? width : height;
    std::vector<i64> seen(static_cast<std::size_t>(rows ? height : width), 0), last(seen.size(), 0);
    lines.resize(order.size());
    for (std::size_t t = 0; t < order.size(); ++t) {
      const i64 line = rows ? order[t] / width : order[t] % width,
                place = rows ? order[t] % width : order[t] / width, visit = static_cast<i64>(t);
      i64 &count = seen[static_cast<std::size_t>(line)], &at = last[static_cast<std::size_t>(line)];
      lines[static_cast<std::size_t>(line * places + count)] = place;
      first.push_back(count == 0 ? visit + 1 : at + 1);
      at = visit, ++count;
    }
  }
};

// Log decays (B,G,H,W) between a token and the one of its line that a curve visits before it.
inline Tensor decays_within_lines(const Tensor& log_decay, const Visits& visits) {
  const i64 n = static_cast<i64>(visits.order.size()), lines = log_decay.numel() / n;
  Tensor sums = Tensor::empty(log_decay.shape(), log_decay.dtype());
  visit_cpu(log_decay.device(), log_decay.dtype(), "sequence_criss_cross", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::curve_sums(on, lines, n, visits.order.data(), visits.first.data(), log_decay.data<T>(),
                        sums.data<T>());
  });
  return record(sums, "sequence_criss_cross", {log_decay},
                [lines, n, visits, x = log_decay.detach()](const Tensor& dy) {
                  Tensor dx = Tensor::empty(x.shape(), x.dtype());
                  visit_cpu(x.device(), x.dtype(), "sequence_criss_cross", [&](auto on, auto t) {
                    using T = decltype(t);
                    kernels::curve_sums_backward(on, lines, n, visits.order.data(),
                                                 visits.first.data(), x.data<T>(), dy.data<T>(),
                                                 dx.data<T>());
                  });
                  return Grads{dx};
                });
}

}  // namespace detail

Tensor sequence_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                          const Tensor& log_decay, const std::vector<i64>& order) {
  check(q.defined() && q.rank() == 4, "sequence_attention: q must be (B,H,W,C), got ", q.shape());
  const i64 b = q.dim(0), n = q.dim(1) * q.dim(2), c = q.dim(3);
  check(log_decay.defined() && log_decay.shape() == Shape{b, heads, q.dim(1), q.dim(2)},
        "sequence_attention: log_decay must be ", Shape{b, heads, q.dim(1), q.dim(2)});
  std::vector<i64> back(order.size());
  const auto in_turn = [&](const Tensor& t) {
    return reshape(reorder(reshape(t, {b, n, c}), 1, order), {b, 1, n, c});
  };
  const Tensor decays =
      reshape(reorder(reshape(log_decay, {b, heads, n}), 2, order), {1, b, heads, 1, n});
  const Tensor y = whole_attention(in_turn(q), in_turn(k), in_turn(v), heads, decays, Paths::v2h);
  for (std::size_t t = 0; t < order.size(); ++t)
    back[static_cast<std::size_t>(order[t])] = static_cast<i64>(t);
  return reshape(reorder(reshape(y, {b, n, c}), 1, back), q.shape());
}

Tensor sequence_criss_cross(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                            const Tensor& log_decays, const std::vector<i64>& along_rows,
                            const std::vector<i64>& along_columns) {
  const detail::AttentionInputs in("sequence_criss_cross", q, k, v, heads, log_decays, true);
  const detail::Visits rows(along_rows, q.dim(1), q.dim(2), true),
      columns(along_columns, q.dim(1), q.dim(2), false);
  return detail::criss_cross_in_orders(
      q, k, v, heads,
      join_decays(detail::decays_within_lines(log_alpha_of(log_decays), rows),
                  detail::decays_within_lines(log_beta_of(log_decays), columns)),
      rows.lines, columns.lines);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
