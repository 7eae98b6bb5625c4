// A network made ready for inference gives what the network gave that it was made from, and is
// nothing else.

#include "ppma/models/fold.hpp"

#include "help.hpp"
#include "ppma/nn/state_dict.hpp"

using namespace ppma;
using namespace models_test;

namespace {

PpmaConfig small_config() {
  PpmaConfig c;
  c.embed_dims = {16, 16, 32, 32}, c.depths = {1, 1, 1, 1}, c.num_heads = {1, 1, 2, 2},
  c.mlp_ratios = {3, 3, 3, 3};
  c.chunkwise_recurrents = {true, true, false, false}, c.layerscales = {false, false, true, true};
  c.layer_init_values = 0.5, c.num_classes = 10, c.projection = 64;
  return c;
}

// Statistics, scales and shifts that do something.
void stir(Ppma& model) {
  Rng rng(5);
  for (Field& f : state_dict(model)) {
    if (!is_floating(f.tensor.dtype()) ||
        (f.name.find("norm") == std::string::npos && f.name.find("proj.") == std::string::npos))
      continue;
    std::vector<double> v = f.tensor.to_vector<double>();
    for (double& x : v)
      x = ends_with(f.name, "running_var") ? rng.uniform(0.5, 2.0) : x + rng.uniform(-0.3, 0.3);
    f.tensor.copy_from(Tensor::from(v, f.tensor.shape()));
  }
}

}  // namespace

TEST_CASE("a folded network gives the same logits", "[models]") {
  Rng rng(1);
  const Tensor images = Tensor::randn({2, 3, 64, 64}, rng);
  PpmaConfig bare = small_config();
  bare.lepe = bare.rotary = bare.depthwise = false;
  const PpmaConfig linear = with_linear_attention(small_config());
  for (const auto& [c, device] :
       {std::pair{small_config(), Device::cpu}, std::pair{bare, Device::cpu},
        std::pair{linear, Device::cpu}, std::pair{small_config(), Device::cuda},
        std::pair{bare, Device::cuda}, std::pair{linear, Device::cuda}}) {
    if (device == Device::cuda && !cuda::available()) continue;
    Ppma model(c, 3);
    to(model, DType::f64);
    stir(model);
    to(model, device);
    const Tensor there = as(images, DType::f64, device), before = model.forward(there);
    prepare_for_inference(model, DType::f64);
    CHECK(distance(model.forward(there), before) < 1e-12);
    prepare_for_inference(model, DType::f64);  // nothing is left to fold
    CHECK(distance(model.forward(there), before) < 1e-12);
    if (device == Device::cpu) continue;
    to(model, DType::f32);
    prepare_for_inference(model, DType::bf16);
    CHECK(distance(model.forward(as(images, DType::bf16, device)), before) < 5e-2);
  }
}

TEST_CASE("on the CPU a network's weights in bf16 take half the memory", "[models]") {
  Rng rng(1);
  const Tensor images = Tensor::randn({3, 3, 64, 64}, rng);
  Ppma model(small_config(), 3);
  stir(model);
  Ppma exact(small_config(), 3);
  load_state_dict(exact, as_tensors(state_dict(model)));
  to(exact, DType::f64);
  const Tensor before = exact.forward(as(images, DType::f64, Device::cpu));
  const auto bytes = [](Ppma& m) {
    i64 sum = 0;
    const auto count = [&](auto& l) {
      for (const Tensor* t : {&l.weight, &l.packed.elements})
        if (t->defined()) sum += t->bytes();
    };
    for_each_layer<Linear>(m, count), for_each_layer<Conv2d>(m, count);
    return sum;
  };
  const i64 f32_bytes = bytes(model);
  prepare_for_inference(model, DType::bf16);
  // half, but for what fills up strips: many in so small a network
  CHECK(bytes(model) < f32_bytes * 3 / 4);
  const Tensor after = model.forward(images);
  CHECK(after.dtype() == DType::f32);
  CHECK(distance(after, before) < 2e-2);
  CHECK(distance(after, before) > 1e-5);
  prepare_for_inference(model, DType::bf16);  // nothing is left to do
  CHECK(distance(model.forward(images), after) == 0);
}

TEST_CASE("a folded network refuses training and the state dicts of others", "[models]") {
  Ppma model(small_config(), 3), other(small_config(), 4);
  prepare_for_inference(model, DType::f32);
  Context training{true, Rng(1)};
  CHECK(says([&] { model.forward(Tensor::zeros({2, 3, 64, 64}), training); }, "folded"));
  CHECK_THROWS_AS(load_state_dict(model, as_tensors(state_dict(other))), Error);
  CHECK_THROWS_AS(load_state_dict(other, as_tensors(state_dict(model))), Error);
}
