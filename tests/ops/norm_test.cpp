// Normalisations where careless sums would fail.

#include "ppma/ops/norm.hpp"

#include <cmath>

#include "catch.hpp"

using namespace ppma;

namespace {

double mean_of(const std::vector<double>& v) {
  double s = 0;
  for (const double x : v) s += x;
  return s / static_cast<double>(v.size());
}
double variance_of(const std::vector<double>& v) {
  const double m = mean_of(v);
  double s = 0;
  for (const double x : v) s += (x - m) * (x - m);
  return s / static_cast<double>(v.size());
}

}  // namespace

TEST_CASE("batch norm's variance survives a mean ten thousand times as large") {
  // With E[x^2] - E[x]^2 in f32 the rounding of x^2 ~ 1e8 alone is several times the variance.
  Rng rng(2);
  const i64 rows = 5000, cols = 19;
  Tensor x = Tensor::empty({rows, cols});
  for (i64 i = 0; i < x.numel(); ++i) x.data<float>()[i] = static_cast<float>(1e4 + rng.normal());
  const Tensor ones = Tensor::ones({cols}), zeros = Tensor::zeros({cols});
  Tensor mean = Tensor::zeros({cols}), var = Tensor::zeros({cols});
  batch_norm(x, ones, zeros, mean, var, true, 1.0);
  for (i64 c = 0; c < cols; ++c) {
    std::vector<double> column;
    for (i64 r = 0; r < rows; ++r)
      column.push_back(static_cast<double>(x.data<float>()[r * cols + c]));
    const double expected =
        variance_of(column) * static_cast<double>(rows) / static_cast<double>(rows - 1);
    // one rounding of 1e4 in f32
    CHECK(std::fabs(static_cast<double>(mean.data<float>()[c]) - mean_of(column)) < 1e-3);
    CHECK(std::fabs(static_cast<double>(var.data<float>()[c]) - expected) < 1e-5 * expected);
  }
}

TEST_CASE("a batch that is not finite does not move batch norm's running statistics") {
  const Tensor ones = Tensor::ones({3}), zeros = Tensor::zeros({3});
  Tensor x = Tensor::ones({4, 3}), mean = Tensor::zeros({3}), var = Tensor::ones({3});
  x.data<float>()[1] = std::numeric_limits<float>::infinity();  // of the second channel
  batch_norm(x, ones, zeros, mean, var, true, 0.5);
  CHECK(mean.to_vector<float>() == std::vector<float>{0.5f, 0, 0.5f});
  CHECK(var.to_vector<float>() == std::vector<float>{0.5f, 1, 0.5f});
}

TEST_CASE("layer norm's variance survives a large mean") {
  Rng rng(2);
  const i64 cols = 70;
  Tensor x = Tensor::empty({1, cols});
  for (i64 i = 0; i < cols; ++i) x.data<float>()[i] = static_cast<float>(1e4 + rng.normal());
  const std::vector<double> row = x.to_vector<double>();
  const std::vector<double> y =
      layer_norm(x, Tensor::ones({cols}), Tensor::zeros({cols}), 1e-6).to_vector<double>();
  const double m = mean_of(row), s = 1 / std::sqrt(variance_of(row) + 1e-6);
  // the mean's rounding, 1e-3
  for (std::size_t i = 0; i < row.size(); ++i) CHECK(std::fabs(y[i] - (row[i] - m) * s) < 2e-3);
}

TEST_CASE(
    "batch norm normalises the batch in training and leaves the running statistics alone in "
    "evaluation") {
  Rng rng(4);
  const Tensor x = Tensor::randn({4, 6, 7, 5}, rng, 3, DType::f64),
               w = Tensor::ones({5}, DType::f64), b = Tensor::zeros({5}, DType::f64);
  Tensor mean = Tensor::zeros({5}, DType::f64), var = Tensor::ones({5}, DType::f64);
  const std::vector<double> y = batch_norm(x, w, b, mean, var, true).to_vector<double>();
  for (std::size_t c = 0; c < 5; ++c) {
    std::vector<double> column;
    for (std::size_t i = c; i < y.size(); i += 5) column.push_back(y[i]);
    CHECK(std::fabs(mean_of(column)) < 1e-14);
    CHECK(std::fabs(variance_of(column) - 1) < 1e-4);  // eps 1e-5 beside a variance near 9
  }
  const std::vector<double> m = mean.to_vector<double>(), v = var.to_vector<double>();
  batch_norm(x, w, b, mean, var, false);
  CHECK(mean.to_vector<double>() == m);
  CHECK(var.to_vector<double>() == v);
  CHECK(m != std::vector<double>(5, 0.0));
}
