#pragma once
#include "ppma/core/names_begin.hpp"
// Semantic FPN (Kirillov et al., "Panoptic feature pyramid networks", 2019), the light alternative
// to UperNet: a feature pyramid, each level brought to stride 4 by 3x3 convolutions and doublings,
// the sum classified. Names as mmseg's (`neck`, `decode_head.scale_heads`). Legend: B batch, H W
// grid of the finest map, C channels, D of the head, K classes.

#include <array>
#include <vector>

#include "ppma/core/limits.hpp"
#include "ppma/heads/conv_module.hpp"
#include "ppma/heads/fpn.hpp"

namespace ppma::inline PPMA_ABI {

/// One level: the convolutions at even places, doublings between and behind them. The finest level
/// has no doubling.
struct ScaleHead {
  bool doubles;
  std::vector<ConvModule> convs;

  PPMA_API ScaleHead(std::size_t level, i64 in, i64 out, Rng& rng);
  /// A level (B,H,W,I) -> (B,h,w,O), doubled as often as it is coarser than the finest.
  PPMA_API Tensor forward(Tensor x, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    for (std::size_t k = 0; k < convs.size(); ++k) v.child(str(2 * k).c_str(), convs[k]);
  }
};

struct SemanticFpnConfig {
  i64 num_classes = 150, channels = 128, pyramid_channels = 256;
  double dropout_ratio = 0.1;  // of whole channels

  bool operator==(const SemanticFpnConfig&) const = default;
  template <class Config, class F>
  static void fields(Config& c, F f) {
    f("num_classes", c.num_classes, counts());
    f("channels", c.channels, counts());
    f("pyramid_channels", c.pyramid_channels, counts());
    f("dropout_ratio", c.dropout_ratio, Limits::below(1));
  }
};

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

/// What a Segmentor (heads/segmentor.hpp) has on its backbone.
struct SemanticFpn {
  /// Its values.
  using Config = SemanticFpnConfig;
  static constexpr const char *name = "semantic_fpn", *title = "Semantic FPN";
  Fpn neck;
  SemanticFpnHead decode_head;

  SemanticFpn(const SemanticFpnConfig& c, const std::array<i64, 4>& in_channels, Rng& rng)
      : neck(in_channels, c.pyramid_channels, rng),
        decode_head(c.pyramid_channels, c.channels, c.num_classes, c.dropout_ratio, rng) {}
  /// For a CPU: ours.
  static SemanticFpnConfig nano() { return {.channels = 64, .pyramid_channels = 64}; }

  /// Four maps (B,H,W,C), finest first -> logits (B,h,w,K).
  Tensor forward(const std::vector<Tensor>& maps, Context& ctx) const {
    return decode_head.forward(neck.forward(maps), ctx);
  }
  template <class V>
  void fields(V& v) {
    v.child("neck", neck), v.child("decode_head", decode_head);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <algorithm>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/resize.hpp"

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

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
