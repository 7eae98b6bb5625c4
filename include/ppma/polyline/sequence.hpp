#pragma once
#include "ppma/core/names_begin.hpp"
// Attention with the mask of a sequence, fused: a grid's tokens are visited in some order (row by
// row, along a Hilbert curve), and what lies between two of them decays along that order (algorithm
// 1.3, 2.7). Without any N x N array:
//
//   whole        A mask's entry is the distance of two running sums: kernels/cpu/whole/scans.hpp.
//   criss-cross  The tokens of a line, in the order in which the curve visits them, are a sequence
//                again: between one and the next decays what the curve passes in between, which is
//                the sum of those log decays. So a line has its 1-D mask of n sums, as the
//                polyline mask has, but in an order of its own.

#include <vector>

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// Whole attention with two sequence masks, ( 1/2 rowsoftmax(Q K^T + M1) + 1/2 rowsoftmax(Q K^T +
/// M2) ) V with M1 = sequence_log_mask(log alpha, along_alpha), M2 likewise of beta; on the CPU, in
/// memory O(B C N).
///   q, k, v     (B,H,W,C), k scaled
///   log_decays  (2,B,G,H,W) or (1,B,G,H,W), each <= 0: between a token and the one visited before
///   along_alpha, along_beta   orders of the N tokens, which count row by row
PPMA_API Tensor sequence_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                   const Tensor& log_decays, const std::vector<i64>& along_alpha,
                                   const std::vector<i64>& along_beta);

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
#include "ppma/kernels/cpu/whole/scans.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/polyline/fused.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline void check_order(const char* op, const std::vector<i64>& order, i64 tokens) {
  std::vector<bool> seen(static_cast<std::size_t>(tokens), false);
  check(static_cast<i64>(order.size()) == tokens, op, ": an order of ", order.size(),
        " tokens for ", tokens);
  for (const i64 u : order) {
    check(u >= 0 && u < tokens && !seen[static_cast<std::size_t>(u)], op,
          ": the order must name each of 0..", tokens - 1, " once; ", u,
          " is out of range or named twice");
    seen[static_cast<std::size_t>(u)] = true;
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
                          const Tensor& log_decays, const std::vector<i64>& along_alpha,
                          const std::vector<i64>& along_beta) {
  const detail::AttentionInputs in("sequence_attention", q, k, v, heads, log_decays, true);
  detail::check_order("sequence_attention", along_alpha, in.shape.tokens());
  detail::check_order("sequence_attention", along_beta, in.shape.tokens());
  check(q.device() == Device::cpu, "sequence_attention: on the CPU alone");
  std::vector<i64> orders = along_alpha;
  orders.insert(orders.end(), along_beta.begin(), along_beta.end());
  Tensor y = Tensor::empty(q.shape(), q.dtype());
  visit_cpu(q.device(), q.dtype(), "sequence_attention", [&](auto, auto t) {
    using T = decltype(t);
    kernels::scans::forward(in.args<T>(), orders.data(), y.data<T>());
  });
  return record(
      y, "sequence_attention", in.tensors(), [in = in.detached(), orders](const Tensor& dy) {
        detail::AttentionResults d(in);
        visit_cpu(dy.device(), dy.dtype(), "sequence_attention", [&](auto, auto t) {
          using T = decltype(t);
          kernels::scans::backward(in.args<T>(), orders.data(), dy.data<T>(), d.pointers<T>());
        });
        return d.tensors();
      });
}

Tensor sequence_criss_cross(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                            const Tensor& log_decays, const std::vector<i64>& along_rows,
                            const std::vector<i64>& along_columns) {
  const detail::AttentionInputs in("sequence_criss_cross", q, k, v, heads, log_decays, true);
  detail::check_order("sequence_criss_cross", along_rows, in.shape.tokens());
  detail::check_order("sequence_criss_cross", along_columns, in.shape.tokens());
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
