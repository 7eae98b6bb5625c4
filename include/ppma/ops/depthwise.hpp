#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution with stride 1 and "same" zero padding, and an addition in the same pass:
//   y = conv(x) + b + add.  With add = x it is the network's position encoding x + pos(x).

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// y (B,H,W,C) of x (B,H,W,C), w (C,1,k,k) with odd k, b (C) or undefined, add (B,H,W,C), x itself,
/// or undefined.
/// Differentiable in all four. Errors: ranks, an even or non-square kernel, channels or dtypes that
/// differ.
PPMA_API Tensor depthwise_conv2d(const Tensor& x, const Tensor& w, const Tensor& b = Tensor(),
                                 const Tensor& add = Tensor());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_DEPTHWISE)

#include "ppma/kernels/cpu/depthwise.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor depthwise_conv2d(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& add) {
  check(x.defined() && w.defined(), "depthwise_conv2d: x or w is undefined");
  check(x.rank() == 4, "depthwise_conv2d: x must be (B,H,W,C), got ", x.shape());
  check(x.numel() > 0, "depthwise_conv2d: x must have elements, got ", x.shape());
  check(w.rank() == 4 && w.dim(0) == x.dim(3) && w.dim(1) == 1,
        "depthwise_conv2d: w must be (C,1,k,k) with the ", x.dim(3), " channels of x, got ",
        w.shape());
  check(w.dim(2) == w.dim(3) && w.dim(2) % 2 == 1,
        "depthwise_conv2d: the kernel must be square and odd, got w ", w.shape(),
        "; conv2d with groups takes others");
  check(!b.defined() || b.shape() == Shape{x.dim(3)}, "depthwise_conv2d: b must be (", x.dim(3),
        "), got ", b.shape());
  check(!add.defined() || add.shape() == x.shape(), "depthwise_conv2d: add ", add.shape(),
        " must have the shape of x ", x.shape());
  const DType wide = accumulator_dtype(x.dtype());
  check(w.dtype() == wide && (!b.defined() || b.dtype() == wide) &&
            (!add.defined() || add.dtype() == x.dtype()),
        "depthwise_conv2d: x is ", x.dtype(), ", w is ", w.dtype(),
        "; x, w, b and add must have one dtype (beside bf16 x and add, w and b are f32)");
  check(w.device() == x.device() && (!b.defined() || b.device() == x.device()) &&
            (!add.defined() || add.device() == x.device()),
        "depthwise_conv2d: x is on ", x.device(), ", w, b or add is not; move them with .to()");
  const kernels::DepthwiseShape shape{x.dim(0), x.dim(1), x.dim(2), x.dim(3), w.dim(2)};
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());  // (B,H,W,C)
  // dst = convolution of src with the weights, turned by half a turn for the gradient of x.
  const auto run = [shape](const Tensor& src, const Tensor& weight, bool turned, const Tensor& bias,
                           const Tensor& plus, Tensor& dst) {
    visit(src.device(), src.dtype(), "depthwise_conv2d", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      kernels::depthwise(on, shape, src.data<T>(), weight.data<A>(), turned,
                         bias.defined() ? bias.data<A>() : nullptr,
                         plus.defined() ? plus.data<T>() : nullptr, dst.data<T>());
    });
  };
  run(x, w, false, b, add, y);

  const bool need_x = x.requires_grad(), need_w = w.requires_grad() || b.requires_grad();
  // Where add is x, its gradient dy is added in the pass that computes dx.
  const bool adds_x = add.defined() && need_x && add.info() == x.info();
  const Saved saved_x = need_w ? Saved(x) : Saved();
  return record(y, "depthwise_conv2d", {x, w, b, add},
                [saved_x, w = w.detach(), shape, run, need_x, need_w, adds_x](const Tensor& dy) {
                  Tensor dx, dw, db;
                  // y[p] = sum over o of x[p + o] w[o]:  dx[q] = sum over o of dy[q - o] w[o]
                  if (need_x) {
                    dx = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
                    run(dy, w, true, Tensor(), adds_x ? dy : Tensor(), dx);
                  }
                  // dw[o] = sum over p of dy[p] x[p + o],  db = sum over p of dy[p]
                  if (need_w) {
                    const Tensor kept = saved_x.get();
                    dw = Tensor::empty(w.shape(), w.dtype(), w.device());
                    db = Tensor::empty({shape.c}, w.dtype(), w.device());
                    visit(dy.device(), dy.dtype(), "depthwise_conv2d", [&](auto on, auto t) {
                      using T = decltype(t);
                      kernels::depthwise_dw(on, shape, kept.data<T>(), dy.data<T>(),
                                            dw.data<acc_t<T>>(), db.data<acc_t<T>>());
                    });
                  }
                  return Grads{dx, dw, db, adds_x ? Tensor() : dy};
                });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
