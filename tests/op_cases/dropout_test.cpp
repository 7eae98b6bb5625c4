#include "ppma/ops/dropout.hpp"

#include "op_cases/op_case.hpp"

using namespace op_cases;

TEST_CASE("op table: dropout") {
  Rng rng;
  check_table({
      {"dropout",
       [](In x) {
         Rng r(7);
         return dropout(x[0], 0.4, r);
       },
       "dropout: the probability is 1.5, outside of [0, 1]",
       [&] { dropout(zeros({2}), 1.5, rng); }},
      {"dropout/second",
       [](In x) {
         Rng r(7);
         r.bits();
         return dropout(x[0], 0.4, r);
       },
       "",
       {}},
      {"drop_path",
       [](In x) {
         Rng r(7);
         return drop_path(x[0], 0.5, r);
       },
       "drop_path: the probability is 1, outside of [0, 1)",
       [&] { drop_path(zeros({2}), 1, rng); }},
  });
}
