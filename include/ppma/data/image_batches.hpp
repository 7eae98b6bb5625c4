#pragma once
#include "ppma/core/names_begin.hpp"
// Batches of a Dataset, augmented, normalised and mixed; for a BatchStream. The augmentation of a
// sample is drawn from a stream keyed by seed, epoch and its place in the epoch's order.
//
//   const ImageLoading how{.batch = 64, .transform = train_transform(32)};
//   BatchStream<Batch> train(image_batches(shapes(), how));
//
// Legend: B batch, H W pixels, K classes.

#include <vector>

#include "ppma/data/augment.hpp"
#include "ppma/data/batch_stream.hpp"
#include "ppma/data/dataset.hpp"
#include "ppma/data/mix.hpp"
#include "ppma/data/sampling.hpp"

namespace ppma::inline PPMA_ABI {

struct ImageLoading {
  i64 batch = 32;  // of all processes together
  bool shuffle = true;
  bool drop_last = true;  // an incomplete batch at the end is left out
  u64 seed = 0;
  BatchPart part{};  // of every batch, for this process
  // repeated augmentation (published: 3); an epoch keeps its length and sees fewer images
  i64 repeats = 1;
  bool balanced = false;  // every class equally often (data/sampling.hpp), shuffled
  Transform transform{};
  Normalization normalization{};
  RandomErasing erasing{};
  MixOptions mix{};
};

struct Batch {
  // f32 (B,3,H,W), normalised; undefined where an incomplete batch has nothing for this process
  Tensor images;
  Tensor targets;              // int64 (B) labels, or f32 (B,K) where the batch was mixed
  std::vector<i64> samples{};  // their numbers in the set (B)

  /// What a network is given of it: images, then the rest.
  std::vector<Tensor*> tensors() { return {&images, &targets}; }
};

/// Errors: an empty set, a batch or repeats below 1, a part that there is not; of making one: what
/// went wrong, with the sample's name.
PPMA_API BatchPlan<Batch> image_batches(Dataset dataset, ImageLoading options = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <exception>
#include <memory>

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The batches of one epoch.
class ImageBatches {
 public:
  ImageBatches(Dataset dataset, ImageLoading options)
      : dataset_(std::move(dataset)),
        options_(std::move(options)),
        normalize_(options_.normalization) {
    check(dataset_.size > 0, "loader: ", dataset_.name, " is empty");
    check(options_.batch > 0 && options_.repeats > 0,
          "loader: batch and repeats must be at least 1");
    options_.part.require("loader", options_.batch);
    check(!options_.balanced || options_.repeats == 1,
          "loader: of a balanced order no sample is repeated; leave one of the two out");
    if (options_.balanced) labels_ = labels_of(dataset_);
    samples_ = static_cast<i64>(epoch_order(dataset_.size, 0, 0, false, options_.repeats).size());
  }

  i64 batches() const {
    return (samples_ + (options_.drop_last ? 0 : options_.batch - 1)) / options_.batch;
  }
  std::vector<i64> order(i64 epoch) const {
    if (options_.balanced) return balanced_order(labels_, epoch, options_.seed);
    return epoch_order(dataset_.size, epoch, options_.seed, options_.shuffle, options_.repeats);
  }

  Batch make(i64 epoch, const std::vector<i64>& order, i64 number) const {
    // A whole batch where it is mixed (each sample with its counterpart from the other end), else
    // this process's part, which of an incomplete batch may be smaller than the others': every
    // sample comes once.
    const i64 begin = number * options_.batch, all = std::min(options_.batch, samples_ - begin);
    const i64 low = options_.part.begin(all), high = options_.part.end(all);
    const bool whole = options_.mix.on();
    const i64 first = whole ? begin : begin + low, B = whole ? all : high - low;
    Batch batch;
    batch.samples.assign(order.begin() + begin + low, order.begin() + begin + high);
    batch.targets = Tensor::empty({B}, DType::int64);
    for (i64 b = 0; b < B; ++b) {
      const i64 index = order[static_cast<std::size_t>(first + b)];
      try {
        put(batch, b, index,
            Rng(options_.seed, static_cast<u64>(epoch), static_cast<u64>(first + b), 0xa09));
      } catch (const std::exception& e) {
        fail(dataset_.name, ": sample ", index, ": ", e.what());
      }
    }
    if (options_.mix.on())
      batch.targets =
          mix_batch(batch.images, batch.targets, dataset_.classes(), options_.mix,
                    Rng(options_.seed, static_cast<u64>(epoch), static_cast<u64>(number), 0x313));
    if (whole && options_.part.ranks > 1) {
      batch.images = rows(batch.images, low, high);
      batch.targets = rows(batch.targets, low, high);
    }
    return batch;
  }

 private:
  static Tensor rows(const Tensor& x, i64 low, i64 high) {
    Shape shape{high - low};
    for (int axis = 1; axis < x.rank(); ++axis) shape.push_back(x.dim(axis));
    const i64 bytes = x.bytes() / x.dim(0);
    Tensor part = Tensor::empty(shape, x.dtype());
    copy_bytes(part.raw(), Device::cpu, static_cast<const char*>(x.raw()) + low * bytes,
               Device::cpu, part.bytes());
    return part;
  }

  // Sample `index` becomes row b.
  void put(Batch& batch, i64 b, i64 index, Rng rng) const {
    Sample sample = dataset_.get(index);
    if (options_.transform) sample.image = options_.transform(sample.image, rng);
    detail::check_image(sample.image, "loader");
    const i64 H = sample.image.dim(0), W = sample.image.dim(1);
    if (b == 0) batch.images = Tensor::empty({batch.targets.dim(0), 3, H, W});
    check(batch.images.dim(2) == H && batch.images.dim(3) == W, sample.name, " has ", H, " x ", W,
          " pixels, others of its batch ", batch.images.dim(2), " x ", batch.images.dim(3),
          "; give the loader a transform that makes them equal");
    float* row = batch.images.data<float>() + b * 3 * H * W;
    normalize_(sample.image, row);
    random_erase(row, 3, H, W, rng, options_.erasing);
    batch.targets.data<i64>()[b] = sample.label;
  }

  Dataset dataset_;
  ImageLoading options_;
  Normalizer normalize_;
  std::vector<i64> labels_{};  // where the order is balanced
  i64 samples_ = 0;            // of an epoch
};

}  // namespace detail

BatchPlan<Batch> image_batches(Dataset dataset, ImageLoading options) {
  const auto source =
      std::make_shared<const detail::ImageBatches>(std::move(dataset), std::move(options));
  return {source->batches(), [source](i64 epoch) {
            return [source, epoch, order = source->order(epoch)](i64 number) {
              return source->make(epoch, order, number);
            };
          }};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
