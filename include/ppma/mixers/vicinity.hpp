#pragma once
#include "ppma/core/names_begin.hpp"
// Vicinity attention: Sun et al., "Vicinity Vision Transformer", 2022: linear attention
// whose weights fall with the 2-D Manhattan distance.
//
//   y_i = sum over j of s_ij v_j / sum over j of s_ij
//   s_ij = relu(q_i) . relu(k_j) ( cos(pi/2 (r_i - r_j)/H) + cos(pi/2 (c_i - c_j)/W) )
//   out = z + z sigmoid( relu(mean(x) W_1) W_2 ),   z = y W_o
//
// with r and c a token's row and column. Since cos(a - b) = cos a cos b + sin a sin b, s_ij is a
// product of four times as many channels and no N x N array is needed. As in the paper q, k and v
// have half the channels (feature reduction), and what the input's mean says is brought back in the
// last line (feature preserving connection).

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

struct VicinityAttention {
  i64 heads, width;               // G, C / 2
  Linear q_proj, k_proj, v_proj;  // C -> C / 2
  Linear out_proj;                // C / 2 -> C
  Tensor squeeze, excite;         // (C / 2,C), (C,C / 2): W_1, W_2

  PPMA_API VicinityAttention(const MixerConfig& c, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  /// Products with four times the width, and the squeeze of the mean.
  PPMA_API MixerCost cost(const Shape& x) const;
  template <class V>
  void fields(V& v) {
    v.child("q_proj", q_proj), v.child("k_proj", k_proj), v.child("v_proj", v_proj),
        v.child("out_proj", out_proj);
    v.parameter("squeeze", squeeze), v.parameter("excite", excite);
  }
};

namespace detail {

// Cosines and sines of a quarter turn over the rows, and over the columns, of a grid of so many:
// (N,4), like what they turn.
PPMA_API Tensor quarter_turns(i64 rows, i64 columns, DType dtype, Device device);

// t (B,G,N,d) times each of them: (B,G,N,4d)
PPMA_API Tensor turned(const Tensor& t, const Tensor& turns);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include <cmath>
#include <vector>

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/tensor/constant.hpp"

namespace ppma::inline PPMA_ABI {

VicinityAttention::VicinityAttention(const MixerConfig& c, Rng& rng)
    : heads(c.heads),
      width(c.channels / 2),
      q_proj(c.channels, width, rng),
      k_proj(c.channels, width, rng),
      v_proj(c.channels, width, rng),
      out_proj(width, c.channels, rng),
      squeeze(parameter(truncated_normal({width, c.channels}, rng))),
      excite(parameter(truncated_normal({c.channels, width}, rng))) {}

Tensor detail::quarter_turns(i64 rows, i64 columns, DType dtype, Device device) {
  return kept_constant(str("quarter turns ", columns), {rows * columns, 4}, dtype, device, [&] {
    std::vector<double> turns;
    for (i64 t = 0; t < rows * columns; ++t)
      for (const double at :
           {double(t / columns) / double(rows), double(t % columns) / double(columns)}) {
        const double turn = std::acos(0.0) * at;
        turns.push_back(std::cos(turn)), turns.push_back(std::sin(turn));
      }
    return turns;
  });
}

Tensor detail::turned(const Tensor& t, const Tensor& turns) {
  const i64 batch = t.dim(0), heads = t.dim(1), n = t.dim(2), d = t.dim(3);
  return reshape(reshape(t, Shape{batch, heads, n, 1, d}) * reshape(turns, Shape{n, 4, 1}),
                 Shape{batch, heads, n, 4 * d});
}

Tensor VicinityAttention::forward(const Tensor& x) const {
  const i64 batch = x.dim(0), height = x.dim(1), columns = x.dim(2), n = height * columns;
  const Tensor turns =
      detail::quarter_turns(height, columns, accumulator_dtype(x.dtype()), x.device());
  const auto by_head = [&](const Linear& l) {  // (B,G,N,d)
    return permute(reshape(detail::wide(l.forward(x)), Shape{batch, n, heads, width / heads}),
                   {0, 2, 1, 3});
  };
  const Tensor q = detail::turned(relu(by_head(q_proj)), turns),
               k = detail::turned(relu(by_head(k_proj)), turns);
  const Tensor sums = matmul(q, matmul(k, by_head(v_proj), true, false));  // (B,G,N,d)
  const Tensor weights = matmul(q, sum(k, {2}, true), false, true);        // (B,G,N,1)
  const Tensor y = detail::beside(x, permute(div(sums, add_scalar(weights, 1e-4)), {0, 2, 1, 3}));
  const Tensor z = out_proj.forward(reshape(y, Shape{batch, height, columns, width}));
  const Tensor said = sigmoid(linear(relu(linear(mean(x, {1, 2}, true), squeeze)), excite));
  return z + z * said;
}

MixerCost VicinityAttention::cost(const Shape& x) const {
  const i64 tokens = x[0] * x[1] * x[2], d = width / heads;
  // k v^T, q (k v^T), q . sum of k; the squeeze and its excitation
  return {tokens * 4 * width * (2 * d + 1) + 2 * x[0] * x[3] * width,
          tokens * (2 * width + 12 * width + width + 3 * x[3])};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
