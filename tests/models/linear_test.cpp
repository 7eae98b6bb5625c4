// Networks with linear attention (PPMLA) in their stages.

#include "help.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/tensor/grad_check.hpp"
#include "sanitized.hpp"

using namespace ppma;
using namespace models_test;

namespace {

PpmaConfig linear_network(MaskKind mask = MaskKind::polyline) {
  PpmaConfig c;
  c.embed_dims = {8, 16, 16, 32}, c.depths = {1, 1, 2, 1}, c.num_heads = {2, 2, 2, 4};
  c.layerscales = {true, false, false, true}, c.layer_init_values = 0.5;
  c.projection = 24, c.num_classes = 5, c.drop_path_rate = 0;
  c.mask = mask;
  return with_linear_attention(c);
}

Ppma linear_model(const PpmaConfig& c, DType dtype = DType::f64) {
  const SkipInit skip;
  Ppma model(c);
  fill_by_formula(model);
  for (Field& f : state_dict(model)) {  // what comes first shall matter at the end
    if (f.kind == Kind::parameter && f.tensor.rank() > 1)
      f.tensor.copy_from(scale(f.tensor.detach(), 2));
    if (last_part(f.name) == "decay") f.tensor.copy_from(Tensor::full(f.tensor.shape(), -0.2));
  }
  to(model, dtype);
  return model;
}

Tensor picture(const Shape& shape, DType dtype = DType::f64, const char* name = "linear") {
  return as(formula_image(name, shape), dtype);
}

std::vector<MaskKind> possible_masks() {
  std::vector<MaskKind> all;
  for (const Mask& mask : masks())
    if (mask.paths) all.push_back(mask.kind);
  return all;
}

}  // namespace

TEST_CASE("linear attention in a network: its scans give what the formula gives", "[models]") {
  std::vector<Tensor> all;
  CHECK(possible_masks().size() == 5);
  for (const MaskKind kind : possible_masks()) {
    INFO(to_string(kind));
    Tensor logits[2];
    std::map<std::string, Tensor> gradient[2];
    for (int run = 0; run < 2; ++run) {
      PpmaConfig c = linear_network(kind);
      c.fused = run == 0;
      Ppma model = linear_model(c);
      Context ctx{true, Rng(1)};
      logits[run] = model.forward(picture({2, 3, 36, 44}), ctx);
      sum(square(logits[run])).backward();
      for (const Field& f : named_parameters(model)) gradient[run][f.name] = f.tensor.grad();
    }
    CHECK(distance(logits[0], logits[1]) < 1e-12);
    for (const auto& g : gradient[0]) {
      INFO(g.first);
      // Biases that a norm takes away have gradients of rounding noise.
      if (norm(g.second) > 1e-10 || norm(gradient[1][g.first]) > 1e-10)
        CHECK(distance(g.second, gradient[1][g.first]) < 1e-9);
    }
    for (const Tensor& other : all) CHECK(distance(logits[0], other) > 1e-6);
    all.push_back(logits[0].detach());
  }
}

TEST_CASE("linear attention of a layer, written down", "[models]") {
  StageConfig c{8, 2, 16, false, false, 1, MaskKind::none, true};
  c.linear = true, c.lepe = c.rotary = false;
  Rng rng(1);
  Attention a(c, rng);
  Positions at(c, 4);
  fill_by_formula(a);
  to(a, DType::f64), to(at, DType::f64);
  const NoGrad off;
  const Tensor x = picture({1, 3, 4, 8}), got = a.forward(x, at);
  const std::vector<double> q = softplus(a.q_proj.forward(x)).to_vector<double>(),
                            k = softplus(a.k_proj.forward(x)).to_vector<double>(),
                            v = a.v_proj.forward(x).to_vector<double>();
  Tensor sums = Tensor::zeros({1, 3, 4, 2, 4}, DType::f64);
  double* const y = sums.data<double>();
  for (std::size_t u = 0; u < 12; ++u)
    for (std::size_t w = 0; w < 12; ++w)
      for (std::size_t g = 0; g < 2; ++g) {
        double score = 0;
        for (std::size_t i = 4 * g; i < 4 * g + 4; ++i) score += q[8 * u + i] * k[8 * w + i] / 2;
        for (std::size_t i = 4 * g; i < 4 * g + 4; ++i) y[8 * u + i] += score * v[8 * w + i];
      }
  const LayerNorm& n = *a.linear_norm;
  const Tensor want =
      a.out_proj.forward(reshape(layer_norm(sums, n.weight, n.bias, 1e-6), {1, 3, 4, 8}));
  CHECK(distance(got, want) < 1e-13);
}

TEST_CASE("linear attention: gradients of a network, against differences", "[models]") {
  const Tensor image = picture({1, 3, 48, 48});
  // Hundreds of passes; the sanitizers have seen those of every mask above.
  std::vector<MaskKind> kinds{MaskKind::polyline};
  if (!sanitized()) kinds.insert(kinds.end(), {MaskKind::v2h, MaskKind::shared, MaskKind::none});
  for (const MaskKind kind : kinds) {
    PpmaConfig c = linear_network(kind);
    c.depths = {1, 1, 0, 0};  // where grids are larger than every convolution
    Ppma model = linear_model(c);
    std::vector<Tensor> values;
    for (const Field& f : named_parameters(model)) values.push_back(f.tensor.detach());
    const GradCheck g = grad_check(
        [&](const std::vector<Tensor>& in) {
          std::size_t n = 0;
          for_each_field(model, [&](const std::string&, Tensor& t, Kind of) {
            if (of == Kind::parameter) t = in[n++];
          });
          Context ctx;
          return model.forward(image, ctx);
        },
        values, {.least = 1e-7, .max_elements = brief() ? 1 : 2});
    INFO(to_string(kind) << "\n" << g.report);
    CHECK(g.ok);
  }
}

TEST_CASE("linear attention: configurations by name and by JSON, and what they refuse",
          "[models]") {
  const PpmaConfig nano = config_by_name("ppma_nano_linear"),
                   tiny = config_by_name("ppma_tiny_linear");
  CHECK(nano.name == "ppma_nano_linear");
  CHECK(config_by_name("rmt_tiny_linear").mask == MaskKind::rmt);
  for (const PpmaConfig& c : {nano, tiny})
    for (std::size_t s = 0; s < 4; ++s) CHECK((c.linear[s] && !c.chunkwise_recurrents[s]));
  CHECK(config_from_json(config_to_json(tiny)) == tiny);
  CHECK_FALSE(config_to_json(ppma_tiny()).contains("linear"));
  PpmaConfig c = ppma_tiny();
  c.linear = {false, false, false, true};
  CHECK(config_from_json(config_to_json(c)) == c);
  c.linear[1] = true;
  CHECK(says([&] { check_config(c); }, "config: stage 1 is both criss-cross"));
  c.linear[1] = false, c.mask = MaskKind::hilbert;
  CHECK(says([&] { check_config(c); }, "config: stage 3 is linear, with mask hilbert; a linear"));
}

TEST_CASE("linear attention: a summary's parameters and costs grow with the tokens", "[models]") {
  const SkipInit skip;
  Ppma model(config_by_name("ppma_tiny_linear")), hybrid(ppma_tiny());
  const auto macs = [&](Ppma& m, i64 size) {
    i64 sum = 0;
    for (const LayerSummary& l : summary(m, 1, size, size).layers)
      if (ends_with(l.name, ".attention")) sum += l.macs;
    return sum;
  };
  CHECK(summary(model, 1, 224, 224).parameters() == parameter_count(model));
  // a weight and a bias for each channel of a head
  CHECK(parameter_count(model) - parameter_count(hybrid) ==
        2 * (2 * 16 + 2 * 32 + 8 * 32 + 2 * 32));
  // two paths, two products of N C d
  i64 want = 0;
  const i64 blocks[] = {2, 2, 8, 2}, sides[] = {56, 28, 14, 7}, channels[] = {64, 128, 256, 512},
            widths[] = {16, 32, 32, 32};
  for (int s = 0; s < 4; ++s) want += blocks[s] * 4 * sides[s] * sides[s] * channels[s] * widths[s];
  CHECK(macs(model, 224) == want);
  CHECK(macs(model, 896) == 16 * macs(model, 224));
  CHECK(macs(hybrid, 896) > 32 * macs(hybrid, 224));
}

TEST_CASE("linear attention: a small network learns one batch by heart", "[models]") {
  Ppma model(linear_network(), 1);
  const Tensor images = picture({6, 3, 32, 32}, DType::f32);
  const Tensor labels = Tensor::from<i64>({0, 1, 2, 3, 4, 2}, {6});
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
  double first = 0, last = 0;
  for (int step = 0; step < (sanitized() ? 2 : 60); ++step) {
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

TEST_CASE("linear attention: a network on the GPU gives the CPU's logits and gradients",
          "[cuda][models]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const MaskKind kind : possible_masks()) {
    INFO(to_string(kind));
    Tensor logits[2];
    std::map<std::string, Tensor> gradient[2];
    for (const Device device : {Device::cpu, Device::cuda}) {
      const std::size_t run = device == Device::cuda;
      Ppma model = linear_model(linear_network(kind));
      to(model, device);
      Context ctx{true, Rng(1)};
      const Tensor y = model.forward(picture({2, 3, 36, 44}).to(device), ctx);
      sum(square(y)).backward();
      logits[run] = y.detach().to(Device::cpu);
      for (const Field& f : named_parameters(model))
        gradient[run][f.name] = f.tensor.grad().to(Device::cpu);
    }
    CHECK(distance(logits[1], logits[0]) < 1e-11);
    for (const auto& g : gradient[0]) {
      INFO(g.first);
      if (norm(g.second) > 1e-10) CHECK(distance(gradient[1][g.first], g.second) < 1e-9);
    }
  }
}

TEST_CASE("linear attention: ppma_nano_linear in bf16 on the GPU gives the CPU's in f64",
          "[cuda][models]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Tensor logits[2], gradients[2];
  for (const Device device : {Device::cpu, Device::cuda}) {
    const bool gpu = device == Device::cuda;
    Ppma model = linear_model(config_by_name("ppma_nano_linear"), gpu ? DType::f32 : DType::f64);
    to(model, device);
    Context ctx{true, Rng(1)};
    const Tensor images = as(picture({2, 3, 96, 80}), gpu ? DType::bf16 : DType::f64, device),
                 y = cast(model.forward(images, ctx), DType::f64);
    sum(square(y)).backward();
    logits[gpu] = y.detach().to(Device::cpu);
    std::vector<double> all;
    for (const Field& f : named_parameters(model))
      for (const double g : f.tensor.grad().to(Device::cpu).to_vector<double>()) all.push_back(g);
    gradients[gpu] = Tensor::from(all, {static_cast<i64>(all.size())});
  }
  CHECK(distance(logits[1], logits[0]) < 5e-2);
  CHECK(distance(gradients[1], gradients[0]) < 1e-1);
}
