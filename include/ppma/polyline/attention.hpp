#pragma once
#include "ppma/core/names_begin.hpp"
// Polyline path masked attention, composed: the paper's and the code's formulas written with the
// library's operations, N x N arrays and all (algorithm 2.1 and 2.2). The fused forms of
// polyline/fused.hpp give the same values and gradients without those arrays; use these to read, to
// compare, and for the variants.
//
// Legend: B batch, G heads, H W grid, N = H W, d head width, C = G d; S = Q K^T (k already scaled,
// rotary applied), P = rowsoftmax(S), M = log L (V2H).

#include <vector>

#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// Probabilities (B,G,N,N) of masked whole attention from scores S and log masks M_r, both
/// (B,G,N,N): the mean over r of rowsoftmax(S + M_r), which is computed in the masks' dtype;
/// rowsoftmax(S) without masks. Rows sum to 1.
PPMA_API Tensor masked_probabilities(const Tensor& scores, const std::vector<Tensor>& log_masks);

/// What whole_attention_composed multiplies v with, (B,G,N,N), from scores S (B,G,N,N):
///   code   mean of rowsoftmax(S + M) and rowsoftmax(S + M^T); rows sum to 1
///   paper  P * (L + L^T) (Eq. 10); row sums in (0, 2]
///   joint  rowsoftmax(S + log(L + L^T)); rows sum to 1
/// With one path there is one mask, and code and joint are the same. Paths::none is always P.
PPMA_API Tensor attention_map(const Tensor& scores, const Tensor& log_decays, Paths paths,
                              Variant variant);

/// Whole attention, composed; arguments as the fused whole_attention(), whose values and gradients
/// it has for Variant::code.
PPMA_API Tensor whole_attention_composed(const Tensor& q, const Tensor& k, const Tensor& v,
                                         i64 heads, const Tensor& log_decays,
                                         Paths paths = Paths::both,
                                         Variant variant = Variant::code);

/// Whole attention with any log masks (B,G,N,N): ( mean over r of rowsoftmax(S + M_r) ) V.
PPMA_API Tensor whole_attention_with(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                     const std::vector<Tensor>& log_masks);

/// Criss-cross attention with any log masks of the lines, rows (B,G,H,W,W) and columns (B,G,W,H,H),
/// or both undefined: PH_i = rowsoftmax(S_i + rows_i), PV_l = rowsoftmax(S_l + columns_l);
/// O1 = rows first, then columns, O2 the other way round; the mean of O1 and O2, or one of them.
PPMA_API Tensor criss_cross_attention_with(const Tensor& q, const Tensor& k, const Tensor& v,
                                           i64 heads, const LineMasks& log_masks, Order order);

/// Criss-cross attention, composed; arguments as the fused criss_cross_attention(), whose values
/// and gradients it has for Variant::code.
///   code   masks inside the softmaxes, mean of both orders
///   paper  (Eq. 11, 12) (S_H*L_H)(S_V*L_V) V + (S_V*L_V)(S_H*L_H) V with the unmasked softmax maps
///          S_H, S_V, not renormalised
/// (The paper writes the second term as ((S_H S_V) * L^T) V, which does not factor; algorithm 2.2.)
/// Variant::joint is an error.
PPMA_API Tensor criss_cross_attention_composed(const Tensor& q, const Tensor& k, const Tensor& v,
                                               i64 heads, const Tensor& log_decays,
                                               Order order = Order::both,
                                               Variant variant = Variant::code);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/check.hpp"

namespace ppma::inline PPMA_ABI {

Tensor masked_probabilities(const Tensor& scores, const std::vector<Tensor>& log_masks) {
  if (log_masks.empty()) return softmax(scores);
  Tensor sum;
  for (const Tensor& m : log_masks) {
    const Tensor p = softmax(cast(scores, m.dtype()) + m);
    sum = sum.defined() ? sum + p : p;
  }
  if (log_masks.size() > 1) sum = scale(sum, 1.0 / static_cast<double>(log_masks.size()));
  return cast(sum, scores.dtype());
}

Tensor attention_map(const Tensor& scores, const Tensor& log_decays, Paths paths, Variant variant) {
  if (paths == Paths::none) return softmax(scores);
  std::vector<Tensor> masks{
      polyline_log_mask(log_decays, paths == Paths::h2v ? Paths::h2v : Paths::v2h)};
  if (paths == Paths::both) masks.push_back(transpose(masks[0], 2, 3));
  if (variant == Variant::code) return masked_probabilities(scores, masks);
  if (variant == Variant::paper)
    return softmax(scores) * (masks.size() == 1 ? exp(masks[0]) : exp(masks[0]) + exp(masks[1]));
  if (masks.size() == 1) return softmax(scores + masks[0]);
  // ln(e^a + e^b); -infinity counts as -1e30, so that no difference is undefined.
  const Tensor least = Tensor::full({1}, -1e30, masks[0].dtype(), masks[0].device());
  const Tensor a = maximum(masks[0], least), b = maximum(masks[1], least);
  return softmax(scores + (maximum(a, b) + softplus(neg(abs(a - b)))));
}

namespace detail {

inline Tensor whole_scores(const Tensor& q, const Tensor& k, i64 heads) {  // (B,G,N,N)
  return matmul(head_tokens(q, heads), head_tokens(k, heads), false, true);
}

}  // namespace detail

Tensor whole_attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                const Tensor& log_decays, Paths paths, Variant variant) {
  const detail::AttentionInputs in("whole_attention_composed", q, k, v, heads, log_decays,
                                   paths != Paths::none);
  const Tensor map =  // (B,G,N,N)
      attention_map(detail::whole_scores(q, k, heads), in.log_decays, paths, variant);
  return detail::tokens_to_grid(matmul(map, detail::head_tokens(v, heads)), q);
}

Tensor whole_attention_with(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                            const std::vector<Tensor>& log_masks) {
  const detail::AttentionInputs in("whole_attention_with", q, k, v, heads, Tensor(), false);
  const Tensor map = masked_probabilities(detail::whole_scores(in.q, in.k, heads), log_masks);
  return detail::tokens_to_grid(matmul(map, detail::head_tokens(v, heads)), q);
}

namespace detail {

// What criss-cross attention multiplies v with: rows (B,G,H,W,W), columns (B,G,W,H,H).
struct LineMaps {
  Tensor rows, columns;

  static LineMaps scores(const Tensor& q, const Tensor& k, i64 heads) {
    const Tensor qs = split_heads(q, heads), ks = split_heads(k, heads);  // (B,G,H,W,d)
    return {matmul(qs, ks, false, true),
            matmul(transpose(qs, 2, 3), transpose(ks, 2, 3), false, true)};
  }
  // O1, O2 or their sum, v and result (B,H,W,C).
  Tensor mix(const Tensor& v, i64 heads, Order order) const {
    const auto along_rows = [this](const Tensor& t) { return matmul(rows, t); };
    const auto down_columns = [this](const Tensor& t) {
      return transpose(matmul(columns, transpose(t, 2, 3)), 2, 3);
    };
    const Tensor x = split_heads(v, heads);
    const Tensor o1 = order != Order::columns_first ? down_columns(along_rows(x)) : Tensor(),
                 o2 = order != Order::rows_first ? along_rows(down_columns(x)) : Tensor();
    return merge_heads(!o2.defined() ? o1 : o1.defined() ? o1 + o2 : o2);
  }
};

}  // namespace detail

Tensor criss_cross_attention_with(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                  const LineMasks& log_masks, Order order) {
  const detail::AttentionInputs in("criss_cross_attention_with", q, k, v, heads, Tensor(), false);
  const auto s = detail::LineMaps::scores(in.q, in.k, heads);
  const auto masked = [&v](const Tensor& scores, const Tensor& m) {
    return m.defined() ? cast(softmax(cast(scores, m.dtype()) + m), v.dtype()) : softmax(scores);
  };
  const detail::LineMaps maps{masked(s.rows, log_masks.rows), masked(s.columns, log_masks.columns)};
  const Tensor y = maps.mix(v, heads, order);
  return order == Order::both ? scale(y, 0.5) : y;
}

Tensor criss_cross_attention_composed(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                      const Tensor& log_decays, Order order, Variant variant) {
  check(variant != Variant::joint,
        "criss_cross_attention_composed: the variants are code and paper, not joint");
  const bool masked = log_decays.defined();
  const detail::AttentionInputs in("criss_cross_attention_composed", q, k, v, heads, log_decays,
                                   masked);
  const LineMasks m = masked ? line_log_masks(in.log_decays) : LineMasks{};
  if (variant == Variant::code || !masked)
    return criss_cross_attention_with(q, k, v, heads, m, order);
  const auto s = detail::LineMaps::scores(q, k, heads);
  const detail::LineMaps maps{softmax(s.rows) * exp(m.rows), softmax(s.columns) * exp(m.columns)};
  return maps.mix(v, heads, order);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
