#pragma once
// The scene of lesson 16 and lists of boxes on it.

#include "ppma/data/shapes.hpp"
#include "ppma/ops/nms.hpp"
#include "ppma/vis/palette.hpp"
#include "ppma/vis/panels.hpp"

inline constexpr ppma::i64 scene_side = 288;

inline ppma::Scene box_scene() {
  return ppma::draw_shapes(
      {.height = scene_side, .width = scene_side, .most_extra = 3, .most_clutter = 0}, 44);
}

/// Boxes, each with the number of the object that it is for, and a score.
struct BoxList {
  std::vector<ppma::Box> boxes;
  std::vector<ppma::i64> objects;
  std::vector<float> scores;

  void add(const ppma::Box& box, ppma::i64 object, float score = 1) {
    boxes.push_back(box), objects.push_back(object), scores.push_back(score);
  }
  long long size() const { return static_cast<long long>(boxes.size()); }
  /// Some of them, by their numbers.
  BoxList only(const std::vector<ppma::i64>& numbers) const {
    BoxList list;
    for (const ppma::i64 number : numbers) {
      const auto k = static_cast<std::size_t>(number);
      list.add(boxes[k], objects[k], scores[k]);
    }
    return list;
  }
};

inline BoxList objects_of(const ppma::Scene& scene) {
  BoxList list;
  for (ppma::i64 k = 0; k < scene.boxes.dim(0); ++k) {
    const float* b = scene.boxes.data<float>() + 4 * k;
    list.add({b[0], b[1], b[2], b[3]}, k);
  }
  return list;
}

/// The scene with boxes, in the colour of the object that each is for.
inline ppma::Panel drawn(const char* title, const ppma::Scene& scene, const BoxList& list) {
  ppma::Picture p(scene_side, scene_side);
  p.paste(0, 0, scene.image);
  const double thickness = list.size() > 40 ? 1.2 : 2.4;
  for (std::size_t k = 0; k < list.boxes.size(); ++k) {
    const double x1 = list.boxes[k].x1, y1 = list.boxes[k].y1, x2 = list.boxes[k].x2,
                 y2 = list.boxes[k].y2;
    p.line({x1, y1, x2, y1, x2, y2, x1, y2, x1, y1}, thickness, ppma::class_color(list.objects[k]),
           0.9);
  }
  return ppma::image_panel(title, p.image());
}
