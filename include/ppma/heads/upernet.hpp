#pragma once
#include "ppma/core/names_begin.hpp"
// UperNet's decode head (Xiao et al., "Unified perceptual parsing", 2018) and the FCN auxiliary
// head, recipes 2.1.
// Legend: B batch, H W grid of the finest map, C channels of a map, D channels of the head, K
// classes.

#include <array>
#include <vector>

#include "ppma/core/limits.hpp"
#include "ppma/heads/conv_module.hpp"
#include "ppma/ops/pool.hpp"
#include "ppma/ops/resize.hpp"

namespace ppma::inline PPMA_ABI {

struct UperNetConfig {
  i64 num_classes = 150;
  i64 channels = 512;
  std::vector<i64> pool_scales{1, 2, 3, 6};
  double dropout_ratio = 0.1;  // of whole channels
  i64 auxiliary_channels = 256;
  double auxiliary_dropout_ratio = 0.1;
  double decode_weight = 1.0, auxiliary_weight = 0.4;  // of the losses

  bool operator==(const UperNetConfig&) const = default;
  template <class Config, class F>
  static void fields(Config& c, F f) {
    f("num_classes", c.num_classes, counts());
    f("channels", c.channels, counts());
    f("pool_scales", c.pool_scales, counts());
    f("dropout_ratio", c.dropout_ratio, Limits::below(1));
    f("auxiliary_channels", c.auxiliary_channels, counts());
    f("auxiliary_dropout_ratio", c.auxiliary_dropout_ratio, Limits::below(1));
    f("decode_weight", c.decode_weight, Limits::at_least(0));
    f("auxiliary_weight", c.auxiliary_weight, Limits::at_least(0));
  }
};

/// One scale of the pyramid; published one level down, as entry 1 behind the pooling.
struct PoolBranch {
  i64 scale;
  ConvModule conv;

  PoolBranch(i64 scale_, i64 in, i64 out, Rng& rng) : scale(scale_), conv(in, out, 1, rng) {}
  /// (B,H,W,I) -> (B,scale,scale,O): pooled, a module.
  Tensor forward(const Tensor& x, Context& ctx) const {
    return conv.forward(adaptive_avg_pool2d(x, scale, scale), ctx);
  }
  template <class V>
  void fields(V& v) {
    v.child("1", conv);
  }
};

/// The decode head of four maps of the given channels.
struct UperNetHead {
  double dropout_ratio;
  Conv2d conv_seg;
  std::vector<PoolBranch> psp_modules;
  ConvModule bottleneck;
  std::vector<ConvModule> lateral_convs, fpn_convs;
  ConvModule fpn_bottleneck;

  PPMA_API UperNetHead(const UperNetConfig& c, const std::array<i64, 4>& in_channels, Rng& rng);
  /// Four maps (B,H,W,C), finest first -> logits (B,H,W,K) at the finest map's size.
  PPMA_API Tensor forward(const std::vector<Tensor>& maps, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.child("conv_seg", conv_seg), v.children("psp_modules", psp_modules),
        v.child("bottleneck", bottleneck);
    v.children("lateral_convs", lateral_convs), v.children("fpn_convs", fpn_convs);
    v.child("fpn_bottleneck", fpn_bottleneck);
  }
};

/// The auxiliary head: one convolution on one map.
struct FcnHead {
  double dropout_ratio;
  Conv2d conv_seg;
  std::vector<ConvModule> convs;

  PPMA_API FcnHead(i64 in, i64 channels, i64 classes, double dropout, Rng& rng);
  /// (B,H,W,C) -> logits (B,H,W,K).
  PPMA_API Tensor forward(const Tensor& map, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.child("conv_seg", conv_seg), v.children("convs", convs);
  }
};

/// What a Segmentor (heads/segmentor.hpp) has on its backbone: the decode head, and an auxiliary
/// one on the map of stride 16, which training alone uses.
struct UperNet {
  /// Its values.
  using Config = UperNetConfig;
  static constexpr const char *name = "upernet", *title = "UperNet";
  UperNetHead decode_head;
  FcnHead auxiliary_head;

  UperNet(const UperNetConfig& c, const std::array<i64, 4>& in_channels, Rng& rng)
      : decode_head(c, in_channels, rng),
        auxiliary_head(in_channels[2], c.auxiliary_channels, c.num_classes,
                       c.auxiliary_dropout_ratio, rng) {}
  /// For a CPU: ours.
  static UperNetConfig nano() { return {.channels = 64, .auxiliary_channels = 32}; }

  /// Four maps (B,H,W,C), finest first -> logits (B,h,w,K).
  Tensor forward(const std::vector<Tensor>& maps, Context& ctx) const {
    return decode_head.forward(maps, ctx);
  }
  /// The same maps -> the auxiliary head's logits, for training.
  Tensor auxiliary(const std::vector<Tensor>& maps, Context& ctx) const {
    return auxiliary_head.forward(maps[2], ctx);
  }
  template <class V>
  void fields(V& v) {
    v.child("decode_head", decode_head), v.child("auxiliary_head", auxiliary_head);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include "ppma/ops/arithmetic.hpp"

namespace ppma::inline PPMA_ABI {

UperNetHead::UperNetHead(const UperNetConfig& c, const std::array<i64, 4>& in_channels, Rng& rng)
    : dropout_ratio(c.dropout_ratio),
      conv_seg(c.channels, c.num_classes, 1, {}, rng),
      bottleneck(in_channels[3] + static_cast<i64>(c.pool_scales.size()) * c.channels, c.channels,
                 3, rng),
      fpn_bottleneck(4 * c.channels, c.channels, 3, rng) {
  for (const i64 s : c.pool_scales) psp_modules.emplace_back(s, in_channels[3], c.channels, rng);
  for (std::size_t i = 0; i < 3; ++i) {
    lateral_convs.emplace_back(in_channels[i], c.channels, 1, rng);
    fpn_convs.emplace_back(c.channels, c.channels, 3, rng);
  }
}

Tensor UperNetHead::forward(const std::vector<Tensor>& maps, Context& ctx) const {
  check(maps.size() == 4, "upernet: needs four maps, got ", maps.size());
  std::vector<Tensor> pyramid{maps[3]};
  for (const PoolBranch& branch : psp_modules) pyramid.push_back(branch.forward(maps[3], ctx));
  std::vector<Tensor> levels;
  for (std::size_t i = 0; i < 3; ++i) levels.push_back(lateral_convs[i].forward(maps[i], ctx));
  levels.push_back(bottleneck.forward_resized(pyramid, ctx));
  for (std::size_t i = 3; i > 0; --i)
    levels[i - 1] =
        add(levels[i - 1], resize(levels[i], levels[i - 1].dim(1), levels[i - 1].dim(2)));
  for (std::size_t i = 0; i < 3; ++i) levels[i] = fpn_convs[i].forward(levels[i], ctx);
  const Tensor fused = fpn_bottleneck.forward_resized(levels, ctx);
  return conv_seg.forward(detail::channel_dropout(fused, dropout_ratio, ctx));
}

FcnHead::FcnHead(i64 in, i64 channels, i64 classes, double dropout, Rng& rng)
    : dropout_ratio(dropout), conv_seg(channels, classes, 1, {}, rng) {
  convs.emplace_back(in, channels, 3, rng);
}

Tensor FcnHead::forward(const Tensor& map, Context& ctx) const {
  return conv_seg.forward(detail::channel_dropout(convs[0].forward(map, ctx), dropout_ratio, ctx));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
