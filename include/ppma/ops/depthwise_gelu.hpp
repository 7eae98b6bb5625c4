#pragma once
#include "ppma/core/names_begin.hpp"
// The middle of the network's feed-forward layer: y = conv(h) + b + h with h = GELU(u), where conv
// is the depthwise convolution of ops/depthwise.hpp. On the GPU, in bf16, h exists in shared memory
// alone, forward and backward.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The same, op by op.
PPMA_API Tensor depthwise_gelu_composed(const Tensor& u, const Tensor& w,
                                        const Tensor& b = Tensor());

/// y (B,H,W,C) of u (B,H,W,C), w (C,1,k,k) with odd k, b (C) or undefined. Differentiable in all
/// three. Errors: those of depthwise_conv2d.
PPMA_API Tensor depthwise_gelu(const Tensor& u, const Tensor& w, const Tensor& b = Tensor());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_DEPTHWISE)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/depthwise.hpp"

namespace ppma::inline PPMA_ABI {

Tensor depthwise_gelu_composed(const Tensor& u, const Tensor& w, const Tensor& b) {
  const Tensor h = gelu(u);
  return depthwise_conv2d(h, w, b, h);
}

Tensor depthwise_gelu(const Tensor& u, const Tensor& w, const Tensor& b) {
  if (!u.defined() || u.dtype() != DType::bf16 || u.device() != Device::cuda)
    return depthwise_gelu_composed(u, w, b);
#if PPMA_CUDA
  const DType wide = DType::f32;
  const bool plain =
      u.rank() == 4 && u.numel() > 0 && w.defined() && w.rank() == 4 &&
      w.shape() == Shape{u.dim(3), 1, 3, 3} && w.dtype() == wide && w.device() == u.device() &&
      (!b.defined() ||
       (b.shape() == Shape{u.dim(3)} && b.dtype() == wide && b.device() == u.device()));
  if (plain) {
    const kernels::DepthwiseShape shape{u.dim(0), u.dim(1), u.dim(2), u.dim(3), 3};
    if (kernels::fuses_gelu<bf16>(Cuda{}, shape)) {
      Tensor y = Tensor::empty(u.shape(), u.dtype(), u.device());  // (B,H,W,C)
      kernels::depthwise_gelu(Cuda{}, shape, u.data<bf16>(), w.data<float>(),
                              b.defined() ? b.data<float>() : nullptr, y.data<bf16>());
      const bool need_u = u.requires_grad(), need_w = w.requires_grad() || b.requires_grad();
      return record(y, "depthwise_gelu", {u, w, b},
                    [u = u.detach(), w = w.detach(), shape, need_u, need_w](const Tensor& dy) {
                      Tensor du, dw, db;
                      if (need_u) du = Tensor::empty(u.shape(), u.dtype(), u.device());
                      if (need_w) {
                        dw = Tensor::empty(w.shape(), w.dtype(), w.device());
                        db = Tensor::empty({shape.c}, w.dtype(), w.device());
                      }
                      if (need_u && need_w)
                        kernels::depthwise_gelu_gradients(
                            Cuda{}, shape, u.data<bf16>(), dy.data<bf16>(), w.data<float>(),
                            du.data<bf16>(), dw.data<float>(), db.data<float>());
                      else if (need_u)
                        kernels::depthwise_gelu_du(Cuda{}, shape, u.data<bf16>(), w.data<float>(),
                                                   dy.data<bf16>(), du.data<bf16>());
                      else if (need_w)
                        kernels::depthwise_gelu_dw(Cuda{}, shape, u.data<bf16>(), dy.data<bf16>(),
                                                   dw.data<float>(), db.data<float>());
                      return Grads{du, dw, db};
                    });
    }
  }
#endif
  return depthwise_gelu_composed(u, w, b);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
