// A detector's training: the published rates, and a run that is interrupted and goes on bit for
// bit.

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/train/detection.hpp"
#include "ppma/train/trainer.hpp"
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

TEST_CASE("detection trainer: the loss falls, and a resumed run is the same run", "[train]") {
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
