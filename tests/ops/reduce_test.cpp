// Sums of many elements, in every combination of axes.

#include "ppma/ops/reduce.hpp"

#include <cmath>
#include <limits>

#include "catch.hpp"
#include "ppma/ops/layout.hpp"

using namespace ppma;

TEST_CASE("sums over any axes agree with index arithmetic") {
  Rng rng(8);
  for (int trial = 0; trial < 100; ++trial) {
    const int rank = 1 + static_cast<int>(rng.below(5));
    Shape shape;
    std::vector<int> axes;
    for (int k = 0; k < rank; ++k) {
      shape.push_back(1 + rng.below(trial % 10 == 0 && k < 2 ? 300 : 6));
      if (rng.flip()) axes.push_back(rng.flip() ? k : k - rank);
    }
    if (shape.numel() > 100000) continue;
    const Tensor x = Tensor::randn(shape, rng, 1, DType::f64), y = sum(x, axes, true);
    std::vector<double> expected(static_cast<std::size_t>(y.numel()), 0.0);
    for (i64 i = 0; i < x.numel(); ++i) {
      i64 rest = i, to = 0, step = 1;
      for (int k = rank - 1; k >= 0; --k) {
        const i64 at = rest % shape[k];
        rest /= shape[k];
        if (y.dim(k) != 1) to += at * step;
        step *= y.dim(k);
      }
      expected[static_cast<std::size_t>(to)] += x.data<double>()[i];
    }
    double worst = 0;
    for (i64 i = 0; i < y.numel(); ++i)
      worst =
          std::max(worst, std::fabs(y.data<double>()[i] - expected[static_cast<std::size_t>(i)]));
    INFO(shape.str() << " with " << axes.size() << " axes summed");
    CHECK(worst <= 1e-16 * static_cast<double>(x.numel()) * 10);
    CHECK(sum(x, axes).numel() == y.numel());
  }
  CHECK(sum(Tensor::zeros({0, 3}), {0}).to_vector<double>() == std::vector<double>{0, 0, 0});
  CHECK(sum(Tensor::full({2, 2}, 3), {}).to_vector<double>() == std::vector<double>{3, 3, 3, 3});
}

TEST_CASE("the rounding error of a long float sum stays small") {
  // 0.1f is not exact: adding ten million of them one by one is wrong by 9 %.
  const i64 n = 10000000;
  const Tensor x = Tensor::full({n}, 0.1);
  const double exact = static_cast<double>(0.1f) * static_cast<double>(n);
  CHECK(std::fabs(sum(x).item() - exact) <= exact * 64 * 0x1p-24);
  CHECK(std::fabs(sum(reshape(x, {n / 10, 10}), {0}).to_vector<double>()[3] - exact / 10) <=
        exact / 10 * 512 * 0x1p-24);
}

TEST_CASE("a NaN is the extreme, and the first of equals wins") {
  const double nan_value = std::numeric_limits<double>::quiet_NaN(),
               infinity = std::numeric_limits<double>::infinity();
  const Tensor x =
      Tensor::from<double>({1, nan_value, 3, -infinity, -infinity, -infinity, 2, 5, 5}, {3, 3});
  const Extreme most = max(x, 1);
  CHECK(std::isnan(most.values.to_vector<double>()[0]));
  CHECK(most.indices.to_vector<i64>() == std::vector<i64>{1, 0, 1});
  CHECK(min(x, 1).indices.to_vector<i64>() == std::vector<i64>{1, 0, 0});
  CHECK(argmax(x, -1).to_vector<i64>() == std::vector<i64>{1, 0, 1});
  CHECK(max(x, 0, true).values.shape() == Shape{1, 3});
}

TEST_CASE("extremes of lines of every length agree with a plain loop, with ties and NaN") {
  Rng rng(10);
  for (const DType dtype : {DType::f32, DType::f64}) {
    for (i64 n = 1; n <= 80; ++n) {
      for (const i64 inner : {1, 3, 21}) {
        Tensor x = Tensor::empty({2, n, inner}, DType::f64);
        const bool nans = rng.flip(0.3);
        for (i64 i = 0; i < x.numel(); ++i)
          x.data<double>()[i] = nans && rng.flip(0.05) ? std::numeric_limits<double>::quiet_NaN()
                                                       : static_cast<double>(rng.below(n / 2 + 1));
        const Extreme most = max(cast(x, dtype), 1), least = min(cast(x, dtype), 1);
        bool same = true;
        for (i64 o = 0; o < 2; ++o)
          for (i64 i = 0; i < inner; ++i)
            for (const int sign : {1, -1}) {
              const auto at = [&](i64 k) {
                return sign * x.data<double>()[(o * n + k) * inner + i];
              };
              i64 best = 0;
              for (i64 k = 1; k < n; ++k)
                if (!std::isnan(at(best)) && (std::isnan(at(k)) || at(k) > at(best))) best = k;
              const Extreme& got = sign == 1 ? most : least;
              const double value =
                  sign * got.values.to_vector<double>()[static_cast<std::size_t>(o * inner + i)];
              same = same && got.indices.data<i64>()[o * inner + i] == best &&
                     (value == at(best) || std::isnan(at(best)));
            }
        INFO(n << " elements, " << inner << " lines side by side");
        CHECK(same);
      }
    }
  }
}
