#include "ppma/ops/rotary.hpp"

#include "op_cases/op_case.hpp"
#include "ppma/ops/residual.hpp"

using namespace op_cases;

namespace {
// keep (1.25, 0): the first sample's branch is kept with probability 0.8, the second's is dropped.
Tensor keep(const Tensor& x) {
  Tensor k = Tensor::empty({2}, accumulator_dtype(x.dtype()), x.device());
  k.copy_from(Tensor::from<double>({1.25, 0}, {2}));
  return k;
}
Tensor angle(i64 d, const Tensor& x) {
  return rotary_angle(d, accumulator_dtype(x.dtype())).to(x.device());
}
}  // namespace

TEST_CASE("op table: rotary, residual") {
  check_table({
      {"rotary", [](In x) { return rotary(x[0], angle(4, x[0]), 2, 0.5); },
       "rotary: 3 heads do not divide the 8 channels of x",
       [] {
         rotary(zeros({1, 2, 2, 8}), zeros({4}), 3);
       }},
      {"rotary/wide heads", [](In x) { return rotary(x[0], angle(20, x[0]), 1); },
       "rotary: angle must be (4), one entry a channel of a head, got (2)",
       [] {
         rotary(zeros({1, 2, 2, 8}), zeros({2}), 2);
       }},
      {"residual",
       [](In x) { return residual(x[0], x[1]); },
       "residual: x (2, 3) and a (2, 4) must have one shape",
       [] {
         residual(zeros({2, 3}), zeros({2, 4}));
       },
       {2}},
      {"residual/scaled",
       [](In x) { return residual(x[0], x[1], x[2], keep(x[0])); },
       "residual: keep must be (2), got (3)",
       [] {
         residual(zeros({2, 3}), zeros({2, 3}), Tensor(), zeros({3}));
       },
       {2}},
      {"residual/layer scale",
       [](In x) { return residual(x[0], x[1], x[2]); },
       "residual: gamma must be (3) or (1,...,3), got (2)",
       [] {
         residual(zeros({2, 3}), zeros({2, 3}), zeros({2}));
       },
       {2}},
  });
}
