#pragma once
#include "ppma/core/names_begin.hpp"
// The residual connection in one pass: y = x + keep[b] * gamma[c] * a, with layer scale (gamma) and
// drop path (keep).

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// y (B,...,C) = x (B,...,C) + keep (B) * gamma (C) * a (B,...,C); gamma and keep may be undefined
/// (ones); gamma may have axes of size 1 in front. keep holds 0 or 1 / (1 - rate) for each sample
/// and gets no gradient. Differentiable in x, a and gamma. Errors: shapes or dtypes that do not
/// fit.
PPMA_API Tensor residual(const Tensor& x, const Tensor& a, const Tensor& gamma = Tensor(),
                         const Tensor& keep = Tensor());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_PRODUCTS)

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/columns.hpp"
#include "ppma/kernels/cpu/reduce.hpp"
#include "ppma/kernels/cpu/residual.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor residual(const Tensor& x, const Tensor& a, const Tensor& gamma, const Tensor& keep) {
  check(x.defined() && a.defined(), "residual: x or a is undefined");
  check(x.rank() >= 2 && a.shape() == x.shape(), "residual: x ", x.shape(), " and a ", a.shape(),
        " must have one shape (B,...,C)");
  check(!gamma.defined() ||
            (gamma.rank() >= 1 && gamma.dim(-1) == x.dim(-1) && gamma.numel() == x.dim(-1)),
        "residual: gamma must be (", x.dim(-1), ") or (1,...,", x.dim(-1), "), got ",
        gamma.shape());
  check(!keep.defined() || keep.shape() == Shape{x.dim(0)}, "residual: keep must be (", x.dim(0),
        "), got ", keep.shape());
  const DType wide = accumulator_dtype(x.dtype());
  check(a.dtype() == x.dtype() && (!gamma.defined() || gamma.dtype() == wide) &&
            (!keep.defined() || keep.dtype() == wide),
        "residual: x is ", x.dtype(), ", a is ", a.dtype(),
        "; x, a, gamma and keep must have one dtype (gamma and keep f32 beside bf16)");
  const i64 batch = x.dim(0), cols = x.dim(-1), rows = x.shape().product(1, x.rank() - 1);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.numel() > 0)
    visit(x.device(), x.dtype(), "residual", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::residual(on, batch, rows, cols, x.data<T>(), a.data<T>(),
                        gamma.defined() ? gamma.data<acc_t<T>>() : nullptr,
                        keep.defined() ? keep.data<acc_t<T>>() : nullptr, y.data<T>());
    });
  const bool need_a = a.requires_grad(), need_gamma = gamma.requires_grad();
  const Tensor saved_a = need_gamma ? a.detach() : Tensor();
  return record(y, "residual", {x, a, gamma},
                [a = saved_a, gamma = gamma.detach(), keep = keep.detach(), batch, rows, cols,
                 need_a, need_gamma](const Tensor& dy) {
                  // y = x + keep gamma a:  dx = dy,  da = keep gamma dy,
                  //         dgamma = sum over rows of keep a dy
                  Tensor da, dgamma;
                  const bool plain = !gamma.defined() && !keep.defined();
                  if (need_a) da = plain ? dy : Tensor::empty(dy.shape(), dy.dtype(), dy.device());
                  if (need_gamma) dgamma = Tensor::empty(gamma.shape(), gamma.dtype(), dy.device());
                  visit(dy.device(), dy.dtype(), "residual", [&](auto on, auto t) {
                    using T = decltype(t);
                    const acc_t<T>* const k = keep.defined() ? keep.data<acc_t<T>>() : nullptr;
                    if (need_a && !plain)
                      kernels::residual(
                          on, batch, rows, cols, static_cast<const T*>(nullptr), dy.data<T>(),
                          gamma.defined() ? gamma.data<acc_t<T>>() : nullptr, k, da.data<T>());
                    if (need_gamma)
                      kernels::residual_dgamma(on, batch, rows, cols, a.data<T>(), k, dy.data<T>(),
                                               dgamma.data<acc_t<T>>());
                  });
                  return Grads{dy, da, dgamma};
                });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
