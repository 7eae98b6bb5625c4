// Top-k accuracy on hand-worked cases.

#include "ppma/metrics/accuracy.hpp"

#include <limits>

#include "catch.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("top-k accuracy", "[metrics]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor logits =
      Tensor::from<float>({3, 2, 1, 0, -1, -2,  // label 0: first
                           3, 2, 1, 0, -1, -2,  // label 4: fifth
                           3, 2, 1, 0, -1, -2,  // label 5: sixth
                           // label 1: shares the first place
                           1, 1, 0, 0, 0, 0, 0, 0, nan, 0, 0, 0},  // label 2: not a number
                          {5, 6});
  const Tensor labels = Tensor::from<i64>({0, 4, 5, 1, 2}, {5});
  CHECK(count_correct(logits, labels, 1) == 1);
  CHECK(count_correct(logits, labels, 2) == 2);
  CHECK(count_correct(logits, labels, 5) == 3);
  CHECK(count_correct(logits, labels, 6) == 5);
  Accuracy accuracy;
  CHECK(accuracy.acc1() == 0);
  accuracy.add(logits, labels);
  accuracy.add(logits, labels);
  CHECK(accuracy.images == 10);
  CHECK(accuracy.acc1() == 20);
  CHECK(accuracy.acc5() == 60);
  CHECK(says([&] { count_correct(logits, Tensor::from<i64>({0, 1}, {2}), 1); }, "must be int64"));
  CHECK(says(
      [&] {
        count_correct(logits, Tensor::from<i64>({0, 1, 2, 3, 6}, {5}), 1);
      },
      "label 6 at index 4"));
}
