#pragma once
#include "ppma/core/names_begin.hpp"
// Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019) of a batch with itself in reverse order,
// and the soft targets that go with them, as in timm 0.5.4 (batch mode). Legend: B images, K
// classes.

#include "ppma/core/random.hpp"
#include "ppma/data/augment.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// A draw from Gamma(shape, 1): Marsaglia and Tsang, "A simple method for generating gamma
/// variables", 2000.
PPMA_API double draw_gamma(double shape, Rng& rng);

/// A draw from Beta(a, b).
PPMA_API double draw_beta(double a, double b, Rng& rng);

struct MixOptions {
  double mixup = 0;                 // alpha of Beta(alpha, alpha); published: 0.8
  double cutmix = 0;                // published: 1.0
  double switch_probability = 0.5;  // of CutMix, where both are on
  double smoothing = 0.1;           // of the targets

  /// Whether batches are mixed at all.
  bool on() const { return mixup > 0 || cutmix > 0; }
};

/// One-hot rows with label smoothing, for labels int64 (B): float32 (B,K), smoothing / K everywhere
/// and 1 - smoothing more at the label. Errors: a label outside of 0 .. K-1.
PPMA_API Tensor soft_targets(const Tensor& labels, i64 classes, double smoothing);

/// CutMix's box in an H x W image for a share `lambda` that is to remain: centre uniform, clipped
/// to the image.
PPMA_API PixelBox cutmix_box(i64 H, i64 W, double lambda, Rng& rng);

/// images = lambda images + (1 - lambda) reversed images.
PPMA_API void mixup(Tensor& images, double lambda);

/// The pixels in `box` are exchanged with the reversed batch's. Images (B,C,H,W).
PPMA_API void cutmix(Tensor& images, const PixelBox& box);

/// Mixes images f32 (B,C,H,W) in place and returns their soft targets (B,K). One draw decides for
/// the whole batch. In an odd batch the middle image is its own partner.
PPMA_API Tensor mix_batch(Tensor& images, const Tensor& labels, i64 classes,
                          const MixOptions& options, Rng rng);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <cmath>

namespace ppma::inline PPMA_ABI {

double draw_gamma(double shape, Rng& rng) {
  if (shape < 1) {
    const double boosted = draw_gamma(shape + 1, rng);
    return boosted * std::pow(1 - rng.uniform(), 1 / shape);
  }
  const double d = shape - 1.0 / 3, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = rng.normal(), root = 1 + c * x, v = root * root * root;
    if (root > 0 && std::log(1 - rng.uniform()) < 0.5 * x * x + d - d * v + d * std::log(v))
      return d * v;
  }
}

double draw_beta(double a, double b, Rng& rng) {
  const double x = draw_gamma(a, rng), y = draw_gamma(b, rng);
  return x + y > 0 ? x / (x + y) : 0.5;
}

Tensor soft_targets(const Tensor& labels, i64 classes, double smoothing) {
  check(labels.defined() && labels.rank() == 1 && labels.dtype() == DType::int64,
        "soft_targets: labels must be int64 (B)");
  const double off = smoothing / static_cast<double>(classes);
  Tensor targets = Tensor::full({labels.dim(0), classes}, off);  // (B,K)
  for (i64 b = 0; b < labels.dim(0); ++b) {
    const i64 label = labels.data<i64>()[b];
    check(label >= 0 && label < classes, "soft_targets: label ", label, " of ", classes,
          " classes");
    targets.data<float>()[b * classes + label] = static_cast<float>(1 - smoothing + off);
  }
  return targets;
}

PixelBox cutmix_box(i64 H, i64 W, double lambda, Rng& rng) {
  const double side = std::sqrt(1 - lambda);
  const i64 half_h = static_cast<i64>(static_cast<double>(H) * side) / 2,
            half_w = static_cast<i64>(static_cast<double>(W) * side) / 2;
  const i64 y = rng.below(H), x = rng.below(W);
  const i64 top = std::max(i64{0}, y - half_h), left = std::max(i64{0}, x - half_w);
  return {top, left, std::min(H, y + half_h) - top, std::min(W, x + half_w) - left};
}

void mixup(Tensor& images, double lambda) {
  const i64 B = images.dim(0), n = images.numel() / B;
  const float keep = static_cast<float>(lambda), give = static_cast<float>(1 - lambda);
  for (i64 b = 0; b < B / 2; ++b) {  // both of a pair at once
    float* x = images.data<float>() + b * n;
    float* y = images.data<float>() + (B - 1 - b) * n;
    for (i64 i = 0; i < n; ++i) {
      const float a = x[i], c = y[i];
      x[i] = a * keep + c * give;
      y[i] = c * keep + a * give;
    }
  }
}

void cutmix(Tensor& images, const PixelBox& box) {
  const i64 B = images.dim(0), C = images.dim(1), H = images.dim(2), W = images.dim(3);
  for (i64 b = 0; b < B / 2; ++b)
    for (i64 c = 0; c < C; ++c)
      for (i64 i = box.top; i < box.top + box.height; ++i) {
        float* x = images.data<float>() + ((b * C + c) * H + i) * W + box.left;
        std::swap_ranges(x, x + box.width,
                         images.data<float>() + (((B - 1 - b) * C + c) * H + i) * W + box.left);
      }
}

Tensor mix_batch(Tensor& images, const Tensor& labels, i64 classes, const MixOptions& options,
                 Rng rng) {
  check(images.defined() && images.rank() == 4 && images.dtype() == DType::f32 &&
            images.dim(0) == labels.dim(0),
        "mix_batch: needs images (B,C,H,W) and labels (B)");
  Tensor targets = soft_targets(labels, classes, options.smoothing);  // (B,K)
  if (!options.on()) return targets;
  const bool cut =
      options.cutmix > 0 && (options.mixup <= 0 || rng.flip(options.switch_probability));
  const double alpha = cut ? options.cutmix : options.mixup;
  double lambda = draw_beta(alpha, alpha, rng);
  if (cut) {
    const i64 H = images.dim(2), W = images.dim(3);
    const PixelBox box = cutmix_box(H, W, lambda, rng);
    cutmix(images, box);
    // what really remains
    lambda = 1 - static_cast<double>(box.height * box.width) / static_cast<double>(H * W);
  } else {
    mixup(images, lambda);
  }
  mixup(targets, lambda);
  return targets;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
