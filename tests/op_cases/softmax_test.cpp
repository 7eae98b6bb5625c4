#include "ppma/ops/softmax.hpp"

#include <cmath>

#include "op_cases/op_case.hpp"

using namespace op_cases;

namespace {

// Of rows of three.
std::vector<double> rows_of_softmax(const Lists& inputs) {
  std::vector<double> y;
  for (const double x : inputs[0]) y.push_back(std::exp(x));
  for (std::size_t i = 0; i < y.size(); i += 3) {
    const double sum = y[i] + y[i + 1] + y[i + 2];
    for (std::size_t j = i; j < i + 3; ++j) y[j] /= sum;
  }
  return y;
}

}  // namespace

TEST_CASE("op table: softmax") {
  check_table({
      {"softmax", [](In x) { return softmax(x[0]); },
       "softmax: needs an axis, got a tensor of shape ()", [] { softmax(zeros({})); }},
      {"softmax/first axis", [](In x) { return softmax(x[0], 0); },
       "softmax: axis -1 of shape (2, 0) is empty",
       [] {
         softmax(zeros({2, 0}));
       }},
      {"softmax/plain function",
       [](In x) { return softmax(x[0]); },
       "",
       {},
       {},
       Plain{{{{2, 3}}}, {2, 3}, rows_of_softmax}},
      {"log_softmax", [](In x) { return log_softmax(x[0]); }, "log_softmax: axis 2 is outside",
       [] { log_softmax(zeros({2}), 2); }},
      {"log_softmax/middle axis", [](In x) { return log_softmax(x[0], 1); }, "", {}},
  });
}
