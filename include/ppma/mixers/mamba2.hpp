#pragma once
#include "ppma/core/names_begin.hpp"
// Mamba-2: Dao and Gu, "Transformers are SSMs", 2024: state space duality with one decay a head
// and token. Tokens are a sequence row by row, and each sees itself and those before it.
//
//   z, (u, B, C), D = x W_in;  u, B, C = SiLU(causal convolution of 4 tokens)
//   D_t = softplus(D_t + b),  a_t = -e^(A_log) D_t                       of each head
//   y_t = sum over s <= t of (C_t . B_s) e^(a_s+1 + .. + a_t) D_s u_s + D u_t
//   out = RMSNorm( y * SiLU(z) ) W_out
//
// E = 2 C channels; B and C have 64 states, the same for all heads.

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

struct DualScan {
  static constexpr i64 states = 64, reach = 4;

  i64 width, heads;          // E, G
  Linear in_proj;            // C -> 2 E + 2 S + G
  Tensor conv_weight;        // (4,E + 2 S), the last row of the token itself
  Tensor conv_bias;          // (E + 2 S)
  Tensor dt_bias, A_log, D;  // (G)
  Tensor norm_weight;        // (E)
  Linear out_proj;

  PPMA_API DualScan(const MixerConfig& c, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  /// The convolution, the decayed sums, activations and the norm.
  PPMA_API MixerCost cost(const Shape& x) const;
  template <class V>
  void fields(V& v) {
    v.child("in_proj", in_proj);
    v.parameter("conv.weight", conv_weight), v.parameter("conv.bias", conv_bias);
    v.parameter("dt_bias", dt_bias), v.parameter("A_log", A_log), v.parameter("D", D);
    v.parameter("norm.weight", norm_weight), v.child("out_proj", out_proj);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include <cmath>

#include "ppma/mixers/decayed_sums.hpp"
#include "ppma/mixers/selective.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"

namespace ppma::inline PPMA_ABI {

DualScan::DualScan(const MixerConfig& c, Rng& rng)
    : width(2 * c.channels),
      heads(c.heads),
      in_proj(c.channels, 2 * width + 2 * states + heads, rng, false),
      conv_weight(parameter(uniform_fan_in({reach, width + 2 * states}, reach, rng))),
      conv_bias(parameter(uniform_fan_in({width + 2 * states}, reach, rng))),
      dt_bias(parameter(detail::step_biases(heads, rng))),
      D(parameter(Tensor::ones({heads}))),
      norm_weight(parameter(Tensor::ones({width}))),
      out_proj(width, c.channels, rng, false) {
  Tensor a = Tensor::empty({heads});
  for (i64 g = 0; g < heads; ++g)
    a.data<float>()[g] = static_cast<float>(std::log(rng.uniform(1.0, 16.0)));
  A_log = parameter(a);
}

Tensor DualScan::forward(const Tensor& x) const {
  const i64 batch = x.dim(0), n = x.dim(1) * x.dim(2), all = width + 2 * states;
  const Tensor p = reshape(in_proj.forward(x), {batch, n, i64{-1}});
  // the convolution along the sequence, as one of 7 x 7 on a grid of one column
  const auto zeros = [&](const Shape& shape) {
    return Tensor::zeros(shape, conv_weight.dtype(), x.device());
  };
  const Tensor taps = reshape(concat({conv_weight, zeros({7 - reach, all})}, 0), Shape{1, 7, all});
  const Tensor window =
      concat({zeros({3, 7, all}), taps, zeros({3, 7, all})}, 0);  // (across,along)
  const Tensor conv =
      reshape(depthwise_conv2d(reshape(narrow(p, -1, width, all), Shape{batch, n, 1, all}),
                               reshape(permute(window, {2, 1, 0}), Shape{all, 1, 7, 7}), conv_bias),
              Shape{batch, n, all});
  const Tensor seen = silu(conv);  // (B,N,E + 2S)
  const Tensor dt = softplus(detail::wide(narrow(p, -1, width + all, heads)) + dt_bias);  // (B,N,G)
  const Tensor u = reshape(narrow(seen, -1, 0, width), Shape{batch, n, heads, width / heads});
  const auto shared = [&](i64 first) {
    return reshape(narrow(seen, -1, first, states), Shape{batch, n, 1, states});
  };
  const Tensor y = decayed_sums(shared(width + states), shared(width),
                                u * reshape(detail::beside(u, dt), Shape{batch, n, heads, 1}),
                                dt * neg(exp(A_log))) +
                   u * reshape(detail::beside(u, D), Shape{heads, 1});
  const Tensor gated =
      detail::wide(reshape(y, Shape{batch, n, width}) * silu(narrow(p, -1, 0, width)));
  const Tensor rms = sqrt(add_scalar(mean(square(gated), {-1}, true), 1e-5));  // (B,N,1)
  const Tensor normed = div(gated, rms) * norm_weight;
  return out_proj.forward(
      reshape(detail::beside(x, normed), Shape{batch, x.dim(1), x.dim(2), width}));
}

MixerCost DualScan::cost(const Shape& x) const {
  const i64 n = x[1] * x[2], tokens = x[0] * n;
  MixerCost c = decayed_sums_cost(x[0], n, heads, states, width / heads);
  c.macs += tokens * ((width + 2 * states) * reach + width);  // the convolution; D u
  // SiLU behind the convolution and of the gate, the gate, D_t u_t, the norm; D_t and a_t
  c.other += tokens * (4 * (width + 2 * states) + width * (4 + 1 + 1 + 4) + heads * 5);
  return c;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
