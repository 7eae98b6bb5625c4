// 16: how a network finds objects. It has no list of things to fill in: it answers the same two
// questions for a thousand fixed boxes, the anchors, that lie all over the image.
//
//   is there an object?     score = sigmoid(logit)
//   where is it exactly?    dx = (x - x_a) / w_a,  dw = ln(w / w_a)      the same for y and h
//
// To learn, each anchor needs an answer: it stands for the object that it overlaps most, if that is
// enough, for ground if it overlaps none, else it is not asked. To find, the many anchors around an
// object have to become one: of boxes that overlap, the best stays (non-maximum suppression). No
// network here: its answers are made up. `ppma train --task detect` and trainer.cpp train real
// ones.
//
//   16_detect [PICTURE.png]

#include <algorithm>
#include <numeric>

#include "check.hpp"
#include "lesson_boxes.hpp"
#include "ppma/heads/boxes.hpp"
#include "ppma/heads/losses.hpp"
#include "ppma/heads/targets.hpp"
#include "ppma/io/image.hpp"

using namespace ppma;

namespace {

// Of boxes that overlap by more than a half only the best stays: their numbers, best first.
std::vector<i64> suppress(const BoxList& list) {
  std::vector<i64> order(list.boxes.size()), kept;
  std::iota(order.begin(), order.end(), 0);
  const auto at = [](const auto& of, i64 k) { return of[static_cast<std::size_t>(k)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](i64 a, i64 b) { return at(list.scores, a) > at(list.scores, b); });
  for (const i64 k : order)
    if (std::none_of(kept.begin(), kept.end(), [&](i64 better) {
          return iou(at(list.boxes, better), at(list.boxes, k)) > 0.5f;
        }))
      kept.push_back(k);
  return kept;
}

}  // namespace

int main(int argc, char** argv) {
  const Scene scene = box_scene();
  const BoxList objects = objects_of(scene);

  // 1. Boxes become targets. Anchors: two grids, three shapes a cell.
  std::vector<Box> boxes;
  for (const i64 stride : {16, 32})
    for (const Box& b : anchors(scene_side / stride, scene_side / stride, stride, {4, {0.5, 1, 2}}))
      boxes.push_back(b);
  const std::vector<i64> assigned =
      assign(boxes, objects.boxes, {.positive = 0.6, .negative = 0.3});
  BoxList positive;
  std::vector<float> label, asked;
  for (std::size_t k = 0; k < boxes.size(); ++k) {
    if (assigned[k] >= 0) positive.add(boxes[k], assigned[k]);
    label.push_back(assigned[k] >= 0 ? 1.0f : 0.0f);
    asked.push_back(assigned[k] == assigned_ignored ? 0.0f : 1.0f);
  }
  const i64 n = static_cast<i64>(boxes.size());
  const float answers = std::accumulate(asked.begin(), asked.end(), 0.0f);
  std::printf("%lld objects, %lld anchors: %lld stand for an object, %.0f for ground\n",
              objects.size(), static_cast<long long>(n), positive.size(),
              answers - static_cast<float>(positive.size()));

  // 2. The loss of a network that knows nothing and says 0, which is a probability of 1/2.
  const Tensor nothing = Tensor::zeros({n});
  const double loss =
      weighted_bce(nothing, Tensor::from<float>(label, {n}), Tensor::from<float>(asked, {n}))
          .item() /
      answers;
  std::printf("loss of an anchor at first: %.4f\n", loss);
  expect(std::fabs(loss - std::log(2.0)) < 1e-6, "it is ln 2");

  // 3. Answers: what a network that is nearly right says of each anchor near an object.
  BoxList found;
  Rng rng(16);
  float farthest = 0;
  for (const i64 object : objects.objects)
    for (const Box& a : boxes) {
      const Box& truth = objects.boxes[static_cast<std::size_t>(object)];
      if (iou(a, truth) < 0.35f) continue;
      Delta d = encode(a, truth);
      farthest = std::max(farthest, 1 - iou(decode(a, d, scene_side, scene_side), truth));
      for (float* part : {&d.dx, &d.dy, &d.dw, &d.dh})
        *part += static_cast<float>(0.08 * rng.normal());
      const Box box = decode(a, d, scene_side, scene_side);
      found.add(box, object, iou(box, truth));
    }
  expect(farthest < 1e-4f, "the right four numbers move an anchor onto its object");

  // 4. Answers become objects.
  const BoxList kept = found.only(suppress(found));
  expect(suppress(found) == nms(found.boxes, found.scores, {}, 0.5), "suppress() is the library's");
  std::printf("%lld answers, of which %lld stay; the worst overlaps its object by %.2f\n",
              found.size(), kept.size(), *std::min_element(kept.scores.begin(), kept.scores.end()));
  std::vector<i64> once = kept.objects;
  std::sort(once.begin(), once.end());
  expect(once == objects.objects, "one for each object");

  if (argc > 1)
    write_png(argv[1],
              panels({{drawn("objects", scene, objects),
                       drawn("anchors that stand for them", scene, positive),
                       drawn("answers", scene, found), drawn("those that stay", scene, kept)}},
                     {.size = scene_side})
                  .image());
  return failures;
}

// Exercises (solutions/13_18.cpp):
//   1. Three boxes in a row, each overlapping the next by 0.4, the one in the middle best. Which
//      stay with a threshold of 0.5, which with 0.3?
//   2. An anchor of 64 x 64 stands for an object of 128 x 32 with the same centre. What is its
//      target?
