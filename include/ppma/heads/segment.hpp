#pragma once
#include "ppma/core/names_begin.hpp"
// Labels for an image of any size (recipes 2.4): the whole image at once, or windows that slide
// over it; at one size or several, also flipped, averaging probabilities. Legend: H W the image, K
// classes.

#include <vector>

#include "ppma/data/detection.hpp"
#include "ppma/heads/segmentor.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/softmax.hpp"

namespace ppma::inline PPMA_ABI {

struct SegmentOptions {
  i64 longer = 2048, shorter = 512;  // what images are brought to, with the aspect kept
  i64 crop = 0, stride = 0;          // of sliding windows, stride at most crop; 0: the whole image
  std::vector<double> factors{1.0};  // sizes; published multi-scale: 0.5 to 1.75 in steps of 0.25
  bool flip = false;                 // each size also flipped
  Normalization normalization{};
};

namespace detail {

/// Logits (1,H,W,K), f32 on the host, of images (1,3,H,W) of any size: a side below the network's
/// least is filled up with the mean colour, and cut off again.
template <class Model, class Place>
Tensor whole_logits(Model& model, const Tensor& image, const Place& at) {
  constexpr i64 least = 32;
  const i64 H = image.dim(2), W = image.dim(3);
  Tensor input = image;
  if (H < least) input = concat({input, Tensor::zeros({1, 3, least - H, W})}, 2);
  if (W < least) input = concat({input, Tensor::zeros({1, 3, input.dim(2), least - W})}, 3);
  Context ctx;
  const Tensor logits = cast(model.forward(at(input), ctx), DType::f32).to(Device::cpu);
  return H < least || W < least ? narrow(narrow(logits, 1, 0, H), 2, 0, W) : logits;
}

/// Logits (1,H,W,K), f32 on the host, by windows: each pixel the mean of the windows that see it.
template <class Model, class Place>
Tensor slide_logits(Model& model, const Tensor& image, i64 crop, i64 stride, const Place& at) {
  const i64 H = image.dim(2), W = image.dim(3);
  const auto windows = [&](i64 size) {
    return std::max(size - crop + stride - 1, i64{0}) / stride + 1;
  };
  Tensor sum;
  std::vector<float> seen(static_cast<std::size_t>(H * W), 0.0f);
  for (i64 a = 0; a < windows(H); ++a)
    for (i64 b = 0; b < windows(W); ++b) {
      const i64 bottom = std::min(a * stride + crop, H), right = std::min(b * stride + crop, W);
      const i64 top = std::max(bottom - crop, i64{0}), left = std::max(right - crop, i64{0});
      const Tensor logits = whole_logits(
          model, narrow(narrow(image, 2, top, bottom - top), 3, left, right - left), at);
      const i64 K = logits.dim(3);
      if (!sum.defined()) sum = Tensor::zeros({1, H, W, K});
      for (i64 i = top; i < bottom; ++i)
        for (i64 j = left; j < right; ++j) {
          ++seen[static_cast<std::size_t>(i * W + j)];
          for (i64 k = 0; k < K; ++k)
            sum.data<float>()[(i * W + j) * K + k] +=
                logits.data<float>()[((i - top) * (right - left) + j - left) * K + k];
        }
    }
  const i64 K = sum.dim(3);
  for (i64 p = 0; p < H * W; ++p)
    for (i64 k = 0; k < K; ++k) sum.data<float>()[p * K + k] /= seen[static_cast<std::size_t>(p)];
  return sum;
}

}  // namespace detail

/// Leaves images where they are.
struct InPlace {
  /// x itself.
  const Tensor& operator()(const Tensor& x) const { return x; }
};

/// Probabilities f32 (1,H,W,K) of an image uint8 (H,W,3), on the host. at(x) brings the network's
/// input to where it is (a Placement).
template <class Model, class Place = InPlace>
Tensor segment_probabilities(Model& model, const Tensor& image, const SegmentOptions& o,
                             const Place& at = {}) {
  detail::check_image(image, "segment");
  check(!o.factors.empty(), "segment: needs a size");
  check(o.crop == 0 || (o.crop > 0 && o.stride > 0 && o.stride <= o.crop), "segment: windows of ",
        o.crop, " pixels cannot slide by ", o.stride, "; the stride must be 1 to ", o.crop,
        ", or pixels stay unseen");
  const NoGrad not_recorded;
  Tensor mean;
  for (const double factor : o.factors)
    for (const bool flipped : {false, true}) {
      if (flipped && !o.flip) continue;
      const auto size = keep_aspect(image.dim(0), image.dim(1),
                                    static_cast<i64>(static_cast<double>(o.longer) * factor),
                                    static_cast<i64>(static_cast<double>(o.shorter) * factor));
      Tensor seen = resize_bilinear(image, size[0], size[1]);
      if (flipped) seen = flip_horizontal(seen);
      const Tensor input = normalize(seen, o.normalization);  // (1,3,h,w)
      const bool slides = o.crop > 0 && (size[0] > o.crop || size[1] > o.crop);
      Tensor logits = slides ? detail::slide_logits(model, input, o.crop, o.stride, at)
                             : detail::whole_logits(model, input, at);
      if (flipped) logits = flip(logits, 2);
      const Tensor p = softmax(resize(logits, image.dim(0), image.dim(1)));
      mean = mean.defined() ? add(mean, p) : p;
    }
  return scale(mean, 1 / static_cast<double>(o.factors.size() * (o.flip ? 2 : 1)));
}

/// The class of every pixel, uint8 (H,W).
template <class Model, class Place = InPlace>
Tensor segment(Model& model, const Tensor& image, const SegmentOptions& o, const Place& at = {}) {
  const Tensor p = segment_probabilities(model, image, o, at);
  const i64 K = p.dim(3);
  check(K <= 255, "segment: ", K, " classes do not fit into a label map of 8 bits");
  Tensor labels = Tensor::empty({image.dim(0), image.dim(1)}, DType::uint8);
  for (i64 i = 0; i < labels.numel(); ++i) {
    const float* row = p.data<float>() + i * K;
    labels.data<u8>()[i] = static_cast<u8>(std::max_element(row, row + K) - row);
  }
  return labels;
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
