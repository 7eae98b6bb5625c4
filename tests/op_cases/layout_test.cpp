#include "ppma/ops/layout.hpp"

#include "op_cases/op_case.hpp"

using namespace op_cases;

TEST_CASE("op table: layout") {
  check_table({
      {"reshape",
       [](In x) {
         return reshape(x[0], {3, -1});
       },
       "reshape: (2, 3) with its 6 elements",
       [] {
         reshape(zeros({2, 3}), {4, -1});
       }},
      {"permute",
       [](In x) {
         return permute(x[0], {2, 0, 1});
       },
       "permute: axis 0 is named twice",
       [] {
         permute(zeros({2, 3}), {0, 0});
       }},
      {"permute/rows",
       [](In x) {
         return permute(x[0], {0, 2, 1, -1});
       },
       "permute: 1 axes for a tensor of shape (2, 3)",
       [] {
         permute(zeros({2, 3}), {0});
       }},
      {"permute/four",
       [](In x) {
         return permute(x[0], {3, 1, 0, 2});
       },
       "",
       {}},
      {"transpose", [](In x) { return transpose(x[0], 0, -1); }, "transpose: axis 2 is outside",
       [] {
         transpose(zeros({2, 3}), 0, 2);
       }},
      {"concat",
       [](In x) {
         return concat({x[0], x[1]}, 1);
       },
       "concat: shapes (2, 3) and (4, 3) differ on another axis than 1",
       [] {
         concat({zeros({2, 3}), zeros({4, 3})}, 1);
       }},
      {"concat/last",
       [](In x) {
         return concat({x[0], x[1], x[2]}, -1);
       },
       "concat: needs at least one", [] { concat({}, 0); }},
      {"narrow", [](In x) { return narrow(x[0], 1, 1, 3); },
       "narrow: elements 2 to 4 of axis 1 lie outside of shape (2, 3)",
       [] {
         narrow(zeros({2, 3}), 1, 2, 2);
       }},
      {"select", [](In x) { return select(x[0], 1, 2); },
       "select: index 3 is outside of axis 1 of shape (2, 3)",
       [] {
         select(zeros({2, 3}), 1, 3);
       }},
      {"stack",
       [](In x) {
         return stack({x[0], x[1]}, 1);
       },
       "stack: shapes (2) and (3) differ",
       [] {
         stack({zeros({2}), zeros({3})});
       }},
      {"stack/last",
       [](In x) {
         return stack({x[0], x[1]}, -1);
       },
       "stack: axis 2 is outside", [] { stack({zeros({2})}, 2); }},
      {"flip", [](In x) { return flip(x[0], 1); }, "flip: axis 1 is outside of shape (2)",
       [] { flip(zeros({2}), 1); }},
      {"broadcast_to",
       [](In x) {
         return broadcast_to(x[0], {2, 3, 4});
       },
       "broadcast_to: (2, 3) does not broadcast to (2, 1)",
       [] {
         broadcast_to(zeros({2, 3}), {2, 1});
       }},
      {"cast", [](In x) { return cast(x[0], DType::int64); },
       "cast: the argument is an undefined tensor", [] { cast(Tensor(), DType::f64); }},
  });
}
