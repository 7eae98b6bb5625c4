#pragma once
#include "ppma/core/names_begin.hpp"
// Batches for a detector (recipes 3.3): images resized, cropped, flipped, padded and stacked; for a
// BatchStream. A sample's augmentation is keyed by seed, epoch and its place in the epoch. Legend:
// B batch, H W pixels.

#include <array>
#include <vector>

#include "ppma/data/batch_stream.hpp"
#include "ppma/data/detection.hpp"

namespace ppma::inline PPMA_ABI {

struct DetectionLoading {
  i64 batch = 2;  // of all processes together
  i64 longer = 1333;
  std::vector<i64> shorter{800};  // one is drawn for each image
  double flip = 0.5;
  // share of images that are brought to another size, cropped, and only then resized
  double crop = 0;
  std::vector<i64> crop_shorter{400, 500, 600};  // sizes to crop from; `longer` holds for them too
  std::array<i64, 2> crop_side{384, 600};        // of a crop, at least and at most
  i64 divisor = 32;
  u64 seed = 0;
  BatchPart part{};  // of every batch, for this process
  Normalization normalization{};
};

/// The published 3x schedule's: shorter side 480 to 800, half of the images cropped before; for
/// other sizes in proportion.
PPMA_API DetectionLoading multi_scale_loading(i64 longer = 1333, i64 shorter = 800);

/// One sample as training sees it.
PPMA_API void augment_detection(DetectionSample& s, const DetectionLoading& o, Rng& rng);

/// The samples stacked, each in the upper left corner. Masks keep their own image's size.
PPMA_API DetectionBatch stack_samples(std::vector<DetectionSample> samples,
                                      const std::vector<std::array<i64, 2>>& originals, i64 divisor,
                                      const Normalization& normalization);

/// An image for evaluation.
PPMA_API DetectionBatch evaluation_batch(DetectionSample sample, const DetectionLoading& o);

/// Wide and high images do not share a batch; incomplete ones, which come last, are left out where
/// several processes share them. Errors: an empty set, a batch or sizes that make none, a part that
/// there is not.
PPMA_API BatchPlan<DetectionBatch> detection_batches(DetectionSet set, DetectionLoading options);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <memory>

namespace ppma::inline PPMA_ABI {

DetectionLoading multi_scale_loading(i64 longer, i64 shorter) {
  check(longer > 0 && shorter > 0, "multi_scale_loading: images of ", longer, " x ", shorter);
  const auto part = [shorter](i64 side) { return std::max(i64{1}, (side * shorter + 400) / 800); };
  DetectionLoading o;
  o.longer = longer, o.crop = 0.5;
  o.shorter.clear();
  for (i64 side = 480; side <= 800; side += 32) o.shorter.push_back(part(side));
  o.crop_shorter = {part(400), part(500), part(600)}, o.crop_side = {part(384), part(600)};
  return o;
}

void augment_detection(DetectionSample& s, const DetectionLoading& o, Rng& rng) {
  const auto resize_to_one_of = [&](const std::vector<i64>& sides) {
    const i64 shorter = sides[static_cast<std::size_t>(rng.below(static_cast<i64>(sides.size())))];
    const auto size = keep_aspect(s.image.dim(0), s.image.dim(1), o.longer, shorter);
    resize_sample(s, size[0], size[1]);
  };
  if (o.crop > 0 && rng.flip(o.crop)) {
    resize_to_one_of(o.crop_shorter);
    const i64 H = s.image.dim(0), W = s.image.dim(1);
    const auto drawn = [&](i64 size) {
      const i64 least = std::min(size, o.crop_side[0]);
      return least + rng.below(std::min(size, o.crop_side[1]) - least + 1);
    };
    const i64 height = drawn(H), width = drawn(W);
    const i64 top = rng.below(H - height + 1), left = rng.below(W - width + 1);
    crop_sample(s, {top, left, height, width});
  }
  resize_to_one_of(o.shorter);
  if (rng.flip(o.flip)) flip_sample(s);
  drop_empty(s.objects);  // thin boxes may have been rounded to nothing
}

DetectionBatch stack_samples(std::vector<DetectionSample> samples,
                             const std::vector<std::array<i64, 2>>& originals, i64 divisor,
                             const Normalization& normalization) {
  DetectionBatch batch;
  const auto up = [divisor](i64 n) { return (n + divisor - 1) / divisor * divisor; };
  i64 height = 0, width = 0;
  for (std::size_t b = 0; b < samples.size(); ++b) {
    const i64 h = samples[b].image.dim(0), w = samples[b].image.dim(1);
    batch.frames.push_back(
        {h, w, up(h), up(w), originals[b][0], originals[b][1], samples[b].image_id});
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
      std::copy_n(
          planes.data() + row * f.width, f.width,
          batch.images.data<float>() +
              ((static_cast<i64>(b) * 3 + row / f.height) * height + row % f.height) * width);
    batch.objects.push_back(std::move(samples[b].objects));
  }
  return batch;
}

DetectionBatch evaluation_batch(DetectionSample sample, const DetectionLoading& o) {
  const std::array<i64, 2> original{sample.image.dim(0), sample.image.dim(1)};
  const auto size = keep_aspect(original[0], original[1], o.longer, o.shorter.back());
  resize_sample(sample, size[0], size[1]);
  std::vector<DetectionSample> one;
  one.push_back(std::move(sample));
  return stack_samples(std::move(one), {original}, o.divisor, o.normalization);
}

namespace detail {

/// The samples of each batch of an epoch.
inline std::vector<std::vector<i64>> detection_groups(const DetectionSet& set,
                                                      const DetectionLoading& o, i64 epoch) {
  std::vector<std::vector<i64>> groups;
  std::vector<i64> waiting[2];  // high, wide
  for (const i64 i : epoch_order(set.size, epoch, o.seed, true)) {
    std::vector<i64>& kind =
        waiting[!set.wide.empty() && set.wide[static_cast<std::size_t>(i)] ? 1 : 0];
    kind.push_back(i);
    if (static_cast<i64>(kind.size()) < o.batch) continue;
    groups.push_back(kind);
    kind.clear();
  }
  for (const std::vector<i64>& kind : waiting)
    if (!kind.empty() && o.part.ranks == 1) groups.push_back(kind);
  return groups;
}

inline DetectionBatch detection_batch(const DetectionSet& set, const DetectionLoading& o, i64 epoch,
                                      const std::vector<i64>& group, i64 number) {
  std::vector<DetectionSample> samples;
  std::vector<std::array<i64, 2>> originals;
  const i64 all = static_cast<i64>(group.size());
  for (i64 k = o.part.begin(all); k < o.part.end(all); ++k) {
    Rng rng(o.seed, static_cast<u64>(epoch), static_cast<u64>(number * o.batch + k), 0xde7);
    DetectionSample s = set.load(group[static_cast<std::size_t>(k)]);
    originals.push_back({s.image.dim(0), s.image.dim(1)});
    augment_detection(s, o, rng);
    samples.push_back(std::move(s));
  }
  return stack_samples(std::move(samples), originals, o.divisor, o.normalization);
}

}  // namespace detail

BatchPlan<DetectionBatch> detection_batches(DetectionSet of, DetectionLoading o) {
  check(of.size > 0, "detection loader: ", of.name, " has no images",
        of.left_out.empty() ? "" : " to learn from; left out: ", of.left_out);
  check(o.batch > 0 && !o.shorter.empty(),
        "detection loader: needs a batch of at least 1 and a size");
  check(o.crop == 0 ||
            (!o.crop_shorter.empty() && o.crop_side[0] > 0 && o.crop_side[0] <= o.crop_side[1]),
        "detection loader: crops of ", o.crop_side[0], " to ", o.crop_side[1], " pixels");
  o.part.require("detection loader", o.batch);
  const auto set = std::make_shared<const DetectionSet>(std::move(of));
  const auto batches = static_cast<i64>(detail::detection_groups(*set, o, 0).size());
  return {batches, [set, o](i64 epoch) {
            return [set, o, epoch, groups = detail::detection_groups(*set, o, epoch)](i64 number) {
              return detail::detection_batch(*set, o, epoch,
                                             groups[static_cast<std::size_t>(number)], number);
            };
          }};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
