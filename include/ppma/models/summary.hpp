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
// To add a layer kind: 1. a row function in SummaryWriter; 2. call it where the network's
// describe() walks.

#include <string>
#include <vector>

#include "ppma/models/ppma.hpp"
#include "ppma/models/vit.hpp"

namespace ppma::inline PPMA_ABI {

struct LayerSummary {
  std::string name;  // "layers.0.blocks.1.retention.q_proj"
  Shape output;
  i64 parameters = 0, macs = 0, flops = 0;
  i64 norms = 0;  // what the published counter adds to the MACs
  i64 activation_bytes = 0;
};

struct Summary {
  std::string model;
  Shape input;
  std::vector<LayerSummary> layers;

  /// Of all layers.
  i64 parameters() const { return total(&LayerSummary::parameters); }
  /// Multiply-accumulates, algorithm 4.2.
  i64 macs() const { return total(&LayerSummary::macs); }
  /// Floating-point operations, two a multiply-accumulate.
  i64 flops() const { return total(&LayerSummary::flops); }
  /// As the paper counts: multiply-accumulates, 5 a layer norm's element, 2 a batch norm's.
  i64 published() const { return macs() + total(&LayerSummary::norms); }
  /// Bytes of all outputs of layers.
  i64 activation_bytes() const { return total(&LayerSummary::activation_bytes); }

  /// Layers joined under the first `depth` parts of their names (4: one row a block); the output is
  /// the last one's.
  PPMA_API std::vector<LayerSummary> grouped(int depth) const;
  /// A table of the grouped rows and the totals.
  PPMA_API std::string text(int depth = 4) const;

 private:
  PPMA_API i64 total(i64 LayerSummary::*what) const;
};

namespace detail {

// Operations an element, beside MACs.
inline constexpr i64 layer_norm_ops = 5, batch_norm_ops = 2, gelu_ops = 5, silu_ops = 4,
                     softmax_ops = 5, rotary_ops = 3, softplus_ops = 3;

class SummaryWriter {
 public:
  PPMA_API SummaryWriter(std::string model, const Shape& input, DType dtype);
  Summary result;

  /// Names of rows that f writes begin with name + ".".
  template <class F>
  void within(const std::string& name, F f) {
    const std::string before = prefix_;
    prefix_ += name + ".";
    f();
    prefix_ = before;
  }

  PPMA_API Shape row(const std::string& name, const Shape& out, i64 parameters, i64 macs, i64 other,
                     i64 norms = 0);
  PPMA_API Shape linear(const std::string& name, Linear& l, Shape x);
  PPMA_API Shape conv(const std::string& name, Conv2d& l, const Shape& x);
  /// A depthwise convolution and what is added to it.
  Shape depthwise(const std::string& name, DepthwiseConv2d& l, const Shape& x) {
    return row(name, x, parameter_count(l), x.numel() * l.weight.dim(2) * l.weight.dim(3),
               2 * x.numel());
  }
  Shape norm(const std::string& name, LayerNorm& l, const Shape& x) {
    return row(name, x, parameter_count(l), 0, layer_norm_ops * x.numel(),
               layer_norm_ops * x.numel());
  }
  Shape norm(const std::string& name, BatchNorm& l, const Shape& x) {
    return row(name, x, parameter_count(l), 0, batch_norm_ops * x.numel(),
               batch_norm_ops * x.numel());
  }
  Shape elementwise(const std::string& name, const Shape& x, i64 ops, i64 parameters = 0) {
    return row(name, x, parameters, 0, ops * x.numel());
  }
  /// Decays of tokens (B,H,W,C): one linear layer on each head's channels.
  PPMA_API void path_embed(PathEmbed& l, const Shape& x);
  /// Products, softmaxes and mask of a whole attention over `tokens` tokens, one to two log masks
  /// of `masked` tokens.
  PPMA_API void whole_attention(const Shape& out, i64 batch, i64 tokens, i64 masked, i64 channels,
                                i64 heads, MaskKind mask);
  PPMA_API void criss_cross(const Shape& x, i64 heads, MaskKind mask);
  /// Of each path: the products k v^T and q^T (L k v^T), and the scans that apply the mask.
  PPMA_API void linear_attention(const Shape& x, i64 heads, MaskKind mask);

 private:
  std::string prefix_;
  i64 element_;
};

PPMA_API Shape describe(SummaryWriter& w, Stem& stem, Shape x);

PPMA_API void describe(SummaryWriter& w, Attention& a, const Shape& x);

/// Its layers, each on all tokens, and what it does beside them.
PPMA_API void describe(SummaryWriter& w, Mixer& m, const Shape& x);

PPMA_API void describe(SummaryWriter& w, Block& b, const Shape& x);

// Images (B,Hin,Win,3) -> the four maps before merging.
PPMA_API std::vector<Shape> describe(SummaryWriter& w, Backbone& backbone, Shape x);

// 1234567 -> "1,234,567"
PPMA_API std::string grouped_digits(i64 n);

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

#include <algorithm>

namespace ppma::inline PPMA_ABI {

i64 Summary::total(i64 LayerSummary::*what) const {
  i64 sum = 0;
  for (const LayerSummary& l : layers) sum += l.*what;
  return sum;
}

namespace detail {

inline constexpr i64 decay_ops = 5;       // + bias, softplus (3), times -A
inline constexpr i64 prefix_sum_ops = 1;  // a decay
inline constexpr i64 line_mask_ops = 3;   // a score: |c_i - c_j| (2), added (1)
inline constexpr i64 grid_mask_ops = 6;   // a score: two such distances, their sum, added
inline constexpr i64 scan_ops = 8;        // an element of k v^T: 4 ways, a product and a sum each

SummaryWriter::SummaryWriter(std::string model, const Shape& input, DType dtype)
    : element_(size_of(dtype)) {
  result.model = std::move(model);
  result.input = input;
}

Shape SummaryWriter::row(const std::string& name, const Shape& out, i64 parameters, i64 macs,
                         i64 other, i64 norms) {
  result.layers.push_back(
      {prefix_ + name, out, parameters, macs, 2 * macs + other, norms, out.numel() * element_});
  return out;
}

Shape SummaryWriter::linear(const std::string& name, Linear& l, Shape x) {
  const i64 in = x[-1];
  x.set(-1, l.weight.dim(0));
  return row(name, x, parameter_count(l), x.numel() * in, l.bias.defined() ? x.numel() : 0);
}

Shape SummaryWriter::conv(const std::string& name, Conv2d& l, const Shape& x) {  // x (B,H,W,I)
  const auto size = [&](i64 n, i64 k) {
    return (n + 2 * l.options.padding - k) / l.options.stride + 1;
  };
  const Shape& w = l.weight.shape();
  const Shape y{x[0], size(x[1], w[2]), size(x[2], w[3]), w[0]};
  return row(name, y, parameter_count(l), y.numel() * (w.numel() / w[0]), y.numel());
}

void SummaryWriter::path_embed(PathEmbed& l, const Shape& x) {
  const i64 outputs = l.dt_linear_weight.dim(0);
  const Shape y{outputs, x[0], l.dt_bias.dim(0), x[1], x[2]};
  row("path_embed", y, parameter_count(l), x.numel() * outputs,
      (decay_ops + prefix_sum_ops) * y.numel());
}

void SummaryWriter::whole_attention(const Shape& out, i64 batch, i64 tokens, i64 masked,
                                    i64 channels, i64 heads, MaskKind mask) {
  const std::optional<Paths> paths = mask_of(mask).paths;
  const bool sequence = !paths;
  const i64 masks = paths == Paths::none ? 0 : paths == Paths::v2h ? 1 : 2;
  const i64 scores = batch * heads * tokens * tokens,
            masked_scores = batch * heads * masked * masked;
  // + their mean
  const i64 softmaxes = std::max<i64>(1, masks) * softmax_ops + (masks == 2 ? 2 : 0);
  row("attention", out, 0, 2 * batch * tokens * tokens * channels,
      scores * softmaxes + masked_scores * masks * (sequence ? line_mask_ops : grid_mask_ops));
}

void SummaryWriter::criss_cross(const Shape& x, i64 heads, MaskKind mask) {  // x (B,H,W,C)
  // one channel's or head's row and column of every token
  const i64 lines = x[0] * x[1] * x[2] * (x[1] + x[2]);
  const bool both = mask_of(mask).order == Order::both;
  row("attention", x, 0, (both ? 3 : 2) * lines * x[3],
      lines * heads * (softmax_ops + (mask == MaskKind::none ? 0 : line_mask_ops)) +
          (both ? 2 * x.numel() : 0));
}

void SummaryWriter::linear_attention(const Shape& x, i64 heads, MaskKind mask) {  // x (B,H,W,C)
  const i64 paths = mask_of(mask).paths == Paths::both ? 2 : 1;
  const i64 products = x.numel() * (x[3] / heads);
  row("attention", x, 0, paths * 2 * products, paths * scan_ops * products);
}

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
class MixerRows final : public MixerVisitor {
 public:
  i64 parameters = 0;  // of no layer

  MixerRows(SummaryWriter& w, const Shape& x) : w_(w), x_(x) {}
  void parameter(const char*, Tensor& t) override { parameters += t.numel(); }
  void buffer(const char*, Tensor&) override {}
  void child(const char* name, Linear& l) override { w_.linear(name, l, of(l.weight.dim(1))); }
  void child(const char* name, DepthwiseConv2d& l) override {
    w_.depthwise(name, l, of(l.weight.dim(0)));
  }
  void child(const char* name, LayerNorm& l) override { w_.norm(name, l, of(l.weight.dim(0))); }

 private:
  Shape of(i64 channels) const { return {x_[0], x_[1], x_[2], channels}; }
  SummaryWriter& w_;
  Shape x_;
};

void describe(SummaryWriter& w, Mixer& m, const Shape& x) {
  MixerRows rows(w, x);
  MixerVisitor& visitor = rows;
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

std::string grouped_digits(i64 n) {
  const std::string digits = std::to_string(n);
  std::string s;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) s += ',';
    s += digits[i];
  }
  return s;
}

}  // namespace detail

std::vector<LayerSummary> Summary::grouped(int depth) const {
  check(depth >= 1, "summary: the depth must be at least 1, got ", depth);
  std::vector<LayerSummary> rows;
  for (const LayerSummary& l : layers) {
    std::size_t end = 0;
    for (int part = 0; part < depth && end != std::string::npos; ++part)
      end = l.name.find('.', part == 0 ? 0 : end + 1);
    const std::string name = l.name.substr(0, end);
    if (rows.empty() || rows.back().name != name) rows.push_back({name, l.output});
    LayerSummary& r = rows.back();
    r.output = l.output;
    r.parameters += l.parameters, r.macs += l.macs, r.flops += l.flops, r.norms += l.norms;
    r.activation_bytes += l.activation_bytes;
  }
  return rows;
}

std::string Summary::text(int depth) const {
  std::vector<std::vector<std::string>> cells{
      {"layer", "output", "parameters", "MACs", "FLOPs", "activations KiB"}};
  for (const LayerSummary& l : grouped(depth))
    cells.push_back({l.name, l.output.str(), detail::grouped_digits(l.parameters),
                     detail::grouped_digits(l.macs), detail::grouped_digits(l.flops),
                     detail::grouped_digits((l.activation_bytes + 1023) / 1024)});
  std::vector<std::size_t> width(cells[0].size(), 0);
  for (const auto& line : cells)
    for (std::size_t c = 0; c < line.size(); ++c) width[c] = std::max(width[c], line[c].size());
  std::string s = model + ", input " + input.str() + "\n";
  for (const auto& line : cells) {
    std::string out;
    for (std::size_t c = 0; c < line.size(); ++c) {
      const std::string space(width[c] - line[c].size(), ' ');
      out += (c == 0 ? "" : "  ") + (c < 2 ? line[c] + space : space + line[c]);
    }
    s += out + "\n";
  }
  const auto figure = [&](const char* name, i64 value, const char* what) {
    s += str(name, ": ", detail::grouped_digits(value), what, "\n");
  };
  figure("parameters", parameters(), "");
  figure("MACs", macs(), "");
  figure("FLOPs", flops(), " (2 a MAC, and norms, activations, softmax, mask)");
  figure("published", published(), " (MACs, 5 a layer norm's element, 2 a batch norm's)");
  figure("activations", activation_bytes(), " bytes");
  return s;
}

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
