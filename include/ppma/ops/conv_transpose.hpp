#pragma once
#include "ppma/core/names_begin.hpp"
// Transposed convolution of channels-last maps: the gradient of conv2d with respect to its image,
// as a layer of its own.

#include "ppma/kernels/args.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// y (B,OH,OW,O) of x (B,H,W,I), w (I,O/groups,kh,kw), b (O) or undefined (both may be f32 beside
/// bf16 x); OH = (H - 1) stride - 2 padding + kh.
/// Differentiable in all three. Errors: ranks, channels, a padding that leaves nothing, a stride
/// beyond the kernel.
PPMA_API Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& b = Tensor(),
                                 const ConvOptions& options = {2, 0, 1});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_CONV)

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/conv_parts.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/weights.hpp"

namespace ppma::inline PPMA_ABI {

Tensor conv_transpose2d(const Tensor& x, const Tensor& w, const Tensor& b,
                        const ConvOptions& options) {
  check(x.defined() && w.defined(), "conv_transpose2d: x or w is undefined");
  check(x.rank() == 4 && x.numel() > 0, "conv_transpose2d: x must be (B,H,W,C) with elements, got ",
        x.shape());
  check(w.rank() == 4 && w.dim(0) == x.dim(3), "conv_transpose2d: w must be (", x.dim(3),
        ",O/groups,kh,kw), got ", w.shape());
  check(w.dtype() == x.dtype() || w.dtype() == accumulator_dtype(x.dtype()),
        "conv_transpose2d: w is ", w.dtype(), ", x is ", x.dtype(),
        "; they must have one dtype (beside bf16, w may be f32)");
  check(options.stride >= 1 && options.padding >= 0 && options.groups >= 1 &&
            x.dim(3) % options.groups == 0,
        "conv_transpose2d: stride ", options.stride, ", padding ", options.padding, ", groups ",
        options.groups);
  const auto size = [&](int axis) {
    return (x.dim(axis) - 1) * options.stride - 2 * options.padding + w.dim(axis + 1);
  };
  check(size(1) >= 1 && size(2) >= 1, "conv_transpose2d: the padding ", options.padding, " leaves ",
        size(1), " x ", size(2), " cells");
  const i64 out = w.dim(1) * options.groups;
  check(!b.defined() || b.shape() == Shape{out}, "conv_transpose2d: b must be (", out, "), got ",
        b.shape());
  Tensor y = Tensor::empty({x.dim(0), size(1), size(2), out}, x.dtype(), x.device());
  const Tensor taps = detail::converted_weights(w, x.dtype());
  visit(x.device(), x.dtype(), "conv_transpose2d", [&](auto on, auto t) {
    using T = decltype(t);
    detail::conv_dx(on, y.shape(), w.shape(), x.shape(), options, taps.data<T>(), x.data<T>(),
                    y.data<T>());
  });
  const bool need_x = x.requires_grad(), need_w = w.requires_grad();
  y = record(y, "conv_transpose2d", {x, w},
             [=, x = x.detach(), w_dtype = w.dtype()](const Tensor& dy) {
               Tensor dx, dw;
               if (need_x) dx = conv2d(dy, taps, Tensor(), options);
               if (need_w)
                 visit(dy.device(), dy.dtype(), "conv_transpose2d", [&](auto on, auto t) {
                   using T = decltype(t);
                   dw = Tensor::empty(taps.shape(), w_dtype, dy.device());
                   const kernels::ConvMap m =
                       detail::conv_map(dy.shape(), taps.shape(), x.shape(), options);
                   if (w_dtype == dy.dtype())
                     kernels::convolve_dw(on, m, dy.data<T>(), x.data<T>(), dw.data<T>());
                   else
                     kernels::convolve_dw(on, m, dy.data<T>(), x.data<T>(), dw.data<acc_t<T>>());
                 });
               return Grads{dx, dw};
             });
  return b.defined() ? add(y, b.dtype() == y.dtype() ? b : cast(b, y.dtype())) : y;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
