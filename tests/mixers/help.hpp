#pragma once
// What the tests of mixers share: a mixer of the table with weights by formula, its tensors by
// name, tokens, and plain numbers to compute with.

#include <map>
#include <string>
#include <vector>

#include "models/help.hpp"
#include "ppma/mixers/all.hpp"
#include "ppma/nn/module.hpp"
#include "ppma/ops/arithmetic.hpp"

namespace mixers_test {

using namespace ppma;
using models_test::as;
using models_test::by_formula;
using models_test::formula_image;
using Numbers = std::vector<double>;

/// In f64. Weights are large enough that each matters.
inline Mixer mixer(const std::string& name, const MixerConfig& c, DType dtype = DType::f64) {
  Rng rng(1);
  Mixer m = mixer_of(name).make(c, rng);
  for (Field& f : named_parameters(m)) {
    const std::string leaf = models_test::last_part(f.name);
    models_test::Formula formula = models_test::formula_of(f.name, f.tensor.shape());
    if (leaf == "dt_bias") formula = {-0.5, 0, 0.5};
    if (leaf == "A_log") formula = {0.2, 0, 0.5};
    if (leaf == "D" || leaf == "fusion") formula = {0.4, 0, 0.5};
    // what is selected shall matter beside what is not
    if (leaf == "x_proj" || leaf == "dt_weight" || f.name.rfind("in_proj", 0) == 0)
      formula.from_v *= 3;
    if (f.name == "conv.conv.weight") formula.from_v *= 2;
    f.tensor.copy_from(by_formula(f.name, f.tensor.shape(), formula));
  }
  to(m, dtype);
  return m;
}

/// A mixer's tensors as numbers.
class Weights {
 public:
  explicit Weights(Mixer& m) {
    for_each_field(m, [&](const std::string& name, Tensor& t, Kind) {
      of_[name] = t.detach().to_vector<double>();
    });
  }
  const Numbers& operator[](const std::string& name) const {
    INFO(name);
    REQUIRE(of_.count(name) == 1);
    return of_.at(name);
  }

 private:
  std::map<std::string, Numbers> of_;
};

inline Tensor tokens(const Shape& shape, DType dtype = DType::f64) {
  return as(formula_image("tokens", shape), dtype);
}

/// x W^T + b of `n` rows; W (out,in), b may be empty.
inline Numbers times(const Numbers& x, std::size_t n, const Numbers& w, const Numbers& b = {}) {
  const std::size_t in = x.size() / n, out = w.size() / in;
  Numbers y(n * out, 0);
  for (std::size_t r = 0; r < n; ++r)
    for (std::size_t o = 0; o < out; ++o) {
      double sum = b.empty() ? 0 : b[o];
      for (std::size_t i = 0; i < in; ++i) sum += x[r * in + i] * w[o * in + i];
      y[r * out + o] = sum;
    }
  return y;
}
/// A linear layer of a mixer.
inline Numbers layer(const Weights& w, const std::string& name, const Numbers& x, std::size_t n) {
  return times(x, n, w[name + ".weight"], w[name + ".bias"]);
}
/// A depthwise k x k convolution of tokens (H,W,C), zeros around.
inline Numbers depthwise(const Weights& w, const std::string& name, const Numbers& x, int height,
                         int width, int k) {
  const Numbers &weight = w[name + ".conv.weight"], &bias = w[name + ".conv.bias"];
  const int channels = static_cast<int>(bias.size());
  Numbers y(x.size());
  for (int i = 0; i < height; ++i)
    for (int j = 0; j < width; ++j)
      for (int c = 0; c < channels; ++c) {
        double sum = bias[static_cast<std::size_t>(c)];
        for (int a = 0; a < k; ++a)
          for (int b = 0; b < k; ++b) {
            const int row = i + a - k / 2, column = j + b - k / 2;
            if (row < 0 || row >= height || column < 0 || column >= width) continue;
            sum += weight[static_cast<std::size_t>((c * k + a) * k + b)] *
                   x[static_cast<std::size_t>((row * width + column) * channels + c)];
          }
        y[static_cast<std::size_t>((i * width + j) * channels + c)] = sum;
      }
  return y;
}
inline double logistic(double x) { return 1 / (1 + std::exp(-x)); }
inline double swish(double x) { return x * logistic(x); }
inline double soft_plus(double x) { return std::log1p(std::exp(x)); }
inline double gauss_gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }
/// Parts first .. first + n of rows of `row` numbers.
inline Numbers part(const Numbers& x, std::size_t row, std::size_t first, std::size_t n) {
  Numbers y;
  for (std::size_t r = 0; r < x.size() / row; ++r)
    y.insert(y.end(), x.begin() + static_cast<std::ptrdiff_t>(r * row + first),
             x.begin() + static_cast<std::ptrdiff_t>(r * row + first + n));
  return y;
}
/// (x - mean) / sqrt(var + eps) of each row.
inline Numbers normed(Numbers x, std::size_t row, double eps) {
  for (std::size_t r = 0; r < x.size(); r += row) {
    double mean = 0, var = 0;
    for (std::size_t i = r; i < r + row; ++i) mean += x[i] / static_cast<double>(row);
    for (std::size_t i = r; i < r + row; ++i)
      var += (x[i] - mean) * (x[i] - mean) / static_cast<double>(row);
    for (std::size_t i = r; i < r + row; ++i) x[i] = (x[i] - mean) / std::sqrt(var + eps);
  }
  return x;
}

/// How far a mixer's result is from numbers.
inline double distance_from(const Tensor& got, const Numbers& want) {
  REQUIRE(static_cast<std::size_t>(got.numel()) == want.size());
  return distance(got, Tensor::from<double>(want, got.shape()));
}

}  // namespace mixers_test
