// 12: find objects and cut them out.
//
// Mask R-CNN on a small PPMA backbone: the pyramid offers boxes (proposals), one head names and
// corrects each, another draws its mask. Here it learns on 400 generated images to find every
// figure, whatever its kind, and is scored as COCO scores: AP50 counts a mask as right that
// overlaps the true one by half. With a path, 12_detect OUT.png, it draws what it sees in an image.
// `ppma train --task detect` is this with ten names, pictures, checkpoints and your own images.

#include <cstdio>

#include "ppma/data/coco_evaluation.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/io/image.hpp"
#include "ppma/train/detection_trainer.hpp"
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
  const DetectionSet train = figures(Split::train, 400), test = figures(Split::test, 60);

  MaskRcnn model(mask_rcnn_nano(1, true), 1);
  std::printf("network: %lld parameters, of which %lld in the mask head\n",
              static_cast<long long>(parameter_count(model)),
              static_cast<long long>(parameter_count(*model.roi_head.mask_head)));

  // Five losses are added: two of the proposals, two of the boxes, one of the masks.
  DetectionLoading loading;
  loading.batch = 4, loading.longer = 96, loading.shorter = {96};
  DetectionLoader loader(train, loading);
  DetectionTraining recipe;
  recipe.schedule = {.rate = 1e-3, .steps = {3}, .warmup = 60};
  recipe.clip = 10;
  DetectionTrainer<MaskRcnn> trainer(model, recipe);
  double first = 0, last = 0;
  for (int epoch = 0; epoch < 4; ++epoch) {
    last = trainer.run_epoch(loader).values[0].second;  // the mean of their sum
    if (epoch == 0) first = last;
  }
  std::printf("the loss fell by more than a third: %s\n", last < first * 2 / 3 ? "yes" : "no");

  // Images that it never saw.
  const CocoTruth truth = truth_of(test);
  std::vector<CocoResult> results;
  for (i64 i = 0; i < test.size; ++i) {
    const DetectionSample sample = test.load(i);
    const DetectionBatch batch = evaluation_batch(sample, loading);
    const std::vector<Detection> found = model.detect(batch.images, batch.frames)[0];
    for (const Detection& d : found) {
      CocoResult r;
      r.image_id = sample.image_id, r.category_id = 1, r.score = d.score, r.mask.rle = d.mask,
      r.where = sample.name;
      results.push_back(r);
    }
    if (i != 0 || argc < 2) continue;
    std::vector<Shown> shown;
    for (const Detection& d : found)
      if (d.score > 0.5)
        shown.push_back({static_cast<double>(d.box.x1), static_cast<double>(d.box.y1),
                         static_cast<double>(d.box.x2), static_cast<double>(d.box.y2), d.label,
                         test.class_names[0], d.score, d.mask});
    write_png(argv[1], overlay(sample.image, shown).image());
  }
  const double ap50 = evaluate_coco(truth, results, CocoType::segm).figures[1];
  std::fprintf(stderr, "loss %.3f -> %.3f, mask AP50 %.3f\n", first, last, ap50);
  std::printf("masks of figures it never saw, AP50 above 0.6: %s\n", ap50 > 0.6 ? "yes" : "no");
}
