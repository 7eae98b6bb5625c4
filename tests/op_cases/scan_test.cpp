#include "ppma/ops/scan.hpp"

#include "op_cases/op_case.hpp"

using namespace op_cases;

TEST_CASE("op table: scan") {
  constexpr auto forward = ScanDirection::forward, backward = ScanDirection::backward,
                 symmetric = ScanDirection::symmetric;
  check_table({
      {"cumsum", [](In x) { return cumsum(x[0], 1); }, "cumsum: axis 2 is outside of shape (2, 3)",
       [] {
         cumsum(zeros({2, 3}), 2);
       }},
      {"cumsum/reverse", [](In x) { return cumsum(x[0], -1, true); }, "", {}},
      {"decay_scan/forward",
       [](In x) { return decay_scan(x[0], x[1], 1, forward); },
       "decay_scan: log_decay is (2), x is (2, 3)",
       [] {
         decay_scan(zeros({2, 3}), zeros({2}), 1);
       },
       {1}},
      {"decay_scan/forward, vectors",
       [](In x) { return decay_scan(x[0], x[1], 2, forward); },
       "log_decay must have x's rank",
       [] {
         decay_scan(zeros({2, 3}), zeros({2, 1}), 1);
       },
       {1}},
      {"decay_scan/backward",
       [](In x) { return decay_scan(x[0], x[1], 1, backward); },
       "",
       {},
       {1}},
      {"decay_scan/backward, vectors",
       [](In x) { return decay_scan(x[0], x[1], 2, backward); },
       "",
       {},
       {1}},
      {"decay_scan/symmetric",
       [](In x) { return decay_scan(x[0], x[1], 1, symmetric); },
       "",
       {},
       {1}},
      {"decay_scan/symmetric, vectors",
       [](In x) { return decay_scan(x[0], x[1], 2); },
       "",
       {},
       {1}},
      {"decay_scan/rows of vectors", [](In x) { return decay_scan(x[0], x[1], 1); }, "", {}, {1}},
      {"decay_scan/shared", [](In x) { return decay_scan(x[0], x[1], 1); }, "", {}, {1}},
      {"decay_scan/last axis", [](In x) { return decay_scan(x[0], x[1], -1); }, "", {}, {1}},
  });
}
