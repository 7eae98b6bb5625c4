// Blocks that are computed again in backward: the same loss and gradients to the last bit, with
// less memory.
#include "ppma/nn/checkpoint.hpp"

#include "catch.hpp"
#include "ppma/heads/segmentor.hpp"
#include "ppma/heads/upernet.hpp"
#include "ppma/io/zip.hpp"
#include "ppma/nn/module.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/tensor/tensor.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

struct Pass {
  std::vector<double> gradients;
  double loss;
  i64 peak;  // bytes of tensors beside what was there before
  i64 seen = 0;
};

// A training step of a small segmentor with drop path and dropout; the second step, where a replay
// has its inputs.
Pass step(bool again, bool replayed) {
  SegmentorConfig<UperNet> c;
  c.backbone = ppma_nano();
  c.backbone.drop_path_rate = 0.4, c.backbone.depths = {1, 2, 3, 1};
  c.backbone.chunkwise_recurrents = {true, true, false, false};
  c.head.channels = c.head.auxiliary_channels = 8, c.head.num_classes = 3;
  Segmentor<UperNet> model(c, 5);
  Rng rng(2);
  const Tensor images = Tensor::randn({3, 3, 64, 64}, rng),
               labels = Tensor::ones({3, 64, 64}, DType::int64);
  HostInputs inputs;
  Pass pass;
  for (u64 n = 0; n < 2; ++n) {
    zero_grad(model);
    if (replayed) inputs.refill(Rng(9, n));
    Context context{true, Rng(9, n)};
    context.checkpoint_blocks = again;
    if (replayed) context.host_inputs = &inputs;
    context.observe = [&pass](const std::string& path, const Tensor&) {
      pass.seen += path.ends_with("blocks.0");
    };
    const i64 before = memory_stats().live_bytes;
    reset_peak_memory();
    const Tensor loss = model.loss(images, labels, context).total;
    loss.backward();
    pass.peak = memory_stats().peak_bytes - before;
    pass.loss = loss.item();
  }
  for (const Field& f : named_parameters(model)) {
    INFO(f.name);
    REQUIRE(f.tensor.grad().defined());
    for (const double g : f.tensor.grad().to_vector<double>()) pass.gradients.push_back(g);
  }
  return pass;
}

}  // namespace

TEST_CASE("checkpoint: loss and gradients are the same to the last bit, memory is less") {
  for (const bool replayed : {false, true}) {
    if (brief() && replayed) continue;  // the same kernels
    const Pass plain = step(false, replayed), again = step(true, replayed);
    CHECK(plain.loss == again.loss);
    CHECK(plain.gradients == again.gradients);
    CHECK(again.peak < plain.peak);
    CHECK(again.seen == 8);  // four stages, two steps: watchers see each block once
    CHECK(plain.seen == 8);
  }
}

TEST_CASE("checkpoint: what needs no gradient is simply called, and draws go on") {
  Rng rng(1);
  Tensor x = Tensor::randn({4, 3}, rng);
  Context context{true, Rng(3)};
  const auto f = [](const Tensor& t, Context& c) {
    return add(relu(t), c.drawn(Device::cpu, [](Rng& r) { return Tensor::rand({4, 3}, r); }));
  };
  CHECK(!checkpoint(f, x, context).requires_grad());
  x.requires_grad(true);
  const Tensor y = checkpoint(f, x, context);
  Context expected{true, Rng(3)};
  f(x.detach(), expected);
  CHECK(y.to_vector<double>() == f(x.detach(), expected).to_vector<double>());
  CHECK(context.rng.position() == expected.rng.position());
  y.backward(Tensor::ones({4, 3}));
  for (i64 i = 0; i < 12; ++i)
    CHECK(x.grad().data<float>()[i] == (x.data<float>()[i] > 0 ? 1.0f : 0.0f));
}

TEST_CASE("checkpoint: a second pass that draws more than the first is refused") {
  Tensor x = Tensor::ones({2});
  x.requires_grad(true);
  Context context{true, Rng(3)};
  int passes = 0;
  const auto f = [&passes](const Tensor& t, Context& c) {
    Tensor y = t;
    for (int n = 0; n <= passes; ++n)
      y = add(y, c.drawn(Device::cpu, [](Rng& r) { return Tensor::rand({2}, r); }));
    ++passes;
    return y;
  };
  const Tensor y = checkpoint(f, x, context);
  CHECK(says([&] { y.backward(Tensor::ones({2})); }, "draws more than the first"));
}
