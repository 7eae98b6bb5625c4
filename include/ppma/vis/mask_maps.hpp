#pragma once
#include "ppma/core/names_begin.hpp"
// What one block of a network sees from one token of an image: decays, attention without mask,
// mask, masked attention (algorithm 5), for mask_picture(). Whole attention is computed for the
// figure also where the stage itself uses criss-cross.
//
// Legend: h w token grid, N = h w, G heads, C channels; query token u = (i,j), key token (k,l).

#include "ppma/models/ppma.hpp"
#include "ppma/vis/mask_picture.hpp"

namespace ppma::inline PPMA_ABI {

struct MaskView {
  // the paper's: second block of the first stage; the last one if there are fewer
  std::size_t stage = 0, block = 1;
  i64 head = -1;                   // -1: mean over the heads
  double row = 0.5, column = 0.5;  // of the query, as fractions of the image's height and width
};

namespace detail {

// What a block's attention starts from, for one image.
struct BlockTokens {
  Tensor q, k;        // (1,h,w,C), rotary applied, k scaled
  Tensor log_decays;  // (2 or 1,1,G,h,w)
};

PPMA_API BlockTokens tokens_before(Ppma& model, const Tensor& input, std::size_t stage,
                                   std::size_t block);

}  // namespace detail

/// The maps of one query. `image` uint8 (H,W,3) is what is shown, `input` (1,3,H,W) what the
/// network gets. Of a polyline mask, both paths are averaged: the mask shown is L2D / 2, between 0
/// and 1. Errors: a network without path mask (none, cross_scan, hilbert); no such stage, block or
/// head; a stage of linear attention, which has no softmax.
PPMA_API MaskMaps mask_maps(Ppma& model, const Tensor& image, const Tensor& input,
                            const MaskView& view = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

BlockTokens tokens_before(Ppma& model, const Tensor& input, std::size_t stage, std::size_t block) {
  const NoGrad not_recorded;
  Context ctx;
  Backbone& net = model.backbone;
  Tensor x = net.patch_embed.forward(channels_last("mask_maps", input), ctx);  // (1,h,w,C)
  for (std::size_t s = 0; s < stage; ++s)
    x = net.layers[s].downsample->forward(net.layers[s].forward(x, ctx), ctx);
  Stage& here = net.layers[stage];
  for (std::size_t n = 0; n < block; ++n) x = here.blocks[n].forward(x, here.Relpos, ctx);
  const Block& b = here.blocks[block];
  const Tensor y = b.retention_layer_norm.forward(b.positioned(x));  // (1,h,w,C)
  const Attention& a = b.attention();
  const Rotated turned = a.queries_and_keys(y, here.Relpos);
  return {turned.q, turned.k, a.decays(y, here.Relpos)};
}

// Row u of the log masks of one head, from running sums of its log decays (algorithm 1.4): V2H and
// H2V.
inline std::array<std::vector<double>, 2> log_mask_rows(const std::vector<double>& log_alpha,
                                                        const std::vector<double>& log_beta, i64 h,
                                                        i64 w, i64 i, i64 j) {
  // a[i,j] = sum over t <= j of ln alpha[i,t];  b[i,j] over rows
  std::vector<double> a = log_alpha, b = log_beta;
  const auto at = [w](i64 y, i64 x) { return static_cast<std::size_t>(y * w + x); };
  for (i64 y = 0; y < h; ++y)
    for (i64 x = 1; x < w; ++x) a[at(y, x)] += a[at(y, x - 1)];
  for (i64 y = 1; y < h; ++y)
    for (i64 x = 0; x < w; ++x) b[at(y, x)] += b[at(y - 1, x)];
  std::array<std::vector<double>, 2> rows{std::vector<double>(a.size()),
                                          std::vector<double>(a.size())};
  for (i64 k = 0; k < h; ++k)
    for (i64 l = 0; l < w; ++l) {
      rows[0][at(k, l)] =
          -std::abs(a[at(i, j)] - a[at(i, l)]) - std::abs(b[at(i, l)] - b[at(k, l)]);
      rows[1][at(k, l)] =
          -std::abs(a[at(k, j)] - a[at(k, l)]) - std::abs(b[at(i, j)] - b[at(k, j)]);
    }
  return rows;
}

inline std::vector<double> softmax_of(std::vector<double> scores) {
  const double most = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& s : scores) sum += s = std::exp(s - most);
  for (double& s : scores) s /= sum;
  return scores;
}

}  // namespace detail

MaskMaps mask_maps(Ppma& model, const Tensor& image, const Tensor& input, const MaskView& view) {
  const MaskKind kind = model.config.mask;
  check(kind == MaskKind::polyline || kind == MaskKind::shared || kind == MaskKind::v2h ||
            kind == MaskKind::rmt,
        "mask_maps: the network's mask is ", kind,
        "; only masks along paths (polyline, shared, v2h, rmt) can be shown");
  check(view.stage < 4 && !model.backbone.layers[view.stage].blocks.empty(), "mask_maps: stage ",
        view.stage, " does not exist or has no blocks; stages are 0 to 3");
  check(!model.config.linear[view.stage], "mask_maps: stage ", view.stage,
        " has linear attention; what is shown are softmaxes: choose a stage that has them");
  const std::size_t block =
      std::min(view.block, model.backbone.layers[view.stage].blocks.size() - 1);
  const detail::BlockTokens tokens = detail::tokens_before(model, input, view.stage, block);
  const i64 h = tokens.q.dim(1), w = tokens.q.dim(2), n = h * w, heads = tokens.log_decays.dim(2),
            d = tokens.q.dim(3) / heads;
  check(view.head >= -1 && view.head < heads, "mask_maps: head ", view.head, " of ", heads,
        "; -1 is their mean");
  const i64 i = detail::cell_at(view.row, h), j = detail::cell_at(view.column, w);

  const std::vector<double> q = tokens.q.to_vector<double>(), k = tokens.k.to_vector<double>(),
                            log_alpha = log_alpha_of(tokens.log_decays).to_vector<double>(),
                            log_beta = log_beta_of(tokens.log_decays).to_vector<double>();
  std::vector<double> alpha(static_cast<std::size_t>(n)), beta = alpha, unmasked = alpha,
                                                          mask = alpha, masked = alpha;
  const i64 first = view.head < 0 ? 0 : view.head, last = view.head < 0 ? heads : view.head + 1;
  const double part = 1 / static_cast<double>(last - first);
  const std::size_t paths = kind == MaskKind::polyline || kind == MaskKind::shared ? 2 : 1;
  for (i64 g = first; g < last; ++g) {
    const auto head_of = [&](const std::vector<double>& all) {
      return std::vector<double>(all.data() + g * n, all.data() + (g + 1) * n);
    };
    const std::vector<double> la = head_of(log_alpha), lb = head_of(log_beta);
    std::vector<double> scores(static_cast<std::size_t>(n));  // of query u: q_u . k_t
    for (i64 t = 0; t < n; ++t)
      for (i64 c = g * d; c < (g + 1) * d; ++c)
        scores[static_cast<std::size_t>(t)] +=
            q[static_cast<std::size_t>((i * w + j) * heads * d + c)] *
            k[static_cast<std::size_t>(t * heads * d + c)];
    const std::array<std::vector<double>, 2> rows = detail::log_mask_rows(la, lb, h, w, i, j);
    const std::vector<double> plain = detail::softmax_of(scores);
    for (std::size_t t = 0; t < plain.size(); ++t) {
      alpha[t] += part * std::exp(la[t]);
      beta[t] += part * std::exp(lb[t]);
      unmasked[t] += part * plain[t];
    }
    for (std::size_t r = 0; r < paths; ++r) {
      std::vector<double> damped = scores;
      for (std::size_t t = 0; t < damped.size(); ++t) damped[t] += rows[r][t];
      damped = detail::softmax_of(damped);
      for (std::size_t t = 0; t < damped.size(); ++t) {
        mask[t] += part / static_cast<double>(paths) * std::exp(rows[r][t]);
        masked[t] += part / static_cast<double>(paths) * damped[t];
      }
    }
  }
  const auto map = [&](const std::vector<double>& v) { return Tensor::from(v, {h, w}); };
  return {image, map(alpha), map(beta), map(unmasked), map(mask), map(masked), i, j};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
