#include "ppma/ops/reduce.hpp"

#include "op_cases/op_case.hpp"

using namespace op_cases;

TEST_CASE("op table: reduce") {
  check_table({
      {"sum",
       [](In x) {
         return sum(x[0], {0, 2});
       },
       "sum: axis 3 is outside of shape (2, 3)",
       [] {
         sum(zeros({2, 3}), {3});
       }},
      {"sum/all", [](In x) { return sum(x[0]); }, "sum: axis -1 is named twice",
       [] {
         sum(zeros({2, 3}), {1, -1});
       }},
      {"sum/keepdim",
       [](In x) {
         return sum(x[0], {1, -1}, true);
       },
       "",
       {}},
      {"sum/middle", [](In x) { return sum(x[0], {1}); }, "", {}},
      {"sum/long", [](In x) { return sum(x[0], {-1}); }, "", {}},
      {"mean",
       [](In x) {
         return mean(x[0], {1, 2});
       },
       "mean: shape (0, 3) has no elements",
       [] {
         mean(zeros({0, 3}), {0});
       }},
      {"mean/all", [](In x) { return mean(x[0]); }, "mean: shape (0) has no elements",
       [] { mean(zeros({0})); }},
      {"max", [](In x) { return max(x[0], 1).values; }, "max: axis 1 of shape (2, 0) is empty",
       [] {
         max(zeros({2, 0}), 1);
       }},
      {"max/last", [](In x) { return max(x[0], -1, true).values; }, "", {}},
      {"max/indices", [](In x) { return max(x[0], 1).indices; }, "", {}},
      {"min", [](In x) { return min(x[0], 0).values; }, "min: axis 2 is outside",
       [] {
         min(zeros({2, 3}), 2);
       }},
      {"argmax", [](In x) { return argmax(x[0], -1); }, "argmax: axis 0 of shape (0) is empty",
       [] { argmax(zeros({0}), 0); }},
      {"argmax/equal", [](In x) { return argmax(x[0], 0); }, "", {}},
  });
}
