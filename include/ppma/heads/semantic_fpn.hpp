#pragma once
#include "ppma/core/names_begin.hpp"
// Semantic FPN (Kirillov et al., "Panoptic feature pyramid networks", 2019), the light alternative
// to UperNet: a feature pyramid, each level brought to stride 4 by 3x3 convolutions and doublings,
// the sum classified. Names as mmseg's (`neck`, `decode_head.scale_heads`). Legend: B batch, H W
// grid of the finest map, C channels, D of the head, K classes.

#include <vector>

#include "ppma/heads/fpn.hpp"
#include "ppma/heads/segmentor.hpp"

namespace ppma::inline PPMA_ABI {

/// One level: the convolutions at even places, doublings between and behind them. The finest level
/// has no doubling.
struct ScaleHead {
  bool doubles;
  std::vector<ConvModule> convs;

  PPMA_API ScaleHead(std::size_t level, i64 in, i64 out, Rng& rng);
  PPMA_API Tensor forward(Tensor x, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    for (std::size_t k = 0; k < convs.size(); ++k) v.child(str(2 * k).c_str(), convs[k]);
  }
};

struct SemanticFpnConfig {
  PpmaConfig backbone = ppma_tiny();
  i64 pyramid_channels = 256, channels = 128, num_classes = 150;
  double dropout_ratio = 0.1;  // of whole channels
  i64 ignore_index = 255;

  bool operator==(const SemanticFpnConfig&) const = default;
};

/// Throws an Error that names the first value that makes no network, by its key in
/// heads/segmentor_json.hpp.
PPMA_API void check_config(const SemanticFpnConfig& c);

struct SemanticFpnHead {
  double dropout_ratio;
  Conv2d conv_seg;
  std::vector<ScaleHead> scale_heads;

  PPMA_API SemanticFpnHead(i64 in, i64 channels, i64 classes, double dropout, Rng& rng);
  /// At least four maps (B,H,W,C), finest first -> logits (B,H,W,K).
  PPMA_API Tensor forward(const std::vector<Tensor>& maps, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.child("conv_seg", conv_seg), v.children("scale_heads", scale_heads);
  }
};

/// The network; forward and loss as Segmentor's, without an auxiliary head.
struct SemanticFpn {
  SemanticFpnConfig config;
  DenseBackbone backbone;
  Fpn neck;
  SemanticFpnHead decode_head;

  explicit SemanticFpn(const SemanticFpnConfig& c, u64 seed = 0) : SemanticFpn(c, Rng(seed)) {}

  /// Images (B,3,Hin,Win) -> logits (B,Hin,Win,K).
  Tensor forward(const Tensor& images, Context& ctx) const {
    return resize(logits(images, ctx), images.dim(2), images.dim(3));
  }
  /// labels int64 (B,Hin,Win). The mean divides by all pixels, ignored ones too.
  PPMA_API SegmentationLoss loss(const Tensor& images, const Tensor& labels, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.child("backbone", backbone), v.child("neck", neck), v.child("decode_head", decode_head);
  }

 private:
  PPMA_API SemanticFpn(const SemanticFpnConfig& c, Rng rng);
  Tensor logits(const Tensor& images, Context& ctx) const {
    return decode_head.forward(neck.forward(backbone.forward(images, ctx)), ctx);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <algorithm>

#include "ppma/heads/config_check.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/loss.hpp"

namespace ppma::inline PPMA_ABI {

ScaleHead::ScaleHead(std::size_t level, i64 in, i64 out, Rng& rng) : doubles(level > 0) {
  for (std::size_t k = 0; k < std::max<std::size_t>(1, level); ++k)
    convs.emplace_back(k == 0 ? in : out, out, 3, rng);
}

Tensor ScaleHead::forward(Tensor x, Context& ctx) const {
  for (const ConvModule& conv : convs) {
    x = conv.forward(x, ctx);
    if (doubles) x = resize(x, 2 * x.dim(1), 2 * x.dim(2));
  }
  return x;
}

void check_config(const SemanticFpnConfig& c) {
  check_config(c.backbone);
  detail::check_positive("num_classes", c.num_classes),
      detail::check_positive("channels", c.channels);
  detail::check_positive("pyramid_channels", c.pyramid_channels),
      detail::check_dropout("dropout_ratio", c.dropout_ratio);
}

SemanticFpnHead::SemanticFpnHead(i64 in, i64 channels, i64 classes, double dropout, Rng& rng)
    : dropout_ratio(dropout), conv_seg(channels, classes, 1, {}, rng) {
  for (std::size_t level = 0; level < 4; ++level)
    scale_heads.emplace_back(level, in, channels, rng);
}

Tensor SemanticFpnHead::forward(const std::vector<Tensor>& maps, Context& ctx) const {
  check(maps.size() >= 4, "semantic fpn: needs four maps, got ", maps.size());
  Tensor sum = scale_heads[0].forward(maps[0], ctx);  // (B,H,W,D)
  for (std::size_t i = 1; i < 4; ++i)
    sum = add(sum, resize(scale_heads[i].forward(maps[i], ctx), sum.dim(1), sum.dim(2)));
  return conv_seg.forward(detail::channel_dropout(sum, dropout_ratio, ctx));
}

SegmentationLoss SemanticFpn::loss(const Tensor& images, const Tensor& labels, Context& ctx) const {
  check(labels.defined() && labels.rank() == 3, "semantic fpn: labels must be (B,H,W) int64");
  CrossEntropyOptions options;
  options.ignore_index = config.ignore_index, options.count_ignored = true;
  SegmentationLoss l;
  const Tensor full = resize(logits(images, ctx), labels.dim(1), labels.dim(2));
  l.decode_accuracy = pixel_accuracy(full, labels, config.ignore_index);
  l.decode = cross_entropy(full, labels, options);
  l.total = l.decode;
  return l;
}

SemanticFpn::SemanticFpn(const SemanticFpnConfig& c, Rng rng)
    : config((check_config(c), c)),
      backbone(c.backbone, rng.fork(1)),
      neck(c.backbone.embed_dims, c.pyramid_channels, rng),
      decode_head(c.pyramid_channels, c.channels, c.num_classes, c.dropout_ratio, rng) {}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
