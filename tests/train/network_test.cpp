// The published network under the published optimiser: which tensors are decayed, and twelve steps
// of AdamW as PyTorch takes them in float64.

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"
#include "sanitized.hpp"

using namespace ppma;
using io_test::reference;

namespace {

struct GroupSize {
  i64 tensors = 0, elements = 0;
};

// How many tensors and elements have weight decay `decay` under the published rule.
GroupSize group_size(const std::vector<Parameter>& parameters, double decay) {
  GroupSize g;
  for (const Parameter& p : parameters)
    if (p.weight_decay == decay) ++g.tensors, g.elements += p.tensor.numel();
  return g;
}

}  // namespace

TEST_CASE("decayed and undecayed parameters are those of the published runs", "[train]") {
  const SkipInit skip;
  struct Published {
    PpmaConfig config;
    GroupSize none, decayed;
  };
  for (const Published& p : {Published{ppma_tiny(), {235, 66312}, {149, 14268960}},
                             Published{ppma_small(), {460, 134336}, {299, 26835136}},
                             Published{ppma_base(), {700, 244676}, {525, 53913848}}}) {
    if (brief() && p.config.name != "ppma_tiny") continue;  // names and sizes alone
    INFO(p.config.name);
    Ppma model(p.config);
    const auto parameters = parameters_of(model, no_decay_rules(0.05));
    const GroupSize none = group_size(parameters, 0), decayed = group_size(parameters, 0.05);
    CHECK(none.tensors == p.none.tensors);
    CHECK(none.elements == p.none.elements);
    CHECK(decayed.tensors == p.decayed.tensors);
    CHECK(decayed.elements == p.decayed.elements);
  }
}

TEST_CASE("twelve steps of AdamW in float64 follow PyTorch", "[train]") {
  const std::vector<u8> file = read_file(reference("mini_train_trace.json"));
  const auto trace = nlohmann::json::parse(file.begin(), file.end());
  const auto& c = trace["config"];
  PpmaConfig config;
  for (std::size_t s = 0; s < 4; ++s) {
    config.embed_dims[s] = c["embed_dims"][s];
    config.depths[s] = c["depths"][s];
    config.num_heads[s] = c["num_heads"][s];
    config.mlp_ratios[s] = c["mlp_ratios"][s];
    config.chunkwise_recurrents[s] = c["chunkwise_recurrents"][s];
    config.layerscales[s] = c["layerscales"][s];
  }
  config.layer_init_values = c["layer_init_values"];
  config.projection = c["projection"];
  config.num_classes = c["num_classes"];
  config.drop_path_rate = c["drop_path_rate"];

  Ppma model(config);
  to(model, DType::f64);
  load_state_dict(model, read_safetensors(reference("mini_weights.safetensors")).tensors);
  const TensorMap io = read_safetensors(reference("mini_io.safetensors")).tensors;
  Tensor input = Tensor::empty(find(io, "input")->shape(), DType::f64);
  input.copy_from(*find(io, "input"));
  const Tensor target = *find(io, "target");

  AdamW optimizer(parameters_of(model, {{"*", Shape::max_rank, 0.05}}));
  REQUIRE(trace["loss"].size() == 12);
  for (std::size_t t = 0; t < (brief() ? 3 : 12); ++t) {
    Context context{true, Rng()};
    const Tensor loss = cross_entropy(model.forward(input, context), target);
    INFO("step " << t);
    CHECK(loss.item() == Approx(trace["loss"][t].get<double>()).epsilon(1e-6));
    loss.backward();
    optimizer.step(1e-3);
    optimizer.zero_grad();
  }
}
