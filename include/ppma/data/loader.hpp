#pragma once
#include "ppma/core/names_begin.hpp"
// Loader: batches of a Dataset, made ahead of time by worker threads.
//
// The stream is a function of (seed, epoch): the order of an epoch is drawn from a stream of its
// own, and the augmentation of a sample from one keyed by its place in that order. How many workers
// there are, how fast they are, and whether the run was resumed in the middle of an epoch, changes
// nothing.
//
//   Loader loader(shapes(), {.batch = 64, .transform = train_transform(32)});
//   for (loader.start(epoch); loader.next(batch);) ...
//
// Legend: B batch, H W pixels, K classes.

#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "ppma/data/augment.hpp"
#include "ppma/data/dataset.hpp"
#include "ppma/data/mix.hpp"

namespace ppma::inline PPMA_ABI {

struct LoaderOptions {
  i64 batch = 32;  // of all processes together
  bool shuffle = true;
  bool drop_last = true;  // an incomplete batch at the end is left out
  u64 seed = 0;
  i64 workers = 2;          // threads; 0 makes each batch when it is asked for
  i64 prefetch = 4;         // batches made ahead at most
  i64 rank = 0, ranks = 1;  // this process gets the rank-th of so many equal parts of every batch
  // repeated augmentation (published: 3); an epoch keeps its length and sees fewer images
  i64 repeats = 1;
  Transform transform{};
  Normalization normalization{};
  RandomErasing erasing{};
  MixOptions mix{};
};

struct Batch {
  // f32 (B,3,H,W), normalised; undefined where an incomplete batch has nothing for this process
  Tensor images;
  Tensor targets;  // int64 (B) labels, or f32 (B,K) where the batch was mixed
  i64 epoch = 0, number = 0;
};

/// The samples of an epoch, in order. With repeats > 1 each sample of the shuffled set follows
/// itself, and the epoch ends after as many as the set has (rounded down to a multiple of 256 from
/// 256 on, as in the published sampler).
PPMA_API std::vector<i64> epoch_order(i64 size, i64 epoch, u64 seed, bool shuffle, i64 repeats = 1);

class Loader {
 public:
  /// Errors: an empty set, a batch, prefetch or repeats below 1.
  PPMA_API Loader(Dataset dataset, LoaderOptions options);
  ~Loader() { stop(); }
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  const Dataset& dataset() const { return dataset_; }
  /// Batches in an epoch.
  i64 batches() const {
    return (samples_ + (options_.drop_last ? 0 : options_.batch - 1)) / options_.batch;
  }

  /// Begins an epoch, or goes on with one at batch number `first`. What was being made for another
  /// epoch is dropped.
  PPMA_API void start(i64 epoch, i64 first = 0);

  /// The next batch of the epoch; false at its end. Errors: what happened while the batch was made,
  /// with the sample's name; the epoch is over then.
  PPMA_API bool next(Batch& batch);

 private:
  struct Slot {
    bool ready = false;
    Batch batch;
    std::exception_ptr error;
  };

  PPMA_API void work();

  PPMA_API void stop();

  PPMA_API Batch make(i64 number) const;

  PPMA_API static Tensor rows(const Tensor& x, i64 low, i64 high);

  // Sample `index` becomes row b.
  PPMA_API void put(Batch& batch, i64 b, i64 index, Rng rng) const;

  Dataset dataset_;
  LoaderOptions options_;
  Normalizer normalize_;
  i64 samples_ = 0;  // of an epoch

  // Written by start() and stop() while there are no workers, or under the mutex.
  i64 epoch_ = 0, next_to_make_ = 0, next_to_give_ = 0, end_ = 0;
  std::vector<i64> order_;
  std::vector<Slot> slots_;  // batch n waits in slot n % prefetch
  bool stopping_ = false;
  std::mutex mutex_;
  std::condition_variable made_, room_;
  std::vector<std::thread> workers_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>

#include "ppma/core/parallel.hpp"

namespace ppma::inline PPMA_ABI {

std::vector<i64> epoch_order(i64 size, i64 epoch, u64 seed, bool shuffle, i64 repeats) {
  std::vector<i64> order(static_cast<std::size_t>(size));
  for (i64 i = 0; i < size; ++i) order[static_cast<std::size_t>(i)] = i;
  if (shuffle) {
    Rng rng(seed, static_cast<u64>(epoch), 0, 0x02de2);
    for (i64 i = size - 1; i > 0; --i)  // Fisher and Yates
      std::swap(order[static_cast<std::size_t>(i)],
                order[static_cast<std::size_t>(rng.below(i + 1))]);
  }
  if (repeats > 1) {
    for (std::size_t i = order.size(); i-- > 0;)
      order[i] = order[i / static_cast<std::size_t>(repeats)];
    if (size >= 256) order.resize(order.size() / 256 * 256);
  }
  return order;
}

Loader::Loader(Dataset dataset, LoaderOptions options)
    : dataset_(std::move(dataset)),
      options_(std::move(options)),
      normalize_(options_.normalization) {
  check(dataset_.size > 0, "loader: ", dataset_.name, " is empty");
  check(
      options_.batch > 0 && options_.prefetch > 0 && options_.repeats > 0 && options_.workers >= 0,
      "loader: batch, prefetch and repeats must be at least 1, workers at least 0");
  check(options_.ranks >= 1 && options_.rank >= 0 && options_.rank < options_.ranks,
        "loader: part ", options_.rank, " of ", options_.ranks);
  check(options_.batch % options_.ranks == 0, "loader: a batch of ", options_.batch,
        " cannot be divided equally among ", options_.ranks, " processes");
  samples_ = static_cast<i64>(epoch_order(dataset_.size, 0, 0, false, options_.repeats).size());
}

void Loader::start(i64 epoch, i64 first) {
  check(epoch >= 0 && first >= 0 && first <= batches(), "loader: cannot start at epoch ", epoch,
        ", batch ", first, " of ", batches());
  stop();
  epoch_ = epoch;
  order_ = epoch_order(dataset_.size, epoch, options_.seed, options_.shuffle, options_.repeats);
  next_to_make_ = next_to_give_ = first;
  end_ = batches();
  slots_.assign(static_cast<std::size_t>(options_.prefetch), Slot());
  try {
    for (i64 w = 0; w < std::min(options_.workers, end_ - first); ++w)
      workers_.emplace_back([this] { work(); });
  } catch (...) {
    stop();
    throw;
  }
}

bool Loader::next(Batch& batch) {
  if (next_to_give_ >= end_) return false;
  if (workers_.empty()) {
    try {
      batch = make(next_to_give_++);
    } catch (...) {
      stop();
      throw;
    }
    return true;
  }
  std::unique_lock lock(mutex_);
  Slot& slot = slots_[static_cast<std::size_t>(next_to_give_ % options_.prefetch)];
  made_.wait(lock, [&] { return slot.ready; });
  batch = std::move(slot.batch);
  const std::exception_ptr error = slot.error;
  slot = Slot();
  ++next_to_give_;
  lock.unlock();
  room_.notify_one();
  if (error) {
    stop();
    std::rethrow_exception(error);
  }
  return true;
}

void Loader::work() {
  set_threads(1);  // the work is divided by batches already
  std::unique_lock lock(mutex_);
  for (;;) {
    room_.wait(lock, [&] {
      return stopping_ || next_to_make_ >= end_ ||
             next_to_make_ < next_to_give_ + options_.prefetch;
    });
    if (stopping_ || next_to_make_ >= end_) return;
    const i64 number = next_to_make_++;
    lock.unlock();
    Slot made;
    try {
      made.batch = make(number);
    } catch (...) {
      made.error = std::current_exception();
    }
    made.ready = true;
    lock.lock();
    slots_[static_cast<std::size_t>(number % options_.prefetch)] = std::move(made);
    made_.notify_one();
  }
}

void Loader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  room_.notify_all();
  for (std::thread& t : workers_) t.join();
  workers_.clear();
  slots_.clear();
  stopping_ = false;
  next_to_give_ = end_ = 0;
}

Batch Loader::make(i64 number) const {
  // A whole batch where it is mixed (each sample with its counterpart from the other end), else
  // this process's part, which of an incomplete batch may be smaller than the others': every sample
  // comes once.
  const i64 begin = number * options_.batch, all = std::min(options_.batch, samples_ - begin);
  const i64 low = all * options_.rank / options_.ranks,
            high = all * (options_.rank + 1) / options_.ranks;
  const bool whole = options_.mix.on();
  const i64 first = whole ? begin : begin + low, B = whole ? all : high - low;
  Batch batch;
  batch.epoch = epoch_, batch.number = number;
  batch.targets = Tensor::empty({B}, DType::int64);
  for (i64 b = 0; b < B; ++b) {
    const i64 index = order_[static_cast<std::size_t>(first + b)];
    try {
      put(batch, b, index,
          Rng(options_.seed, static_cast<u64>(epoch_), static_cast<u64>(first + b), 0xa09));
    } catch (const std::exception& e) {
      fail(dataset_.name, ": sample ", index, ": ", e.what());
    }
  }
  if (options_.mix.on())
    batch.targets =
        mix_batch(batch.images, batch.targets, dataset_.classes(), options_.mix,
                  Rng(options_.seed, static_cast<u64>(epoch_), static_cast<u64>(number), 0x313));
  if (whole && options_.ranks > 1) {
    batch.images = rows(batch.images, low, high);
    batch.targets = rows(batch.targets, low, high);
  }
  return batch;
}

Tensor Loader::rows(const Tensor& x, i64 low, i64 high) {
  Shape shape{high - low};
  for (int axis = 1; axis < x.rank(); ++axis) shape.push_back(x.dim(axis));
  const i64 bytes = x.bytes() / x.dim(0);
  Tensor part = Tensor::empty(shape, x.dtype());
  copy_bytes(part.raw(), Device::cpu, static_cast<const char*>(x.raw()) + low * bytes, Device::cpu,
             part.bytes());
  return part;
}

void Loader::put(Batch& batch, i64 b, i64 index, Rng rng) const {
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

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
