#include "ppma/ops/arithmetic.hpp"

#include <algorithm>
#include <cmath>

#include "op_cases/op_case.hpp"

using namespace op_cases;

TEST_CASE("op table: arithmetic") {
  check_table({
      {"add", [](In x) { return add(x[0], x[1]); },
       "add: shapes (2, 3) and (2, 4) do not broadcast",
       [] {
         add(zeros({2, 3}), zeros({2, 4}));
       }},
      {"add/row", [](In x) { return add(x[0], x[1]); }, "add: dtypes f64 and f32",
       [] { add(zeros({2}), Tensor::zeros({2})); }},
      {"add/both broadcast", [](In x) { return add(x[0], x[1]); },
       "add: the argument is an undefined", [] { add(zeros({2}), Tensor()); }},
      {"add/scalar tensor", [](In x) { return add(x[0], x[1]); }, "add: int64",
       [] { add(int64s({2}), int64s({2})); }},
      {"sub", [](In x) { return sub(x[0], x[1]); }, "sub: shapes (3) and (2) do not",
       [] { sub(zeros({3}), zeros({2})); }},
      {"mul", [](In x) { return mul(x[0], x[1]); }, "mul: shapes (3) and (2) do not",
       [] { mul(zeros({3}), zeros({2})); }},
      {"mul/per sample", [](In x) { return mul(x[0], x[1]); }, "", {}},
      {"mul/long rows", [](In x) { return mul(x[0], x[1]); }, "", {}},
      {"div", [](In x) { return div(x[0], x[1]); }, "div: shapes (3) and (2) do not",
       [] { div(zeros({3}), zeros({2})); }},
      {"maximum", [](In x) { return maximum(x[0], x[1]); }, "maximum: shapes (3) and (2)",
       [] { maximum(zeros({3}), zeros({2})); }},
      {"maximum/equal", [](In x) { return maximum(x[0], x[1]); }, "", {}},
      {"minimum", [](In x) { return minimum(x[0], x[1]); }, "minimum: shapes (3) and (2)",
       [] { minimum(zeros({3}), zeros({2})); }},
      {"scale", [](In x) { return scale(x[0], -1.5); }, "scale: int64",
       [] { scale(int64s({2}), 2); }},
      {"add_scalar", [](In x) { return add_scalar(x[0], 0.75); }, "add_scalar: int64",
       [] { add_scalar(int64s({2}), 2); }},
      {"neg", [](In x) { return neg(x[0]); }, "neg: the argument is an undefined tensor",
       [] { neg(Tensor()); }},
      {"exp", [](In x) { return exp(x[0]); }, "exp: int64", [] { exp(int64s({2})); }},
      {"log", [](In x) { return log(x[0]); }, "log: int64", [] { log(int64s({2})); }},
      {"sqrt", [](In x) { return sqrt(x[0]); }, "sqrt: int64", [] { sqrt(int64s({2})); }},
      {"square", [](In x) { return square(x[0]); }, "square: int64", [] { square(int64s({2})); }},
      {"abs", [](In x) { return abs(x[0]); }, "abs: int64", [] { abs(int64s({2})); }},
      {"clamp", [](In x) { return clamp(x[0], -0.5, 1); }, "clamp: low 1 is above high 0",
       [] { clamp(zeros({2}), 1, 0); }},
      {"clamp_magnitude",
       [](In x) { return clamp_magnitude(x[0], 0.5, 1); },
       "clamp_magnitude: [0, 1] must be positive",
       [] { clamp_magnitude(zeros({2}), 0, 1); },
       {},
       Plain{{{{3, 7}}},
             {3, 7},
             [](const Lists& x) {
               std::vector<double> y = x[0];
               for (double& v : y) v = std::copysign(std::min(std::max(std::fabs(v), 0.5), 1.0), v);
               return y;
             }}},
      {"pow", [](In x) { return pow(x[0], 2.5); }, "pow: int64", [] { pow(int64s({2}), 2); }},
      {"pow/negative base", [](In x) { return pow(x[0], 3); }, "", {}},
      {"operators",
       [](In x) {
         const Tensor &a = x[0], &b = x[1];
         return (2 - a) * b / 3 + (a + 1) / (b + 4) - 5 / (b + 3) - (-a) + (0.5 + a * 2) - (b - 1);
       },
       "add: shapes (3) and (2)", [] { zeros({3}) + zeros({2}); }},
  });
}
