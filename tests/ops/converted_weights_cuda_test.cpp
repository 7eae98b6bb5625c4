// Weights that are all converted at once for a training step on the GPU.

#if PPMA_TEST_GPU

#include "catch.hpp"
#include "distance.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/converted_weights.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/reduce.hpp"

using namespace ppma;

TEST_CASE("weights converted at once are what each product would convert", "[cuda]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  Rng rng(1);
  std::vector<Tensor> weights;
  // More than one table of pointers, less and more than a block's piece, ends that are no multiple
  // of four.
  for (i64 i = 0; i < 450; ++i)
    weights.push_back(
        Tensor::randn({i % 7 == 0 ? 3 * 4096 + i : 1 + i * 13 % 5003}, rng, 1).to(Device::cuda));
  weights.emplace_back();
  const Tensor narrow = cast(weights[0], DType::bf16);
  weights.push_back(narrow);
  CHECK_FALSE(ConvertedWeights::find(weights[3], DType::bf16).defined());
  for (int round = 0; round < 2; ++round) {
    const ConvertedWeights once(weights, DType::bf16);
    for (std::size_t i = 0; i < 450; ++i) {
      const Tensor found = ConvertedWeights::find(weights[i], DType::bf16);
      REQUIRE(found.defined());
      INFO("weight " << i);
      CHECK(distance(found.to(Device::cpu), cast(weights[i], DType::bf16).to(Device::cpu)) == 0);
    }
    CHECK_FALSE(ConvertedWeights::find(narrow, DType::bf16).defined());
    CHECK_FALSE(ConvertedWeights::find(weights[3], DType::f32).defined());
    {
      const ConvertedWeights none({}, DType::bf16);
      CHECK_FALSE(ConvertedWeights::find(weights[3], DType::bf16).defined());
    }
    CHECK(ConvertedWeights::find(weights[3], DType::bf16).defined());
    for (std::size_t i = 0; i < 450; ++i) weights[i].copy_from(scale(weights[i], 0.7));
  }
  CHECK_FALSE(ConvertedWeights::find(weights[3], DType::bf16).defined());

  const Tensor x = cast(Tensor::randn({40, 24}, rng, 1), DType::bf16).to(Device::cuda);
  Tensor w = Tensor::randn({16, 24}, rng, 1).to(Device::cuda),
         b = Tensor::randn({16}, rng, 1).to(Device::cuda);
  w.requires_grad(true), b.requires_grad(true);
  const auto step = [&] {
    const Tensor y = linear(x, w, b);
    sum(square(cast(y, DType::f32))).backward();
    std::vector<Tensor> results{y.detach(), w.grad().clone(), b.grad().clone()};
    w.zero_grad(), b.zero_grad();
    return results;
  };
  const std::vector<Tensor> want = step();
  const ConvertedWeights once({w, b}, DType::bf16);
  const std::vector<Tensor> got = step();
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(distance(got[i].to(Device::cpu), want[i].to(Device::cpu)) == 0);
}

#endif
