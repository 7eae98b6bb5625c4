// Networks as ONNX files: what is in one, byte by byte; and that onnxruntime computes from them
// what ppma does, where Python has it.

#include "ppma/heads/onnx.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "interop/onnx_file.hpp"
#include "interop/python.hpp"
#include "io/help.hpp"
#include "models/help.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/heads/onnx_detector.hpp"
#include "ppma/io/protobuf.hpp"
#include "ppma/models/fold.hpp"
#include "ppma/ops/layout.hpp"

using namespace ppma;
using namespace models_test;
using onnx_test::described;
using onnx_test::Message;

namespace {

// ---- networks to export ----

PpmaConfig nano(MaskKind mask, bool criss_cross) {
  PpmaConfig c = ppma_nano();
  c.mask = mask;
  c.chunkwise_recurrents.fill(criss_cross);
  return c;
}

VitConfig small_vit(MaskKind mask) {
  VitConfig c;
  c.image_size = 32, c.patch_size = 8, c.width = 24, c.depth = 2, c.heads = 3, c.num_classes = 10;
  c.mask = mask;
  return c;
}

constexpr i64 height = 40, width = 64;  // grids of 10 x 16, 5 x 8, 3 x 4 and 2 x 2

// Weights with which attention, and so its mask, counts, and regions differ.
template <class Model>
void fill(Model& model) {
  fill_by_formula(model);
  for (Field& f : state_dict(model))
    for (const char* end : {"out_proj.weight", "attn.proj.weight", "rpn_cls.weight",
                            "fc_cls.weight", "fc_reg.weight", "conv_logits.weight"})
      if (ends_with(f.name, end)) f.tensor.copy_from(scale(f.tensor.detach(), 10));
}

// NAME.onnx, and NAME.N.safetensors, N = 0 and 1, with images and outputs: forward(images) names
// them.
template <class Forward>
void write_case(const io_test::Folder& folder, const OnnxGraph& g, const std::string& name,
                Forward forward, std::array<i64, 2> batches = {1, 3}, i64 h = height,
                i64 w = width) {
  save_onnx(folder / (name + ".onnx"), g);
  const NoGrad not_recorded;
  Rng rng(1);
  for (std::size_t n = 0; n < 2; ++n) {
    const Tensor images = Tensor::randn({batches[n], 3, h, w}, rng);
    TensorMap all = forward(images);
    all.emplace_back("images", images);
    write_safetensors(folder / (name + "." + std::to_string(n) + ".safetensors"), all);
  }
}

void write_classifier(const io_test::Folder& folder, const std::string& name,
                      const PpmaConfig& config) {
  Ppma model(config);
  fill(model);
  OnnxGraph g(name);
  export_onnx(model, g, height, width);
  write_case(folder, g, name, [&](const Tensor& images) {
    return TensorMap{{"logits", model.forward(images)}};
  });
}

template <class Head>
void write_segmentor(const io_test::Folder& folder) {
  Segmentor<Head> model(segmentor_nano<Head>(5));
  fill(model);
  OnnxGraph g(Head::name);
  export_onnx(model, g, height, width);
  write_case(folder, g, Head::name, [&](const Tensor& images) {
    Context ctx;
    return TensorMap{{"logits", permute(model.forward(images, ctx), {0, 3, 1, 2})}};
  });
}

// The pyramid and what the proposals are chosen by.
TensorMap pyramid_of(const MaskRcnn& model, const Tensor& images) {
  Context ctx;
  TensorMap all;
  const std::vector<Tensor> levels = model.pyramid(images, ctx);
  const RpnOutput rpn = model.rpn_head.forward(levels);
  for (std::size_t i = 0; i < levels.size(); ++i) {
    const std::string level = std::to_string(i + 2);
    all.emplace_back("p" + level, permute(levels[i], {0, 3, 1, 2}));
    all.emplace_back("scores" + level, permute(rpn.scores[i], {0, 3, 1, 2}));
    all.emplace_back("deltas" + level, permute(rpn.deltas[i], {0, 3, 1, 2}));
  }
  return all;
}

// What is on one image, with the masks' cells, which detect() draws into the image.
TensorMap objects_of(const MaskRcnn& model, const Tensor& images) {
  Context ctx;
  const i64 h = images.dim(2), w = images.dim(3);
  const std::vector<Detection> found = model.detect(images, {{h, w, h, w, h, w, 0}})[0];
  const i64 n = static_cast<i64>(found.size());
  Tensor boxes = Tensor::empty({n, 4}), scores = Tensor::empty({n}),
         labels = Tensor::empty({n}, DType::int64);
  std::vector<Roi> rois;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const Box& b = found[i].box;
    const float corners[] = {b.x1, b.y1, b.x2, b.y2};
    std::copy(corners, corners + 4, boxes.data<float>() + 4 * i);
    scores.data<float>()[i] = static_cast<float>(found[i].score);
    labels.data<i64>()[i] = found[i].label;
    rois.push_back({b, 0, static_cast<i64>(i), found[i].label});
  }
  if (rois.empty())
    return {{"boxes", boxes},
            {"scores", scores},
            {"labels", labels},
            {"masks", Tensor::zeros({0, 28, 28})}};
  const RoiConfig& c = model.config.roi;
  sort_by_level(rois, c.finest);
  const MaskHead& head = *model.roi_head.mask_head;
  const Tensor sorted = sigmoid(head.of_class(
      head.forward(roi_features(model.pyramid(images, ctx), rois, c.mask_size, c.finest)), rois));
  std::vector<Tensor> masks(rois.size());
  for (std::size_t i = 0; i < rois.size(); ++i)
    masks[static_cast<std::size_t>(rois[i].truth)] = select(sorted, 0, static_cast<i64>(i));
  return {{"boxes", boxes}, {"scores", scores}, {"labels", labels}, {"masks", stack(masks)}};
}

void write_pyramid(const io_test::Folder& folder, const MaskRcnn& model) {
  OnnxGraph g("pyramid");
  export_onnx_pyramid(model, g, height, width);
  write_case(folder, g, "pyramid", [&](const Tensor& images) { return pyramid_of(model, images); });
}

void write_detector(const io_test::Folder& folder, const std::string& name, const MaskRcnn& model) {
  OnnxGraph g(name);
  export_onnx(model, g, height, width);
  write_case(folder, g, name, [&](const Tensor& images) { return objects_of(model, images); },
             {1, 1});
}

}  // namespace

TEST_CASE("an ONNX file says what is in it", "[onnx]") {
  const io_test::Folder folder;
  Ppma model(ppma_nano());
  fill(model);
  OnnxGraph g("nano");
  export_onnx(model, g, 32, 48);
  save_onnx(folder / "nano.onnx", g, {{"classes", "[\"a\"]"}});
  const std::vector<u8> bytes = read_file(folder / "nano.onnx");
  CHECK(folder.files() == 1);
  const Message file(text_of(bytes));
  CHECK(file.number(1) == 8);
  CHECK(file.text(2) == "ppma");
  CHECK(Message(file.text(8)).number(2) == 18);
  const Message metadata(file.text(14));
  CHECK(metadata.text(1) == "classes");
  CHECK(metadata.text(2) == "[\"a\"]");

  const Message graph(file.text(7));
  REQUIRE(graph.messages(11).size() == 1);
  REQUIRE(graph.messages(12).size() == 1);
  CHECK(described(graph.messages(11)[0]) == "images (batch,3,32,48) f32");
  CHECK(described(graph.messages(12)[0]) == "logits (batch,10) f32");

  // Every constant has the bytes of its shape, under the names of the state dict.
  std::set<std::string> names{"images"};
  std::map<std::string, std::string> weights;
  for (const Message& t : graph.messages(5)) {
    i64 elements = 1;
    for (auto [at, end] = t.numbers.equal_range(1); at != end; ++at)
      elements *= static_cast<i64>(at->second);
    INFO(t.text(8));
    CHECK(static_cast<i64>(t.text(9).size()) == elements * (t.number(2) == 1 ? 4 : 8));
    CHECK(names.insert(t.text(8)).second);
    weights[t.text(8)] = t.text(9);
  }
  for (const Field& f : state_dict(model)) {
    if (f.name.find("norm.") != std::string::npos || f.name.find("A_log") != std::string::npos)
      continue;
    if (f.kind == Kind::buffer || f.name.find("patch_embed.proj") == 0) continue;  // norms, folded
    INFO(f.name);
    CHECK((weights.count(f.name) == 1 || weights.count(f.name + "_t") == 1));
  }
  const Tensor lepe = model.backbone.layers[0].blocks[0].retention->lepe->weight;
  const std::string& written = weights.at("layers.0.blocks.0.retention.lepe.conv.weight");
  REQUIRE(static_cast<i64>(written.size()) == lepe.bytes());
  CHECK(std::memcmp(written.data(), lepe.raw(), written.size()) == 0);

  // Every node reads what was made before it, and nothing is made twice.
  std::set<std::string> ops;
  for (const Message& n : graph.messages(1)) {
    ops.insert(n.text(4));
    for (const std::string& in : n.all(1)) {
      INFO(n.text(3) << " reads " << in);
      CHECK(names.count(in) == 1);
    }
    CHECK(names.insert(n.text(2)).second);
  }
  CHECK(names.count("logits") == 1);
  CHECK(ops == std::set<std::string>{"Add", "Conv", "CumSum", "Div", "Erf", "Gather", "Greater",
                                     "Identity", "LayerNormalization", "MatMul", "Mul",
                                     "ReduceMean", "Reshape", "Sigmoid", "Softmax", "Softplus",
                                     "Transpose", "Where"});
}

TEST_CASE("the fields of a protocol buffer are as its definition has them", "[onnx]") {
  // protobuf.dev, "Encoding": field 1 with 150 is 08 96 01, field 2 with "testing" 12 07 ...
  CHECK(Protobuf().integer(1, 150).bytes() == "\x08\x96\x01");
  CHECK(Protobuf().text(2, "testing").bytes() == "\x12\x07testing");
  CHECK(Protobuf().message(3, Protobuf().integer(1, 150)).bytes() == "\x1a\x03\x08\x96\x01");
  CHECK(Protobuf().integer(1, -2).bytes() == "\x08\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01");
  CHECK(Protobuf().real(2, 1.0F).bytes() == std::string("\x15\x00\x00\x80\x3f", 5));
}

TEST_CASE("what cannot be an ONNX file is refused, and nothing is written", "[onnx]") {
  const io_test::Folder folder;
  OnnxGraph large("large");
  const Tensor same = Tensor::zeros({1 << 20});
  for (int i = 0; i < 512; ++i) large.weight("w" + std::to_string(i), same);
  CHECK_THAT(io_test::error_of([&] { save_onnx(folder / "large.onnx", large); }),
             io_test::Contains("an ONNX file holds at most 2147483647 bytes"));
  CHECK(folder.files() == 0);
  CHECK_THAT(io_test::error_of([&] { large.weight("w0", Tensor::zeros({2})); }),
             io_test::Contains("\"w0\""));

  Ppma model(ppma_nano());
  OnnxGraph g("small");
  CHECK_THAT(io_test::error_of([&] { export_onnx(model, g, 31, 64); }),
             io_test::Contains("31 x 64"));
  CHECK_THAT(
      io_test::error_of([&] { export_onnx(Classifier(small_vit(MaskKind::none)), g, 64, 64); }),
      io_test::Contains("takes images of 32 x 32 pixels"));
  CHECK_THAT(
      io_test::error_of([&] { export_onnx(Ppma(with_mixers(ppma_nano(), "window")), g, 32, 32); }),
      io_test::Contains("onnx: the stage has another token mixer than polyline attention"));
  prepare_for_inference(model, DType::f32);
  OnnxGraph packed("packed");
  CHECK_THAT(io_test::error_of([&] { export_onnx(model, packed, 32, 32); }),
             io_test::Contains("export it before"));
}

TEST_CASE("onnxruntime computes what ppma does", "[onnx]") {
  NEEDS_PYTHON("numpy, onnx, onnxruntime");
  const io_test::Folder folder;
  for (const Mask& mask : masks())
    for (const bool criss_cross : {false, true})
      write_classifier(folder, std::string(mask.name) + (criss_cross ? "_criss_cross" : "_whole"),
                       nano(mask.kind, criss_cross));
  for (const MaskKind mask :
       {MaskKind::none, MaskKind::rmt, MaskKind::v2h, MaskKind::polyline, MaskKind::shared}) {
    PpmaConfig c = with_linear_attention(ppma_nano());
    c.mask = mask;
    write_classifier(folder, "linear_" + to_string(mask), c);
  }
  PpmaConfig bare = ppma_nano();
  bare.lepe = bare.rotary = bare.depthwise = false;
  write_classifier(folder, "bare", bare);
  PpmaConfig scaled = ppma_nano();
  scaled.layerscales = {true, true, true, true};
  scaled.depths = {1, 0, 1, 1};
  write_classifier(folder, "layer_scales", scaled);

  for (const Mask& mask : masks()) {
    Classifier vit(small_vit(mask.kind));
    fill(vit);
    const std::string name = std::string("vit_") + mask.name;
    OnnxGraph g(name);
    export_onnx(vit, g, 32, 32);
    write_case(
        folder, g, name,
        [&](const Tensor& images) {
          return TensorMap{{"logits", vit.forward(images)}};
        },
        {1, 3}, 32, 32);
  }
  write_segmentor<UperNet>(folder);
  write_segmentor<SemanticFpn>(folder);

  MaskRcnnConfig config = mask_rcnn_nano(3, true);
  config.roi.finest = 8;  // regions of small images on all levels
  MaskRcnn detector(config);
  fill(detector);
  write_pyramid(folder, detector);
  write_detector(folder, "detector", detector);
  detector.roi_head.bbox_head.config.least_score = detector.config.roi.least_score = 1;
  write_detector(folder, "detector_finds_nothing", detector);
  const std::string failure = python_test::failure_of("check_onnx.py", "'" + folder / "" + "'");
  INFO(failure);
  CHECK(failure.empty());
}
