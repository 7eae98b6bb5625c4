#include "ppma/tensor/autograd.hpp"

#include <thread>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

Tensor leaf(const std::vector<double>& values, const Shape& shape) {
  return Tensor::from(values, shape).requires_grad(true);
}
Tensor leaf(double value) { return leaf({value}, {}); }
std::vector<double> gradient(const Tensor& t) { return t.grad().to_vector<double>(); }
using Numbers = std::vector<double>;

}  // namespace

TEST_CASE("a million operations run backward and are released without recursion") {
  const i64 live = memory_stats().live_bytes;
  const int operations = sanitized() ? 100000 : 1000000;  // either breaks a stack that recurses
  {
    Tensor x = leaf(1);
    Tensor y = x;
    for (int i = 0; i < operations; ++i) y = add_scalar(y, 1e-6);
    y.backward();
    CHECK(gradient(x) == Numbers{1});
    // And a chain that is released without having run backward.
    Tensor z = x;
    for (int i = 0; i < operations; ++i) z = add_scalar(z, 1e-6);
  }
  CHECK(memory_stats().live_bytes == live);
}

TEST_CASE("gradients of broadcast operands are summed back") {
  Tensor a = leaf({1, 2, 3, 4, 5, 6}, {2, 3}), row = leaf({1, 10, 100}, {3}),
         column = leaf({2, 3}, {2, 1}), one = leaf(5);
  mul(add(mul(a, row), column), one).backward(Tensor::from<double>({1, 1, 1, 1, 1, 2}, {2, 3}));
  // y = (a row + column) one
  CHECK(gradient(a) == Numbers{5, 50, 500, 5, 50, 1000});
  CHECK(gradient(row) == Numbers{25, 35, 75});
  CHECK(row.grad().shape() == Shape{3});
  CHECK(gradient(column) == Numbers{15, 20});
  CHECK(column.grad().shape() == Shape{2, 1});
  CHECK(gradient(one) == Numbers{1 + 20 + 300 + 4 + 50 + 1200 + 6 + 12});
  CHECK(one.grad().shape() == Shape{});
}

TEST_CASE("a tensor used several times gets the sum of its gradients") {
  Tensor x = leaf({2, 3}, {2});
  const Tensor s = square(x);
  sum(s * s + s * x + x + x).backward();  // x^4 + x^3 + 2 x
  CHECK(gradient(x) == Numbers{4 * 8 + 3 * 4 + 2, 4 * 27 + 3 * 9 + 2});

  // A diamond whose two arms are of different length, and an operand given twice.
  Tensor y = leaf(3);
  const Tensor m = mul(y, y);
  add(neg(neg(m)), m).backward();
  CHECK(gradient(y) == Numbers{12});
}

TEST_CASE("a gradient that two paths share is not changed in place under either") {
  // add returns its upstream gradient twice; relu-like ops reuse it as their own result where they
  // are its only owner.
  Tensor a = leaf({1, 2}, {2}), b = leaf({3, 4}, {2});
  const Tensor s = add(scale(a, 2), scale(b, 3));
  sum(add(scale(s, 5), s)).backward();
  CHECK(gradient(a) == Numbers{12, 12});
  CHECK(gradient(b) == Numbers{18, 18});
  // The caller's upstream gradient stays as it is.
  const Tensor up = Tensor::from<double>({1, 10}, {2});
  scale(a, 7).backward(up);
  CHECK(up.to_vector<double>() == Numbers{1, 10});
  CHECK(gradient(a) == Numbers{19, 82});
}

TEST_CASE("leaves accumulate, own their gradient, and can be cleared") {
  Tensor a = leaf({1, 2}, {2}), b = leaf({1, 2}, {2});
  sum(a + b).backward();
  CHECK(gradient(a) == Numbers{1, 1});
  // An optimiser changes one leaf's gradient in place: the other's must not follow.
  Tensor g = a.grad();
  g.data<double>()[0] = 50;
  CHECK(gradient(a) == Numbers{50, 1});
  CHECK(gradient(b) == Numbers{1, 1});
  sum(scale(a, 2)).backward();
  CHECK(gradient(a) == Numbers{52, 3});
  a.zero_grad();
  CHECK_FALSE(a.grad().defined());
  sum(a).backward();
  CHECK(gradient(a) == Numbers{1, 1});

  // A leaf that is its own result.
  Tensor c = leaf(4);
  c.backward();
  CHECK(gradient(c) == Numbers{1});
  // The upstream gradient of a leaf is copied too.
  Tensor up = Tensor::from<double>({3, 3}, {2});
  b.zero_grad();
  b.backward(up);
  up.data<double>()[0] = 0;
  CHECK(gradient(b) == Numbers{3, 3});
}

TEST_CASE("nothing is recorded under NoGrad, and detach cuts") {
  Tensor x = leaf(2);
  {
    const NoGrad off;
    CHECK_FALSE(grad_enabled());
    CHECK_FALSE(square(x).requires_grad());
    { const NoGrad nested; }
    CHECK_FALSE(grad_enabled());
  }
  CHECK(grad_enabled());
  try {
    const NoGrad off;
    fail("an exception");
  } catch (const Error&) {
  }
  CHECK(grad_enabled());
  const Tensor s = square(x);
  CHECK(s.requires_grad());
  mul(s.detach(), x).backward();  // 4 x, not x^3
  CHECK(gradient(x) == Numbers{4});
  CHECK_FALSE(square(Tensor::scalar(2)).requires_grad());
  CHECK(needs_grad({Tensor(), x}));
  CHECK_FALSE(needs_grad({Tensor(), s.detach()}));
}

TEST_CASE("the tape and the recording switch belong to their thread") {
  const NoGrad off;
  bool recorded = false;
  double g = 0;
  std::thread([&] {
    Tensor x = leaf(3);
    const Tensor y = square(x);
    recorded = y.requires_grad();
    y.backward();
    g = x.grad().item();
  }).join();
  CHECK(recorded);
  CHECK(g == 6);
}

TEST_CASE("differentiating twice is an error, not a wrong gradient") {
  Tensor x = leaf(2);
  const Tensor y = square(x);
  y.backward();
  CHECK(says([&] { y.backward(); }, "square was already differentiated"));
  // Also through a new operation on top of the old one.
  CHECK(says([&] { neg(y).backward(); }, "compute the forward pass again"));
}

TEST_CASE("what backward keeps is freed when its operation has run") {
  Tensor x = Tensor::ones({1 << 16}, DType::f64).requires_grad(true);
  const i64 live = memory_stats().live_bytes, one = x.bytes();
  Tensor y = exp(exp(exp(exp(x)) * 0.1) * 0.1);
  CHECK(memory_stats().live_bytes >= live + 4 * one);
  Tensor loss = sum(y);
  y = Tensor();
  loss.backward();
  // the gradient of x and the scalar
  CHECK(memory_stats().live_bytes <= live + one * 9 / 8 + 4096);
}

TEST_CASE("the engine checks what closures return") {
  Tensor x = leaf({1, 2}, {2});
  const auto with = [&](const Backward& b) {
    return record(Tensor::from<double>({1, 2}, {2}), "mine", {x}, b);
  };
  const Tensor up = Tensor::from<double>({1, 1}, {2});
  CHECK(says(
      [&] {
        with([](const Tensor&) { return Grads{Tensor::zeros({3}, DType::f64)}; }).backward(up);
      },
      "mine: shapes (3) and (2) do not broadcast"));
  CHECK(says(
      [&] {
        with([](const Tensor&) { return Grads{Tensor::zeros({1}, DType::f64)}; }).backward(up);
      },
      "backward of mine: a gradient of shape (1) was returned for an input of shape (2)"));
  CHECK(says([&] { with([](const Tensor& dy) {
                     return Grads{dy, dy};
                   }).backward(up); },
             "backward of mine: 2 gradients for 1 inputs"));
  CHECK(says([&] { with([](const Tensor&) { return Grads{Tensor::zeros({2})}; }).backward(up); },
             "backward of mine: a gradient of dtype f32 for input 0 of dtype f64"));
  // No gradient at all is allowed.
  with([](const Tensor&) { return Grads{Tensor()}; }).backward(up);
  CHECK_FALSE(x.grad().defined());
  // An operation inside of a closure is not recorded.
  bool recorded = true;
  with([&](const Tensor& dy) {
    recorded = square(x).requires_grad();
    return Grads{dy};
  }).backward(up);
  CHECK_FALSE(recorded);
}

TEST_CASE("misuse of backward says what to do") {
  Tensor x = leaf({1, 2}, {2});
  CHECK(says([&] { square(x).backward(); }, "a tensor of shape (2) needs an upstream gradient"));
  CHECK(says([&] { square(x).backward(Tensor::zeros({3}, DType::f64)); },
             "the upstream gradient is (3) f64, the tensor (2) f64"));
  CHECK(says([&] { square(x).backward(Tensor::zeros({2})); }, "the upstream gradient is (2) f32"));
  CHECK(says([] { Tensor::scalar(1).backward(); },
             "nothing that made this tensor requires a gradient"));
  CHECK(says([&] { square(x).requires_grad(true); }, "only a leaf can be marked"));
  CHECK(says([&] { x.set_grad(Tensor::zeros({3}, DType::f64)); },
             "set_grad: a gradient of shape (3) for a tensor of shape (2)"));
  CHECK(says([] { Tensor::scalar(1).set_grad(Tensor::scalar(1)); }, "does not require a gradient"));
}
