// A detector's training: the published rates, a run that is interrupted and goes on bit for bit,
// and what two processes learn together.

#include <barrier>
#include <thread>

#include "catch.hpp"
#include "distance.hpp"
#include "io/help.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/train/detection.hpp"
#include "ppma/train/trainer.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("detection trainer: warm-up and steps as published", "[train]") {
  const StepSchedule s;
  CHECK(s.at(0, 0) == Approx(1e-7));
  CHECK(s.at(0, 250) == Approx(1e-4 * (1 - 0.5 * 0.999)));
  CHECK(s.at(0, 500) == Approx(1e-4));
  CHECK(s.at(8, 60000) == Approx(1e-5));
  CHECK(s.at(11, 90000) == Approx(1e-6));
}

TEST_CASE("panoptic quality of an image by hand", "[train]") {
  Objects truth{{{0, 0, 10, 10}, {20, 0, 30, 10}}, {3, 4}, Tensor()};
  const auto at = [](float x1, float x2, i64 label, double score) {
    return Detection{{x1, 0, x2, 10}, label, score, {}};
  };
  CHECK(panoptic_quality(truth, {at(0, 10, 3, 0.9), at(20, 30, 4, 0.9)}) == 1);
  CHECK(panoptic_quality(truth, {}) == 0);
  // One of two with an overlap of 0.8, one of another class, one that is not sure.
  const std::vector<Detection> found{at(0, 8, 3, 0.6), at(20, 30, 3, 0.9), at(20, 30, 4, 0.4)};
  CHECK(panoptic_quality(truth, found) == Approx(2 * 0.8 / 4));
  CHECK(panoptic_quality(truth, found, 0.3) == Approx(2 * 1.8 / 5));
  // The surer one of two takes the object; half an overlap is none.
  CHECK(panoptic_quality(truth, {at(0, 10, 3, 0.6), at(0, 8, 3, 0.9)}) == Approx(2 * 0.8 / 4));
  CHECK(panoptic_quality(truth, {at(0, 5, 3, 0.9)}) == 0);
  CHECK(is_nan(panoptic_quality({}, {at(0, 10, 3, 0.1)})));
  // Masks where both have one: the left half of the box against all of it.
  truth = {{{0, 0, 4, 2}}, {0}, Tensor::full({1, 2, 4}, 1, DType::uint8)};
  Detection d{{0, 0, 4, 2}, 0, 0.9, rle_encode(Tensor::from<u8>({1, 1, 1, 0, 1, 1, 1, 0}, {2, 4}))};
  CHECK(panoptic_quality(truth, {d}) == Approx(0.75));
  d.mask.reset();
  CHECK(panoptic_quality(truth, {d}) == 1);
}

TEST_CASE("detection trainer: the loss falls, and a resumed run is the same run", "[train]") {
  if (brief()) return;  // the segmentation trainer's loop, and losses that the heads' tests have
  MaskRcnnConfig c = mask_rcnn_nano(figure_count, true);
  c.backbone.embed_dims = {8, 8, 8, 8}, c.backbone.num_heads = {2, 2, 2, 2},
  c.backbone.drop_path_rate = 0.2;
  c.rpn.channels = 8, c.roi.fc_channels = 16, c.roi.sample.count = 16;
  DetectionLoading loading;
  loading.batch = 2, loading.longer = 64, loading.shorter = {64};
  const DetectionSet set = shapes_set({.height = 64, .width = 64, .images = 8});
  TrainOptions o;
  o.rules = norm_rules(0.05);
  o.rate = StepSchedule{.rate = 2e-3, .steps = {2}, .warmup = 2};
  o.evaluate_every = 0;
  const io_test::Folder folder;
  const auto weights = [](const TrainingLoop& t) {
    std::vector<float> all;
    for (const auto& entry : t.weights())
      for (const float v : entry.second.to_vector<float>()) all.push_back(v);
    return all;
  };
  BatchStream<DetectionBatch> loader(detection_batches(set, loading));
  MaskRcnn whole(c, 1), first(c, 1), second(c, 2);
  DetectionTask whole_task(whole), first_task(first), second_task(second);
  Trainer a(whole_task, o), b(first_task, o), d(second_task, o);
  const double before = a.run_epoch(loader).train_loss;
  a.run_epoch(loader);
  const EpochReport end = a.run_epoch(loader);
  CHECK(end.train_loss < before);
  CHECK(end.parts[4].first == "loss_mask");
  b.run_epoch(loader);
  b.save(folder / "last.safetensors");
  d.resume(folder / "last.safetensors");
  CHECK(d.epoch() == 1);
  d.run_epoch(loader), d.run_epoch(loader);
  CHECK(weights(d) == weights(a));
  o.seed = 5;
  Trainer other(first_task, o);
  CHECK(says([&] { other.resume(folder / "last.safetensors"); }, "was trained with seed 0"));
}

// Two threads stand for two processes: a sum is made when both have come.
TEST_CASE("detection in two processes: losses and gradients are those of one with all images",
          "[train]") {
  MaskRcnnConfig c = mask_rcnn_nano(figure_count, true);
  c.backbone.depths = {1, 1, 1, 1}, c.backbone.drop_path_rate = 0;
  DetectionLoading loading;
  loading.batch = 2, loading.longer = 64, loading.shorter = {64};
  const DetectionSet set = shapes_set({.height = 64, .width = 64, .images = 2});
  struct Outcome {
    std::vector<double> losses{};
    std::vector<Tensor> gradients{};
  };
  const auto outcome = [&](const Communicator* among) {
    DetectionLoading own = loading;
    if (among != nullptr) own.part = {among->rank, among->size};
    const DetectionBatch batch = detection_batches(set, own).of_epoch(0)(0);
    MaskRcnn model(c, 1);
    DetectionTask task(model);
    Context context{true, Rng(3)};
    context.among = among;
    const Loss loss = task.loss(batch, context);
    loss.total.backward();
    Outcome o{{loss.total.item()}, {}};
    for (const auto& part : loss.parts) o.losses.push_back(part.second.item());
    for (const Tensor& t : tensors_of(parameters_of(model, norm_rules(0.05))))
      o.gradients.push_back(t.grad());
    return o;
  };
  const Outcome want = outcome(nullptr);
  Tensor given[2];
  std::barrier both(2);
  Outcome got[2];
  std::vector<std::thread> processes;
  for (const i64 rank : {0, 1})
    processes.emplace_back([&, rank] {
      Communicator among{.rank = rank, .size = 2};
      among.all_reduce_sum = [&, rank](Tensor& t) {
        given[rank] = t.clone();
        both.arrive_and_wait();
        t.copy_from(add(given[0], given[1]));
        both.arrive_and_wait();
      };
      got[rank] = outcome(&among);
    });
  for (std::thread& p : processes) p.join();
  for (std::size_t k = 0; k < want.losses.size(); ++k)
    CHECK((got[0].losses[k] + got[1].losses[k]) / 2 == Approx(want.losses[k]).epsilon(1e-5));
  CHECK(got[0].losses[0] != got[1].losses[0]);  // each has its own image
  // Together: some are rounding of 0 (those of a key's bias).
  std::vector<double> mean, all;
  for (std::size_t k = 0; k < want.gradients.size(); ++k) {
    const Tensor halves = scale(add(got[0].gradients[k], got[1].gradients[k]), 0.5);
    for (const double x : halves.to_vector<double>()) mean.push_back(x);
    for (const double x : want.gradients[k].to_vector<double>()) all.push_back(x);
  }
  CHECK(distance(mean, all) < 1e-4);
}
