#pragma once
#include "ppma/core/names_begin.hpp"
// What a network costs, layer by layer, without running it: output shape, parameters, MACs, FLOPs,
// activation memory.
//
//   MACs         multiply-accumulates of linear layers, convolutions and attention products
//                (algorithm 4.2)
//   FLOPs        2 MACs + biases, norms, activations, rotary turns, softmaxes, and the mask; each
//                addition, product, exponential, ... counts 1 (the table below)
//   published    MACs + 5 a layer norm's element + 2 a batch norm's: the counter behind the paper's
//                "2.71 G FLOPs"
//   activations  bytes of every layer's result: what a recorded forward pass would hold if each
//                kept its output
//
// Legend: B batch, H W grid, N = H W, G heads, C channels, R decay outputs.
//
// To add a layer kind: 1. a row function in LayerRows (nn/summary_rows.hpp), or in SummaryWriter
// (models/summary_rows.hpp); 2. call it where the network's describe() walks.

#include <string>
#include <vector>

#include "ppma/models/ppma.hpp"
#include "ppma/models/summary_rows.hpp"
#include "ppma/models/vit.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

PPMA_API Shape describe(SummaryWriter& w, Stem& stem, Shape x);

PPMA_API void describe(SummaryWriter& w, Attention& a, const Shape& x);

/// Its layers, each on all tokens, and what it does beside them.
PPMA_API void describe(SummaryWriter& w, Mixer& m, const Shape& x);

PPMA_API void describe(SummaryWriter& w, Block& b, const Shape& x);

// Images (B,Hin,Win,3) -> the four maps before merging.
PPMA_API std::vector<Shape> describe(SummaryWriter& w, Backbone& backbone, Shape x);

}  // namespace detail

/// The cost of a classifier on images (batch,3,height,width). activation_bytes counts elements of
/// `dtype`.
PPMA_API Summary summary(Ppma& m, i64 batch, i64 height, i64 width, DType dtype = DType::f32);

PPMA_API Summary summary(DenseBackbone& m, i64 batch, i64 height, i64 width,
                         DType dtype = DType::f32);

/// The cost of a vision transformer on `batch` images of its own size.
PPMA_API Summary summary(Vit& m, i64 batch, DType dtype = DType::f32);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

namespace ppma::inline PPMA_ABI {

namespace detail {

Shape describe(SummaryWriter& w, Stem& stem, Shape x) {
  for (std::size_t i = 0; i < stem.convs.size(); ++i) {
    x = w.conv(str("proj.", 3 * i), stem.convs[i], x);
    w.norm(str("proj.", 3 * i + 1), stem.norms[i], x);
    if (i + 1 < stem.convs.size()) w.elementwise(str("proj.", 3 * i + 2), x, gelu_ops);
  }
  return x;
}

void describe(SummaryWriter& w, Attention& a, const Shape& x) {
  w.linear("q_proj", a.q_proj, x), w.linear("k_proj", a.k_proj, x), w.linear("v_proj", a.v_proj, x);
  if (a.config.linear)
    w.elementwise("softplus_q", x, softplus_ops), w.elementwise("softplus_k", x, softplus_ops);
  if (a.config.rotary)
    w.elementwise("rotary_q", x, rotary_ops), w.elementwise("rotary_k", x, rotary_ops + 1);
  else
    w.elementwise("scale_k", x, 1);
  if (a.path_embed) w.path_embed(*a.path_embed, x);
  if (a.config.linear)
    w.linear_attention(x, a.config.heads, a.config.mask);
  else if (a.config.criss_cross)
    w.criss_cross(x, a.config.heads, a.config.mask);
  else
    w.whole_attention(x, x[0], x[1] * x[2], x[1] * x[2], x[3], a.config.heads, a.config.mask);
  if (a.linear_norm) w.norm("linear_norm", *a.linear_norm, x);
  if (a.lepe) w.depthwise("lepe", *a.lepe, x);
  w.linear("out_proj", a.out_proj, x);
}

// Rows of a mixer's layers.
class MixerRows final : public ModuleVisitor {
 public:
  i64 parameters = 0;  // of no layer

  MixerRows(SummaryWriter& w, const Shape& x) : w_(w), x_(x) {}
  void parameter(const char*, Tensor& t) override { parameters += t.numel(); }
  void buffer(const char*, Tensor&) override {}
  void child(const char* name, Linear& l) override { w_.linear(name, l, of(l.weight.dim(1))); }
  void child(const char* name, Conv2d& l) override {
    w_.conv(name, l, of(l.weight.dim(1) * l.options.groups));
  }
  void child(const char* name, DepthwiseConv2d& l) override {
    w_.depthwise(name, l, of(l.weight.dim(0)));
  }
  void child(const char* name, LayerNorm& l) override { w_.norm(name, l, of(l.weight.dim(0))); }
  void child(const char* name, BatchNorm& l) override { w_.norm(name, l, of(l.weight.dim(0))); }

 private:
  Shape of(i64 channels) const { return {x_[0], x_[1], x_[2], channels}; }
  SummaryWriter& w_;
  Shape x_;
};

void describe(SummaryWriter& w, Mixer& m, const Shape& x) {
  MixerRows rows(w, x);
  ModuleVisitor& visitor = rows;
  m.fields(visitor);
  const MixerCost cost = m.cost(x);
  w.row("mix", x, rows.parameters, cost.macs, cost.other);
}

void describe(SummaryWriter& w, Block& b, const Shape& x) {
  const auto add = [&](const char* name, Tensor& gamma) {
    w.elementwise(name, x, gamma.defined() ? 2 : 1, gamma.defined() ? gamma.numel() : 0);
  };
  if (b.pos) w.depthwise("pos", *b.pos, x);
  w.norm("retention_layer_norm", b.retention_layer_norm, x);
  if (b.retention) w.within("retention", [&] { describe(w, *b.retention, x); });
  if (b.mixer) w.within("mixer", [&] { describe(w, *b.mixer, x); });
  add("residual_1", b.gamma_1);
  w.norm("final_layer_norm", b.final_layer_norm, x);
  w.within("ffn", [&] {
    const Shape h = w.linear("fc1", b.ffn.fc1, x);
    w.elementwise("gelu", h, gelu_ops);
    if (b.ffn.dwconv) w.depthwise("dwconv", *b.ffn.dwconv, h);
    w.linear("fc2", b.ffn.fc2, h);
  });
  add("residual_2", b.gamma_2);
}

std::vector<Shape> describe(SummaryWriter& w, Backbone& backbone, Shape x) {
  std::vector<Shape> maps;
  w.within("patch_embed", [&] { x = describe(w, backbone.patch_embed, x); });
  for (std::size_t s = 0; s < backbone.layers.size(); ++s)
    w.within(str("layers.", s), [&] {
      Stage& stage = backbone.layers[s];
      for (std::size_t n = 0; n < stage.blocks.size(); ++n)
        w.within(str("blocks.", n), [&] { describe(w, stage.blocks[n], x); });
      maps.push_back(x);
      if (stage.downsample)
        w.within("downsample", [&] {
          x = w.conv("reduction", stage.downsample->reduction, x);
          w.norm("norm", stage.downsample->norm, x);
        });
    });
  return maps;
}

}  // namespace detail

Summary summary(Ppma& m, i64 batch, i64 height, i64 width, DType dtype) {
  check(batch > 0 && height >= 32 && width >= 32,
        "summary: needs a batch and images of at least 32 x 32, got ", batch, ", ", height, " x ",
        width);
  detail::SummaryWriter w(m.config.name, {batch, 3, height, width}, dtype);
  Shape x = detail::describe(w, m.backbone, {batch, height, width, 3}).back();
  x = w.linear("proj", m.proj, x);
  w.norm("norm", m.norm, x);
  w.elementwise("swish", x, detail::silu_ops);
  const Shape pooled{batch, x[3]};
  w.row("pool", pooled, 0, 0, x.numel());
  w.linear("head", m.head, pooled);
  return w.result;
}

Summary summary(DenseBackbone& m, i64 batch, i64 height, i64 width, DType dtype) {
  check(batch > 0 && height >= 32 && width >= 32,
        "summary: needs a batch and images of at least 32 x 32, got ", batch, ", ", height, " x ",
        width);
  detail::SummaryWriter w(m.config.name + " backbone", {batch, 3, height, width}, dtype);
  const std::vector<Shape> maps = detail::describe(w, m.backbone, {batch, height, width, 3});
  for (std::size_t s = 0; s < maps.size(); ++s) w.norm(str("outnorm", s), m.outnorms[s], maps[s]);
  return w.result;
}

Summary summary(Vit& m, i64 batch, DType dtype) {
  const VitConfig& c = m.config;
  check(batch > 0, "summary: the batch is ", batch);
  detail::SummaryWriter w(c.name, {batch, 3, c.image_size, c.image_size}, dtype);
  const i64 side = c.grid(), patches = side * side, tokens = patches + 1;
  w.conv("patch_embed.proj", m.patch_embed.proj, {batch, c.image_size, c.image_size, 3});
  const Shape x{batch, tokens, c.width};
  w.elementwise("pos_embed", x, 1, m.cls_token.numel() + m.pos_embed.numel());
  for (std::size_t n = 0; n < m.blocks.size(); ++n)
    w.within(str("blocks.", n), [&] {
      VitBlock& b = m.blocks[n];
      w.norm("norm1", b.norm1, x);
      w.within("attn", [&] {
        w.linear("qkv", b.attn.qkv, x);
        w.elementwise("scale", x, 1);
        if (b.attn.path_embed) w.path_embed(*b.attn.path_embed, {batch, side, side, c.width});
        w.whole_attention(x, batch, tokens, patches, c.width, c.heads, c.mask);
        w.linear("proj", b.attn.proj, x);
      });
      w.elementwise("residual_1", x, 1);
      w.norm("norm2", b.norm2, x);
      w.within("mlp", [&] {
        const Shape h = w.linear("fc1", b.mlp.fc1, x);
        w.elementwise("gelu", h, detail::gelu_ops);
        w.linear("fc2", b.mlp.fc2, h);
      });
      w.elementwise("residual_2", x, 1);
    });
  w.norm("norm", m.norm, {batch, c.width});
  w.linear("head", m.head, {batch, c.width});
  return w.result;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
