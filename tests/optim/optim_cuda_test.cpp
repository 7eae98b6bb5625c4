// Optimisers on the GPU against the CPU: hundreds of tensors of odd sizes in a few launches,
// missing gradients, clipping by a norm that is never read back, and a captured update that is
// replayed with other rates.

#if PPMA_TEST_GPU

#include <limits>

#include "catch.hpp"
#include "cuda_compare.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/ema.hpp"
#include "ppma/optim/sgd.hpp"
#include "ppma/train/replay.hpp"

using namespace ppma;

namespace {

// The same tensors on both devices.
struct Twins {
  std::vector<Tensor> here, there;
  explicit Twins(DType dtype) {
    Rng rng(3);
    for (i64 i = 0; i < 150; ++i) {
      const i64 n = i == 7 ? 100003 : i == 8 ? 8192 : i == 9 ? 16385 : i * i % 97 + 1;
      const Tensor t = Tensor::randn(i % 3 == 0 ? Shape{n} : Shape{n, 1}, rng, 1, dtype);
      here.push_back(t.clone()), there.push_back(t.to(Device::cuda));
      here.back().requires_grad(true), there.back().requires_grad(true);
    }
  }
  static std::vector<Parameter> of(const std::vector<Tensor>& tensors) {
    TensorMap named;
    for (std::size_t i = 0; i < tensors.size(); ++i)
      named.emplace_back("t" + std::to_string(i), tensors[i]);
    auto parameters = parameters_with_rules(named, no_decay_rules(0.05));
    parameters[5].rate_factor = 10;
    return parameters;
  }
  void gradients(int step) {
    Rng rng(static_cast<u64>(100 + step));
    for (std::size_t i = 0; i < here.size(); ++i) {
      const Tensor g = Tensor::randn(here[i].shape(), rng, 1, here[i].dtype());
      const bool missing = i == 11 && step % 2 == 1;
      here[i].set_grad(missing ? Tensor() : g);
      if (missing || !there[i].grad().defined())
        there[i].set_grad(missing ? Tensor() : g.to(Device::cuda));
      else
        there[i].grad().copy_from(g);
    }
  }
  Distance apart() const {
    Distance most;
    for (std::size_t i = 0; i < here.size() && !std::isnan(most); ++i)
      if (const Distance d = distance(there[i], here[i]); !(d <= most)) most = d;
    return most;
  }
};

template <class Make>
void follows(Make make, DType dtype, double tolerance) {
  Twins t(dtype);
  auto a = make(Twins::of(t.here));
  auto b = make(Twins::of(t.there));
  for (int step = 1; step <= 5; ++step) {
    INFO("step " << step);
    t.gradients(step);
    a.step(0.01 * step, 0.5), b.step(0.01 * step, 0.5);
    CHECK(t.apart() < tolerance);
  }
  // Clipped by the norm, on each device where it lies.
  t.gradients(6);
  const double norm = gradient_norm(a.parameters());
  CHECK(gradient_norm(b.parameters()) == Approx(norm).epsilon(1e-6));
  CHECK(gradient_norm_on_device(b.parameters()).item() ==
        gradient_norm_on_device(b.parameters()).item());
  a.step(0.01, 0.5 * clip_factor(0.5 * norm, 2));
  b.set_rate(0.01, 0.5);
  b.update(gradient_norm_on_device(b.parameters()), 2);
  CHECK(t.apart() < tolerance);
  // Without a limit the norm only tells whether to take the step at all.
  a.step(0.01), b.set_rate(0.01), b.update(gradient_norm_on_device(b.parameters()));
  CHECK(t.apart() < tolerance);
  b.update(Tensor::scalar(std::numeric_limits<double>::quiet_NaN(), DType::f64).to(Device::cuda));
  CHECK(t.apart() < tolerance);
  for (const auto& [name, kept] : b.state())
    if (name.starts_with("step."))
      for (const auto& [other, same] : a.state())
        if (other == name) CHECK(kept.item() == same.item());
  // Saved and loaded, the update goes on with the same bits.
  TensorMap saved;
  for (const auto& entry : b.state())
    saved.emplace_back(entry.first, entry.second.to(Device::cpu).clone());
  auto c = make(Twins::of(t.there));
  c.load_state(saved);
  std::vector<Tensor> before, after;
  for (const Tensor& x : t.there) before.push_back(x.clone());
  b.step(0.01);
  for (Tensor& x : t.there) after.push_back(x.clone());
  for (std::size_t i = 0; i < before.size(); ++i) t.there[i].copy_from(before[i]);
  c.step(0.01);
  for (std::size_t i = 0; i < before.size(); ++i)
    CHECK(t.there[i].to_vector<double>() == after[i].to_vector<double>());
}

}  // namespace

TEST_CASE("optimisers on the GPU follow the CPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const DType dtype : {DType::f64, DType::f32}) {
    const double tolerance = dtype == DType::f64 ? 1e-13 : 5e-6;
    follows([](std::vector<Parameter> p) { return AdamW(std::move(p)); }, dtype, tolerance);
    follows([](std::vector<Parameter> p) { return Sgd(std::move(p)); }, dtype, tolerance);
    follows([](std::vector<Parameter> p) { return Sgd(std::move(p), {0.9}); }, dtype, tolerance);
    follows(
        [](std::vector<Parameter> p) {
          return Sgd(std::move(p), {0.9, true});
        },
        dtype, tolerance);
  }
}

TEST_CASE("averages on the GPU follow the CPU", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Twins t(DType::f32);
  TensorMap here, there;
  for (std::size_t i = 0; i < t.here.size(); ++i)
    here.emplace_back(std::to_string(i), t.here[i].detach()),
        there.emplace_back(std::to_string(i), t.there[i].detach());
  here.emplace_back("count", Tensor::scalar(3, DType::int64)),
      there.emplace_back("count", Tensor::scalar(3, DType::int64));
  Ema a(here, 0.9, true), b(there, 0.9, true);
  for (int step = 0; step < 4; ++step) {
    for (std::size_t i = 0; i < t.here.size(); ++i) {
      Rng rng(static_cast<u64>(step));
      const Tensor x = Tensor::randn(t.here[i].shape(), rng);
      t.here[i].copy_from(x), t.there[i].copy_from(x);
    }
    a.update(), b.update();
  }
  for (std::size_t i = 0; i < here.size(); ++i)
    CHECK(distance(b.average()[i].second, a.average()[i].second) < 1e-6);
  {
    const Ema::InUse in_use(b);
    CHECK(distance(t.there[5], a.average()[5].second) < 1e-6);
  }
  CHECK(distance(t.there[5], t.here[5]) == 0);
}

TEST_CASE("a captured update is replayed with other rates", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Twins t(DType::f32);
  AdamW a(Twins::of(t.here)), b(Twins::of(t.there));
  t.gradients(2);  // none is missing: what is captured stays
  Replay update([&] { b.update(gradient_norm_on_device(b.parameters()), 1); }, Device::cuda);
  for (int step = 1; step <= 6; ++step) {
    const double rate = 0.01 * step;
    t.gradients(2 * step);
    a.step(rate, clip_factor(gradient_norm(a.parameters()), 1));
    b.set_rate(rate);
    update();
    INFO("step " << step << " " << update.reason());
    CHECK(t.apart() < 5e-6);
  }
  CHECK(update.captured());
  for (const auto& entry : b.state())
    if (entry.first == "step.t4") CHECK(entry.second.item() == 6);
}

#endif
