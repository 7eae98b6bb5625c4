// Solutions of the exercises of lessons 01 to 04.

#include "../check.hpp"
#include "ppma/nn/layers.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/grad_check.hpp"

// Lesson 02 is a program of its own; here its tape is wanted.
#define main lesson_02
#include "../02_autodiff_from_scratch.cpp"
#undef main

using namespace ppma;

namespace {

void lesson_01_1() {
  const Tensor image = Tensor::from<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor centred = image - mean(image, {1}, true);  // (2,3) - (2,1)
  expect(centred.to_vector<float>() == std::vector<float>{-1, 0, 1, -1, 0, 1}, "01.1: -1 0 1");
}

void lesson_01_2() {
  const Tensor both = Tensor::from<float>({1, 2, 3}, {3}) + Tensor::from<float>({10, 20}, {2, 1});
  expect(both.shape() == Shape({2, 3}) &&
             both.to_vector<float>() == std::vector<float>{11, 12, 13, 21, 22, 23},
         "01.2: (2,3), every pair's sum");
}

Value exp(Value a) {
  const double y = std::exp(a.value());
  return record(y, {{a.number, y}});  // the derivative of exp is exp
}
void lesson_02_1() {
  const Value x = leaf(0.5), w = leaf(-1.5);
  backward(exp(w * x));
  expect(std::fabs(x.gradient() - -1.5 * std::exp(-0.75)) < 1e-15, "02.1: w exp(w x)");
}

void lesson_02_2() {
  tape.clear();
  const Value x = leaf(3), y = x * x;
  backward(y);
  // x is an input twice, each time with the derivative 3; the second would replace the first.
  expect(x.gradient() == 6 && tape[1].inputs[1].second == 3, "02.2: 3 instead of 6");
}

Tensor reciprocal(const Tensor& x) {
  const Tensor y = (Tensor::ones({1}, x.dtype()) / x).detach();
  return ppma::record(y, "reciprocal", {x}, [y](const Tensor& dy) {
    return Grads{scale(dy * y * y, -1)};  // d(1/x) = -1/x^2
  });
}
void lesson_03_1() {
  const Tensor x = Tensor::from<double>({0.5, -2, 3}, {3});
  expect(grad_check([](const std::vector<Tensor>& in) { return reciprocal(in[0]); }, {x}).ok,
         "03.1: dx = -y^2 dy");
}

void lesson_03_2() {
  const auto passes = [](double at) {
    const auto f = [](const std::vector<Tensor>& in) { return relu(in[0]); };
    return grad_check(f, {Tensor::full({3}, at, DType::f64)}).ok;
  };
  // The slope to the right is 1, to the left 0; shaking finds their mean, backward() one of them.
  expect(passes(1) && !passes(0), "03.2: not at 0, where relu has a corner");
}

// Two spirals as in lesson 04; returns the loss and the share of points told apart.
std::pair<double, double> spirals(bool gelus, float momentum) {
  Rng rng(4);
  std::vector<float> points;
  std::vector<i64> labels;
  for (int i = 0; i < 200; ++i) {
    const double t = (i / 2) / 100.0, turn = 3.5 * t + (i % 2 == 0 ? 0 : 3.14159265);
    points.push_back(static_cast<float>((0.1 + t) * std::cos(turn)));
    points.push_back(static_cast<float>((0.1 + t) * std::sin(turn)));
    labels.push_back(i % 2);
  }
  const Tensor x = Tensor::from(points, {200, 2}), y = Tensor::from(labels, {200});
  std::vector<Tensor> weights, velocity;
  for (const auto& [out, in] : {std::pair<i64, i64>{32, 2}, {32, 32}, {2, 32}}) {
    weights.push_back(
        parameter(Tensor::randn({out, in}, rng, 1 / std::sqrt(static_cast<double>(in)))));
    velocity.push_back(Tensor::zeros({out, in}));
  }
  double loss_left = 0, right = 0;
  for (int step = 0; step <= 300; ++step) {
    const auto layer = [&](const Tensor& t, std::size_t k) {
      return linear(t, weights[k], Tensor());
    };
    const auto bend = [&](const Tensor& t) { return gelus ? gelu(t) : t; };
    const Tensor logits = layer(bend(layer(bend(layer(x, 0)), 1)), 2), guess = argmax(logits, 1);
    const Tensor loss = cross_entropy(logits, y);
    loss_left = loss.item(), right = 0;
    for (std::size_t i = 0; i < 200; ++i) right += guess.data<i64>()[i] == labels[i] ? 0.005 : 0;
    loss.backward();
    for (std::size_t k = 0; k < 3; ++k) {
      const Tensor gradient = weights[k].grad();
      for (i64 e = 0; e < gradient.numel(); ++e) {
        float& v = velocity[k].data<float>()[e];
        weights[k].data<float>()[e] += v = momentum * v - 0.1f * gradient.data<float>()[e];
      }
      weights[k].zero_grad();
    }
  }
  return {loss_left, right};
}
void lesson_04() {
  const auto [loss, right] = spirals(true, 0.9f);
  expect(right > 0.99, "04: as in the lesson");
  const double line = spirals(false, 0.9f).second;
  std::printf("a network without bends: %.0f %%\n", 100 * line);
  expect(line < 0.95, "04.1: what one straight line can");
  expect(spirals(true, 0).first > 10 * loss, "04.2: the loss is far from where it was");
}

}  // namespace

int main() {
  lesson_01_1(), lesson_01_2(), lesson_02_1(), lesson_02_2(), lesson_03_1(), lesson_03_2();
  lesson_04();
  return failures;
}
