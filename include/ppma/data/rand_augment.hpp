#pragma once
#include "ppma/core/names_begin.hpp"
// RandAugment (Cubuk et al. 2020) in timm's form "rand-m9-mstd0.5-inc1", with which the published
// networks were trained: two of fifteen changes, drawn with replacement, each carried out with
// probability 1/2 at a magnitude about 9 of 10.

#include "ppma/data/image_ops.hpp"

namespace ppma::inline PPMA_ABI {

/// What an image can suffer (recipes 1).
enum class Change : u8 {
  auto_contrast,
  equalize,
  invert,
  rotate,
  posterize,
  solarize,
  solarize_add,
  color,
  contrast,
  brightness,
  sharpness,
  shear_x,
  shear_y,
  translate_x,
  translate_y
};

inline constexpr i64 change_count = 15;

struct RandAugment {
  i64 changes = 2;
  double probability = 0.5;               // of each
  double magnitude = 9, deviation = 0.5;  // normal, clipped to [0, 10]
  // ImageNet's mean, where a change of geometry uncovers ground
  Fill fill{124, 116, 104};
};

/// One change at magnitude m in [0, 10]; `negative` takes the other direction where there are two.
/// m = 10 is full strength: rotation by 30 degrees, shear 0.3, shift by 0.45 of the side, factors 1
/// +- 0.9 (at least 0.1).
PPMA_API Tensor apply_change(const Tensor& image, Change change, double m, bool negative,
                             const Fill& fill);

/// The image after a few random changes.
PPMA_API Tensor rand_augment(Tensor image, Rng& rng, const RandAugment& options = {});

/// The published training pipeline up to the tensor: random resized crop, flip, RandAugment.
PPMA_API Transform published_transform(i64 size, const RandAugment& options = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

Tensor apply_change(const Tensor& image, Change change, double m, bool negative, const Fill& fill) {
  const double level = m / 10, sign = negative ? -1 : 1,
               factor = std::max(0.1, 1 + sign * (level * 0.9));
  switch (change) {
    case Change::auto_contrast:
      return auto_contrast(image);
    case Change::equalize:
      return equalize(image);
    case Change::invert:
      return invert(image);
    case Change::rotate:
      return rotate(image, sign * (level * 30), fill);
    case Change::posterize:
      return posterize(image, 4 - static_cast<int>(level * 4));
    case Change::solarize:
      return solarize(image, 256 - static_cast<int>(level * 256));
    case Change::solarize_add:
      return solarize_add(image, static_cast<int>(level * 110));
    case Change::color:
      return adjust_color(image, factor);
    case Change::contrast:
      return adjust_contrast(image, factor);
    case Change::brightness:
      return adjust_brightness(image, factor);
    case Change::sharpness:
      return adjust_sharpness(image, factor);
    case Change::shear_x:
      return shear_x(image, sign * (level * 0.3), fill);
    case Change::shear_y:
      return shear_y(image, sign * (level * 0.3), fill);
    case Change::translate_x:
      return translate_x(image, sign * (level * 0.45), fill);
    case Change::translate_y:
      return translate_y(image, sign * (level * 0.45), fill);
  }
  return image;
}

Tensor rand_augment(Tensor image, Rng& rng, const RandAugment& options) {
  for (i64 k = 0; k < options.changes; ++k) {
    const Change change = static_cast<Change>(rng.below(change_count));
    const bool apply = rng.flip(options.probability), negative = rng.flip();
    const double m = std::clamp(options.magnitude + options.deviation * rng.normal(), 0.0, 10.0);
    if (apply) image = apply_change(image, change, m, negative, options.fill);
  }
  return image;
}

Transform published_transform(i64 size, const RandAugment& options) {
  return [crop = train_transform(size), options](const Tensor& image, Rng& rng) {
    return rand_augment(crop(image, rng), rng, options);
  };
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
