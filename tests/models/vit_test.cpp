// The plain vision transformer with and without the mask: torchvision's values, DeiT-tiny's size,
// what cannot be.

#include "help.hpp"
#include "ppma/models/classifier.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"

using namespace ppma;
using namespace models_test;

namespace {

VitConfig small_vit(MaskKind mask) {
  VitConfig c;
  c.image_size = 32, c.patch_size = 8, c.width = 24, c.depth = 2, c.heads = 3, c.num_classes = 10,
  c.drop_path_rate = 0;
  c.mask = mask;
  return c;
}

}  // namespace

TEST_CASE("a vision transformer with and without the mask has the reference's logits and gradients",
          "[models]") {
  const TensorMap want = read_safetensors(reference("vit.safetensors")).tensors;
  for (const MaskKind mask : {MaskKind::none, MaskKind::polyline})
    for (const DType dtype : {DType::f32, DType::f64}) {
      Vit model(small_vit(mask));
      fill_by_formula(model);
      to(model, dtype);
      const Tensor images = as(formula_image("vit.input", {2, 3, 32, 32}), dtype);
      Context ctx{true, Rng(1)};
      const Tensor logits = model.forward(images, ctx);
      cross_entropy(logits, get(want, "target")).backward();
      INFO(to_string(mask) << " " << to_string(dtype));
      const bool f32 = dtype == DType::f32;
      CHECK(distance(logits, get(want, to_string(mask) + ".logits")) < (f32 ? 1e-5 : 1e-6));
      i64 compared = 0;
      for (const Field& f : named_parameters(model)) {
        INFO(f.name);
        REQUIRE(f.tensor.grad().defined());
        CHECK(distance(f.tensor.grad(), get(want, to_string(mask) + ".grad." + f.name)) <
              (f32 ? 1e-4 : 1e-6));
        ++compared;
      }
      i64 given = 0;
      for (const auto& t : want) given += t.first.rfind(to_string(mask) + ".grad.", 0) == 0;
      CHECK(compared == given);
    }
}

TEST_CASE("DeiT-tiny has the published size", "[models]") {
  const SkipInit skip;
  Vit plain(deit_tiny()), masked(deit_tiny(MaskKind::polyline));
  CHECK(parameter_count(plain) == 5717416);
  CHECK(parameter_count(masked) == 5719024);
  CHECK(state_dict(plain).size() == 152);
  CHECK(state_dict(plain)[0].name == "cls_token");
  CHECK(state_dict(plain)[3].name == "patch_embed.proj.bias");
  const i64 t = 197, c = 192;
  const i64 macs = 196 * 768 * c + 12 * (12 * t * c * c + 2 * t * t * c) + c * 1000;
  const Summary s = summary(plain, 1), m = summary(masked, 1);
  CHECK(s.parameters() == 5717416);
  CHECK(s.macs() == macs);
  CHECK(m.parameters() == 5719024);
  CHECK(m.macs() == macs + 12 * 2 * 196 * c);
  CHECK(m.flops() > s.flops());
}

TEST_CASE("every mask runs in a vision transformer, its images independent of each other",
          "[models]") {
  const Tensor images = as(formula_image("vit.input", {2, 3, 32, 32}), DType::f64);
  std::vector<Tensor> all;
  for (const Mask& mask : masks()) {
    Vit model(small_vit(mask.kind));
    fill_by_formula(model);
    to(model, DType::f64);
    const Tensor logits = model.forward(images);
    INFO(mask.name);
    for (const Tensor& other : all) CHECK(distance(logits, other) > 1e-6);
    all.push_back(logits);
    for (i64 b = 0; b < 2; ++b)
      CHECK(distance(model.forward(narrow(images, 0, b, 1)), narrow(logits, 0, b, 1)) < 1e-13);
  }
}

TEST_CASE("the class token is undamped by the mask", "[models]") {
  const Tensor m = with_class_token(Tensor::full({1, 1, 2, 2}, -3, DType::f64));
  CHECK(m.to_vector<double>() == std::vector<double>{0, 0, 0, 0, -3, -3, 0, -3, -3});
}

TEST_CASE("what a vision transformer refuses", "[models]") {
  Vit model(small_vit(MaskKind::none));
  CHECK(says(
      [&] {
        model.forward(Tensor::zeros({1, 3, 40, 32}));
      },
      "vit: images must be (B,3,32,32), got (1, 3, 40, 32)"));
  VitConfig c = small_vit(MaskKind::none);
  c.patch_size = 5;
  CHECK(says([&] { Vit bad(c); }, "image_size 32 is no multiple of patch_size 5"));
  c = small_vit(MaskKind::none);
  c.heads = 5;
  CHECK(says([&] { Vit bad(c); }, "does not divide into 5 heads"));
}

TEST_CASE("a classifier is the network that it holds, and its configuration is kept as JSON",
          "[models]") {
  VitConfig c = small_vit(MaskKind::polyline);
  Classifier any(c, 3);
  Vit same(c, 3);
  const std::vector<Field> here = state_dict(any), there = state_dict(same);
  REQUIRE(here.size() == there.size());
  for (std::size_t i = 0; i < here.size(); ++i) CHECK(here[i].name == there[i].name);
  const Tensor images = formula_image("vit.input", {2, 3, 32, 32});
  CHECK(distance(any.forward(images), same.forward(images)) == 0);
  prepare_for_inference(any, DType::f32);
  CHECK(distance(any.forward(images), same.forward(images)) == 0);
  Classifier ours(classifier_config_by_name("ppma_nano"), 2);
  Ppma nano(ppma_nano(), 2);
  CHECK(distance(ours.forward(images), nano.forward(images)) == 0);
  prepare_for_inference(ours, DType::f32);
  CHECK(distance(ours.forward(images), nano.forward(images)) < 1e-5);

  for (const ClassifierConfig& config :
       {ClassifierConfig(c), classifier_config_by_name("rmt_tiny"), any.config()}) {
    const std::string text = classifier_config_to_json(config).dump();
    const ClassifierConfig again = classifier_config_from_text(text, "here");
    CHECK(again.index() == config.index());
    CHECK(classifier_config_to_json(again).dump() == text);
  }
  const auto read = [](const char* text) { return classifier_config_from_text(text, "here"); };
  const auto vit = std::get<VitConfig>(read(R"({"model": "vit_nano", "mask": "hilbert"})"));
  CHECK((vit.width == 64 && vit.mask == MaskKind::hilbert));
  Classifier small(vit);
  CHECK(parameter_count(small) == 213194 + 4 * (2 + 2 + 2 * 32));  // with the decays
  CHECK(says([&] { read(R"({"network": "cnn"})"); }, "here: there is no network \"cnn\""));
  CHECK(says([&] { read(R"({"network": "vit", "wdith": 3})"); }, "did you mean \"width\"?"));
  CHECK(says([&] { read(R"({"network": "vit", "width": 0})"); }, "here: config: width"));
  CHECK(says([&] { read(R"({"embed_dim": 3})"); }, "did you mean \"embed_dims\"?"));
  CHECK(says([] { classifier_config_by_name("vit_huge"); }, "rmt_ for ppma_; and deit_tiny, vit"));
}
