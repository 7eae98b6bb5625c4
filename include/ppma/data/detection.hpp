#pragma once
#include "ppma/core/names_begin.hpp"
// Images with objects in them: what a detector learns from and is judged by; and their geometry
// (recipes 3.3): resizing with the aspect kept, cropping, flipping. Legend: H W pixels, n objects,
// B batch.

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "ppma/data/augment.hpp"
#include "ppma/ops/nms.hpp"

namespace ppma::inline PPMA_ABI {

struct Objects {
  std::vector<Box> boxes;    // pixels of the image that they go with
  std::vector<i64> classes;  // n
  Tensor masks;              // uint8 (n,H,W), or undefined where the set has boxes alone
};

struct DetectionSample {
  Tensor image;  // uint8 (H,W,3)
  Objects objects;
  i64 image_id = 0;
  std::string name;  // for messages
};

struct DetectionSet {
  std::string name;
  i64 size = 0;
  std::vector<std::string> class_names;
  std::vector<i64> category_ids;  // of the classes, in results
  bool masks = false;
  std::vector<bool> wide;  // wider than high: batches are of one kind
  std::string left_out;    // what of the files is not in the set and why, for messages
  std::function<DetectionSample(i64)> load;

  /// How many classes there are.
  i64 classes() const { return static_cast<i64>(class_names.size()); }
};

/// Where an image lies in a batch.
struct Frame {
  i64 height = 0, width = 0;  // as the network sees it, without padding
  // to a multiple of the divisor; the batch may be larger
  i64 padded_height = 0, padded_width = 0;
  i64 original_height = 0, original_width = 0;  // in the file
  i64 image_id = 0;
  /// By how much the image was made wider.
  double scale_x() const {
    return static_cast<double>(width) / static_cast<double>(original_width);
  }
  /// By how much it was made higher.
  double scale_y() const {
    return static_cast<double>(height) / static_cast<double>(original_height);
  }
};

struct DetectionBatch {
  Tensor images;  // f32 (B,3,H,W), normalised; padding is 0
  std::vector<Frame> frames;
  std::vector<Objects> objects;

  /// What a network is given of it: images.
  std::vector<Tensor*> tensors() { return {&images}; }
};

/// The size of an image brought into long x short with its aspect kept, as mmcv rounds it. Error:
/// sizes that are not positive.
PPMA_API std::array<i64, 2> keep_aspect(i64 height, i64 width, i64 longer, i64 shorter);

/// Image bilinear, masks nearest, boxes scaled and clipped.
PPMA_API void resize_sample(DetectionSample& s, i64 height, i64 width);

/// Leaves out the objects whose box has no width or no height: the logarithm of a target's size
/// must exist.
PPMA_API void drop_empty(Objects& o);

/// Left and right exchanged.
PPMA_API void flip_sample(DetectionSample& s);

/// What of a sample lies in `window`: boxes moved and clipped, objects without a rest of their box
/// left out.
PPMA_API void crop_sample(DetectionSample& s, const PixelBox& window);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

std::array<i64, 2> keep_aspect(i64 height, i64 width, i64 longer, i64 shorter) {
  check(height > 0 && width > 0, "keep_aspect: an image of ", height, " x ", width, " pixels");
  check(longer > 0 && shorter > 0, "keep_aspect: images are to be brought to ", longer, " x ",
        shorter, " pixels; both must be positive");
  const double f =
      std::min(static_cast<double>(longer) / static_cast<double>(std::max(height, width)),
               static_cast<double>(shorter) / static_cast<double>(std::min(height, width)));
  const auto scaled = [f](i64 n) {
    return std::max(i64{1}, static_cast<i64>(static_cast<double>(n) * f + 0.5));
  };
  return {scaled(height), scaled(width)};
}

namespace detail {

/// f(one mask as (H,W,1)) for each of (n,H,W).
template <class F>
Tensor each_mask(const Tensor& masks, i64 height, i64 width, F f) {
  Tensor out = Tensor::empty({masks.dim(0), height, width}, DType::uint8);
  const i64 from = masks.dim(1) * masks.dim(2), to = height * width;
  for (i64 k = 0; k < masks.dim(0); ++k) {
    Tensor one = Tensor::empty({masks.dim(1), masks.dim(2), 1}, DType::uint8);
    std::copy_n(masks.data<u8>() + k * from, from, one.data<u8>());
    const Tensor made = f(one);
    std::copy_n(made.data<u8>(), to, out.data<u8>() + k * to);
  }
  return out;
}

}  // namespace detail

void resize_sample(DetectionSample& s, i64 height, i64 width) {
  const i64 h = s.image.dim(0), w = s.image.dim(1);
  if (h == height && w == width) return;
  const float fx = static_cast<float>(width) / static_cast<float>(w),
              fy = static_cast<float>(height) / static_cast<float>(h);
  s.image = resize_bilinear(s.image, height, width);
  for (Box& b : s.objects.boxes)
    b = {std::clamp(b.x1 * fx, 0.0f, static_cast<float>(width)),
         std::clamp(b.y1 * fy, 0.0f, static_cast<float>(height)),
         std::clamp(b.x2 * fx, 0.0f, static_cast<float>(width)),
         std::clamp(b.y2 * fy, 0.0f, static_cast<float>(height))};
  if (s.objects.masks.defined())
    s.objects.masks = detail::each_mask(s.objects.masks, height, width, [&](const Tensor& m) {
      return resize_nearest(m, height, width);
    });
}

void drop_empty(Objects& o) {
  Objects kept;
  std::vector<i64> which;
  for (std::size_t k = 0; k < o.boxes.size(); ++k) {
    if (!(o.boxes[k].width() > 0 && o.boxes[k].height() > 0)) continue;
    kept.boxes.push_back(o.boxes[k]), kept.classes.push_back(o.classes[k]);
    which.push_back(static_cast<i64>(k));
  }
  if (which.size() == o.boxes.size()) return;
  if (o.masks.defined()) {
    const i64 pixels = o.masks.dim(1) * o.masks.dim(2);
    kept.masks = Tensor::empty({static_cast<i64>(which.size()), o.masks.dim(1), o.masks.dim(2)},
                               DType::uint8);
    u8* to = kept.masks.data<u8>();
    for (const i64 k : which) to = std::copy_n(o.masks.data<u8>() + k * pixels, pixels, to);
  }
  o = std::move(kept);
}

void flip_sample(DetectionSample& s) {
  s.image = flip_horizontal(s.image);
  const float w = static_cast<float>(s.image.dim(1));
  for (Box& b : s.objects.boxes) b = {w - b.x2, b.y1, w - b.x1, b.y2};
  if (!s.objects.masks.defined()) return;
  const i64 width = s.image.dim(1);
  Tensor flipped = s.objects.masks.clone();
  u8* p = flipped.data<u8>();
  for (i64 row = 0; row < flipped.dim(0) * flipped.dim(1); ++row)
    std::reverse(p + row * width, p + (row + 1) * width);
  s.objects.masks = flipped;
}

void crop_sample(DetectionSample& s, const PixelBox& window) {
  const i64 H = s.image.dim(0), W = s.image.dim(1);
  check(window.top >= 0 && window.left >= 0 && window.height > 0 && window.width > 0 &&
            window.top + window.height <= H && window.left + window.width <= W,
        "crop_sample: rows ", window.top, " + ", window.height, ", columns ", window.left, " + ",
        window.width, " of an image of ", H, " x ", W);
  s.image = crop(s.image, window);
  const auto within = [](float v, i64 from, i64 size) {
    return std::clamp(v - static_cast<float>(from), 0.0f, static_cast<float>(size));
  };
  for (Box& b : s.objects.boxes)
    b = {within(b.x1, window.left, window.width), within(b.y1, window.top, window.height),
         within(b.x2, window.left, window.width), within(b.y2, window.top, window.height)};
  if (s.objects.masks.defined()) {
    const i64 n = s.objects.masks.dim(0);
    Tensor masks = Tensor::empty({n, window.height, window.width}, DType::uint8);
    u8* to = masks.data<u8>();
    for (i64 k = 0; k < n; ++k)
      for (i64 i = 0; i < window.height; ++i, to += window.width)
        std::copy_n(s.objects.masks.data<u8>() + (k * H + window.top + i) * W + window.left,
                    window.width, to);
    s.objects.masks = masks;
  }
  drop_empty(s.objects);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
