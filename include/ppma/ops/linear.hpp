#pragma once
#include "ppma/core/names_begin.hpp"
// The affine map of the last axis: y = x w^T + b.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// y (..., out) = x (..., in) w^T + b for w (out, in) and b (out) or undefined. Differentiable in
/// all three.
/// Beside bf16 x, w may be f32 and b is f32. With `add` (..., out): y = add + x w^T + b, in the
/// product's own pass on the GPU. Errors: widths, shapes, dtypes or devices that do not fit.
PPMA_API Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b = Tensor(),
                       const Tensor& add = Tensor());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_PRODUCTS)

#include "ppma/kernels/cpu/column_sums.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/ops/residual.hpp"
#include "ppma/ops/weights.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& add) {
  if (add.defined() && (add.device() == Device::cpu || needs_grad({x, w, b, add})))
    return residual(add, linear(x, w, b));
  check(x.defined() && w.defined(), "linear: x or w is undefined");
  check(w.rank() == 2, "linear: w must be (out, in), got ", w.shape());
  check(x.rank() >= 1 && x.dim(-1) == w.dim(1), "linear: x ", x.shape(), " must end in the ",
        w.dim(1), " inputs of w ", w.shape());
  check(!b.defined() || b.shape() == Shape{w.dim(0)}, "linear: b must be (", w.dim(0), "), got ",
        b.shape());
  detail::check_weights("linear", x, w, b);
  const i64 in = w.dim(1), out = w.dim(0),
            rows = in > 0 ? x.numel() / in : x.shape().product(0, x.rank() - 1);
  Shape shape = x.shape();
  shape.set(-1, out);
  check(!add.defined() ||
            (add.shape() == shape && add.dtype() == x.dtype() && add.device() == x.device()),
        "linear: add is ",
        add.defined() ? str(add.shape(), " ", add.dtype(), " on ", add.device()) : "",
        ", the result ", shape, " ", x.dtype(), " on ", x.device());
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());  // (..., out)
  const Tensor factor = detail::converted_weights(w, x.dtype()),
               shift = detail::converted_weights(b, x.dtype());
  visit(x.device(), x.dtype(), "linear", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::Gemm<T> g;
    g.m = rows, g.n = out, g.k = in;
    g.a = x.data<T>(), g.lda = in;
    g.b = factor.data<T>(), g.ldb = in, g.tb = true;
    g.c = y.data<T>(), g.ldc = out;
    g.bias = shift.defined() ? shift.data<T>() : nullptr;
    g.add = add.defined() ? add.data<T>() : nullptr;
    kernels::gemm(on, g);
  });

  const bool need_x = x.requires_grad(), need_w = w.requires_grad(), need_b = b.requires_grad();
  const Saved saved_x = need_w ? Saved(x) : Saved();
  const Tensor saved_w = need_x ? factor : Tensor();
  return record(y, "linear", {x, w, b},
                [saved_x, w = saved_w, x_shape = x.shape(), w_dtype = w.dtype(), rows, in, out,
                 need_x, need_w, need_b](const Tensor& dy) {
                  Tensor dx, dw, db;
                  visit(dy.device(), dy.dtype(), "linear", [&](auto on, auto t) {
                    using T = decltype(t);
                    kernels::Gemm<T> g;
                    if (need_x) {               // y = x w^T:  dx = dy w
                      dx = gradient_so_far(0);  // of several products of one x each adds its part
                      g.accumulate = dx.defined();
                      if (!dx.defined()) dx = Tensor::empty(x_shape, dy.dtype(), dy.device());
                      g.m = rows, g.n = in, g.k = out;
                      g.a = dy.data<T>(), g.lda = out;
                      g.b = w.data<T>(), g.ldb = in;
                      g.c = dx.data<T>(), g.ldc = in;
                      kernels::gemm(on, g);
                    }
                    // y = x w^T:  dw = dy^T x
                    if (need_w) {
                      const Tensor kept = saved_x.get();
                      dw = detail::weight_gradient(on, rows, out, in, dy.data<T>(), kept.data<T>(),
                                                   {out, in}, w_dtype);
                    }
                    if (need_b) {  // y = ... + b:  db = sum of dy over rows
                      db = Tensor::empty({out}, accumulator_dtype(dy.dtype()), dy.device());
                      kernels::column_sums(on, rows, out, dy.data<T>(), db.data<acc_t<T>>());
                    }
                  });
                  return Grads{dx, dw, db};
                });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
