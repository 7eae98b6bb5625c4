// Segmentation learns on a few generated images, a resumed run goes on bit for bit, and the
// test-time procedures agree where they must.

#include <unistd.h>

#include <filesystem>

#include "catch.hpp"
#include "ppma/heads/segment.hpp"
#include "ppma/heads/semantic_fpn.hpp"
#include "ppma/heads/upernet.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/train/segmentation.hpp"
#include "ppma/train/trainer.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

SegmentorConfig<UperNet> small_segmentor() {
  SegmentorConfig<UperNet> c;
  c.backbone = ppma_nano();
  c.backbone.embed_dims = {16, 16, 32, 32}, c.backbone.num_heads = {1, 1, 2, 2},
  c.backbone.depths = {1, 1, 1, 1};
  c.head.channels = 16, c.head.auxiliary_channels = 16;
  c.head.num_classes = 11;
  return c;
}
SegmentationLoading loading() {
  return {.batch = 4,
          .longer = 32,
          .shorter = 32,
          .least_factor = 1,
          .most_factor = 1,
          .crop_height = 32,
          .crop_width = 32,
          .most_share = 1,
          .distort = false};
}
TrainOptions training() {
  TrainOptions t;
  t.rules = norm_rules(0.05);
  t.rate = PolySchedule{.rate = 3e-3, .total = 24, .warmup = 3};
  t.clip = 5, t.evaluate_every = 0;
  return t;
}
double part(const EpochReport& r, const std::string& name) {
  for (const auto& [part, value] : r.parts)
    if (part == name) return value;
  FAIL("the loss has no part " << name);
  return 0;
}

}  // namespace

TEST_CASE("the poly schedule of the published run") {
  const PolySchedule s;
  CHECK(s.at(0) == Approx(6e-11).epsilon(1e-6));
  CHECK(s.at(49) == Approx(1.959e-6).epsilon(1e-3));  // the log's iteration 50
  CHECK(s.at(80000) == Approx(3e-5));
  CHECK(s.at(160000) == 0);
}

TEST_CASE("segmentation learns, and a resumed run goes on bit for bit") {
  if (brief()) PPMA_SKIP("steps of this network that other tests take under the sanitizers");
  const SegmentationSet set = shapes_segmentation({.height = 32, .width = 32, .images = 16});
  const std::string path = (std::filesystem::temp_directory_path() /
                            ("ppma_segment_" + std::to_string(getpid()) + ".safetensors"))
                               .string();
  Segmentor<UperNet> straight(small_segmentor(), 1), before(small_segmentor(), 1),
      after(small_segmentor(), 2);
  SegmentationTask straight_task(straight), before_task(before), after_task(after);
  Trainer whole(straight_task, training()), first(before_task, training()),
      second(after_task, training());
  BatchStream<SegmentationBatch> loader(segmentation_batches(set, loading()));
  EpochReport begin, end;
  for (int e = 0; e < 6; ++e) (e == 0 ? begin : end) = whole.run_epoch(loader);
  CHECK(end.train_loss < 0.9 * begin.train_loss);
  CHECK(part(begin, "acc_seg") > 0);
  CHECK(part(end, "acc_seg") > part(begin, "acc_seg"));
  CHECK(part(end, "acc_seg") < 100);
  CHECK(part(end, "acc_seg_auxiliary") > part(begin, "acc_seg_auxiliary"));
  CHECK(part(end, "loss_decode") + part(end, "loss_auxiliary") == Approx(end.train_loss));
  for (int e = 0; e < 3; ++e) first.run_epoch(loader);
  first.save(path);
  second.resume(path);
  for (int e = 0; e < 3; ++e) second.run_epoch(loader);
  for (std::size_t i = 0; i < whole.weights().size(); ++i)
    REQUIRE(whole.weights()[i].second.to_vector<double>() ==
            second.weights()[i].second.to_vector<double>());
  std::filesystem::remove(path);
}

TEST_CASE("segmentation is accumulated, averaged and evaluated, and goes on bit for bit") {
  if (brief()) return;  // the loop above with other options
  const SegmentationSet set = shapes_segmentation({.height = 32, .width = 32, .images = 10});
  const std::string path = (std::filesystem::temp_directory_path() /
                            ("ppma_segment_ema_" + std::to_string(getpid()) + ".safetensors"))
                               .string();
  SegmentorConfig<SemanticFpn> c;
  c.backbone = small_segmentor().backbone, c.head.pyramid_channels = c.head.channels = 16;
  c.head.num_classes = set.classes();
  SegmentationLoading two = loading();
  two.batch = 2;
  TrainOptions o = training();
  o.accumulate = 2, o.ema_decay = 0.5, o.evaluate_every = 2, o.epochs = 4;
  Segmentor<SemanticFpn> straight(c, 1), before(c, 1), after(c, 2);
  const SegmentOptions how{.longer = 32, .shorter = 32};
  const SegmentationSet tested = shapes_segmentation({.height = 32, .width = 32, .images = 3});
  SegmentationTask a(straight, tested, how), b(before, tested, how), d(after, tested, how);
  i64 seen = 0;
  std::vector<double> tested_weights, tested_average;  // of the last evaluation
  std::vector<Field> fields = state_dict(straight);
  a.on_image = [&](const SegmentationSample& s, const Tensor& labels, i64 index, const Testing& t) {
    CHECK(labels.shape() == s.labels.shape());
    CHECK(index == seen % 3);
    CHECK(t.averaged == (seen / 3 % 2 == 1));
    (t.averaged ? tested_average : tested_weights) = fields[0].tensor.to_vector<double>();
    ++seen;
  };
  Trainer whole(a, o), first(b, o), second(d, o);
  BatchStream<SegmentationBatch> loader(segmentation_batches(set, two));
  std::vector<EpochRecord<SegmentationEvaluation>> want, got;
  whole.run(loader, {.on_epoch = [&](const auto& r, bool) { want.push_back(r); }});
  CHECK(seen == 12);
  CHECK(!want[0].test);
  REQUIRE((want[1].test && want[1].test_ema));
  CHECK(want[1].test->iou.size() == 11);
  CHECK(tested_weights == whole.weights()[0].second.to_vector<double>());
  CHECK(tested_average == whole.average()[0].second.to_vector<double>());
  CHECK(tested_weights != tested_average);
  CHECK(want[0].parts.size() == 1);  // one head
  first.run_epoch(loader);
  first.save(path);
  // five batches, two a step
  CHECK(read_safetensors(path).metadata.at("iteration") == "3");
  second.resume(path);
  second.run(loader, {.on_epoch = [&](const auto& r, bool) { got.push_back(r); }});
  CHECK(got.back().train_loss == want.back().train_loss);
  CHECK(got.back().test_ema->accuracy[0] == want.back().test_ema->accuracy[0]);
  const TensorMap x = whole.average(), y = second.average();
  REQUIRE(x.size() == y.size());
  for (std::size_t i = 0; i < x.size(); ++i)
    REQUIRE(x[i].second.to_vector<double>() == y[i].second.to_vector<double>());
  std::filesystem::remove(path);
}

TEST_CASE("sliding windows see every pixel, and each pixel is the mean of its windows") {
  // A network that says of each pixel what it sees there, and adds what it has been asked before: a
  // mean of windows is then the pixel plus the mean of their numbers.
  struct Echo {
    double counted = 0, asked = 0;
    Tensor forward(const Tensor& x, Context&) {
      return add(permute(x, {0, 2, 3, 1}), Tensor::full({1}, counted * asked++));
    }
  } echo;
  Rng rng(1);
  const Tensor image = Tensor::randn({1, 3, 70, 90}, rng),
               channels_last = permute(image, {0, 2, 3, 1});
  const std::vector<float> want = channels_last.to_vector<float>();
  for (const i64 stride : {32, 21, 5}) {
    echo = {};
    const std::vector<float> got =
        detail::slide_logits(echo, image, 32, stride, InPlace()).to_vector<float>();
    REQUIRE(got.size() == want.size());
    for (std::size_t i = 0; i < got.size(); ++i) REQUIRE(got[i] == Approx(want[i]).margin(1e-5));
  }
  echo = {1, 0};
  // windows from 0, 30, 58
  const Tensor got = detail::slide_logits(echo, narrow(image, 2, 0, 32), 32, 30, InPlace());
  const auto added = [&](i64 column) {
    return got.data<float>()[(5 * 90 + column) * 3] -
           channels_last.data<float>()[(5 * 90 + column) * 3];
  };
  CHECK(added(10) == Approx(0).margin(1e-5));
  CHECK(added(31) == Approx(0.5));  // of windows 0 and 1
  CHECK(added(40) == Approx(1));
  CHECK(added(60) == Approx(1.5));
  CHECK(added(89) == Approx(2));
}

TEST_CASE("windows do not slide further than they see") {
  const SegmentationSample s = shapes_segmentation({.height = 40, .width = 56, .images = 1}).get(0);
  Segmentor<UperNet> model(small_segmentor(), 3);
  const auto message = [&](i64 crop, i64 stride) {
    return thrown([&] {
      segment(model, s.image, {.longer = 56, .shorter = 40, .crop = crop, .stride = stride});
    });
  };
  CHECK(message(32, 40) ==
        "segment: windows of 32 pixels cannot slide by 40; the stride must be 1 to 32, or pixels "
        "stay unseen");
  CHECK(message(32, 0).find("cannot slide by 0") != std::string::npos);
  CHECK(message(-1, 1).find("windows of -1 pixels") != std::string::npos);
  CHECK(message(32, 32) == "nothing");
}

TEST_CASE("windows that cover the image at once give what the whole gives; flips average") {
  const SegmentationSample s = shapes_segmentation({.height = 40, .width = 56, .images = 1}).get(0);
  Segmentor<UperNet> model(small_segmentor(), 3);
  const SegmentOptions whole{.longer = 56, .shorter = 40};
  SegmentOptions windows = whole, sliding = whole, both = whole;
  windows.crop = 56, windows.stride = 32, sliding.crop = 32, sliding.stride = 16, both.flip = true,
  both.factors = {1, 1.25};
  const Tensor p = segment_probabilities(model, s.image, whole);
  CHECK(segment_probabilities(model, s.image, windows).to_vector<float>() == p.to_vector<float>());
  for (const Tensor& t : {segment_probabilities(model, s.image, sliding),
                          segment_probabilities(model, s.image, both)}) {
    REQUIRE(t.shape() == Shape{1, 40, 56, 11});
    double sum = 0;
    for (const float v : t.to_vector<float>()) sum += static_cast<double>(v);
    CHECK(sum == Approx(40 * 56).epsilon(1e-4));
  }
  // Mirrored in, mirrored out: with flips the average is its own mirror's.
  const std::vector<float> straight =
      segment_probabilities(model, s.image, both).to_vector<float>();
  const std::vector<float> mirrored =
      flip(segment_probabilities(model, flip_horizontal(s.image), both), 2).to_vector<float>();
  for (std::size_t i = 0; i < straight.size(); ++i)
    REQUIRE(straight[i] == Approx(mirrored[i]).margin(1e-5));
}
