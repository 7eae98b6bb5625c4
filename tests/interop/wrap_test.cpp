// Memory that is not ours: Tensor::wrap, and what must not write into it.

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "ppma/models/ppma.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/sgd.hpp"
#include "ppma/tensor/autograd.hpp"
#include "thrown.hpp"

using namespace ppma;

TEST_CASE("a wrapped tensor is the memory it was given") {
  std::vector<float> values{1, 2, 3, 4, 5, 6};
  const i64 live = memory_stats().live_bytes;
  Tensor t = Tensor::wrap(std::span(values), {2, 3});
  CHECK(memory_stats().live_bytes == live);
  CHECK(std::as_const(t).data<float>() == values.data());
  values[4] = 50;
  CHECK(t.to_vector<float>() == std::vector<float>{1, 2, 3, 4, 50, 6});
  t.data<float>()[0] = -1;
  CHECK(values[0] == -1);
  CHECK(t.writable());
  CHECK(t.viewed_as({6}).writable());
  CHECK(Tensor::wrap(values.data(), {3, 2}).dtype() == DType::f32);
  std::vector<u8> bytes{7, 8};
  CHECK(Tensor::wrap(bytes.data(), {2}).dtype() == DType::uint8);
}

TEST_CASE("keep_alive lives as long as a tensor shares the elements") {
  auto owner = std::make_shared<std::vector<double>>(4, 2.5);
  const std::weak_ptr<std::vector<double>> watch = owner;
  Tensor loss;
  {
    Tensor t = Tensor::wrap(owner->data(), {2, 2}, owner);
    owner.reset();
    Tensor x = t.viewed_as({4});
    x.requires_grad(true);
    loss = sum(mul(x, x));  // its history has x
  }
  CHECK_FALSE(watch.expired());
  loss.backward();
  loss = Tensor();
  CHECK(watch.expired());
}

TEST_CASE("wrapped memory is checked") {
  std::vector<float> values(6);
  CHECK(says(
      [&] {
        Tensor::wrap(std::span(values), {2, 2});
      },
      "Tensor::wrap: 6 elements do not fill shape (2, 2)"));
  CHECK(says([] { Tensor::wrap(static_cast<float*>(nullptr), {1}); },
             "Tensor::wrap: a null pointer for the elements of shape (1)"));
  CHECK(Tensor::wrap(static_cast<float*>(nullptr), {0, 3}).numel() == 0);
  const char* const crooked = reinterpret_cast<const char*>(values.data()) + 2;
  CHECK(says([&] { Tensor::wrap_bytes(crooked, {2}, DType::f32, Device::cpu, nullptr, true); },
             "must lie at a multiple of 4 bytes (f32 on cpu)"));
  if (!cuda::compiled())
    CHECK(says([&] { Tensor::wrap(values.data(), {6}, nullptr, Device::cuda); },
               "compiled without CUDA"));
}

TEST_CASE("const elements are not changed") {
  const std::vector<float> values{1, 2, 3, 4};
  Tensor t = Tensor::wrap(values.data(), {4});
  CHECK_FALSE(t.writable());
  CHECK(std::as_const(t).data<float>()[2] == 3);
  const std::string message =
      "the tensor of shape (4) wraps const elements; clone() it to change them";
  CHECK(says([&] { t.data<float>(); }, message));
  CHECK(says([&] { t.raw(); }, message));
  CHECK(says([&] { t.copy_from(Tensor::zeros({4})); }, message));
  CHECK(says([&] { t.viewed_as({2, 2}).data<float>(); }, "(2, 2) wraps const elements"));
  CHECK(t.clone().writable());
  t.clone().data<float>()[0] = 9;
}

TEST_CASE("no operation writes into memory that was wrapped") {
  std::vector<float> one{1, 1, 1}, upstream{2, 3, 4};
  Tensor x = Tensor::from<float>({1, 2, 3}, {3});
  x.requires_grad(true);
  // Where a tensor's only owner works in place: sums of gradients, and a gradient's own room.
  x.set_grad(Tensor::wrap(one.data(), {3}));
  relu(x).backward(Tensor::wrap(upstream.data(), {3}));
  CHECK(x.grad().to_vector<float>() == std::vector<float>{3, 4, 5});
  CHECK(one == std::vector<float>{1, 1, 1});
  const Tensor y = relu(x);
  Tensor z = record(mul(y.detach(), y.detach()), "given", {y}, [&](const Tensor&) {
    return Grads{Tensor::wrap(upstream.data(), {3})};  // relu's backward is handed this
  });
  z.backward(Tensor::ones({3}));
  CHECK(upstream == std::vector<float>{2, 3, 4});
  CHECK(x.grad().to_vector<float>() == std::vector<float>{5, 7, 9});
}

TEST_CASE("parameters of const elements are refused before a step") {
  const std::vector<float> values{1, 2};
  Tensor w = Tensor::wrap(values.data(), {2});
  w.requires_grad(true);
  sum(mul(w, w)).backward();
  CHECK(w.grad().to_vector<float>() == std::vector<float>{2, 4});
  CHECK(says(
      [&] {
        parameters_with_rules({{"w", w}}, no_decay_rules(0));
      },
      "optimizer: parameter w wraps const elements"));
  CHECK(says([&] { Sgd({{"w", w, 0, 1}}).step(0.1); }, "parameter w wraps const elements"));
}

TEST_CASE("a network reads images and weights where they lie") {
  Ppma network(config_by_name("ppma_nano"));
  const i64 size = 32;
  std::vector<float> memory(static_cast<std::size_t>(3 * size * size + 1));
  Rng rng(1);
  for (float& v : memory) v = static_cast<float>(rng.normal());
  // One element behind an aligned address: no kernel may ask for more.
  const float* const pixels = memory.data() + 1;
  const Tensor image = Tensor::wrap(pixels, {1, 3, size, size});
  const std::vector<float> before = memory;
  CHECK(network.forward(image).to_vector<float>() ==
        network.forward(image.clone()).to_vector<float>());
  CHECK(memory == before);
}
