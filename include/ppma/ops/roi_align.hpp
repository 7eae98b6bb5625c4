#pragma once
#include "ppma/core/names_begin.hpp"
// RoIAlign (He et al., "Mask R-CNN", 2017), the aligned form: each cell of a grid over a box is the mean of bilinear
// samples of the map. Legend: B batch, H W map, C channels, R boxes, h w output grid.

#include <algorithm>
#include <cmath>

#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

struct RoiAlign {
  i64 height = 7, width = 7;  // cells
  double scale = 1;           // cells of the map a unit of the boxes: 1 / stride
  i64 sampling_ratio = 0;     // samples a cell and axis; 0: ceil(box size / cells)
};

namespace kernels {

/// Calls f(cell of the output in [0, h w), input row, input column, weight) for each tap of one box x1 y1 x2 y2.
template <class T, class F>
void for_roi_taps(const T* box, const RoiAlign& o, i64 height, i64 width, F f) {
  struct AxisTaps {
    i64 low, high;
    double f;
    bool inside;
  };
  const auto taps = [](double at, i64 size) {
    if (at < -1 || at > static_cast<double>(size)) return AxisTaps{0, 0, 0, false};
    at = std::max(at, 0.0);
    const i64 low = static_cast<i64>(at);
    if (low >= size - 1) return AxisTaps{size - 1, size - 1, 0, true};
    return AxisTaps{low, low + 1, at - static_cast<double>(low), true};
  };
  const double left = static_cast<double>(box[0]) * o.scale - 0.5, top = static_cast<double>(box[1]) * o.scale - 0.5;
  const double cell_w = (static_cast<double>(box[2]) * o.scale - 0.5 - left) / static_cast<double>(o.width);
  const double cell_h = (static_cast<double>(box[3]) * o.scale - 0.5 - top) / static_cast<double>(o.height);
  const i64 down = o.sampling_ratio > 0 ? o.sampling_ratio : static_cast<i64>(std::ceil(cell_h));
  const i64 across = o.sampling_ratio > 0 ? o.sampling_ratio : static_cast<i64>(std::ceil(cell_w));
  if (down <= 0 || across <= 0) return;
  const double share = 1 / static_cast<double>(down * across);
  for (i64 i = 0; i < o.height; ++i)
    for (i64 a = 0; a < down; ++a) {
      const AxisTaps r = taps(top + cell_h * (static_cast<double>(i) + (static_cast<double>(a) + 0.5) / static_cast<double>(down)), height);
      if (!r.inside) continue;
      for (i64 j = 0; j < o.width; ++j)
        for (i64 b = 0; b < across; ++b) {
          const AxisTaps c = taps(left + cell_w * (static_cast<double>(j) + (static_cast<double>(b) + 0.5) / static_cast<double>(across)), width);
          if (!c.inside) continue;
          const i64 cell = i * o.width + j;
          f(cell, r.low, c.low, static_cast<T>(share * (1 - r.f) * (1 - c.f)));
          f(cell, r.low, c.high, static_cast<T>(share * (1 - r.f) * c.f));
          f(cell, r.high, c.low, static_cast<T>(share * r.f * (1 - c.f)));
          f(cell, r.high, c.high, static_cast<T>(share * r.f * c.f));
        }
    }
}

template <class T>
void roi_align(Cpu, const Shape& shape, i64 count, const RoiAlign& o, const T* x, const T* boxes, T* y) {
  const i64 height = shape[1], width = shape[2], channels = shape[3], cells = o.height * o.width;
  parallel_for(count, 1, [=, &o](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) {
      T* to = y + r * cells * channels;
      std::fill_n(to, cells * channels, T(0));
      const T* map = x + static_cast<i64>(boxes[r * 5]) * height * width * channels;
      for_roi_taps(boxes + r * 5 + 1, o, height, width, [=](i64 cell, i64 row, i64 col, T weight) {
        const T* from = map + (row * width + col) * channels;
        T* sum = to + cell * channels;
        for (i64 k = 0; k < channels; ++k) sum[k] += weight * from[k];
      });
    }
  });
}

/// dx (zeros) += the boxes' shares. Boxes overlap, so a thread owns a strip of channels and takes the boxes in order.
template <class T>
void roi_align_backward(Cpu, const Shape& shape, i64 count, const RoiAlign& o, const T* boxes, const T* dy, T* dx) {
  const i64 height = shape[1], width = shape[2], channels = shape[3], cells = o.height * o.width, strip = 32;
  parallel_for((channels + strip - 1) / strip, 1, [=, &o](i64 begin, i64 end) {
    const i64 first = begin * strip, last = std::min(channels, end * strip);
    for (i64 r = 0; r < count; ++r) {
      T* map = dx + static_cast<i64>(boxes[r * 5]) * height * width * channels;
      const T* from = dy + r * cells * channels;
      for_roi_taps(boxes + r * 5 + 1, o, height, width, [=](i64 cell, i64 row, i64 col, T weight) {
        T* to = map + (row * width + col) * channels;
        for (i64 k = first; k < last; ++k) to[k] += weight * from[cell * channels + k];
      });
    }
  });
}

}  // namespace kernels
}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/ops/roi_align.cuh"
#endif

namespace ppma::inline PPMA_ABI {

/// x (B,H,W,C), boxes (R,5) of x's dtype (f32 beside bf16): number of the image, x1, y1, x2, y2 -> (R,h,w,C). As torchvision's roi_align
/// with aligned = true: samples outside of [-1, size] count as 0. Differentiable in x; boxes have no gradient.
/// Errors: shapes, dtypes, an image number outside of the batch, a box that is not finite.
inline Tensor roi_align(const Tensor& x, const Tensor& boxes, const RoiAlign& options) {
  check(x.defined() && x.rank() == 4 && x.numel() > 0, "roi_align: x must be (B,H,W,C) with elements");
  check(boxes.defined() && boxes.rank() == 2 && boxes.dim(1) == 5,
        "roi_align: boxes must be (R,5): image, x1, y1, x2, y2, got ",
        boxes.defined() ? boxes.shape().str() : std::string("an undefined tensor"));
  check(boxes.device() == x.device(), "roi_align: boxes are on ", boxes.device(), ", x is on ", x.device(), "; move them with .to()");
  check(boxes.dtype() == accumulator_dtype(x.dtype()), "roi_align: boxes are ", boxes.dtype(), ", x is ", x.dtype(), "; cast them");
  check(options.height >= 1 && options.width >= 1 && options.scale > 0 && options.sampling_ratio >= 0,
        "roi_align: the grid is ", options.height, " x ", options.width, ", scale ", options.scale,
        ", sampling_ratio ", options.sampling_ratio);
  const std::vector<double> values = boxes.to_vector<double>();
  for (std::size_t i = 0; i < values.size(); ++i) {
    check(std::abs(values[i]) < 1e7, "roi_align: box ", i / 5, " has a coordinate of ", values[i]);
    check(i % 5 != 0 || (values[i] >= 0 && values[i] < static_cast<double>(x.dim(0))), "roi_align: box ", i / 5,
          " is of image ", values[i], ", the batch has ", x.dim(0));
  }
  const i64 count = boxes.dim(0);
  Tensor y = Tensor::empty({count, options.height, options.width, x.dim(3)}, x.dtype(), x.device());
  visit(x.device(), x.dtype(), "roi_align", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::roi_align(on, x.shape(), count, options, x.data<T>(), boxes.data<acc_t<T>>(), y.data<T>());
  });
  return record(y, "roi_align", {x}, [=, shape = x.shape(), boxes = boxes.detach()](const Tensor& dy) {
    Tensor dx = Tensor::zeros(shape, dy.dtype(), dy.device());
    visit(dy.device(), dy.dtype(), "roi_align", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::roi_align_backward(on, shape, count, options, boxes.data<acc_t<T>>(), dy.data<T>(), dx.data<T>());
    });
    return Grads{dx};
  });
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
