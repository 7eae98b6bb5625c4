#pragma once
#include "ppma/core/names_begin.hpp"
// Polyline path masked attention on ONNX values: the formulas of polyline/mask.hpp,
// polyline/masks.hpp and polyline/attention.hpp, with their arrays of all pairs of tokens, and the
// attention layer around them (models/attention.hpp). Legend: B batch, G heads, H W grid, N = H W,
// d head width, C = G d channels.

#include <vector>

#include "ppma/io/onnx_ops.hpp"
#include "ppma/models/attention.hpp"

namespace ppma::inline PPMA_ABI {

/// Log decays (B,G,H,W) each, of a batch of 1 where they are constant; no values without a mask.
struct OnnxDecays {
  OnnxValue alpha, beta;
};

/// Log mask (...,n,n) of log decays (...,n), as polyline/line_mask.hpp has it.
PPMA_API OnnxValue sequence_log_mask(const OnnxValue& log_decay,
                                     const std::vector<i64>& order = {});

/// The log masks of a kind, (B,G,N,N) each.
PPMA_API std::vector<OnnxValue> ablation_log_masks(MaskKind kind, const OnnxDecays& decays);

/// Of scores S and log masks M_r (B,G,N,N): the mean over r of rowsoftmax(S + M_r).
PPMA_API OnnxValue masked_probabilities(const OnnxValue& scores,
                                        const std::vector<OnnxValue>& log_masks);

/// The log decays for normalised tokens x (B,H,W,C).
PPMA_API OnnxDecays emit(const PathEmbed& p, const OnnxValue& x);
/// RMT's: decay (G) on a grid, whatever the batch.
PPMA_API OnnxDecays constant_decays(OnnxGraph& g, const Tensor& decay, i64 height, i64 width);

/// What the blocks of a stage share: how queries and keys are turned, keys scaled besides, and
/// fixed decays; no values where a network has none.
struct OnnxPositions {
  OnnxValue query_cosine, query_sine, key_cosine, key_sine;  // (H,W,d)
  OnnxValue pairs;                                           // (d,d)
  OnnxDecays decays;

  /// On a grid of tokens.
  PPMA_API OnnxPositions(OnnxGraph& g, const Positions& at, const StageConfig& c, i64 height,
                         i64 width);
};

/// Attention::forward: x (B,H,W,C) -> (B,H,W,C).
PPMA_API OnnxValue emit(const char* name, const Attention& a, const OnnxPositions& at,
                        const OnnxValue& x);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_ONNX)

#include <cmath>

#include "ppma/models/onnx_layers.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/line_mask.hpp"

namespace ppma::inline PPMA_ABI {

// ---- masks ----

// Sums outwards, from each key's column down, as there: closed edges cancel nothing.
OnnxValue sequence_log_mask(const OnnxValue& log_decay, const std::vector<i64>& order) {
  OnnxValue x = order.empty() ? log_decay : gather(log_decay, -1, order);
  std::vector<i64> as_column = x.shape;
  as_column.push_back(1);
  const OnnxValue below = cumsum(below_diagonal(reshape(x, as_column)), -2);  // (...,n,n)
  const OnnxValue mask = below + transpose(below);
  if (order.empty()) return mask;
  std::vector<i64> back(order.size());
  for (std::size_t t = 0; t < order.size(); ++t)
    back[static_cast<std::size_t>(order[t])] = static_cast<i64>(t);
  return gather(gather(mask, -1, back), -2, back);
}

namespace detail {

struct OnnxLineMasks {
  OnnxValue rows, columns;  // (B,G,H,W,W), (B,G,W,H,H); no values without a mask
};

inline OnnxLineMasks line_log_masks(const OnnxDecays& d) {
  return {sequence_log_mask(d.alpha), sequence_log_mask(transpose(d.beta))};
}

// log L (B,G,N,N), V2H.
inline OnnxValue polyline_log_mask(const OnnxDecays& d) {
  const OnnxLineMasks m = line_log_masks(d);
  const i64 b = d.alpha.dim(0), g = d.alpha.dim(1), h = d.alpha.dim(2), w = d.alpha.dim(3);
  const OnnxValue rows = reshape(m.rows, {b, g, h, w, 1, w});  // (B,G,i,j,1,l)
  const OnnxValue columns =                                    // (B,G,i,1,k,l)
      reshape(permute(m.columns, {0, 1, 3, 4, 2}), {b, g, h, 1, h, w});
  return reshape(rows + columns, {b, g, h * w, h * w});
}

inline OnnxValue in_a_row(const OnnxValue& t) {
  return reshape(t, {t.dim(0), t.dim(1), t.dim(2) * t.dim(3)});
}

// A log mask (B,G,N,N) restricted to the rows of the grid, or to its columns.
inline OnnxValue restrict_to_lines(const OnnxValue& mask, i64 h, i64 w, bool rows) {
  std::vector<i64> places;
  const i64 lines = rows ? h : w, n = rows ? w : h, line = rows ? w : 1, step = rows ? 1 : w;
  for (i64 l = 0; l < lines; ++l)
    for (i64 query = 0; query < n; ++query)
      for (i64 key = 0; key < n; ++key)
        places.push_back((l * line + query * step) * h * w + l * line + key * step);
  const OnnxValue flat = reshape(mask, {mask.dim(0), mask.dim(1), h * w * h * w});
  return reshape(gather(flat, -1, places), {mask.dim(0), mask.dim(1), lines, n, n});
}

}  // namespace detail

std::vector<OnnxValue> ablation_log_masks(MaskKind kind, const OnnxDecays& d) {
  using detail::in_a_row;
  if (kind == MaskKind::none) return {};
  const i64 h = d.alpha.dim(2), w = d.alpha.dim(3);
  if (kind == MaskKind::cross_scan)
    return {sequence_log_mask(in_a_row(d.alpha)),
            sequence_log_mask(in_a_row(d.beta), column_major_order(h, w))};
  if (kind == MaskKind::hilbert)
    return {sequence_log_mask(in_a_row(d.alpha), hilbert_order(h, w)),
            sequence_log_mask(in_a_row(d.beta), hilbert_order(h, w, true))};
  check(mask_of(kind).paths.has_value(), "onnx: the mask ", to_string(kind),
        " is not known here; its log masks belong into ablation_log_masks()");
  const OnnxValue m = detail::polyline_log_mask(d);
  if (mask_of(kind).paths == Paths::both) return {m, transpose(m)};
  return {m};
}

OnnxDecays emit(const PathEmbed& p, const OnnxValue& x) {
  const Scope scope("path_embed");
  OnnxGraph& g = *x.graph;
  const i64 heads = p.dt_bias.dim(0), d = x.dim(3) / heads;
  const OnnxValue w = g.weight("dt_linear.weight_t", transpose(p.dt_linear_weight.detach(), 0, 1));
  const OnnxValue b = g.weight("dt_bias", reshape(p.dt_bias.detach(), {heads, 1}));
  const OnnxValue a = g.weight("A", neg(exp(reshape(p.A_log.detach(), {heads, 1}))));
  const OnnxValue tokens = reshape(x, {x.dim(0), x.dim(1), x.dim(2), heads, d});
  const OnnxValue y = a * softplus(matmul(tokens, w) + b);  // (B,H,W,G,rows)
  const auto of = [&y](i64 row) { return permute(select(y, 4, row), {0, 3, 1, 2}); };
  const OnnxValue alpha = of(0);
  return {alpha, y.dim(4) == 1 ? alpha : of(1)};
}

OnnxDecays constant_decays(OnnxGraph& g, const Tensor& decay, i64 height, i64 width) {
  const i64 heads = decay.numel();
  const OnnxValue each = g.weight(
      "decay", broadcast_to(reshape(decay.detach(), {1, heads, 1, 1}), {1, heads, height, width}));
  return {each, each};
}

// ---- attention ----

OnnxValue masked_probabilities(const OnnxValue& scores, const std::vector<OnnxValue>& log_masks) {
  if (log_masks.empty()) return softmax(scores);
  const OnnxValue p = softmax(scores + log_masks[0]);
  return log_masks.size() == 1 ? p : scale(p + softmax(scores + log_masks[1]), 0.5);
}

namespace detail {

// (B,H,W,C) -> (B,G,H,W,d), and back.
inline OnnxValue split_heads(const OnnxValue& x, i64 heads) {
  return permute(reshape(x, {x.dim(0), x.dim(1), x.dim(2), heads, x.dim(3) / heads}),
                 {0, 3, 1, 2, 4});
}
inline OnnxValue merge_heads(const OnnxValue& x) {
  return reshape(permute(x, {0, 2, 3, 1, 4}), {x.dim(0), x.dim(2), x.dim(3), x.dim(1) * x.dim(4)});
}
// (B,G,H,W,d) -> (B,G,N,d)
inline OnnxValue as_tokens(const OnnxValue& x) {
  return reshape(x, {x.dim(0), x.dim(1), x.dim(2) * x.dim(3), x.dim(4)});
}

// x (B,G,H,W,d) turned by its places: a pair (a, b) of channels becomes (a cos - b sin, b cos +
// a sin), which is x cos + (-b, a) sin.
inline OnnxValue turned(const OnnxValue& x, const OnnxValue& pairs, const OnnxValue& cosine,
                        const OnnxValue& sine) {
  return x * cosine + matmul(x, pairs) * sine;
}

inline double key_scale(const StageConfig& c) {
  return 1 / std::sqrt(static_cast<double>(c.channels / c.heads));
}

// (mean over r of rowsoftmax(S + M_r)) V; q, k, v (B,G,H,W,d).
inline OnnxValue whole_attention(const OnnxValue& q, const OnnxValue& k, const OnnxValue& v,
                                 MaskKind kind, const OnnxDecays& decays) {
  const OnnxValue scores = matmul(as_tokens(q), transpose(as_tokens(k)));
  const OnnxValue map = masked_probabilities(scores, ablation_log_masks(kind, decays));
  return reshape(matmul(map, as_tokens(v)), v.shape);
}

// Rows, then columns, the other way round, or the mean of both.
inline OnnxValue criss_cross_attention(const OnnxValue& q, const OnnxValue& k, const OnnxValue& v,
                                       MaskKind kind, const OnnxDecays& decays) {
  const auto columns_first = [](const OnnxValue& t) { return permute(t, {0, 1, 3, 2, 4}); };
  const i64 h = q.dim(2), w = q.dim(3);
  OnnxLineMasks m;
  if (kind != MaskKind::none && mask_of(kind).polyline_lines) {
    m = line_log_masks(decays);
  } else if (kind != MaskKind::none) {
    const std::vector<OnnxValue> both = ablation_log_masks(kind, decays);
    m = {restrict_to_lines(both[0], h, w, true), restrict_to_lines(both[1], h, w, false)};
  }
  const auto map = [](const OnnxValue& scores, const OnnxValue& mask) {
    return softmax(mask.graph == nullptr ? scores : scores + mask);
  };
  const OnnxValue rows = map(matmul(q, transpose(k)), m.rows);
  const OnnxValue columns = map(matmul(columns_first(q), transpose(columns_first(k))), m.columns);
  const auto down = [&](const OnnxValue& t) {
    return columns_first(matmul(columns, columns_first(t)));
  };
  const Order order = mask_of(kind).order;
  if (order == Order::rows_first) return down(matmul(rows, v));
  if (order == Order::columns_first) return matmul(rows, down(v));
  return scale(down(matmul(rows, v)) + matmul(rows, down(v)), 0.5);
}

// ((Q K^T) * L2D) V; without a mask Q (K^T V). As ONNX has no scan over a grid, it costs N^2.
inline OnnxValue linear_attention(const OnnxValue& q, const OnnxValue& k, const OnnxValue& v,
                                  MaskKind kind, const OnnxDecays& decays) {
  const OnnxValue qs = as_tokens(q), ks = as_tokens(k), vs = as_tokens(v);
  if (kind == MaskKind::none) return reshape(matmul(qs, matmul(transpose(ks), vs)), v.shape);
  const OnnxValue l = exp(polyline_log_mask(decays));
  const OnnxValue mask = mask_of(kind).paths == Paths::both ? l + transpose(l) : l;
  return reshape(matmul(matmul(qs, transpose(ks)) * mask, vs), v.shape);
}

}  // namespace detail

OnnxPositions::OnnxPositions(OnnxGraph& g, const Positions& at, const StageConfig& c, i64 height,
                             i64 width) {
  const Scope scope("Relpos");
  if (at.decay.defined()) decays = constant_decays(g, at.decay, height, width);
  if (!at.angle.defined()) return;
  const i64 d = at.angle.numel();
  const Tensor angle = cast(at.angle.detach().to(Device::cpu), DType::f32);
  // (a, b) -> (-b, a) as a product with a matrix
  Tensor swap = Tensor::zeros({d, d}), ones = Tensor::zeros({1, height, width, d});
  for (i64 i = 0; i < d; i += 2)
    swap.data<float>()[i * d + i + 1] = 1, swap.data<float>()[(i + 1) * d + i] = -1;
  pairs = g.weight("pairs", swap);
  // The tables are what pairs (1, 0) become.
  for (i64 i = 0; i < ones.numel(); i += 2) ones.data<float>()[i] = 1;
  const auto table = [&](const char* name, double factor, i64 offset) {
    const Tensor of = rotary(ones, angle, 1, factor);
    Tensor t = Tensor::empty({height, width, d});
    for (i64 i = 0; i < t.numel(); ++i) t.data<float>()[i] = of.data<float>()[i - i % 2 + offset];
    return g.weight(name, t);
  };
  query_cosine = table("query_cosine", 1, 0), query_sine = table("query_sine", 1, 1);
  const double factor = detail::key_scale(c);
  key_cosine = table("key_cosine", factor, 0), key_sine = table("key_sine", factor, 1);
}

OnnxValue emit(const char* name, const Attention& a, const OnnxPositions& at, const OnnxValue& x) {
  const Scope scope(name);
  const StageConfig& c = a.config;
  OnnxValue q = emit("q_proj", a.q_proj, x), k = emit("k_proj", a.k_proj, x);
  if (c.linear) q = softplus(q), k = softplus(k);
  q = detail::split_heads(q, c.heads), k = detail::split_heads(k, c.heads);
  if (at.pairs.graph != nullptr) {
    q = detail::turned(q, at.pairs, at.query_cosine, at.query_sine);
    k = detail::turned(k, at.pairs, at.key_cosine, at.key_sine);
  } else {
    k = scale(k, detail::key_scale(c));
  }
  const OnnxValue v = emit("v_proj", a.v_proj, x), vs = detail::split_heads(v, c.heads);
  const OnnxDecays decays = a.path_embed ? emit(*a.path_embed, x) : at.decays;
  OnnxValue y = c.linear        ? detail::linear_attention(q, k, vs, c.mask, decays)
                : c.criss_cross ? detail::criss_cross_attention(q, k, vs, c.mask, decays)
                                : detail::whole_attention(q, k, vs, c.mask, decays);
  if (a.linear_norm) y = emit("linear_norm", *a.linear_norm, y);  // (B,G,H,W,d), of each head
  y = detail::merge_heads(y);
  return emit("out_proj", a.out_proj, a.lepe ? y + emit("lepe", *a.lepe, v) : y);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
