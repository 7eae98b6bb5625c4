#include "ppma/ops/activation.hpp"

#include "op_cases/op_case.hpp"

using namespace op_cases;

TEST_CASE("op table: activation") {
  check_table({
      {"relu", [](In x) { return relu(x[0]); }, "relu: int64 is not computed",
       [] { relu(int64s({2})); }},
      {"gelu", [](In x) { return gelu(x[0]); }, "gelu: int64 is not computed",
       [] { gelu(int64s({2})); }},
      {"silu", [](In x) { return silu(x[0]); }, "silu: int64 is not computed",
       [] { silu(int64s({2})); }},
      {"sigmoid", [](In x) { return sigmoid(x[0]); }, "sigmoid: int64 is not computed",
       [] { sigmoid(int64s({2})); }},
      {"tanh", [](In x) { return tanh(x[0]); }, "tanh: int64 is not computed",
       [] { tanh(int64s({2})); }},
      {"softplus", [](In x) { return softplus(x[0]); }, "softplus: int64 is not computed",
       [] { softplus(int64s({2})); }},
  });
}
