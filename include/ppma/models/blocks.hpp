#pragma once
// The pieces of the network under their published names: stem, attention, feed-forward, block, merge, stage (spec 3.2 to
// 3.7). Channels last between the convolutions. Legend: B batch, H W grid, C channels, G heads, d head width, F hidden.

#include <cmath>
#include <optional>
#include <vector>

#include "ppma/models/config.hpp"
#include "ppma/nn/layers.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/dropout.hpp"
#include "ppma/ops/residual.hpp"
#include "ppma/ops/rotary.hpp"
#include "ppma/polyline/criss_cross_attention.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/whole_attention.hpp"

namespace ppma::inline PPMA_ABI {

/// Four 3x3 convolutions, the first and third with stride 2: (B,Hin,Win,3) -> (B,H,W,C), stride 4.
struct Stem {
  std::vector<Conv2d> convs;
  std::vector<BatchNorm> norms;

  Stem(i64 channels, Rng& rng) {
    i64 in = 3;
    for (int i = 0; i < 4; ++i) {
      const i64 out = i < 2 ? channels / 2 : channels;
      convs.emplace_back(in, out, 3, ConvOptions{i % 2 == 0 ? 2 : 1, 1, 1}, rng);
      norms.emplace_back(out);
      in = out;
    }
  }
  Tensor forward(Tensor x, const Context& ctx) {
    for (std::size_t i = 0; i < 4; ++i) {
      x = norms[i].forward(convs[i].forward(x), ctx);
      if (i < 3) x = gelu(x);
    }
    return x;
  }
  template <class V>
  void fields(V& v) {  // indices of the published Sequential: convolution, norm, GELU
    for (std::size_t i = 0; i < 4; ++i) v.child(str("proj.", 3 * i).c_str(), convs[i]), v.child(str("proj.", 3 * i + 1).c_str(), norms[i]);
  }
};

/// Where the decay factors come from.
struct PathEmbed {
  Tensor dt_bias;           // (G)
  Tensor A_log;             // (G)
  Tensor dt_linear_weight;  // (2,d); (1,d) if alpha and beta are shared

  PathEmbed(i64 heads, i64 d, bool shared, Rng& rng) {
    Tensor bias = Tensor::empty({heads}), a = Tensor::empty({heads});
    for (i64 g = 0; g < heads; ++g) {
      // dt log-uniform in [0.001, 0.1]; the bias is its inverse softplus
      const double dt = std::exp(rng.uniform() * (std::log(0.1) - std::log(0.001)) + std::log(0.001));
      bias.data<float>()[g] = static_cast<float>(dt + std::log(-std::expm1(-dt)));
      a.data<float>()[g] = static_cast<float>(std::log(rng.uniform(1.0, 1.1)));
    }
    dt_bias = parameter(bias), A_log = parameter(a);
    dt_linear_weight = parameter(truncated_normal({shared ? 1 : 2, d}, rng));
  }
  LogDecay forward(const Tensor& x) const { return log_decay(x, dt_linear_weight, dt_bias, A_log); }
  template <class V>
  void fields(V& v) {
    v.parameter("dt_bias", dt_bias), v.parameter("A_log", A_log), v.parameter("dt_linear.weight", dt_linear_weight);
  }
};

/// What the blocks of one stage share: sizes, and the position buffers of the published state dict.
struct StageConfig {
  i64 channels, heads, hidden;
  bool criss_cross, layer_scale;
  double layer_init_value;
  MaskKind mask;
};

/// `Relpos`: rotary angles (d), and for RMT the fixed log decay of each head.
struct Positions {
  Tensor angle;  // (d): 10000^-e, each twice
  Tensor decay;  // (G), RMT only: ln(1 - 2^(-2 - range n / G))

  Positions(const StageConfig& c, double range) : angle(rotary_angle(c.channels / c.heads)) {
    if (c.mask != MaskKind::rmt) return;
    decay = Tensor::empty({c.heads});
    for (i64 n = 0; n < c.heads; ++n)
      decay.data<float>()[n] =
          static_cast<float>(std::log(1 - std::exp2(-2 - range * static_cast<double>(n) / static_cast<double>(c.heads))));
  }
  /// RMT's decay of every edge, (B,G,H,W).
  LogDecay fixed_decay(const Tensor& x) const {
    const Tensor d = broadcast_to(reshape(decay.detach(), {decay.dim(0), 1, 1}), {x.dim(0), decay.dim(0), x.dim(1), x.dim(2)});
    return {d, d};
  }
  template <class V>
  void fields(V& v) {
    v.buffer("angle", angle), v.buffer("decay", decay);
  }
};

/// Masked multi-head attention with rotary positions and a local term: out_proj(attention + lepe(v)).
struct Attention {
  StageConfig config;
  Linear q_proj, k_proj, v_proj;
  DepthwiseConv2d lepe;  // 5x5 on v
  Linear out_proj;
  std::optional<PathEmbed> path_embed;  // where the mask is learnt

  Attention(const StageConfig& c, Rng& rng)
      : config(c), q_proj(c.channels, c.channels, rng), k_proj(c.channels, c.channels, rng), v_proj(c.channels, c.channels, rng),
        lepe(c.channels, 5, rng), out_proj(c.channels, c.channels, rng) {
    if (c.mask != MaskKind::none && c.mask != MaskKind::rmt)
      path_embed.emplace(c.heads, c.channels / c.heads, c.mask == MaskKind::shared, rng);
  }

  /// x (B,H,W,C), already normalised
  Tensor forward(const Tensor& x, const Positions& at) const {
    const double scale = 1 / std::sqrt(static_cast<double>(config.channels / config.heads));
    const Tensor q = rotary(q_proj.forward(x), at.angle, config.heads);         // (B,H,W,C)
    const Tensor k = rotary(k_proj.forward(x), at.angle, config.heads, scale);  // (B,H,W,C)
    const Tensor v = v_proj.forward(x);                                         // (B,H,W,C)
    const LogDecay decay = path_embed ? path_embed->forward(x) : at.decay.defined() ? at.fixed_decay(x) : LogDecay{};
    const Tensor y = attend(q, k, v, decay);                                    // (B,H,W,C)
    return out_proj.forward(lepe.forward(v, y));
  }

  // Masks without a direction of their own use one order of criss-cross (rows first), as RMT does; V2H is columns first.
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const LogDecay& decay) const {
    const bool one_order = config.mask == MaskKind::none || config.mask == MaskKind::rmt;
    if (config.criss_cross) {
      const Order order = one_order ? Order::rows_first : config.mask == MaskKind::v2h ? Order::columns_first : Order::both;
      return criss_cross_attention(q, k, v, config.heads, decay.log_alpha, decay.log_beta, order);
    }
    // RMT's mask is symmetric: both paths are the same, one softmax is enough.
    const Paths paths = config.mask == MaskKind::none ? Paths::none
                        : one_order || config.mask == MaskKind::v2h ? Paths::v2h : Paths::both;
    return whole_attention(q, k, v, config.heads, decay.log_alpha, decay.log_beta, paths);
  }

  template <class V>
  void fields(V& v) {
    v.child("q_proj", q_proj), v.child("k_proj", k_proj), v.child("v_proj", v_proj), v.child("lepe", lepe);
    v.child("out_proj", out_proj), v.child("path_embed", path_embed);
  }
};

/// fc2(h + dwconv(h)), h = GELU(fc1 x)
struct FeedForward {
  Linear fc1, fc2;
  DepthwiseConv2d dwconv;  // 3x3

  FeedForward(i64 channels, i64 hidden, Rng& rng) : fc1(channels, hidden, rng), fc2(hidden, channels, rng), dwconv(hidden, 3, rng) {}
  Tensor forward(const Tensor& x) const {
    const Tensor h = gelu(fc1.forward(x));     // (B,H,W,F)
    return fc2.forward(dwconv.forward(h, h));  // (B,H,W,C)
  }
  template <class V>
  void fields(V& v) {
    v.child("fc1", fc1), v.child("fc2", fc2), v.child("dwconv", dwconv);
  }
};

/// x += pos(x);  x += DropPath(gamma_1 attention(LN x));  x += DropPath(gamma_2 ffn(LN x))
struct Block {
  Tensor gamma_1, gamma_2;  // (1,1,1,C), where layer scale is on
  LayerNorm retention_layer_norm;
  Attention retention;
  LayerNorm final_layer_norm;
  FeedForward ffn;
  DepthwiseConv2d pos;  // 3x3
  double drop_path;     // probability that a sample skips a branch in training

  Block(const StageConfig& c, double drop, Rng& rng)
      : retention_layer_norm(c.channels, 1e-6), retention(c, rng), final_layer_norm(c.channels, 1e-6),
        ffn(c.channels, c.hidden, rng), pos(c.channels, 3, rng), drop_path(drop) {
    if (!c.layer_scale) return;
    gamma_1 = parameter(Tensor::full({1, 1, 1, c.channels}, c.layer_init_value));
    gamma_2 = parameter(Tensor::full({1, 1, 1, c.channels}, c.layer_init_value));
  }
  Tensor forward(Tensor x, const Positions& at, Context& ctx) const {
    const auto keep = [&] {  // one draw a sample and branch
      return ctx.training && drop_path > 0 ? drop_path_factors(x.dim(0), drop_path, ctx.rng, x.dtype()) : Tensor();
    };
    x = pos.forward(x, x);
    x = residual(x, retention.forward(retention_layer_norm.forward(x), at), gamma_1, keep());
    return residual(x, ffn.forward(final_layer_norm.forward(x)), gamma_2, keep());
  }
  template <class V>
  void fields(V& v) {
    v.parameter("gamma_1", gamma_1), v.parameter("gamma_2", gamma_2);
    v.child("retention_layer_norm", retention_layer_norm), v.child("retention", retention);
    v.child("final_layer_norm", final_layer_norm), v.child("ffn", ffn), v.child("pos", pos);
  }
};

/// Between stages: convolution 3x3 with stride 2, then batch norm.
struct Merge {
  Conv2d reduction;
  BatchNorm norm;

  Merge(i64 in, i64 out, Rng& rng) : reduction(in, out, 3, ConvOptions{2, 1, 1}, rng), norm(out) {}
  Tensor forward(const Tensor& x, const Context& ctx) { return norm.forward(reduction.forward(x), ctx); }
  template <class V>
  void fields(V& v) {
    v.child("reduction", reduction), v.child("norm", norm);
  }
};

/// Blocks at one resolution; the merging that follows is part of the published stage.
struct Stage {
  Positions Relpos;
  std::vector<Block> blocks;
  std::optional<Merge> downsample;

  Stage(const PpmaConfig& c, std::size_t s, i64 first_block, Rng& rng) : Relpos(stage_config(c, s), c.heads_ranges[s]) {
    const double last = static_cast<double>(std::max<i64>(1, c.blocks() - 1));
    for (i64 n = 0; n < c.depths[s]; ++n)
      blocks.emplace_back(stage_config(c, s), c.drop_path_rate * static_cast<double>(first_block + n) / last, rng);
    if (s < 3) downsample.emplace(c.embed_dims[s], c.embed_dims[s + 1], rng);
  }
  /// The map before merging.
  Tensor forward(Tensor x, Context& ctx) const {
    for (std::size_t n = 0; n < blocks.size(); ++n) {
      const std::string name = str("blocks.", n);
      const Scope scope(name);
      x = blocks[n].forward(x, Relpos, ctx);
    }
    return x;
  }
  static StageConfig stage_config(const PpmaConfig& c, std::size_t s) {
    return {c.embed_dims[s], c.num_heads[s], static_cast<i64>(c.mlp_ratios[s] * static_cast<double>(c.embed_dims[s])),
            c.chunkwise_recurrents[s], c.layerscales[s], c.layer_init_values, c.mask};
  }
  template <class V>
  void fields(V& v) {
    v.child("Relpos", Relpos), v.children("blocks", blocks), v.child("downsample", downsample);
  }
};

}  // namespace ppma::inline PPMA_ABI
