#pragma once
#include "ppma/core/names_begin.hpp"
// UperNet's decode head (Xiao et al., "Unified perceptual parsing", 2018) and the FCN auxiliary
// head, spec 6.1.
// Legend: B batch, H W grid of the finest map, C channels of a map, D channels of the head, K
// classes.

#include <array>
#include <vector>

#include "ppma/heads/conv_module.hpp"
#include "ppma/ops/pool.hpp"
#include "ppma/ops/resize.hpp"

namespace ppma::inline PPMA_ABI {

struct UperNetConfig {
  std::array<i64, 4> in_channels{64, 128, 256, 512};
  i64 channels = 512;
  std::vector<i64> pool_scales{1, 2, 3, 6};
  i64 num_classes = 150;
  double dropout_ratio = 0.1;  // of whole channels

  bool operator==(const UperNetConfig&) const = default;
};

namespace detail {

/// Dropout of whole channels of a sample: (B,H,W,C) times a (B,1,1,C) of 0 and 1 / (1 - p).
PPMA_API Tensor channel_dropout(const Tensor& x, double p, Context& ctx);

}  // namespace detail

/// One scale of the pyramid; published one level down, as entry 1 behind the pooling.
struct PoolBranch {
  i64 scale;
  ConvModule conv;

  PoolBranch(i64 scale_, i64 in, i64 out, Rng& rng) : scale(scale_), conv(in, out, 1, rng) {}
  Tensor forward(const Tensor& x, Context& ctx) const {
    return resize(conv.forward(adaptive_avg_pool2d(x, scale, scale), ctx), x.dim(1), x.dim(2));
  }
  template <class V>
  void fields(V& v) {
    v.child("1", conv);
  }
};

struct UperNetHead {
  UperNetConfig config;
  Conv2d conv_seg;
  std::vector<PoolBranch> psp_modules;
  ConvModule bottleneck;
  std::vector<ConvModule> lateral_convs, fpn_convs;
  ConvModule fpn_bottleneck;

  PPMA_API UperNetHead(const UperNetConfig& c, Rng& rng);
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

struct FcnConfig {
  i64 in_channels = 256, channels = 256, num_classes = 150;
  double dropout_ratio = 0.1;

  bool operator==(const FcnConfig&) const = default;
};

/// The auxiliary head on the map of stride 16; only training uses it.
struct FcnHead {
  FcnConfig config;
  Conv2d conv_seg;
  std::vector<ConvModule> convs;

  PPMA_API FcnHead(const FcnConfig& c, Rng& rng);
  PPMA_API Tensor forward(const Tensor& map, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.child("conv_seg", conv_seg), v.children("convs", convs);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/dropout.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

Tensor channel_dropout(const Tensor& x, double p, Context& ctx) {
  if (!ctx.training || p == 0) return x;
  const Shape shape{x.dim(0), 1, 1, x.dim(3)};
  const Tensor keep =
      ctx.drawn(x.device(), [=](Rng& rng) { return dropout(Tensor::ones(shape), p, rng); });
  return mul(x, cast(keep, x.dtype()));
}

}  // namespace detail

UperNetHead::UperNetHead(const UperNetConfig& c, Rng& rng)
    : config(c),
      conv_seg(c.channels, c.num_classes, 1, {}, rng),
      bottleneck(c.in_channels[3] + static_cast<i64>(c.pool_scales.size()) * c.channels, c.channels,
                 3, rng),
      fpn_bottleneck(4 * c.channels, c.channels, 3, rng) {
  for (const i64 s : c.pool_scales) psp_modules.emplace_back(s, c.in_channels[3], c.channels, rng);
  for (std::size_t i = 0; i < 3; ++i) {
    lateral_convs.emplace_back(c.in_channels[i], c.channels, 1, rng);
    fpn_convs.emplace_back(c.channels, c.channels, 3, rng);
  }
}

Tensor UperNetHead::forward(const std::vector<Tensor>& maps, Context& ctx) const {
  check(maps.size() == 4, "upernet: needs four maps, got ", maps.size());
  std::vector<Tensor> pyramid{maps[3]};
  for (const PoolBranch& branch : psp_modules) pyramid.push_back(branch.forward(maps[3], ctx));
  std::vector<Tensor> levels;
  for (std::size_t i = 0; i < 3; ++i) levels.push_back(lateral_convs[i].forward(maps[i], ctx));
  levels.push_back(bottleneck.forward(concat(pyramid, -1), ctx));
  for (std::size_t i = 3; i > 0; --i)
    levels[i - 1] =
        add(levels[i - 1], resize(levels[i], levels[i - 1].dim(1), levels[i - 1].dim(2)));
  for (std::size_t i = 0; i < 3; ++i) levels[i] = fpn_convs[i].forward(levels[i], ctx);
  for (std::size_t i = 1; i < 4; ++i)
    levels[i] = resize(levels[i], levels[0].dim(1), levels[0].dim(2));
  const Tensor fused = fpn_bottleneck.forward(concat(levels, -1), ctx);
  return conv_seg.forward(detail::channel_dropout(fused, config.dropout_ratio, ctx));
}

FcnHead::FcnHead(const FcnConfig& c, Rng& rng)
    : config(c), conv_seg(c.channels, c.num_classes, 1, {}, rng) {
  convs.emplace_back(c.in_channels, c.channels, 3, rng);
}

Tensor FcnHead::forward(const Tensor& map, Context& ctx) const {  // (B,H,W,C) -> (B,H,W,K)
  return conv_seg.forward(
      detail::channel_dropout(convs[0].forward(map, ctx), config.dropout_ratio, ctx));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
