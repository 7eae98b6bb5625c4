#include "ppma/ops/softmax.hpp"

#include "op_cases/op_case.hpp"

using namespace op_cases;

TEST_CASE("op table: softmax") {
  check_table({
      {"softmax", [](In x) { return softmax(x[0]); },
       "softmax: needs an axis, got a tensor of shape ()", [] { softmax(zeros({})); }},
      {"softmax/first axis", [](In x) { return softmax(x[0], 0); },
       "softmax: axis -1 of shape (2, 0) is empty",
       [] {
         softmax(zeros({2, 0}));
       }},
      {"log_softmax", [](In x) { return log_softmax(x[0]); }, "log_softmax: axis 2 is outside",
       [] { log_softmax(zeros({2}), 2); }},
      {"log_softmax/middle axis", [](In x) { return log_softmax(x[0], 1); }, "", {}},
  });
}
