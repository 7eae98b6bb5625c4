// After the first passes a network asks the system for no memory any more.
#include "ppma/models/fold.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/adamw.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

// How often `pass` asks the system for memory in five times, after three.
template <class F>
i64 asks(F pass) {
  for (int i = 0; i < 3; ++i) pass();
  const i64 before = memory_stats().heap_calls;
  for (int i = 0; i < 5; ++i) pass();
  return memory_stats().heap_calls - before;
}

}  // namespace

TEST_CASE("a steady step asks for no memory", "[models]") {
  if (sanitized()) return;  // there memory goes back at once, so that errors show
  PpmaConfig c = ppma_nano();
  c.depths = {1, 1, 1, 1};
  Rng rng(1);
  const Tensor images = Tensor::randn({4, 3, 64, 64}, rng),
               labels = Tensor::zeros({4}, DType::int64);
  Ppma model(c, 2);
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
  u64 n = 0;
  CHECK(asks([&] {
          zero_grad(model);
          Context training{true, Rng(3, n++)};
          cross_entropy(model.forward(images, training), labels).backward();
          optimizer.step(1e-3);
        }) == 0);
  prepare_for_inference(model, DType::f32);
  const Tensor many = Tensor::randn({16, 3, 224, 224}, rng);  // image by image
  CHECK(asks([&] { model.forward(many); }) == 0);
}

TEST_CASE("what an activation gives is not kept beside what it was given", "[models]") {
  if (sanitized()) return;
  Rng rng(1);
  Tensor x = Tensor::randn({512, 256}, rng), w = Tensor::randn({4, 256}, rng);
  x.requires_grad(true), w.requires_grad(true);
  const i64 before = memory_stats().live_bytes;
  const Tensor y = linear(gelu(x), w);  // reads gelu's result again in backward
  CHECK(memory_stats().live_bytes - before < y.bytes() + x.bytes() / 2);
  sum(y).backward();
  // The gradient of w is that of a product whose factor was kept.
  Tensor kept = gelu(x.detach()), other = w.clone();
  other.requires_grad(true);
  sum(linear(kept, other)).backward();
  CHECK(w.grad().to_vector<float>() == other.grad().to_vector<float>());
}
