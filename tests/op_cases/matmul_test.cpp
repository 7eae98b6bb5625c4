#include "ppma/ops/matmul.hpp"

#include "op_cases/op_case.hpp"
#include "ppma/ops/linear.hpp"

using namespace op_cases;

TEST_CASE("op table: matmul, linear") {
  check_table({
      {"matmul", [](In x) { return matmul(x[0], x[1]); },
       "matmul: a (2, 3) and b (4, 5) have inner sizes 3 and 4",
       [] {
         matmul(zeros({2, 3}), zeros({4, 5}));
       }},
      {"matmul/a transposed", [](In x) { return matmul(x[0], x[1], true); },
       "matmul: a (2, 3) (transposed) and b (3, 5) have inner sizes 2 and 3",
       [] {
         matmul(zeros({2, 3}), zeros({3, 5}), true);
       }},
      {"matmul/b transposed", [](In x) { return matmul(x[0], x[1], false, true); },
       "need at least two axes each",
       [] {
         matmul(zeros({3}), zeros({3, 5}));
       }},
      {"matmul/both transposed", [](In x) { return matmul(x[0], x[1], true, true); },
       "matmul: a is f64, b is int64",
       [] {
         matmul(zeros({3, 3}), int64s({3, 3}));
       }},
      {"matmul/batch broadcast", [](In x) { return matmul(x[0], x[1]); },
       "matmul: shapes (2) and (3) do not broadcast",
       [] {
         matmul(zeros({2, 3, 4}), zeros({3, 4, 5}));
       }},
      {"matmul/outer axes", [](In x) { return matmul(x[0], x[1]); },
       "matmul: int64 is not computed",
       [] {
         matmul(int64s({2, 2}), int64s({2, 2}));
       }},
      {"matmul/crossed", [](In x) { return matmul(x[0], x[1]); }, "matmul: an operand is undefined",
       [] {
         matmul(zeros({3, 3}), Tensor());
       }},
      {"matmul/many rows", [](In x) { return matmul(x[0], x[1]); }, "", {}},
      {"linear",
       [](In x) { return linear(x[0], x[1], x[2]); },
       "linear: x (2, 4) must end in the 3 inputs of w (5, 3)",
       [] {
         linear(zeros({2, 4}), zeros({5, 3}));
       },
       {1, 2}},
      {"linear/no bias",
       [](In x) { return linear(x[0], x[1]); },
       "linear: b must be (5), got (3)",
       [] {
         linear(zeros({2, 3}), zeros({5, 3}), zeros({3}));
       },
       {1, 2}},
  });
}
