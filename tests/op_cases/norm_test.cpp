#include "ppma/ops/norm.hpp"

#include "op_cases/op_case.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/linear.hpp"

using namespace op_cases;

namespace {

// n values from low to high in even steps, in the dtype and on the device of `like`.
Tensor linspace(double low, double high, i64 n, const Tensor& like) {
  std::vector<double> v(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < v.size(); ++i)
    v[i] = low + (high - low) * static_cast<double>(i) / static_cast<double>(n - 1);
  Tensor t = Tensor::empty({n}, like.dtype(), like.device());
  t.copy_from(Tensor::from(v, {n}));
  return t;
}

enum class Read { output, running_mean, running_var };

Tensor batch_norm_of(In x, bool training, Read read = Read::output) {
  Tensor mean = linspace(-0.5, 0.5, x[1].dim(0), x[1]), var = linspace(0.5, 2, x[1].dim(0), x[1]);
  const Tensor y = batch_norm(x[0], x[1], x[2], mean, var, training, 0.25, 1e-3);
  return read == Read::output ? y : read == Read::running_mean ? mean : var;
}

// gelu(batch_norm), in one op or in two.
Tensor batch_norm_gelu_of(In x, bool training, bool fused = true) {
  Tensor mean = linspace(-0.5, 0.5, x[1].dim(0), x[1]), var = linspace(0.5, 2, x[1].dim(0), x[1]);
  return (fused ? batch_norm_gelu : batch_norm_gelu_composed)(x[0], x[1], x[2], mean, var, training,
                                                              0.25, 1e-3, nullptr);
}

Tensor batch_norm_relu_of(In x, bool training) {
  Tensor mean = linspace(-0.5, 0.5, x[1].dim(0), x[1]), var = linspace(0.5, 2, x[1].dim(0), x[1]);
  return batch_norm_relu(x[0], x[1], x[2], mean, var, training, 0.25, 1e-3);
}

// The same of x (6,3) in plain numbers.
std::vector<double> plain_batch_norm_relu(const Lists& in, bool training) {
  std::vector<double> y(18);
  for (std::size_t c = 0; c < 3; ++c) {
    double mean = 0, var = 0;
    for (std::size_t r = 0; r < 6; ++r) mean += in[0][3 * r + c] / 6;
    for (std::size_t r = 0; r < 6; ++r) var += std::pow(in[0][3 * r + c] - mean, 2) / 6;
    if (!training)
      mean = -0.5 + 0.5 * static_cast<double>(c), var = 0.5 + 0.75 * static_cast<double>(c);
    for (std::size_t r = 0; r < 6; ++r)
      y[3 * r + c] =
          std::max(0.0, (in[0][3 * r + c] - mean) / std::sqrt(var + 1e-3) * in[1][c] + in[2][c]);
  }
  return y;
}

// One input of several products and a norm, which add to its gradient one after the other.
Tensor several(In x) {
  const Tensor one = Tensor::ones({7}, x[1].dtype(), x[1].device()),
               zero = Tensor::zeros({7}, x[1].dtype(), x[1].device());
  return mul(add(linear(x[0], x[1]), linear(x[0], x[2], x[3])),
             linear(layer_norm(x[0], one, zero), x[1]));
}

void batch_norm_misuse(const Shape& x, const Shape& w, const Shape& running, bool training) {
  Tensor mean = zeros(running), var = zeros(running);
  batch_norm(zeros(x), zeros(w), zeros(w), mean, var, training);
}

}  // namespace

TEST_CASE("op table: norm") {
  check_table({
      {"layer_norm",
       [](In x) { return layer_norm(x[0], x[1], x[2], 1e-3); },
       "layer_norm: w (4) and b (4) must both be (3), the last axis of x (2, 3)",
       [] {
         layer_norm(zeros({2, 3}), zeros({4}), zeros({4}));
       },
       {1, 2}},
      {"layer_norm/narrow",
       [](In x) { return layer_norm(x[0], x[1], x[2], 1e-6); },
       "layer_norm: x must have elements, got (0, 3)",
       [] {
         layer_norm(zeros({0, 3}), zeros({3}), zeros({3}));
       },
       {1, 2}},
      {"batch_norm/train",
       [](In x) { return batch_norm_of(x, true); },
       "batch_norm: training needs more than one value per channel, x is (1, 3)",
       [] {
         batch_norm_misuse({1, 3}, {3}, {3}, true);
       },
       {1, 2}},
      {"batch_norm/evaluate",
       [](In x) { return batch_norm_of(x, false); },
       "batch_norm: running_mean (2) and running_var (2) must both be (3)",
       [] {
         batch_norm_misuse({2, 3}, {3}, {2}, false);
       },
       {1, 2}},
      {"batch_norm_gelu",
       [](In x) { return batch_norm_gelu_of(x, true); },
       "batch_norm_gelu: training needs more than one value per channel, x is (1, 3)",
       [] {
         Tensor mean = zeros({3}), var = zeros({3});
         batch_norm_gelu(zeros({1, 3}), zeros({3}), zeros({3}), mean, var, true);
       },
       {1, 2}},
      {"batch_norm_gelu/evaluate",
       [](In x) { return batch_norm_gelu_of(x, false); },
       "",
       {},
       {1, 2}},
      {"batch_norm_gelu_composed",
       [](In x) { return batch_norm_gelu_of(x, true, false); },
       "batch_norm: w (4) and b (4) must both be (3)",
       [] {
         Tensor mean = zeros({3}), var = zeros({3});
         batch_norm_gelu_composed(zeros({2, 3}), zeros({4}), zeros({4}), mean, var, true);
       },
       {1, 2}},
      {"batch_norm_relu",
       [](In x) { return batch_norm_relu_of(x, true); },
       "batch_norm_relu: training needs more than one value per channel, x is (1, 3)",
       [] {
         Tensor mean = zeros({3}), var = zeros({3});
         batch_norm_relu(zeros({1, 3}), zeros({3}), zeros({3}), mean, var, true);
       },
       {1, 2},
       Plain{{{{6, 3}}, {{3}}, {{3}}},
             {6, 3},
             [](const Lists& in) { return plain_batch_norm_relu(in, true); }}},
      {"batch_norm_relu/evaluate",
       [](In x) { return batch_norm_relu_of(x, false); },
       "",
       {},
       {1, 2},
       Plain{{{{6, 3}}, {{3}}, {{3}}},
             {6, 3},
             [](const Lists& in) { return plain_batch_norm_relu(in, false); }}},
      {"linear/several of one input",
       several,
       "linear: w must be (out, in), got (3)",
       [] {
         linear(zeros({2, 3}), zeros({3}));
       },
       {1, 2, 3}},
      {"batch_norm/running mean",
       [](In x) { return batch_norm_of(x, true, Read::running_mean); },
       "batch_norm: w (2) and b (2) must both be (3)",
       [] {
         batch_norm_misuse({2, 3}, {2}, {3}, false);
       },
       {1, 2}},
      {"batch_norm/running var",
       [](In x) { return batch_norm_of(x, true, Read::running_var); },
       "",
       {},
       {1, 2}},
  });
}
