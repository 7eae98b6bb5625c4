// Optimisers, clipping, schedule and EMA against PyTorch's float64 results
// (reference/make_optim.py), by hand where it is short; and that no result depends on the number of
// threads.

#include <cmath>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/ema.hpp"
#include "ppma/optim/schedule.hpp"
#include "ppma/optim/sgd.hpp"
#include "thread_counts.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

const TensorMap& reference() {
  static const TensorMap tensors =
      read_safetensors(io_test::reference("optim.safetensors")).tensors;
  return tensors;
}

Tensor expected(const std::string& name) {
  const Tensor* t = find(reference(), name);
  check(t != nullptr, "no reference ", name);
  return *t;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  const auto x = a.to_vector<double>(), y = b.to_vector<double>();
  REQUIRE(x.size() == y.size());
  double d = 0;
  for (std::size_t i = 0; i < x.size(); ++i)
    d = std::max(d, std::isfinite(x[i]) ? std::fabs(x[i] - y[i]) : 1e300);
  return d;
}

// The two parameters of make_optim.py and their gradient in step t.
struct Problem {
  Tensor matrix, vector;

  Problem(const std::string& name, DType dtype) {
    matrix = Tensor::empty({5, 7}, dtype), vector = Tensor::empty({37}, dtype);
    matrix.copy_from(expected(name + ".matrix.0"));
    vector.copy_from(expected(name + ".vector.0"));
    matrix.requires_grad(true), vector.requires_grad(true);
  }
  std::vector<Parameter> parameters() const {
    return parameters_with_rules({{"fc.weight", matrix}, {"fc.bias", vector}},
                                 no_decay_rules(0.05));
  }
  void set_gradients(int t, double factor = 1) {
    std::vector<double> w, b;
    for (int i = 0; i < 35; ++i)
      w.push_back(factor * std::sin(i * 0.7 + t) * std::pow(10.0, t - 4));
    for (int i = 0; i < 37; ++i) b.push_back(factor * std::cos(i * 0.3 - t));
    Tensor dw = Tensor::empty({5, 7}, matrix.dtype()), db = Tensor::empty({37}, vector.dtype());
    dw.copy_from(Tensor::from(w, {5, 7})), db.copy_from(Tensor::from(b, {37}));
    matrix.set_grad(dw);
    vector.set_grad(t == 3 ? Tensor() : db);
  }
};

template <class Optimizer>
void follows_pytorch(const std::string& name, const Problem& start, Optimizer optimizer,
                     double tolerance) {
  Problem p = start;
  for (int t = 1; t <= 6; ++t) {
    p.set_gradients(t, 4);
    optimizer.step(0.01 * t, 0.25);
    INFO(name << " step " << t);
    CHECK(largest_difference(p.matrix, expected(str(name, ".matrix.", t))) < tolerance);
    CHECK(largest_difference(p.vector, expected(str(name, ".vector.", t))) < tolerance);
    CHECK(largest_difference(p.matrix, expected(str(name, ".matrix.", t - 1))) > 1e-5);
  }
  optimizer.zero_grad();
  CHECK(!p.matrix.grad().defined());
}

void set_ramp(Tensor& t, double factor) {
  std::vector<double> values;
  for (i64 i = 0; i < t.numel(); ++i) values.push_back(std::sin(factor * static_cast<double>(i)));
  t.copy_from(Tensor::from(values, t.shape()));
}

}  // namespace

TEST_CASE("AdamW and SGD follow PyTorch", "[optim]") {
  // A step in f32 rounds about ten times relative to values below 4; six steps.
  for (const DType dtype : {DType::f64, DType::f32}) {
    const double tolerance = dtype == DType::f64 ? 1e-13 : 6 * 10 * 4 * 6e-8;
    {
      Problem p("adamw", dtype);
      follows_pytorch("adamw", p, AdamW(p.parameters()), tolerance);
    }
    // The matrix' gradient reaches 100, the steps 6: magnitudes of 30 instead of 4.
    {
      Problem p("sgd", dtype);
      follows_pytorch("sgd", p, Sgd(p.parameters()), 8 * tolerance);
    }
    {
      Problem p("momentum", dtype);
      follows_pytorch("momentum", p, Sgd(p.parameters(), {0.9}), 8 * tolerance);
    }
    {
      Problem p("nesterov", dtype);
      follows_pytorch("nesterov", p, Sgd(p.parameters(), {0.9, true}), 8 * tolerance);
    }
  }
}

TEST_CASE("an optimiser's saved state continues bit for bit", "[optim]") {
  Problem straight("adamw", DType::f32), resumed("adamw", DType::f32);
  AdamW a(straight.parameters()), before(resumed.parameters());
  for (int t = 1; t <= 3; ++t)
    straight.set_gradients(t), a.step(0.01), resumed.set_gradients(t), before.step(0.01);
  TensorMap saved;
  for (const auto& entry : before.state()) saved.emplace_back(entry.first, entry.second.clone());
  AdamW after(resumed.parameters());
  after.load_state(saved);
  for (int t = 4; t <= 6; ++t)
    straight.set_gradients(t), a.step(0.01), resumed.set_gradients(t), after.step(0.01);
  CHECK(straight.matrix.to_vector<float>() == resumed.matrix.to_vector<float>());
  CHECK(straight.vector.to_vector<float>() == resumed.vector.to_vector<float>());

  saved.pop_back();
  CHECK(says([&] { after.load_state(saved); }, "no step.fc.bias"));
}

TEST_CASE("parameter rules: the first that fits decides", "[optim]") {
  CHECK(matches("*.bias", "layers.0.bias"));
  CHECK(!matches("*.bias", "layers.0.bias2"));
  CHECK(matches("layers.?.*.weight", "layers.3.blocks.1.weight"));
  CHECK(!matches("layers.?.*.weight", "layers.12.weight"));
  CHECK(matches("**", ""));
  CHECK(!matches("a", ""));
  Tensor weight = Tensor::zeros({2, 2}).requires_grad(true),
         norm = Tensor::zeros({2}).requires_grad(true),
         gamma = Tensor::zeros({1, 1, 1, 2}).requires_grad(true),
         odd = Tensor::zeros({2, 1}).requires_grad(true);
  const auto p = parameters_with_rules(
      {{"fc.weight", weight}, {"norm.weight", norm}, {"gamma_1", gamma}, {"odd.bias", odd}},
      no_decay_rules(0.05));
  CHECK(p[0].weight_decay == 0.05);
  CHECK(p[1].weight_decay == 0);
  CHECK(p[2].weight_decay == 0.05);
  CHECK(p[3].weight_decay == 0);
  CHECK(says([&] { parameters_with_rules({{"w", weight}}, {{"*.bias", 8, 0}}); }, "no rule fits"));
  CHECK(says(
      [&] {
        parameters_with_rules({{"w", weight}, {"w", norm}}, no_decay_rules(0));
      },
      "two parameters"));
  CHECK(says(
      [&] {
        parameters_with_rules({{"w", Tensor::zeros({2})}}, no_decay_rules(0));
      },
      "does not require a gradient"));
}

TEST_CASE("gradient norm and clipping", "[optim]") {
  for (const DType dtype : {DType::f64, DType::f32}) {
    Tensor a = Tensor::zeros({200, 200}, dtype).requires_grad(true),
           b = Tensor::zeros({33}, dtype).requires_grad(true),
           without = Tensor::zeros({5}, dtype).requires_grad(true);
    Tensor da = Tensor::empty({200, 200}, dtype), db = Tensor::empty({33}, dtype);
    set_ramp(da, 1);
    std::vector<double> values;
    for (int i = 0; i < 33; ++i) values.push_back(std::cos(i * 2.0));
    db.copy_from(Tensor::from(values, {33}));
    a.set_grad(da), b.set_grad(db);
    const auto p =
        parameters_with_rules({{"without", without}, {"a", a}, {"b", b}}, no_decay_rules(0));
    const double norm = gradient_norm(p), want = expected("clip.norm").item();
    CHECK(std::fabs(norm / want - 1) < (dtype == DType::f64 ? 1e-14 : 1e-6));
    const double factor = clip_factor(norm, 2);
    CHECK(factor * db.to_vector<double>()[7] ==
          Approx(expected("clip.vector").to_vector<double>()[7]).epsilon(1e-6));
    CHECK(clip_factor(norm, 1e6) == 1);
    CHECK(clip_factor(norm, 0) == 1);
  }
  CHECK(says([&] { clip_factor(1, -1); }, "positive"));
}

TEST_CASE("an update by a norm: clipped, not clipped, or none where it is not finite", "[optim]") {
  const auto moved = [](auto optimizer, const Tensor& norm, double limit) {
    Tensor w = optimizer.parameters()[0].tensor;
    w.copy_from(Tensor::ones({3}, DType::f64));
    w.set_grad(Tensor::full({3}, 2, DType::f64));
    const double before = optimizer.state().back().second.template to_vector<double>()[0];
    optimizer.set_rate(0.1);
    optimizer.update(norm, limit);
    const double counted = optimizer.state().back().second.template to_vector<double>()[0] - before;
    return std::pair(1 - w.to_vector<double>()[1], counted);
  };
  const auto norm = [](double n) { return Tensor::scalar(n, DType::f64); };
  const auto parameters = [] {
    return parameters_with_rules({{"w", Tensor::zeros({3}, DType::f64).requires_grad(true)}},
                                 no_decay_rules(0));
  };
  constexpr double inf = std::numeric_limits<double>::infinity();
  CHECK(moved(Sgd(parameters()), norm(8), 4).first == Approx(0.1).epsilon(1e-6));
  CHECK(moved(Sgd(parameters()), norm(8), 0).first == Approx(0.2));
  CHECK(moved(Sgd(parameters(), {0.9}), norm(inf), 0) == std::pair(0.0, 0.0));
  CHECK(moved(AdamW(parameters()), norm(8), 0).first == Approx(0.1).epsilon(1e-6));
  CHECK(moved(AdamW(parameters()), norm(8), 0).second == 1);
  CHECK(moved(AdamW(parameters()), norm(inf - inf), 4) == std::pair(0.0, 0.0));
  CHECK(says([&] { moved(AdamW(parameters()), norm(1), -1); }, "the limit of a norm is -1"));
}

TEST_CASE("the published learning rates", "[optim]") {
  const WarmupCosine schedule;
  const auto rates = expected("rates").to_vector<double>();
  REQUIRE(rates.size() == 300);
  for (i64 e = 0; e < 300; ++e)
    CHECK(std::fabs(schedule.published_epoch(e) - rates[static_cast<std::size_t>(e)]) < 1e-12);
  // Epochs 0 and 1 both at the start; the first epoch behind the warm-up is t = 5 of the cosine.
  CHECK(schedule.published_epoch(0) == 1e-6);
  CHECK(schedule.published_epoch(1) == 1e-6);
  CHECK(schedule.published_epoch(6) == Approx(9.9932163e-4).epsilon(1e-6));
  // With fractions of epochs: continuous within the warm-up, down to the final rate and no further.
  CHECK(schedule.at(2.5) == Approx((1e-6 + 1e-3) / 2).epsilon(1e-12));
  CHECK(schedule.at(300) == Approx(1e-5).epsilon(1e-12));
  CHECK(schedule.at(1000) == 1e-5);
}

TEST_CASE("EMA averages parameters and buffers, and counters as integers", "[optim]") {
  Tensor w = Tensor::from<float>({1, 2, 3}, {3}), count = Tensor::from<i64>({0}, {1});
  Ema ema({{"w", w}, {"num_batches_tracked", count}}, 0.75);
  w.copy_from(Tensor::from<float>({5, 6, 7}, {3}));
  count.copy_from(Tensor::from<i64>({6}, {1}));
  ema.update();  // 0.75 * 1 + 0.25 * 5, and trunc(0.25 * 6)
  CHECK(ema.average()[0].second.to_vector<float>() == std::vector<float>{2, 3, 4});
  CHECK(ema.average()[1].second.item() == 1);
  {
    const Ema::InUse averaged(ema);
    CHECK(w.to_vector<float>() == std::vector<float>{2, 3, 4});
  }
  CHECK(w.to_vector<float>() == std::vector<float>{5, 6, 7});
  CHECK(count.item() == 6);

  // The published decay for batches of 1024, over 10,000 steps at a constant weight 1 from 0: 1 -
  // d^n.
  const double decay = std::pow(0.99996, 1024.0 / 512.0);
  CHECK(decay == Approx(0.9999200016).epsilon(1e-12));
  Tensor one = Tensor::zeros({1}, DType::f64);
  Ema slow({{"one", one}}, decay);
  one.copy_from(Tensor::ones({1}, DType::f64));
  for (int i = 0; i < 10000; ++i) slow.update();
  CHECK(slow.average()[0].second.item() == Approx(1 - std::pow(decay, 10000)).epsilon(1e-10));

  Ema warm({{"w", w}}, 0.999, true);
  CHECK(warm.next_decay() == 0.1);
  warm.load({{"w", Tensor::from<float>({0, 0, 0}, {3})}}, 90);
  CHECK(warm.next_decay() == 0.91);
  CHECK(says([&] { warm.load({}, 0); }, "has no w"));
}

TEST_CASE("updates do not depend on the number of threads", "[optim]") {
  const int before = threads();
  std::vector<std::vector<float>> results;
  for (const int n : thread_counts({1, 2, 3})) {
    set_threads(n);
    Tensor w = Tensor::empty({300, 401}).requires_grad(true),
           b = Tensor::empty({17}).requires_grad(true);
    set_ramp(w, 0.3), set_ramp(b, 0.1);
    AdamW optimizer(parameters_with_rules({{"b", b}, {"w", w}}, no_decay_rules(0.1)));
    Ema ema({{"w", w}}, 0.9);
    for (int t = 0; t < 3; ++t) {
      Tensor dw = Tensor::empty({300, 401}), db = Tensor::empty({17});
      set_ramp(dw, 1.1 + t), set_ramp(db, 0.2);
      w.set_grad(dw), b.set_grad(db);
      optimizer.step(0.1, clip_factor(gradient_norm(optimizer.parameters()), 1));
      ema.update();
    }
    results.push_back(ema.average()[0].second.to_vector<float>());
  }
  set_threads(before);
  for (const auto& result : results) CHECK(result == results[0]);
}
