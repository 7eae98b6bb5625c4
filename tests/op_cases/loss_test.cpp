#include "ppma/ops/loss.hpp"

#include "op_cases/op_case.hpp"

using namespace op_cases;

TEST_CASE("op table: loss") {
  const auto with = [](double smoothing, i64 ignore = -100, bool count_ignored = false) {
    return [=](In x) { return cross_entropy(x[0], x[1], {smoothing, ignore, count_ignored}); };
  };
  check_table({
      {"cross_entropy", with(0),
       "cross_entropy: the label at index 1 is 3; with 3 classes it must be 0 to 2",
       [] {
         cross_entropy(zeros({2, 3}), Tensor::from<i64>({0, 3}, {2}));
       }},
      {"cross_entropy/smooth", with(0.1), "cross_entropy: the label at index 0 is -1;",
       [] {
         cross_entropy(zeros({1, 3}), Tensor::from<i64>({-1}, {1}));
       }},
      {"cross_entropy/ignore", with(0.2), "cross_entropy: labels are (3), logits (2, 3)",
       [] {
         cross_entropy(zeros({2, 3}), int64s({3}));
       }},
      {"cross_entropy/ignored count", with(0, 255, true), "cross_entropy: label_smoothing is 1.5",
       [] {
         cross_entropy(zeros({2, 3}), int64s({2}), {1.5});
       }},
      {"cross_entropy/map", with(0), "cross_entropy: target is f32",
       [] {
         cross_entropy(zeros({2, 3}), Tensor::zeros({2, 3}));
       }},
      {"cross_entropy/soft", with(0), "cross_entropy: soft targets are (3, 2), logits (2, 3)",
       [] {
         cross_entropy(zeros({2, 3}), zeros({3, 2}));
       }},
      {"cross_entropy/soft and smooth", with(0.1),
       "cross_entropy: logits of shape (0, 3) have no elements",
       [] {
         cross_entropy(zeros({0, 3}), int64s({0}));
       }},
  });
}
