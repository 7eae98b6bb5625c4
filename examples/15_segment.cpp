// 15: name every pixel.
//
// A classifier says what is on an image; a segmentation network says it of each pixel. The backbone
// stays what it was, only its four maps are now kept, from fine and shortsighted to coarse and
// wise, and a head brings them together: Semantic FPN, which passes the coarse maps down to the
// fine ones and sums them at a quarter of the image's size. ppma train --task segment does this
// with UperNet, augmentation, checkpoints and pictures.

#include "check.hpp"
#include "lesson_figures.hpp"
#include "ppma/data/augment.hpp"
#include "ppma/heads/segmentor.hpp"
#include "ppma/heads/semantic_fpn.hpp"
#include "ppma/metrics/mean_iou.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/schedule.hpp"

using namespace ppma;

namespace {

constexpr i64 side = 48, classes = 4;  // ground, ring, star, bar

struct Batch {
  Tensor images;  // (B,3,H,W)
  Tensor labels;  // (B,H,W) int64
};
Batch make_batch(const std::vector<FigureScene>& scenes, i64 first, i64 count) {
  Batch batch{Tensor::empty({count, 3, side, side}),
              Tensor::empty({count, side, side}, DType::int64)};
  const Normalizer normalize;
  for (i64 b = 0; b < count; ++b) {
    const FigureScene& s = scenes[static_cast<std::size_t>(first + b)];
    normalize(s.image, batch.images.data<float>() + b * 3 * side * side);
    std::copy_n(s.labels.data<u8>(), side * side, batch.labels.data<i64>() + b * side * side);
  }
  return batch;
}

// The class of each pixel, (H,W).
Tensor seen(Segmentor<SemanticFpn>& model, const FigureScene& s) {
  const NoGrad not_recorded;
  Context evaluation;
  return reshape(argmax(model.forward(normalize(s.image), evaluation), -1), {side, side});
}

}  // namespace

int main() {
  std::vector<FigureScene> train = figure_scenes(Split::train, 480, side);

  SegmentorConfig<SemanticFpn> config;
  config.backbone = ppma_nano();
  config.backbone.embed_dims = {16, 32, 64, 64};
  config.backbone.depths = {1, 1, 1, 1};
  config.backbone.num_heads = {1, 1, 2, 2};
  config.head.pyramid_channels = config.head.channels = 32;
  config.head.num_classes = classes;
  Segmentor<SemanticFpn> model(config, 1);
  std::printf("network: %lld parameters, %lld of them in the head\n",
              static_cast<long long>(parameter_count(model)),
              static_cast<long long>(parameter_count(model.head)));

  constexpr i64 epochs = 8, batch_size = 16;
  AdamW optimizer(parameters_of(model, no_decay_rules(0.05)), {.beta2 = 0.98});
  const WarmupCosine schedule{.peak = 3e-3, .warmup = 0.5, .total = epochs};
  const i64 steps = static_cast<i64>(train.size()) / batch_size;
  for (i64 epoch = 0; epoch < epochs; ++epoch) {
    shuffle(train, Rng(1, static_cast<u64>(epoch)));
    double sum = 0;
    for (i64 step = 0; step < steps; ++step) {
      const Batch batch = make_batch(train, step * batch_size, batch_size);
      Context context{true, Rng(2, static_cast<u64>(epoch), static_cast<u64>(step))};
      // cross entropy of all pixels
      const Tensor loss = model.loss(batch.images, batch.labels, context).total;
      loss.backward();
      const double at =
          static_cast<double>(epoch) + static_cast<double>(step) / static_cast<double>(steps);
      optimizer.step(schedule.at(at), clip_factor(gradient_norm(optimizer.parameters()), 1));
      optimizer.zero_grad();
      sum += loss.item();
    }
    std::fprintf(stderr, "epoch %2lld  loss %.3f\n", static_cast<long long>(epoch),
                 sum / static_cast<double>(steps));
  }

  // Intersection over union of each class on scenes that were never learnt from, and their mean.
  const std::vector<FigureScene> test = figure_scenes(Split::test, 60, side);
  MeanIou score(classes);
  for (const FigureScene& s : test) score.add(seen(model, s), s.labels, "a test scene");
  const SegmentationFigures figures = score.result();
  for (const double iou : figures.iou) std::fprintf(stderr, "  IoU %.3f\n", iou);

  // A scene as the network sees it, in letters.
  const Tensor map = seen(model, test[1]);
  for (i64 i = 2; i < side; i += 4)
    for (i64 j = 1; j < side; j += 2)
      std::fprintf(stderr, "%c%s", ".ox="[map.data<i64>()[i * side + j]],
                   j == side - 1 ? "\n" : "");
  expect(figures.mean_iou > 0.5,
         "mean IoU on new scenes above a half (all ground: below a quarter)");
  expect(*std::min_element(figures.iou.begin(), figures.iou.end()) > 0.5,
         "so is that of each class");
  return failures;
}

// Exercises (solutions/13_18.cpp):
//   1. Which mean IoU has a network that calls every pixel ground, if a tenth of them is a figure?
//   2. A figure of 10 x 10 pixels is found one pixel too far to the right. Which IoU is that?
