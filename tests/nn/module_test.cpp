// Modules: names from one list, loading with a report, dtypes, watching a forward pass; the layers'
// initial values.

#include <cmath>

#include "catch.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/nn/layers.hpp"
#include "ppma/nn/state_dict.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

struct Branch {
  Linear fc;
  BatchNorm norm;
  Tensor absent;  // undefined: no field

  explicit Branch(Rng& rng) : fc(2, 3, rng), norm(3) {}
  Tensor forward(const Tensor& x, const Context& ctx) { return norm.forward(fc.forward(x), ctx); }
  template <class V>
  void fields(V& v) {
    v.child("fc", fc), v.child("norm", norm), v.parameter("absent", absent);
  }
};

struct Net {
  std::vector<Branch> branches;
  std::optional<Linear> extra;
  Linear head;

  explicit Net(Rng rng = Rng(1), bool with_extra = false, i64 classes = 4) : head(3, classes, rng) {
    for (int i = 0; i < 2; ++i) branches.emplace_back(rng);
    if (with_extra) extra.emplace(3, 3, rng, false);
  }
  template <class V>
  void fields(V& v) {
    v.children("branches", branches), v.child("extra", extra), v.child("head", head);
  }
};

std::vector<std::string> names(const std::vector<Field>& fields) {
  std::vector<std::string> n;
  for (const Field& f : fields) n.push_back(f.name);
  return n;
}

std::vector<std::vector<float>> values(Net& net) {
  std::vector<std::vector<float>> v;
  for (const Field& f : state_dict(net)) v.push_back(f.tensor.to_vector<float>());
  return v;
}

}  // namespace

TEST_CASE("a module's tensors have the names of its fields, in order", "[nn]") {
  Net net(Rng(1), true);
  CHECK(names(state_dict(net)) ==
        std::vector<std::string>{
            "branches.0.fc.weight", "branches.0.fc.bias", "branches.0.norm.weight",
            "branches.0.norm.bias", "branches.0.norm.running_mean", "branches.0.norm.running_var",
            "branches.0.norm.num_batches_tracked", "branches.1.fc.weight", "branches.1.fc.bias",
            "branches.1.norm.weight", "branches.1.norm.bias", "branches.1.norm.running_mean",
            "branches.1.norm.running_var", "branches.1.norm.num_batches_tracked", "extra.weight",
            "head.weight", "head.bias"});
  CHECK(named_parameters(net).size() == 11);
  CHECK(parameter_count(net) == 2 * (6 + 3 + 3 + 3) + 9 + 12 + 4);
  Net without;
  CHECK(state_dict(without).size() == 16);
  for (const Field& f : state_dict(net))
    CHECK(f.tensor.requires_grad() == (f.kind == Kind::parameter));
  state_dict(net)[0].tensor.data<float>()[0] = 7;  // shared, not copied
  CHECK(net.branches[0].fc.weight.data<float>()[0] == 7);
}

TEST_CASE("loading copies by name, whatever the order and dtype", "[nn]") {
  Net from(Rng(1)), into(Rng(2));
  to(from, DType::f64);
  auto tensors = as_tensors(state_dict(from));
  std::reverse(tensors.begin(), tensors.end());
  const LoadReport report = load_state_dict(into, tensors);
  CHECK(report.complete());
  CHECK(report.loaded == 16);
  CHECK(report.text() == "16 tensors loaded");
  to(from, DType::f32);
  CHECK(values(into) == values(from));
}

TEST_CASE("a strict load names everything that does not fit and loads nothing", "[nn]") {
  Net net(Rng(1));
  const auto before = values(net);
  Net other(Rng(2), true, 5);  // an extra layer, another head
  auto tensors = as_tensors(state_dict(other));
  tensors.erase(tensors.begin());
  const std::string message = thrown([&] { load_state_dict(net, tensors); });
  INFO(message);
  for (const char* piece : {"nothing was loaded", "1 missing in the file: branches.0.fc.weight",
                            "1 not in the module: extra.weight",
                            "2 of another shape: head.weight: file (5, 3), module (4, 3), "
                            "head.bias: file (5), module (4)"})
    CHECK(message.find(piece) != std::string::npos);
  CHECK(values(net) == before);
}

TEST_CASE("a loose load takes what fits and says the rest", "[nn]") {
  Net net(Rng(1)), other(Rng(2), true, 5);
  const auto before = values(net);
  LoadOptions loose;
  loose.strict = false;
  const LoadReport report = load_state_dict(net, as_tensors(state_dict(other)), loose);
  CHECK_FALSE(report.complete());
  CHECK(report.loaded == 14);
  CHECK(report.missing.empty());
  CHECK(report.unexpected == std::vector<std::string>{"extra.weight"});
  CHECK(report.misshaped.size() == 2);
  CHECK(values(net)[0] == values(other)[0]);
  CHECK(values(net)[14] == before[14]);  // the head stays
}

TEST_CASE("buffers that PyTorch does not insist on may be missing, or stand there in vain",
          "[nn]") {
  Net from(Rng(1)), into(Rng(2));
  auto tensors = as_tensors(state_dict(from));
  std::erase_if(tensors,
                [](const auto& t) { return t.first.ends_with("0.norm.num_batches_tracked"); });
  for (auto& t : tensors)  // a scalar as PyTorch wrote it before 0.4
    if (t.first.ends_with("1.norm.num_batches_tracked")) t.second = Tensor::from<i64>({7}, {1});
  tensors.emplace_back("branches.0.attn.relative_position_index", Tensor::from<i64>({1, 2}, {2}));
  const LoadReport report = load_state_dict(into, tensors);
  CHECK(report.complete());
  CHECK(report.passed_by == std::vector<std::string>{"branches.0.norm.num_batches_tracked",
                                                     "branches.0.attn.relative_position_index"});
  CHECK(into.branches[1].norm.num_batches_tracked.item() == 7);
  // Batch statistics themselves it does insist on.
  std::erase_if(tensors, [](const auto& t) { return t.first.ends_with("0.norm.running_mean"); });
  CHECK(says([&] { load_state_dict(into, tensors); },
             "1 missing in the file: branches.0.norm.running_mean"));
}

TEST_CASE("weights that are not finite are named and not loaded", "[nn]") {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    for (const double bad : {std::nan(""), double{INFINITY}, -double{INFINITY}}) {
      Net from(Rng(1)), into(Rng(2));
      to(from, dtype);
      const auto before = values(into);
      from.head.bias = Tensor::full({4}, 1, dtype);
      CHECK(load_state_dict(into, as_tensors(state_dict(from))).complete());
      from.head.bias = Tensor::full({4}, bad, dtype);
      Net again(Rng(2));
      CHECK(says([&] { load_state_dict(again, as_tensors(state_dict(from))); },
                 "1 with values that are not finite: head.bias (4 of 4)"));
      CHECK(values(again) == before);
    }
}

TEST_CASE("a changed head is ignored by its prefix, the rest stays strict", "[nn]") {
  Net net(Rng(1)), other(Rng(2), false, 5);
  const auto before = values(net);
  LoadOptions changed;
  changed.ignore = {"head."};
  CHECK(load_state_dict(net, as_tensors(state_dict(other)), changed).loaded == 14);
  CHECK(values(net)[7] == values(other)[7]);
  CHECK(values(net)[14] == before[14]);
  Net more(Rng(2), true);
  CHECK(says([&] { load_state_dict(net, as_tensors(state_dict(more)), changed); },
             "not in the module: extra.weight"));
}

TEST_CASE("dtypes change for floating tensors only, marks stay", "[nn]") {
  Net net;
  to(net, DType::f64);
  for (const Field& f : state_dict(net)) {
    CHECK(f.tensor.dtype() ==
          (f.name.find("num_batches") == std::string::npos ? DType::f64 : DType::int64));
    CHECK(f.tensor.requires_grad() == (f.kind == Kind::parameter));
  }
}

TEST_CASE("a part of a module can be frozen", "[nn]") {
  Net net;
  set_trainable(net.branches[0], false);
  for (const Field& f : named_parameters(net))
    CHECK(f.tensor.requires_grad() == (f.name.rfind("branches.0.", 0) != 0));
  set_trainable(net, true);
  for (const Field& f : named_parameters(net)) CHECK(f.tensor.requires_grad());
}

TEST_CASE("batch norm learns its statistics in training only", "[nn]") {
  BatchNorm norm(2);
  const Tensor x = Tensor::from<float>({1, 10, 3, 10, 5, 40}, {3, 2});
  Context training{true, Rng()};
  const std::vector<float> y = norm.forward(x, training).to_vector<float>();
  CHECK(y[0] == Approx(-std::sqrt(1.5)).epsilon(1e-5));  // (1 - 3) / sqrt(8/3)
  CHECK(norm.running_mean.to_vector<float>()[0] == Approx(0.1 * 3));
  CHECK(norm.running_var.to_vector<float>()[0] == Approx(0.9 + 0.1 * 4));  // unbiased: 8 / 2
  CHECK(norm.num_batches_tracked.item() == 1);
  const std::vector<float> mean = norm.running_mean.to_vector<float>();
  const std::vector<float> z = norm.forward(x, Context{}).to_vector<float>();
  CHECK(z[0] == Approx((1 - 0.3) / std::sqrt(1.3 + 1e-5)).epsilon(1e-6));
  CHECK(norm.running_mean.to_vector<float>() == mean);
  CHECK(norm.num_batches_tracked.item() == 1);
}

TEST_CASE("an observer sees outputs under their module's path", "[nn]") {
  std::vector<std::string> paths;
  Context ctx;
  ctx.observe = [&](const std::string& path, const Tensor&) { paths.push_back(path); };
  {
    const Scope outer("layers.0");
    const Scope inner("ffn");
    const Tensor x = Tensor::ones({1});
    CHECK(ctx.seen(x).item() == 1);
  }
  CHECK(paths == std::vector<std::string>{"layers.0.ffn"});
}

TEST_CASE("initial weights: normal for linear layers, uniform by fan-in for convolutions", "[nn]") {
  Rng rng(3);
  const Linear l(400, 500, rng);
  double sum = 0, square = 0, fourth = 0;
  for (const double w : l.weight.to_vector<double>())
    sum += w, square += w * w, fourth += w * w * w * w;
  const double n = 200000, deviation = std::sqrt(square / n);
  CHECK(std::abs(sum / n) < 5 * 0.02 / std::sqrt(n));
  CHECK(deviation == Approx(0.02).epsilon(5 / std::sqrt(2 * n)));
  // a normal's kurtosis
  CHECK(fourth / n / std::pow(deviation, 4) == Approx(3).epsilon(5 * std::sqrt(24 / n) / 3));
  CHECK(l.bias.to_vector<float>() == std::vector<float>(500, 0));
  const Conv2d c(16, 32, 3, {1, 1, 1}, rng);
  const double bound = 1 / std::sqrt(16 * 9.0);
  double largest = 0;
  square = 0;
  for (const double w : c.weight.to_vector<double>())
    largest = std::max(largest, std::abs(w)), square += w * w;
  CHECK(largest <= bound);
  CHECK(largest > 0.99 * bound);
  CHECK(square / 4608 == Approx(bound * bound / 3).epsilon(0.06));
  for (const double b : c.bias.to_vector<double>()) CHECK(std::abs(b) <= bound);
  const DepthwiseConv2d d(64, 5, rng);
  for (const double w : d.weight.to_vector<double>()) CHECK(std::abs(w) <= 0.2);
}

TEST_CASE("normal draws stay within their limit, for any number of threads, without repeating",
          "[nn]") {
  Rng a(5), b(5);
  const int before = threads();
  set_threads(1);
  const std::vector<float> one = truncated_normal({33331}, a, 1, 1.5).to_vector<float>();
  set_threads(4);
  const std::vector<float> four = truncated_normal({33331}, b, 1, 1.5).to_vector<float>();
  set_threads(before);
  CHECK(one == four);
  CHECK(a.position() == b.position());
  double square = 0, largest = 0;
  for (const float x : one) square += x * x, largest = std::max(largest, std::abs(double{x}));
  CHECK(largest <= 1.5);
  // of a normal cut off at 1.5: 1 - 2 * 1.5 phi(1.5) / 0.8664
  CHECK(square / 33331 == Approx(0.5515).epsilon(0.02));
  CHECK(truncated_normal({33331}, a, 1, 1.5).to_vector<float>() != one);
  CHECK(says([&] { truncated_normal({3}, a, 2, 1); },
             "the limit 1 must be at least the deviation 2"));
}

TEST_CASE("layers whose weights are loaded next need no draws", "[nn]") {
  Rng rng(1);
  {
    const SkipInit skip;
    const Linear l(3, 4, rng);
    CHECK(l.weight.to_vector<float>() == std::vector<float>(12, 0));
    CHECK(l.weight.requires_grad());
    CHECK(Conv2d(3, 4, 3, {1, 1, 1}, rng).bias.to_vector<float>() == std::vector<float>(4, 0));
  }
  CHECK(Linear(3, 4, rng).weight.to_vector<float>() != std::vector<float>(12, 0));
}
