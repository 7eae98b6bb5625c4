#pragma once
#include "ppma/core/names_begin.hpp"
// The training augmentations of segmentation (recipes 2.3) and batches made with them: resized by a
// random factor with the aspect kept, cropped where no class fills the crop, flipped, colours
// distorted, padded; for a BatchStream. A sample's augmentation is keyed by seed, epoch and its
// place in the epoch's order. Legend: B batch, H W pixels.

#include <vector>

#include "ppma/data/augment.hpp"
#include "ppma/data/batch_stream.hpp"
#include "ppma/data/segmentation.hpp"

namespace ppma::inline PPMA_ABI {

struct SegmentationLoading {
  i64 batch = 2;                     // of all processes together
  i64 longer = 2048, shorter = 512;  // the size that the random factor multiplies
  double least_factor = 0.5, most_factor = 2;
  i64 crop_height = 512, crop_width = 512;
  double most_share = 0.75;  // of one class in a crop
  double flip = 0.5;
  bool distort = true;
  u64 seed = 0;
  BatchPart part{};  // of every batch, for this process
  Normalization normalization{};
};

struct SegmentationBatch {
  Tensor images;  // f32 (B,3,H,W), normalised; padding is 0
  Tensor labels;  // int64 (B,H,W), 255 in the padding

  /// What a network is given of it: images, then the rest.
  std::vector<Tensor*> tensors() { return {&images, &labels}; }
};

namespace detail {

/// Pixels of a map (H,W) in `box`, `fill` outside.
PPMA_API Tensor crop_labels(const Tensor& labels, const PixelBox& box, u8 fill);

/// Saturation times `factor`, hue turned by `turn` (of 180), in HSV with 8 bits and hues 0..179 as
/// OpenCV has them.
PPMA_API Tensor change_colour(const Tensor& image, double factor, i64 turn);

}  // namespace detail

/// Brightness, contrast, saturation and hue, each with probability 1/2; contrast before or after
/// the colours.
PPMA_API Tensor distort_photometric(Tensor image, Rng& rng);

/// A random window of at most height x width; drawn again, up to ten times, while one class has
/// `most_share` of what counts in it or more.
PPMA_API PixelBox segmentation_crop(const Tensor& labels, i64 height, i64 width, double most_share,
                                    Rng& rng);

/// One sample as training sees it.
PPMA_API void augment_segmentation(SegmentationSample& s, const SegmentationLoading& o, Rng& rng);

/// An incomplete batch at an epoch's end is left out. Errors: an empty set, a batch that it cannot
/// fill, sizes that make no crop, a part that there is not.
PPMA_API BatchPlan<SegmentationBatch> segmentation_batches(SegmentationSet set,
                                                           SegmentationLoading options);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <cmath>
#include <memory>

#include "ppma/data/detection.hpp"
#include "ppma/data/image_ops.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

Tensor crop_labels(const Tensor& labels, const PixelBox& box, u8 fill) {
  Tensor out = Tensor::full({box.height, box.width}, fill, DType::uint8);
  const i64 H = labels.dim(0), W = labels.dim(1);
  for (i64 i = 0; i < box.height; ++i)
    for (i64 j = 0; j < box.width; ++j) {
      const i64 y = box.top + i, x = box.left + j;
      if (y >= 0 && y < H && x >= 0 && x < W)
        out.data<u8>()[i * box.width + j] = labels.data<u8>()[y * W + x];
    }
  return out;
}

inline Tensor resize_labels(const Tensor& labels, i64 height, i64 width) {
  return resize_nearest(labels.viewed_as({labels.dim(0), labels.dim(1), 1}), height, width)
      .viewed_as({height, width});
}

inline Tensor flip_labels(const Tensor& labels) {
  Tensor out = labels.clone();
  for (i64 i = 0; i < out.dim(0); ++i)
    std::reverse(out.data<u8>() + i * out.dim(1), out.data<u8>() + (i + 1) * out.dim(1));
  return out;
}

/// level x factor + shift, clipped and cut off as OpenCV's users do it.
inline Tensor scale_levels(const Tensor& image, double factor, double shift) {
  return map_levels(image, "distort",
                    [&](int v) { return std::clamp(v * factor + shift, 0.0, 255.0); });
}

Tensor change_colour(const Tensor& image, double factor, i64 turn) {
  Tensor out = Tensor::empty(image.shape(), DType::uint8);
  const u8* x = image.data<u8>();
  u8* y = out.data<u8>();
  for (i64 i = 0; i < image.numel(); i += 3) {
    const double r = x[i], g = x[i + 1], b = x[i + 2], v = std::max({r, g, b}),
                 range = v - std::min({r, g, b});
    double hue = 0;
    if (range > 0)
      hue = v == r   ? 30 * (g - b) / range
            : v == g ? 60 + 30 * (b - r) / range
                     : 120 + 30 * (r - g) / range;
    i64 h = static_cast<i64>(std::nearbyint(hue < 0 ? hue + 180 : hue)) % 180;
    double s = v > 0 ? std::nearbyint(255 * range / v) : 0;
    s = std::floor(std::clamp(s * factor, 0.0, 255.0)), h = ((h + turn) % 180 + 180) % 180;
    const double sector = static_cast<double>(h) / 30, rest = sector - std::floor(sector),
                 sat = s / 255;
    const double p = v * (1 - sat), q = v * (1 - sat * rest), t = v * (1 - sat * (1 - rest));
    const double rgb[6][3] = {{v, t, p}, {q, v, p}, {p, v, t}, {p, q, v}, {t, p, v}, {v, p, q}};
    const double* const c = rgb[static_cast<std::size_t>(sector) % 6];
    for (i64 k = 0; k < 3; ++k)
      y[i + k] = static_cast<u8>(std::nearbyint(std::clamp(c[k], 0.0, 255.0)));
  }
  return out;
}

}  // namespace detail

Tensor distort_photometric(Tensor image, Rng& rng) {
  detail::check_image(image, "distort_photometric");
  if (rng.flip(0.5)) image = detail::scale_levels(image, 1, rng.uniform(-32, 32));
  const bool contrast_first = rng.flip(0.5);
  const auto contrast = [&] {
    if (rng.flip(0.5)) image = detail::scale_levels(image, rng.uniform(0.5, 1.5), 0);
  };
  if (contrast_first) contrast();
  if (rng.flip(0.5)) image = detail::change_colour(image, rng.uniform(0.5, 1.5), 0);
  if (rng.flip(0.5)) image = detail::change_colour(image, 1, rng.below(36) - 18);
  if (!contrast_first) contrast();
  return image;
}

PixelBox segmentation_crop(const Tensor& labels, i64 height, i64 width, double most_share,
                           Rng& rng) {
  const i64 h = std::min(height, labels.dim(0)), w = std::min(width, labels.dim(1));
  PixelBox box;
  for (int attempt = 0; attempt <= 10; ++attempt) {
    box = {rng.below(labels.dim(0) - h + 1), rng.below(labels.dim(1) - w + 1), h, w};
    if (most_share >= 1) break;
    i64 count[256] = {}, all = 0, most = 0, kinds = 0;
    const Tensor part = detail::crop_labels(labels, box, 255);
    for (i64 i = 0; i < part.numel(); ++i) ++count[part.data<u8>()[i]];
    for (int c = 0; c < 255; ++c)
      all += count[c], most = std::max(most, count[c]), kinds += count[c] > 0;
    if (kinds > 1 && static_cast<double>(most) < most_share * static_cast<double>(all)) break;
  }
  return box;
}

void augment_segmentation(SegmentationSample& s, const SegmentationLoading& o, Rng& rng) {
  const double factor = rng.uniform(o.least_factor, o.most_factor);
  const auto size = keep_aspect(s.image.dim(0), s.image.dim(1),
                                static_cast<i64>(static_cast<double>(o.longer) * factor),
                                static_cast<i64>(static_cast<double>(o.shorter) * factor));
  if (size[0] != s.image.dim(0) || size[1] != s.image.dim(1))
    s.image = resize_bilinear(s.image, size[0], size[1]),
    s.labels = detail::resize_labels(s.labels, size[0], size[1]);
  const PixelBox box = segmentation_crop(s.labels, o.crop_height, o.crop_width, o.most_share, rng);
  s.image = crop(s.image, box), s.labels = detail::crop_labels(s.labels, box, 255);
  if (rng.flip(o.flip))
    s.image = flip_horizontal(s.image), s.labels = detail::flip_labels(s.labels);
  if (o.distort) s.image = distort_photometric(s.image, rng);
}

namespace detail {

inline SegmentationBatch segmentation_batch(const SegmentationSet& set,
                                            const SegmentationLoading& o, i64 epoch,
                                            const std::vector<i64>& order, i64 number) {
  const i64 H = o.crop_height, W = o.crop_width;
  const i64 low = o.part.begin(o.batch), B = o.part.end(o.batch) - low;
  SegmentationBatch batch{Tensor::zeros({B, 3, H, W}), Tensor::full({B, H, W}, 255, DType::int64)};
  const Normalizer normalize(o.normalization);
  std::vector<float> planes;
  for (i64 b = 0; b < B; ++b) {
    const i64 place = number * o.batch + low + b;
    Rng rng(o.seed, static_cast<u64>(epoch), static_cast<u64>(place), 0x5e9);
    SegmentationSample s = set.get(order[static_cast<std::size_t>(place)]);
    augment_segmentation(s, o, rng);
    const i64 h = s.image.dim(0), w = s.image.dim(1);
    planes.resize(static_cast<std::size_t>(3 * h * w));
    normalize(s.image, planes.data());
    for (i64 row = 0; row < 3 * h; ++row)
      std::copy_n(planes.data() + row * w, w,
                  batch.images.data<float>() + ((b * 3 + row / h) * H + row % h) * W);
    for (i64 i = 0; i < h; ++i)
      for (i64 j = 0; j < w; ++j)
        batch.labels.data<i64>()[(b * H + i) * W + j] = s.labels.data<u8>()[i * w + j];
  }
  return batch;
}

}  // namespace detail

BatchPlan<SegmentationBatch> segmentation_batches(SegmentationSet of, SegmentationLoading o) {
  check(of.size > 0, "segmentation loader: ", of.name, " has no images");
  check(o.batch > 0 && o.batch <= of.size, "segmentation loader: a batch of ", o.batch, " from ",
        of.size, " images");
  check(o.crop_height > 0 && o.crop_width > 0 && o.least_factor > 0 &&
            o.least_factor <= o.most_factor,
        "segmentation loader: crop ", o.crop_height, " x ", o.crop_width, ", factors ",
        o.least_factor, " to ", o.most_factor);
  o.part.require("segmentation loader", o.batch);
  const auto set = std::make_shared<const SegmentationSet>(std::move(of));
  return {set->size / o.batch, [set, o](i64 epoch) {
            return
                [set, o, epoch, order = epoch_order(set->size, epoch, o.seed, true)](i64 number) {
                  return detail::segmentation_batch(*set, o, epoch, order, number);
                };
          }};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
