#pragma once
// The affine map of the last axis: y = x w^T + b.

#include "ppma/kernels/gemm.hpp"
#include "ppma/kernels/reduce.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

/// y (..., out) = x (..., in) w^T + b for w (out, in) and b (out) or undefined. Differentiable in all three.
/// Errors: widths, shapes or dtypes that do not fit.
inline Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b = Tensor()) {
  check(x.defined() && w.defined(), "linear: x or w is undefined");
  check(w.rank() == 2, "linear: w must be (out, in), got ", w.shape());
  check(x.rank() >= 1 && x.dim(-1) == w.dim(1), "linear: x ", x.shape(), " must end in the ", w.dim(1),
        " inputs of w ", w.shape());
  check(!b.defined() || b.shape() == Shape{w.dim(0)}, "linear: b must be (", w.dim(0), "), got ", b.shape());
  check(x.dtype() == w.dtype() && (!b.defined() || b.dtype() == w.dtype()), "linear: x is ", x.dtype(), ", w is ",
        w.dtype(), "; x, w and b must have one dtype");
  const i64 in = w.dim(1), out = w.dim(0), rows = in > 0 ? x.numel() / in : x.shape().product(0, x.rank() - 1);
  Shape shape = x.shape();
  shape.set(-1, out);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());  // (..., out)
  visit(x.device(), x.dtype(), "linear", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::Gemm<T> g;
    g.m = rows, g.n = out, g.k = in;
    g.a = x.data<T>(), g.lda = in;
    g.b = w.data<T>(), g.ldb = in, g.tb = true;
    g.c = y.data<T>(), g.ldc = out;
    g.bias = b.defined() ? b.data<T>() : nullptr;
    kernels::gemm(on, g);
  });

  const bool need_x = x.requires_grad(), need_w = w.requires_grad(), need_b = b.requires_grad();
  const Tensor saved_x = need_w ? x.detach() : Tensor(), saved_w = need_x ? w.detach() : Tensor();
  return record(y, "linear", {x, w, b}, [x = saved_x, w = saved_w, x_shape = x.shape(), rows, in, out, need_x, need_w, need_b](const Tensor& dy) {
    Tensor dx, dw, db;
    visit(dy.device(), dy.dtype(), "linear", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::Gemm<T> g;
      if (need_x) {  // y = x w^T:  dx = dy w
        dx = Tensor::empty(x_shape, dy.dtype(), dy.device());
        g.m = rows, g.n = in, g.k = out;
        g.a = dy.data<T>(), g.lda = out;
        g.b = w.data<T>(), g.ldb = in;
        g.c = dx.data<T>(), g.ldc = in;
        kernels::gemm(on, g);
      }
      if (need_w) {  // y = x w^T:  dw = dy^T x
        dw = Tensor::empty({out, in}, dy.dtype(), dy.device());
        g = {};
        g.m = out, g.n = in, g.k = rows;
        g.a = dy.data<T>(), g.lda = out, g.ta = true;
        g.b = x.data<T>(), g.ldb = in;
        g.c = dw.data<T>(), g.ldc = in;
        kernels::gemm(on, g);
      }
      if (need_b) {  // y = ... + b:  db = sum of dy over rows
        db = Tensor::empty({out}, dy.dtype(), dy.device());
        kernels::sum_rows(on, rows, out, dy.data<T>(), db.data<T>());
      }
    });
    return Grads{dx, dw, db};
  });
}

}  // namespace ppma::inline PPMA_ABI
