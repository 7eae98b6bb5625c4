#include "ppma/ops/softmax.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/reduce.hpp"

using namespace ppma;

TEST_CASE("softmax does not change when a row is shifted, however far") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    std::vector<double> values;  // multiples of 1/64: shifting by 1024 is exact
    for (int i = 0; i < 63; ++i) values.push_back((i * 37 % 101) / 64.0);
    const Tensor x = cast(Tensor::from(values, {3, 21}), dtype);
    for (const double shift : {1024.0, -1024.0}) {
      CHECK(softmax(add_scalar(x, shift)).to_vector<double>() == softmax(x).to_vector<double>());
      for (const double v : log_softmax(add_scalar(x, shift)).to_vector<double>()) CHECK(std::isfinite(v));
    }
  }
}

TEST_CASE("rows of every length sum to one, and padding lanes add nothing") {
  Rng rng(9);
  for (i64 n = 1; n <= 70; ++n) {
    // Very negative rows: a lane behind the end that counted as 0 would outweigh them all.
    const Tensor x = add_scalar(Tensor::randn({2, n}, rng), -500), y = softmax(x);
    for (const double s : sum(y, {1}).to_vector<double>()) CHECK(std::fabs(s - 1) < 1e-6);
    for (const double s : sum(exp(log_softmax(x)), {1}).to_vector<double>()) CHECK(std::fabs(s - 1) < 1e-4);  // ulp(500) = 3e-5
  }
}

TEST_CASE("minus infinity is a masked element") {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor y = softmax(Tensor::from<float>({0, -infinity, 0}, {3}));
  CHECK(y.to_vector<float>() == std::vector<float>{0.5f, 0, 0.5f});
}
