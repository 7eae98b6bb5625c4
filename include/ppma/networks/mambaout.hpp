#pragma once
#include "ppma/core/names_begin.hpp"
// Yu and Wang, "MambaOut: Do We Really Need Mamba for Vision?", 2025: gated CNN blocks, which are
// Mamba's without its state space model.
//
//   g, i, c = LN(x) W1,  g and (i,c) of E = 8/3 C channels, c of C
//   x = x + ( GELU(g) * (i, DWConv7x7(c)) ) W2
//
// Stem: two convolutions 3x3 with stride 2, each with a layer norm, GELU between; a convolution 3x3
// with stride 2 and a layer norm before each other stage. Head: mean over the tokens, layer norm,
// linear to 4 C, GELU, layer norm, linear. Names are those of the authors' checkpoints
// (mambaout_tiny.pth); timm calls the same tensors otherwise.

#include "ppma/networks/parts.hpp"

namespace ppma::inline PPMA_ABI {

struct MambaOutBlock {
  i64 width;  // E
  LayerNorm norm;
  Linear fc1;  // C -> 2 E
  Depthwise conv;
  Linear fc2;  // E -> C
  double drop_path;

  PPMA_API MambaOutBlock(i64 channels, double drop, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.child("norm", norm), v.child("fc1", fc1), v.child("conv", conv), v.child("fc2", fc2);
  }
};

struct MambaOut {
  NormedConv stem1, stem2;
  std::vector<NormedConv> downsample;              // before stages 1, 2, 3
  std::vector<std::vector<MambaOutBlock>> stages;  // four
  LayerNorm norm;
  Linear fc1;  // C -> 4 C
  LayerNorm head_norm;
  Linear fc2;  // 4 C -> classes

  PPMA_API MambaOut(const NetworkConfig& c, Rng& rng);
  /// (B,H,W,3) -> logits (B,classes)
  PPMA_API Tensor forward(const Tensor& images, Context& ctx) const;
  /// The rows of its summary, for images of a shape (B,H,W,3).
  PPMA_API void describe(detail::LayerRows& w, const Shape& images);
  /// mambaout_tiny, small, base, femto, kobe, nano.
  PPMA_API static std::vector<NetworkConfig> configs();
  template <class V>
  void fields(V& v) {
    v.child("downsample_layers.0.conv1", stem1.conv);
    v.child("downsample_layers.0.norm1", stem1.norm);
    v.child("downsample_layers.0.conv2", stem2.conv);
    v.child("downsample_layers.0.norm2", stem2.norm);
    for (std::size_t s = 0; s < 3; ++s)
      v.child(str("downsample_layers.", s + 1).c_str(), downsample[s]);
    for (std::size_t s = 0; s < 4; ++s) v.children(str("stages.", s).c_str(), stages[s]);
    v.child("norm", norm), v.child("head.fc1", fc1), v.child("head.norm", head_norm);
    v.child("head.fc2", fc2);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/gate.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/residual.hpp"

namespace ppma::inline PPMA_ABI {

MambaOutBlock::MambaOutBlock(i64 channels, double drop, Rng& rng)
    : width(8 * channels / 3),
      norm(channels, 1e-6),
      fc1(channels, 2 * width, rng),
      conv(channels, 7, rng),
      fc2(width, channels, rng),
      drop_path(drop) {
  detail::draw_as_linear(conv, rng);
}

Tensor MambaOutBlock::forward(const Tensor& x, Context& ctx) const {
  const i64 channels = x.dim(3), plain = width - channels;
  const Tensor all = fc1.forward(norm.forward(x));  // (B,H,W,2E)
  const Tensor mixed = conv.forward(narrow(all, 3, width + plain, channels));
  return residual(x, fc2.forward(gated(all, 0, width, mixed, Gate::gelu)), Tensor(),
                  ctx.drop_path(x, drop_path));
}

std::vector<NetworkConfig> MambaOut::configs() {
  return {{"mambaout_tiny", "mambaout", {3, 3, 9, 3}, {96, 192, 384, 576}},
          {"mambaout_small", "mambaout", {3, 4, 27, 3}, {96, 192, 384, 576}, {}, 1000, 0.4},
          {"mambaout_base", "mambaout", {3, 4, 27, 3}, {128, 256, 512, 768}, {}, 1000, 0.6},
          {"mambaout_femto", "mambaout", {3, 3, 9, 3}, {48, 96, 192, 288}, {}, 1000, 0.025},
          {"mambaout_kobe", "mambaout", {3, 3, 15, 3}, {48, 96, 192, 288}, {}, 1000, 0.025},
          {"mambaout_nano", "mambaout", {1, 1, 2, 1}, {24, 48, 72, 96}, {}, 10, 0.05}};
}

MambaOut::MambaOut(const NetworkConfig& c, Rng& rng)
    : stem1(3, c.dims[0] / 2, 3, 2, 1e-6, rng),
      stem2(c.dims[0] / 2, c.dims[0], 3, 2, 1e-6, rng),
      norm(c.dims[3], 1e-6),
      fc1(c.dims[3], 4 * c.dims[3], rng),
      head_norm(4 * c.dims[3], 1e-6),
      fc2(4 * c.dims[3], c.num_classes, rng) {
  detail::check_no_heads(c);
  detail::draw_as_linear(stem1.conv, rng), detail::draw_as_linear(stem2.conv, rng);
  i64 block = 0;
  for (std::size_t s = 0; s < 4; ++s) {
    if (s > 0) {
      downsample.emplace_back(c.dims[s - 1], c.dims[s], 3, 2, 1e-6, rng);
      detail::draw_as_linear(downsample.back().conv, rng);
    }
    stages.emplace_back();
    for (i64 n = 0; n < c.depths[s]; ++n)
      stages[s].emplace_back(c.dims[s], detail::drop_path_of(c, block++), rng);
  }
}

Tensor MambaOut::forward(const Tensor& images, Context& ctx) const {
  Tensor x = stem2.forward(gelu(stem1.forward(images)));  // (B,H,W,C)
  for (std::size_t s = 0; s < 4; ++s) {
    if (s > 0) x = downsample[s - 1].forward(x);
    x = detail::through_blocks(stages[s], str("stages.", s), std::move(x), ctx);
  }
  const Tensor pooled = norm.forward(mean(x, {1, 2}));  // (B,C)
  return fc2.forward(head_norm.forward(gelu(fc1.forward(pooled))));
}

void MambaOut::describe(detail::LayerRows& w, const Shape& images) {
  const auto reduce = [&](const std::string& conv, const std::string& after, NormedConv& layer,
                          const Shape& from) {
    return w.norm(after, layer.norm, w.conv(conv, layer.conv, from));
  };
  Shape x = images;
  w.within("downsample_layers.0", [&] {
    x = w.elementwise("gelu", reduce("conv1", "norm1", stem1, x), detail::gelu_ops);
    x = reduce("conv2", "norm2", stem2, x);
  });
  for (std::size_t s = 0; s < 4; ++s) {
    if (s > 0)
      w.within(str("downsample_layers.", s),
               [&] { x = reduce("conv", "norm", downsample[s - 1], x); });
    for (std::size_t n = 0; n < stages[s].size(); ++n)
      w.within(str("stages.", s, ".", n), [&] {
        MambaOutBlock& b = stages[s][n];
        Shape gate = x;
        gate.set(3, b.width);
        w.norm("norm", b.norm, x), w.linear("fc1", b.fc1, x), w.depthwise("conv", b.conv, x);
        w.elementwise("gate", gate, detail::gelu_ops + 1), w.linear("fc2", b.fc2, gate);
        w.elementwise("residual", x, 1);
      });
  }
  Shape pooled{x[0], x[3]};
  w.row("pool", pooled, 0, 0, x.numel());
  w.norm("norm", norm, pooled);
  w.within("head", [&] {
    pooled = w.linear("fc1", fc1, pooled);
    w.norm("norm", head_norm, w.elementwise("gelu", pooled, detail::gelu_ops));
    w.linear("fc2", fc2, pooled);
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
