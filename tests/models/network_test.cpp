// The four-stage network: sizes, costs, masks, and how it behaves in training and evaluation.

#include <map>

#include "help.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/adamw.hpp"
#include "sanitized.hpp"

using namespace ppma;
using namespace models_test;

namespace {

PpmaConfig small_network(MaskKind mask = MaskKind::polyline) {
  PpmaConfig c;
  c.embed_dims = {8, 16, 16, 32};
  c.depths = {1, 1, 2, 1};
  c.num_heads = {2, 2, 2, 4};
  c.layerscales = {false, false, true, true};
  c.layer_init_values = 0.5;
  c.projection = 24;
  c.num_classes = 5;
  c.drop_path_rate = 0;
  c.mask = mask;
  return c;
}

Tensor image(const Shape& shape, DType dtype = DType::f64, const std::string& name = "network") {
  return as(formula_image(name, shape), dtype);
}

template <class M>
M filled(const PpmaConfig& c, DType dtype = DType::f64) {
  const SkipInit skip;
  M model(c);
  fill_by_formula(model);
  for (Field& f : state_dict(model))  // RMT's decays are constants
    if (last_part(f.name) == "decay") f.tensor.copy_from(Tensor::full(f.tensor.shape(), -0.2));
  to(model, dtype);
  return model;
}

struct Cost {
  const char* name;
  i64 parameters, macs;
  double published;  // G
};

}  // namespace

TEST_CASE("parameters and costs of every published size", "[models]") {
  const SkipInit skip;
  for (const Cost& c :
       {Cost{"ppma_tiny", 14335272, 2695525376, 2.7089},
        Cost{"ppma_small", 26969472, 4895793152, 4.9187},
        Cost{"ppma_base", 54158524, 10593165056, 10.6345}, Cost{"ppma_large", 95468804, 0, 0},
        Cost{"rmt_tiny", 14334216, 0, 2.6506}, Cost{"rmt_small", 26967240, 0, 4.7995},
        Cost{"rmt_base", 54154896, 0, 10.4144}, Cost{"rmt_large", 95464864, 0, 0}}) {
    if (sanitized() && c.parameters > 20000000) continue;  // sums over shapes alone
    INFO(c.name);
    Ppma model(config_by_name(c.name));
    const Summary s = summary(model, 1, 224, 224);
    CHECK(parameter_count(model) == c.parameters);
    CHECK(s.parameters() == c.parameters);
    if (c.macs > 0) CHECK(s.macs() == c.macs);
    if (c.published > 0)
      CHECK(std::abs(static_cast<double>(s.published()) * 1e-9 - c.published) < 0.5e-4);
    CHECK(s.flops() > 2 * s.macs());
    CHECK(summary(model, 3, 224, 224).macs() == 3 * s.macs());
  }
  if (sanitized()) return;
  // Large: 19.80 and 19.49 G MACs; with 100 classes.
  const auto large = [](MaskKind mask, i64 classes) {
    PpmaConfig c = ppma_large();
    c.mask = mask, c.num_classes = classes;
    Ppma model(c);
    return std::pair{parameter_count(model),
                     static_cast<double>(summary(model, 1, 224, 224).macs()) * 1e-9};
  };
  CHECK(large(MaskKind::polyline, 100).first == 94546304);
  CHECK(large(MaskKind::rmt, 100).first == 94542364);
  CHECK(std::abs(large(MaskKind::polyline, 1000).second - 19.80) < 0.005);
  CHECK(std::abs(large(MaskKind::rmt, 1000).second - 19.49) < 0.005);
}

TEST_CASE("parameters of the ablation's masks and of the dense backbones", "[models]") {
  const SkipInit skip;
  const std::map<MaskKind, i64> want{{MaskKind::none, 14334216},   {MaskKind::rmt, 14334216},
                                     {MaskKind::v2h, 14335272},    {MaskKind::polyline, 14335272},
                                     {MaskKind::shared, 14334856}, {MaskKind::cross_scan, 14335272},
                                     {MaskKind::hilbert, 14335272}};
  CHECK(want.size() == masks().size());
  for (const auto& entry : want) {
    INFO(to_string(entry.first));
    PpmaConfig c = ppma_tiny();
    c.mask = entry.first;
    Ppma model(c);
    CHECK(parameter_count(model) == entry.second);
  }
  for (const auto& [name, count] : {std::pair<const char*, i64>{"ppma_tiny", 12784832},
                                    {"ppma_small", 25419032},
                                    {"ppma_base", 52608308}}) {
    INFO(name);
    DenseBackbone model(config_by_name(name));
    CHECK(parameter_count(model) == count);
    CHECK(summary(model, 1, 512, 512).parameters() == count);
  }
}

TEST_CASE("a summary tells shapes as they are, and prints a table", "[models]") {
  Ppma model = filled<Ppma>(small_network(), DType::f32);
  std::map<std::string, Shape> seen;
  Context ctx;
  ctx.observe = [&](const std::string& path, const Tensor& y) { seen[path] = y.shape(); };
  const NoGrad off;
  model.forward(image({2, 3, 65, 97}, DType::f32), ctx);
  const Summary s = summary(model, 2, 65, 97);
  i64 compared = 0;
  for (int depth = 1; depth <= 5; ++depth)
    for (const LayerSummary& row : s.grouped(depth))
      if (seen.count(row.name) == 1 && row.name.find("layers.") == 0 && row.name.size() > 8) {
        INFO(row.name);
        CHECK(row.output == seen[row.name]);
        ++compared;
      }
  CHECK(compared > 15);
  CHECK(s.layers.back().output == Shape{2, 5});
  i64 bytes = 0;
  for (const LayerSummary& row : s.layers) bytes += row.output.numel() * 4;
  CHECK(s.activation_bytes() == bytes);
  CHECK(summary(model, 2, 65, 97, DType::f64).activation_bytes() == 2 * bytes);
  for (int depth = 1; depth <= 5; ++depth) {
    i64 macs = 0;
    for (const LayerSummary& row : s.grouped(depth)) macs += row.macs;
    CHECK(macs == s.macs());
  }
  const std::string text = s.text();
  INFO(text);
  for (const char* piece : {"custom, input (2, 3, 65, 97)", "layers.2.blocks.1", "(2, 5, 7, 16)",
                            "MACs", "FLOPs", "parameters: "})
    CHECK(text.find(piece) != std::string::npos);
  CHECK(detail::grouped_digits(1234567) == "1,234,567");
  CHECK(detail::grouped_digits(123) == "123");
  CHECK(says([&] { summary(model, 1, 16, 64); }, "at least 32 x 32, got 1, 16 x 64"));
}

TEST_CASE("configurations survive JSON; a misspelt key or value is named", "[models]") {
  for (const Mask& mask : masks()) {
    PpmaConfig c = small_network(mask.kind);
    c.fused = mask.kind != MaskKind::v2h;
    const PpmaConfig back = config_from_json(config_to_json(c));
    CHECK(config_to_json(back).dump() == config_to_json(c).dump());
    CHECK(back.mask == mask.kind);
    CHECK(back.fused == c.fused);
    CHECK(back.embed_dims == c.embed_dims);
    CHECK(back.layer_init_values == c.layer_init_values);
  }
  const PpmaConfig c = config_from_text(
      R"({"model": "rmt_small", "num_classes": 7, "layerscales": [0, 0, 1, true]})", "x");
  CHECK(c.depths[2] == 18);
  CHECK(c.mask == MaskKind::rmt);
  CHECK(c.num_classes == 7);
  CHECK((c.layerscales[2] && c.layerscales[3] && !c.layerscales[0]));
  CHECK(says([] { config_from_text(R"({"depth": [1, 1, 1, 1]})", "x"); },
             "unknown key \"depth\"; did you mean \"depths\"? there are model, name, embed_dims, "
             "depths, "));
  CHECK(says([] { config_from_text(R"({"depths": [1, 1, 1]})", "x"); },
             "\"depths\" must be a list of 4, each a whole number, not [1,1,1]"));
  CHECK(says([] { config_from_text(R"({"depths": [1, 1, 1.5, 1]})", "x"); },
             "\"depths[2]\" must be a whole number, not 1.5"));
  CHECK(says([] { config_from_text(R"({"mask": "round"})", "x"); }, "there is no mask \"round\""));
  CHECK(says([] { config_from_text("{", "the file"); }, "the file: is not JSON"));
}

TEST_CASE("odd image sizes: every stride rounds up", "[models]") {
  Ppma model = filled<Ppma>(small_network());
  Maps maps;
  Context ctx;
  model.forward(image({1, 3, 65, 97}), ctx, &maps);
  const std::vector<Shape> want{{1, 17, 25, 8}, {1, 9, 13, 16}, {1, 5, 7, 16},
                                {1, 3, 4, 32},  {1, 3, 4, 32},  {1, 5}};
  REQUIRE(maps.size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    CHECK(maps[i].second.shape() == want[i]);
    CHECK(std::isfinite(norm(maps[i].second)));
  }
  DenseBackbone dense = filled<DenseBackbone>(small_network());
  const std::vector<Tensor> four = dense.forward(image({1, 3, 65, 97}), ctx);
  CHECK(four[0].shape() == Shape{1, 17, 25, 8});
  CHECK(four[3].shape() == Shape{1, 3, 4, 32});
  CHECK(model.forward(image({1, 3, 32, 33})).shape() == Shape{1, 5});
}

TEST_CASE("what the network refuses, and where in it an error happened", "[models]") {
  Ppma model = filled<Ppma>(small_network(), DType::f32);
  CHECK(says(
      [&] {
        model.forward(Tensor::zeros({1, 3, 31, 64}));
      },
      "ppma: images must be at least 32 x 32, got 31 x 64"));
  CHECK(says(
      [&] {
        model.forward(Tensor::zeros({1, 64, 64, 3}));
      },
      "ppma: images must be (B,3,H,W), got (1, 64, 64, 3)"));
  CHECK(says(
      [&] {
        model.forward(Tensor::zeros({1, 3, 64, 64}, DType::f64));
      },
      "(in patch_embed)"));
  model.backbone.layers[2].blocks[1].retention->q_proj = [] {
    Rng rng;
    return Linear(9, 9, rng);
  }();
  CHECK(says(
      [&] {
        model.forward(Tensor::zeros({1, 3, 64, 64}));
      },
      "(in layers.2.blocks.1.retention)"));
  PpmaConfig c = small_network();
  c.num_heads[1] = 3;
  CHECK(says([&] { Ppma bad(c); }, "stage 1 has 16 channels for 3 heads"));
  CHECK(says([] { config_by_name("ppma_huge"); }, "no model is called \"ppma_huge\""));
}

TEST_CASE("in evaluation the network is const, images do not see each other, nothing is random",
          "[models]") {
  const Ppma model = filled<Ppma>(small_network());
  const Tensor images = image({3, 3, 40, 48});
  const Tensor all = model.forward(images);
  for (i64 b = 0; b < 3; ++b)
    CHECK(distance(model.forward(narrow(images, 0, b, 1)), narrow(all, 0, b, 1)) < 1e-13);
  const int before = threads();
  for (const int n : {1, 3}) {
    set_threads(n);
    CHECK(model.forward(images).to_vector<double>() == all.to_vector<double>());
  }
  set_threads(before);
  CHECK_FALSE(all.requires_grad());
}

TEST_CASE("a training step does not depend on the number of threads", "[models]") {
  const int before = threads();
  std::vector<std::vector<float>> gradients[2];
  for (int run = 0; run < 2; ++run) {
    set_threads(run == 0 ? 1 : 3);
    PpmaConfig c = small_network();
    c.drop_path_rate = 0.3;
    Ppma model = filled<Ppma>(c, DType::f32);
    Context ctx{true, Rng(4)};
    sum(square(model.forward(image({3, 3, 40, 48}, DType::f32), ctx))).backward();
    for (const Field& f : named_parameters(model))
      gradients[run].push_back(f.tensor.grad().to_vector<float>());
  }
  set_threads(before);
  CHECK(gradients[0] == gradients[1]);
}

TEST_CASE("every mask: fused and composed agree in values and gradients, and the masks differ",
          "[models]") {
  std::vector<Tensor> all;
  for (const Mask& mask : masks()) {
    Tensor logits[2];
    std::map<std::string, Tensor> gradient[2];
    for (int run = 0; run < 2; ++run) {
      PpmaConfig c = small_network(mask.kind);
      c.chunkwise_recurrents = {true, false, true, false};
      c.fused = run == 0;
      Ppma model = filled<Ppma>(c);
      Context ctx{true, Rng(1)};
      logits[run] = model.forward(image({2, 3, 36, 44}), ctx);
      sum(square(logits[run])).backward();
      for (const Field& f : named_parameters(model)) gradient[run][f.name] = f.tensor.grad();
    }
    INFO(mask.name);
    CHECK(distance(logits[0], logits[1]) < 1e-12);
    for (const auto& g : gradient[0]) {
      INFO(g.first);
      // Biases that a batch norm takes away have gradients of rounding noise.
      if (norm(g.second) > 1e-10 || norm(gradient[1][g.first]) > 1e-10)
        CHECK(distance(g.second, gradient[1][g.first]) < 1e-9);
    }
    for (const Tensor& other : all) CHECK(distance(logits[0], other) > 1e-6);
    all.push_back(logits[0].detach());
  }
}

TEST_CASE("drop path rises linearly to its rate, drops whole samples, and only in training",
          "[models]") {
  i64 n = 0;
  const Ppma tiny = filled<Ppma>(ppma_tiny(), DType::f32);
  for (const Stage& stage : tiny.backbone.layers)
    for (const Block& block : stage.blocks)
      CHECK(block.drop_path == Approx(0.1 * static_cast<double>(n++) / 13).margin(1e-15));
  CHECK(n == 14);

  PpmaConfig c = small_network();
  c.drop_path_rate = 0.9;
  Ppma model = filled<Ppma>(c);
  const Tensor images = image({4, 3, 32, 32});
  const auto train = [&](u64 seed) {
    const NoGrad off;
    Context ctx{true, Rng(seed)};
    return model.forward(images, ctx).to_vector<double>();
  };
  CHECK(train(1) == train(1));
  CHECK(train(1) != train(2));
  CHECK(model.forward(images).to_vector<double>() == model.forward(images).to_vector<double>());

  // A dropped branch leaves the input: with every draw a drop, a block is x + pos(x).
  Rng rng(7);
  Block block({8, 2, 16, false, false, 1, MaskKind::polyline, true}, 1 - 1e-12, rng);
  const Positions at({8, 2, 16, false, false, 1, MaskKind::polyline, true}, 4);
  Context ctx{true, Rng(1)};
  const Tensor x = image({2, 4, 5, 8}, DType::f32);
  CHECK(block.forward(x, at, ctx).to_vector<float>() == block.positioned(x).to_vector<float>());
  Context eval;
  CHECK(distance(block.forward(x, at, eval), block.positioned(x)) > 1e-3);
}

TEST_CASE("training updates every batch norm's statistics, evaluation none", "[models]") {
  Ppma model = filled<Ppma>(small_network());
  const auto statistics = [&] {
    std::vector<std::vector<double>> s;
    for (const Field& f : state_dict(model))
      if (f.name.find(".running_") != std::string::npos || ends_with(f.name, "num_batches_tracked"))
        s.push_back(f.tensor.to_vector<double>());
    return s;
  };
  const auto before = statistics();
  CHECK(before.size() == 3 * 8);
  model.forward(image({2, 3, 32, 32}));
  CHECK(statistics() == before);
  Context ctx{true, Rng(1)};
  const NoGrad off;
  model.forward(image({2, 3, 32, 32}), ctx);
  const auto after = statistics();
  for (std::size_t i = 0; i < after.size(); ++i) CHECK(after[i] != before[i]);
}

TEST_CASE("initial weights follow the published rules; the mask changes no other weight",
          "[models]") {
  PpmaConfig c = small_network();
  c.layer_init_values = 1e-6;
  Ppma model(c, 3), again(c, 3), other(c, 4);
  std::map<std::string, std::vector<float>> with;
  i64 different = 0, random = 0;
  const std::vector<Field> fields = state_dict(model), same = state_dict(again),
                           others = state_dict(other);
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const Field& f = fields[i];
    INFO(f.name);
    const std::vector<float> v = f.tensor.to_vector<float>();
    with[f.name] = v;
    CHECK(v == same[i].tensor.to_vector<float>());
    different += v != others[i].tensor.to_vector<float>();
    const std::string leaf = last_part(f.name);
    const bool conv = f.tensor.rank() == 4 && leaf == "weight";
    random += f.tensor.rank() == 2 || conv || leaf == "dt_bias" || leaf == "A_log";
    for (const float x : v) {
      if (leaf == "dt_bias") CHECK((x >= -6.9073f && x <= -2.2521f));
      if (leaf == "A_log") CHECK((x >= 0 && x <= std::log(1.1f)));
      if (leaf == "gamma_1" || leaf == "gamma_2") CHECK(x == 1e-6f);
      if (f.tensor.rank() == 2) CHECK(std::abs(x) < 0.12f);  // six deviations
      if (conv)
        CHECK(std::abs(x) <= 1 / std::sqrt(static_cast<float>(f.tensor.numel() / f.tensor.dim(0))));
    }
  }
  CHECK(random ==
        // stem and merging; linear layers, convolutions, decays of five blocks; head
        7 + 5 * (7 + 3 + 2) + 2);
  CHECK(different > random);  // and the biases of convolutions
  for (const Mask& mask : masks()) {
    PpmaConfig m = c;
    m.mask = mask.kind;
    Ppma masked(m, 3);
    for (const Field& f : named_parameters(masked)) {
      INFO(mask.name << " " << f.name);
      if (ends_with(f.name, "dt_linear.weight") && mask.kind == MaskKind::shared) continue;
      CHECK(f.tensor.to_vector<float>() == with[f.name]);
    }
  }
}

TEST_CASE("RMT keeps its constants beside the angles", "[models]") {
  const SkipInit skip;
  Ppma model(config_by_name("rmt_tiny"));
  const std::vector<Field> fields = state_dict(model);
  const auto at = std::find_if(fields.begin(), fields.end(),
                               [](const Field& f) { return f.name == "layers.0.Relpos.decay"; });
  REQUIRE(at != fields.end());
  CHECK((at - 1)->name == "layers.0.Relpos.angle");
  CHECK(at->kind == Kind::buffer);
  const double want[] = {0.75, 0.875, 0.9375, 0.96875};
  for (std::size_t g = 0; g < 4; ++g)
    CHECK(std::exp(at->tensor.to_vector<double>()[g]) == Approx(want[g]).epsilon(1e-7));
  for (const Field& f : fields) CHECK(f.name.find("path_embed") == std::string::npos);
}

TEST_CASE("a small network learns one batch by heart", "[models]") {
  PpmaConfig c = small_network();
  c.drop_path_rate = 0;
  Ppma model(c, 1);
  const Tensor images = image({6, 3, 32, 32}, DType::f32);
  const Tensor labels = Tensor::from<i64>({0, 1, 2, 3, 4, 2}, {6});
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
  double first = 0, last = 0;
  for (int step = 0; step < (sanitized() ? 2 : 40); ++step) {
    Context ctx{true, Rng(1, static_cast<u64>(step))};
    const Tensor loss = cross_entropy(model.forward(images, ctx), labels);
    loss.backward();
    optimizer.step(8e-3);
    optimizer.zero_grad();
    if (step == 0) first = loss.item();
    last = loss.item();
  }
  CHECK(first == Approx(std::log(5.0)).epsilon(0.15));  // five classes, no knowledge
  INFO(last);
  CHECK(last < (sanitized() ? first : 0.05));
}
