#pragma once
#include "ppma/core/names_begin.hpp"
// Retention: Sun et al., "Retentive Network", 2023, equations 5 and 8. Tokens are a sequence row by
// row, and each sees itself and those before it (causal, as the paper's formula is):
//
//   q = x Wq, k = x Wk, both turned by their place in the sequence;  v = x Wv
//   y_t = sum over s <= t of gamma^(t - s) (q_t . k_s) v_s,   gamma = 1 - 2^(-5 - g) in head g
//   out = ( swish(x Wg) * GroupNorm(y) ) Wo
//
// Each head's sums are normed on their own, with a weight and a bias a channel. v has C channels,
// as the equations say.

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

struct Retention {
  i64 heads;
  Linear q_proj, k_proj, v_proj, g_proj, out_proj;  // C -> C
  Tensor norm_weight, norm_bias;                    // (C)
  Tensor angle;                                     // (d) of the turns
  Tensor decay;                                     // (G): ln gamma

  PPMA_API Retention(const MixerConfig& c, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  /// The decayed sums, turns, the norm and the gate.
  PPMA_API MixerCost cost(const Shape& x) const;
  template <class V>
  void fields(V& v) {
    v.child("q_proj", q_proj), v.child("k_proj", k_proj), v.child("v_proj", v_proj),
        v.child("g_proj", g_proj);
    v.parameter("norm.weight", norm_weight), v.parameter("norm.bias", norm_bias);
    v.child("out_proj", out_proj), v.buffer("angle", angle), v.buffer("decay", decay);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include <cmath>
#include <vector>

#include "ppma/mixers/decayed_sums.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/ops/rotary.hpp"

namespace ppma::inline PPMA_ABI {

Retention::Retention(const MixerConfig& c, Rng& rng)
    : heads(c.heads),
      q_proj(c.channels, c.channels, rng),
      k_proj(c.channels, c.channels, rng),
      v_proj(c.channels, c.channels, rng),
      g_proj(c.channels, c.channels, rng),
      out_proj(c.channels, c.channels, rng),
      norm_weight(parameter(Tensor::ones({c.channels}))),
      norm_bias(parameter(Tensor::zeros({c.channels}))),
      angle(rotary_angle(c.channels / c.heads)) {
  std::vector<double> gamma;
  for (i64 g = 0; g < heads; ++g) gamma.push_back(std::log1p(-std::exp2(-5.0 - double(g))));
  decay = cast(Tensor::from<double>(gamma, {heads}), DType::f32);
}

Tensor Retention::forward(const Tensor& x) const {
  const i64 batch = x.dim(0), n = x.dim(1) * x.dim(2), d = x.dim(3) / heads;
  const Rotated turned = rotary(q_proj.forward(x), k_proj.forward(x), angle, heads,
                                1 / std::sqrt(static_cast<double>(d)));
  // f32 up to the norm: it takes out the size of each token's sums, so that of the gradients of q
  // and k only what differs between large parts is left
  const auto split = [&](const Tensor& t) {
    return detail::wide(reshape(t, Shape{batch, n, heads, d}));
  };
  const Tensor y = decayed_sums(split(turned.q), split(turned.k), split(v_proj.forward(x)),
                                broadcast_to(decay, {batch, n, heads}));
  const auto each = [&](double value) { return Tensor::full({d}, value, y.dtype(), y.device()); };
  const Tensor normed = layer_norm(y, each(1), each(0), 1e-6);
  const Tensor affine = detail::beside(x, reshape(normed, x.shape()) * norm_weight + norm_bias);
  return out_proj.forward(silu(g_proj.forward(x)) * affine);
}

MixerCost Retention::cost(const Shape& x) const {
  MixerCost sums = decayed_sums_cost(x[0], x[1] * x[2], heads, x[3] / heads, x[3] / heads);
  sums.other += x.numel() * (3 + 4 + 5 + 2 + 4 + 1);  // turns, norm and its affine, swish, product
  return sums;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
