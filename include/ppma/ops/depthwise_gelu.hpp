#pragma once
#include "ppma/core/names_begin.hpp"
// The middle of the network's feed-forward layer: y = conv(h) + b + h with h = GELU(u), where conv
// is the depthwise convolution of ops/depthwise.hpp. On the GPU, in bf16, h exists in shared memory
// alone, forward and backward.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The same, op by op.
PPMA_API Tensor depthwise_gelu_composed(const Tensor& u, const Tensor& w,
                                        const Tensor& b = Tensor(), const Tensor& shift = Tensor());

/// y (B,H,W,C) of u (B,H,W,C), w (C,1,k,k) with odd k, b (C) or undefined. Differentiable in all
/// three. `shift` (C): what u has in it as an addend of all rows that nothing records, as the
/// detached bias of a product; its gradient, the sum of u's over rows, comes from the pass that
/// finds u's. Errors: those of depthwise_conv2d; a shift of another shape or dtype than b has.
PPMA_API Tensor depthwise_gelu(const Tensor& u, const Tensor& w, const Tensor& b = Tensor(),
                               const Tensor& shift = Tensor());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_DEPTHWISE)

#include "ppma/kernels/cpu/column_sums.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {
// The sums of x (..., C) over its rows, (C).
inline Tensor sums_over_rows(const Tensor& x) {
  Tensor y = Tensor::empty({x.dim(-1)}, accumulator_dtype(x.dtype()), x.device());
  visit(x.device(), x.dtype(), "depthwise_gelu", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::column_sums(on, x.numel() / x.dim(-1), x.dim(-1), x.data<T>(), y.data<acc_t<T>>());
  });
  return y;
}

// u, in which `shift`, or nothing, is already.
inline Tensor shifted(const Tensor& u, const Tensor& shift) {
  if (!shift.defined()) return u;
  check(u.defined() && u.rank() == 4 && u.numel() > 0,
        "depthwise_gelu: u must be (B,H,W,C) and have elements");
  check(shift.shape() == Shape{u.dim(3)} && shift.dtype() == accumulator_dtype(u.dtype()) &&
            shift.device() == u.device(),
        "depthwise_gelu: shift must be (", u.dim(3), ") ", accumulator_dtype(u.dtype()), " on ",
        u.device(), ", got ", shift.shape(), " ", shift.dtype(), " on ", shift.device());
  return record(u.detach(), "depthwise_gelu", {u, shift},
                [need_shift = shift.requires_grad()](const Tensor& dy) {
                  return Grads{dy, need_shift ? sums_over_rows(dy) : Tensor()};
                });
}
}  // namespace detail

Tensor depthwise_gelu_composed(const Tensor& u, const Tensor& w, const Tensor& b,
                               const Tensor& shift) {
  const Tensor h = gelu(detail::shifted(u, shift));
  return depthwise_conv2d(h, w, b, h);
}

Tensor depthwise_gelu(const Tensor& u, const Tensor& w, const Tensor& b, const Tensor& shift) {
  if (!u.defined() || u.dtype() != DType::bf16 || u.device() != Device::cuda)
    return depthwise_gelu_composed(u, w, b, shift);
#if PPMA_CUDA
  const DType wide = DType::f32;
  const auto fits = [&](const Tensor& of_channels) {
    return !of_channels.defined() ||
           (of_channels.shape() == Shape{u.dim(3)} && of_channels.dtype() == wide &&
            of_channels.device() == u.device());
  };
  const bool plain = u.rank() == 4 && u.numel() > 0 && w.defined() && w.rank() == 4 &&
                     w.shape() == Shape{u.dim(3), 1, 3, 3} && w.dtype() == wide &&
                     w.device() == u.device() && fits(b) && fits(shift);
  if (plain) {
    const kernels::DepthwiseShape shape{u.dim(0), u.dim(1), u.dim(2), u.dim(3), 3};
    if (kernels::fuses_gelu<bf16>(Cuda{}, shape)) {
      Tensor y = Tensor::empty(u.shape(), u.dtype(), u.device());  // (B,H,W,C)
      kernels::depthwise_gelu(Cuda{}, shape, u.data<bf16>(), w.data<float>(),
                              b.defined() ? b.data<float>() : nullptr, y.data<bf16>());
      const bool need_shift = shift.requires_grad(), need_u = need_shift || u.requires_grad(),
                 need_w = w.requires_grad() || b.requires_grad();
      const Saved saved(u);
      return record(y, "depthwise_gelu", {u, w, b, shift},
                    [saved, w = w.detach(), shape, need_u, need_w, need_shift](const Tensor& dy) {
                      const Tensor in = saved.get();
                      Tensor du, dw, db, dshift;
                      if (need_u) du = Tensor::empty(in.shape(), in.dtype(), in.device());
                      if (need_w) {
                        dw = Tensor::empty(w.shape(), w.dtype(), w.device());
                        db = Tensor::empty({shape.c}, w.dtype(), w.device());
                      }
                      if (need_u && need_w) {
                        if (need_shift) dshift = Tensor::empty({shape.c}, w.dtype(), w.device());
                        kernels::depthwise_gelu_gradients(
                            Cuda{}, shape, in.data<bf16>(), dy.data<bf16>(), w.data<float>(),
                            du.data<bf16>(), dw.data<float>(), db.data<float>(),
                            need_shift ? dshift.data<float>() : nullptr);
                      } else if (need_u)
                        kernels::depthwise_gelu_du(Cuda{}, shape, in.data<bf16>(), w.data<float>(),
                                                   dy.data<bf16>(), du.data<bf16>());
                      else if (need_w)
                        kernels::depthwise_gelu_dw(Cuda{}, shape, in.data<bf16>(), dy.data<bf16>(),
                                                   dw.data<float>(), db.data<float>());
                      if (need_shift && !dshift.defined()) dshift = detail::sums_over_rows(du);
                      return Grads{du, dw, db, dshift};
                    });
    }
  }
#endif
  return depthwise_gelu_composed(u, w, b, shift);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
