#pragma once
#include "ppma/core/names_begin.hpp"
// The plain vision transformer of DeiT, with the polyline mask plugged in or any other of the
// ablation (algorithm 4.3): one resolution, whole attention, a class token and learned positions.
// Names are those of timm's and DeiT's checkpoints;
// where the mask is learnt, blocks.N.attn.path_embed is added.
//
// The class token has no place on the grid: its row and column of every log mask are 0 (it sees and
// is seen undamped).
//
// Legend: B batch, P patch size, h w grid of patches, N = h w, T = N + 1 tokens, G heads, d head
// width, C = G d channels.

#include <optional>
#include <string>
#include <vector>

#include "ppma/core/limits.hpp"
#include "ppma/models/attention.hpp"
#include "ppma/models/stem.hpp"
#include "ppma/ops/activation.hpp"

namespace ppma::inline PPMA_ABI {

struct VitConfig {
  std::string name = "custom";
  i64 image_size = 224, patch_size = 16;
  i64 width = 192, depth = 12, heads = 3;
  double mlp_ratio = 4;
  i64 num_classes = 1000;
  double drop_path_rate = 0.1;  // of the last block; rises linearly from 0
  MaskKind mask = MaskKind::none;
  double rmt_range = 4;  // of the fixed decays, for MaskKind::rmt

  template <class Config, class F>
  static void fields(Config& c, F f) {
    f("name", c.name);
    f("image_size", c.image_size, counts());
    f("patch_size", c.patch_size, counts());
    f("width", c.width, counts());
    f("depth", c.depth, counts(1000));
    f("heads", c.heads, counts());
    f("mlp_ratio", c.mlp_ratio, Limits::positive(1000));
    f("num_classes", c.num_classes, counts(1 << 24));
    f("drop_path_rate", c.drop_path_rate, Limits::below(1));
    f("mask", c.mask);
    f("rmt_range", c.rmt_range, Limits{0, 100});
  }
  /// Patches a side.
  i64 grid() const { return image_size / patch_size; }
};

/// DeiT-tiny, 5,717,416 parameters; with the polyline mask 5,719,024.
PPMA_API VitConfig deit_tiny(MaskKind mask = MaskKind::none);

/// Throws an Error that names the first value that makes no network.
PPMA_API void check_config(const VitConfig& c);

/// A log mask of the patches (B,G,N,N) with a row and a column of zeros for the class token in
/// front: (B,G,T,T).
PPMA_API Tensor with_class_token(const Tensor& log_mask);

struct VitAttention {
  VitConfig config;
  Linear qkv, proj;
  std::optional<PathEmbed> path_embed;
  Tensor decay;  // (G), RMT only: log decay of each head

  PPMA_API VitAttention(const VitConfig& c, Rng& rng);

  /// x (B,T,C), already normalised, the class token first -> (B,T,C)
  PPMA_API Tensor forward(const Tensor& x) const;

  /// The log masks (B,G,T,T) for normalised tokens x (B,T,C).
  PPMA_API std::vector<Tensor> log_masks(const Tensor& x) const;
  template <class V>
  void fields(V& v) {
    v.child("qkv", qkv), v.child("proj", proj), v.child("path_embed", path_embed);
    v.buffer("decay", decay);
  }
};

struct VitBlock {
  LayerNorm norm1;
  VitAttention attn;
  LayerNorm norm2;
  GeluMlp mlp;
  double drop_path;

  PPMA_API VitBlock(const VitConfig& c, double drop, Rng& rng);
  /// x (B,T,C), the class token first -> (B,T,C)
  PPMA_API Tensor forward(Tensor x, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.child("norm1", norm1), v.child("attn", attn), v.child("norm2", norm2), v.child("mlp", mlp);
  }
};

/// `patch_embed`: the one convolution, P x P with stride P.
struct PatchEmbed {
  Conv2d proj;

  PatchEmbed(i64 width, i64 patch, Rng& rng)
      : proj(3, width, patch, ConvOptions{patch, 0, 1}, rng) {}
  template <class V>
  void fields(V& v) {
    v.child("proj", proj);
  }
};

struct Vit {
  VitConfig config;
  Tensor cls_token;  // (1,1,C)
  Tensor pos_embed;  // (1,T,C)
  PatchEmbed patch_embed;
  std::vector<VitBlock> blocks;
  LayerNorm norm;
  Linear head;

  explicit Vit(const VitConfig& c, u64 seed = 0) : Vit(c, Rng(seed)) {}
  PPMA_API Vit(const VitConfig& c, Rng rng);

  /// Images (B,3,S,S), S the configuration's image_size -> logits (B,classes).
  PPMA_API Tensor forward(const Tensor& images, Context& ctx) const;
  /// In evaluation mode, without recording.
  PPMA_API Tensor forward(const Tensor& images) const;
  template <class V>
  void fields(V& v) {
    v.parameter("cls_token", cls_token), v.parameter("pos_embed", pos_embed);
    v.child("patch_embed", patch_embed), v.children("blocks", blocks), v.child("norm", norm),
        v.child("head", head);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include <algorithm>
#include <cmath>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/residual.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/decay.hpp"

namespace ppma::inline PPMA_ABI {

VitConfig deit_tiny(MaskKind mask) {
  VitConfig c;
  c.name = mask == MaskKind::none ? "deit_tiny" : "deit_tiny_" + to_string(mask);
  c.mask = mask;
  return c;
}

void check_config(const VitConfig& c) {
  check_fields(c);
  check(c.patch_size > 0 && c.image_size >= c.patch_size && c.image_size % c.patch_size == 0,
        "config: image_size ", c.image_size, " is no multiple of patch_size ", c.patch_size);
  check(c.heads > 0 && c.width > 0 && c.width % c.heads == 0, "config: a width of ", c.width,
        " does not divide into ", c.heads, " heads");
  check(c.mlp_ratio * static_cast<double>(c.width) >= 1, "config: mlp_ratio ", c.mlp_ratio,
        " must make at least one channel");
}

Tensor with_class_token(const Tensor& log_mask) {
  const i64 b = log_mask.dim(0), g = log_mask.dim(1), n = log_mask.dim(2);
  const auto zeros = [&](i64 rows, i64 cols) {
    return Tensor::zeros({b, g, rows, cols}, log_mask.dtype(), log_mask.device());
  };
  return concat({zeros(1, n + 1), concat({zeros(n, 1), log_mask}, 3)}, 2);
}

VitAttention::VitAttention(const VitConfig& c, Rng& rng)
    : config(c), qkv(c.width, 3 * c.width, rng), proj(c.width, c.width, rng) {
  if (c.mask == MaskKind::rmt) decay = rmt_decay_log(c.heads, 2, c.rmt_range);
  if (mask_of(c.mask).decays > 0)
    path_embed.emplace(c.heads, c.width / c.heads, c.mask, rng.fork(rng.position()));
}

Tensor VitAttention::forward(const Tensor& x) const {
  const i64 b = x.dim(0), t = x.dim(1), g = config.heads, d = config.width / g;
  // (3,B,G,T,d)
  const Tensor heads = permute(reshape(qkv.forward(x), {b, t, 3, g, d}), {2, 0, 3, 1, 4});
  // (B,G,T,d)
  const Tensor q = scale(select(heads, 0, 0), 1 / std::sqrt(static_cast<double>(d)));
  // (B,G,T,T)
  const Tensor scores = matmul(q, select(heads, 0, 1), false, true);
  // (B,G,T,d)
  const Tensor y = matmul(masked_probabilities(scores, log_masks(x)), select(heads, 0, 2));
  return proj.forward(reshape(permute(y, {0, 2, 1, 3}), {b, t, config.width}));
}

std::vector<Tensor> VitAttention::log_masks(const Tensor& x) const {
  if (config.mask == MaskKind::none) return {};
  const i64 b = x.dim(0), side = config.grid();
  // (B,h,w,C)
  const Tensor patches = reshape(narrow(x, 1, 1, x.dim(1) - 1), {b, side, side, config.width});
  const Tensor decays =
      path_embed ? path_embed->forward(patches) : constant_log_decay(decay, b, side, side);
  std::vector<Tensor> masks = ablation_log_masks(config.mask, decays);
  for (Tensor& m : masks) m = with_class_token(m);
  return masks;
}

VitBlock::VitBlock(const VitConfig& c, double drop, Rng& rng)
    : norm1(c.width, 1e-6),
      attn(c, rng),
      norm2(c.width, 1e-6),
      mlp(c.width, static_cast<i64>(c.mlp_ratio * static_cast<double>(c.width)), rng),
      drop_path(drop) {}

Tensor VitBlock::forward(Tensor x, Context& ctx) const {
  x = residual(x, attn.forward(norm1.forward(x)), Tensor(), ctx.drop_path(x, drop_path));
  return residual(x, mlp.forward(norm2.forward(x)), Tensor(), ctx.drop_path(x, drop_path));
}

Vit::Vit(const VitConfig& c, Rng rng)
    : config((check_config(c), c)),
      cls_token(parameter(truncated_normal({1, 1, c.width}, rng))),
      pos_embed(parameter(truncated_normal({1, c.grid() * c.grid() + 1, c.width}, rng))),
      patch_embed(c.width, c.patch_size, rng),
      norm(c.width, 1e-6),
      head(c.width, c.num_classes, rng) {
  const double last = static_cast<double>(std::max<i64>(1, c.depth - 1));
  for (i64 n = 0; n < c.depth; ++n)
    blocks.emplace_back(c, c.drop_path_rate * static_cast<double>(n) / last, rng);
}

Tensor Vit::forward(const Tensor& images, Context& ctx) const {
  const i64 s = config.image_size, tokens = config.grid() * config.grid();
  const Tensor pixels = channels_last("vit", images);  // (B,s,s,3)
  check(pixels.dim(1) == s && pixels.dim(2) == s, "vit: images must be (B,3,", s, ",", s, "), got ",
        images.shape(), "; its positions are learned for that size");
  const i64 b = images.dim(0);
  Tensor x = patch_embed.proj.forward(pixels);  // (B,h,w,C)
  x = reshape(x, {b, tokens, config.width});    // (B,N,C)
  const Tensor first = broadcast_to(cast(cls_token, x.dtype()), {b, 1, config.width});
  x = concat({first, x}, 1) + cast(pos_embed, x.dtype());  // (B,T,C)
  for (std::size_t n = 0; n < blocks.size(); ++n) {
    const std::string name = str("blocks.", n);
    const Scope scope(name);
    x = ctx.seen(blocks[n].forward(std::move(x), ctx));
  }
  const Tensor logits = head.forward(norm.forward(select(x, 1, 0)));  // (B,classes)
  return cast(logits, accumulator_dtype(logits.dtype()));
}

Tensor Vit::forward(const Tensor& images) const {
  const NoGrad off;
  Context ctx;
  return forward(images, ctx);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
