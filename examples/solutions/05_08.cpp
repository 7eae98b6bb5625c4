// Solutions of the exercises of lessons 05 to 08.

#include <algorithm>

#include "../check.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/polyline/line_mask.hpp"
#include "ppma/polyline/mask.hpp"

using namespace ppma;

namespace {

Tensor normal(const Shape& shape, u64 seed) {
  Rng rng(seed);
  return Tensor::randn(shape, rng, 1, DType::f64);
}

// ln of decays, of any shape.
Tensor logs(std::vector<double> decays, const Shape& shape) {
  for (double& d : decays) d = std::log(d);
  return Tensor::from<double>(decays, shape);
}

void lesson_05_1() {
  const Tensor scores = matmul(normal({6, 4}, 1), normal({6, 4}, 2), false, true);
  const std::vector<double> hard = softmax(scale(scores, 1000)).to_vector<double>(),
                            flat = softmax(scale(scores, 0)).to_vector<double>();
  bool one = true, mean = true;
  for (std::size_t row = 0; row < 36; row += 6) {
    one = one && *std::max_element(hard.begin() + static_cast<int>(row),
                                   hard.begin() + static_cast<int>(row) + 6) > 1 - 1e-12;
    mean = mean && std::fabs(flat[row] - 1.0 / 6) < 1e-15;
  }
  expect(one, "05.1: all of the token with the highest score");
  expect(mean, "05.1: the mean of all tokens");
}

void lesson_05_2() {
  // Every score of a row grows by the same q . c, which a softmax does not see.
  const Tensor q = normal({6, 4}, 1), k = normal({6, 4}, 2), c = normal({4}, 3);
  expect(largest_difference(softmax(matmul(q, k, false, true)),
                            softmax(matmul(q, k + c, false, true))) < 1e-14,
         "05.2: nothing");
}

void lesson_06() {
  const Tensor mask = exp(sequence_log_mask(logs({1, 0.9, 0.8, 0.9, 0, 0.9, 0.8}, Shape{7})));
  bool apart = true;
  for (i64 i = 0; i < 7; ++i)
    for (i64 j = 0; j < 7; ++j)
      apart = apart && ((mask.data<double>()[i * 7 + j] == 0) == ((i < 4) != (j < 4)));
  expect(apart, "06.1: two blocks, and 0 between them");
  expect(
      largest_difference(
          mask, exp(sequence_log_mask(logs({0.001, 0.9, 0.8, 0.9, 0, 0.9, 0.8}, Shape{7})))) == 0,
      "06.2: nothing, it is never read");
}

void lesson_07_1() {
  const Tensor alpha = logs({1, .5, .8, 1, .25, .4}, {1, 1, 2, 3});
  const auto mask = [&](double beta10) {
    return exp(
        polyline_log_mask(join_decays(alpha, logs({1, 1, 1, beta10, .6, .3}, {1, 1, 2, 3}))));
  };
  const std::vector<double> l = mask(0.9).to_vector<double>(), cut = mask(0.01).to_vector<double>();
  // V2H walks down the key's column: of keys in column 0, what arrives in the other row.
  bool as_predicted = true;
  for (std::size_t query = 0; query < 6; ++query)
    for (std::size_t key = 0; key < 6; ++key) {
      const bool crosses = key % 3 == 0 && query / 3 != key / 3;
      const double want = l[query * 6 + key] * (crosses ? 0.01 / 0.9 : 1);
      as_predicted = as_predicted && std::fabs(cut[query * 6 + key] - want) < 1e-15;
    }
  expect(as_predicted, "07.1: six, of keys in column 0 for queries in the other row");
}

void lesson_07_2() {
  // The same alphas in every row, the same betas in every column: then both ways cost the same.
  const Tensor l = polyline_log_mask(join_decays(logs({1, .5, .8, 1, .5, .8}, {1, 1, 2, 3}),
                                                 logs({1, 1, 1, .9, .9, .9}, {1, 1, 2, 3})));
  expect(largest_difference(l, transpose(l, 2, 3)) < 1e-15, "07.2: decays that know no other axis");
}

void lesson_08_1() {
  const i64 side = 56, tokens = side * side;
  std::printf("mask %lld, line matrices %lld\n", static_cast<long long>(tokens * tokens),
              static_cast<long long>(tokens * 2 * side));
  expect(tokens * tokens == 28 * tokens * 2 * side, "08.1: 28 times as many");
}

void lesson_08_2() {
  const i64 n = 14;
  const auto mask = [](bool door) {
    const auto object = [](i64 i, i64 j) { return i >= 4 && i < 11 && j >= 3 && j < 10; };
    std::vector<double> alpha, beta;
    for (i64 i = 0; i < n; ++i)
      for (i64 j = 0; j < n; ++j) {
        alpha.push_back(j > 0 && object(i, j) != object(i, j - 1) ? 0.1 : 0.95);
        beta.push_back(i > 0 && object(i, j) != object(i - 1, j) ? 0.1 : 0.95);
      }
    if (door) alpha[7 * 14 + 3] = 0.95;
    return exp(polyline_log_mask(join_decays(logs(alpha, {1, 1, n, n}), logs(beta, {1, 1, n, n}))));
  };
  // By V2H a key walks to the query's row in its own column, and then through the door.
  const i64 query = 7 * n + 6, key = 7 * n + 1, above = 2 * n + 1;
  const Tensor closed = mask(false), open = mask(true);
  const auto times = [&](i64 from) {
    return open.data<double>()[query * n * n + from] / closed.data<double>()[query * n * n + from];
  };
  expect(std::fabs(times(key) - 9.5) < 1e-12 && std::fabs(times(above) - 9.5) < 1e-12,
         "08.2: 9.5 times as much, of all rows");
}

}  // namespace

int main() {
  lesson_05_1(), lesson_05_2(), lesson_06(), lesson_07_1(), lesson_07_2();
  lesson_08_1(), lesson_08_2();
  return failures;
}
