#include "ppma/ops/dropout.hpp"

#include <cmath>

#include "catch.hpp"
#include "ppma/ops/reduce.hpp"

using namespace ppma;

TEST_CASE("dropout drops the asked share and keeps the mean") {
  Rng rng(1);
  const i64 n = 100003;
  const Tensor y = dropout(Tensor::ones({n}), 0.3, rng);
  i64 dropped = 0, kept = 0;
  for (const float v : y.to_vector<float>())
    dropped += v == 0, kept += v == static_cast<float>(1 / 0.7);
  CHECK(dropped + kept == n);
  CHECK(std::fabs(static_cast<double>(dropped) - 0.3 * n) < 5 * std::sqrt(0.21 * n));
}

TEST_CASE("each call draws anew, the same position draws the same") {
  Rng rng(1), again(1);
  const Tensor x = Tensor::ones({50});
  const auto first = dropout(x, 0.5, rng).to_vector<float>(),
             second = dropout(x, 0.5, rng).to_vector<float>();
  CHECK(first != second);
  CHECK(dropout(x, 0.5, again).to_vector<float>() == first);
  CHECK(dropout(x, 0.5, again).to_vector<float>() == second);
  CHECK(again.position() == rng.position());
}

TEST_CASE("probability 0 changes nothing, 1 drops all") {
  Rng rng(1);
  const Tensor x = Tensor::ones({9});
  CHECK(dropout(x, 0, rng).raw() == x.raw());
  CHECK(drop_path(x, 0, rng).raw() == x.raw());
  CHECK(rng.position() == 0);
  CHECK(dropout(x, 1, rng).to_vector<float>() == std::vector<float>(9, 0.0f));
}

TEST_CASE("drop path drops whole samples and keeps the mean") {
  Rng rng(2);
  const i64 n = 20000;
  const auto y = drop_path(Tensor::ones({n, 2, 1}), 0.2, rng).to_vector<float>();
  i64 dropped = 0, kept = 0;
  for (std::size_t i = 0; i < y.size(); i += 2)
    dropped += y[i] == 0 && y[i + 1] == 0, kept += y[i] == 1.25f && y[i + 1] == 1.25f;
  CHECK(dropped + kept == n);
  CHECK(std::fabs(static_cast<double>(dropped) - 0.2 * n) < 5 * std::sqrt(0.16 * n));
}
