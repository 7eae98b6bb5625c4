#include "ppma/ops/softmax.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/tensor.hpp"

using namespace ppma;

TEST_CASE("softmax does not change when a row is shifted, however far") {
  for (const DType dtype : {DType::f32, DType::f64}) {
    std::vector<double> values;  // multiples of 1/64: shifting by 1024 is exact
    for (int i = 0; i < 63; ++i) values.push_back((i * 37 % 101) / 64.0);
    const Tensor x = cast(Tensor::from(values, {3, 21}), dtype);
    for (const double shift : {1024.0, -1024.0}) {
      CHECK(softmax(add_scalar(x, shift)).to_vector<double>() == softmax(x).to_vector<double>());
      for (const double v : log_softmax(add_scalar(x, shift)).to_vector<double>())
        CHECK(std::isfinite(v));
    }
  }
}

TEST_CASE("rows of every length sum to one, and padding lanes add nothing") {
  Rng rng(9);
  for (i64 n = 1; n <= 70; ++n) {
    // Very negative rows: a lane behind the end that counted as 0 would outweigh them all.
    const Tensor x = add_scalar(Tensor::randn({2, n}, rng), -500), y = softmax(x);
    for (const double s : sum(y, {1}).to_vector<double>()) CHECK(std::fabs(s - 1) < 1e-6);
    // ulp(500) = 3e-5
    for (const double s : sum(exp(log_softmax(x)), {1}).to_vector<double>())
      CHECK(std::fabs(s - 1) < 1e-4);
  }
}

TEST_CASE("minus infinity is a masked element") {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor y = softmax(Tensor::from<float>({0, -infinity, 0}, {3}));
  CHECK(y.to_vector<float>() == std::vector<float>{0.5f, 0, 0.5f});
}

TEST_CASE(
    "a line of minus infinity only has no softmax: NaN, and so is its gradient, as in PyTorch") {
  for (const DType dtype : {DType::f32, DType::f64})
    for (const i64 n : {i64{1}, i64{3}, i64{16}, i64{37}})
      for (const bool logarithm : {false, true}) {
        INFO(to_string(dtype) << ", " << n << (logarithm ? ", log" : ""));
        // one line without a key, one that has two or all
        Tensor x64 = Tensor::zeros({2, n}, DType::f64);
        std::fill_n(x64.data<double>(), n, negative_infinity<double>());
        if (n > 2) std::fill_n(x64.data<double>() + n + 2, n - 2, negative_infinity<double>());
        const Tensor x = cast(x64, dtype).detach().requires_grad(true);
        Tensor dy = Tensor::zeros({2, n}, DType::f64);
        for (i64 i = 0; i < dy.numel(); ++i) dy.data<double>()[i] = static_cast<double>(1 + i % n);
        const Tensor y = logarithm ? log_softmax(x) : softmax(x);
        y.backward(cast(dy, dtype));
        const std::vector<double> values = y.to_vector<double>();
        const std::vector<double> slopes = x.grad().to_vector<double>();
        const std::size_t width = static_cast<std::size_t>(n);
        for (std::size_t k = 0; k < width; ++k) {
          CHECK(is_nan(values[k]));
          CHECK(is_nan(slopes[k]));
          const double share = n == 1 ? 1 : k < 2 ? 0.5 : 0, upstream = static_cast<double>(k + 1);
          const double total = static_cast<double>(n * (n + 1) / 2);
          if (!logarithm) {
            CHECK(values[width + k] == Approx(share));
            CHECK(slopes[width + k] == Approx(n == 1 ? 0 : share * (upstream - 1.5)).margin(1e-6));
          } else {
            if (share > 0)
              CHECK(values[width + k] == Approx(std::log(share)).margin(1e-6));
            else
              CHECK((is_inf(values[width + k]) && values[width + k] < 0));
            CHECK(slopes[width + k] == Approx(upstream - share * total).margin(1e-6));
          }
        }
        // Along the first axis the same lines stand in columns.
        const std::vector<double> turned =
            transpose(softmax(transpose(x.detach(), 0, 1), 0), 0, 1).to_vector<double>();
        CHECK(is_nan(turned[0]));
        CHECK(turned[width] == Approx(n == 1 ? 1 : 0.5));
      }
}

TEST_CASE(
    "cross entropy of a row of minus infinity only is NaN, and of an impossible class infinite") {
  const double barred = negative_infinity<double>();
  const Tensor label = Tensor::from<i64>({0}, {1});
  const Tensor none = Tensor::from<double>({barred, barred, barred}, {1, 3}).requires_grad(true);
  const Tensor loss = cross_entropy(none, label);
  loss.backward();
  CHECK(is_nan(loss.item()));
  for (const double g : none.grad().to_vector<double>()) CHECK(is_nan(g));
  const Tensor some = Tensor::from<double>({0, barred, 0}, {1, 3}).requires_grad(true);
  const Tensor finite = cross_entropy(some, label);
  finite.backward();
  CHECK(finite.item() == Approx(std::log(2.0)));
  CHECK(some.grad().to_vector<double>() == std::vector<double>{-0.5, 0, 0.5});
  CHECK(is_inf(cross_entropy(some, Tensor::from<i64>({1}, {1})).item()));
}
