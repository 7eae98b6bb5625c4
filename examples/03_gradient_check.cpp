// 03: the gradient check. A backward pass that is wrong still trains a little; only a check finds
// it.
//
// The check shakes every input element, compares the change with what backward() says, and weighs
// the outputs unevenly: with equal weights the gradient of a softmax is zero, and a backward that
// returns nothing would pass.

#include <cstdio>

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/grad_check.hpp"
#include "ppma/tensor/tensor.hpp"

using namespace ppma;

namespace {

// An operation of one's own: y = x^3, recorded with its derivative. And the same with a mistake.
Tensor cube(const Tensor& x) {
  return record(mul(mul(x, x), x).detach(), "cube", {x}, [x = x.detach()](const Tensor& dy) {
    return Grads{mul(dy, scale(mul(x, x), 3))};  // y = x^3:  dx = 3 x^2 dy
  });
}
Tensor wrong_cube(const Tensor& x) {
  return record(mul(mul(x, x), x).detach(), "wrong_cube", {x}, [x = x.detach()](const Tensor& dy) {
    return Grads{mul(dy, scale(mul(x, x), 2))};  // forgot: the factor is 3
  });
}

int failures = 0;
void expect(bool ok, const char* what) {
  std::printf("%s: %s\n", ok ? "ok" : "FAILED", what);
  if (!ok) ++failures;
}

}  // namespace

int main() {
  Rng rng(1);
  const Tensor x = Tensor::randn({3, 4}, rng, 1, DType::f64);
  using In = const std::vector<Tensor>&;
  expect(grad_check([](In in) { return cube(in[0]); }, {x}).ok, "the cube's backward is right");
  expect(!grad_check([](In in) { return wrong_cube(in[0]); }, {x}).ok, "the wrong cube is caught");
  expect(grad_check([](In in) { return softmax(gelu(in[0])); }, {x}).ok, "softmax of GELU");

  // A gradient that vanishes everywhere proves nothing, and the check says so instead of passing.
  expect(!grad_check(
              [](In in) {
                return mul(in[0], Tensor::zeros({3, 4}, DType::f64));
              },
              {x})
              .ok,
         "a gradient of zero does not pass");
  return failures;
}

// Exercises (solutions/01_04.cpp):
//   1. Record y = 1 / x with its derivative, and check it.
//   2. Does relu pass the check at x = 0? Why not?
