#pragma once
#include "ppma/core/names_begin.hpp"
// The rows of a summary (models/summary.hpp, which says what they count) that are those of
// attention.

#include "ppma/models/attention.hpp"
#include "ppma/nn/summary_rows.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

class SummaryWriter : public LayerRows {
 public:
  using LayerRows::LayerRows;

  /// Decays of tokens (B,H,W,C): one linear layer on each head's channels.
  PPMA_API void path_embed(PathEmbed& l, const Shape& x);
  /// Products, softmaxes and mask of a whole attention over `tokens` tokens, one to two log masks
  /// of `masked` tokens.
  PPMA_API void whole_attention(const Shape& out, i64 batch, i64 tokens, i64 masked, i64 channels,
                                i64 heads, MaskKind mask);
  PPMA_API void criss_cross(const Shape& x, i64 heads, MaskKind mask);
  /// Of each path: the products k v^T and q^T (L k v^T), and the scans that apply the mask.
  PPMA_API void linear_attention(const Shape& x, i64 heads, MaskKind mask);
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

namespace detail {

inline constexpr i64 decay_ops = 5;       // + bias, softplus (3), times -A
inline constexpr i64 prefix_sum_ops = 1;  // a decay
inline constexpr i64 line_mask_ops = 3;   // a score: |c_i - c_j| (2), added (1)
inline constexpr i64 grid_mask_ops = 6;   // a score: two such distances, their sum, added
inline constexpr i64 scan_ops = 8;        // an element of k v^T: 4 ways, a product and a sum each

void SummaryWriter::path_embed(PathEmbed& l, const Shape& x) {
  const i64 outputs = l.dt_linear_weight.dim(0);
  const Shape y{outputs, x[0], l.dt_bias.dim(0), x[1], x[2]};
  row("path_embed", y, parameter_count(l), x.numel() * outputs,
      (decay_ops + prefix_sum_ops) * y.numel());
}

void SummaryWriter::whole_attention(const Shape& out, i64 batch, i64 tokens, i64 masked,
                                    i64 channels, i64 heads, MaskKind mask) {
  const std::optional<Paths> paths = mask_of(mask).paths;
  const bool sequence = !paths;
  const i64 masks = paths == Paths::none ? 0 : paths == Paths::v2h ? 1 : 2;
  const i64 scores = batch * heads * tokens * tokens,
            masked_scores = batch * heads * masked * masked;
  // + their mean
  const i64 softmaxes = std::max<i64>(1, masks) * softmax_ops + (masks == 2 ? 2 : 0);
  row("attention", out, 0, 2 * batch * tokens * tokens * channels,
      scores * softmaxes + masked_scores * masks * (sequence ? line_mask_ops : grid_mask_ops));
}

void SummaryWriter::criss_cross(const Shape& x, i64 heads, MaskKind mask) {  // x (B,H,W,C)
  // one channel's or head's row and column of every token
  const i64 lines = x[0] * x[1] * x[2] * (x[1] + x[2]);
  const bool both = mask_of(mask).order == Order::both;
  row("attention", x, 0, (both ? 3 : 2) * lines * x[3],
      lines * heads * (softmax_ops + (mask == MaskKind::none ? 0 : line_mask_ops)) +
          (both ? 2 * x.numel() : 0));
}

void SummaryWriter::linear_attention(const Shape& x, i64 heads, MaskKind mask) {  // x (B,H,W,C)
  const i64 paths = mask_of(mask).paths == Paths::both ? 2 : 1;
  const i64 products = x.numel() * (x[3] / heads);
  row("attention", x, 0, paths * 2 * products, paths * scan_ops * products);
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
