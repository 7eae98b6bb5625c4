#pragma once
#include "ppma/core/names_begin.hpp"
// Liu et al., "VMamba: Visual State Space Model", 2024: visual state space blocks, each a 2-D
// selective scan and a feed-forward layer, as the paper's last networks have them (its section on
// acceleration): one state a channel, as many channels in a scan as outside, no multiplicative
// branch.
//
//   u = SiLU(DWConv3x3(LN(x) W_in))
//   y = sum over four orders k of scan_k(u)        rows, columns, and both from the last token back
//   x = x + LN(y) W_out,   x = x + MLP(LN(x))      MLP: 4 C channels, GELU
//
// with mixers/selective.hpp's selection and recurrence, parameters of each order its own. Stem: two
// convolutions 3x3 with stride 2, each with a layer norm, GELU between; after each stage but the
// last such a convolution with stride 2 and a layer norm. Head: layer norm, mean over the tokens,
// linear. Names are those of the authors' checkpoints (vssm1_tiny_0230s_ckpt_epoch_264.pth, entry
// "model").
// Legend: E channels, S states a channel, R rank of the step sizes, K = 4 orders.

#include "ppma/networks/parts.hpp"

namespace ppma::inline PPMA_ABI {

/// The selective scans of all orders and their sum. `grid` scans along the rows and down the
/// columns (networks/two_d_vmamba.hpp) instead of one token after the other.
struct CrossSelection {
  static constexpr i64 orders = 4, states = 1;

  bool grid;
  Tensor x_proj_weight;    // (K,R + 2 S,E)
  Tensor dt_projs_weight;  // (K,E,R)
  Tensor dt_projs_bias;    // (K,E)
  Tensor A_logs;           // (K E,S)
  Tensor Ds;               // (K E)

  PPMA_API CrossSelection(i64 channels, i64 rank, bool grid_, Rng& rng);
  /// u (B,H,W,E) -> (B,H,W,E)
  PPMA_API Tensor forward(const Tensor& u) const;
  template <class V>
  void fields(V& v) {
    v.parameter("x_proj_weight", x_proj_weight), v.parameter("dt_projs_weight", dt_projs_weight);
    v.parameter("dt_projs_bias", dt_projs_bias), v.parameter("A_logs", A_logs);
    v.parameter("Ds", Ds);
  }

 private:
  // of step sizes softplus(dt); + d u and + add, where they are defined
  PPMA_API Tensor scanned(i64 k, const Tensor& u, const Tensor& dt, const Tensor& a,
                          const Tensor& b, const Tensor& c, const Tensor& d,
                          const Tensor& add) const;
};

struct VMambaBlock {
  LayerNorm norm;
  CrossSelection scan;
  LayerNorm out_norm;
  Linear in_proj;    // without a bias, as out_proj
  Depthwise conv2d;  // without a bias
  Linear out_proj;
  LayerNorm norm2;
  GeluMlp mlp;
  double drop_path;

  PPMA_API VMambaBlock(i64 channels, bool grid, double drop, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x, Context& ctx) const;
  /// The rows of its summary, for tokens of a shape (B,H,W,C).
  PPMA_API void describe(detail::LayerRows& w, const Shape& x);
  template <class V>
  void fields(V& v) {
    Part op{*this};
    v.child("norm", norm), v.child("op", op), v.child("norm2", norm2), v.child("mlp", mlp);
  }

 private:
  struct Part {  // `op` of the names
    VMambaBlock& b;
    template <class V>
    void fields(V& v) {
      b.scan.fields(v);
      v.child("out_norm", b.out_norm), v.child("in_proj", b.in_proj), v.child("conv2d", b.conv2d);
      v.child("out_proj", b.out_proj);
    }
  };
};

struct VMamba {
  NormedConv stem1, stem2;
  std::vector<std::vector<VMambaBlock>> stages;  // four
  std::vector<NormedConv> downsample;            // after stages 0, 1, 2
  LayerNorm norm;
  Linear head;

  VMamba(const NetworkConfig& c, Rng& rng) : VMamba(c, false, rng) {}
  /// `grid`: as of CrossSelection.
  PPMA_API VMamba(const NetworkConfig& c, bool grid, Rng& rng);
  /// (B,H,W,3) -> logits (B,classes)
  PPMA_API Tensor forward(const Tensor& images, Context& ctx) const;
  /// The rows of its summary, for images of a shape (B,H,W,3).
  PPMA_API void describe(detail::LayerRows& w, const Shape& images);
  /// vmamba_tiny, small, base, nano.
  PPMA_API static std::vector<NetworkConfig> configs();
  template <class V>
  void fields(V& v) {
    v.child("patch_embed.0", stem1.conv), v.child("patch_embed.2", stem1.norm);
    v.child("patch_embed.5", stem2.conv), v.child("patch_embed.7", stem2.norm);
    for (std::size_t s = 0; s < 4; ++s) {
      v.children(str("layers.", s, ".blocks").c_str(), stages[s]);
      if (s == 3) continue;
      v.child(str("layers.", s, ".downsample.1").c_str(), downsample[s].conv);
      v.child(str("layers.", s, ".downsample.3").c_str(), downsample[s].norm);
    }
    v.child("classifier.norm", norm), v.child("classifier.head", head);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

#include "ppma/mixers/selective.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/residual.hpp"
#include "ppma/ops/selective_scan.hpp"

namespace ppma::inline PPMA_ABI {

CrossSelection::CrossSelection(i64 channels, i64 rank, bool grid_, Rng& rng)
    : grid(grid_),
      x_proj_weight(
          parameter(uniform_fan_in({orders, rank + 2 * states, channels}, channels, rng))),
      dt_projs_weight(parameter(uniform_fan_in({orders, channels, rank}, rank, rng))),
      dt_projs_bias(
          parameter(detail::step_biases(orders * channels, rng).viewed_as({orders, channels}))),
      A_logs(parameter(Tensor::zeros({orders * channels, states}))),  // A = -1
      Ds(parameter(Tensor::ones({orders * channels}))) {}

Tensor CrossSelection::forward(const Tensor& u) const {
  const i64 rows = x_proj_weight.dim(1), rank = rows - 2 * states, width = u.dim(3);
  // (B,H,W,K (R + 2 S)): a token's own, wherever it stands in an order
  const Tensor selected = linear(u, reshape(x_proj_weight, Shape{orders * rows, width}));
  const Tensor a = neg(exp(A_logs));
  const Tensor d = sum(reshape(Ds, Shape{orders, width}), {0});  // of all orders
  Tensor y;
  for (i64 k = 0; k < orders; ++k) {
    const Tensor dt = linear(narrow(selected, 3, k * rows, rank), select(dt_projs_weight, 0, k),
                             select(dt_projs_bias, 0, k));
    const Tensor b = narrow(selected, 3, k * rows + rank, states),
                 c = narrow(selected, 3, k * rows + rank + states, states);
    y = scanned(k, u, dt, narrow(a, 0, k * width, width), b, c, k == 0 ? d : Tensor(), y);
  }
  return y;
}

Tensor CrossSelection::scanned(i64 k, const Tensor& u, const Tensor& dt, const Tensor& a,
                               const Tensor& b, const Tensor& c, const Tensor& d,
                               const Tensor& add) const {
  const bool columns = k % 2 == 1, back = k >= 2;
  if (!grid)
    return selective_scan(u, dt, a, b, c,
                          columns ? (back ? TokenOrder::columns_back : TokenOrder::columns)
                                  : (back ? TokenOrder::rows_back : TokenOrder::rows),
                          d, add, StepSizes::softplus);
  const auto turned = [&](Tensor t) {
    if (columns) t = transpose(t, 1, 2);
    return back ? flip(flip(t, 1), 2) : t;
  };
  Tensor y = selective_scan(turned(u), turned(dt), a, turned(b), turned(c), TokenOrder::grid, d,
                            Tensor(), StepSizes::softplus);
  if (back) y = flip(flip(y, 1), 2);
  if (columns) y = transpose(y, 1, 2);
  return add.defined() ? y + add : y;
}

VMambaBlock::VMambaBlock(i64 channels, bool grid, double drop, Rng& rng)
    : norm(channels),
      scan(channels, (channels + 15) / 16, grid, rng),
      out_norm(channels),
      in_proj(channels, channels, rng, false),
      conv2d(channels, 3, rng),
      out_proj(channels, channels, rng, false),
      norm2(channels),
      mlp(channels, 4 * channels, rng),
      drop_path(drop) {
  conv2d.bias = Tensor();
}

Tensor VMambaBlock::forward(const Tensor& x, Context& ctx) const {
  const Tensor u = silu(conv2d.forward(in_proj.forward(norm.forward(x))));
  const Tensor y = out_proj.forward(out_norm.forward(scan.forward(u)));
  const Tensor h = residual(x, y, Tensor(), ctx.drop_path(x, drop_path));
  return residual(h, mlp.forward(norm2.forward(h)), Tensor(), ctx.drop_path(h, drop_path));
}

void VMambaBlock::describe(detail::LayerRows& w, const Shape& x) {
  const i64 channels = x[3], tokens = x.numel() / channels, states = CrossSelection::states,
            orders = CrossSelection::orders;
  w.norm("norm", norm, x);
  w.within("op", [&] {
    w.linear("in_proj", in_proj, x), w.depthwise("conv2d", conv2d, x);
    w.elementwise("silu", x, detail::silu_ops);
    // projections; of a state: decay, twice in a grid, input, output; D u
    const i64 selection = scan.x_proj_weight.numel() + scan.dt_projs_weight.numel(),
              of_channel = orders * states * (scan.grid ? 4 : 3) + 1;
    // bias and softplus, D_t u_t, e^(D_t A); the sum of all orders
    const i64 other = orders * (detail::softplus_ops + 2 + 2 * states + 1);
    w.row("scan", x, parameter_count(scan), tokens * (selection + channels * of_channel),
          x.numel() * other);
    w.norm("out_norm", out_norm, x), w.linear("out_proj", out_proj, x);
  });
  w.elementwise("residual_1", x, 1), w.norm("norm2", norm2, x);
  w.within("mlp", [&] {
    const Shape h = w.linear("fc1", mlp.fc1, x);
    w.elementwise("gelu", h, detail::gelu_ops), w.linear("fc2", mlp.fc2, h);
  });
  w.elementwise("residual_2", x, 1);
}

std::vector<NetworkConfig> VMamba::configs() {
  return {{"vmamba_tiny", "vmamba", {2, 2, 8, 2}, {96, 192, 384, 768}},
          {"vmamba_small", "vmamba", {2, 2, 20, 2}, {96, 192, 384, 768}, {}, 1000, 0.3},
          {"vmamba_base", "vmamba", {2, 2, 20, 2}, {128, 256, 512, 1024}, {}, 1000, 0.5},
          {"vmamba_nano", "vmamba", {1, 1, 2, 1}, {24, 48, 64, 80}, {}, 10, 0.05}};
}

VMamba::VMamba(const NetworkConfig& c, bool grid, Rng& rng)
    : stem1(3, c.dims[0] / 2, 3, 2, 1e-5, rng),
      stem2(c.dims[0] / 2, c.dims[0], 3, 2, 1e-5, rng),
      norm(c.dims[3]),
      head(c.dims[3], c.num_classes, rng) {
  detail::check_no_heads(c);
  i64 block = 0;
  for (std::size_t s = 0; s < 4; ++s) {
    stages.emplace_back();
    for (i64 n = 0; n < c.depths[s]; ++n)
      stages[s].emplace_back(c.dims[s], grid, detail::drop_path_of(c, block++), rng);
    if (s < 3) downsample.emplace_back(c.dims[s], c.dims[s + 1], 3, 2, 1e-5, rng);
  }
}

Tensor VMamba::forward(const Tensor& images, Context& ctx) const {
  Tensor x = stem2.forward(gelu(stem1.forward(images)));  // (B,H,W,C)
  for (std::size_t s = 0; s < 4; ++s) {
    x = detail::through_blocks(stages[s], str("layers.", s, ".blocks"), std::move(x), ctx);
    if (s < 3) x = downsample[s].forward(x);
  }
  return head.forward(mean(norm.forward(x), {1, 2}));
}

void VMamba::describe(detail::LayerRows& w, const Shape& images) {
  Shape x = images;
  w.within("patch_embed", [&] {
    x = w.norm("2", stem1.norm, w.conv("0", stem1.conv, x));
    w.elementwise("gelu", x, detail::gelu_ops);
    x = w.norm("7", stem2.norm, w.conv("5", stem2.conv, x));
  });
  for (std::size_t s = 0; s < 4; ++s)
    w.within(str("layers.", s), [&] {
      for (std::size_t n = 0; n < stages[s].size(); ++n)
        w.within(str("blocks.", n), [&] { stages[s][n].describe(w, x); });
      if (s < 3)
        x = w.norm("downsample.3", downsample[s].norm,
                   w.conv("downsample.1", downsample[s].conv, x));
    });
  w.norm("classifier.norm", norm, x);
  const Shape pooled{x[0], x[3]};
  w.row("classifier.pool", pooled, 0, 0, x.numel());
  w.linear("classifier.head", head, pooled);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
