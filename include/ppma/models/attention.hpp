#pragma once
#include "ppma/core/names_begin.hpp"
// The attention layer of a block under its published names (algorithm 3.4): projections, rotary
// positions, the mask's decays, polyline path masked attention, a local term. The attention itself
// is in polyline/. Legend: B batch, H W grid, G heads, d head width, C = G d channels.

#include <cmath>
#include <optional>
#include <string>

#include "ppma/models/norm_product.hpp"
#include "ppma/nn/layers.hpp"
#include "ppma/ops/rotary.hpp"
#include "ppma/polyline/masks.hpp"

namespace ppma::inline PPMA_ABI {

/// What the blocks of one stage share.
struct StageConfig {
  i64 channels, heads, hidden;
  bool criss_cross, layer_scale;
  double layer_init_value;
  MaskKind mask;
  bool fused;                                                         // else composed attention
  bool lepe = true, rotary = true, depthwise = true, linear = false;  // as in PpmaConfig
  std::string mixer = "polyline";                                     // as in PpmaConfig
  i64 stage = 0, block = 0;                                           // from 0
};

/// A depthwise convolution where a configuration has it.
inline std::optional<DepthwiseConv2d> depthwise_if(bool on, i64 channels, i64 kernel, Rng& rng) {
  if (!on) return {};
  return DepthwiseConv2d(channels, kernel, rng);
}

/// Where the decay factors come from.
struct PathEmbed {
  Tensor dt_bias;           // (G)
  Tensor A_log;             // (G)
  Tensor dt_linear_weight;  // (2,d); (1,d) if alpha and beta are shared

  PPMA_API PathEmbed(i64 heads, i64 d, MaskKind mask, Rng rng);
  /// Log decays (2 or 1,B,G,H,W) of normalised tokens (B,H,W,C).
  PPMA_API Tensor forward(const Tensor& x, bool fused = true) const;
  template <class V>
  void fields(V& v) {
    v.parameter("dt_bias", dt_bias), v.parameter("A_log", A_log),
        v.parameter("dt_linear.weight", dt_linear_weight);
  }
};

/// `Relpos`: the position buffers of a stage.
struct Positions {
  Tensor angle;  // (d): rotary angle of each channel; undefined: tokens are not turned
  Tensor decay;  // (G), RMT only: log decay of each head

  /// Angles of a stage, and RMT's decays of its range; another mixer than ours has none of it.
  PPMA_API Positions(const StageConfig& c, double rmt_range);
  template <class V>
  void fields(V& v) {
    v.buffer("angle", angle), v.buffer("decay", decay);
  }
};

/// What an attention makes of tokens before it attends, q, k, v (B,H,W,C).
struct Projected {
  Tensor q, k, v, log_decays;
  Tensor angle =
      {};  // (d): q and k are still to be turned by it, and k to be scaled; mostly undefined
};

/// out_proj( attention(q, k, v, mask) + lepe(v) )
///
/// The attention is whole, criss-cross or linear. Linear attention (PPMLA, algorithm 3.10) has no
/// softmax, and the paper's Theorem 3 says nothing of what stands in its place. Here:
///   y_u = LN( sum over w of (q_u . k_w) L2D[u,w] v_w ),   q, k = turned softplus(Wq x, Wk x)
/// Softplus makes all weights positive before they are turned, which is where RoFormer (Su et al.,
/// 2021) turns them too. LN, over the channels of a head, takes away how many tokens were summed,
/// as the norms behind RetNet's and Mamba-2's sums do: a division by the sum of weights would need
/// the scans once more, and turned weights can sum to 0.
struct Attention {
  StageConfig config;
  Linear q_proj, k_proj, v_proj;
  std::optional<DepthwiseConv2d> lepe;  // 5x5 on v
  Linear out_proj;
  std::optional<PathEmbed> path_embed;   // where the mask is learnt
  std::optional<LayerNorm> linear_norm;  // (d), of each head's sums, where attention is linear

  PPMA_API Attention(const StageConfig& c, Rng& rng);

  /// x (B,H,W,C) of a block, normalised; with the mask's log decays where they come along.
  PPMA_API NormedTokens normed(const Tensor& x, const LayerNorm& norm) const;
  /// x (B,H,W,C), already normalised -> (B,H,W,C), + add
  Tensor forward(const Tensor& x, const Positions& at, const Tensor& add = Tensor()) const {
    return forward(NormedTokens{x, Tensor()}, at, add);
  }
  /// The same of tokens that came with their log decays.
  Tensor forward(const NormedTokens& normed, const Positions& at,
                 const Tensor& add = Tensor()) const {
    return forward(projected(normed, at), add);
  }
  /// The rest of it.
  PPMA_API Tensor forward(const Projected& p, const Tensor& add = Tensor()) const;
  /// All of it of norm(x), x (B,H,W,C). On a GPU with as few passes over the tokens as there are
  /// kernels for.
  PPMA_API Tensor forward(const Tensor& x, const LayerNorm& norm, const Positions& at,
                          const Tensor& add = Tensor()) const;

  /// The projections of normalised tokens.
  PPMA_API Projected projected(const NormedTokens& normed, const Positions& at) const;
  /// The projections of norm(x), x (B,H,W,C). On a GPU one kernel where it has one.
  PPMA_API Projected projected(const Tensor& x, const LayerNorm& norm, const Positions& at) const;

  /// Queries and keys (B,H,W,C) of tokens x (B,H,W,C): keys scaled by d^(-1/2), both turned; of a
  /// linear attention their softplus.
  PPMA_API Rotated queries_and_keys(const Tensor& x, const Positions& at) const;

  /// The mask's log decays (2 or 1,B,G,H,W) for tokens x (B,H,W,C): learnt, RMT's constants, or
  /// none (undefined).
  PPMA_API Tensor decays(const Tensor& x, const Positions& at) const;

  /// The configuration's attention: q, k (B,H,W,C) as queries_and_keys(), v (B,H,W,C), log_decays
  /// as decays() gives them; returns (B,H,W,C).
  PPMA_API Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v,
                         const Tensor& log_decays) const;

  template <class V>
  void fields(V& v) {
    v.child("q_proj", q_proj), v.child("k_proj", k_proj), v.child("v_proj", v_proj),
        v.child("lepe", lepe);
    v.child("out_proj", out_proj), v.child("path_embed", path_embed);
    v.child("linear_norm", linear_norm);
  }

 private:
  // Of tokens that may have come with them.
  Tensor decays(const NormedTokens& normed, const Positions& at) const {
    return normed.log_decays.defined() ? normed.log_decays : decays(normed.x, at);
  }
  double k_scale() const {
    return 1 / std::sqrt(static_cast<double>(config.channels / config.heads));
  }
  PPMA_API Tensor attend_linearly(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor& log_decays) const;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/decay.hpp"
#include "ppma/polyline/fused.hpp"
#include "ppma/polyline/linear.hpp"
#include "ppma/polyline/whole_fused.hpp"

namespace ppma::inline PPMA_ABI {

PathEmbed::PathEmbed(i64 heads, i64 d, MaskKind mask, Rng rng) {
  Tensor bias = Tensor::empty({heads}), a = Tensor::empty({heads});
  for (i64 g = 0; g < heads; ++g) {
    // dt log-uniform in [0.001, 0.1]; the bias is its inverse softplus
    const double dt = std::exp(rng.uniform(std::log(0.001), std::log(0.1)));
    bias.data<float>()[g] = static_cast<float>(dt + std::log(-std::expm1(-dt)));
    a.data<float>()[g] = static_cast<float>(std::log(rng.uniform(1.0, 1.1)));
  }
  dt_bias = parameter(bias), A_log = parameter(a);
  dt_linear_weight = parameter(truncated_normal({mask_of(mask).decays, d}, rng));
}

Tensor PathEmbed::forward(const Tensor& x, bool fused) const {
  return fused ? log_decay(x, dt_linear_weight, dt_bias, A_log)
               : log_decay_composed(x, dt_linear_weight, dt_bias, A_log);
}

Positions::Positions(const StageConfig& c, double rmt_range) {
  if (c.mixer != "polyline") return;
  if (c.rotary) angle = rotary_angle(c.channels / c.heads);
  if (c.mask == MaskKind::rmt) decay = rmt_decay_log(c.heads, 2, rmt_range);
}

Attention::Attention(const StageConfig& c, Rng& rng)
    : config(c),
      q_proj(c.channels, c.channels, rng),
      k_proj(c.channels, c.channels, rng),
      v_proj(c.channels, c.channels, rng),
      lepe(depthwise_if(c.lepe, c.channels, 5, rng)),
      out_proj(c.channels, c.channels, rng) {
  // Draws of its own: networks of one seed that differ in the mask begin with the same weights
  // elsewhere.
  if (mask_of(c.mask).decays > 0)
    path_embed.emplace(c.heads, c.channels / c.heads, c.mask, rng.fork(rng.position()));
  if (c.linear) linear_norm.emplace(c.channels / c.heads, 1e-6);
}

NormedTokens Attention::normed(const Tensor& x, const LayerNorm& norm) const {
  if (!path_embed || !config.fused) return {norm.forward(x), Tensor()};
  return layer_norm_log_decay(x, norm.weight, norm.bias, norm.eps, path_embed->dt_linear_weight,
                              path_embed->dt_bias, path_embed->A_log);
}

Projected Attention::projected(const NormedTokens& normed, const Positions& at) const {
  const Tensor& x = normed.x;
  const Rotated turned = queries_and_keys(x, at);
  return {turned.q, turned.k, v_proj.forward(x), decays(normed, at)};
}

Tensor Attention::forward(const Projected& p, const Tensor& add) const {
  const std::optional<Paths> paths = mask_of(config.mask).paths;
  if (lepe && paths && config.fused && !config.linear && !config.criss_cross && !p.angle.defined())
    if (const Tensor both = whole_attention_local(p.q, p.k, p.v, config.heads, p.log_decays, *paths,
                                                  lepe->weight, lepe->bias);
        both.defined())
      return out_proj.forward(both, add);
  Tensor y;  // (B,H,W,C)
  const auto attended = [&] {
    return y = p.angle.defined() ? whole_attention_turned(p.q, p.k, p.v, config.heads, p.log_decays,
                                                          *paths, p.angle, k_scale())
                                 : attend(p.q, p.k, p.v, p.log_decays);
  };
  return out_proj.forward(lepe ? lepe->forward(p.v, attended) : attended(), add);
}

Rotated Attention::queries_and_keys(const Tensor& x, const Positions& at) const {
  Tensor q = q_proj.forward(x), k = k_proj.forward(x);
  if (config.linear) q = softplus(q), k = softplus(k);
  if (!at.angle.defined()) return {q, scale(k, k_scale())};
  return rotary(q, k, at.angle, config.heads, k_scale());
}

Tensor Attention::decays(const Tensor& x, const Positions& at) const {
  if (path_embed) return path_embed->forward(x, config.fused);
  if (at.decay.defined()) return constant_log_decay(at.decay, x.dim(0), x.dim(1), x.dim(2));
  return {};
}

Tensor Attention::attend(const Tensor& q, const Tensor& k, const Tensor& v,
                         const Tensor& log_decays) const {
  if (config.linear) return attend_linearly(q, k, v, log_decays);
  if (config.fused || !mask_of(config.mask).paths)  // the latter have no other form
    return config.criss_cross
               ? masked_criss_cross(q, k, v, config.heads, config.mask, log_decays)
               : masked_whole_attention(q, k, v, config.heads, config.mask, log_decays);
  const Order order = mask_of(config.mask).order;
  if (config.criss_cross)
    return criss_cross_attention_composed(q, k, v, config.heads, log_decays, order);
  return whole_attention_with(q, k, v, config.heads, ablation_log_masks(config.mask, log_decays));
}

Tensor Attention::attend_linearly(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor& log_decays) const {
  const i64 heads = config.heads, batch = q.dim(0), height = q.dim(1), width = q.dim(2);
  const Paths paths = *mask_of(config.mask).paths;
  // Without a mask every edge is open.
  const Tensor decays = log_decays.defined()
                            ? log_decays
                            : Tensor::zeros({1, batch, heads, height, width},
                                            accumulator_dtype(q.dtype()), q.device());
  const Tensor y =
      linear_attention(q, k, v, heads, decays, paths == Paths::none ? Paths::v2h : paths,
                       config.fused ? LinearForm::scan : LinearForm::quadratic);  // (B,H,W,C)
  const Shape by_head{batch, height, width, heads, q.dim(3) / heads};
  return reshape(linear_norm->forward(reshape(y, by_head)), q.shape());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

// A kernel on the GPU alone: a source that nvcc compiles there.
#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NORM_DECAY)

#include <array>

#include "ppma/models/products_together.hpp"
#include "ppma/polyline/whole_fused.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Projected Attention::projected(const Tensor& x, const LayerNorm& norm, const Positions& at) const {
#if PPMA_CUDA
  const bool turns = config.fused && !config.linear && at.angle.defined();
  const i64 d = config.channels / config.heads;
  const std::array<const Linear*, 3> layers{&q_proj, &k_proj, &v_proj};
  // Nothing but the log decays is recorded: their backward reads the normalised tokens.
  const bool only_decays =
      path_embed && !needs_grad({x, norm.weight, norm.bias}) &&
      needs_grad({path_embed->dt_linear_weight, path_embed->dt_bias, path_embed->A_log});
  if (turns && x.dim(-1) == config.channels &&
      detail::multiplies_normed(x, norm, layers, d, path_embed.has_value()) && !only_decays) {
    const auto map = [&] { return Tensor::empty(x.shape(), x.dtype(), x.device()); };
    Projected out{map(), map(), map(), Tensor()};
    kernels::NormProducts p = detail::norm_products(x, norm);
    p.pitch = config.channels;
    const detail::NarrowLayer q(q_proj), k(k_proj), v(v_proj);
    p.part[0] = q.part(out.q.data<bf16>()), p.part[1] = k.part(out.k.data<bf16>()),
    p.part[2] = v.part(out.v.data<bf16>());
    const detail::RotaryTables tables = detail::rotary_tables(at.angle, p.tokens);
    p.cosine = tables.cosine.data<float>(), p.sine = tables.sine.data<float>();
    p.d = static_cast<int>(d);
    p.scale = static_cast<float>(k_scale());
    Tensor normed;  // undefined: nothing is recorded of it
    if (!path_embed) {
      normed = detail::run_normed(x, norm, p, [&] {
        kernels::norm_products(Cuda{}, p, config.channels, {}, nullptr, nullptr, nullptr, nullptr);
      });
      out.log_decays = decays(normed.defined() ? normed : x, at);
    } else {
      const PathEmbed& e = *path_embed;
      const auto s =
          detail::check_log_decay("attention", x, e.dt_linear_weight, e.dt_bias, e.A_log);
      const NormedTokens tokens = detail::run_normed(
          x, norm, {e.dt_linear_weight, e.dt_bias, e.A_log}, p, [&](Tensor& log_decays) {
            kernels::norm_products(Cuda{}, p, config.channels, s, e.dt_linear_weight.data<float>(),
                                   e.dt_bias.data<float>(), e.A_log.data<float>(),
                                   log_decays.data<float>());
          });
      normed = tokens.x, out.log_decays = tokens.log_decays;
    }
    if (normed.defined() && detail::differentiates_together(normed, layers, d)) {
      detail::record_turned_products(normed, layers, {&out.q, &out.k, &out.v}, tables, d,
                                     k_scale());
    } else if (normed.defined()) {
      const auto back = [&](double scale) {
        return [tables, heads = config.heads, scale](const Tensor& dy) {
          return detail::turned(dy, tables, heads, scale, true);
        };
      };
      out.q = q.recorded(out.q, normed, back(1)),
      out.k = k.recorded(out.k, normed, back(k_scale()));
      out.v = v.recorded(out.v, normed);
    }
    return out;
  }
#endif
  const NormedTokens tokens = normed(x, norm);
#if PPMA_CUDA
  if (turns && detail::differentiates_together(tokens.x, layers, d)) {
    Projected out;
    {
      const NoGrad off;  // what is recorded follows
      const Rotated turned = queries_and_keys(tokens.x, at);
      out = {turned.q, turned.k, v_proj.forward(tokens.x), Tensor()};
    }
    detail::record_turned_products(
        tokens.x, layers, {&out.q, &out.k, &out.v},
        detail::rotary_tables(at.angle, tokens.x.dim(1) * tokens.x.dim(2)), d, k_scale());
    out.log_decays = decays(tokens, at);
    return out;
  }
#endif
  return projected(tokens, at);
}

Tensor Attention::forward(const Tensor& x, const LayerNorm& norm, const Positions& at,
                          const Tensor& add) const {
#if PPMA_CUDA
  // Products of many rows are others' kernels, which turn nothing: the attention does, where it
  // reads what they wrote.
  const std::optional<Paths> paths = mask_of(config.mask).paths;
  if (config.fused && !config.linear && !config.criss_cross && paths && at.angle.defined() &&
      !grad_enabled() && turns_in_whole_attention(x, config.heads, *paths) &&
      !detail::multiplies_normed(x, norm, {&q_proj, &k_proj, &v_proj},
                                 config.channels / config.heads, path_embed.has_value())) {
    const NormedTokens tokens = normed(x, norm);
    return forward(Projected{q_proj.forward(tokens.x), k_proj.forward(tokens.x),
                             v_proj.forward(tokens.x), decays(tokens, at), at.angle},
                   add);
  }
#endif
  return forward(projected(x, norm, at), add);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions of kernels on the GPU alone

#include "ppma/core/names_end.hpp"
