// A trainer of one's own: find objects and cut them out. (What detection is: lesson 16.)
//
// Mask R-CNN on a small PPMA backbone: the pyramid offers boxes (proposals), one head names and
// corrects each, another draws its mask. Here it learns on 160 generated images to find every
// figure, whatever its kind, and is scored as COCO scores: AP50 counts a mask as right that
// overlaps the true one by half. With a path, trainer OUT.png, it draws what it sees in an image.
// `ppma train --task detect` is this with ten names, pictures, checkpoints and your own images.

#include "ppma/train/trainer.hpp"

#include <cstdio>

#include "ppma/data/detection_sets.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/io/image.hpp"
#include "ppma/train/detection.hpp"
#include "ppma/vis/overlay.hpp"

using namespace ppma;

namespace {

// Generated scenes with boxes and masks; all figures become one class.
DetectionSet figures(Split split, i64 images) {
  DetectionSet set =
      shapes_set({.height = 96, .width = 96, .images = images, .split = split, .most_extra = 2});
  set.class_names = {"figure"}, set.category_ids = {1};
  set.load = [load = set.load](i64 index) {
    DetectionSample sample = load(index);
    for (i64& c : sample.objects.classes) c = 0;
    return sample;
  };
  return set;
}

}  // namespace

int main(int argc, char** argv) {
  const DetectionSet train = figures(Split::train, 160), test = figures(Split::test, 40);

  MaskRcnn model(mask_rcnn_nano(1, true), 1);
  std::printf("network: %lld parameters, of which %lld in the mask head\n",
              static_cast<long long>(parameter_count(model)),
              static_cast<long long>(parameter_count(*model.roi_head.mask_head)));

  // Five losses are added: two of the proposals, two of the boxes, one of the masks.
  DetectionLoading loading;
  loading.batch = 4, loading.longer = 96, loading.shorter = {96};
  BatchStream<DetectionBatch> batches(detection_batches(train, loading));
  DetectionTask task(model, test, std::make_shared<const CocoTruth>(truth_of(test)), loading);
  if (argc > 1)
    task.on_image = [&](const DetectionSample& sample, const std::vector<Detection>& found,
                        i64 index, const Testing&) {
      std::vector<Shown> shown;
      for (const Detection& d : found)
        if (d.score > 0.5)
          shown.push_back({static_cast<double>(d.box.x1), static_cast<double>(d.box.y1),
                           static_cast<double>(d.box.x2), static_cast<double>(d.box.y2), d.label,
                           test.class_names[0], d.score, d.mask});
      if (index == 0) write_png(argv[1], overlay(sample.image, shown).image());
    };
  TrainOptions recipe;
  recipe.rules = norm_rules(0.05);
  recipe.rate = StepSchedule{.rate = 1e-3, .steps = {2}, .warmup = 60};
  recipe.clip = 10;
  recipe.epochs = recipe.evaluate_every = 3;  // on images that it never saw, at the end
  Trainer trainer(task, recipe);
  double first = 0, last = 0, ap50 = 0;
  trainer.run(batches, {.on_epoch = [&](const EpochRecord<DetectionEvaluation>& r, bool) {
                last = r.train_loss;  // the mean of their sum
                if (r.epoch == 0) first = last;
                if (r.test) ap50 = r.test->masks->figures[1];
              }});
  std::printf("the loss fell by more than a third: %s\n", last < first * 2 / 3 ? "yes" : "no");
  std::fprintf(stderr, "loss %.3f -> %.3f, mask AP50 %.3f\n", first, last, ap50);
  std::printf("masks of figures it never saw, AP50 above 0.6: %s\n", ap50 > 0.6 ? "yes" : "no");
}
