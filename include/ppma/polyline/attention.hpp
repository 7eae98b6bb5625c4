#pragma once
#include "ppma/core/names_begin.hpp"
// Polyline path masked attention, composed: the paper's and the code's formulas written with the
// library's operations, N x N arrays and all (spec 2.1 and 2.2). The fused forms, whole_attention()
// and criss_cross_attention(), give the same values and gradients without those arrays; use these
// to read, to compare, and for the variants.
//
// Legend: B batch, G heads, H W grid, N = H W, d head width, C = G d; S = Q K^T (k already scaled,
// rotary applied), P = rowsoftmax(S), M = log L (V2H).

#include <vector>

#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// (B,H,W,C) -> (B,G,H,W,d) and back.
PPMA_API Tensor split_heads(const Tensor& x, i64 heads);

PPMA_API Tensor merge_heads(const Tensor& x);

// (B,H,W,C) -> (B,G,N,d) and back to the grid of `like`.
PPMA_API Tensor head_tokens(const Tensor& x, i64 heads);

PPMA_API Tensor tokens_to_grid(const Tensor& y, const Tensor& like);
PPMA_API Tensor sum_of(const std::vector<Tensor>& terms);
PPMA_API Tensor mean_of(const std::vector<Tensor>& terms);

}  // namespace detail

// ---- whole attention (PPMVA) ------------------------------------------------------------------

/// Probabilities (B,G,N,N) of masked whole attention from scores S and log masks M_r, both
/// (B,G,N,N):
/// the mean over r of rowsoftmax(S + M_r), which is computed in the masks' dtype;
/// rowsoftmax(S) without masks. Rows sum to 1.
PPMA_API Tensor masked_probabilities(const Tensor& scores, const std::vector<Tensor>& log_masks);

/// What whole_attention_composed multiplies v with, (B,G,N,N), from scores S (B,G,N,N):
///   code   mean of rowsoftmax(S + M) and rowsoftmax(S + M^T); rows sum to 1
///   paper  P * (L + L^T) (Eq. 10); row sums in (0, 2]
///   joint  rowsoftmax(S + log(L + L^T)); rows sum to 1
/// With one path there is one mask; code and joint are then the same. Paths::none is P for all
/// variants.
PPMA_API Tensor attention_map(const Tensor& scores, const Tensor& log_decays, Paths paths,
                              Variant variant);

/// Whole attention, composed; arguments as the fused whole_attention(), whose values and gradients
/// it has for Variant::code.
///   q, k, v (B,H,W,C);  log_decays (2,B,G,H,W) or undefined for Paths::none;
///   returns (B,H,W,C)
PPMA_API Tensor whole_attention_composed(const Tensor& q, const Tensor& k, const Tensor& v,
                                         i64 heads, const Tensor& log_decays,
                                         Paths paths = Paths::both,
                                         Variant variant = Variant::code);

/// Whole attention with any log masks (B,G,N,N): ( mean over r of rowsoftmax(S + M_r) ) V.
PPMA_API Tensor whole_attention_with(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                     const std::vector<Tensor>& log_masks);

// ---- criss-cross attention (PPMCCA) -----------------------------------------------------------

namespace detail {

// The two maps of criss-cross attention, and how they act on v (B,G,H,W,d).
struct CrissCross {
  Tensor rows, columns;  // (B,G,H,W,W), (B,G,W,H,H)
  Tensor along_rows(const Tensor& v) const { return matmul(rows, v); }
  Tensor down_columns(const Tensor& v) const {
    return transpose(matmul(columns, transpose(v, 2, 3)), 2, 3);
  }
};

PPMA_API CrissCross criss_cross_scores(const Tensor& q, const Tensor& k, i64 heads);

}  // namespace detail

/// Criss-cross attention with any log masks of the lines, rows (B,G,H,W,W) and columns (B,G,W,H,H),
/// or both undefined:
///   PH_i = rowsoftmax(S_i + rows_i),  PV_l = rowsoftmax(S_l + columns_l);
///         the mean of O1 and O2, or one of them.
PPMA_API Tensor criss_cross_attention_with(const Tensor& q, const Tensor& k, const Tensor& v,
                                           i64 heads, const LineMasks& log_masks, Order order);

/// Criss-cross attention, composed; arguments as the fused criss_cross_attention(), whose values
/// and gradients it has for Variant::code.
///   code   masks inside the softmaxes, mean of both orders
///   paper  (Eq. 11, 12) (S_H*L_H)(S_V*L_V) V + (S_V*L_V)(S_H*L_H) V with the unmasked softmax maps
///          S_H, S_V, not renormalised
/// (The paper writes the second term as ((S_H S_V) * L^T) V, which does not factor; spec 2.2.)
/// There is no joint variant.
PPMA_API Tensor criss_cross_attention_composed(const Tensor& q, const Tensor& k, const Tensor& v,
                                               i64 heads, const Tensor& log_decays,
                                               Order order = Order::both,
                                               Variant variant = Variant::code);

/// Criss-cross attention (variant code) by its dense N x N maps, for small N and tests:
///   O1 = S_V' S_H' V,  O2 = S_H' S_V' V,  S_H' block diagonal by rows (PH_i),
///         S_V' by columns (PV_l)
PPMA_API Tensor criss_cross_attention_dense(const Tensor& q, const Tensor& k, const Tensor& v,
                                            i64 heads, const Tensor& log_decays,
                                            Order order = Order::both);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/check.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

Tensor split_heads(const Tensor& x, i64 heads) {
  return permute(reshape(x, {x.dim(0), x.dim(1), x.dim(2), heads, x.dim(3) / heads}),
                 {0, 3, 1, 2, 4});
}

Tensor merge_heads(const Tensor& x) {
  return reshape(permute(x, {0, 2, 3, 1, 4}), {x.dim(0), x.dim(2), x.dim(3), x.dim(1) * x.dim(4)});
}

Tensor head_tokens(const Tensor& x, i64 heads) {
  return reshape(split_heads(x, heads), {x.dim(0), heads, x.dim(1) * x.dim(2), x.dim(3) / heads});
}

Tensor tokens_to_grid(const Tensor& y, const Tensor& like) {
  return merge_heads(reshape(y, {like.dim(0), y.dim(1), like.dim(1), like.dim(2), y.dim(3)}));
}

Tensor sum_of(const std::vector<Tensor>& terms) {
  Tensor total = terms[0];
  for (std::size_t i = 1; i < terms.size(); ++i) total = total + terms[i];
  return total;
}

Tensor mean_of(const std::vector<Tensor>& terms) {
  return terms.size() == 1 ? terms[0]
                           : scale(sum_of(terms), 1.0 / static_cast<double>(terms.size()));
}

// ln(e^a + e^b) of log masks; -infinity counts as -1e30, so that no difference is undefined.
inline Tensor log_add_exp(const Tensor& log_a, const Tensor& log_b) {
  const Tensor least = Tensor::full({1}, -1e30, log_a.dtype(), log_a.device());
  const Tensor a = maximum(log_a, least), b = maximum(log_b, least);
  return maximum(a, b) + softplus(neg(abs(a - b)));
}

}  // namespace detail

Tensor masked_probabilities(const Tensor& scores, const std::vector<Tensor>& log_masks) {
  if (log_masks.empty()) return softmax(scores);
  std::vector<Tensor> maps;
  for (const Tensor& m : log_masks) maps.push_back(softmax(cast(scores, m.dtype()) + m));
  return cast(detail::mean_of(maps), scores.dtype());
}

Tensor attention_map(const Tensor& scores, const Tensor& log_decays, Paths paths, Variant variant) {
  if (paths == Paths::none) return softmax(scores);
  std::vector<Tensor> masks;
  masks.push_back(polyline_log_mask(log_decays, paths == Paths::h2v ? paths : Paths::v2h));
  if (paths == Paths::both) masks.push_back(transpose(masks[0], 2, 3));
  switch (variant) {
    case Variant::code:
      return masked_probabilities(scores, masks);
    case Variant::paper: {
      const Tensor l = masks.size() == 1 ? exp(masks[0]) : exp(masks[0]) + exp(masks[1]);
      return softmax(scores) * l;
    }
    case Variant::joint:
      return softmax(scores +
                     (masks.size() == 1 ? masks[0] : detail::log_add_exp(masks[0], masks[1])));
  }
  fail("attention_map: unknown variant");
}

Tensor whole_attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                const Tensor& log_decays, Paths paths, Variant variant) {
  detail::check_attention("whole_attention_composed", q, k, v, heads, log_decays,
                          paths != Paths::none);
  // (B,G,N,N)
  const Tensor scores =
      matmul(detail::head_tokens(q, heads), detail::head_tokens(k, heads), false, true);
  // (B,G,N,N)
  const Tensor map = attention_map(scores, log_decays, paths, variant);
  return detail::tokens_to_grid(matmul(map, detail::head_tokens(v, heads)), q);
}

Tensor whole_attention_with(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                            const std::vector<Tensor>& log_masks) {
  detail::check_attention("whole_attention_with", q, k, v, heads, Tensor(), false);
  // (B,G,N,N)
  const Tensor scores =
      matmul(detail::head_tokens(q, heads), detail::head_tokens(k, heads), false, true);
  return detail::tokens_to_grid(
      matmul(masked_probabilities(scores, log_masks), detail::head_tokens(v, heads)), q);
}

namespace detail {

CrissCross criss_cross_scores(const Tensor& q, const Tensor& k, i64 heads) {
  // (B,G,H,W,d)
  const Tensor qs = split_heads(q, heads), ks = split_heads(k, heads);
  return {matmul(qs, ks, false, true),
          matmul(transpose(qs, 2, 3), transpose(ks, 2, 3), false, true)};
}

// O1 = columns after rows, O2 = rows after columns.
inline std::vector<Tensor> in_orders(const CrissCross& maps, const Tensor& v, Order order) {
  std::vector<Tensor> o;
  if (order != Order::columns_first) o.push_back(maps.down_columns(maps.along_rows(v)));
  if (order != Order::rows_first) o.push_back(maps.along_rows(maps.down_columns(v)));
  return o;
}

}  // namespace detail

Tensor criss_cross_attention_with(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                  const LineMasks& log_masks, Order order) {
  detail::check_attention("criss_cross_attention_with", q, k, v, heads, Tensor(), false);
  const auto s = detail::criss_cross_scores(q, k, heads);
  const auto masked = [&v](const Tensor& scores, const Tensor& m) {
    return m.defined() ? cast(softmax(cast(scores, m.dtype()) + m), v.dtype()) : softmax(scores);
  };
  const detail::CrissCross maps{masked(s.rows, log_masks.rows),
                                masked(s.columns, log_masks.columns)};
  return detail::merge_heads(
      detail::mean_of(detail::in_orders(maps, detail::split_heads(v, heads), order)));
}

Tensor criss_cross_attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                      const Tensor& log_decays, Order order, Variant variant) {
  check(variant != Variant::joint,
        "criss_cross_attention_composed: the variants are code and paper, not joint");
  const bool masked = log_decays.defined();
  detail::check_attention("criss_cross_attention_composed", q, k, v, heads, log_decays, masked);
  const LineMasks m = masked ? line_log_masks(log_decays) : LineMasks{};
  if (variant == Variant::code || !masked)
    return criss_cross_attention_with(q, k, v, heads, m, order);
  const auto s = detail::criss_cross_scores(q, k, heads);
  const detail::CrissCross maps{softmax(s.rows) * exp(m.rows), softmax(s.columns) * exp(m.columns)};
  return detail::merge_heads(
      detail::sum_of(detail::in_orders(maps, detail::split_heads(v, heads), order)));
}

Tensor criss_cross_attention_dense(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                   const Tensor& log_decays, Order order) {
  const bool masked = log_decays.defined();
  detail::check_attention("criss_cross_attention_dense", q, k, v, heads, log_decays, masked);
  auto s = detail::criss_cross_scores(q, k, heads);
  if (masked) {
    const LineMasks m = line_log_masks(log_decays);
    s = {s.rows + m.rows, s.columns + m.columns};
  }
  // (B,G,N,N)
  const Tensor sh = row_factor(softmax(s.rows)), sv = column_factor(softmax(s.columns));
  std::vector<Tensor> maps;
  if (order != Order::columns_first) maps.push_back(matmul(sv, sh));
  if (order != Order::rows_first) maps.push_back(matmul(sh, sv));
  return detail::tokens_to_grid(matmul(detail::mean_of(maps), detail::head_tokens(v, heads)), q);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
