#pragma once
#include "ppma/core/names_begin.hpp"
// Average of bilinear samples in each cell of a box.

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/core/shape.hpp"
#include "ppma/kernels/args.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Of each cell along one axis of a box the pixels that it takes, and with what weight: the means
/// of its samples' two neighbours. Empty where the box has no extent.
class RoiAxis {
 public:
  struct Tap {
    i64 pixel;
    double weight;
  };

  /// The box from low to high, in pixels of the map after `scale`; `pixels` of the map.
  RoiAxis(double low, double high, const RoiAlign& o, i64 cells, i64 pixels) {
    const double begin = low * o.scale - 0.5,
                 cell = (high * o.scale - 0.5 - begin) / static_cast<double>(cells);
    const i64 samples = o.sampling_ratio > 0 ? o.sampling_ratio : static_cast<i64>(std::ceil(cell));
    begin_.push_back(0);
    for (i64 c = 0; c < cells; ++c) {
      for (i64 s = 0; s < samples; ++s)
        add_sample(begin + cell * (static_cast<double>(c) +
                                   (static_cast<double>(s) + 0.5) / static_cast<double>(samples)),
                   1 / static_cast<double>(samples), pixels);
      begin_.push_back(taps_.size());
    }
  }

  std::span<const Tap> of_cell(i64 c) const {
    const auto at = begin_.begin() + c;
    return std::span(taps_).subspan(at[0], at[1] - at[0]);
  }

 private:
  void add_sample(double at, double share, i64 pixels) {
    if (at < -1 || at > static_cast<double>(pixels)) return;
    at = std::max(at, 0.0);
    const i64 low = static_cast<i64>(at);
    if (low >= pixels - 1) return add(pixels - 1, share);
    const double f = at - static_cast<double>(low);
    add(low, share * (1 - f)), add(low + 1, share * f);
  }
  // Samples of a cell ascend by less than a pixel, mostly: a pixel is one of the last two.
  void add(i64 pixel, double weight) {
    for (std::size_t k = taps_.size(); k > begin_.back() && k + 2 > taps_.size(); --k)
      if (taps_[k - 1].pixel == pixel) {
        taps_[k - 1].weight += weight;
        return;
      }
    taps_.push_back({pixel, weight});
  }

  std::vector<Tap> taps_;
  std::vector<std::size_t> begin_;
};

/// Calls f(cell of the output in [0, h w), input row, input column, weight) for each tap of one box
/// x1 y1 x2 y2.
template <class T, class F>
void for_roi_taps(const T* box, const RoiAlign& o, i64 height, i64 width, F f) {
  const RoiAxis rows(static_cast<double>(box[1]), static_cast<double>(box[3]), o, o.height, height),
      columns(static_cast<double>(box[0]), static_cast<double>(box[2]), o, o.width, width);
  for (i64 i = 0; i < o.height; ++i)
    for (const RoiAxis::Tap& r : rows.of_cell(i))
      for (i64 j = 0; j < o.width; ++j)
        for (const RoiAxis::Tap& c : columns.of_cell(j))
          f(i * o.width + j, r.pixel, c.pixel, static_cast<T>(r.weight * c.weight));
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
#include "ppma/kernels/cuda/roi_align_backward.cuh"
#endif

#include "ppma/core/names_end.hpp"
