// 10: train a small network.
//
// A PPMA of 0.2 M parameters learns to tell rings, stars and bars apart from 1200 generated images,
// in a loop that is all written out: batches, forward, loss, backward, AdamW with a warm-up and a
// cosine, and a test on images it has not seen. train/trainer.hpp is this loop with everything a
// long run wants; ppma train is that as a program.

#include <cstdio>

#include "ppma/data/shapes.hpp"
#include "ppma/metrics/accuracy.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/schedule.hpp"

using namespace ppma;

namespace {

// Rings, stars and bars out of the ten figures of `shapes`. A data set is a size, names, and a
// function that loads one.
Dataset three_figures(Split split, i64 images) {
  const Dataset all =
      shapes({.height = 32, .width = 32, .split = split, .most_extra = 0, .most_clutter = 0});
  Dataset three{"three figures", images, {"ring", "star", "bar"}, {}};
  three.load = [all](i64 index) {
    constexpr Figure figures[] = {Figure::ring, Figure::star, Figure::bar};
    Sample sample = all.load(index / 3 * figure_count + static_cast<i64>(figures[index % 3]));
    sample.label = index % 3;
    return sample;
  };
  return in_memory(three);
}

struct Batch {
  Tensor images;  // (B,3,H,W), about -1 to 1
  Tensor labels;  // (B) int64
};

// Samples order[first], order[first + 1], ... as a batch.
Batch make_batch(const Dataset& data, const std::vector<i64>& order, i64 first, i64 count) {
  Batch batch;
  batch.labels = Tensor::empty({count}, DType::int64);
  for (i64 b = 0; b < count; ++b) {
    const Sample sample = data.get(order[static_cast<std::size_t>(first + b)]);
    const i64 pixels = sample.image.dim(0) * sample.image.dim(1);
    if (!batch.images.defined())
      batch.images = Tensor::empty({count, 3, sample.image.dim(0), sample.image.dim(1)});
    float* to = batch.images.data<float>() + b * 3 * pixels;
    for (i64 c = 0; c < 3; ++c)
      for (i64 p = 0; p < pixels; ++p)
        *to++ = static_cast<float>(sample.image.data<u8>()[p * 3 + c]) / 127.5f - 1;
    batch.labels.data<i64>()[b] = sample.label;
  }
  return batch;
}

std::vector<i64> shuffled(i64 n, Rng rng) {
  std::vector<i64> order;
  for (i64 i = 0; i < n; ++i) order.push_back(i);
  for (i64 i = n - 1; i > 0; --i)
    std::swap(order[static_cast<std::size_t>(i)],
              order[static_cast<std::size_t>(rng.below(i + 1))]);
  return order;
}

double test_accuracy(Ppma& model, const Dataset& data) {
  Accuracy accuracy;
  const std::vector<i64> order = shuffled(data.size, Rng(0));
  for (i64 first = 0; first < data.size; first += 64) {
    const Batch batch = make_batch(data, order, first, std::min<i64>(64, data.size - first));
    accuracy.add(model.forward(batch.images), batch.labels);
  }
  return accuracy.acc1();
}

}  // namespace

int main() {
  const Dataset train = three_figures(Split::train, 1200), test = three_figures(Split::test, 240);

  PpmaConfig config = ppma_nano();
  config.embed_dims = {16, 32, 64, 64};
  config.depths = {1, 1, 1, 1};
  config.num_heads = {1, 1, 2, 2};
  config.projection = 128;
  config.num_classes = train.classes();
  Ppma model(config, 1);
  std::printf("network: %lld parameters, mask %s\n", static_cast<long long>(parameter_count(model)),
              to_string(config.mask).c_str());

  constexpr i64 epochs = 12, batch_size = 16;
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)), {.beta2 = 0.98});
  const WarmupCosine schedule{.peak = 2e-3, .warmup = 0.5, .total = epochs};
  const i64 steps = train.size / batch_size;
  double first_loss = 0, last_loss = 0;
  for (i64 epoch = 0; epoch < epochs; ++epoch) {
    const std::vector<i64> order = shuffled(train.size, Rng(1, static_cast<u64>(epoch)));
    double sum = 0;
    for (i64 step = 0; step < steps; ++step) {
      const Batch batch = make_batch(train, order, step * batch_size, batch_size);
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
  const double accuracy = test_accuracy(model, test);
  std::fprintf(stderr, "accuracy on new images: %.1f %%\n", accuracy);

  std::printf("the loss fell to less than half: %s\n", last_loss < 0.5 * first_loss ? "yes" : "NO");
  std::printf("of images it never saw it names more than two thirds (guessing: a third): %s\n",
              accuracy > 66.7 ? "yes" : "NO");
  return last_loss < 0.5 * first_loss && accuracy > 66.7 ? 0 : 1;
}
