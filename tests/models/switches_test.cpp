// Networks without some of what tells a block where its tokens are.

#include <cstddef>

#include "help.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/tensor/grad_check.hpp"
#include "sanitized.hpp"

using namespace ppma;
using namespace models_test;

namespace {

struct Switch {
  const char* name;  // in configurations
  const char* part;  // of the names of what is not there without it
  bool PpmaConfig::*of;
};
const Switch switches[] = {{"lepe", ".lepe.", &PpmaConfig::lepe},
                           {"rotary", ".angle", &PpmaConfig::rotary},
                           {"depthwise", "", &PpmaConfig::depthwise}};

PpmaConfig whole_network() {
  PpmaConfig c;
  c.embed_dims = {8, 8, 8, 16}, c.depths = {1, 1, 1, 1}, c.num_heads = {2, 2, 2, 4};
  c.mlp_ratios = {2, 2, 2, 2}, c.layerscales = {false, false, true, true};
  c.layer_init_values = 0.5, c.projection = 12, c.num_classes = 5, c.drop_path_rate = 0;
  return c;
}

// Each switch off, and all of them.
std::vector<PpmaConfig> switched_off() {
  std::vector<PpmaConfig> all;
  PpmaConfig bare = whole_network();
  for (const Switch& s : switches) {
    all.push_back(whole_network());
    all.back().*s.of = false, bare.*s.of = false;
    all.back().name = s.name;
  }
  bare.name = "all";
  all.push_back(bare);
  return all;
}

Ppma network_of(const PpmaConfig& c) {
  const SkipInit skip;
  Ppma model(c);
  fill_by_formula(model);
  for (Field& f : named_parameters(model))  // what comes first shall matter at the end
    if (f.tensor.rank() > 1) f.tensor.copy_from(scale(f.tensor.detach(), 2));
  to(model, DType::f64);
  return model;
}

Tensor two_images() { return as(formula_image("switches", {2, 3, 32, 40}), DType::f64); }

// Tokens (1,H,W,C) in another order: token n comes from 7 n + 3 (mod the number of tokens, 16).
Tensor reordered(const Tensor& x) {
  const std::vector<double> from = x.to_vector<double>();
  std::vector<double> to(from.size());
  const std::size_t channels = static_cast<std::size_t>(x.dim(3)), tokens = from.size() / channels;
  for (std::size_t n = 0; n < tokens; ++n)
    for (std::size_t c = 0; c < channels; ++c)
      to[n * channels + c] = from[(7 * n + 3) % tokens * channels + c];
  return Tensor::from(to, x.shape());
}

// How far a block's result for tokens in another order is from its result in that order.
double reads_order(StageConfig c) {
  Rng rng(1);
  Block block(c, 0, rng);
  Positions at(c, 4);
  fill_by_formula(block);
  to(block, DType::f64), to(at, DType::f64);
  const Tensor x = as(formula_image("tokens", {1, 4, 4, c.channels}), DType::f64);
  const NoGrad off;
  Context ctx;
  return distance(block.forward(reordered(x), at, ctx), reordered(block.forward(x, at, ctx)));
}

}  // namespace

TEST_CASE("a switch that is off leaves no tensor, and the summary counts what there is",
          "[models]") {
  Ppma whole = network_of(whole_network());
  for (const Switch& s : switches) {
    INFO(s.name);
    PpmaConfig c = whole_network();
    c.*s.of = false;
    Ppma model = network_of(c);
    std::vector<std::string> names;
    for (const Field& f : state_dict(model)) names.push_back(f.name);
    for (const Field& f : state_dict(whole)) {
      const bool of_switch = c.depthwise ? f.name.find(s.part) != std::string::npos
                                         : f.name.find(".pos.") != std::string::npos ||
                                               f.name.find(".dwconv.") != std::string::npos;
      const bool there = std::find(names.begin(), names.end(), f.name) != names.end();
      INFO(f.name);
      CHECK(there != of_switch);
    }
    const Summary here = summary(model, 2, 65, 97), all = summary(whole, 2, 65, 97);
    CHECK(here.parameters() == parameter_count(model));
    CHECK(here.flops() < all.flops());
    i64 convolutions = 0;  // multiply-accumulates
    for (const LayerSummary& l : all.layers) {
      if (!c.lepe && ends_with(l.name, ".lepe")) convolutions += l.macs;
      if (!c.depthwise && (ends_with(l.name, ".pos") || ends_with(l.name, ".dwconv")))
        convolutions += l.macs;
    }
    CHECK(all.macs() - here.macs() == convolutions);
    CHECK(distance(model.forward(two_images()), whole.forward(two_images())) > 1e-3);
  }
}

TEST_CASE("without them a block knows where its tokens are by the mask alone", "[models]") {
  const StageConfig bare{8, 2, 16, false, false, 1, MaskKind::none, true, false, false, false};
  CHECK(reads_order(bare) < 1e-14);
  for (bool StageConfig::*one :
       {&StageConfig::lepe, &StageConfig::rotary, &StageConfig::depthwise}) {
    StageConfig with = bare;
    with.*one = true;
    CHECK(reads_order(with) > 1e-3);
  }
  StageConfig masked = bare;
  masked.mask = MaskKind::polyline;
  CHECK(reads_order(masked) > 1e-3);
}

TEST_CASE("gradients of networks with switches off, against differences", "[models]") {
  // Blocks where grids are larger than every convolution, one of them criss-cross.
  const Tensor picture = as(formula_image("picture", {1, 3, 48, 48}), DType::f64);
  for (PpmaConfig c : switched_off()) {
    c.depths = {1, 1, 0, 0}, c.layerscales[0] = true;
    c.chunkwise_recurrents = {true, false, false, false};
    Ppma model = network_of(c);
    if (sanitized()) {  // that takes hundreds of passes
      Context ctx;
      sum(model.forward(picture, ctx)).backward();
      continue;
    }
    // A softmax does not see what all keys have in common, unless they are turned.
    const auto checked = [&](const std::string& name) {
      return c.rotary || !ends_with(name, "k_proj.bias");
    };
    std::vector<Tensor> values;
    for (const Field& f : named_parameters(model))
      if (checked(f.name)) values.push_back(f.tensor.detach());
    const GradCheck g = grad_check(
        [&](const std::vector<Tensor>& in) {
          std::size_t n = 0;
          for_each_field(model, [&](const std::string& name, Tensor& t, Kind kind) {
            if (kind == Kind::parameter && checked(name)) t = in[n++];
          });
          Context ctx;
          return model.forward(picture, ctx);
        },
        values, {.least = 1e-7, .max_elements = 2});
    INFO(c.name << "\n" << g.report);
    CHECK(g.ok);
  }
}

TEST_CASE("switches are written where they are off, and weights come back", "[models]") {
  for (const Switch& s : switches) CHECK_FALSE(config_to_json(whole_network()).contains(s.name));
  for (const PpmaConfig& c : switched_off()) {
    INFO(c.name);
    const nlohmann::ordered_json j = config_to_json(c);
    for (const Switch& s : switches) CHECK(j.contains(s.name) != c.*s.of);
    CHECK(config_from_text(j.dump(), "x") == c);
    Ppma model = network_of(c), other(c, 4), whole(whole_network(), 4);
    load_state_dict(other, as_tensors(state_dict(model)));
    to(other, DType::f64);
    CHECK(distance(other.forward(two_images()), model.forward(two_images())) == 0);
    if (c.lepe && c.depthwise) continue;  // then only a constant is missing
    CHECK_THROWS_AS(load_state_dict(whole, as_tensors(state_dict(model))), Error);
  }
}
