// The training loop on the GPU: the same steps as on the CPU, and a run that is saved there
// continues bit for bit.

#if PPMA_TEST_GPU

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <utility>

#include "catch.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/heads/segmentor_json.hpp"
#include "ppma/models/vit.hpp"
#include "ppma/train/detection.hpp"
#include "ppma/train/finite.hpp"
#include "ppma/train/segmentation.hpp"
#include "train/toy.hpp"

using namespace ppma;
using namespace toy;

namespace {

TrainOptions placed(Device device, DType dtype, i64 count) {
  TrainOptions options = options_for(count);
  options.at = {device, dtype};
  options.clip = 1;
  return options;
}

std::vector<double> losses(const TrainOptions& options) {
  Toy model;
  to(model, options.at.device);
  ToyTrainer trainer(model, options, toy_batches(8), toy_batches(16));
  std::vector<double> loss;
  trainer.run({.on_batch = [&](const StepReport& r) { loss.push_back(r.loss); }});
  return loss;
}

}  // namespace

TEST_CASE("training on the GPU follows training on the CPU", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const auto want = losses(placed(Device::cpu, DType::f32, 2)),
             got = losses(placed(Device::cuda, DType::f32, 2));
  const auto rough = losses(placed(Device::cuda, DType::bf16, 2));
  REQUIRE(got.size() == want.size());
  REQUIRE(want.front() > want.back());
  for (std::size_t i = 0; i < want.size(); ++i) {
    CHECK(got[i] == Approx(want[i]).epsilon(1e-4));
    CHECK(rough[i] == Approx(want[i]).epsilon(2e-2));
  }
}

TEST_CASE("a run on the GPU is saved, and continues bit for bit", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const std::string path = (std::filesystem::temp_directory_path() /
                            ("ppma_cuda_run_" + std::to_string(getpid()) + ".safetensors"))
                               .string();
  const TrainOptions options = placed(Device::cuda, DType::bf16, 3);
  Toy straight, before, after;
  for (Toy* model : {&straight, &before, &after}) to(*model, Device::cuda);
  ToyTrainer whole(straight, options), first(before, options), second(after, options);
  whole.run();
  first->run_epoch(first.train);
  first->save(path);
  second->resume(path);
  CHECK(second->epoch() == 1);
  second.run();
  CHECK(values(second->weights()) == values(whole->weights()));
  CHECK(values(second->average()) == values(whole->average()));
  std::filesystem::remove(path);
}

// What the GPU had underway then is of no epoch; its steps are captured anew.
TEST_CASE("an epoch that is ended by an error begins again, on the GPU too", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Toy model;
  to(model, Device::cuda);
  ToyTrainer trainer(model, placed(Device::cuda, DType::f32, 3));
  for (const i64 last : {1, 4}) {
    const auto ends = [&](const StepReport& r) { check(r.batch < last, "at batch ", r.batch); };
    CHECK_THROWS_WITH(trainer->run_epoch(trainer.train, {.on_batch = ends}),
                      "at batch " + std::to_string(last));
    std::vector<i64> images;
    trainer->run_epoch(trainer.train,
                       {.on_batch = [&](const StepReport& r) { images.push_back(r.images); }});
    CHECK(images == std::vector<i64>{8, 16, 24, 32, 40, 48});
  }
}

TEST_CASE("a smaller last batch has a step of its own, and clipped steps follow the CPU",
          "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const auto run = [&](Device device) {
    TrainOptions options = placed(device, DType::f32, 3);
    options.clip = 0.05;
    Toy model;
    to(model, device);
    ToyTrainer trainer(model, options, toy_batches(5), toy_batches(16));
    std::vector<double> seen;
    trainer.run({.on_batch = [&](const StepReport& r) {
      seen.push_back(r.loss), seen.push_back(r.gradient_norm),
          seen.push_back(static_cast<double>(r.images));
    }});
    return seen;
  };
  const auto want = run(Device::cpu), got = run(Device::cuda);
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).epsilon(1e-4));
}

TEST_CASE("a plain transformer's steps on the GPU follow the CPU, its dropped samples too",
          "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const BatchPlan<Batch> plan{3, [](i64 epoch) {
                                return [epoch](i64 number) {
                                  Rng rng(5, static_cast<u64>(epoch * 3 + number));
                                  return Batch{Tensor::randn({4, 3, 32, 32}, rng),
                                               Tensor::from<i64>({0, 1, 2, number}, {4})};
                                };
                              }};
  for (const Mask& mask : masks()) {
    VitConfig c;
    c.image_size = 32, c.patch_size = 8, c.width = 24, c.depth = 2, c.heads = 3, c.num_classes = 3,
    c.drop_path_rate = 0.5, c.mask = mask.kind;
    const auto run = [&](Device device, DType dtype) {
      Vit model(c, 1);
      to(model, device);
      BatchStream<Batch> train(plan), test(plan);
      ClassificationTask<Vit> task(model, test);
      TrainOptions options = placed(device, dtype, 2);
      options.evaluate_every = 0;
      Trainer trainer(task, options);
      std::vector<double> seen;
      trainer.run(train, {.on_batch = [&](const StepReport& r) { seen.push_back(r.loss); }});
      return seen;
    };
    const auto want = run(Device::cpu, DType::f32), got = run(Device::cuda, DType::f32),
               rough = run(Device::cuda, DType::bf16);
    REQUIRE(got.size() == 6);
    for (std::size_t i = 0; i < want.size(); ++i) {
      INFO(mask.name << ", step " << i);
      CHECK(got[i] == Approx(want[i]).epsilon(1e-4));
      CHECK(rough[i] == Approx(want[i]).epsilon(3e-2));
    }
  }
}

TEST_CASE("segmentation on the GPU follows the CPU, step by step, and so does its average",
          "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  SegmentorConfig<UperNet> c = segmentor_nano<UperNet>(11);
  c.backbone.depths = {1, 1, 1, 1};
  const SegmentationSet set = shapes_segmentation({.height = 32, .width = 32, .images = 20});
  BatchStream<SegmentationBatch> batches(segmentation_batches(
      set, {.batch = 4, .longer = 32, .shorter = 32, .crop_height = 32, .crop_width = 32}));
  const auto run = [&](Device device) {
    Segmentor<UperNet> model(c, 1);
    to(model, device);
    SegmentationTask task(model);
    TrainOptions options;
    options.at.device = device;
    options.rules = norm_rules(0.05);
    options.rate = PolySchedule{.rate = 1e-3, .total = 10, .warmup = 2};
    options.clip = 5, options.ema_decay = 0.9, options.evaluate_every = 0, options.epochs = 2;
    Trainer trainer(task, options);
    std::vector<double> seen;
    trainer.run(batches, {.on_batch = [&](const StepReport& r) {
                  seen.push_back(r.loss), seen.push_back(r.gradient_norm);
                  for (const auto& part : r.parts) seen.push_back(part.second);
                }});
    double size = 0;
    for (const auto& [name, tensor] : trainer.average())
      for (const double v : tensor.to_vector<double>()) size += std::abs(v);
    seen.push_back(size);
    return seen;
  };
  const auto want = run(Device::cpu), got = run(Device::cuda);
  REQUIRE(want.size() == 10 * 6 + 1);
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    INFO(i);
    // AdamW makes steps of rounding where gradients are small, so that in the second epoch norms
    // and accuracies part; losses do not.
    const bool is_loss = i % 6 == 0 || i % 6 == 3 || i % 6 == 4;
    if (i < 5 * 6 || is_loss) CHECK(got[i] == Approx(want[i]).epsilon(1e-2).margin(1e-3));
  }
}

TEST_CASE("a detector's steps on the GPU, which look at what is computed, follow the CPU",
          "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  MaskRcnnConfig c = mask_rcnn_nano(figure_count, true);
  c.backbone.depths = {1, 1, 1, 1};
  DetectionLoading loading;
  loading.batch = 2, loading.longer = 64, loading.shorter = {64};
  BatchStream<DetectionBatch> batches(
      detection_batches(shapes_set({.height = 64, .width = 64, .images = 4}), loading));
  const auto run = [&](Device device) {
    MaskRcnn model(c, 1);
    to(model, device);
    DetectionTask task(model);
    TrainOptions options;
    options.at.device = device;
    options.rate = StepSchedule{.rate = 1e-5, .warmup = 1};
    options.ema_decay = 0.9, options.evaluate_every = 0, options.epochs = 2;
    Trainer trainer(task, options);
    std::vector<double> seen;
    trainer.run(batches, {.on_batch = [&](const StepReport& r) { seen.push_back(r.loss); }});
    return seen;
  };
  const auto want = run(Device::cpu), got = run(Device::cuda);
  REQUIRE(got.size() == 4);
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).epsilon(2e-2));
}

namespace skipped_cuda_test {

namespace {

// A Toy's batches of 8, of which one has a `bad` number; or without those that make its step.
BatchPlan<Batch> batches_with(float bad, i64 which) {
  return {6, [=](i64 epoch) {
            return [=, make = toy_batches(8).of_epoch(epoch)](i64 n) {
              Batch batch = make(n);
              if (n == which) batch.images.data<float>()[5] = bad;
              return batch;
            };
          }};
}
BatchPlan<Batch> batches_without(i64 first, i64 count) {
  return {6 - count, [=](i64 epoch) {
            return [=, make = toy_batches(8).of_epoch(epoch)](i64 n) {
              return make(n < first ? n : n + count);
            };
          }};
}

struct Outcome {
  std::vector<std::vector<double>> weights, state;
  std::vector<SkippedStep> skipped;
};
Outcome trained(Device device, i64 accumulate, BatchPlan<Batch> plan) {
  TrainOptions options = placed(device, DType::f32, 1);
  options.rate = [](const Moment&) { return 0.02; };
  options.accumulate = accumulate, options.ema_decay = 0;
  Toy model(false);  // nothing is drawn: a step is the same in whichever place
  for (i64 row = 0; row < 16; ++row) model.first.data<float>()[row * 6 + 5] = 0;
  to(model, device);
  ToyTrainer trainer(model, options, std::move(plan));
  Outcome out;
  trainer->run_epoch(trainer.train,
                     {.on_skip = [&](const SkippedStep& s) { out.skipped.push_back(s); }});
  out.weights = values(trainer->weights()), out.state = values(trainer->optimizer().state());
  return out;
}

}  // namespace

// The 1st and the 2nd step run by themselves, the 3rd is captured as a graph, which those behind it
// replay; where batches are accumulated there is none.
TEST_CASE("a step on the GPU that is not finite changes nothing, replayed or not",
          "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  struct Case {
    float bad;
    const char* what;
  };
  // The square of the second is infinite: the loss is not, since its weights are 0 at first.
  for (const Case& c :
       {Case{std::numeric_limits<float>::quiet_NaN(), "loss"}, Case{1e30f, "gradient's norm"}})
    for (const i64 accumulate : {1, 2})
      for (const i64 which : {0, 1, 2, 3, 5}) {
        INFO("batch " << which << " with " << c.bad << ", accumulated " << accumulate);
        const i64 first = which / accumulate * accumulate;
        const auto here = trained(Device::cpu, accumulate, batches_with(c.bad, which)),
                   there = trained(Device::cuda, accumulate, batches_with(c.bad, which)),
                   without = trained(Device::cuda, accumulate, batches_without(first, accumulate));
        REQUIRE(here.skipped.size() == 1);
        REQUIRE(there.skipped.size() == 1);
        CHECK(without.skipped.empty());
        CHECK(there.skipped[0].what == c.what);
        CHECK(there.skipped[0].what == here.skipped[0].what);
        CHECK(there.skipped[0].batch == here.skipped[0].batch);
        // Weights, moments and counts of steps, bit for bit.
        CHECK(there.weights == without.weights);
        CHECK(there.state == without.state);
        for (std::size_t t = 0; t < here.weights.size(); ++t)
          for (std::size_t e = 0; e < here.weights[t].size(); ++e)
            CHECK(there.weights[t][e] == Approx(here.weights[t][e]).epsilon(1e-4).margin(1e-3));
      }
}

TEST_CASE("what is not finite on the GPU is found in every dtype", "[cuda][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
    Tensor t = Tensor::full({300, 70}, 3e38, dtype);
    CHECK(all_finite(t.to(Device::cuda)));
    for (const double wrong :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
          -std::numeric_limits<double>::infinity()}) {
      t.part(12345, {1}).copy_from(Tensor::full({1}, wrong, dtype));
      CHECK(!all_finite(t.to(Device::cuda)));
    }
  }
  CHECK(all_finite(Tensor::full({2}, 1e18, DType::int64).to(Device::cuda)));
}

}  // namespace skipped_cuda_test

#endif
