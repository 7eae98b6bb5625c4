// The dense networks on the GPU: losses, gradients and what they find, against the CPU's.

#if PPMA_TEST_GPU

#include "catch.hpp"
#include "heads/scene.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/heads/segmentor_json.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/roi_align.hpp"

using namespace ppma;

namespace {

struct Step {
  std::vector<double> losses;
  std::vector<std::pair<std::string, std::vector<double>>> gradients;
};

// A training step's losses (of one forward pass) and all gradients.
template <class Model, class Losses>
Step step_of(Model& model, Losses&& losses_of) {
  Step s;
  const std::vector<Tensor> losses = losses_of();
  for (const Tensor& l : losses) s.losses.push_back(cast(l.to(Device::cpu), DType::f64).item());
  losses.back().backward();
  for (const Field& f : named_parameters(model)) {
    INFO(f.name);
    REQUIRE(f.tensor.grad().defined());
    s.gradients.emplace_back(
        f.name, cast(f.tensor.grad().to(Device::cpu), DType::f64).template to_vector<double>());
  }
  return s;
}

void compare(const Step& got, const Step& want, double loss_tolerance, double gradient_tolerance) {
  REQUIRE(got.losses.size() == want.losses.size());
  for (std::size_t i = 0; i < want.losses.size(); ++i) {
    CHECK(want.losses[i] > 0);
    CHECK(got.losses[i] == Approx(want.losses[i]).epsilon(loss_tolerance));
  }
  double largest = 0;  // gradients that vanish (of a bias before a norm) are rounding alone
  for (const auto& [name, g] : want.gradients)
    for (const double v : g) largest = std::max(largest, std::fabs(v));
  for (std::size_t p = 0; p < want.gradients.size(); ++p) {
    const auto &g = got.gradients[p].second, &w = want.gradients[p].second;
    double difference = 0, norm = 0;
    for (std::size_t i = 0; i < w.size(); ++i)
      difference += (g[i] - w[i]) * (g[i] - w[i]), norm += w[i] * w[i];
    INFO(want.gradients[p].first);
    CHECK(std::sqrt(difference) <= gradient_tolerance * (std::sqrt(norm) + 1e-3 * largest));
  }
}

MaskRcnn detector() {
  MaskRcnnConfig c = mask_rcnn_nano(2, true);
  c.backbone.embed_dims = {16, 16, 16, 32}, c.backbone.num_heads = {2, 2, 2, 2},
  c.backbone.depths = {1, 1, 1, 1};
  c.backbone.chunkwise_recurrents = {true, false, false, false};
  c.rpn.channels = 16, c.rpn.sample.count = 32, c.roi.fc_channels = 32, c.roi.sample.count = 16,
  c.roi.mask_convs = 1;
  MaskRcnn model(c, 1);
  // scores that differ: their order is not left to rounding
  Tensor& scores = model.roi_head.bbox_head.fc_cls.weight;
  for (i64 i = 0; i < scores.numel(); ++i) scores.data<float>()[i] *= 100;
  return model;
}

}  // namespace

TEST_CASE("segmentor on the GPU: logits, losses and gradients are the CPU's", "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const SegmentorConfig<UperNet> c = segmentor_nano<UperNet>(5);
  Rng rng(3);
  const Tensor images = Tensor::randn({2, 3, 64, 96}, rng);
  Tensor labels = Tensor::empty({2, 64, 96}, DType::int64);
  for (i64 i = 0; i < labels.numel(); ++i)
    labels.data<i64>()[i] = i % 7 == 0 ? c.ignore_index : rng.below(5);
  const auto run = [&](Device device, DType dtype) {
    Segmentor<UperNet> model(c, 1);
    to(model, accumulator_dtype(dtype)), to(model, device);
    const Tensor x = cast(images, dtype).to(device);
    Context evaluation;
    const Tensor logits = [&] {
      const NoGrad not_recorded;
      return cast(model.forward(x, evaluation).to(Device::cpu), DType::f64);
    }();
    Step s = step_of(model, [&] {
      Context ctx{true, Rng(1)};
      const SegmentationLoss l = model.loss(x, labels.to(device), ctx);
      return std::vector<Tensor>{l.decode, l.auxiliary, l.total};
    });
    s.gradients.emplace_back("logits", logits.to_vector<double>());
    return s;
  };
  const Step want = run(Device::cpu, DType::f64);
  compare(run(Device::cuda, DType::f64), want, 1e-10, 1e-8);
  compare(run(Device::cuda, DType::f32), want, 1e-5, 2e-3);
  const Step rough = run(Device::cuda, DType::bf16);
  for (std::size_t i = 0; i < want.losses.size(); ++i)
    CHECK(rough.losses[i] == Approx(want.losses[i]).epsilon(2e-2));
}

TEST_CASE("accuracy of pixels on the GPU is the CPU's", "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(4);
  const Tensor logits = Tensor::randn({2, 40, 50, 19}, rng);
  Tensor labels = Tensor::empty({2, 40, 50}, DType::int64);
  for (i64 i = 0; i < labels.numel(); ++i) labels.data<i64>()[i] = i % 5 == 0 ? 255 : rng.below(19);
  const double want = pixel_accuracy(logits, labels, 255).item();
  CHECK(want > 0);
  CHECK(pixel_accuracy(logits.to(Device::cuda), labels.to(Device::cuda), 255)
            .to(Device::cpu)
            .item() == Approx(want).epsilon(1e-12));
}

TEST_CASE("detector on the GPU: chosen boxes are the CPU's, to the last", "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(6);
  RpnConfig config;
  config.channels = 4;
  const RpnHead head(config, rng);
  // Deltas of 0, so that boxes are the same numbers on both; scores with many equal ones.
  const std::vector<Frame> frames{{96, 150, 96, 160, 192, 300, 1}, {90, 160, 96, 160, 90, 160, 2}};
  for (const double step : {0.0, 0.25}) {
    RpnOutput here, there;
    for (const auto& [h, w] :
         std::vector<std::pair<i64, i64>>{{24, 40}, {12, 20}, {6, 10}, {3, 5}, {2, 3}}) {
      Tensor scores = Tensor::randn({2, h, w, 3}, rng);
      for (i64 i = 0; i < scores.numel() && step > 0; ++i)
        scores.data<float>()[i] =
            static_cast<float>(step * std::round(scores.data<float>()[i] / step));
      here.scores.push_back(scores), here.deltas.push_back(Tensor::zeros({2, h, w, 12}));
      there.scores.push_back(scores.to(Device::cuda)),
          there.deltas.push_back(here.deltas.back().to(Device::cuda));
    }
    for (const bool training : {false, true}) {
      const auto want = head.proposals(here, frames, training),
                 got = head.proposals(there, frames, training);
      REQUIRE(got.size() == want.size());
      for (std::size_t b = 0; b < want.size(); ++b) {
        CHECK(want[b].size() > 200);
        REQUIRE(got[b].size() == want[b].size());
        for (std::size_t k = 0; k < want[b].size(); ++k)
          CHECK((got[b][k].x1 == want[b][k].x1 && got[b][k].y1 == want[b][k].y1 &&
                 got[b][k].x2 == want[b][k].x2 && got[b][k].y2 == want[b][k].y2));
      }
    }
    const Tensor wrong = Tensor::full({2, 2, 3, 3}, std::nan(""));
    there.scores[4] = wrong.to(Device::cuda);
    CHECK_THROWS_AS(head.proposals(there, frames, false), Error);
  }
}

TEST_CASE("detector on the GPU: anchors learn what the CPU's do, each of them", "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(9);
  const std::vector<Frame> frames{{96, 150, 96, 160, 192, 300, 1},
                                  {60, 100, 60, 100, 90, 160, 2},
                                  {96, 160, 96, 160, 90, 160, 3}};
  std::vector<Objects> objects(3);  // the second has none
  for (const std::size_t b : {std::size_t{0}, std::size_t{2}})
    for (int k = 0; k < 40; ++k) {
      const float x = static_cast<float>(rng.uniform(0, 120)),
                  y = static_cast<float>(rng.uniform(0, 60));
      objects[b].boxes.push_back({x, y, x + static_cast<float>(rng.uniform(8, 60)),
                                  y + static_cast<float>(rng.uniform(8, 60))});
      objects[b].classes.push_back(0);
    }
  // with positive anchors to choose from and without, some ties, all of them, none
  const std::vector<std::pair<AssignConfig, SampleConfig>> rules{
      {{0.7, 0.3, 0.3, true}, {256, 0.5}},
      {{0.3, 0.2, 0.1, true}, {64, 0.25}},
      {{0.3, 0.3, 0.3, false}, {64, 1.0}},
      {{0.7, 0.3, 0.0, true}, {100000, 1}},
      {{0.5, 0.4, 0.3, true}, {32, 0}}};
  for (const auto& [assigning, sampling] : rules) {
    RpnConfig config;
    config.channels = 4, config.assign = assigning, config.sample = sampling;
    const RpnHead head(config, rng);
    const auto run = [&](Device device) {
      Rng same(10);
      RpnOutput out;
      for (const auto& [h, w] :
           std::vector<std::pair<i64, i64>>{{24, 40}, {12, 20}, {6, 10}, {3, 5}, {2, 3}}) {
        out.scores.push_back(Tensor::randn({3, h, w, 3}, same).to(device).requires_grad(true));
        out.deltas.push_back(Tensor::randn({3, h, w, 12}, same).to(device).requires_grad(true));
      }
      const RpnLoss loss = head.loss(out, frames, objects, Rng(4));
      std::vector<double> all{loss.cls.to(Device::cpu).item(), loss.bbox.to(Device::cpu).item()};
      add(loss.cls, loss.bbox).backward();  // nothing but what was chosen has a gradient
      for (const auto* of : {&out.scores, &out.deltas})
        for (const Tensor& t : *of)
          for (const float g : t.grad().to(Device::cpu).to_vector<float>())
            all.push_back(static_cast<double>(g));
      return all;
    };
    const std::vector<double> want = run(Device::cpu), got = run(Device::cuda);
    REQUIRE(got.size() == want.size());
    CHECK(want[0] > 0);
    int chosen = 0, wrong = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      if (i > 1 && want[i] != 0) ++chosen;
      if (!(std::fabs(got[i] - want[i]) <= 1e-5 * (1e-3 + std::fabs(want[i])))) ++wrong;
    }
    INFO("positive from " << assigning.positive << ", " << sampling.count << " of an image");
    CHECK(chosen > 90);
    CHECK(wrong == 0);
  }
}

TEST_CASE("detector on the GPU: regions to learn from are the CPU's, in its order",
          "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(12);
  const auto box = [&rng] {
    const float x = static_cast<float>(rng.uniform(0, 400)),
                y = static_cast<float>(rng.uniform(0, 300));
    return Box{x, y, x + static_cast<float>(rng.uniform(8, 120)),
               y + static_cast<float>(rng.uniform(8, 120))};
  };
  const i64 images = 4, most = 1000;
  const std::vector<Frame> frames(4, Frame{384, 512, 384, 512, 384, 512, 1});
  std::vector<Objects> objects(4);  // the second has none, the last many, two of them alike
  const std::size_t truths[4] = {30, 0, 1, 200};
  std::vector<std::vector<Box>> proposals(4);
  const std::size_t counts[4] = {1000, 700, 0, 1000};  // and the third no proposals
  Tensor rows = Tensor::full({images, most, 6}, -1);
  for (std::size_t b = 0; b < 4; ++b) {
    for (std::size_t k = 0; k < truths[b]; ++k)
      objects[b].boxes.push_back(k == 1 ? objects[b].boxes[0] : box()),
          objects[b].classes.push_back(static_cast<i64>(k % 3));
    for (std::size_t k = 0; k < counts[b]; ++k) {
      Box p = box();
      if (truths[b] > 0 && k % 5 == 0) {  // near one
        p = objects[b].boxes[k / 5 % truths[b]];
        p.x1 += static_cast<float>(k % 40) / 4, p.y2 += static_cast<float>(k % 7);
      }
      proposals[b].push_back(p);
      float* const row = rows.data<float>() + (b * static_cast<std::size_t>(most) + k) * 6;
      row[0] = p.x1, row[1] = p.y1, row[2] = p.x2, row[3] = p.y2, row[4] = 0.5f, row[5] = 1;
    }
  }
  for (const auto& [assigning, sampling] :
       std::vector<std::pair<AssignConfig, SampleConfig>>{{{0.5, 0.5, 0.5, true}, {512, 0.25}},
                                                          {{0.5, 0.5, 0.5, false}, {128, 0.5}},
                                                          {{0.6, 0.4, 0.2, true}, {3000, 1}},
                                                          {{0.5, 0.5, 0.5, true}, {64, 0}}}) {
    RoiConfig c;
    c.assign = assigning, c.sample = sampling, c.num_classes = 3;
    INFO("positive from " << assigning.positive << ", " << sampling.count << " of an image");
    std::vector<Roi> want;
    for (std::size_t b = 0; b < 4; ++b)
      for (const Roi& r :
           sample_rois(proposals[b], objects[b], static_cast<i64>(b), c, Rng(5).fork(0x501 + b)))
        want.push_back(r);
    const std::vector<Roi> got =
        sample_rois(rows.to(Device::cuda), frames, objects, c, Rng(5), 0x501);
    REQUIRE(got.size() == want.size());
    CHECK(want.size() > 100);
    int wrong = 0;
    for (std::size_t i = 0; i < want.size(); ++i)
      wrong += got[i].image != want[i].image || got[i].truth != want[i].truth ||
               got[i].label != want[i].label || got[i].box.x1 != want[i].box.x1 ||
               got[i].box.y1 != want[i].box.y1 || got[i].box.x2 != want[i].box.x2 ||
               got[i].box.y2 != want[i].box.y2;
    CHECK(wrong == 0);
  }
  rows.data<float>()[5] = -2;
  CHECK_THROWS_AS(sample_rois(rows.to(Device::cuda), frames, objects, RoiConfig{}, Rng(5), 0),
                  Error);
}

TEST_CASE("detector on the GPU: boxes of classes are the CPU's", "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(7);
  RoiConfig c;
  c.num_classes = 7, c.detections = 60;
  const i64 regions = 150;
  const Frame frame{200, 300, 224, 320, 100, 600, 1};
  std::vector<Roi> rois;
  std::vector<float> rows;
  for (i64 r = 0; r < regions + 10; ++r) {  // behind the last region: nothing
    const float x = static_cast<float>(rng.below(200)), y = static_cast<float>(rng.below(120)),
                w = static_cast<float>(8 + rng.below(80)),
                h = static_cast<float>(8 + rng.below(80));
    if (r < regions) rois.push_back({{x, y, x + w, y + h}, 0, -1, 0});
    rows.insert(rows.end(), {x, y, x + w, y + h, 0.5f, r < regions ? 0.0f : -1.0f});
  }
  BoxOutput all{Tensor::randn({regions + 10, 8}, rng, 2), Tensor::zeros({regions + 10, 28})};
  const BoxOutput some{narrow(all.scores, 0, 0, regions), narrow(all.deltas, 0, 0, regions)};
  const auto want = detections_of(some, rois, frame, c);
  all.scores = all.scores.to(Device::cuda), all.deltas = all.deltas.to(Device::cuda);
  const auto got = detections_of(
      all, Tensor::from<float>(rows, {1, regions + 10, 6}).to(Device::cuda), {frame}, c);
  REQUIRE(got.size() == 1);
  REQUIRE(want.size() == 60);
  REQUIRE(got[0].size() == want.size());
  for (std::size_t k = 0; k < want.size(); ++k) {
    INFO(k);
    CHECK(got[0][k].label == want[k].label);
    CHECK(got[0][k].score == Approx(want[k].score).epsilon(1e-5));
    CHECK(got[0][k].box.x1 == Approx(want[k].box.x1).margin(1e-4));
    CHECK(got[0][k].box.y2 == Approx(want[k].box.y2).margin(1e-4));
  }
}

TEST_CASE("detector on the GPU: a region's cells are those of its level", "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(8);
  std::vector<Tensor> here, there;
  for (const i64 n : {64, 32, 16, 8, 4}) here.push_back(Tensor::randn({2, n, n, 8}, rng));
  for (const Tensor& t : here) there.push_back(t.to(Device::cuda));
  std::vector<Roi> rois;
  for (const float side : {0.0f, 10.0f, 55.9f, 56.1f, 111.0f, 113.0f, 200.0f, 240.0f})
    rois.push_back({{3, 5, 3 + side, 5 + side}, 1, -1, 0});
  sort_by_level(rois, 56);
  const NoGrad not_recorded;
  const Tensor want = roi_features(here, rois, 7, 56),
               got = roi_features(there, rois, 7, 56).to(Device::cpu);
  for (i64 i = 0; i < want.numel(); ++i)
    CHECK(got.data<float>()[i] == Approx(want.data<float>()[i]).margin(1e-5));
}

TEST_CASE("detector on the GPU: regions are filled up to few numbers of them", "[cuda][heads]") {
  std::vector<Roi> rois(65, Roi{{1, 2, 30, 40}, 1, 0, 3});
  rois.back().image = 2;
  CHECK(few_sizes(rois, Device::cpu).size() == 65);
  const std::vector<Roi> filled = few_sizes(rois, Device::cuda);
  REQUIRE(filled.size() == 128);
  for (std::size_t r = 65; r < filled.size(); ++r) CHECK(filled[r].image == 2);
  CHECK(few_sizes(filled, Device::cuda).size() == 128);
  CHECK(few_sizes({}, Device::cuda).empty());
}

TEST_CASE("detector on the GPU: a map's gradient of thousands of regions is the CPU's",
          "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  struct Regions {
    i64 count, channels, height, width;
  };
  // More than a block looks through at once, in packs and not; channels of several blocks; cells of
  // which shared memory has fewer boxes at once.
  for (const auto& [count, channels, height, width] :
       {Regions{5000, 3, 7, 7}, {5000, 16, 7, 7}, {300, 136, 14, 10}, {90, 8, 3, 80}}) {
    Rng rng(5);
    Tensor boxes = Tensor::empty({count, 5});
    const auto drawn = [&](double low, double high) {
      return static_cast<float>(rng.uniform(low, high));
    };
    for (i64 k = 0; k < count; ++k) {
      float* const box = boxes.data<float>() + 5 * k;
      box[0] = static_cast<float>(rng.below(3)), box[1] = drawn(-20, 160), box[2] = drawn(-20, 180);
      box[3] = box[1] + drawn(0, 90), box[4] = box[2] + drawn(0, 60);
    }
    const Tensor map = Tensor::randn({3, 23, 19, channels}, rng),
                 dy = Tensor::randn({count, height, width, channels}, rng);
    RoiAlign grid;
    grid.height = height, grid.width = width, grid.scale = 1.0 / 8;
    const auto slope = [&, of = channels](Device device) {
      Tensor x = map.to(device).clone();
      x.requires_grad(true);
      roi_align(x, of == 3 ? boxes : boxes.to(device), grid).backward(dy.to(device));
      return x.grad().to(Device::cpu);
    };
    const Tensor want = slope(Device::cpu), got = slope(Device::cuda);
    for (i64 i = 0; i < want.numel(); ++i)
      CHECK(got.data<float>()[i] == Approx(want.data<float>()[i]).margin(1e-4).epsilon(1e-4));
  }
  Tensor x = Tensor::ones({1, 4, 4, 1}).to(Device::cuda);
  x.requires_grad(true);
  RoiAlign grid;
  grid.width = 2000;
  const Tensor y = roi_align(x, Tensor::from<float>({0, 0, 0, 4, 4}, {1, 5}), grid);
  CHECK_THROWS_WITH(
      y.backward(Tensor::ones(y.shape()).to(Device::cuda)),
      "roi_align on a GPU: boxes of 7 x 2000 cells; at most 1024 a side have gradients");
}

TEST_CASE("detector on the GPU: losses and gradients are the CPU's", "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const DetectionBatch b = scene(64, 96, 2);
  const auto run = [&](Device device, DType dtype) {
    MaskRcnn model = detector();
    to(model, device);
    return step_of(model, [&] {
      Context ctx{true, Rng(1)};
      const DetectionLoss l = model.loss(cast(b.images, dtype).to(device), b, ctx);
      return std::vector<Tensor>{l.rpn_cls, l.rpn_bbox, l.cls, l.bbox, l.mask, l.total};
    });
  };
  const Step want = run(Device::cpu, DType::f32);
  compare(run(Device::cuda, DType::f32), want, 1e-4, 5e-3);
  const Step once = run(Device::cuda, DType::bf16), again = run(Device::cuda, DType::bf16);
  CHECK(once.losses == again.losses);
  for (std::size_t p = 0; p < once.gradients.size(); ++p) {
    INFO(once.gradients[p].first);
    CHECK(once.gradients[p].second == again.gradients[p].second);
  }
  // the others depend on which proposals came out best
  for (const std::size_t i : {std::size_t{0}, std::size_t{1}})
    CHECK(once.losses[i] == Approx(want.losses[i]).epsilon(5e-2));
}

TEST_CASE("detector on the GPU: what is found is what the CPU finds", "[cuda][heads]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  const DetectionBatch b = scene(96, 128, 2);
  MaskRcnn model = detector();
  const auto want = model.detect(b.images, b.frames);
  to(model, Device::cuda);
  const auto got = model.detect(b.images.to(Device::cuda), b.frames);
  REQUIRE(got.size() == want.size());
  for (std::size_t image = 0; image < want.size(); ++image) {
    REQUIRE(want[image].size() > 10);
    REQUIRE(got[image].size() == want[image].size());
    for (std::size_t k = 0; k < want[image].size(); ++k) {
      const Detection &g = got[image][k], &w = want[image][k];
      INFO("image " << image << ", object " << k);
      CHECK(g.label == w.label);
      CHECK(g.score == Approx(w.score).margin(1e-4));
      CHECK(g.box.x1 == Approx(w.box.x1).margin(1e-2));
      CHECK(g.box.y1 == Approx(w.box.y1).margin(1e-2));
      CHECK(g.box.x2 == Approx(w.box.x2).margin(1e-2));
      CHECK(g.box.y2 == Approx(w.box.y2).margin(1e-2));
      REQUIRE((g.mask && w.mask));
      CHECK(rle_iou(*g.mask, *w.mask) > 0.99);
    }
  }
}

#endif
