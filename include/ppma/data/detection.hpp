#pragma once
// Images with objects in them: what a detector learns from and is judged by; and their geometry (spec 7.3): resizing
// with the aspect kept, flipping, padding and stacking. Legend: H W pixels, n objects, B batch.

#include <functional>
#include <future>
#include <string>
#include <vector>

#include "ppma/data/augment.hpp"
#include "ppma/data/loader.hpp"
#include "ppma/io/resize.hpp"
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
  std::function<DetectionSample(i64)> load;

  i64 classes() const { return static_cast<i64>(class_names.size()); }
};

/// Where an image lies in a batch.
struct Frame {
  i64 height = 0, width = 0;                    // as the network sees it, without padding
  i64 padded_height = 0, padded_width = 0;      // to a multiple of the divisor; the batch may be larger
  i64 original_height = 0, original_width = 0;  // in the file
  i64 image_id = 0;
  double scale_x() const { return static_cast<double>(width) / static_cast<double>(original_width); }
  double scale_y() const { return static_cast<double>(height) / static_cast<double>(original_height); }
};

struct DetectionBatch {
  Tensor images;  // f32 (B,3,H,W), normalised; padding is 0
  std::vector<Frame> frames;
  std::vector<Objects> objects;
};

/// The size of an image brought into long x short with its aspect kept, as mmcv rounds it.
inline std::array<i64, 2> keep_aspect(i64 height, i64 width, i64 longer, i64 shorter) {
  const double f = std::min(static_cast<double>(longer) / static_cast<double>(std::max(height, width)),
                            static_cast<double>(shorter) / static_cast<double>(std::min(height, width)));
  const auto scaled = [f](i64 n) { return std::max(i64{1}, static_cast<i64>(static_cast<double>(n) * f + 0.5)); };
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

/// Image bilinear, masks nearest, boxes scaled and clipped.
inline void resize_sample(DetectionSample& s, i64 height, i64 width) {
  const i64 h = s.image.dim(0), w = s.image.dim(1);
  if (h == height && w == width) return;
  const float fx = static_cast<float>(width) / static_cast<float>(w), fy = static_cast<float>(height) / static_cast<float>(h);
  s.image = resize_bilinear(s.image, height, width);
  for (Box& b : s.objects.boxes)
    b = {std::clamp(b.x1 * fx, 0.0f, static_cast<float>(width)), std::clamp(b.y1 * fy, 0.0f, static_cast<float>(height)),
         std::clamp(b.x2 * fx, 0.0f, static_cast<float>(width)), std::clamp(b.y2 * fy, 0.0f, static_cast<float>(height))};
  if (s.objects.masks.defined())
    s.objects.masks = detail::each_mask(s.objects.masks, height, width, [&](const Tensor& m) { return resize_nearest(m, height, width); });
}

/// Left and right exchanged.
inline void flip_sample(DetectionSample& s) {
  s.image = flip_horizontal(s.image);
  const float w = static_cast<float>(s.image.dim(1));
  for (Box& b : s.objects.boxes) b = {w - b.x2, b.y1, w - b.x1, b.y2};
  if (!s.objects.masks.defined()) return;
  const i64 width = s.image.dim(1);
  Tensor flipped = s.objects.masks.clone();
  u8* p = flipped.data<u8>();
  for (i64 row = 0; row < flipped.dim(0) * flipped.dim(1); ++row) std::reverse(p + row * width, p + (row + 1) * width);
  s.objects.masks = flipped;
}

struct DetectionLoading {
  i64 batch = 2;
  i64 longer = 1333;
  std::vector<i64> shorter{800};  // one is drawn for each image
  double flip = 0.5;
  i64 divisor = 32;
  u64 seed = 0;
  Normalization normalization{};
};

/// The samples stacked, each in the upper left corner. Masks keep their own image's size.
inline DetectionBatch stack_samples(std::vector<DetectionSample> samples, const std::vector<std::array<i64, 2>>& originals,
                                    i64 divisor, const Normalization& normalization) {
  DetectionBatch batch;
  const auto up = [divisor](i64 n) { return (n + divisor - 1) / divisor * divisor; };
  i64 height = 0, width = 0;
  for (std::size_t b = 0; b < samples.size(); ++b) {
    const i64 h = samples[b].image.dim(0), w = samples[b].image.dim(1);
    batch.frames.push_back({h, w, up(h), up(w), originals[b][0], originals[b][1], samples[b].image_id});
    height = std::max(height, up(h)), width = std::max(width, up(w));
  }
  batch.images = Tensor::zeros({static_cast<i64>(samples.size()), 3, height, width});
  const Normalizer normalize(normalization);
  std::vector<float> planes;
  for (std::size_t b = 0; b < samples.size(); ++b) {
    const Frame& f = batch.frames[b];
    planes.resize(static_cast<std::size_t>(3 * f.height * f.width));
    normalize(samples[b].image, planes.data());
    for (i64 row = 0; row < 3 * f.height; ++row)
      std::copy_n(planes.data() + row * f.width, f.width,
                  batch.images.data<float>() + ((static_cast<i64>(b) * 3 + row / f.height) * height + row % f.height) * width);
    batch.objects.push_back(std::move(samples[b].objects));
  }
  return batch;
}

/// An image for evaluation.
inline DetectionBatch evaluation_batch(DetectionSample sample, const DetectionLoading& o) {
  const std::array<i64, 2> original{sample.image.dim(0), sample.image.dim(1)};
  const auto size = keep_aspect(original[0], original[1], o.longer, o.shorter.back());
  resize_sample(sample, size[0], size[1]);
  std::vector<DetectionSample> one;
  one.push_back(std::move(sample));
  return stack_samples(std::move(one), {original}, o.divisor, o.normalization);
}

/// Batches of an epoch, each a function of (seed, epoch, its number); the next one is made while one is used.
class DetectionLoader {
 public:
  DetectionLoader(DetectionSet set, DetectionLoading options) : set_(std::move(set)), options_(std::move(options)) {
    check(set_.size > 0, "detection loader: ", set_.name, " has no images");
    check(options_.batch > 0 && !options_.shorter.empty(), "detection loader: needs a batch of at least 1 and a size");
    start(0);
  }
  ~DetectionLoader() { wait(); }
  DetectionLoader(const DetectionLoader&) = delete;
  DetectionLoader& operator=(const DetectionLoader&) = delete;

  i64 batches() const { return static_cast<i64>(groups_.size()); }
  void start(i64 epoch) {
    wait();
    epoch_ = epoch, given_ = 0;
    groups_.clear();
    std::vector<i64> waiting[2];  // high, wide
    for (const i64 i : epoch_order(set_.size, epoch, options_.seed, true)) {
      std::vector<i64>& kind = waiting[!set_.wide.empty() && set_.wide[static_cast<std::size_t>(i)] ? 1 : 0];
      kind.push_back(i);
      if (static_cast<i64>(kind.size()) < options_.batch) continue;
      groups_.push_back(kind);
      kind.clear();
    }
    for (std::vector<i64>& kind : waiting)
      if (!kind.empty()) groups_.push_back(kind);
  }
  bool next(DetectionBatch& batch) {
    if (given_ >= batches()) return false;
    batch = coming_.valid() ? coming_.get() : make(given_);
    if (++given_ < batches())
      coming_ = std::async(std::launch::async, [this, n = given_] {
        set_threads(1);
        return make(n);
      });
    return true;
  }

 private:
  void wait() {
    if (coming_.valid()) coming_.wait();
    coming_ = {};
  }
  DetectionBatch make(i64 number) const {
    std::vector<DetectionSample> samples;
    std::vector<std::array<i64, 2>> originals;
    const std::vector<i64>& group = groups_[static_cast<std::size_t>(number)];
    for (std::size_t k = 0; k < group.size(); ++k) {
      Rng rng(options_.seed, static_cast<u64>(epoch_), static_cast<u64>(number * options_.batch) + k, 0xde7);
      DetectionSample s = set_.load(group[k]);
      originals.push_back({s.image.dim(0), s.image.dim(1)});
      const i64 shorter = options_.shorter[static_cast<std::size_t>(rng.below(static_cast<i64>(options_.shorter.size())))];
      const auto size = keep_aspect(s.image.dim(0), s.image.dim(1), options_.longer, shorter);
      resize_sample(s, size[0], size[1]);
      if (rng.flip(options_.flip)) flip_sample(s);
      samples.push_back(std::move(s));
    }
    return stack_samples(std::move(samples), originals, options_.divisor, options_.normalization);
  }

  DetectionSet set_;
  DetectionLoading options_;
  i64 epoch_ = 0, given_ = 0;
  std::vector<std::vector<i64>> groups_;  // samples of each batch
  std::future<DetectionBatch> coming_;
};

}  // namespace ppma::inline PPMA_ABI
