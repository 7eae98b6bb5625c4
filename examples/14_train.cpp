// 14: train a small network.
//
// A PPMA of 0.2 M parameters learns to tell rings, stars and bars apart from 1200 generated images,
// in a loop that is all written out: batches, forward, loss, backward, AdamW with a warm-up and a
// cosine, and a test on images it has not seen. train/trainer.hpp is this loop with everything a
// long run wants; ppma train is that as a program.

#include "check.hpp"
#include "lesson_figures.hpp"
#include "ppma/metrics/accuracy.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/schedule.hpp"

using namespace ppma;

namespace {

struct Batch {
  Tensor images;  // (B,3,H,W), about -1 to 1
  Tensor labels;  // (B) int64
};

// Scenes first, first + 1, ... as a batch.
Batch make_batch(const std::vector<FigureScene>& scenes, i64 first, i64 count) {
  const Shape& size = scenes[0].image.shape();
  const i64 pixels = size[0] * size[1];
  Batch batch{Tensor::empty({count, 3, size[0], size[1]}), Tensor::empty({count}, DType::int64)};
  float* to = batch.images.data<float>();
  for (i64 b = 0; b < count; ++b) {
    const FigureScene& s = scenes[static_cast<std::size_t>(first + b)];
    for (i64 c = 0; c < 3; ++c)
      for (i64 p = 0; p < pixels; ++p)
        *to++ = static_cast<float>(s.image.data<u8>()[p * 3 + c]) / 127.5f - 1;
    batch.labels.data<i64>()[b] = s.figure;
  }
  return batch;
}

double test_accuracy(Ppma& model, const std::vector<FigureScene>& scenes) {
  Accuracy accuracy;
  for (i64 first = 0; first < static_cast<i64>(scenes.size()); first += 60) {
    const Batch batch = make_batch(scenes, first, 60);
    accuracy.add(model.forward(batch.images), batch.labels);
  }
  return accuracy.acc1();
}

}  // namespace

int main() {
  std::vector<FigureScene> train = figure_scenes(Split::train, 1200, 32);

  PpmaConfig config = ppma_nano();
  config.embed_dims = {16, 32, 64, 64};
  config.depths = {1, 1, 1, 1};
  config.num_heads = {1, 1, 2, 2};
  config.projection = 128;
  config.num_classes = 3;
  Ppma model(config, 1);
  std::printf("network: %lld parameters, mask %s\n", static_cast<long long>(parameter_count(model)),
              to_string(config.mask).c_str());

  constexpr i64 epochs = 12, batch_size = 16;
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)), {.beta2 = 0.98});
  const WarmupCosine schedule{.peak = 2e-3, .warmup = 0.5, .total = epochs};
  const i64 steps = static_cast<i64>(train.size()) / batch_size;
  double first_loss = 0, last_loss = 0;
  for (i64 epoch = 0; epoch < epochs; ++epoch) {
    shuffle(train, Rng(1, static_cast<u64>(epoch)));
    double sum = 0;
    for (i64 step = 0; step < steps; ++step) {
      const Batch batch = make_batch(train, step * batch_size, batch_size);
      // training: batch statistics
      Context context{true, Rng(1, static_cast<u64>(epoch), static_cast<u64>(step))};
      const Tensor logits = model.forward(batch.images, context);  // (B,3)
      const Tensor loss = cross_entropy(logits, batch.labels);     // ()
      loss.backward();
      const double rate = schedule.at(static_cast<double>(epoch) +
                                      static_cast<double>(step) / static_cast<double>(steps));
      optimizer.step(rate, clip_factor(gradient_norm(optimizer.parameters()), 1));
      optimizer.zero_grad();
      sum += loss.item();
    }
    (epoch == 0 ? first_loss : last_loss) = sum / static_cast<double>(steps);
    std::fprintf(stderr, "epoch %2lld  loss %.3f\n", static_cast<long long>(epoch),
                 sum / static_cast<double>(steps));
  }
  const double accuracy = test_accuracy(model, figure_scenes(Split::test, 240, 32));
  std::fprintf(stderr, "accuracy on new images: %.1f %%\n", accuracy);
  expect(last_loss < 0.5 * first_loss, "the loss fell to less than half");
  expect(accuracy > 66.7,
         "of images it never saw it names more than two thirds (guessing: a third)");
  return failures;
}

// Exercises (solutions/13_18.cpp):
//   1. Which loss has a network that gives each of the three figures the same probability?
//   2. Which learning rate does the schedule give after a quarter of an epoch, and at the end?
