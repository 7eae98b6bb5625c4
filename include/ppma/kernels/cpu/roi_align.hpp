#pragma once
#include "ppma/core/names_begin.hpp"
// Average of bilinear samples in each cell of a box.

#include <algorithm>
#include <cmath>

#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/core/shape.hpp"
#include "ppma/kernels/args.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Calls f(cell of the output in [0, h w), input row, input column, weight) for each tap of one box
/// x1 y1 x2 y2.
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
  const double left = static_cast<double>(box[0]) * o.scale - 0.5,
               top = static_cast<double>(box[1]) * o.scale - 0.5;
  const double cell_w =
      (static_cast<double>(box[2]) * o.scale - 0.5 - left) / static_cast<double>(o.width);
  const double cell_h =
      (static_cast<double>(box[3]) * o.scale - 0.5 - top) / static_cast<double>(o.height);
  const i64 down = o.sampling_ratio > 0 ? o.sampling_ratio : static_cast<i64>(std::ceil(cell_h));
  const i64 across = o.sampling_ratio > 0 ? o.sampling_ratio : static_cast<i64>(std::ceil(cell_w));
  if (down <= 0 || across <= 0) return;
  const double share = 1 / static_cast<double>(down * across);
  for (i64 i = 0; i < o.height; ++i)
    for (i64 a = 0; a < down; ++a) {
      const AxisTaps r =
          taps(top + cell_h * (static_cast<double>(i) +
                               (static_cast<double>(a) + 0.5) / static_cast<double>(down)),
               height);
      if (!r.inside) continue;
      for (i64 j = 0; j < o.width; ++j)
        for (i64 b = 0; b < across; ++b) {
          const AxisTaps c =
              taps(left + cell_w * (static_cast<double>(j) +
                                    (static_cast<double>(b) + 0.5) / static_cast<double>(across)),
                   width);
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
void roi_align(Cpu, const Shape& shape, i64 count, const RoiAlign& o, const T* x, const T* boxes,
               T* y) {
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

/// dx (zeros) += the boxes' shares. Boxes overlap, so a thread owns a strip of channels and takes
/// the boxes in order.
template <class T>
void roi_align_backward(Cpu, const Shape& shape, i64 count, const RoiAlign& o, const T* boxes,
                        const T* dy, T* dx) {
  const i64 height = shape[1], width = shape[2], channels = shape[3], cells = o.height * o.width,
            strip = 32;
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

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/roi_align.cuh"
#endif

#include "ppma/core/names_end.hpp"
