#pragma once
#include "ppma/core/names_begin.hpp"
// Bi-level routing attention: Zhu et al., "BiFormer", 2023, section 3.2 and algorithm 1. The grid
// is cut into regions; each looks for those that answer it best, and its tokens attend to all
// tokens of these.
//
//   A = q_r k_r^T                    q_r, k_r: means of q and k over the tokens of a region
//   y = softmax( q k_g^T / sqrt(d) ) v_g      k_g, v_g: of the regions with the k largest A
//   out = ( y + DWConv5x5(v) ) W_o
//
// k is 1, 4, 16 and all in the four stages, as in the paper. A grid has up to 7 x 7 regions, on
// each axis as many as divide it. Which regions are taken has no gradient.

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

struct RoutedAttention {
  i64 heads, most;  // regions that a region attends to, at most
  Linear qkv;       // C -> 3 C
  DepthwiseConv2d lepe;
  Linear out_proj;

  PPMA_API RoutedAttention(const MixerConfig& c, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  /// Answers of regions, both products, means and softmaxes.
  PPMA_API MixerCost cost(const Shape& x) const;
  template <class V>
  void fields(V& v) {
    v.child("qkv", qkv), v.child("lepe", lepe), v.child("out_proj", out_proj);
  }
};

namespace detail {

// Of q, k, v (B,H,W,3C) in rows x columns regions of one size: y (B,H,W,C), q k^T times `factor`.
PPMA_API Tensor routed_sums(const Tensor& qkv, i64 rows, i64 columns, i64 most, i64 heads,
                            double factor);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/gather.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Into how many parts an axis of n tokens is cut.
inline i64 routed_parts(i64 n) {
  i64 parts = std::min<i64>(7, n);
  while (n % parts != 0) --parts;
  return parts;
}

}  // namespace detail

RoutedAttention::RoutedAttention(const MixerConfig& c, Rng& rng)
    : heads(c.heads),
      most(c.stage == 0   ? 1
           : c.stage == 1 ? 4
           : c.stage == 2 ? 16
                          : 49),
      qkv(c.channels, 3 * c.channels, rng),
      lepe(c.channels, 5, rng),
      out_proj(c.channels, c.channels, rng) {}

Tensor detail::routed_sums(const Tensor& qkv, i64 rows, i64 columns, i64 most, i64 heads,
                           double factor) {
  const i64 batch = qkv.dim(0), H = qkv.dim(1), W = qkv.dim(2), C = qkv.dim(3) / 3, d = C / heads,
            regions = rows * columns, n = H * W / regions, taken = std::min(most, regions);
  // Heads in front: a region's rows of one head lie together, as they are gathered and multiplied.
  const auto by_head = [&](i64 which) {  // (B,G,R,n,d)
    const Tensor t = reshape(narrow(qkv, -1, which * C, C),
                             Shape{batch, rows, H / rows, columns, W / columns, heads, d});
    return reshape(permute(t, {0, 5, 1, 3, 2, 4, 6}), Shape{batch, heads, regions, n, d});
  };
  const Tensor q = by_head(0), k = by_head(1), v = by_head(2);
  const auto means = [&](const Tensor& t) {  // of the regions, (B,R,C)
    return reshape(permute(mean(t.detach(), {3}), {0, 2, 1, 3}), Shape{batch, regions, C});
  };
  const Tensor answers = matmul(means(q), means(k), false, true),
               routes = reshape(top_k(answers, taken).detach(), Shape{batch, 1, regions * taken}),
               of_heads =
                   reshape(concat(std::vector<Tensor>(static_cast<std::size_t>(heads), routes), 1),
                           Shape{batch * heads, regions * taken});
  const auto gathered = [&](const Tensor& t) {  // (B,G,R,taken n,d)
    return reshape(gather_rows(reshape(t, Shape{batch * heads, regions, n * d}), of_heads),
                   Shape{batch, heads, regions, taken * n, d});
  };
  const Tensor weights = softmax(matmul(scale(q, factor), gathered(k), false, true));
  const Tensor y = reshape(matmul(weights, gathered(v)),
                           Shape{batch, heads, rows, columns, H / rows, W / columns, d});
  return reshape(permute(y, {0, 2, 4, 3, 5, 1, 6}), Shape{batch, H, W, C});
}

Tensor RoutedAttention::forward(const Tensor& x) const {
  const Tensor all = qkv.forward(x);  // (B,H,W,3C)
  const i64 C = x.dim(3);
  const Tensor y =
      detail::routed_sums(all, detail::routed_parts(x.dim(1)), detail::routed_parts(x.dim(2)), most,
                          heads, 1 / std::sqrt(static_cast<double>(C / heads)));
  return out_proj.forward(lepe.forward(narrow(all, -1, 2 * C, C), y));
}

MixerCost RoutedAttention::cost(const Shape& x) const {
  const i64 regions = detail::routed_parts(x[1]) * detail::routed_parts(x[2]),
            seen = x[1] * x[2] / regions * std::min(most, regions), tokens = x[0] * x[1] * x[2];
  // answers, and both products; means, softmaxes
  return {x[0] * regions * regions * x[3] + 2 * tokens * seen * x[3],
          2 * x.numel() + tokens * seen * heads * 5};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
