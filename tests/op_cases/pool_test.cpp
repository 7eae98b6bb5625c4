#include "ppma/ops/pool.hpp"

#include "op_cases/op_case.hpp"

using namespace op_cases;

TEST_CASE("op table: pool") {
  check_table({
      {"avg_pool2d", [](In x) { return avg_pool2d(x[0]); },
       "avg_pool2d: x must be (B,H,W,C) with elements, got (2, 3)",
       [] {
         avg_pool2d(zeros({2, 3}));
       }},
      {"avg_pool2d/padded",
       [](In x) {
         return avg_pool2d(x[0], {3, 2, 1});
       },
       "avg_pool2d: a kernel of 5 does not fit into 4 cells",
       [] {
         avg_pool2d(zeros({1, 4, 4, 1}), {5, 1, 0});
       }},
      {"max_pool2d", [](In x) { return max_pool2d(x[0]); },
       "max_pool2d: kernel 2, stride 1, padding 2;",
       [] {
         max_pool2d(zeros({1, 4, 4, 1}), {2, 1, 2});
       }},
      {"max_pool2d/padded",
       [](In x) {
         return max_pool2d(x[0], {3, 2, 1});
       },
       "",
       {}},
      {"max_pool2d/stride",
       [](In x) {
         return max_pool2d(x[0], {1, 2, 0});
       },
       "",
       {}},
      {"adaptive_avg_pool2d", [](In x) { return adaptive_avg_pool2d(x[0], 3, 2); },
       "adaptive_avg_pool2d: the output grid is 0 x 2",
       [] {
         adaptive_avg_pool2d(zeros({1, 4, 4, 1}), 0, 2);
       }},
      {"adaptive_avg_pool2d/larger", [](In x) { return adaptive_avg_pool2d(x[0], 4, 6); }, "", {}},
      {"global_avg_pool", [](In x) { return global_avg_pool(x[0]); },
       "global_avg_pool: x must be (B,H,W,C) with elements, got (1, 0, 4, 1)",
       [] {
         global_avg_pool(zeros({1, 0, 4, 1}));
       }},
      {"silu_avg_pool", [](In x) { return silu_avg_pool(x[0]); },
       "silu_avg_pool: x must be (B,H,W,C) with elements, got (4)",
       [] { silu_avg_pool(zeros({4})); }},
  });
}
