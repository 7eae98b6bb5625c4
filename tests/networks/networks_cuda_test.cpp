// Networks of other papers on the GPU: training steps, which are replayed as a graph, and weights as
// inference has them.

#if PPMA_TEST_GPU

#include "networks/help.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/train/replay.hpp"

using namespace networks_test;

TEST_CASE("networks: steps on the GPU follow the CPU, and replayed ones are those that are not",
          "[cuda][networks][train]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const NetworkKind& kind : networks()) {
    const Reference small(kind.name);
    const auto losses = [&](Device device, DType dtype, bool replayed) {
      Network model(small.config, 1);
      to(model, device);
      const Tensor images = cast(small.input(DType::f32), dtype).to(device),
                   labels = get(small.file.tensors, "target").to(device);
      AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
      Context context{true, Rng(1)};
      Tensor loss;
      Replay gradients(
          [&] {
            optimizer.zero_grad();
            loss = cross_entropy(model.forward(images, context), labels);
            loss.backward();
          },
          device, replayed);
      std::vector<double> seen;
      for (int step = 0; step < 8; ++step) {
        gradients();
        seen.push_back(loss.item());
        optimizer.step(1e-3);
      }
      INFO(gradients.reason());
      CHECK(gradients.captured() == replayed);
      return seen;
    };
    INFO(kind.name);
    const std::vector<double> want = losses(Device::cpu, DType::f32, false),
                              got = losses(Device::cuda, DType::f32, false);
    for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i] == Approx(want[i]).epsilon(1e-3));
    CHECK(losses(Device::cuda, DType::f32, true) == got);
    const std::vector<double> rough = losses(Device::cuda, DType::bf16, true);
    CHECK(losses(Device::cuda, DType::bf16, false) == rough);
    CHECK(rough[0] == Approx(want[0]).epsilon(5e-2));
  }
}

TEST_CASE("networks: weights as inference on the GPU has them", "[cuda][networks]") {
  if (!cuda::available()) PPMA_SKIP("no GPU");
  for (const NetworkKind& kind : networks()) {
    INFO(kind.name);
    const Reference small(kind.name);
    const Tensor want = get(small.file.tensors, "eval.logits");
    for (const DType dtype : {DType::f32, DType::bf16}) {
      Network n = small.network(DType::f32);
      to(n, Device::cuda);
      prepare_for_inference(n, dtype);
      const Tensor y = n.forward(small.input(dtype).to(Device::cuda));
      CHECK(distance(y.to(Device::cpu), want) < (dtype == DType::f32 ? 1e-5 : 0.05));
    }
  }
}

#endif
