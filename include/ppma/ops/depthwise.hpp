#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution with stride 1 and "same" zero padding, and an addition in the same pass:
//   y = conv(x) + b + add.  With add = x it is the network's position encoding x + pos(x).

#include <functional>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// y (B,H,W,C) of x (B,H,W,C), w (C,1,k,k) with odd k, b (C) or undefined, add (B,H,W,C), x itself,
/// or undefined.
/// Differentiable in all four. Errors: ranks, an even or non-square kernel, channels or dtypes that
/// differ.
PPMA_API Tensor depthwise_conv2d(const Tensor& x, const Tensor& w, const Tensor& b = Tensor(),
                                 const Tensor& add = Tensor());

/// The same with add() for `add`, called on the way: the convolution's part of x's gradient is
/// found after what add() made of x has given its own, and is added to that in the same pass.
PPMA_API Tensor depthwise_conv2d(const Tensor& x, const Tensor& w, const Tensor& b,
                                 const std::function<Tensor()>& add);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_DEPTHWISE)

#include "ppma/kernels/cpu/depthwise.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline kernels::DepthwiseShape check_depthwise(const Tensor& x, const Tensor& w, const Tensor& b) {
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
  const DType wide = accumulator_dtype(x.dtype());
  check(w.dtype() == wide && (!b.defined() || b.dtype() == wide), "depthwise_conv2d: x is ",
        x.dtype(), ", w is ", w.dtype(),
        "; x, w, b and add must have one dtype (beside bf16 x and add, w and b are f32)");
  check(w.device() == x.device() && (!b.defined() || b.device() == x.device()),
        "depthwise_conv2d: x is on ", x.device(), ", w, b or add is not; move them with .to()");
  return {x.dim(0), x.dim(1), x.dim(2), x.dim(3), w.dim(2)};
}

inline void check_added(const Tensor& x, const Tensor& add) {
  check(!add.defined() || add.shape() == x.shape(), "depthwise_conv2d: add ", add.shape(),
        " must have the shape of x ", x.shape());
  check(!add.defined() || add.dtype() == x.dtype(), "depthwise_conv2d: x is ", x.dtype(),
        ", add is ", add.dtype(),
        "; x, w, b and add must have one dtype (beside bf16 x and add, w "
        "and b are f32)");
  check(!add.defined() || add.device() == x.device(), "depthwise_conv2d: x is on ", x.device(),
        ", w, b or add is not; move them with .to()");
}

// to = convolution of x with the weights, turned by half a turn for the gradient of x.
inline void convolve_depthwise(const kernels::DepthwiseShape& shape, const Tensor& x,
                               const Tensor& weight, bool turned, const Tensor& bias,
                               const Tensor& plus, Tensor& to) {
  visit(x.device(), x.dtype(), "depthwise_conv2d", [&](auto on, auto t) {
    using T = decltype(t);
    using A = acc_t<T>;
    kernels::depthwise(on, shape, x.data<T>(), weight.data<A>(), turned,
                       bias.defined() ? bias.data<A>() : nullptr,
                       plus.defined() ? plus.data<T>() : nullptr, to.data<T>());
  });
}

// What gives the gradients of x, w and b. `same`: x was added, dy is a part of its gradient too.
inline auto depthwise_closure(const Tensor& x, const Tensor& w, const Tensor& b,
                              const kernels::DepthwiseShape& shape, bool same) {
  const bool need_x = x.requires_grad(), need_w = w.requires_grad() || b.requires_grad();
  const Saved saved_x = need_w ? Saved(x) : Saved();
  return [saved_x, w = w.detach(), shape, need_x, need_w, same](const Tensor& dy) {
    const auto like = [](const Tensor& t) {
      return Tensor::empty(t.shape(), t.dtype(), t.device());
    };
    Tensor dx, dw, db;
    // what others gave
    const Tensor before = need_x && !same ? gradient_so_far(0) : Tensor();
    if (need_w) dw = like(w), db = Tensor::empty({shape.c}, w.dtype(), w.device());
    // y[p] = sum over o of x[p + o] w[o]:  dx[q] = sum over o of dy[q - o] w[o]
    // dw[o] = sum over p of dy[p] x[p + o],  db = sum over p of dy[p]
    const Tensor kept = need_w ? saved_x.get() : Tensor();
#if PPMA_CUDA
    if (need_x && need_w && dy.device() == Device::cuda && dy.dtype() == DType::bf16 &&
        kernels::differentiates_depthwise<bf16>(shape)) {
      dx = before.defined() ? before : like(dy);
      kernels::depthwise_gradients(Cuda{}, shape, kept.data<bf16>(), dy.data<bf16>(),
                                   w.data<float>(), same, before.defined(), dx.data<bf16>(),
                                   dw.data<float>(), db.data<float>());
      return Grads{dx, dw, db};
    }
#endif
    if (need_x) {
      dx = like(dy);
      convolve_depthwise(shape, dy, w, true, Tensor(), same ? dy : before, dx);
    }
    if (need_w)
      visit(dy.device(), dy.dtype(), "depthwise_conv2d", [&](auto on, auto t) {
        using T = decltype(t);
        kernels::depthwise_dw(on, shape, kept.data<T>(), dy.data<T>(), dw.data<acc_t<T>>(),
                              db.data<acc_t<T>>());
      });
    return Grads{dx, dw, db};
  };
}

}  // namespace detail

Tensor depthwise_conv2d(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& add) {
  const kernels::DepthwiseShape shape = detail::check_depthwise(x, w, b);
  detail::check_added(x, add);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());  // (B,H,W,C)
  detail::convolve_depthwise(shape, x, w, false, b, add, y);
  // Where add is x, its gradient dy is added in the pass that computes dx.
  const bool same = add.defined() && x.requires_grad() && add.info() == x.info();
  return record(y, "depthwise_conv2d", {x, w, b, add},
                [back = detail::depthwise_closure(x, w, b, shape, same), same](const Tensor& dy) {
                  Grads d = back(dy);
                  d.push_back(same ? Tensor() : dy);
                  return d;
                });
}

Tensor depthwise_conv2d(const Tensor& x, const Tensor& w, const Tensor& b,
                        const std::function<Tensor()>& add) {
  if (!needs_grad({x, w, b})) return depthwise_conv2d(x, w, b, add());
  const kernels::DepthwiseShape shape = detail::check_depthwise(x, w, b);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());  // (B,H,W,C)
  // The convolution's part, older than what add() records, whose elements nobody reads.
  const Tensor part = record(y.detach(), "depthwise_conv2d", {x, w, b},
                             detail::depthwise_closure(x, w, b, shape, false));
  const Tensor added = add();
  detail::check_added(x, added);
  detail::convolve_depthwise(shape, x, w, false, b, added, y);
  return record(y, "depthwise_conv2d", {part, added}, [](const Tensor& dy) {
    return Grads{dy, dy};
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
