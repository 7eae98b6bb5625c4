// The stream of batches: the same for any number of workers, after a restart in the middle, and
// whatever was left lying about; and its errors.

#include <atomic>
#include <chrono>
#include <thread>

#include "catch.hpp"
#include "ppma/data/image_batches.hpp"
#include "ppma/data/shapes.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace loader_test {

namespace {

// Sample i is an image full of i, of class i % 3.
Dataset counting(i64 size, i64 side = 6) {
  Dataset d;
  d.name = "counting";
  d.size = size;
  d.class_names = {"a", "b", "c"};
  d.load = [side](i64 i) {
    return Sample{Tensor::full({side, side, 3}, static_cast<double>(i), DType::uint8), i % 3,
                  str("counting/", i)};
  };
  return d;
}

struct Stream {
  std::vector<float> images;
  std::vector<double> targets;
  i64 batches = 0;
  friend bool operator==(const Stream&, const Stream&) = default;
};

void read(BatchStream<Batch>& loader, Stream& s, i64 most = 1000) {
  Batch batch;
  while (most-- > 0 && loader.next(batch)) {
    for (const float v : batch.images.to_vector<float>()) s.images.push_back(v);
    for (const double v : batch.targets.to_vector<double>()) s.targets.push_back(v);
    ++s.batches;
  }
}

ImageLoading everything() {
  ImageLoading o;
  o.batch = 4;
  o.seed = 11;
  o.transform = train_transform(6);
  o.erasing.probability = 0.5;
  o.mix = {0.8, 1.0, 0.5, 0.1};
  return o;
}

const Normalization as_is{{0, 0, 0}, {1 / 255.0f, 1 / 255.0f, 1 / 255.0f}};

}  // namespace

TEST_CASE("the stream does not depend on the number of workers or on how much is made ahead") {
  Stream alone;
  const BatchPlan<Batch> plan = image_batches(counting(50), everything());
  BatchStream<Batch> loader(plan, {.workers = 0});
  loader.start(3);
  read(loader, alone);
  REQUIRE(alone.batches == 12);
  for (const i64 workers : {1, 2, 5})
    for (const i64 ahead : {1, 3, 40}) {
      BatchStream<Batch> many(plan, {.workers = workers, .ahead = ahead});
      Stream s;
      many.start(3);
      read(many, s);
      CHECK(s == alone);
    }
}

TEST_CASE("an epoch can be left and entered anywhere") {
  BatchStream<Batch> loader(image_batches(counting(50), everything()));
  Batch none;
  CHECK(says([&] { loader.next(none); }, "start(epoch) comes before next()"));
  Stream whole, parts;
  loader.start(7);
  read(loader, whole);
  loader.start(7);
  read(loader, parts, 5);
  Stream other;
  loader.start(8);  // left after two batches, while workers are at it
  read(loader, other, 2);
  loader.start(7, 5);
  read(loader, parts);
  CHECK(parts == whole);
  loader.start(7, 12);
  Batch batch;
  CHECK_FALSE(loader.next(batch));
  Stream next;
  loader.start(8);
  read(loader, next);
  CHECK_FALSE(next.images == whole.images);
  CHECK(says([&] { loader.start(0, 13); }, "batch 13 of 12"));
}

TEST_CASE("an epoch has each sample once, in an order of its own") {
  ImageLoading options;
  options.batch = 8, options.drop_last = false, options.normalization = as_is;
  BatchStream<Batch> loader(image_batches(counting(30), options));
  CHECK(loader.batches() == 4);
  std::vector<std::vector<float>> orders;
  for (i64 epoch = 0; epoch < 2; ++epoch) {
    std::vector<float> order;
    Batch batch;
    i64 number = 0;
    for (loader.start(epoch); loader.next(batch); ++number) {
      CHECK(batch.images.shape() == Shape({number < 3 ? 8 : 6, 3, 6, 6}));
      CHECK(batch.targets.dtype() == DType::int64);
      for (i64 b = 0; b < batch.images.dim(0); ++b) {
        order.push_back(std::round(batch.images.data<float>()[b * 108]));
        CHECK(batch.targets.data<i64>()[b] == static_cast<i64>(order.back()) % 3);
      }
    }
    orders.push_back(order);
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < 30; ++i) CHECK(order[i] == static_cast<float>(i));
  }
  CHECK(orders[0] != orders[1]);
  options.shuffle = false;
  BatchStream<Batch> plain(image_batches(counting(30), options));
  Batch batch;
  plain.start(0);
  plain.next(batch);
  for (i64 b = 0; b < 8; ++b) CHECK(batch.images.data<float>()[b * 108] == Approx(b).margin(1e-3));
}

TEST_CASE("shuffling is uniform") {
  std::vector<int> count(25);
  for (u64 seed = 0; seed < 2000; ++seed) {
    const std::vector<i64> order = epoch_order(5, 0, seed, true);
    for (std::size_t i = 0; i < 5; ++i) ++count[i * 5 + static_cast<std::size_t>(order[i])];
  }
  for (const int c : count) CHECK(c == Approx(400).margin(75));
}

TEST_CASE("repeated augmentation keeps an epoch's length") {
  CHECK(epoch_order(7, 0, 0, false, 3) == std::vector<i64>{0, 0, 0, 1, 1, 1, 2});
  CHECK(epoch_order(600, 0, 0, false, 3).size() == 512);
  CHECK(epoch_order(600, 0, 0, false, 3)[511] == 170);
  ImageLoading options = everything();
  options.repeats = 3, options.mix = {};
  options.batch = 3;
  BatchStream<Batch> loader(image_batches(counting(30), options));
  loader.start(0);
  Batch batch;
  REQUIRE(loader.next(batch));
  const auto labels = batch.targets.to_vector<i64>();
  CHECK(labels == std::vector<i64>(3, labels[0]));
  const auto x = batch.images.to_vector<float>();  // the same image, augmented thrice
  CHECK_FALSE(std::equal(x.begin(), x.begin() + 108, x.begin() + 108));
}

TEST_CASE("what goes wrong in a worker reaches the reader with the sample's name") {
  for (const i64 workers : {0, 2}) {
    Dataset d = counting(40);
    d.load = [load = d.load](i64 i) {
      check(i != 21, "train/cat/x.jpg: cut short");
      return load(i);
    };
    ImageLoading options;
    options.batch = 4, options.shuffle = false, options.normalization = as_is;
    BatchStream<Batch> loader(image_batches(d, options), {.workers = workers});
    loader.start(0);
    Batch batch;
    for (int n = 0; n < 5; ++n) CHECK(loader.next(batch));
    CHECK(says([&] { loader.next(batch); }, "counting: sample 21: train/cat/x.jpg: cut short"));
    CHECK_FALSE(loader.next(batch));  // the epoch is over
    loader.start(0, 6);
    CHECK(loader.next(batch));
    CHECK(batch.images.data<float>()[0] == Approx(24));
  }
  Dataset mixed = counting(8);
  mixed.load = [](i64 i) {
    return Sample{Tensor::zeros({i == 2 ? 5 : 6, 6, 3}, DType::uint8), 0, str("mixed/", i)};
  };
  BatchStream<Batch> loader(image_batches(mixed, {.batch = 4, .shuffle = false}));
  loader.start(0);
  Batch batch;
  CHECK(says([&] { loader.next(batch); }, "mixed/2 has 5 x 6 pixels, others of its batch 6 x 6"));
  CHECK(says([] { image_batches(counting(0)); }, "counting is empty"));
  CHECK(says([] { image_batches(counting(3), {.batch = 0}); }, "must be at least 1"));
  CHECK(says([] { BatchStream<Batch>(image_batches(counting(3), {.batch = 1}), {.ahead = 0}); },
             "2 workers that make 0 batches ahead"));
}

TEST_CASE(
    "a loader that is left early ends its workers, and never makes more ahead than asked for") {
  std::atomic<i64> loaded{0};
  Dataset d = counting(1000);
  d.load = [&loaded, load = d.load](i64 i) {
    ++loaded;
    return load(i);
  };
  {
    BatchStream<Batch> loader(image_batches(d, {.batch = 2}), {.workers = 3, .ahead = 5});
    loader.start(0);
    Batch batch;
    REQUIRE(loader.next(batch));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    CHECK(loaded <= 2 * 6);
  }
  const i64 at_the_end = loaded;
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  CHECK(loaded == at_the_end);
}

TEST_CASE("processes share every batch, and every sample comes once", "[data]") {
  for (const bool mixed : {false, true}) {
    ImageLoading options{.batch = 6, .drop_last = mixed, .seed = 4};
    if (mixed) options.mix = {.mixup = 0.8, .cutmix = 1.0, .smoothing = 0.1};
    const Dataset set = shapes({.height = 64, .width = 64, .images = 21});
    BatchStream<Batch> whole(image_batches(set, options), {.workers = 0});
    whole.start(2);
    std::vector<std::vector<float>> want, got(static_cast<std::size_t>(whole.batches()));
    std::vector<std::vector<double>> want_targets, got_targets(got.size());
    Batch b;
    while (whole.next(b))
      want.push_back(b.images.to_vector<float>()),
          want_targets.push_back(b.targets.to_vector<double>());
    REQUIRE(want.size() == got.size());
    for (i64 rank = 0; rank < 2; ++rank) {
      options.part = {rank, 2};
      BatchStream<Batch> part(image_batches(set, options), {.workers = 0});
      part.start(2);
      for (std::size_t n = 0; part.next(b); ++n) {
        const auto x = b.images.to_vector<float>();
        const auto t = b.targets.to_vector<double>();
        got[n].insert(got[n].end(), x.begin(), x.end());
        got_targets[n].insert(got_targets[n].end(), t.begin(), t.end());
      }
    }
    CHECK(got == want);
    CHECK(got_targets == want_targets);
  }
  CHECK(says(
      [] {
        image_batches(shapes({.height = 64, .width = 64, .images = 8}),
                      {.batch = 5, .part = {0, 2}});
      },
      "loader: a batch of 5 cannot be divided equally among 2 processes"));
}

}  // namespace loader_test
