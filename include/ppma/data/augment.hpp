#pragma once
#include "ppma/core/names_begin.hpp"
// Augmentation of single images, as timm 0.5.4 and torchvision do it. Every function draws from the
// Rng it is given and from nothing else, so an augmented image is a function of (seed, epoch,
// sample).
//
// An image is uint8 (H,W,3) up to `normalize`, float32 (3,H,W) after it. Positions and sizes are in
// pixels. Where the references round, they round halves to even (Python's round), and so does this
// file.

#include <array>
#include <functional>

#include "ppma/core/random.hpp"
#include "ppma/io/resize.hpp"

namespace ppma::inline PPMA_ABI {

/// uint8 (H,W,3) to uint8 (h,w,3): what a loader does to each image before it is normalised.
using Transform = std::function<Tensor(const Tensor& image, Rng& rng)>;

namespace detail {

PPMA_API void check_image(const Tensor& image, const char* op);

}  // namespace detail

/// A rectangle of pixels: rows top .. top + height - 1, columns left .. left + width - 1.
struct PixelBox {
  i64 top = 0, left = 0, height = 0, width = 0;
  friend bool operator==(const PixelBox&, const PixelBox&) = default;
};

/// The pixels in `box`; what lies outside of the image is `fill`.
PPMA_API Tensor crop(const Tensor& image, const PixelBox& box, u8 fill = 0);

/// Left and right exchanged.
PPMA_API Tensor flip_horizontal(const Tensor& image);

/// The image (H,W,C) mirrored left to right with the given probability.
PPMA_API Tensor random_flip(const Tensor& image, Rng& rng, double probability = 0.5);

/// A crop of height x width at a uniform place of the image with `padding` black pixels on each
/// side.
PPMA_API Tensor random_crop(const Tensor& image, i64 height, i64 width, i64 padding, Rng& rng);

/// The middle of the image: offsets round((size - crop) / 2).
PPMA_API Tensor center_crop(const Tensor& image, i64 height, i64 width);

struct ResizedCrop {
  double least_area = 0.08, most_area = 1;             // fractions of the image
  double least_ratio = 3.0 / 4, most_ratio = 4.0 / 3;  // width to height
  Filter filter = Filter::bicubic;
};

/// The box of a random resized crop of an H x W image: ten tries with a uniform area and a
/// log-uniform aspect ratio; if none fits, the largest box in the middle whose ratio is allowed.
PPMA_API PixelBox resized_crop_box(i64 H, i64 W, Rng& rng, const ResizedCrop& o = {});

/// A random part of the image as height x width pixels.
PPMA_API Tensor random_resized_crop(const Tensor& image, i64 height, i64 width, Rng& rng,
                                    const ResizedCrop& options = {});

/// The shorter side becomes `size`, the longer int(size * long / short).
PPMA_API Tensor resize_shorter(const Tensor& image, i64 size, Filter filter = Filter::bicubic);

/// Published training at `size`: a random resized crop and a flip; up to 32 pixels a random crop
/// with padding 4.
PPMA_API Transform train_transform(i64 size, const ResizedCrop& options = {});

/// Published evaluation at `size`: the shorter side becomes size * 256 / 224, of which the middle
/// is taken; up to 32 pixels the image as it is, resized where it has another size.
PPMA_API Transform eval_transform(i64 size);

/// Mean and standard deviation of each channel, of levels 0 to 1.
struct Normalization {
  std::array<float, 3> mean{0.485f, 0.456f, 0.406f}, deviation{0.229f, 0.224f, 0.225f};  // ImageNet
};

/// Turns bytes into (level / 255 - mean) / deviation, for all images of a set.
class Normalizer {
 public:
  /// With means and deviations a channel, in colours from 0 to 1.
  PPMA_API explicit Normalizer(const Normalization& n = {});
  /// uint8 (H,W,3) to 3 H W floats at `to`, planes of red, green and blue.
  PPMA_API void operator()(const Tensor& image, float* to) const;

 private:
  float table_[3][256];
};

/// uint8 (H,W,3) to float32 (1,3,H,W), as a network takes it.
PPMA_API Tensor normalize(const Tensor& image, const Normalization& normalization = {});

struct RandomErasing {
  double probability = 0;  // published: 0.25
  double least_area = 0.02, most_area = 1.0 / 3;
  double least_ratio = 0.3;  // height to width, log-uniform between this and its inverse
};

/// The box that random erasing fills in an H x W image; empty if ten tries gave none that is
/// smaller than the image.
PPMA_API PixelBox erasing_box(i64 H, i64 W, Rng& rng, const RandomErasing& o = {});

/// Fills a random box of a normalised image, `channels` planes of H x W at `image`, with standard
/// normal noise.
PPMA_API void random_erase(float* image, i64 channels, i64 H, i64 W, Rng& rng,
                           const RandomErasing& options);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <cmath>
#include <string>

namespace ppma::inline PPMA_ABI {

namespace detail {

inline i64 round_to_int(double x) { return static_cast<i64>(std::nearbyint(x)); }

void check_image(const Tensor& image, const char* op) {
  check(image.defined() && image.rank() == 3 && image.dtype() == DType::uint8 &&
            image.dim(2) == 3 && image.numel() > 0,
        op, ": needs a uint8 image (H,W,3), got ",
        image.defined() ? image.shape().str() : std::string("nothing"), " ", image.dtype());
}

}  // namespace detail

Tensor crop(const Tensor& image, const PixelBox& box, u8 fill) {
  detail::check_image(image, "crop");
  const i64 H = image.dim(0), W = image.dim(1);
  check(box.height > 0 && box.width > 0, "crop: a box of ", box.height, " x ", box.width,
        " pixels");
  Tensor out = Tensor::full({box.height, box.width, 3}, fill, DType::uint8);  // (h,w,3)
  const i64 j0 = std::max(i64{0}, -box.left), j1 = std::min(box.width, W - box.left);
  for (i64 i = std::max(i64{0}, -box.top); i < std::min(box.height, H - box.top) && j0 < j1; ++i)
    std::copy_n(image.data<u8>() + ((box.top + i) * W + box.left + j0) * 3, (j1 - j0) * 3,
                out.data<u8>() + (i * box.width + j0) * 3);
  return out;
}

Tensor flip_horizontal(const Tensor& image) {
  detail::check_image(image, "flip_horizontal");
  Tensor out = Tensor::empty(image.shape(), DType::uint8);
  const i64 W = image.dim(1);
  const u8* from = image.data<u8>();
  u8* to = out.data<u8>();
  for (i64 i = 0; i < image.dim(0); ++i, from += W * 3)
    for (i64 j = W - 1; j >= 0; --j, to += 3) std::copy_n(from + j * 3, 3, to);
  return out;
}

Tensor random_flip(const Tensor& image, Rng& rng, double probability) {
  return rng.flip(probability) ? flip_horizontal(image) : image;
}

Tensor random_crop(const Tensor& image, i64 height, i64 width, i64 padding, Rng& rng) {
  detail::check_image(image, "random_crop");
  const i64 rows = image.dim(0) + 2 * padding - height,
            columns = image.dim(1) + 2 * padding - width;
  check(padding >= 0 && rows >= 0 && columns >= 0, "random_crop: ", height, " x ", width,
        " pixels from ", image.shape(), " with ", padding,
        " around it; resize the image first or pad more");
  const i64 top = rng.below(rows + 1) - padding, left = rng.below(columns + 1) - padding;
  return crop(image, {top, left, height, width});
}

Tensor center_crop(const Tensor& image, i64 height, i64 width) {
  detail::check_image(image, "center_crop");
  const auto offset = [](i64 size, i64 part) {
    return detail::round_to_int(static_cast<double>(size - part) / 2);
  };
  return crop(image, {offset(image.dim(0), height), offset(image.dim(1), width), height, width});
}

PixelBox resized_crop_box(i64 H, i64 W, Rng& rng, const ResizedCrop& o) {
  const double area = static_cast<double>(H * W);
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = area * rng.uniform(o.least_area, o.most_area);
    const double ratio = std::exp(rng.uniform(std::log(o.least_ratio), std::log(o.most_ratio)));
    const i64 w = detail::round_to_int(std::sqrt(target * ratio)),
              h = detail::round_to_int(std::sqrt(target / ratio));
    if (w < 1 || h < 1 || w > W || h > H) continue;
    const i64 top = rng.below(H - h + 1);
    return {top, rng.below(W - w + 1), h, w};
  }
  const double ratio = static_cast<double>(W) / static_cast<double>(H);
  i64 w = W, h = H;
  if (ratio < o.least_ratio)
    h = std::min(H, std::max(i64{1}, detail::round_to_int(static_cast<double>(W) / o.least_ratio)));
  if (ratio > o.most_ratio)
    w = std::min(W, std::max(i64{1}, detail::round_to_int(static_cast<double>(H) * o.most_ratio)));
  return {(H - h) / 2, (W - w) / 2, h, w};
}

Tensor random_resized_crop(const Tensor& image, i64 height, i64 width, Rng& rng,
                           const ResizedCrop& options) {
  detail::check_image(image, "random_resized_crop");
  return resize_antialiased(crop(image, resized_crop_box(image.dim(0), image.dim(1), rng, options)),
                            height, width, options.filter);
}

Tensor resize_shorter(const Tensor& image, i64 size, Filter filter) {
  detail::check_image(image, "resize_shorter");
  const i64 H = image.dim(0), W = image.dim(1);
  return H <= W ? resize_antialiased(image, size, size * W / H, filter)
                : resize_antialiased(image, size * H / W, size, filter);
}

Transform train_transform(i64 size, const ResizedCrop& options) {
  return [size, options](const Tensor& image, Rng& rng) {
    if (size > 32) return random_flip(random_resized_crop(image, size, size, rng, options), rng);
    const bool fits = image.dim(0) >= size && image.dim(1) >= size;
    return random_flip(random_crop(fits ? image : resize_shorter(image, size), size, size, 4, rng),
                       rng);
  };
}

Transform eval_transform(i64 size) {
  return [size](const Tensor& image, Rng&) {
    if (size > 32) return center_crop(resize_shorter(image, size * 256 / 224), size, size);
    return image.dim(0) == size && image.dim(1) == size
               ? image
               : center_crop(resize_shorter(image, size), size, size);
  };
}

Normalizer::Normalizer(const Normalization& n) {
  for (std::size_t c = 0; c < 3; ++c)
    for (std::size_t level = 0; level < 256; ++level)
      table_[c][level] = (static_cast<float>(level) / 255.0f - n.mean[c]) / n.deviation[c];
}

void Normalizer::operator()(const Tensor& image, float* to) const {
  detail::check_image(image, "normalize");
  const i64 n = image.dim(0) * image.dim(1);
  const u8* from = image.data<u8>();
  for (std::size_t c = 0; c < 3; ++c, ++from)
    for (i64 i = 0; i < n; ++i) *to++ = table_[c][from[3 * i]];
}

Tensor normalize(const Tensor& image, const Normalization& normalization) {
  detail::check_image(image, "normalize");
  Tensor out = Tensor::empty({1, 3, image.dim(0), image.dim(1)});
  Normalizer{normalization}(image, out.data<float>());
  return out;
}

PixelBox erasing_box(i64 H, i64 W, Rng& rng, const RandomErasing& o) {
  for (int attempt = 0; attempt < 10; ++attempt) {
    const double target = static_cast<double>(H * W) * rng.uniform(o.least_area, o.most_area);
    const double ratio = std::exp(rng.uniform(std::log(o.least_ratio), -std::log(o.least_ratio)));
    const i64 h = detail::round_to_int(std::sqrt(target * ratio)),
              w = detail::round_to_int(std::sqrt(target / ratio));
    if (h < 1 || w < 1 || h >= H || w >= W) continue;
    const i64 top = rng.below(H - h + 1);
    return {top, rng.below(W - w + 1), h, w};
  }
  return {};
}

void random_erase(float* image, i64 channels, i64 H, i64 W, Rng& rng,
                  const RandomErasing& options) {
  if (!rng.flip(options.probability)) return;
  const PixelBox box = erasing_box(H, W, rng, options);
  for (i64 c = 0; c < channels; ++c)
    for (i64 i = box.top; i < box.top + box.height; ++i)
      for (i64 j = box.left; j < box.left + box.width; ++j)
        image[(c * H + i) * W + j] = static_cast<float>(rng.normal());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
