// What is done to resized maps without making them, on the GPU: convolutions and cross entropy,
// against the CPU's.

#if PPMA_TEST_GPU

#include "cuda_compare.hpp"
#include "ppma/ops/conv_resized.hpp"
#include "ppma/ops/resized_loss.hpp"

using namespace ppma;
using cuda_test::In;

namespace {
constexpr i64 ignored = 1255;
}

TEST_CASE("resized taps on the GPU are the CPU's", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(1);
  const auto random = [&](const Shape& shape) { return Tensor::randn(shape, rng, 1, DType::f64); };
  struct Case {
    Shape y;
    std::vector<std::pair<i64, i64>> grids;
  };
  // several strips, three maps at once and more; a grid that is larger, one cell; a single row
  for (const Case& c :
       {Case{{2, 40, 24, 16}, {{20, 12}, {10, 6}, {5, 3}}}, Case{{1, 33, 7, 5}, {{8, 9}}},
        Case{{1, 16, 16, 8}, {{1, 1}, {2, 2}, {3, 3}, {6, 6}, {16, 16}}},
        Case{{1, 1, 9, 2}, {{3, 4}}}}) {
    std::vector<Tensor> in{random(c.y)};
    for (const auto& [h, w] : c.grids) in.push_back(random({c.y[0], h, w, 9, c.y[3]}));
    cuda_test::compare(
        "add_resized_taps",
        [](In x) { return add_resized_taps(x[0], std::vector<Tensor>(x.begin() + 1, x.end())); },
        in);
  }
}

TEST_CASE("convolutions of resized maps on the GPU are the CPU's", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(2);
  const auto random = [&](const Shape& shape) { return Tensor::randn(shape, rng, 1, DType::f64); };
  cuda_test::Tolerance most;
  most.f32 = 1e-5;
  cuda_test::compare(
      "conv2d_of_resized",
      [](In x) {
        return conv2d_of_resized({x[0], x[1], x[2]}, x[3]);
      },
      {random({2, 16, 24, 32}), random({2, 8, 12, 16}), random({2, 4, 6, 8}),
       random({40, 56, 3, 3})},
      {3}, most);
}

TEST_CASE("cross entropy of resized logits on the GPU is the CPU's", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(3);
  struct Case {
    Shape logits, labels;
  };
  // four times as many pixels, as UperNet has them; sixteen; uneven; fewer; too many classes
  for (const Case& c : {Case{{2, 20, 18, 150}, {2, 80, 72}}, Case{{1, 5, 4, 40}, {1, 80, 64}},
                        Case{{2, 9, 11, 7}, {2, 33, 70}}, Case{{1, 12, 13, 200}, {1, 7, 5}},
                        Case{{1, 3, 1, 300}, {1, 6, 4}}}) {
    const i64 classes = c.logits[3];
    const Tensor logits = Tensor::randn(c.logits, rng, 2, DType::f64);
    Tensor labels = Tensor::empty(c.labels, DType::int64);
    for (i64 i = 0; i < labels.numel(); ++i)
      labels.data<i64>()[i] = i % 7 == 0 ? ignored : rng.below(classes);
    INFO(classes << " classes");
    cuda_test::Tolerance most;
    most.f32 = 1e-5;
    cuda_test::compare(
        "resized_cross_entropy",
        [](In x) { return resized_cross_entropy(x[0], x[1], ignored).loss; }, {logits, labels}, {},
        most);
    const NoGrad not_recorded;
    const PixelLoss here = resized_cross_entropy(logits, labels, ignored),
                    there = resized_cross_entropy(logits.to(Device::cuda), labels.to(Device::cuda),
                                                  ignored);
    CHECK(there.accuracy.to(Device::cpu).item() == Approx(here.accuracy.item()).epsilon(1e-9));
  }
}

#endif
