#pragma once
// retnet once more, in f64, with each result rounded to bf16 where a network of bf16 tokens writes
// it, and its gradient likewise: what that rounding alone does to what cancels.

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "mixers/help.hpp"
#include "ppma/mixers/retnet.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/decayed_sums.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/ops/rotary.hpp"

namespace mixers_test {

/// What a result passes through: rounding, or nothing.
using Written = std::function<Tensor(const Tensor&)>;
inline Tensor in_bf16(const Tensor& t) { return cast(cast(t, DType::bf16), t.dtype()); }
inline Tensor as_it_is(const Tensor& t) { return t; }

inline Tensor written(const Retention& m, const Tensor& x, const Written& w) {
  const i64 batch = x.dim(0), n = x.dim(1) * x.dim(2), d = x.dim(3) / m.heads;
  const auto of = [&](const Linear& l, const Tensor& t) {
    return w(linear(t, w(l.weight), l.bias));
  };
  const auto split = [&](const Tensor& t) { return reshape(t, Shape{batch, n, m.heads, d}); };
  const Rotated turned = rotary(of(m.q_proj, x), of(m.k_proj, x), m.angle, m.heads,
                                1 / std::sqrt(static_cast<double>(d)));
  const Tensor y = decayed_sums(split(w(turned.q)), split(w(turned.k)), split(of(m.v_proj, x)),
                                broadcast_to(m.decay, {batch, n, m.heads}));
  const Tensor ones = Tensor::full({d}, 1, y.dtype()), normed = layer_norm(y, ones, 0 * ones, 1e-6);
  const Tensor affine = w(reshape(normed, x.shape()) * m.norm_weight + m.norm_bias);
  return of(m.out_proj, w(w(silu(of(m.g_proj, x))) * affine));
}

/// Of the mixer whose parameters are in[1], in[2], ... in their order, of tokens in[0].
inline Tensor written(const MixerConfig& c, const std::vector<Tensor>& in, const Written& w) {
  Rng rng(1);
  Retention m(c, rng);
  to(m, DType::f64);
  std::size_t n = 1;
  for_each_field(m, [&](const std::string&, Tensor& t, Kind kind) {
    if (kind == Kind::parameter) t = in[n++];
  });
  return written(m, in[0], w);
}

}  // namespace mixers_test
