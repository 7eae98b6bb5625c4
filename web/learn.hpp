#pragma once
// A small PPMA that learns to name figures of the generated set `shapes` in the page, one step at a
// time, so that the page can look at what its decays have become in between. The loop is that of
// lesson 14.

#include <algorithm>

#include "ppma/data/shapes.hpp"
#include "ppma/metrics/accuracy.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/schedule.hpp"
#include "ppma/vis/mask_maps.hpp"

namespace web {

using namespace ppma;

class Learner {
 public:
  static constexpr i64 side = 32, batch = 64, steps = 1560, tests = 400;
  static constexpr i64 shown_side = 128;  // a network of convolutions and attention takes any size

  explicit Learner(u64 seed)
      : seed_(seed),
        test_(in_memory(figures(Split::test, side, tests))),
        shown_(figures(Split::val, shown_side, tests)),
        model_(config(test_.classes()), seed),
        optimizer_(parameters_of(model_, no_decay_rules(0.05)), {.beta2 = 0.98}) {}

  i64 images_seen() const { return step_ * batch; }
  bool done() const { return step_ >= steps; }
  i64 parameters() { return parameter_count(model_); }

  // Learns from one batch of new images; returns its loss.
  double step() {
    const Dataset train = figures(Split::train, side, steps * batch);
    const Batch b = make_batch(train, images_seen(), batch);
    Context training{true, Rng(seed_, static_cast<u64>(step_))};
    const Tensor loss = cross_entropy(model_.forward(b.images, training), b.labels);
    loss.backward();
    const WarmupCosine rate{.peak = 3e-3, .warmup = 50, .total = static_cast<double>(steps)};
    optimizer_.step(rate.at(static_cast<double>(step_)),
                    clip_factor(gradient_norm(optimizer_.parameters()), 1));
    optimizer_.zero_grad();
    ++step_;
    return loss.item();
  }

  // Percent of `count` images, from number `first` on, that it never learnt from and names.
  double accuracy(i64 first, i64 count) const {
    Accuracy right;
    const Batch b = make_batch(test_, first, std::min(count, tests - first));
    right.add(model_.forward(b.images), b.labels);
    return right.acc1();
  }

  // What the first stage makes of an image that it never learnt from, seen from one place of it.
  MaskMaps see(i64 index, double row, double column) {
    const Sample sample = shown_.get(index % shown_.size);
    return mask_maps(model_, sample.image, tensor_of({sample}),
                     {.stage = 0, .block = 0, .row = row, .column = column});
  }
  // The class that it gives to that image.
  i64 name(i64 index) {
    const Sample small = figures(Split::val, side, tests).get(index % tests);
    return argmax(model_.forward(tensor_of({small})), 1).to_vector<i64>()[0];
  }

 private:
  struct Batch {
    Tensor images;  // (B,3,H,W), -1 to 1
    Tensor labels;  // (B) int64
  };

  u64 seed_;
  Dataset test_, shown_;
  Ppma model_;
  AdamW optimizer_;
  i64 step_ = 0;

  static Dataset figures(Split split, i64 size, i64 count) {
    return shapes({.height = size,
                   .width = size,
                   .images = count,
                   .split = split,
                   .most_extra = 0,
                   .most_clutter = 0});
  }
  static PpmaConfig config(i64 classes) {
    PpmaConfig c = ppma_nano();
    c.embed_dims = {16, 32, 64, 64};
    c.depths = {1, 1, 1, 1};
    c.num_heads = {1, 1, 2, 2};
    c.mlp_ratios = {2, 2, 2, 2};
    c.projection = 128;
    c.num_classes = classes;
    return c;
  }
  static Tensor tensor_of(const std::vector<Sample>& samples) {
    const i64 h = samples[0].image.dim(0), w = samples[0].image.dim(1);
    Tensor images = Tensor::empty({static_cast<i64>(samples.size()), 3, h, w});
    float* to = images.data<float>();
    for (const Sample& s : samples)
      for (i64 c = 0; c < 3; ++c)
        for (i64 p = 0; p < h * w; ++p)
          *to++ = static_cast<float>(s.image.data<u8>()[p * 3 + c]) / 127.5f - 1;
    return images;
  }
  static Batch make_batch(const Dataset& data, i64 first, i64 count) {
    std::vector<Sample> samples;
    std::vector<i64> labels;
    for (i64 k = 0; k < count; ++k) {
      samples.push_back(data.get(first + k));
      labels.push_back(samples.back().label);
    }
    return {tensor_of(samples), Tensor::from(labels, {count})};
  }
};

}  // namespace web
