#pragma once
#include "ppma/core/names_begin.hpp"
// RoIAlign (He et al., "Mask R-CNN", 2017), the aligned form: each cell of a grid over a box is the
// mean of bilinear samples of the map. Legend: B batch, H W map, C channels, R boxes, h w output
// grid.

#include "ppma/kernels/args.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// x (B,H,W,C), boxes (R,5) of x's dtype (f32 beside bf16): number of the image, x1, y1, x2, y2 ->
/// (R,h,w,C). As torchvision's roi_align with aligned = true: samples outside of [-1, size] count
/// as 0. Differentiable in x; boxes have no gradient. They are where x is, or on the host, which
/// looks at them and else has to wait.
/// Errors: shapes, dtypes, an image number outside of the batch, a box that is not finite.
PPMA_API Tensor roi_align(const Tensor& x, const Tensor& boxes, const RoiAlign& options);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_IMAGES)

#include <cmath>
#include <string>
#include <vector>

#include "ppma/kernels/cpu/roi_align.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor roi_align(const Tensor& x, const Tensor& boxes, const RoiAlign& options) {
  check(x.defined() && x.rank() == 4 && x.numel() > 0,
        "roi_align: x must be (B,H,W,C) with elements");
  check(boxes.defined() && boxes.rank() == 2 && boxes.dim(1) == 5,
        "roi_align: boxes must be (R,5): image, x1, y1, x2, y2, got ",
        boxes.defined() ? boxes.shape().str() : std::string("an undefined tensor"));
  check(boxes.device() == x.device() || boxes.device() == Device::cpu, "roi_align: boxes are on ",
        boxes.device(), ", x is on ", x.device(), "; move them with .to()");
  check(boxes.dtype() == accumulator_dtype(x.dtype()), "roi_align: boxes are ", boxes.dtype(),
        ", x is ", x.dtype(), "; cast them");
  check(
      options.height >= 1 && options.width >= 1 && options.scale > 0 && options.sampling_ratio >= 0,
      "roi_align: the grid is ", options.height, " x ", options.width, ", scale ", options.scale,
      ", sampling_ratio ", options.sampling_ratio);
  const std::vector<double> values = boxes.to_vector<double>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    check(std::abs(values[i]) < 1e7, "roi_align: box ", i / 5, " has a coordinate of ", values[i]);
    check(i % 5 != 0 || (values[i] >= 0 && values[i] < static_cast<double>(x.dim(0))),
          "roi_align: box ", i / 5, " is of image ", values[i], ", the batch has ", x.dim(0));
  }
  const i64 count = boxes.dim(0);
  const Tensor there = boxes.detach().to(x.device());
  Tensor y = Tensor::empty({count, options.height, options.width, x.dim(3)}, x.dtype(), x.device());
  visit(x.device(), x.dtype(), "roi_align", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::roi_align(on, x.shape(), count, options, x.data<T>(), there.data<acc_t<T>>(),
                       y.data<T>());
  });
  return record(y, "roi_align", {x}, [=, shape = x.shape(), boxes = there](const Tensor& dy) {
    Tensor dx = Tensor::zeros(shape, dy.dtype(), dy.device());
    visit(dy.device(), dy.dtype(), "roi_align", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::roi_align_backward(on, shape, count, options, boxes.data<acc_t<T>>(), dy.data<T>(),
                                  dx.data<T>());
    });
    return Grads{dx};
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
