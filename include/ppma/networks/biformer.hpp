#pragma once
#include "ppma/core/names_begin.hpp"
// Zhu et al., "BiFormer: Vision Transformer with Bi-Level Routing Attention", 2023.
//
//   x = x + DWConv3x3(x);  x = x + attention(LN(x));  x = x + W2 GELU(W1 LN(x)),  W1: C -> 3 C
//
// The attention of the first three stages routes: the grid is cut into 7 x 7 regions, and the
// tokens of one attend to those of the 1, 4, 16 regions that answer it best (mixers/biformer.hpp).
// In the last stage it is whole. Stem: two convolutions 3x3 with stride 2, each with a batch norm,
// GELU between; such a convolution before each other stage. Head: batch norm, mean, linear.
//
// Names, and what the paper leaves open, are those of the authors' checkpoint of BiFormer-T:
//   - scores of a routed attention are q k^T / sqrt(C), not of a head's width;
//   - the whole attention has no bias of q, k and v, and its convolution is on x, not on v;
//   - a grid that 7 does not divide gets zeros below and to the right, as in dense prediction:
//     they are tokens like others, and the results at them are cut off.

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "ppma/networks/parts.hpp"

namespace ppma::inline PPMA_ABI {

/// Attention of stages 0 to 2.
struct BiFormerRouted {
  i64 heads, most;  // regions that a region attends to
  Depthwise lepe;   // 5x5
  Linear qkv, wo;

  BiFormerRouted(i64 channels, i64 heads_, i64 most_, Rng& rng)
      : heads(heads_),
        most(most_),
        lepe(channels, 5, rng),
        qkv(channels, 3 * channels, rng),
        wo(channels, channels, rng) {}
  /// x (B,H,W,C), normalised -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  template <class V>
  void fields(V& v) {
    v.child("lepe", lepe), v.child("qkv.qkv", qkv), v.child("wo", wo);
  }
};

/// Attention of the last stage.
struct BiFormerWhole {
  i64 heads;
  Linear qkv, proj;
  Depthwise lepe;  // 5x5

  BiFormerWhole(i64 channels, i64 heads_, Rng& rng)
      : heads(heads_),
        qkv(channels, 3 * channels, rng, false),
        proj(channels, channels, rng),
        lepe(channels, 5, rng) {}
  /// x (B,H,W,C), normalised -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  template <class V>
  void fields(V& v) {
    v.child("qkv", qkv), v.child("proj", proj), v.child("lepe", lepe);
  }
};

struct BiFormerBlock {
  Depthwise pos_embed;  // 3x3
  LayerNorm norm1;
  std::optional<BiFormerRouted> routed;  // one of both
  std::optional<BiFormerWhole> whole;
  LayerNorm norm2;
  Linear fc1, fc2;
  double drop_path;

  PPMA_API BiFormerBlock(i64 channels, i64 heads, std::size_t stage, double drop, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(Tensor x, Context& ctx) const;
  /// Its rows of a summary for x.
  PPMA_API void describe(detail::LayerRows& w, const Shape& x);
  template <class V>
  void fields(V& v) {
    v.child("pos_embed", pos_embed), v.child("norm1", norm1), v.child("attn", routed);
    v.child("attn", whole), v.child("norm2", norm2), v.child("mlp.0", fc1), v.child("mlp.3", fc2);
  }
};

struct BiFormer {
  std::vector<Conv2d> convs;  // two of the stem, one before each other stage
  std::vector<BatchNorm> conv_norms;
  std::vector<std::vector<BiFormerBlock>> stages;  // four
  BatchNorm norm;
  Linear head;

  /// Error: heads that do not divide the channels, or none.
  PPMA_API BiFormer(const NetworkConfig& c, Rng& rng);
  /// (B,H,W,3) -> logits (B,classes)
  PPMA_API Tensor forward(const Tensor& images, Context& ctx) const;
  /// Its rows of a summary for images (B,H,W,3).
  PPMA_API void describe(detail::LayerRows& w, const Shape& images);
  /// biformer_tiny, small, base; biformer_nano.
  PPMA_API static std::vector<NetworkConfig> configs();
  template <class V>
  void fields(V& v) {
    for (std::size_t i = 0; i < convs.size(); ++i) {
      v.child(conv_name(i, 0).c_str(), convs[i]);
      v.child(conv_name(i, 1).c_str(), conv_norms[i]);
    }
    for (std::size_t s = 0; s < 4; ++s) v.children(str("stages.", s).c_str(), stages[s]);
    v.child("norm", norm), v.child("head", head);
  }

 private:
  // Of convolution i, or part 1: of its norm.
  static std::string conv_name(std::size_t i, std::size_t part) {
    return i < 2 ? str("downsample_layers.0.", 3 * i + part)
                 : str("downsample_layers.", i - 1, ".", part);
  }
  Tensor reduced(std::size_t i, const Tensor& x, const Context& ctx) const {
    return conv_norms[i].forward(convs[i].forward(x), ctx);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

#include <array>
#include <cmath>

#include "ppma/mixers/biformer.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/residual.hpp"
#include "ppma/ops/softmax.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline constexpr i64 biformer_regions = 7;  // on each axis

// The next multiple of that.
inline i64 biformer_side(i64 n) {
  return (n + biformer_regions - 1) / biformer_regions * biformer_regions;
}

// Zeros behind the last element of an axis.
inline Tensor longer(const Tensor& x, int axis, i64 size) {
  const i64 more = size - x.dim(axis);
  if (more == 0) return x;
  return concat({x, Tensor::zeros(with_size(x.shape(), axis, more), x.dtype(), x.device())}, axis);
}

}  // namespace detail

Tensor BiFormerRouted::forward(const Tensor& x) const {
  const i64 H = x.dim(1), W = x.dim(2), C = x.dim(3), sides = detail::biformer_regions;
  const Tensor padded =
      detail::longer(detail::longer(x, 1, detail::biformer_side(H)), 2, detail::biformer_side(W));
  const Tensor all = qkv.forward(padded);  // (B,H',W',3C)
  const Tensor y =
      detail::routed_sums(all, sides, sides, most, heads, 1 / std::sqrt(static_cast<double>(C)));
  const Tensor mixed = wo.forward(lepe.forward(narrow(all, 3, 2 * C, C), y));
  return narrow(narrow(mixed, 1, 0, H), 2, 0, W);
}

Tensor BiFormerWhole::forward(const Tensor& x) const {
  const i64 batch = x.dim(0), n = x.dim(1) * x.dim(2), C = x.dim(3), d = C / heads;
  // (3,B,G,N,d)
  const Tensor all = permute(reshape(qkv.forward(x), {batch, n, 3, heads, d}), {2, 0, 3, 1, 4});
  const Tensor q = scale(select(all, 0, 0), 1 / std::sqrt(static_cast<double>(d)));
  const Tensor weights = softmax(matmul(q, select(all, 0, 1), false, true));
  const Tensor y = permute(matmul(weights, select(all, 0, 2)), {0, 2, 1, 3});
  return proj.forward(lepe.forward(x, reshape(y, x.shape())));
}

BiFormerBlock::BiFormerBlock(i64 channels, i64 heads, std::size_t stage, double drop, Rng& rng)
    : pos_embed(channels, 3, rng),
      norm1(channels, 1e-6),
      norm2(channels, 1e-6),
      fc1(channels, 3 * channels, rng),
      fc2(3 * channels, channels, rng),
      drop_path(drop) {
  if (stage < 3)
    routed.emplace(channels, heads, std::array<i64, 3>{1, 4, 16}[stage], rng);
  else
    whole.emplace(channels, heads, rng);
}

Tensor BiFormerBlock::forward(Tensor x, Context& ctx) const {
  x = pos_embed.forward(x, x);
  const Tensor normed = norm1.forward(x);
  x = residual(x, routed ? routed->forward(normed) : whole->forward(normed), Tensor(),
               ctx.drop_path(x, drop_path));
  return residual(x, fc2.forward(gelu(fc1.forward(norm2.forward(x)))), Tensor(),
                  ctx.drop_path(x, drop_path));
}

std::vector<NetworkConfig> BiFormer::configs() {
  const std::vector<i64> dims{64, 128, 256, 512}, heads{2, 4, 8, 8};
  return {
      {"biformer_tiny", "biformer", {2, 2, 8, 2}, dims, heads, 1000, 0.1},
      {"biformer_small", "biformer", {4, 4, 18, 4}, dims, heads, 1000, 0.15},
      {"biformer_base", "biformer", {4, 4, 18, 4}, {96, 192, 384, 768}, {3, 6, 12, 8}, 1000, 0.4},
      {"biformer_nano", "biformer", {1, 1, 2, 1}, {16, 32, 64, 64}, {1, 2, 4, 4}, 10, 0.05}};
}

BiFormer::BiFormer(const NetworkConfig& c, Rng& rng)
    : norm(c.dims[3]), head(c.dims[3], c.num_classes, rng) {
  check(c.heads.size() == 4, "biformer: `heads` must name those of the four stages' attentions");
  const std::vector<i64> widths{3, c.dims[0] / 2, c.dims[0], c.dims[1], c.dims[2], c.dims[3]};
  for (std::size_t i = 0; i < 5; ++i) {
    convs.emplace_back(widths[i], widths[i + 1], 3, ConvOptions{2, 1, 1}, rng);
    conv_norms.emplace_back(widths[i + 1]);
  }
  i64 block = 0;
  for (std::size_t s = 0; s < 4; ++s) {
    check(c.dims[s] % c.heads[s] == 0, "biformer: the ", c.dims[s], " channels of stage ", s,
          " do not divide into ", c.heads[s], " heads");
    stages.emplace_back();
    for (i64 n = 0; n < c.depths[s]; ++n)
      stages[s].emplace_back(c.dims[s], c.heads[s], s, detail::drop_path_of(c, block++), rng);
  }
}

Tensor BiFormer::forward(const Tensor& images, Context& ctx) const {
  Tensor x = reduced(1, conv_norms[0].forward_gelu(convs[0].forward(images), ctx), ctx);
  for (std::size_t s = 0; s < 4; ++s) {
    if (s > 0) x = reduced(s + 1, x, ctx);
    x = detail::through_blocks(stages[s], str("stages.", s), std::move(x), ctx);
  }
  return head.forward(mean(norm.forward(x, ctx), {1, 2}));
}

void BiFormerBlock::describe(detail::LayerRows& w, const Shape& x) {
  w.depthwise("pos_embed", pos_embed, x), w.norm("norm1", norm1, x);
  // products with k and v, softmaxes; q is scaled
  const auto attention = [&](const Shape& tokens, i64 seen, i64 heads, i64 answers, i64 means) {
    const i64 n = tokens[0] * tokens[1] * tokens[2];
    w.row("attention", tokens, 0, answers + 2 * n * seen * tokens[3],
          means + tokens.numel() + n * seen * heads * detail::softmax_ops);
  };
  w.within("attn", [&] {
    if (routed) {
      const i64 all = detail::biformer_regions * detail::biformer_regions;
      const Shape padded{x[0], detail::biformer_side(x[1]), detail::biformer_side(x[2]), x[3]};
      w.linear("qkv.qkv", routed->qkv, padded);
      attention(padded, padded[1] * padded[2] / all * routed->most, routed->heads,
                x[0] * all * all * x[3], 2 * padded.numel());
      w.depthwise("lepe", routed->lepe, padded), w.linear("wo", routed->wo, padded);
    } else {
      w.linear("qkv", whole->qkv, x), attention(x, x[1] * x[2], whole->heads, 0, 0);
      w.depthwise("lepe", whole->lepe, x), w.linear("proj", whole->proj, x);
    }
  });
  w.elementwise("residual_1", x, 1), w.norm("norm2", norm2, x);
  w.within("mlp", [&] {
    w.linear("3", fc2, w.elementwise("2", w.linear("0", fc1, x), detail::gelu_ops));
  });
  w.elementwise("residual_2", x, 1);
}

void BiFormer::describe(detail::LayerRows& w, const Shape& images) {
  Shape x = images;
  for (std::size_t i = 0; i < 5; ++i) {
    x = w.norm(conv_name(i, 1), conv_norms[i], w.conv(conv_name(i, 0), convs[i], x));
    if (i == 0) w.elementwise("downsample_layers.0.2", x, detail::gelu_ops);
    if (i > 0)
      for (std::size_t n = 0; n < stages[i - 1].size(); ++n)
        w.within(str("stages.", i - 1, ".", n), [&] { stages[i - 1][n].describe(w, x); });
  }
  const Shape pooled{x[0], x[3]};
  w.norm("norm", norm, x), w.row("pool", pooled, 0, 0, x.numel()), w.linear("head", head, pooled);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
