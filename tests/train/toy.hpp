#pragma once
// A network and a data set of a few lines, to train in tests.

#include <algorithm>
#include <utility>
#include <vector>

#include "ppma/nn/init.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/dropout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/ops/norm.hpp"
#include "ppma/ops/residual.hpp"
#include "ppma/train/classification.hpp"
#include "ppma/train/trainer.hpp"

namespace toy {

using namespace ppma;

// (B, 6) -> (B, 3): linear, batch norm (buffers), drop path (random numbers), linear.
struct Toy {
  Tensor first, first_bias, scale, shift, mean, variance, second, second_bias;
  bool normed;

  explicit Toy(bool normed_ = true) : normed(normed_) {
    Rng rng(7);
    first = parameter(Tensor::randn({16, 6}, rng, 0.5)),
    first_bias = parameter(Tensor::zeros({16}));
    second = parameter(Tensor::randn({3, 16}, rng, 0.2)),
    second_bias = parameter(Tensor::zeros({3}));
    if (normed) {
      scale = parameter(Tensor::ones({16})), shift = parameter(Tensor::zeros({16}));
      mean = Tensor::zeros({16}), variance = Tensor::ones({16});
    }
  }
  template <class V>
  void fields(V& v) {
    v.parameter("first.weight", first);
    v.parameter("first.bias", first_bias);
    v.parameter("norm.weight", scale);
    v.parameter("norm.bias", shift);
    v.buffer("norm.running_mean", mean);
    v.buffer("norm.running_var", variance);
    v.parameter("second.weight", second);
    v.parameter("second.bias", second_bias);
  }
  Tensor forward(const Tensor& x, Context& context) {
    Tensor h = linear(x, first, first_bias);
    if (normed)
      h = batch_norm(h, scale, shift, mean, variance, context.training, 0.1, 1e-5, context.among);
    h = gelu(h);
    if (context.training && normed) {
      const Tensor keep = context.drawn(h.device(), [batch = h.dim(0)](Rng& rng) {
        return drop_path_factors(batch, 0.1, rng, DType::f32);
      });
      h = residual(Tensor::zeros(h.shape(), h.dtype(), h.device()), h, Tensor(), keep);
    }
    return linear(h, second, second_bias);
  }
  Tensor forward(const Tensor& x) {
    Context context;
    return forward(x, context);
  }
};

// The class is the largest of the first three features; 48 images, in an order that depends on the
// epoch. The last batch may be smaller.
inline BatchPlan<Batch> toy_batches(i64 batch_size, i64 images = 48) {
  return {(images + batch_size - 1) / batch_size, [=](i64 epoch) {
            std::vector<i64> order;
            Rng shuffle(3, static_cast<u64>(epoch));
            for (i64 i = 0; i < images; ++i) order.push_back(i);
            for (i64 i = images - 1; i > 0; --i)
              std::swap(order[static_cast<std::size_t>(i)],
                        order[static_cast<std::size_t>(shuffle.below(i + 1))]);
            return [=](i64 number) {
              const i64 first = number * batch_size, n = std::min(batch_size, images - first);
              std::vector<float> x;
              std::vector<i64> y;
              for (i64 b = 0; b < n; ++b) {
                Rng rng(11, static_cast<u64>(order[static_cast<std::size_t>(first + b)]));
                const std::size_t row = x.size();
                for (int c = 0; c < 6; ++c) x.push_back(static_cast<float>(rng.normal()));
                y.push_back(std::max_element(&x[row], &x[row] + 3) - &x[row]);
              }
              return Batch{Tensor::from(x, {n, 6}), Tensor::from(y, {n})};
            };
          }};
}

inline TrainOptions options_for(i64 epochs) {
  TrainOptions options;
  options.epochs = epochs;
  options.rate = WarmupCosine{.peak = 0.02, .warmup = 1, .total = 4};
  options.ema_decay = 0.9;
  options.seed = 5;
  return options;
}

// A trainer of a Toy, and what it needs.
struct ToyTrainer {
  BatchStream<Batch> train, test;
  ClassificationTask<Toy> task;
  Trainer<ClassificationTask<Toy>> trainer;

  ToyTrainer(Toy& model, const TrainOptions& options, BatchPlan<Batch> train_plan = toy_batches(8),
             BatchPlan<Batch> test_plan = toy_batches(48))
      : train(std::move(train_plan), {.workers = 0}),
        test(std::move(test_plan), {.workers = 0}),
        task(model, test, 0.05),
        trainer(task, options) {}
  void run(const Trainer<ClassificationTask<Toy>>::Observer& observer = {}) {
    trainer.run(train, observer);
  }
  Trainer<ClassificationTask<Toy>>* operator->() { return &trainer; }
};

inline std::vector<std::vector<double>> values(const TensorMap& tensors) {
  std::vector<std::vector<double>> v;
  for (const auto& entry : tensors) v.push_back(entry.second.to_vector<double>());
  return v;
}

}  // namespace toy
