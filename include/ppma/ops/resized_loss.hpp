#pragma once
#include "ppma/core/names_begin.hpp"
// What a segmentation network learns from: the cross entropy of its logits, resized to the labels,
// and how many pixels are right. Legend: B batch, h w grid of the logits, H W grid of the labels,
// K classes.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Percent of the pixels that count whose label has the largest logit, as mmseg logs it (100 where
/// none counts): a scalar, f64, where the logits are. logits (B,H,W,K), labels int64 (B,H,W).
PPMA_API Tensor pixel_accuracy(const Tensor& logits, const Tensor& labels, i64 ignore_index);

struct PixelLoss {
  Tensor loss, accuracy;  // scalars; accuracy as pixel_accuracy()
};

/// Cross entropy of logits (B,h,w,K), resized bilinearly to the grid of int64 labels (B,H,W), and
/// the pixels' accuracy. The mean divides by all pixels, ignored ones too. Differentiable in the
/// logits. On a GPU logits of up to 256 classes are resized in registers (to at most 32 pixels a
/// cell): the resized ones are not made.
/// Errors: those of resize() and cross_entropy().
PPMA_API PixelLoss resized_cross_entropy(const Tensor& logits, const Tensor& labels,
                                         i64 ignore_index);

/// The same, op by op.
PPMA_API PixelLoss resized_cross_entropy_composed(const Tensor& logits, const Tensor& labels,
                                                  i64 ignore_index);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_IMAGES)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/resize.hpp"
#include "ppma/tensor/autograd.hpp"

#if PPMA_CUDA
#include "ppma/kernels/cuda/resized_loss_back.cuh"
#endif

namespace ppma::inline PPMA_ABI {

Tensor pixel_accuracy(const Tensor& logits, const Tensor& labels, i64 ignore_index) {
  const NoGrad not_recorded;
  // (B,H,W)
  const Tensor chosen = cast(argmax(logits, -1), DType::f64), wanted = cast(labels, DType::f64);
  // Of whole numbers: 1 where the difference is 0, else 0.
  const auto is_zero = [](const Tensor& difference) {
    return relu(add_scalar(scale(abs(difference), -1), 1));
  };
  const Tensor counts =
      add_scalar(scale(is_zero(add_scalar(wanted, -static_cast<double>(ignore_index))), -1), 1);
  const Tensor right = mul(is_zero(sub(chosen, wanted)), counts);
  // as there: no 0 / 0
  return scale(div(add_scalar(sum(right), 1e-7), add_scalar(sum(counts), 1e-7)), 100);
}

PixelLoss resized_cross_entropy_composed(const Tensor& logits, const Tensor& labels,
                                         i64 ignore_index) {
  check(labels.defined() && labels.rank() == 3,
        "resized_cross_entropy: labels must be (B,H,W) int64, got ",
        labels.defined() ? labels.shape() : Shape{});
  CrossEntropyOptions options;
  options.ignore_index = ignore_index, options.count_ignored = true;
  const Tensor resized = resize(logits, labels.dim(1), labels.dim(2));
  return {cross_entropy(resized, labels, options), pixel_accuracy(resized, labels, ignore_index)};
}

#if PPMA_CUDA
namespace detail {

inline PixelLoss resized_cross_entropy_on_gpu(const Tensor& logits, const Tensor& labels,
                                              i64 ignore_index) {
  const i64 batch = logits.dim(0), k = logits.dim(3);
  const kernels::Axis rows{logits.dim(1), labels.dim(1), Resize::bilinear},
      cols{logits.dim(2), labels.dim(2), Resize::bilinear};
  PixelLoss l;
  l.loss = Tensor::empty({}, logits.dtype(), Device::cuda);
  l.accuracy = Tensor::empty({}, DType::f64, Device::cuda);
  Tensor pixels = Tensor::empty({batch, labels.dim(1), labels.dim(2), 2},
                                accumulator_dtype(logits.dtype()), Device::cuda);
  visit(Device::cuda, logits.dtype(), "resized_cross_entropy", [&](auto on, auto t) {
    using T = decltype(t);
    if constexpr (decltype(on)::device == Device::cuda)
      kernels::resized_loss(on, batch, k, rows, cols, logits.data<T>(), labels.data<i64>(),
                            ignore_index, pixels.data<acc_t<T>>(), l.loss.data<T>(),
                            l.accuracy.data<double>());
  });
  l.loss = record(
      l.loss, "resized_cross_entropy", {logits}, [=, logits = logits.detach()](const Tensor& dy) {
        Tensor dx = Tensor::empty(logits.shape(), logits.dtype(), Device::cuda);
        visit(Device::cuda, dy.dtype(), "resized_cross_entropy", [&](auto on, auto t) {
          using T = decltype(t);
          if constexpr (decltype(on)::device == Device::cuda)
            kernels::resized_loss_backward(on, batch, k, rows, cols, logits.data<T>(),
                                           pixels.data<acc_t<T>>(), dy.data<T>(), dx.data<T>());
        });
        return Grads{dx};
      });
  return l;
}

}  // namespace detail
#endif

PixelLoss resized_cross_entropy(const Tensor& logits, const Tensor& labels, i64 ignore_index) {
#if PPMA_CUDA
  if (logits.defined() && labels.defined() && logits.rank() == 4 && labels.rank() == 3 &&
      logits.numel() > 0 && labels.numel() > 0 && labels.dtype() == DType::int64 &&
      logits.device() == Device::cuda && labels.device() == Device::cuda &&
      labels.dim(0) == logits.dim(0) &&
      kernels::takes_resized_loss(Cuda{}, logits.dim(3),
                                  {logits.dim(2), labels.dim(2), Resize::bilinear}))
    return detail::resized_cross_entropy_on_gpu(logits, labels, ignore_index);
#endif
  return resized_cross_entropy_composed(logits, labels, ignore_index);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
