#pragma once
#include "ppma/core/names_begin.hpp"
// Decay factors (algorithm 1.2): what each step of a polyline path costs, chosen by the image
// itself.
//
// Legend: B batch, H W grid, N = H W tokens, G heads, d head width, C = G d channels.
// alpha[i,j] in (0,1] is the decay of the horizontal edge (i,j-1)-(i,j), beta[i,j] that of the
// vertical edge (i-1,j)-(i,j). Both come from the block's normalised input x, not from q or k:
//
//   (1)  z[r,g,i,j] = sum_c w[r,c] x[i,j, g d + c]       r = 0: alpha, r = 1: beta; w is
//                                                        shared by all heads
//   (2)  s = softplus(z + b[g]) = ln(1 + e^(z + b))      b = dt_bias: how much decay
//                                                        without evidence
//   (3)  A[g] = e^A_log[g] > 0
//   (4)  ln alpha = -A s[0],  ln beta = -A s[1]          <= 0; everything
//                                                        downstream works with these logs
//
// Backward, with u = dL/d(ln decay):   (4) dA_log = sum u ln decay
//         (2) dz = -A sigmoid(z + b) u,  db = sum dz
//                                      (1) dw[r] = sum dz[r] x_head,  dx_head = sum_r dz[r] w[r]
// Neither z nor s is kept: s = -ln decay / A, and sigmoid(z + b) = 1 - e^-s.
// A decay of 0 (ln decay = -infinity) closes its edge: nothing passes, u is 0, and 0 (-infinity)
// counts for 0.

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {
PPMA_API kernels::DecayShape check_log_decay(const char* op, const Tensor& x, const Tensor& weight,
                                             const Tensor& bias, const Tensor& a_log);
}  // namespace detail

/// The log decays of all edges, (2,B,G,H,W) or (1,B,G,H,W) (polyline/types.hpp), in one pass over x
/// forward and one backward.
/// Beside a bf16 x the parameters and the result are f32.
///   x          (B,H,W,C), the normalised input of the attention
///   dt_weight  (2,d): row 0 for alpha, row 1 for beta; or (1,d): alpha = beta
///   dt_bias, A_log  (G)
///   values     the result, where it was computed with x: not computed again
/// A decay that the dtype rounds to 0 is closed: its logarithm -infinity, and no NaN comes of that
/// in gradients.
/// Differentiable in all but the values. Source: the published network; Mamba2's dt and A (Dao and
/// Gu, 2024).
PPMA_API Tensor log_decay(const Tensor& x, const Tensor& dt_weight, const Tensor& dt_bias,
                          const Tensor& A_log, const Tensor& values = Tensor());

/// log_decay written with the library's operations, step by step: what the fused one is tested
/// against.
PPMA_API Tensor log_decay_composed(const Tensor& x, const Tensor& dt_weight, const Tensor& dt_bias,
                                   const Tensor& A_log);

/// RMT's constant decays (algorithm 2.5): log decay of each head n, (G):
/// ln(1 - 2^(-initial - range n / G)).
PPMA_API Tensor rmt_decay_log(i64 heads, double initial, double range, DType dtype = DType::f32);

/// The same log decay on every edge, (1,B,G,H,W), from decay_log (G): what gives the polyline mask
/// RMT's Manhattan form.
PPMA_API Tensor constant_log_decay(const Tensor& decay_log, i64 batch, i64 height, i64 width);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include <cmath>
#include <vector>

#include "ppma/kernels/cpu/decay.hpp"
#include "ppma/kernels/cpu/transpose.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

kernels::DecayShape check_log_decay(const char* op, const Tensor& x, const Tensor& weight,
                                    const Tensor& bias, const Tensor& a_log) {
  check(x.defined() && x.rank() == 4, op, ": x must be (B,H,W,C), got ", x.shape());
  check(bias.defined() && a_log.defined() && bias.rank() == 1 && bias.shape() == a_log.shape(), op,
        ": dt_bias and A_log must both be (G), one number a head, got ", bias.shape(), " and ",
        a_log.shape());
  const i64 heads = bias.dim(0);
  check(heads > 0 && x.dim(3) % heads == 0, op, ": ", x.dim(3), " channels do not divide into ",
        heads, " heads");
  const i64 width = x.dim(3) / heads;
  check(weight.defined() && weight.rank() == 2 && (weight.dim(0) == 1 || weight.dim(0) == 2) &&
            weight.dim(1) == width,
        op, ": dt_weight must be (2,", width, ") for alpha and beta, or (1,", width,
        ") for one shared decay; got ", weight.shape());
  const DType wide = accumulator_dtype(x.dtype());
  check(weight.dtype() == wide && bias.dtype() == wide && a_log.dtype() == wide, op, ": x is ",
        x.dtype(), ", the parameters are ", weight.dtype(), ", ", bias.dtype(), " and ",
        a_log.dtype());
  return {x.dim(0), x.dim(1) * x.dim(2), heads, width, weight.dim(0)};
}

}  // namespace detail

Tensor log_decay(const Tensor& x, const Tensor& dt_weight, const Tensor& dt_bias,
                 const Tensor& A_log, const Tensor& values) {
  const auto s = detail::check_log_decay("log_decay", x, dt_weight, dt_bias, A_log);
  const Shape shape{s.rows, s.batch, s.heads, x.dim(1), x.dim(2)};
  check(!values.defined() || values.shape() == shape, "log_decay: the values must be ", shape,
        ", got ", values.shape());
  Tensor y =
      values.defined() ? values : Tensor::empty(shape, accumulator_dtype(x.dtype()), x.device());
  if (y.numel() > 0 && !values.defined())
    visit(x.device(), x.dtype(), "log_decay", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      kernels::log_decay(on, s, x.data<T>(), dt_weight.data<A>(), dt_bias.data<A>(),
                         A_log.data<A>(), y.data<A>());
    });
  return record(y, "log_decay", {x, dt_weight, dt_bias, A_log},
                [s, saved_x = Saved(x), w = dt_weight.detach(), a = A_log.detach(),
                 y = y.detach()](const Tensor& dy) {
                  const auto like = [](const Tensor& t) {
                    return Tensor::empty(t.shape(), t.dtype(), t.device());
                  };
                  const Tensor kept = saved_x.get();
                  Tensor dx = like(kept), dw = like(w), db = like(a), da = like(a);
                  visit(kept.device(), kept.dtype(), "log_decay", [&](auto on, auto t) {
                    using T = decltype(t);
                    using A = acc_t<T>;
                    kernels::log_decay_backward(on, s, kept.data<T>(), w.data<A>(), a.data<A>(),
                                                y.data<A>(), dy.data<A>(), dx.data<T>(),
                                                dw.data<A>(), db.data<A>(), da.data<A>());
                  });
                  return Grads{dx, dw, db, da};
                });
}

Tensor log_decay_composed(const Tensor& x, const Tensor& dt_weight, const Tensor& dt_bias,
                          const Tensor& A_log) {
  const auto s = detail::check_log_decay("log_decay_composed", x, dt_weight, dt_bias, A_log);
  const Shape per_head{s.heads, 1};
  // (B,N,G,d)
  const Tensor heads = reshape(x, {s.batch, s.tokens, s.heads, s.width});
  // (B,N,G,rows)
  const Tensor z = matmul(heads, dt_weight, false, true);
  // (B,N,G,rows)
  const Tensor step = softplus(z + reshape(dt_bias, per_head));
  // (rows,B,G,N)
  const Tensor y = permute(neg(exp(reshape(A_log, per_head))) * step, {3, 0, 2, 1});
  return reshape(y, {s.rows, s.batch, s.heads, x.dim(1), x.dim(2)});
}

Tensor rmt_decay_log(i64 heads, double initial, double range, DType dtype) {
  check(heads > 0 && initial > 0 && range >= 0,
        "rmt_decay_log: needs heads, initial > 0 and range >= 0, got ", heads, ", ", initial,
        " and ", range);
  std::vector<double> log_decay;
  for (i64 n = 0; n < heads; ++n)
    log_decay.push_back(std::log1p(
        -std::exp2(-initial - range * static_cast<double>(n) / static_cast<double>(heads))));
  return cast(Tensor::from<double>(log_decay, {heads}), dtype);
}

Tensor constant_log_decay(const Tensor& decay_log, i64 batch, i64 height, i64 width) {
  check(decay_log.defined() && decay_log.rank() == 1,
        "constant_log_decay: decay_log must be (G), got ", decay_log.shape());
  const i64 heads = decay_log.dim(0);
  return broadcast_to(reshape(decay_log, {heads, i64{1}, i64{1}}),
                      {1, batch, heads, height, width});
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
