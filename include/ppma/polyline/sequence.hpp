#pragma once
#include "ppma/core/names_begin.hpp"
// Attention with the mask of a sequence, fused: a grid's tokens are visited in some order (row by
// row, along a Hilbert curve), and what lies between two of them decays along that order (algorithm
// 1.3, 2.7). Without any N x N array:
//
//   whole        A mask's entry is the distance of two running sums: kernels/cpu/whole/scans.hpp,
//                kernels/cuda/whole/scans.cuh.
//   criss-cross  The tokens of a line, in the order in which the curve visits them, are a sequence
//                again: between one and the next decays what the curve passes in between, which is
//                the sum of those log decays. So a line has its 1-D mask of n sums, as the
//                polyline mask has, but in an order of its own.

#include <vector>

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// In which orders two sequences visit a grid's tokens, which count row by row.
struct SequenceOrders {
  std::vector<i64> alpha, beta;  // of the log decays [0] and [1]
};

/// Row by row, and column by column.
PPMA_API SequenceOrders cross_scan_orders(i64 height, i64 width);
/// Along a Hilbert curve, and along its transpose.
PPMA_API SequenceOrders hilbert_orders(i64 height, i64 width);

/// The log masks (B,G,N,N) of both sequences, for small N.
///   log_decays  (2,B,G,H,W) or (1,B,G,H,W), each <= 0: between a token and the one visited before
PPMA_API std::vector<Tensor> sequence_log_masks(const Tensor& log_decays,
                                                const SequenceOrders& orders);

/// ( 1/2 rowsoftmax(Q K^T + M1) + 1/2 rowsoftmax(Q K^T + M2) ) V with the masks M1, M2 of
/// sequence_log_masks(), in memory O(B C N).
///   q, k, v  (B,H,W,C), k scaled
/// What whole_attention() says of closed edges is true here too.
PPMA_API Tensor sequence_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                   const Tensor& log_decays, const SequenceOrders& orders);

/// Criss-cross attention, the mean of both orders, with M1 restricted to the rows and M2 to the
/// columns; likewise.
PPMA_API Tensor sequence_criss_cross(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                     const Tensor& log_decays, const SequenceOrders& orders);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_SEQUENCE)

#include <numeric>

#include "ppma/kernels/cpu/curve_sums.hpp"
#include "ppma/kernels/cpu/whole/scans.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/line_mask.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline void check_orders(const char* op, const SequenceOrders& orders, i64 tokens) {
  for (const std::vector<i64>* order : {&orders.alpha, &orders.beta}) {
    std::vector<bool> seen(static_cast<std::size_t>(tokens), false);
    check(static_cast<i64>(order->size()) == tokens, op, ": an order of ", order->size(),
          " tokens for ", tokens);
    for (const i64 u : *order) {
      check(u >= 0 && u < tokens && !seen[static_cast<std::size_t>(u)], op,
            ": the order must name each of 0..", tokens - 1, " once; ", u,
            " is out of range or named twice");
      seen[static_cast<std::size_t>(u)] = true;
    }
  }
}

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
  Tensor sums = Tensor::empty(log_decay.shape(), log_decay.dtype(), log_decay.device());
  visit(log_decay.device(), log_decay.dtype(), "sequence_criss_cross", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::curve_sums(on, lines, n, visits.order.data(), visits.first.data(), log_decay.data<T>(),
                        sums.data<T>());
  });
  return record(sums, "sequence_criss_cross", {log_decay},
                [lines, n, visits, x = log_decay.detach()](const Tensor& dy) {
                  Tensor dx = Tensor::empty(x.shape(), x.dtype(), x.device());
                  visit(x.device(), x.dtype(), "sequence_criss_cross", [&](auto on, auto t) {
                    using T = decltype(t);
                    kernels::curve_sums_backward(on, lines, n, visits.order.data(),
                                                 visits.first.data(), x.data<T>(), dy.data<T>(),
                                                 dx.data<T>());
                  });
                  return Grads{dx};
                });
}

}  // namespace detail

SequenceOrders cross_scan_orders(i64 height, i64 width) {
  std::vector<i64> row_major(static_cast<std::size_t>(height * width));
  std::iota(row_major.begin(), row_major.end(), i64{0});
  return {row_major, column_major_order(height, width)};
}

SequenceOrders hilbert_orders(i64 height, i64 width) {
  return {hilbert_order(height, width), hilbert_order(height, width, true)};
}

std::vector<Tensor> sequence_log_masks(const Tensor& log_decays, const SequenceOrders& orders) {
  const auto in_a_row = [](const Tensor& t) {  // (B,G,H,W) -> (B,G,N)
    return reshape(t, {t.dim(0), t.dim(1), t.dim(2) * t.dim(3)});
  };
  return {sequence_log_mask(in_a_row(log_alpha_of(log_decays)), orders.alpha),
          sequence_log_mask(in_a_row(log_beta_of(log_decays)), orders.beta)};
}

Tensor sequence_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                          const Tensor& log_decays, const SequenceOrders& orders) {
  const detail::AttentionInputs in("sequence_attention", q, k, v, heads, log_decays, true);
  detail::check_orders("sequence_attention", orders, in.shape.tokens());
  std::vector<i64> both = orders.alpha;
  both.insert(both.end(), orders.beta.begin(), orders.beta.end());
  Tensor y = Tensor::empty(q.shape(), q.dtype(), q.device()), y1, log_sums, kept;
  visit(q.device(), q.dtype(), "sequence_attention", [&](auto on, auto t) {
    using T = decltype(t);
    using A = acc_t<T>;
    if (is_recorded(in.tensors()) && kernels::scan_attention_saves<T>(on, in.shape)) {
      kept = y.detach();
      y1 = Tensor::empty(q.shape(), q.dtype(), q.device());
      log_sums = Tensor::empty({in.shape.batch, heads, q.dim(1), q.dim(2), 2},
                               accumulator_dtype(q.dtype()), q.device());
    }
    kernels::scan_attention(on, in.args<T>(), both.data(), y.data<T>(), detail::data_or_null<T>(y1),
                            detail::data_or_null<A>(log_sums));
  });
  return record(y, "sequence_attention", in.tensors(),
                [in = in.detached(), both, kept, y1, log_sums](const Tensor& dy) {
                  detail::AttentionResults d(in);
                  visit(dy.device(), dy.dtype(), "sequence_attention", [&](auto on, auto t) {
                    using T = decltype(t);
                    const kernels::WholeKept<T> left{detail::data_or_null<T>(kept),
                                                     detail::data_or_null<T>(y1),
                                                     detail::data_or_null<acc_t<T>>(log_sums)};
                    kernels::scan_attention_backward(on, in.args<T>(), both.data(), left,
                                                     dy.data<T>(), d.pointers<T>());
                  });
                  return d.tensors();
                });
}

Tensor sequence_criss_cross(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                            const Tensor& log_decays, const SequenceOrders& orders) {
  const detail::AttentionInputs in("sequence_criss_cross", q, k, v, heads, log_decays, true);
  detail::check_orders("sequence_criss_cross", orders, in.shape.tokens());
  const i64 height = q.dim(1), width = q.dim(2);
  const detail::Visits rows(orders.alpha, height, width, true),
      columns(orders.beta, height, width, false);
  return detail::criss_cross_in_orders(
      q, k, v, heads,
      join_decays(detail::decays_within_lines(log_alpha_of(log_decays), rows),
                  detail::decays_within_lines(log_beta_of(log_decays), columns)),
      rows.lines, columns.lines);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
