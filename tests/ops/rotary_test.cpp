// What the rotary embedding is for: q . k depends on the distance of the raster indices alone.

#include "ppma/ops/rotary.hpp"

#include <cmath>

#include "catch.hpp"

using namespace ppma;

TEST_CASE("turned q . k depends on the raster distance alone, across the end of a row too") {
  Rng rng(9);
  const i64 h = 3, w = 4, d = 16;
  const Tensor q = Tensor::randn({d}, rng, 1, DType::f64),
               k = Tensor::randn({d}, rng, 1, DType::f64);
  const auto everywhere = [&](const Tensor& v) {  // the same vector at each token
    Tensor t = Tensor::empty({1, h, w, d}, DType::f64);
    for (i64 i = 0; i < t.numel(); ++i) t.data<double>()[i] = v.data<double>()[i % d];
    return rotary(t, rotary_angle(d, DType::f64), 1).to_vector<double>();
  };
  const std::vector<double> tq = everywhere(q), tk = everywhere(k);
  const auto product = [&](i64 a, i64 b) {
    double s = 0;
    for (i64 i = 0; i < d; ++i)
      s += tq[static_cast<std::size_t>(a * d + i)] * tk[static_cast<std::size_t>(b * d + i)];
    return s;
  };
  for (i64 a = 0; a + 1 < h * w; ++a) CHECK(std::fabs(product(a, a + 1) - product(0, 1)) < 1e-12);
  CHECK(std::fabs(product(0, 5) - product(6, 11)) < 1e-12);
  CHECK(std::fabs(product(0, 1) - product(0, 2)) > 1e-3);
}

TEST_CASE("the angles are the published ones") {
  const std::vector<double> a = rotary_angle(6, DType::f64).to_vector<double>();
  const std::vector<double> expected = {1, 1, 0.01, 0.01, 1e-4, 1e-4};
  for (std::size_t i = 0; i < 6; ++i) CHECK(std::fabs(a[i] - expected[i]) < 1e-15);
}

TEST_CASE("in f32 the angle is rounded before its sine is taken, as the published network does") {
  // Token 3135 at angle w: t * w is formed in f32.
  Tensor x = Tensor::zeros({1, 56, 56, 4});
  x.data<float>()[3135 * 4 + 2] = 1;  // the pair with the slow angle 1e-4
  x.data<float>()[3135 * 4] = 1;      // and with angle 1
  const std::vector<double> y = rotary(x, rotary_angle(4), 1).to_vector<double>();
  const double slow = static_cast<double>(3135.f * static_cast<float>(1e-4));
  CHECK(std::fabs(y[3135 * 4 + 2] - std::cos(slow)) < 1e-7);
  CHECK(std::fabs(y[3135 * 4 + 3] - std::sin(slow)) < 1e-7);
  CHECK(std::fabs(y[3135 * 4] - std::cos(3135.0)) < 1e-7);
}

TEST_CASE("tables of many sizes and angles come and go") {
  Rng rng(1);
  const Tensor x = Tensor::randn({1, 3, 5, 4}, rng, 1, DType::f64),
               angle = rotary_angle(4, DType::f64);
  const std::vector<double> first = rotary(x, angle, 1).to_vector<double>();
  for (i64 n = 1; n < 12; ++n) rotary(Tensor::ones({1, n, 2, 4}, DType::f64), angle, 1);
  CHECK(rotary(x, angle, 1).to_vector<double>() == first);
  const Tensor other = Tensor::full({4}, 0.5, DType::f64);
  CHECK(rotary(x, other, 1).to_vector<double>() != first);
  CHECK(rotary(x, angle, 1).to_vector<double>() == first);
}
