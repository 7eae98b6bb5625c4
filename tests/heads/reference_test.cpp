// The segmentation heads and the pyramid against PyTorch (tests/reference/make_heads.py), and a
// whole network loaded by name from a file as OpenMMLab saves one.
#include "../models/help.hpp"
#include "ppma/heads/mask_rcnn.hpp"
#include "ppma/heads/segmentor_json.hpp"
#include "ppma/heads/semantic_fpn.hpp"
#include "ppma/io/checkpoint.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/layout.hpp"

using namespace ppma;
using namespace models_test;

namespace {

// Weights by the formula, as if the module stood under `prefix`; float64.
template <class M>
void fill(M& module, const std::string& prefix) {
  to(module, DType::f64);
  for (Field& f : state_dict(module))
    if (last_part(f.name) != "num_batches_tracked")
      f.tensor.copy_from(
          by_formula(prefix + f.name, f.tensor.shape(), formula_of(f.name, f.tensor.shape())));
}

// A map (B,C,H,W) by the formula, channels last, float64.
Tensor map_of(const std::string& name, i64 channels, i64 height, i64 width) {
  return permute(cast(formula_image(name, {2, channels, height, width}), DType::f64), {0, 2, 3, 1});
}

const TensorMap& stored_heads() {
  static const TensorMap tensors = read_safetensors(reference("heads.safetensors")).tensors;
  return tensors;
}

void compare(const Tensor& got, const std::string& name) {
  INFO(name);
  CHECK(distance(got, get(stored_heads(), name)) < 1e-6);  // stored as float32
}

}  // namespace

TEST_CASE(
    "heads: UperNet, FCN, FPN and Semantic FPN agree with PyTorch in evaluation and training") {
  const i64 sizes[4][2] = {{13, 14}, {7, 7}, {4, 4}, {2, 2}},
            levels[4][2] = {{16, 12}, {8, 6}, {4, 3}, {2, 2}};
  std::vector<Tensor> maps, pyramid;
  for (i64 i = 0; i < 4; ++i) {
    maps.push_back(map_of(str("map", i), 4 + i, sizes[i][0], sizes[i][1]));
    pyramid.push_back(map_of(str("level", i), 8, levels[i][0], levels[i][1]));
  }
  Rng rng(0);
  UperNetConfig c;
  c.channels = 8, c.num_classes = 3, c.dropout_ratio = 0;
  UperNetHead upernet(c, {4, 5, 6, 7}, rng);
  FcnHead fcn(6, 8, 3, 0, rng);
  Fpn fpn({4, 5, 6, 7}, 8, rng);
  SemanticFpnHead semantic(8, 6, 3, 0, rng);
  fill(upernet, "upernet."), fill(fcn, "fcn."), fill(fpn, "fpn."), fill(semantic, "semantic_fpn.");
  for (const std::string mode : {"eval", "train"}) {
    Context ctx;
    ctx.training = mode == "train";
    compare(upernet.forward(maps, ctx), "upernet." + mode + ".0");
    compare(fcn.forward(maps[2], ctx), "fcn." + mode + ".0");
    compare(semantic.forward(pyramid, ctx), "semantic_fpn." + mode + ".0");
  }
  const std::vector<Tensor> p = fpn.forward(maps);
  for (std::size_t i = 0; i < p.size(); ++i) compare(p[i], str("fpn.eval.", i));
}

TEST_CASE("segmentor: an OpenMMLab checkpoint loads by name") {
  SegmentorConfig<UperNet> c;
  c.backbone.embed_dims = {8, 8, 16, 16}, c.backbone.depths = {1, 1, 1, 1},
  c.backbone.num_heads = {1, 1, 2, 2};
  c.backbone.mlp_ratios = {2, 2, 2, 2}, c.backbone.drop_path_rate = 0;
  c.head.channels = c.head.auxiliary_channels = 8, c.head.num_classes = 3;
  Segmentor<UperNet> model(c);
  const TensorMap weights =
      load_weights(reference("segmentor_mm.pth"), {.entry = "", .strip = {"module."}});
  const LoadReport report = load_state_dict(model, weights);
  CHECK(report.complete());
  CHECK(report.loaded == static_cast<i64>(state_dict(model).size()));
  to(model, DType::f64);
  const NoGrad off;
  Context ctx;
  const Tensor y =
      model.forward(cast(formula_image("segmentor.input", {1, 3, 64, 48}), DType::f64), ctx);
  compare(y, "segmentor.eval");
}

TEST_CASE("detector: an OpenMMLab checkpoint loads by name (tests/reference/make_detector_mm.py)") {
  MaskRcnnConfig c;
  c.backbone.embed_dims = {8, 8, 16, 16}, c.backbone.depths = {1, 1, 1, 1},
  c.backbone.num_heads = {1, 1, 2, 2};
  c.backbone.mlp_ratios = {2, 2, 2, 2}, c.backbone.drop_path_rate = 0;
  c.rpn.channels = 8, c.roi.fc_channels = 12, c.roi.num_classes = 3;
  MaskRcnn model(c);
  const TensorMap weights =
      load_weights(reference("detector_mm.pth"), {.entry = "", .strip = {"module."}});
  const LoadReport report = load_state_dict(model, weights);
  CHECK(report.complete());
  CHECK(report.loaded == static_cast<i64>(state_dict(model).size()));
  to(model, DType::f64);
  const NoGrad off;
  Context ctx;
  const TensorMap stored = read_safetensors(reference("detector_mm.safetensors")).tensors;
  const auto close = [&](const Tensor& got, const std::string& name) {
    INFO(name);
    CHECK(distance(got, get(stored, name)) < 1e-6);  // stored as float32
  };
  const RpnOutput rpn = model.rpn_head.forward(
      model.pyramid(cast(formula_image("detector.input", {1, 3, 64, 96}), DType::f64), ctx));
  REQUIRE(rpn.scores.size() == 5);
  for (std::size_t i = 0; i < 5; ++i)
    close(rpn.scores[i], str("scores.", i)), close(rpn.deltas[i], str("deltas.", i));
  const auto regions = [](const char* name, i64 side) {
    return permute(cast(formula_image(name, {2, 8, side, side}), DType::f64), {0, 2, 3, 1});
  };
  const BoxOutput box = model.roi_head.bbox_head.forward(regions("box.input", 7));
  close(box.scores, "box.cls"), close(box.deltas, "box.reg");
  close(model.roi_head.mask_head->forward(regions("mask.input", 14)), "mask");
  // A detector for other classes says which tensors do not fit; without a mask head, what is left
  // over.
  c.roi.num_classes = 4;
  MaskRcnn other(c);
  CHECK(thrown([&] { load_state_dict(other, weights); }).find("roi_head.bbox_head.fc_cls.weight") !=
        std::string::npos);
  c.roi.num_classes = 3, c.with_mask = false;
  MaskRcnn boxes(c);
  CHECK(thrown([&] { load_state_dict(boxes, weights); }).find("roi_head.mask_head.") !=
        std::string::npos);
  CHECK(
      load_state_dict(boxes, weights, {.strict = true, .ignore = {"roi_head.mask_head."}}).loaded ==
      static_cast<i64>(state_dict(boxes).size()));
}

TEST_CASE("segmentation configurations as JSON and back") {
  using nlohmann::json;
  SegmentorConfig<UperNet> upernet = segmentor_nano<UperNet>(5);
  SegmentorConfig<SemanticFpn> light = segmentor_nano<SemanticFpn>(7);
  upernet.head.channels = 24, light.head.pyramid_channels = 40;
  CHECK(segmentor_to_json(segmentor_from_json<UperNet>(segmentor_to_json(upernet))) ==
        segmentor_to_json(upernet));
  CHECK(segmentor_to_json(segmentor_from_json<SemanticFpn>(segmentor_to_json(light))) ==
        segmentor_to_json(light));
  CHECK(head_of(segmentor_to_json(light)) == "semantic_fpn");
  // Every value, by structured bindings, so that a new field does not compile before it is here.
  {
    SegmentorConfig<UperNet> c;
    auto& [backbone, head, ignore] = c;
    backbone = ppma_small(), ignore = 200;
    auto& [classes, channels, scales, dropout, aux_channels, aux_dropout, decode_weight,
           auxiliary_weight] = head;
    classes = 9, channels = 24, scales = {1, 5}, dropout = 0.2;
    aux_channels = 12, aux_dropout = 0.3, decode_weight = 0.9, auxiliary_weight = 0.3;
    CHECK(segmentor_from_json<UperNet>(json::parse(segmentor_to_json(c).dump())) == c);
    const auto changed = segmentor_to_json(c),
               published = segmentor_to_json(SegmentorConfig<UperNet>{});
    for (const auto& item : changed.items())
      CHECK((item.key() == "head" || item.value() != published.at(item.key())));
    // both heads', where it stands alone
    CHECK(segmentor_from_json<UperNet>(json{{"dropout_ratio", 0.4}}).head.auxiliary_dropout_ratio ==
          0.4);
  }
  {
    SegmentorConfig<SemanticFpn> c;
    auto& [backbone, head, ignore] = c;
    auto& [classes, channels, pyramid_channels, dropout] = head;
    backbone = ppma_small(), pyramid_channels = 24, channels = 20, classes = 9, dropout = 0.2,
    ignore = 200;
    CHECK(segmentor_from_json<SemanticFpn>(json::parse(segmentor_to_json(c).dump())) == c);
  }
  // written before there was another head
  CHECK(segmentor_from_json<UperNet>(json{{"channels", 9}}).head.channels == 9);
  struct Wrong {
    json config;
    const char* message;
  };
  for (const Wrong& w : std::vector<Wrong>{
           {json::array(), "config: must be a JSON object, not array"},
           {{{"head", 3}}, "config: \"head\" must be text, not 3"},
           {{{"head", "unet"}}, "there is no head \"unet\"; there are upernet, semantic_fpn"},
           {{{"head", "semantic_fpn"}}, "config: describes the head semantic_fpn, not upernet"},
           {{{"chanels", 8}},
            "unknown key \"chanels\"; did you mean \"channels\"? there are head, backbone, "
            "num_classes, channels, "},
           {{{"channels", "many"}}, "\"channels\" must be a whole number, not \"many\""},
           {{{"pool_scales", 3}}, "\"pool_scales\" must be a list, each a whole number, not 3"},
           {{{"dropout_ratio", true}}, "\"dropout_ratio\" must be a number, not true"},
           {{{"backbone", 5}}, "config: must be a JSON object, not number"}}) {
    INFO(w.config.dump());
    CHECK(says([&] { segmentor_from_json<UperNet>(w.config); }, w.message));
  }
}

TEST_CASE("segmentation: a configuration that makes no network is refused by the value's name") {
  const SkipInit skip;
  SegmentorConfig<UperNet> c = segmentor_nano<UperNet>(3);
  c.head.channels = 0;
  CHECK(thrown([&] { Segmentor<UperNet>{c}; }) == "config: channels is 0; it must be 1 to 65536");
  c = segmentor_nano<UperNet>(3), c.head.auxiliary_channels = -2;
  CHECK(thrown([&] { Segmentor<UperNet>{c}; }) ==
        "config: auxiliary_channels is -2; it must be 1 to 65536");
  c = segmentor_nano<UperNet>(3), c.head.pool_scales = {1, 0};
  CHECK(thrown([&] { Segmentor<UperNet>{c}; }) ==
        "config: pool_scales[1] is 0; it must be 1 to 65536");
  c = segmentor_nano<UperNet>(3), c.head.dropout_ratio = 1;
  CHECK(thrown([&] { Segmentor<UperNet>{c}; }) ==
        "config: dropout_ratio is 1; it must be at least 0 and less than 1");
  c = segmentor_nano<UperNet>(0);
  CHECK(thrown([&] { Segmentor<UperNet>{c}; }) ==
        "config: num_classes is 0; it must be 1 to 65536");
  SegmentorConfig<SemanticFpn> light = segmentor_nano<SemanticFpn>(3);
  light.head.pyramid_channels = 0;
  CHECK(thrown([&] { Segmentor<SemanticFpn>{light}; }) ==
        "config: pyramid_channels is 0; it must be 1 to 65536");
}

TEST_CASE(
    "semantic fpn: names as published; every parameter gets a gradient; ignored pixels have no "
    "loss") {
  SegmentorConfig<SemanticFpn> c;
  c.backbone = ppma_nano();
  c.head.pyramid_channels = 16, c.head.channels = 8, c.head.num_classes = 3;
  Segmentor<SemanticFpn> model(c, 1);
  std::vector<std::string> names;
  for (const Field& f : named_parameters(model.head.decode_head)) names.push_back(f.name);
  const auto has = [&](const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  CHECK(names[0] == "conv_seg.weight");
  CHECK((has("scale_heads.0.0.conv.weight") && has("scale_heads.1.0.bn.bias") &&
         has("scale_heads.3.4.conv.weight") && !has("scale_heads.2.4.conv.weight")));
  CHECK(state_dict(model.head.neck)[0].name == "lateral_convs.0.conv.weight");
  Rng rng(3);
  const Tensor image = Tensor::randn({2, 3, 40, 56}, rng);  // 40 / 32 is no whole number
  Tensor labels = Tensor::ones({2, 40, 56}, DType::int64);
  Context ctx{true, Rng(4)};
  CHECK(model.forward(image, ctx).shape() == Shape{2, 40, 56, 3});
  model.loss(image, labels, ctx).total.backward();
  for (const Field& f : named_parameters(model)) {
    INFO(f.name);
    REQUIRE(f.tensor.grad().defined());
  }
  CHECK(norm(model.backbone.backbone.patch_embed.convs[0].weight.grad()) > 0);
  std::fill_n(labels.data<i64>(), labels.numel(), 255);
  CHECK(model.loss(image, labels, ctx).total.item() == 0);
}
