// Targets, losses, proposals and pasting against torchvision and PyTorch
// (reference/make_detection.py) and by hand.

#include <algorithm>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "heads/scene.hpp"
#include "heads/spread.hpp"
#include "io/help.hpp"
#include "ppma/core/shape.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/io/file.hpp"
#include "ppma/io/zip.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/tensor/grad_check.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

using nlohmann::json;

const json& stored() {
  static const json j = [] {
    const std::vector<u8> file = read_file(io_test::reference("detection.json"));
    return json::parse(file.begin(), file.end());
  }();
  return j;
}

Box box_of(const json& j) {
  return {j[0].get<float>(), j[1].get<float>(), j[2].get<float>(), j[3].get<float>()};
}
std::vector<Box> boxes_of(const json& j) {
  std::vector<Box> b;
  for (const auto& one : j) b.push_back(box_of(one));
  return b;
}

MaskRcnnConfig small() {
  MaskRcnnConfig c = mask_rcnn_nano(2, true);
  c.backbone.embed_dims = {8, 8, 8, 8}, c.backbone.num_heads = {2, 2, 2, 2},
  c.backbone.depths = {1, 1, 1, 1};
  c.rpn.channels = 8, c.rpn.sample.count = 32, c.roi.fc_channels = 16, c.roi.sample.count = 16,
  c.roi.mask_convs = 1;
  return c;
}

}  // namespace

TEST_CASE("detector: parameter counts as published", "[heads]") {
  const SkipInit skip;
  MaskRcnn tiny{MaskRcnnConfig{}};
  CHECK(parameter_count(tiny) == 32935856);
  CHECK(parameter_count(tiny.neck) == 2607104);
  CHECK(parameter_count(tiny.rpn_head) == 593935);
  CHECK(parameter_count(tiny.roi_head.bbox_head) == 14306705);
  CHECK(parameter_count(*tiny.roi_head.mask_head) == 2643280);
  if (brief()) return;  // sums over shapes alone
  MaskRcnnConfig c;
  c.backbone = ppma_small();
  MaskRcnn small_one{c};
  CHECK(parameter_count(small_one) == 45570056);
  c.backbone = ppma_base();
  MaskRcnn base{c};
  CHECK(parameter_count(base) == 72788004);
  c.with_mask = false;
  MaskRcnn boxes{c};
  CHECK(parameter_count(boxes) == 72788004 - 2643280);
  std::vector<std::string> names;
  for (const Field& f : state_dict(tiny)) names.push_back(f.name);
  for (const char* name :
       {"backbone.patch_embed.proj.0.weight", "neck.lateral_convs.0.conv.weight",
        "neck.fpn_convs.3.conv.bias", "rpn_head.rpn_conv.weight", "rpn_head.rpn_cls.bias",
        "rpn_head.rpn_reg.weight", "roi_head.bbox_head.fc_cls.weight",
        "roi_head.bbox_head.fc_reg.bias", "roi_head.bbox_head.shared_fcs.1.weight",
        "roi_head.mask_head.convs.3.conv.weight", "roi_head.mask_head.upsample.weight",
        "roi_head.mask_head.conv_logits.bias"}) {
    INFO(name);
    CHECK(std::count(names.begin(), names.end(), name) == 1);
  }
}

TEST_CASE("detector: initial values", "[heads]") {
  MaskRcnnConfig c = mask_rcnn_nano(80, true);
  c.roi.fc_channels = 128;
  const MaskRcnn model(c, 3);
  for (const Conv2d* layer : {&model.rpn_head.rpn_conv, &model.rpn_head.rpn_reg}) {
    // the second has 768 values
    CHECK(std::abs(spread(layer->weight).deviation / 0.01 - 1) < 0.08);
    CHECK(is_all(layer->bias, 0));
  }
  CHECK(is_normal(model.rpn_head.rpn_conv.weight, 0.01));
  const BoxHead& box = model.roi_head.bbox_head;
  CHECK(is_normal(box.fc_cls.weight, 0.01));
  CHECK(is_normal(box.fc_reg.weight, 0.001));
  CHECK(is_uniform(box.shared_fcs[0].weight, std::sqrt(6.0 / (64 * 49 + 128))));
  CHECK(is_uniform(box.shared_fcs[1].weight, std::sqrt(6.0 / (128 + 128))));
  CHECK((is_all(box.fc_cls.bias, 0) && is_all(box.fc_reg.bias, 0) &&
         is_all(box.shared_fcs[0].bias, 0)));
  const MaskHead& mask = *model.roi_head.mask_head;
  CHECK(is_normal(mask.convs[1].conv.weight, std::sqrt(2.0 / (64 * 9))));
  CHECK(is_normal(mask.upsample.weight, std::sqrt(2.0 / (64 * 4))));
  CHECK(std::abs(spread(mask.conv_logits.weight).deviation / std::sqrt(2.0 / 80) - 1) < 0.05);
  CHECK((is_all(mask.convs[0].conv.bias, 0) && is_all(mask.upsample.bias, 0) &&
         is_all(mask.conv_logits.bias, 0)));
}

TEST_CASE("detector: boxes are assigned as torchvision's Matcher does", "[heads]") {
  for (const auto& c : stored().at("matches")) {
    const std::vector<Box> boxes = boxes_of(c.at("boxes")), truths = boxes_of(c.at("truths"));
    const std::vector<i64> plain = assign(boxes, truths, {0.5, 0.3, 0, false}),
                           low = assign(boxes, truths, {0.5, 0.3, 0, true});
    for (std::size_t i = 0; i < boxes.size(); ++i) {
      INFO(i);
      CHECK(plain[i] == c.at("plain").at(i).get<i64>());  // -1 background, -2 between
      CHECK((low[i] >= 0) == (c.at("low_positive").at(i) == 1));
    }
  }
}

TEST_CASE("detector: assignment by hand", "[heads]") {
  // Overlaps with the one truth: 1, 0.5, 0.25, 0.
  const std::vector<Box> boxes{{0, 0, 10, 10}, {0, 0, 10, 5}, {0, 0, 5, 5}, {20, 20, 30, 30}};
  CHECK(assign(boxes, {{0, 0, 10, 10}}) ==
        std::vector<i64>{0, assigned_ignored, assigned_background, assigned_background});
  // Two boxes tie for a truth that neither overlaps by 0.7: both are positive; below least_positive
  // neither is.
  const std::vector<Box> two{{0, 0, 10, 5}, {0, 5, 10, 10}};
  CHECK(assign(two, {{0, 0, 10, 10}}) == std::vector<i64>{0, 0});
  CHECK(assign(two, {{0, 0, 10, 10}}, {0.7, 0.6, 0.6, true}) ==
        std::vector<i64>{assigned_background, assigned_background});
  CHECK(assign(two, {}) == std::vector<i64>{assigned_background, assigned_background});
  // A box that ties a second truth's best changes hands.
  CHECK(assign({{0, 0, 10, 10}}, {{0, 0, 10, 10}, {0, 0, 10, 5}}) == std::vector<i64>{1});
}

TEST_CASE("detector: samples respect share and count, and repeat", "[heads]") {
  std::vector<i64> assigned(100, assigned_background);
  for (std::size_t i = 0; i < 40; ++i) assigned[i] = 3;
  assigned[99] = assigned_ignored;
  const Sampled s = sample(assigned, {20, 0.25}, Rng(1)),
                again = sample(assigned, {20, 0.25}, Rng(1)),
                other = sample(assigned, {20, 0.25}, Rng(2));
  CHECK(s.positive.size() == 5);
  CHECK(s.negative.size() == 15);
  CHECK(s.positive == again.positive);
  CHECK(s.negative == again.negative);
  CHECK(s.negative != other.negative);
  CHECK(std::all_of(s.positive.begin(), s.positive.end(), [](i64 i) { return i < 40; }));
  CHECK(std::all_of(s.negative.begin(), s.negative.end(), [](i64 i) { return i >= 40 && i < 99; }));
  CHECK(std::adjacent_find(s.negative.begin(), s.negative.end()) == s.negative.end());
  const Sampled all = sample(assigned, {1000, 0.5}, Rng(1));
  CHECK(all.positive.size() == 40);
  CHECK(all.negative.size() == 59);
}

TEST_CASE("detector: every box is drawn as often", "[heads]") {
  const std::vector<i64> assigned(20, 0);
  std::vector<int> drawn(20, 0);
  for (u64 seed = 0; seed < 2000; ++seed)
    for (const i64 k : sample(assigned, {5, 1}, Rng(seed)).positive)
      ++drawn[static_cast<std::size_t>(k)];
  // 500 times each are expected, with a deviation of 19
  for (const int n : drawn) CHECK((n > 415 && n < 585));
}

TEST_CASE("detector: deltas and levels are torchvision's", "[heads]") {
  const json& c = stored().at("coder");
  const BoxCoder stds = RoiConfig{}.coder;
  const std::vector<Box> proposals = boxes_of(c.at("proposals")), truths = boxes_of(c.at("truths")),
                         decoded = boxes_of(c.at("decoded"));
  int compared = 0;
  for (std::size_t i = 0; i < proposals.size(); ++i) {
    INFO(i);
    const Delta d = encode(proposals[i], truths[i], stds);
    CHECK(d.dx == Approx(c["deltas"][i][0].get<double>()).margin(1e-4));
    CHECK(d.dy == Approx(c["deltas"][i][1].get<double>()).margin(1e-4));
    CHECK(d.dw == Approx(c["deltas"][i][2].get<double>()).margin(1e-4));
    CHECK(d.dh == Approx(c["deltas"][i][3].get<double>()).margin(1e-4));
    const json& g = c["given"][i];
    // torchvision has no lower limit
    if (g[2].get<double>() * 0.2 < std::log(0.016) || g[3].get<double>() * 0.2 < std::log(0.016))
      continue;
    const Box b = decode(
        proposals[i], {g[0].get<float>(), g[1].get<float>(), g[2].get<float>(), g[3].get<float>()},
        90, 90, stds);
    CHECK(b.x1 == Approx(decoded[i].x1).margin(1e-3));
    CHECK(b.y1 == Approx(decoded[i].y1).margin(1e-3));
    CHECK(b.x2 == Approx(decoded[i].x2).margin(1e-3));
    CHECK(b.y2 == Approx(decoded[i].y2).margin(1e-3));
    ++compared;
  }
  CHECK(compared > 20);
  const std::vector<Box> many = boxes_of(stored().at("levels").at("boxes"));
  for (std::size_t i = 0; i < many.size(); ++i)
    CHECK(static_cast<i64>(roi_level(many[i])) == stored()["levels"]["level"][i].get<i64>());
}

TEST_CASE("detector: the proposal network's losses are PyTorch's", "[heads]") {
  const json& c = stored().at("rpn");
  Rng rng(0);
  RpnConfig config;
  config.channels = 4, config.sample = {100000, 1.0};
  const RpnHead head(config, rng);
  RpnOutput out;
  for (std::size_t l = 0; l < 5; ++l) {
    const i64 s = config.strides[l], h = (32 + s - 1) / s, w = (48 + s - 1) / s;
    out.scores.push_back(
        Tensor::from<float>(c["scores"][l].get<std::vector<float>>(), {1, h, w, 3}));
    out.deltas.push_back(
        Tensor::from<float>(c["deltas"][l].get<std::vector<float>>(), {1, h, w, 12}));
  }
  Objects o;
  o.boxes = boxes_of(c.at("truths")), o.classes = {0, 0, 0};
  const RpnLoss loss = head.loss(out, {{32, 48, 32, 48, 32, 48, 1}}, {o}, Rng(0));
  CHECK(loss.cls.item() == Approx(c.at("cls").get<double>()).epsilon(1e-5));
  CHECK(loss.bbox.item() == Approx(c.at("bbox").get<double>()).epsilon(1e-5));
}

TEST_CASE("detector: proposals by hand", "[heads]") {
  Rng rng(0);
  RpnConfig config;
  config.channels = 4, config.anchor.ratios = {1}, config.anchor.scale = 1, config.proposals = 3;
  const RpnHead head(config, rng);
  RpnOutput out;  // a 16 x 16 image: 4 x 4, 2 x 2, and three maps of one cell
  for (const i64 n : {4, 2, 1, 1, 1})
    out.scores.push_back(Tensor::full({1, n, n, 1}, -9.0)),
        out.deltas.push_back(Tensor::zeros({1, n, n, 4}));
  out.scores[0].data<float>()[5] = 2;          // centred at (4, 4), side 4
  out.scores[0].data<float>()[6] = 1;          // at (8, 4)
  out.deltas[0].data<float>()[6 * 4] = -0.9f;  // moved onto its neighbour: suppressed
  out.scores[1].data<float>()[3] = 3;          // at (8, 8), side 8
  const std::vector<Box> p = head.proposals(out, {{16, 16, 16, 16, 16, 16, 1}}, false)[0];
  REQUIRE(p.size() == 3);
  CHECK(p[0].x1 == 4);
  CHECK(p[0].y2 == 12);
  CHECK(p[1].x1 == 2);
  CHECK(p[1].x2 == 6);
  CHECK(p[2].x1 != Approx(2.4));  // the suppressed one is not among them
  out.scores[4].data<float>()[0] = std::nanf("");
  CHECK(says(
      [&] {
        head.proposals(out, {{16, 16, 16, 16, 16, 16, 1}}, false);
      },
      "rpn: a score is not a number"));
  out.scores[4].data<float>()[0] = 0;
  RpnHead wrong = head;
  wrong.config.nms = -1;
  CHECK(says(
      [&] {
        wrong.proposals(out, {{16, 16, 16, 16, 16, 16, 1}}, false);
      },
      "rpn: the threshold nms is -1"));
}

TEST_CASE("detector: an image's proposals do not depend on the rest of the batch", "[heads]") {
  Rng rng(5);
  RpnConfig config;
  config.channels = 4, config.proposals = 20;
  const RpnHead head(config, rng);
  RpnOutput both;
  for (const i64 n : {8, 4, 2, 1, 1})
    both.scores.push_back(Tensor::randn({2, n, n, 3}, rng)),
        both.deltas.push_back(Tensor::randn({2, n, n, 12}, rng, 0.1));
  const Frame frame{32, 32, 32, 32, 32, 32, 1};
  const auto together = head.proposals(both, {frame, frame}, false);
  for (i64 b = 0; b < 2; ++b) {
    RpnOutput one;
    for (std::size_t l = 0; l < 5; ++l)
      one.scores.push_back(narrow(both.scores[l], 0, b, 1)),
          one.deltas.push_back(narrow(both.deltas[l], 0, b, 1));
    const std::vector<Box> alone = head.proposals(one, {frame}, false)[0],
                           &among = together[static_cast<std::size_t>(b)];
    REQUIRE(alone.size() == among.size());
    for (std::size_t i = 0; i < alone.size(); ++i)
      CHECK((alone[i].x1 == among[i].x1 && alone[i].y1 == among[i].y1 &&
             alone[i].x2 == among[i].x2 && alone[i].y2 == among[i].y2));
  }
  // the first image's frame alone
  CHECK(head.proposals(both, {frame}, false)[0].size() == together[0].size());
}

TEST_CASE("detector: a box head's losses by hand", "[heads]") {
  RoiConfig c;
  c.channels = 2, c.fc_channels = 4, c.num_classes = 2;
  Rng rng(1);
  const BoxHead head(c, rng);
  std::vector<Objects> objects(1);
  objects[0].boxes = {{0, 0, 10, 10}}, objects[0].classes = {1};
  const std::vector<Roi> rois{{{0, 0, 10, 20}, 0, 0, 1}, {{50, 50, 60, 60}, 0, -1, 2}};
  BoxOutput out;
  out.scores = Tensor::from<float>({0, 1, 0, 2, 0, 0}, {2, 3});
  out.deltas = Tensor::zeros({2, 8});
  out.deltas.data<float>()[0] = 7;   // another class: not looked at
  out.deltas.data<float>()[4] = 1;   // dx of class 1; the target is 0
  out.deltas.data<float>()[12] = 5;  // of background
  const BoxLoss l = head.loss(out, rois, objects);
  const double first = -std::log(std::exp(1.0) / (2 + std::exp(1.0))),
               second = -std::log(1 / (2 + std::exp(2.0)));
  CHECK(l.cls.item() == Approx((first + second) / 2).epsilon(1e-6));
  // dy target: (5 - 10) / 20 / 0.1 = -2.5; dh: ln(1/2) / 0.2 = -3.4657
  CHECK(l.bbox.item() == Approx((1 + 2.5 + std::log(2.0) * 5) / 2).epsilon(1e-6));
  CHECK(l.accuracy.item() == Approx(50));
}

TEST_CASE("detector: a mask's target and its loss by hand", "[heads]") {
  Tensor masks = Tensor::zeros({1, 8, 8}, DType::uint8);
  for (i64 y = 0; y < 8; ++y)
    for (i64 x = 0; x < 4; ++x) masks.data<u8>()[y * 8 + x] = 1;  // the left half
  const Roi roi{{0, 0, 8, 8}, 0, 0, 1};
  CHECK(MaskHead::mask_target(masks, roi, 4) ==
        std::vector<u8>{1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0});
  RoiConfig c;
  c.channels = 2, c.num_classes = 2;
  Rng rng(1);
  const MaskHead head(c, rng);
  std::vector<Objects> objects(1);
  objects[0].masks = masks;
  Tensor logits = Tensor::full({1, 4, 4, 2}, 100.0);  // class 0 is not looked at
  for (i64 k = 0; k < 16; ++k) logits.data<float>()[2 * k + 1] = 0;
  CHECK(head.loss(logits, {roi}, objects).item() == Approx(std::log(2.0)).epsilon(1e-6));
  // what stands behind the regions counts nothing
  Tensor more = Tensor::full({3, 4, 4, 2}, 7.0);
  std::copy_n(logits.data<float>(), logits.numel(), more.data<float>());
  more.requires_grad(true);
  const Tensor loss = head.loss(more, {roi}, objects);
  CHECK(loss.item() == Approx(std::log(2.0)).epsilon(1e-6));
  loss.backward();
  const std::vector<float> slope = more.grad().to_vector<float>();
  CHECK(slope[1] == Approx(-0.5 / 16));
  CHECK(std::all_of(slope.begin() + 32, slope.end(), [](float g) { return g == 0; }));
  objects[0].masks = Tensor();
  CHECK(says([&] { head.loss(logits, {roi}, objects); }, "train without the mask head"));
}

TEST_CASE("detector: masks are pasted as mmdet does", "[heads]") {
  for (const auto& c : stored().at("paste")) {
    const std::vector<float> mask = c.at("mask").get<std::vector<float>>();
    const Rle m = paste_mask(mask.data(), 28, box_of(c.at("box")), c.at("height").get<i64>(),
                             c.at("width").get<i64>());
    const std::vector<int> got = rle_decode(m).to_vector<int>();
    CHECK(got == c.at("pasted").get<std::vector<int>>());
  }
}

TEST_CASE("detector: a class does not suppress another", "[heads]") {
  RoiConfig c;
  c.num_classes = 2;
  BoxOutput out;  // three regions: two of class 0 on one place, one of class 1 there
  out.scores = Tensor::from<float>({4, 0, 0, 3, 0, 0, 0, 4, 0}, {3, 3});
  out.deltas = Tensor::zeros({3, 8});
  const std::vector<Roi> rois{
      {{0, 0, 10, 10}, 0, -1, 0}, {{0, 0, 10, 9}, 0, -1, 0}, {{0, 0, 10, 10}, 0, -1, 0}};
  const Frame twice{20, 20, 32, 32, 10, 10, 1};  // the network saw it twice as large
  c.least_score = 0.5;
  const std::vector<Detection> found = detections_of(out, rois, twice, c);
  REQUIRE(found.size() == 2);
  CHECK(found[0].label != found[1].label);
  CHECK(found[0].box.x2 == 5);
}

TEST_CASE("detector: gradients of the heads through their losses", "[heads]") {
  Rng rng(3);
  RoiConfig c;
  c.channels = 3, c.fc_channels = 6, c.num_classes = 2, c.box_size = 2, c.mask_size = 3,
  c.mask_convs = 1;
  BoxHead box(c, rng);
  MaskHead mask(c, rng);
  box.fc_reg.weight = parameter(Tensor::randn(box.fc_reg.weight.shape(), rng, 0.3)),
  box.fc_cls.weight = parameter(Tensor::randn(box.fc_cls.weight.shape(), rng, 0.3));
  to(box, DType::f64), to(mask, DType::f64);
  const DetectionBatch b = scene();
  const std::vector<Roi> rois{
      {{6, 9, 42, 44}, 0, 0, 0}, {{52, 18, 88, 66}, 0, 1, 1}, {{0, 0, 9, 9}, 0, -1, 2}};
  const GradCheck of_box = grad_check(
      [&](const std::vector<Tensor>& in) {
        const BoxLoss l = box.loss(box.forward(in[0]), rois, b.objects);
        return add(l.cls, l.bbox);
      },
      {Tensor::randn({3, 2, 2, 3}, rng, 1, DType::f64)});
  INFO(of_box.report);
  CHECK(of_box.ok);
  const std::vector<Roi> positive{rois[0], rois[1]};
  const GradCheck of_mask = grad_check(
      [&](const std::vector<Tensor>& in) {
        return mask.loss(mask.forward(in[0]), positive, b.objects);
      },
      {Tensor::randn({2, 3, 3, 3}, rng, 1, DType::f64)});
  INFO(of_mask.report);
  CHECK(of_mask.ok);
  RpnConfig rc;
  rc.channels = 3, rc.sample = {100000, 1.0};
  RpnHead rpn(rc, rng);
  for (Conv2d* layer : {&rpn.rpn_conv, &rpn.rpn_cls, &rpn.rpn_reg})
    layer->weight = parameter(Tensor::randn(layer->weight.shape(), rng, 0.3));
  rpn.rpn_conv.bias = parameter(Tensor::full({3}, 2.0));  // no cell behind the ReLU is dead
  to(rpn, DType::f64);
  std::vector<Tensor> levels;
  for (const i64 s : {8, 4, 2, 1, 1})
    levels.push_back(Tensor::randn({1, s, s, 3}, rng, 1, DType::f64));
  const Frame frame{32, 32, 32, 32, 32, 32, 1};
  Objects near;
  near.boxes = {{2, 2, 30, 30}}, near.classes = {0};
  const GradCheck of_rpn = grad_check(
      [&](const std::vector<Tensor>& in) {
        const RpnLoss l = rpn.loss(rpn.forward(in), {frame}, {near}, Rng(1));
        return add(l.cls, l.bbox);
      },
      levels);
  INFO(of_rpn.report);
  CHECK(of_rpn.ok);
  std::vector<Roi> sorted = rois;
  sort_by_level(sorted, 16);
  const GradCheck of_cells =
      grad_check([&](const std::vector<Tensor>& in) { return roi_features(in, sorted, 2, 16); },
                 {Tensor::randn({1, 16, 24, 2}, rng, 1, DType::f64),
                  Tensor::randn({1, 8, 12, 2}, rng, 1, DType::f64)});
  INFO(of_cells.report);
  CHECK(of_cells.ok);
}

TEST_CASE(
    "detector: every loss counts, every parameter gets a gradient, and what is found lies in the "
    "image",
    "[heads]") {
  MaskRcnn model(small(), 1);
  const DetectionBatch b = scene();
  Context ctx{true, Rng(1)};
  const DetectionLoss l = model.loss(b.images, b, ctx);
  for (const Tensor& t : {l.rpn_cls, l.rpn_bbox, l.cls, l.bbox, l.mask}) CHECK(t.item() > 0);
  CHECK(l.total.item() == Approx(l.rpn_cls.item() + l.rpn_bbox.item() + l.cls.item() +
                                 l.bbox.item() + l.mask.item()));
  l.total.backward();
  for (const Field& f : named_parameters(model)) {
    INFO(f.name);
    CHECK(f.tensor.grad().defined());
  }
  model.config.roi.least_score = 0.2;  // an untrained network is sure of nothing
  const std::vector<std::vector<Detection>> found = model.detect(b.images, b.frames);
  REQUIRE_FALSE(found[0].empty());
  for (const Detection& d : found[0]) {
    CHECK(d.box.x2 <= 96);
    REQUIRE(d.mask);
    CHECK(d.mask->width == 96);
  }
}

TEST_CASE("detector: images without objects, and without a mask head", "[heads]") {
  MaskRcnnConfig c = small();
  c.with_mask = false;
  MaskRcnn model(c, 1);
  DetectionBatch b = scene();
  b.objects[0] = {};
  Context ctx{true, Rng(1)};
  const DetectionLoss l = model.loss(b.images, b, ctx);
  CHECK_FALSE(l.mask.defined());
  CHECK(l.rpn_bbox.item() == 0);
  CHECK(l.bbox.item() == 0);
  CHECK(l.cls.item() > 0);
}

TEST_CASE("detector: an image of one row or column", "[heads]") {
  MaskRcnn model(small(), 1);
  model.config.roi.least_score = 0.05;
  Rng rng(1);
  for (const auto& [height, width] : std::vector<std::pair<i64, i64>>{{1, 1}, {1, 96}, {96, 1}}) {
    // as loaders pad
    const auto found = model.detect(Tensor::randn({1, 3, 96, 96}, rng),
                                    {{height, width, 96, 96, height, width, 1}});
    for (const Detection& d : found[0]) {
      CHECK(d.box.x1 >= 0);
      CHECK(d.box.x2 <= static_cast<float>(width));
      CHECK(d.box.y2 <= static_cast<float>(height));
      REQUIRE(d.mask);
      CHECK(d.mask->height == height);
    }
  }
}

TEST_CASE("detector: a configuration that makes no detector is refused by the value's name",
          "[heads]") {
  const auto message = [](const json& said) {
    return thrown([&] { MaskRcnn(detector_from_json(said, small())); });
  };
  for (const char* key :
       {"train_candidates", "test_candidates", "proposals", "rpn_samples", "roi_samples",
        "detections", "fc_channels", "channels", "num_classes", "box_size", "mask_size"})
    for (const int value : {0, -3, 65537})
      CHECK(message({{key, value}}) ==
            str("config: ", key, " is ", value, "; it must be 1 to 65536"));
  for (const char* key : {"finest", "anchor_scale"})
    for (const int value : {0, -3})
      CHECK(message({{key, value}}) ==
            str("config: ", key, " is ", value, "; it must be positive"));
  CHECK(message({{"mask_convs", -1}}) == "config: mask_convs is -1; it must be 0 to 100");
  for (const char* key : {"rpn_positives", "roi_positives", "least_score", "rpn_nms", "nms",
                          "rpn_positive", "roi_negative", "roi_least_positive"})
    for (const int value : {-1, 5})
      CHECK(message({{key, value}}) == str("config: ", key, " is ", value, "; it must be 0 to 1"));
  CHECK(message({{"rpn_negative", 0.8}}) == "config: rpn_negative is 0.8, above rpn_positive, 0.7");
  MaskRcnnConfig none = small();
  none.rpn.anchor.ratios.clear();
  CHECK(says([&] { MaskRcnn{none}; }, "config: anchor_ratios is empty"));
  CHECK(message({{"mask_convs", 0}, {"rpn_nms", 1}, {"least_score", 0}}) == "nothing");
}

TEST_CASE("detector: every value survives JSON", "[heads]") {
  MaskRcnnConfig c;
  c.backbone = ppma_small(), c.backbone.mask = MaskKind::rmt, c.backbone.fused = false,
  c.with_mask = false;
  // By structured bindings, so that a new field does not compile before it is here.
  auto& [rpn_channels, anchor, strides, rpn_assign, rpn_sample, train, test, proposals, rpn_nms,
         rpn_coder, rpn_cls, rpn_bbox] = c.rpn;
  rpn_channels = 24, strides = {2, 6, 8, 10, 12}, train = 11, test = 12, proposals = 13,
  rpn_nms = 0.61, rpn_cls = 1.5, rpn_bbox = 1.6;
  auto& [anchor_scale, ratios] = anchor;
  anchor_scale = 5, ratios = {1.25};
  auto& [channels, shared_fcs, fc_channels, classes, box_size, mask_size, mask_convs, finest,
         assign_, sample_, coder, cls, bbox, mask, least_score, nms_, detections, mask_threshold] =
      c.roi;
  channels = RoiConfig{}.channels;  // the pyramid's, set by the network
  shared_fcs = 3, fc_channels = 40, classes = 9, box_size = 5, mask_size = 6, mask_convs = 1,
  finest = 30, cls = 0.5, bbox = 0.6, mask = 0.7;
  least_score = 0.11, nms_ = 0.44, detections = 77, mask_threshold = 0.35;
  rpn_assign = {0.6, 0.2, 0.1, false}, rpn_sample = {99, 0.4}, assign_ = {0.55, 0.45, 0.35, false},
  sample_ = {88, 0.3};
  auto& [stds, clip] = rpn_coder;
  stds = {0.2, 0.3, 0.4, 0.5}, clip = 0.1, coder = {{0.6, 0.7, 0.8, 0.9}, 0.2};
  const MaskRcnnConfig back = detector_from_json(json::parse(detector_to_json(c).dump()));
  CHECK(back.rpn == c.rpn);
  CHECK(back.roi == c.roi);
  CHECK(back == c);
  CHECK(!(back == MaskRcnnConfig{}));
  const auto changed = detector_to_json(c), published = detector_to_json(MaskRcnnConfig{});
  for (const auto& item : changed.items()) {
    INFO(item.key());
    CHECK(item.value() != published.at(item.key()));
  }
}

TEST_CASE("detector: the weights of losses, and the number of layers", "[heads]") {
  MaskRcnnConfig c = small();
  c.roi.shared_fcs = 3;
  const auto losses = [&](const MaskRcnnConfig& config) {
    MaskRcnn model(config, 1);
    CHECK(model.roi_head.bbox_head.shared_fcs.size() == 3);
    const DetectionBatch b = scene();
    Context ctx{true, Rng(1)};
    const DetectionLoss l = model.loss(b.images, b, ctx);
    return std::vector<double>{l.rpn_cls.item(), l.rpn_bbox.item(), l.cls.item(),
                               l.bbox.item(),    l.mask.item(),     l.total.item()};
  };
  const std::vector<double> plain = losses(c);
  c.rpn.cls_weight = 2, c.rpn.bbox_weight = 3, c.roi.cls_weight = 4, c.roi.bbox_weight = 5,
  c.roi.mask_weight = 6;
  const std::vector<double> weighted = losses(c);
  double total = 0;
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(weighted[i] == Approx((static_cast<double>(i) + 2) * plain[i]).epsilon(1e-5));
    total += weighted[i];
  }
  CHECK(weighted[5] == Approx(total).epsilon(1e-5));
  const std::vector<float> probability(16, 0.4f);
  CHECK(rle_area(paste_mask(probability.data(), 4, {2, 2, 10, 10}, 12, 12)) == 0);
  // not the rim, where outside is 0
  CHECK(rle_area(paste_mask(probability.data(), 4, {2, 2, 10, 10}, 12, 12, 0.39)) == 36);
}

TEST_CASE("detector: configuration as JSON and back", "[heads]") {
  MaskRcnnConfig c = mask_rcnn_nano(7, false);
  c.rpn.nms = 0.65, c.roi.sample.positives = 0.3;
  CHECK(detector_to_json(detector_from_json(detector_to_json(c))) == detector_to_json(c));
  CHECK(says(
      [] {
        detector_from_json(json{{"rpn_mns", 0.5}});
      },
      "unknown key \"rpn_mns\"; did you mean \"rpn_nms\"? there are backbone, with_mask, "));
  CHECK(says(
      [] {
        detector_from_json(json{{"proposals", "many"}});
      },
      "\"proposals\" must be a whole number, not \"many\""));
}
