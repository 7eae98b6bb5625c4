#include "ppma/ops/loss.hpp"

#include <cmath>

#include "catch.hpp"

using namespace ppma;

TEST_CASE("if every label is ignored the loss and its gradient are zero") {
  Tensor x = Tensor::ones({2, 3}, DType::f64).requires_grad(true);
  const Tensor loss = cross_entropy(x, Tensor::full({2}, -100, DType::int64));
  CHECK(loss.item() == 0);
  loss.backward();
  CHECK(x.grad().to_vector<double>() == std::vector<double>(6, 0.0));
}

TEST_CASE("the ignored rows count in the mean if asked for") {
  const Tensor x = Tensor::zeros({4, 2}, DType::f64),
               labels = Tensor::from<i64>({0, 255, 255, 1}, {4});
  CHECK(std::fabs(cross_entropy(x, labels, {0, 255, false}).item() - std::log(2.0)) < 1e-15);
  CHECK(std::fabs(cross_entropy(x, labels, {0, 255, true}).item() - std::log(2.0) / 2) < 1e-15);
}

TEST_CASE("large logits give finite losses, and one-hot targets the labels' loss") {
  const Tensor x = Tensor::from<float>({1000, -1000, 0, -1000, 1000, 0}, {2, 3});
  CHECK(cross_entropy(x, Tensor::from<i64>({0, 0}, {2})).item() == 1000);
  CHECK(cross_entropy(x, Tensor::from<float>({1, 0, 0, 1, 0, 0}, {2, 3})).item() == 1000);
}

TEST_CASE("the loss keeps one number a row, not a softmax") {
  Tensor x = Tensor::zeros({64, 1024}).requires_grad(true);
  const i64 live = memory_stats().live_bytes;
  const Tensor loss = cross_entropy(x, Tensor::zeros({64}, DType::int64));
  CHECK(memory_stats().live_bytes - live <= 4096);
}
