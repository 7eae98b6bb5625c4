#include "ppma/tensor/grad_check.hpp"

#include <cmath>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/tensor.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

// exp with a backward of choice.
Tensor bad_exp(const Tensor& x,
               const std::function<Tensor(const Tensor& dy, const Tensor& y)>& backward) {
  const Tensor y = exp(x.detach());
  return record(y, "bad_exp", {x},
                [y = y.detach(), backward](const Tensor& dy) { return Grads{backward(dy, y)}; });
}
GradCheck check_exp(const std::function<Tensor(const Tensor& dy, const Tensor& y)>& backward) {
  Rng rng(1);
  return grad_check([&](const std::vector<Tensor>& in) { return bad_exp(in[0], backward); },
                    {Tensor::randn({3, 4}, rng, 1, DType::f64)});
}

}  // namespace

TEST_CASE("grad_check accepts a right backward and no other") {
  const GradCheck right = check_exp([](const Tensor& dy, const Tensor& y) { return mul(dy, y); });
  INFO(right.report);
  CHECK(right.ok);
  CHECK(right.worst < 1e-8);
  CHECK(static_cast<bool>(right));
  CHECK_FALSE(check_exp([](const Tensor& dy, const Tensor& y) { return neg(mul(dy, y)); }).ok);
  CHECK_FALSE(check_exp([](const Tensor& dy, const Tensor&) { return dy; }).ok);
  CHECK_FALSE(
      check_exp([](const Tensor& dy, const Tensor& y) { return scale(mul(dy, y), 1 + 1e-6); }).ok);
  CHECK_FALSE(check_exp([](const Tensor& dy, const Tensor& y) {
                Tensor dx = mul(dy, y).clone();
                dx.data<double>()[7] = 0;  // one element of twelve
                return dx;
              }).ok);
  const GradCheck none = check_exp([](const Tensor&, const Tensor&) { return Tensor(); });
  CHECK_FALSE(none.ok);
  CHECK(none.report.find("backward gave no gradient") != std::string::npos);
  CHECK_FALSE(
      check_exp([](const Tensor& dy, const Tensor&) { return scale(dy, std::nan("")); }).ok);
}

TEST_CASE("a softmax is tested although its sum is constant; a constant function is not passed") {
  Rng rng(2);
  const Tensor x = Tensor::randn({2, 5}, rng, 1, DType::f64);
  CHECK(grad_check([](const std::vector<Tensor>& in) { return softmax(in[0]); }, {x}).ok);
  const GradCheck constant =
      grad_check([](const std::vector<Tensor>& in) { return sum(softmax(in[0])); }, {x});
  CHECK_FALSE(constant.ok);
  CHECK(constant.report.find("about zero") != std::string::npos);
  CHECK_FALSE(grad_check([](const std::vector<Tensor>& in) { return in[0].detach(); }, {x}).ok);
}

TEST_CASE("inputs: f64 is checked, integers and absent ones are passed on, f32 is refused") {
  Rng rng(3);
  const Tensor x = Tensor::randn({5}, rng, 1, DType::f64), index = Tensor::from<i64>({4}, {1});
  const auto f = [](const std::vector<Tensor>& in) {
    CHECK_FALSE(in[1].defined());
    return scale(square(in[0]), static_cast<double>(in[2].data<i64>()[0]));
  };
  CHECK(grad_check(f, {x, Tensor(), index}).ok);
  CHECK(says([&] { grad_check(f, {cast(x, DType::f32)}); },
             "grad_check: inputs must be f64, got f32"));
  int calls = 0;
  GradCheckOptions few;
  few.max_elements = 10;
  const GradCheck g = grad_check(
      [&](const std::vector<Tensor>& in) {
        ++calls;
        return square(in[0]);
      },
      {Tensor::randn({1000}, rng, 1, DType::f64)}, few);
  CHECK(g.ok);
  CHECK(calls == 21);
}
