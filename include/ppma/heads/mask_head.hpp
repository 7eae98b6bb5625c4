#pragma once
#include "ppma/core/names_begin.hpp"
// The mask head: the pixels of a region that are its object (recipes 3.2), and how they are drawn
// into the image.

#include <vector>

#include "ppma/heads/regions.hpp"
#include "ppma/io/rle.hpp"
#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Kaiming-normal by fan-out, bias 0.
PPMA_API Conv2d kaiming_conv(i64 in, i64 out, i64 kernel, Rng& rng);

}  // namespace detail

/// A convolution published one level down, as `conv`.
struct MaskConv {
  Conv2d conv;
  template <class V>
  void fields(V& v) {
    v.child("conv", conv);
  }
};

/// Twice the cells: transposed convolution, 2 x 2, stride 2.
struct MaskUpsample {
  Tensor weight, bias;  // (I,O,2,2), (O)
  template <class V>
  void fields(V& v) {
    v.parameter("weight", weight), v.parameter("bias", bias);
  }
};

struct MaskHead {
  RoiConfig config;
  std::vector<MaskConv> convs;
  MaskUpsample upsample;
  Conv2d conv_logits;

  PPMA_API MaskHead(const RoiConfig& c, Rng& rng);
  /// (R,14,14,C) -> logits (R,28,28,K).
  PPMA_API Tensor forward(Tensor x) const;
  /// The map of each region's own class, (R,28,28), of logits (R,28,28,K): chosen where the logits
  /// are. Zeros in those that no region has.
  PPMA_API Tensor of_class(const Tensor& logits, const std::vector<Roi>& rois) const;
  /// Binary cross entropy on the map of each region's class, the mean over regions and cells, times
  /// its weight. Logits behind those of the last region count nothing.
  PPMA_API Tensor loss(const Tensor& logits, const std::vector<Roi>& rois,
                       const std::vector<Objects>& objects) const;
  /// The truth's mask in the region: RoIAlign with as many samples as pixels, at least one half.
  PPMA_API static std::vector<u8> mask_target(const Tensor& masks, const Roi& roi, i64 size);
  template <class V>
  void fields(V& v) {
    v.children("convs", convs), v.child("upsample", upsample), v.child("conv_logits", conv_logits);
  }
};

/// Probabilities (size,size), row by row, drawn into a box of an image of height x width: bilinear
/// at pixel centres, outside 0, set where at least `threshold`. Runs are made column by column,
/// from the box's pixels alone.
PPMA_API Rle paste_mask(const float* probability, i64 size, const Box& box, i64 height, i64 width,
                        double threshold = 0.5);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <algorithm>
#include <cmath>

#include "ppma/core/parallel.hpp"
#include "ppma/heads/losses.hpp"
#include "ppma/heads/rpn.hpp"
#include "ppma/kernels/cpu/roi_align.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv_transpose.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/roi_align.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

Conv2d kaiming_conv(i64 in, i64 out, i64 kernel, Rng& rng) {
  return normal_layer(Conv2d(in, out, kernel, {1, kernel / 2, 1}, rng),
                      std::sqrt(2 / static_cast<double>(out * kernel * kernel)), rng);
}

}  // namespace detail

MaskHead::MaskHead(const RoiConfig& c, Rng& rng)
    : config(c), conv_logits(detail::kaiming_conv(c.channels, c.num_classes, 1, rng)) {
  for (i64 k = 0; k < c.mask_convs; ++k)
    convs.push_back({detail::kaiming_conv(c.channels, c.channels, 3, rng)});
  upsample.weight =
      parameter(detail::drawing_initial_values()
                    ? Tensor::randn({c.channels, c.channels, 2, 2}, rng,
                                    std::sqrt(2 / static_cast<double>(4 * c.channels)))
                    : Tensor::zeros({c.channels, c.channels, 2, 2}));
  upsample.bias = parameter(Tensor::zeros({c.channels}));
}

Tensor MaskHead::forward(Tensor x) const {
  for (const MaskConv& c : convs) x = relu(c.conv.forward(x));
  x = relu(conv_transpose2d(x, upsample.weight, upsample.bias));  // (R,28,28,C)
  return conv_logits.forward(x);
}

Tensor MaskHead::of_class(const Tensor& logits, const std::vector<Roi>& rois) const {
  const i64 R = logits.dim(0), K = logits.dim(3);
  const Tensor wide = widened(logits);
  Tensor own = Tensor::zeros({R, 1, 1, K});
  for (std::size_t r = 0; r < rois.size(); ++r)
    own.data<float>()[static_cast<i64>(r) * K + rois[r].label] = 1;
  return sum(mul(wide, cast(own.to(wide.device()), wide.dtype())), {3});
}

Tensor MaskHead::loss(const Tensor& logits, const std::vector<Roi>& rois,
                      const std::vector<Objects>& objects) const {
  const i64 R = static_cast<i64>(rois.size()), size = logits.dim(1), cells = size * size;
  const Shape shape{logits.dim(0), size, size};
  Tensor target = Tensor::zeros(shape), weight = Tensor::zeros(shape);
  std::fill_n(weight.data<float>(), R * cells, 1.0f);
  float* const to = target.data<float>();
  // Regions come by size, and large ones take longer: every part has some of all.
  const i64 parts = std::min(R, i64{64});
  parallel_for(parts, 1, [&, to](i64 begin, i64 end) {
    for (i64 part = begin; part < end; ++part)
      for (i64 r = part; r < R; r += parts) {
        const Roi& roi = rois[static_cast<std::size_t>(r)];
        const std::vector<u8> mask =
            mask_target(objects[static_cast<std::size_t>(roi.image)].masks, roi, size);
        std::copy(mask.begin(), mask.end(), to + r * cells);
      }
  });
  return scale(weighted_bce(of_class(logits, rois), target, weight),
               config.mask_weight / static_cast<double>(R * cells));
}

std::vector<u8> MaskHead::mask_target(const Tensor& masks, const Roi& roi, i64 size) {
  check(masks.defined() && roi.truth >= 0 && roi.truth < masks.dim(0),
        "mask head: the image's objects have no masks; train without the mask head");
  const i64 H = masks.dim(1), W = masks.dim(2);
  const u8* mask = masks.data<u8>() + roi.truth * H * W;
  const auto axis = [size](float low, float high, i64 pixels) {
    return kernels::RoiAxis(static_cast<double>(low), static_cast<double>(high), {}, size, pixels);
  };
  const kernels::RoiAxis rows = axis(roi.box.y1, roi.box.y2, H),
                         columns = axis(roi.box.x1, roi.box.x2, W);
  // A tap's weight is the product of its axes': a cell's rows are added up for all columns at once.
  i64 first = W, end = 0;  // columns of the mask that the region has
  for (i64 j = 0; j < size; ++j)
    for (const auto& tap : columns.of_cell(j))
      first = std::min(first, tap.pixel), end = std::max(end, tap.pixel + 1);
  std::vector<u8> target;
  std::vector<double> sums(static_cast<std::size_t>(W));  // over a cell's rows
  for (i64 i = 0; i < size; ++i) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (const auto& tap : rows.of_cell(i)) {
      double* const sum = sums.data();
      const u8* const line = mask + tap.pixel * W;
      const double height = tap.weight;
      PPMA_OMP(simd)
      for (i64 x = first; x < end; ++x) sum[x] += height * line[x];
    }
    for (i64 j = 0; j < size; ++j) {
      double share = 0;
      for (const auto& tap : columns.of_cell(j))
        share += tap.weight * sums[static_cast<std::size_t>(tap.pixel)];
      // rounded: what is exactly one half stays it
      target.push_back(static_cast<float>(share) >= 0.5f ? 1 : 0);
    }
  }
  return target;
}

Rle paste_mask(const float* probability, i64 size, const Box& box, i64 height, i64 width,
               double threshold) {
  detail::check_mask_size(height, width);
  const double n = static_cast<double>(size);
  struct Place {
    i64 at;        // pixel
    i64 cell;      // the one before its centre, from -1
    double share;  // of the next cell
  };
  // The pixels of an axis that the map reaches.
  const auto places = [&](float begin, float end, i64 pixels) {
    std::vector<Place> all;
    const i64 first = std::max(i64{0}, static_cast<i64>(std::floor(begin)) - 1);
    for (i64 at = first; at < std::min(pixels, static_cast<i64>(end) + 2); ++at) {
      const double v = (static_cast<double>(at) + 0.5 - static_cast<double>(begin)) /
                           static_cast<double>(end - begin) * n -
                       0.5;
      if (v > -1 && v < n) all.push_back({at, static_cast<i64>(std::floor(v)), v - std::floor(v)});
    }
    return all;
  };
  const std::vector<Place> rows = places(box.y1, box.y2, height),
                           columns = places(box.x1, box.x2, width);
  std::vector<i64> changes;
  // of the map, between two of its columns; 0 at both ends
  std::vector<double> column(static_cast<std::size_t>(size + 2));
  for (const Place& x : columns) {
    for (i64 i = 0; i < size; ++i) {
      const double left = x.cell >= 0 ? static_cast<double>(probability[i * size + x.cell]) : 0.0;
      const double right =
          x.cell + 1 < size ? static_cast<double>(probability[i * size + x.cell + 1]) : 0.0;
      column[static_cast<std::size_t>(i + 1)] = (1 - x.share) * left + x.share * right;
    }
    bool inside = false;
    for (const Place& y : rows) {
      const double p = (1 - y.share) * column[static_cast<std::size_t>(y.cell + 1)] +
                       y.share * column[static_cast<std::size_t>(y.cell + 2)];
      if ((p >= threshold) != inside) changes.push_back(x.at * height + y.at), inside = !inside;
    }
    if (inside) changes.push_back(x.at * height + rows.back().at + 1);
  }
  return detail::rle_from_changes(changes, height, width);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
