// Kernels of the GPU that the op table's small shapes do not reach: rows streamed through shared
// memory, tensor cores, statistics of many rows. Against the CPU in float64 on the same bf16
// numbers; twice, for the same bits.

#include <cmath>
#include <cstring>
#include <functional>
#include <vector>

#include "catch.hpp"
#include "distance.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/depthwise_gelu.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/ops/rotary.hpp"
#include "ppma/tensor/autograd.hpp"

#if PPMA_TEST_GPU

using namespace ppma;

namespace {

using In = const std::vector<Tensor>&;

Tensor converted(const Tensor& t, DType dtype) {
  Tensor y = Tensor::empty(t.shape(), dtype);
  y.copy_from(t);
  return y;
}

// The value and all gradients of f; the first input is bf16, the others are parameters in f32.
void check_bf16(const std::function<Tensor(In)>& f, const std::vector<Shape>& shapes) {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(7);
  std::vector<Tensor> numbers, here;
  for (const Shape& s : shapes) {
    numbers.push_back(converted(Tensor::randn(s, rng), numbers.empty() ? DType::bf16 : DType::f32));
    here.push_back(converted(numbers.back(), DType::f64));
    here.back().requires_grad(true);
  }
  const Tensor y = f(here), dy = converted(Tensor::randn(y.shape(), rng), DType::bf16);
  y.backward(converted(dy, DType::f64));
  std::vector<Tensor> before;
  for (int run = 0; run < 2; ++run) {
    std::vector<Tensor> there;
    for (const Tensor& t : numbers)
      there.push_back(t.to(Device::cuda)), there.back().requires_grad(true);
    const Tensor z = f(there);
    z.backward(dy.to(Device::cuda));
    std::vector<Tensor> all{z.to(Device::cpu)};
    for (const Tensor& t : there) all.push_back(t.grad().to(Device::cpu));
    for (std::size_t k = 0; k < all.size(); ++k) {
      INFO("output " << k);
      if (run == 0)
        CHECK(distance(all[k], k == 0 ? y : here[k - 1].grad()) < 1e-2);
      else
        CHECK(std::memcmp(all[k].raw(), before[k].raw(),
                          static_cast<std::size_t>(all[k].bytes())) == 0);
    }
    before = all;
  }
}

}  // namespace

TEST_CASE("cuda: depthwise rows streamed through shared memory", "[cuda]") {
  const auto plain = [](In x) { return depthwise_conv2d(x[0], x[1], x[2]); };
  const auto with_x = [](In x) { return depthwise_conv2d(x[0], x[1], x[2], x[0]); };
  check_bf16(plain, {{3, 31, 33, 64}, {64, 1, 3, 3}, {64}});
  check_bf16(with_x, {{2, 29, 58, 128}, {128, 1, 5, 5}, {128}});
  check_bf16(with_x, {{40, 14, 14, 64}, {64, 1, 3, 3}, {64}});
  check_bf16(plain, {{1, 5, 3, 64}, {64, 1, 5, 5}, {64}});
}

TEST_CASE("cuda: depthwise convolution of a few images by tiles", "[cuda]") {
  const auto plain = [](In x) { return depthwise_conv2d(x[0], x[1]); };
  const auto with_x = [](In x) { return depthwise_conv2d(x[0], x[1], x[2], x[0]); };
  const auto with_other = [](In x) { return depthwise_conv2d(x[0], x[1], x[2], x[0] * x[0]); };
  check_bf16(with_x, {{8, 14, 14, 256}, {256, 1, 3, 3}, {256}});
  check_bf16(plain, {{23, 14, 14, 64}, {64, 1, 3, 3}});
  check_bf16(with_other, {{6, 28, 28, 64}, {64, 1, 3, 3}, {64}});
  check_bf16(with_other, {{3, 28, 42, 128}, {128, 1, 5, 5}, {128}});
  check_bf16(with_x, {{2, 14, 70, 192}, {192, 1, 5, 5}, {192}});
  check_bf16(with_other, {{8, 56, 56, 64}, {64, 1, 5, 5}, {64}});
}

TEST_CASE("cuda: all gradients of a depthwise convolution in one pass", "[cuda]") {
  const auto around = [](In x) {
    return depthwise_conv2d(x[0], x[1], x[2], [&] { return x[0] * x[0]; });
  };
  const auto of_others = [](In x) { return depthwise_conv2d(x[0], x[1], x[2], x[0]) + x[0]; };
  check_bf16(around, {{3, 31, 33, 64}, {64, 1, 3, 3}, {64}});
  check_bf16(around, {{2, 29, 58, 72}, {72, 1, 5, 5}, {72}});
  check_bf16(around, {{200, 7, 7, 64}, {64, 1, 5, 5}, {64}});
  check_bf16(of_others, {{40, 14, 14, 64}, {64, 1, 3, 3}, {64}});
  check_bf16([](In x) { return depthwise_gelu(x[0], x[1], x[2]); },
             {{5, 20, 9, 200}, {200, 1, 3, 3}, {200}});
  const auto after_product = [](In x) {
    return depthwise_gelu(linear(x[0], x[1], x[2].detach()), x[3], x[4], x[2]);
  };
  check_bf16(after_product, {{5, 20, 9, 16}, {200, 16}, {200}, {200, 1, 3, 3}, {200}});
  check_bf16(after_product, {{44, 28, 28, 64}, {192, 64}, {192}, {192, 1, 3, 3}, {192}});
  // of frozen weights, and composed
  check_bf16(
      [](In x) {
        const Tensor w = Tensor::full({64, 1, 3, 3}, 0.25, x[1].dtype(), x[1].device());
        return depthwise_gelu(x[0], w, Tensor(), x[1]);
      },
      {{3, 31, 33, 64}, {64}});
  check_bf16(after_product, {{2, 5, 6, 16}, {68, 16}, {68}, {68, 1, 3, 3}, {68}});
}

TEST_CASE("cuda: GELU inside of the depthwise convolution", "[cuda]") {
  const auto f = [](In x) { return depthwise_gelu(x[0], x[1], x[2]); };
  check_bf16(f, {{3, 31, 33, 64}, {64, 1, 3, 3}, {64}});
  check_bf16(f, {{2, 14, 14, 192}, {192, 1, 3, 3}, {192}});
  check_bf16(f, {{1, 1, 1, 64}, {64, 1, 3, 3}, {64}});
  check_bf16(f, {{2, 5, 6, 72}, {72, 1, 3, 3}, {72}});  // composed
}

TEST_CASE("cuda: a product that adds", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(3);
  const NoGrad off;
  for (const i64 out : {64, 7}) {
    const Tensor x = Tensor::randn({300, 40}, rng), w = Tensor::randn({out, 40}, rng),
                 b = Tensor::randn({out}, rng), add = Tensor::randn({300, out}, rng);
    const Tensor y = linear(x, w, b, add), z = linear(x.to(Device::cuda), w.to(Device::cuda),
                                                      b.to(Device::cuda), add.to(Device::cuda));
    CHECK(distance(z.to(Device::cpu), y) < 1e-6);
    const auto narrow = [](const Tensor& t) { return converted(t, DType::bf16).to(Device::cuda); };
    CHECK(distance(linear(narrow(x), narrow(w), narrow(b), narrow(add)).to(Device::cpu), y) < 1e-2);
  }
}

TEST_CASE("cuda: the first convolution takes images as they come, in bf16", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(4);
  for (const i64 out : {40, 48, 64}) {
    const Tensor images = converted(Tensor::randn({3, 3, 26, 18}, rng), DType::bf16),
                 weights = Tensor::randn({out, 3, 3, 3}, rng), shift = Tensor::randn({out}, rng);
    std::vector<Tensor> results[2];
    for (const bool turned : {false, true}) {
      const Tensor x = images.to(Device::cuda);
      Tensor w = weights.to(Device::cuda), b = shift.to(Device::cuda);
      w.requires_grad(true), b.requires_grad(true);
      const i64 before = memory_stats(Device::cuda).live_bytes;
      const Tensor y = turned ? conv2d(permute(x, {0, 2, 3, 1}), w, b, {2, 1, 1})
                              : conv2d_of_images(x, w, b, {2, 1, 1});
      // backward's copy of the images is not there yet, where a kernel takes these
      const i64 more = memory_stats(Device::cuda).live_bytes - before - y.numel() * 2;
      if (!turned && out % 16 == 0) CHECK(more < images.numel() * 2);
      Tensor dy = Tensor::full(y.shape(), 0.5, DType::bf16, Device::cuda);
      y.backward(dy);
      for (const Tensor& t : {y.detach(), w.grad(), b.grad()})
        results[turned].push_back(converted(t.to(Device::cpu), DType::f64));
    }
    for (std::size_t i = 0; i < 3; ++i) CHECK(distance(results[0][i], results[1][i]) < 5e-3);
    CHECK(distance(results[0][1], results[1][1]) == 0);
  }
}

TEST_CASE("cuda: GELU and rotation in one launch give what the single operations give", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(4);
  const NoGrad off;
  const auto there = [&](const Shape& s) {
    return converted(Tensor::randn(s, rng), DType::bf16).to(Device::cuda);
  };
  for (const i64 c : {3, 32, 136})
    for (const i64 out : {40, 64}) {
      const Tensor x = there({2, 30, 28, c}), w = there({out, c, 3, 3}), b = there({out});
      CHECK(distance(conv2d_gelu(x, w, b, {2, 1, 1}).to(Device::cpu),
                     gelu(conv2d(x, w, b, {2, 1, 1})).to(Device::cpu)) < 5e-3);
    }
  for (const i64 out : {40, 48, 64}) {
    const Tensor x = there({3, 3, 26, 18}), w = there({out, 3, 3, 3}), b = there({out});
    CHECK(distance(conv2d_gelu_of_images(x, w, b, {2, 1, 1}).to(Device::cpu),
                   conv2d_gelu(permute(x, {0, 2, 3, 1}), w, b, {2, 1, 1}).to(Device::cpu)) < 5e-3);
  }
  for (const DType dtype : {DType::bf16, DType::f32, DType::f64}) {
    const Tensor q = converted(Tensor::randn({2, 3, 5, 24}, rng), dtype).to(Device::cuda),
                 k = converted(Tensor::randn({2, 3, 5, 24}, rng), dtype).to(Device::cuda);
    const Tensor angle = rotary_angle(12, accumulator_dtype(dtype)).to(Device::cuda);
    const Rotated both = rotary(q, k, angle, 2, 0.3);
    CHECK(distance(both.q.to(Device::cpu), rotary(q, angle, 2).to(Device::cpu)) == 0);
    CHECK(distance(both.k.to(Device::cpu), rotary(k, angle, 2, 0.3).to(Device::cpu)) == 0);
  }
}

TEST_CASE("cuda: convolutions on the tensor cores", "[cuda]") {
  const auto conv = [](ConvOptions options) {
    return [options](In x) { return conv2d(x[0], x[1], x[2], options); };
  };
  check_bf16(conv({2, 1, 1}), {{2, 14, 14, 64}, {128, 64, 3, 3}, {128}});
  check_bf16(conv({1, 1, 1}), {{4, 28, 28, 32}, {32, 32, 3, 3}, {32}});
  check_bf16(conv({1, 1, 1}), {{2, 7, 7, 136}, {200, 136, 3, 3}, {200}});
  check_bf16(conv({2, 1, 1}), {{2, 30, 30, 3}, {32, 3, 3, 3}, {32}});
  check_bf16(conv({2, 2, 1}), {{2, 16, 16, 40}, {40, 40, 5, 5}, {40}});
  check_bf16(conv({1, 1, 1}), {{2, 9, 7, 256}, {136, 256, 3, 3}, {136}});
  check_bf16(conv({2, 1, 1}), {{2, 10, 9, 256}, {136, 256, 3, 3}, {136}});
  // Enough work for cuDNN, where it is there.
  check_bf16(conv({1, 1, 1}), {{5, 28, 28, 256}, {256, 256, 3, 3}, {256}});
  check_bf16(conv({2, 1, 1}), {{9, 41, 40, 256}, {256, 256, 3, 3}, {256}});
}

TEST_CASE("cuda: convolutions with their weights in registers", "[cuda]") {
  const auto conv = [](i64 stride) {
    return [stride](In x) { return conv2d(x[0], x[1], x[2], {stride, 1, 1}); };
  };
  struct Case {
    i64 stride, images, h, w, in, out;
  };
  // Columns that are not whole, an odd number of them, rows in pieces, the last row without a tap.
  for (const Case& c :
       {Case{1, 3, 11, 13, 32, 32}, Case{1, 1, 40, 24, 32, 96}, Case{1, 5, 7, 6, 64, 64},
        Case{2, 2, 12, 18, 32, 64}, Case{2, 3, 11, 7, 32, 64}, Case{2, 1, 33, 30, 48, 96},
        Case{2, 2, 9, 10, 64, 128}, Case{2, 3, 10, 9, 96, 192}, Case{2, 2, 14, 14, 128, 64},
        Case{2, 3, 10, 14, 3, 32}, Case{2, 2, 33, 22, 3, 48}, Case{2, 300, 4, 4, 32, 64}}) {
    INFO(c.in << " to " << c.out << " channels, " << c.h << " x " << c.w);
    check_bf16(conv(c.stride), {{c.images, c.h, c.w, c.in}, {c.out, c.in, 3, 3}, {c.out}});
  }
}

TEST_CASE("cuda: images to channels last", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(8);
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const i64 width : {16, 48, 50}) {
      const Tensor x = converted(scale(Tensor::randn({3, 3, 16, width}, rng), 20), dtype),
                   y = permute(x.to(Device::cuda), {0, 2, 3, 1}).to(Device::cpu),
                   z = permute(x, {0, 2, 3, 1});
      CHECK(std::memcmp(y.raw(), z.raw(), static_cast<std::size_t>(z.bytes())) == 0);
    }
}

TEST_CASE("cuda: gradients of weights and bias in one pass over many rows", "[cuda]") {
  const auto product = [](In x) { return linear(x[0], x[1], x[2]); };
  const auto without_bias = [](In x) { return linear(x[0], x[1]); };
  for (const auto& [in, out] :
       {std::pair<i64, i64>{64, 64}, {64, 192}, {192, 64}, {128, 128}, {128, 384}}) {
    check_bf16(product, {{32768 + 37, in}, {out, in}, {out}});
    check_bf16(without_bias, {{32768 + 37, in}, {out, in}});
  }
}

TEST_CASE("cuda: products and norms of many rows", "[cuda]") {
  check_bf16([](In x) { return linear(x[0], x[1], x[2]); }, {{5000, 64}, {192, 64}, {192}});
  for (const i64 cols : {64, 136, 256, 384, 512, 1024, 2048})
    check_bf16([](In x) { return layer_norm(x[0], x[1], x[2]); }, {{500, cols}, {cols}, {cols}});
  const auto norm = [](In x) {
    Tensor mean = Tensor::zeros(x[1].shape(), x[1].dtype(), x[1].device()),
           var = Tensor::ones(x[1].shape(), x[1].dtype(), x[1].device());
    return batch_norm(x[0], x[1], x[2], mean, var, true);
  };
  check_bf16(norm, {{7777, 32}, {32}, {32}});
  check_bf16(norm, {{20001, 24}, {24}, {24}});
}

#endif
