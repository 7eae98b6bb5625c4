#pragma once
#include "ppma/core/names_begin.hpp"
// The networks: the four-stage backbone, the classifier on it, and the backbone for dense
// prediction.
// Legend: B batch, Hin Win image, H W grid of a stage (strides 4, 8, 16, 32, rounded up), C
// channels of a stage.

#include <string>
#include <utility>
#include <vector>

#include "ppma/models/block.hpp"

namespace ppma::inline PPMA_ABI {

/// Intermediate results by name, for those who want to look: "patch_embed", "stage0" .. "stage3"
/// (after merging).
using Maps = std::vector<std::pair<std::string, Tensor>>;

/// Stem and four stages.
struct Backbone {
  Stem patch_embed;
  std::vector<Stage> layers;

  PPMA_API Backbone(const PpmaConfig& c, Rng& rng);

  /// Images (B,3,Hin,Win), both sizes at least 32 -> the four maps before merging, (B,H,W,C) each.
  /// Where `maps` is given it receives the stem's output and each stage's after merging.
  PPMA_API std::vector<Tensor> forward(const Tensor& images, Context& ctx,
                                       Maps* maps = nullptr) const;
  template <class V>
  void fields(V& v) {
    v.child("patch_embed", patch_embed), v.children("layers", layers);
  }
};

/// The classifier: backbone, linear projection, batch norm, swish, mean over the tokens, linear
/// head.
struct Ppma {
  PpmaConfig config;
  Backbone backbone;
  Linear proj;     // C -> projection, on every token
  BatchNorm norm;  // projection
  Linear head;     // projection -> classes

  explicit Ppma(const PpmaConfig& c, u64 seed = 0) : Ppma(c, Rng(seed)) {}
  PPMA_API Ppma(const PpmaConfig& c, Rng rng);

  /// Images (B,3,Hin,Win) -> logits (B,classes).
  PPMA_API Tensor forward(const Tensor& images, Context& ctx, Maps* maps = nullptr) const;
  /// In evaluation mode, without recording.
  PPMA_API Tensor forward(const Tensor& images) const;
  template <class V>
  void fields(V& v) {
    backbone.fields(v);  // at the top level, as published
    v.child("proj", proj), v.child("norm", norm), v.child("head", head);
  }

 private:
  PPMA_API Tensor logits(const Tensor& images, Context& ctx, Maps* maps) const;
};

/// The backbone for dense prediction: each of the four maps through its own layer norm. One whose
/// parameters are all frozen evaluates in training too: the statistics of its batch norms stay, and
/// no path is dropped.
struct DenseBackbone {
  PpmaConfig config;
  Backbone backbone;
  std::vector<LayerNorm> outnorms;

  explicit DenseBackbone(const PpmaConfig& c, u64 seed = 0) : DenseBackbone(c, Rng(seed)) {}
  PPMA_API DenseBackbone(const PpmaConfig& c, Rng rng);
  /// Images (B,3,Hin,Win) -> four maps (B,H,W,C) at strides 4, 8, 16, 32.
  PPMA_API std::vector<Tensor> forward(const Tensor& images, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    backbone.fields(v);
    for (std::size_t s = 0; s < outnorms.size(); ++s)
      v.child(str("outnorm", s).c_str(), outnorms[s]);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include "ppma/nn/image_by_image.hpp"
#include "ppma/ops/pool.hpp"

namespace ppma::inline PPMA_ABI {

Backbone::Backbone(const PpmaConfig& c, Rng& rng) : patch_embed(c.embed_dims[0], rng) {
  i64 block = 0;
  for (std::size_t s = 0; s < 4; ++s) {
    layers.emplace_back(c, s, block, rng);
    block += c.depths[s];
  }
}

std::vector<Tensor> Backbone::forward(const Tensor& images, Context& ctx, Maps* maps) const {
  check_images("ppma", images);
  check(images.dim(2) >= 32 && images.dim(3) >= 32, "ppma: images must be at least 32 x 32, got ",
        images.dim(2), " x ", images.dim(3), "; resize or pad them");
  Tensor x;
  {
    const Scope scope("patch_embed");
    x = ctx.seen(patch_embed.of_images(images, ctx));
  }
  if (maps) maps->emplace_back("patch_embed", x);
  std::vector<Tensor> stages;
  for (std::size_t s = 0; s < layers.size(); ++s) {
    const std::string name = str("layers.", s);
    const Scope scope(name);
    x = ctx.seen(layers[s].forward(std::move(x), ctx));
    stages.push_back(x);
    x = layers[s].merge(x, ctx);
    if (maps) maps->emplace_back(str("stage", s), x);
  }
  return stages;
}

Ppma::Ppma(const PpmaConfig& c, Rng rng)
    : config((check_config(c), c)),
      backbone(c, rng),
      proj(c.embed_dims[3], c.projection, rng),
      norm(c.projection),
      head(c.projection, c.num_classes, rng) {}

Tensor Ppma::forward(const Tensor& images, Context& ctx, Maps* maps) const {
  if (maps == nullptr && goes_image_by_image(images, ctx))
    return image_by_image(images, [this](const Tensor& part, Context& own) {
      return std::vector<Tensor>{logits(part, own, nullptr)};
    })[0];
  return logits(images, ctx, maps);
}

Tensor Ppma::logits(const Tensor& images, Context& ctx, Maps* maps) const {
  const Tensor x = backbone.forward(images, ctx, maps).back();  // (B,H,W,C)
  const Scope scope("head");
  const Tensor y = norm.forward(proj.forward(x), ctx);  // (B,H,W,projection)
  Tensor out = head.forward(silu_avg_pool(y));          // (B,classes)
  out = ctx.seen(cast(out, accumulator_dtype(out.dtype())));
  if (maps) maps->emplace_back("logits", out);
  return out;
}

Tensor Ppma::forward(const Tensor& images) const {
  const NoGrad off;
  Context ctx;
  return forward(images, ctx);
}

DenseBackbone::DenseBackbone(const PpmaConfig& c, Rng rng)
    : config((check_config(c), c)), backbone(c, rng) {
  for (i64 channels : c.embed_dims) outnorms.emplace_back(channels, 1e-5);
}

std::vector<Tensor> DenseBackbone::forward(const Tensor& images, Context& ctx) const {
  Context evaluation;
  Context& as = ctx.training && !is_trainable(*this) ? evaluation : ctx;
  const auto levels = [this](const Tensor& part, Context& own) {
    std::vector<Tensor> maps = backbone.forward(part, own);
    for (std::size_t s = 0; s < maps.size(); ++s) maps[s] = outnorms[s].forward(maps[s]);
    return maps;
  };
  return goes_image_by_image(images, as) ? image_by_image(images, levels) : levels(images, as);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
