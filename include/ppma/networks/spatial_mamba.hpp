#pragma once
#include "ppma/core/names_begin.hpp"
// Xiao et al., "Spatial-Mamba: Effective Visual State Space Models via Structure-aware State
// Fusion", 2025: one scan row by row, whose states are fused with those around before they are
// observed.
//
//   x = x + DWConv3x3(x)
//   u, z = LN(x) W_in,  u = SiLU(DWConv3x3 u)      2 C channels each
//   s_t = e^(D_t A) s_t-1 + D_t B_t u_t            one state a channel
//   h = sum over d in 1, 3, 5 of alpha_d K_d(s)    depthwise 3x3 with taps d apart
//   y = C h + D u,  x = x + (LN(y) * SiLU(z)) W_out
//   x = x + DWConv3x3(x),  x = x + MLP(LN(x))      MLP: 4 C channels, GELU
//
// Beyond the grid there are the states of its edge in training and zeros in evaluation, as in the
// program that the published weights come from.
// Stem: 3x3 with stride 2, two 3x3 beside an identity, 3x3 with stride 2 to 4 C, 1x1, each with
// batch norm, ReLU between. Head: layer norm, mean over the tokens, linear. Names are those of the
// authors' checkpoints (spatialmamba_tiny.pth, entry "model").
// Legend: E = 2 C channels, R rank of the step sizes.

#include "ppma/networks/parts.hpp"

namespace ppma::inline PPMA_ABI {

/// A convolution k x k with padding k / 2, and a batch norm.
struct BatchNormedConv {
  Conv2d conv;
  BatchNorm norm;

  PPMA_API BatchNormedConv(i64 in, i64 out, i64 kernel, i64 stride, bool with_bias, Rng& rng);
  /// (B,H,W,in) -> (B,H',W',out)
  Tensor forward(const Tensor& x, const Context& ctx) const {
    return norm.forward(conv.forward(x), ctx);
  }
  /// Its two rows of a summary; the shape of its result.
  PPMA_API Shape describe(detail::LayerRows& w, const std::string& name, const Shape& x);
  template <class V>
  void fields(V& v) {
    v.child("conv", conv), v.child("norm", norm);
  }
};

struct StateFusion {
  Tensor kernels[3];  // (E,1,3,3), of each distance
  Tensor alpha;       // (3)

  /// Kernels and alpha of ones.
  PPMA_API explicit StateFusion(i64 channels);
  /// States (B,H,W,E) -> (B,H,W,E).
  PPMA_API Tensor forward(const Tensor& states, bool training) const;
  template <class V>
  void fields(V& v) {
    v.parameter("kernel_3", kernels[0]), v.parameter("kernel_3_1", kernels[1]);
    v.parameter("kernel_3_2", kernels[2]), v.parameter("alpha", alpha);
  }
};

/// `SASSM`: the structure-aware state space model.
struct SpatialSelection {
  i64 width;               // E
  Tensor x_proj_weight;    // (R + 2,E)
  Tensor dt_projs_weight;  // (E,R)
  Tensor dt_projs_bias;    // (E)
  Tensor A_logs;           // (E,1)
  Tensor Ds;               // (E)
  Linear in_proj;          // C -> 2 E, without a bias, as out_proj
  Depthwise conv2d;
  StateFusion state_fusion;
  LayerNorm out_norm;
  Linear out_proj;

  PPMA_API SpatialSelection(i64 channels, Rng& rng);
  /// x (B,H,W,C), normalised -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x, bool training) const;
  /// The rows of its summary.
  PPMA_API void describe(detail::LayerRows& w, const Shape& x);
  template <class V>
  void fields(V& v) {
    v.parameter("x_proj_weight", x_proj_weight), v.parameter("dt_projs_weight", dt_projs_weight);
    v.parameter("dt_projs_bias", dt_projs_bias), v.parameter("A_logs", A_logs);
    v.parameter("Ds", Ds), v.child("in_proj", in_proj), v.child("conv2d", conv2d);
    v.child("state_fusion", state_fusion), v.child("out_norm", out_norm);
    v.child("out_proj", out_proj);
  }
};

struct SpatialMambaBlock {
  Depthwise cpe1;
  LayerNorm ln_1;
  SpatialSelection SASSM;
  Depthwise cpe2;
  LayerNorm ln_2;
  GeluMlp mlp;
  double drop_path;

  PPMA_API SpatialMambaBlock(i64 channels, double drop, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x, Context& ctx) const;
  /// The rows of its summary.
  PPMA_API void describe(detail::LayerRows& w, const Shape& x);
  template <class V>
  void fields(V& v) {
    v.child("cpe1", cpe1), v.child("ln_1", ln_1), v.child("SASSM", SASSM), v.child("cpe2", cpe2);
    v.child("ln_2", ln_2), v.child("mlp", mlp);
  }
};

struct SpatialMamba {
  /// Between stages: 1x1 to 4 C' channels, depthwise 3x3 with stride 2, each with ReLU, 1x1 to C'.
  struct Downsample {
    Conv2d widen;
    Depthwise reduce;
    BatchNormedConv narrow;

    Downsample(i64 in, i64 out, Rng& rng)
        : widen(in, 4 * out, 1, {}, rng),
          reduce(4 * out, 3, rng),
          narrow(4 * out, out, 1, 1, true, rng) {}
    /// (B,H,W,in) -> (B,ceil(H/2),ceil(W/2),out)
    PPMA_API Tensor forward(const Tensor& x, const Context& ctx) const;
    template <class V>
    void fields(V& v) {
      v.child("conv.0.conv", widen), v.child("conv.1.conv", reduce), v.child("conv.2", narrow);
    }
  };

  BatchNormedConv conv1, conv2, conv3, conv4, conv5;   // of the stem
  std::vector<std::vector<SpatialMambaBlock>> stages;  // four
  std::vector<Downsample> downsample;                  // after stages 0, 1, 2
  LayerNorm norm;
  Linear head;

  PPMA_API SpatialMamba(const NetworkConfig& c, Rng& rng);
  /// (B,H,W,3) -> logits (B,classes)
  PPMA_API Tensor forward(const Tensor& images, Context& ctx) const;
  /// The rows of its summary, for images of a shape (B,H,W,3).
  PPMA_API void describe(detail::LayerRows& w, const Shape& images);
  /// spatial_mamba_tiny, small, base, nano.
  PPMA_API static std::vector<NetworkConfig> configs();
  template <class V>
  void fields(V& v) {
    v.child("patch_embed.conv1", conv1), v.child("patch_embed.conv2.0", conv2);
    v.child("patch_embed.conv2.1", conv3), v.child("patch_embed.conv3.0", conv4);
    v.child("patch_embed.conv3.1", conv5);
    for (std::size_t s = 0; s < 4; ++s) {
      v.children(str("layers.", s, ".blocks").c_str(), stages[s]);
      if (s < 3) v.child(str("layers.", s, ".downsample").c_str(), downsample[s]);
    }
    v.child("norm", norm), v.child("head", head);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

#include "ppma/mixers/selective.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/gate.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/pool.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/residual.hpp"
#include "ppma/ops/rings.hpp"
#include "ppma/ops/selective_scan.hpp"

namespace ppma::inline PPMA_ABI {

BatchNormedConv::BatchNormedConv(i64 in, i64 out, i64 kernel, i64 stride, bool with_bias, Rng& rng)
    : conv(in, out, kernel, ConvOptions{stride, kernel / 2, 1}, rng), norm(out) {
  if (!with_bias) conv.bias = Tensor();
}

Shape BatchNormedConv::describe(detail::LayerRows& w, const std::string& name, const Shape& x) {
  return w.norm(name + ".norm", norm, w.conv(name + ".conv", conv, x));
}

StateFusion::StateFusion(i64 channels) : alpha(parameter(Tensor::ones({3}))) {
  for (Tensor& kernel : kernels) kernel = parameter(Tensor::ones({channels, 1, 3, 3}));
}

Tensor StateFusion::forward(const Tensor& states, bool training) const {
  std::vector<Tensor> weighed;
  for (i64 k = 0; k < 3; ++k)
    weighed.push_back(reshape(kernels[k], Shape{states.dim(3), 9}) * narrow(alpha, 0, k, 1));
  return rings_conv2d(states, transpose(concat(weighed, 1), 0, 1),
                      training ? Beyond::edges : Beyond::zeros);
}

SpatialSelection::SpatialSelection(i64 channels, Rng& rng)
    : width(2 * channels),
      x_proj_weight(parameter(uniform_fan_in({(channels + 15) / 16 + 2, width}, width, rng))),
      dt_projs_weight(
          parameter(uniform_fan_in({width, (channels + 15) / 16}, (channels + 15) / 16, rng))),
      dt_projs_bias(parameter(detail::step_biases(width, rng))),
      A_logs(parameter(Tensor::zeros({width, 1}))),  // A = -1
      Ds(parameter(Tensor::ones({width}))),
      in_proj(channels, 2 * width, rng, false),
      conv2d(width, 3, rng),
      state_fusion(width),
      out_norm(width),
      out_proj(width, channels, rng, false) {}

Tensor SpatialSelection::forward(const Tensor& x, bool training) const {
  const Tensor both = in_proj.forward(x);  // (B,H,W,2E)
  const Tensor u = silu(conv2d.forward(narrow(both, 3, 0, width)));
  const i64 rank = dt_projs_weight.dim(1);
  const Tensor selected = linear(u, x_proj_weight);  // (B,H,W,R+2)
  const Tensor dt = linear(narrow(selected, 3, 0, rank), dt_projs_weight, dt_projs_bias),
               b = narrow(selected, 3, rank, 1), c = narrow(selected, 3, rank + 1, 1);
  const Tensor states =
      selective_scan(u, dt, neg(exp(A_logs)), b, Tensor::ones(b.shape(), b.dtype(), b.device()),
                     TokenOrder::rows, Tensor(), Tensor(), StepSizes::softplus);
  const Tensor y = state_fusion.forward(states, training) * c + u * cast(Ds, u.dtype());
  return out_proj.forward(gated(both, width, width, out_norm.forward(y), Gate::silu));
}

void SpatialSelection::describe(detail::LayerRows& w, const Shape& x) {
  Shape wide = x;
  wide.set(3, width);
  const i64 tokens = x.numel() / x[3];
  w.linear("in_proj", in_proj, x), w.depthwise("conv2d", conv2d, wide);
  w.elementwise("silu", wide, detail::silu_ops);
  // projections; decay and input; observation, D u. Bias and softplus, D_t u_t, e^(D_t A)
  const i64 selection = x_proj_weight.numel() + dt_projs_weight.numel();
  w.row("scan", wide, selection + dt_projs_bias.numel() + A_logs.numel() + Ds.numel(),
        tokens * (selection + 4 * width), wide.numel() * (detail::softplus_ops + 2 + 2));
  w.row("state_fusion", wide, parameter_count(state_fusion), 27 * wide.numel(), 0);
  w.norm("out_norm", out_norm, wide), w.elementwise("gate", wide, detail::silu_ops + 1);
  w.linear("out_proj", out_proj, wide);
}

SpatialMambaBlock::SpatialMambaBlock(i64 channels, double drop, Rng& rng)
    : cpe1(channels, 3, rng),
      ln_1(channels),
      SASSM(channels, rng),
      cpe2(channels, 3, rng),
      ln_2(channels),
      mlp(channels, 4 * channels, rng),
      drop_path(drop) {}

Tensor SpatialMambaBlock::forward(const Tensor& before, Context& ctx) const {
  Tensor x = cpe1.forward(before, before);
  x = residual(x, SASSM.forward(ln_1.forward(x), ctx.training), Tensor(),
               ctx.drop_path(x, drop_path));
  x = cpe2.forward(x, x);
  return residual(x, mlp.forward(ln_2.forward(x)), Tensor(), ctx.drop_path(x, drop_path));
}

void SpatialMambaBlock::describe(detail::LayerRows& w, const Shape& x) {
  w.depthwise("cpe1", cpe1, x), w.norm("ln_1", ln_1, x);
  w.within("SASSM", [&] { SASSM.describe(w, x); });
  w.elementwise("residual_1", x, 1), w.depthwise("cpe2", cpe2, x), w.norm("ln_2", ln_2, x);
  w.within("mlp", [&] {
    const Shape h = w.linear("fc1", mlp.fc1, x);
    w.elementwise("gelu", h, detail::gelu_ops), w.linear("fc2", mlp.fc2, h);
  });
  w.elementwise("residual_2", x, 1);
}

std::vector<NetworkConfig> SpatialMamba::configs() {
  return {
      {"spatial_mamba_tiny", "spatial_mamba", {2, 4, 8, 4}, {64, 128, 256, 512}},
      {"spatial_mamba_small", "spatial_mamba", {2, 4, 21, 5}, {64, 128, 256, 512}, {}, 1000, 0.3},
      {"spatial_mamba_base", "spatial_mamba", {2, 4, 21, 5}, {96, 192, 384, 768}, {}, 1000, 0.5},
      {"spatial_mamba_nano", "spatial_mamba", {1, 1, 2, 1}, {16, 32, 48, 64}, {}, 10, 0.05}};
}

SpatialMamba::SpatialMamba(const NetworkConfig& c, Rng& rng)
    : conv1(3, c.dims[0] / 2, 3, 2, false, rng),
      conv2(c.dims[0] / 2, c.dims[0] / 2, 3, 1, false, rng),
      conv3(c.dims[0] / 2, c.dims[0] / 2, 3, 1, false, rng),
      conv4(c.dims[0] / 2, 4 * c.dims[0], 3, 2, false, rng),
      conv5(4 * c.dims[0], c.dims[0], 1, 1, false, rng),
      norm(c.dims[3]),
      head(c.dims[3], c.num_classes, rng) {
  detail::check_no_heads(c);
  i64 block = 0;
  for (std::size_t s = 0; s < 4; ++s) {
    stages.emplace_back();
    for (i64 n = 0; n < c.depths[s]; ++n)
      stages[s].emplace_back(c.dims[s], detail::drop_path_of(c, block++), rng);
    if (s < 3) downsample.emplace_back(c.dims[s], c.dims[s + 1], rng);
  }
}

// A depthwise kernel and every second place of its result: four times the products of a stride, in
// one pass over all channels.
Tensor SpatialMamba::Downsample::forward(const Tensor& x, const Context& ctx) const {
  const Tensor reduced = avg_pool2d(reduce.forward(relu(widen.forward(x))), {1, 2, 0});
  return narrow.forward(relu(reduced), ctx);
}

Tensor SpatialMamba::forward(const Tensor& images, Context& ctx) const {
  Tensor x = relu(conv1.forward(images, ctx));
  x = conv3.forward(relu(conv2.forward(x, ctx)), ctx) + x;
  x = conv5.forward(relu(conv4.forward(x, ctx)), ctx);  // (B,H,W,C)
  for (std::size_t s = 0; s < 4; ++s) {
    x = detail::through_blocks(stages[s], str("layers.", s, ".blocks"), std::move(x), ctx);
    if (s < 3) x = downsample[s].forward(x, ctx);
  }
  return head.forward(mean(norm.forward(x), {1, 2}));
}

void SpatialMamba::describe(detail::LayerRows& w, const Shape& images) {
  Shape x = images;
  w.within("patch_embed", [&] {
    x = w.elementwise("relu1", conv1.describe(w, "conv1", x), 1);
    w.elementwise("relu2", conv2.describe(w, "conv2.0", x), 1);
    w.elementwise("add", conv3.describe(w, "conv2.1", x), 1);
    x = conv5.describe(w, "conv3.1", w.elementwise("relu3", conv4.describe(w, "conv3.0", x), 1));
  });
  for (std::size_t s = 0; s < 4; ++s)
    w.within(str("layers.", s), [&] {
      for (std::size_t n = 0; n < stages[s].size(); ++n)
        w.within(str("blocks.", n), [&] { stages[s][n].describe(w, x); });
      if (s == 3) return;
      Downsample& d = downsample[s];
      w.within("downsample.conv", [&] {
        x = w.elementwise("relu1", w.conv("0.conv", d.widen, x), 1);
        x = {x[0], (x[1] + 1) / 2, (x[2] + 1) / 2, x[3]};
        w.elementwise("relu2", w.depthwise("1.conv", d.reduce, x), 1);
        x = d.narrow.describe(w, "2", x);
      });
    });
  w.norm("norm", norm, x);
  const Shape pooled{x[0], x[3]};
  w.row("pool", pooled, 0, 0, x.numel());
  w.linear("head", head, pooled);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
