#pragma once
// COCO's readers under any bytes at all; see targets.hpp. Used by the fuzzers and by
// io/coco_mutation_test.cpp.

#include "ppma/data/coco_evaluation.hpp"
#include "targets.hpp"

namespace fuzz {

/// Height, width (a byte each, 0 is 256), and a text of runs. What is accepted must come back the
/// same.
inline bool rle(Bytes input) {
  if (input.size() < 2) return false;
  const i64 height = input[0] == 0 ? 256 : input[0], width = input[1] == 0 ? 256 : input[1];
  const std::string text(input.begin() + 2, input.end());
  return survives(
      [&] {
        const Rle m = rle_from_string(text, height, width);
        const Tensor bits = rle_decode(m);
        const Rle plain = rle_encode(bits);
        if (!(rle_from_string(rle_string(m), height, width) == m)) std::abort();
        if (rle_area(plain) != rle_area(m) || rle_box(plain) != rle_box(m)) std::abort();
        if (rle_intersection(m, plain) != rle_area(m) || !(rle_union(m, plain) == plain))
          std::abort();
      },
      height * width + 4096);
}

/// Annotations, and their masks drawn where they are small.
inline bool coco(Bytes json) {
  return survives(
      [&] {
        const CocoTruth t = parse_coco(json, "fuzzed");
        for (const CocoAnnotation& a : t.annotations) {
          const CocoImage& image = t.images[static_cast<std::size_t>(a.image)];
          if (image.height * image.width <= 65536 && a.mask.polygons.size() < 4)
            a.mask.draw(image.height, image.width);
        }
      },
      0);
}

/// Detections, scored against two images as masks and as boxes; true where either can be done.
inline bool coco_results(Bytes json) {
  const std::string gt = R"({"images": [{"id": 1, "height": 20, "width": 30},
      {"id": 2, "height": 9, "width": 9}], "categories": [{"id": 1}, {"id": 5}], "annotations": [
      {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "area": 50, "iscrowd": 0,
       "segmentation": [[2, 2, 12, 2, 12, 12]]},
      {"id": 2, "image_id": 2, "category_id": 5, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 1,
       "segmentation": {"size": [9, 9], "counts": [0, 81]}}]})";
  const Bytes bytes(reinterpret_cast<const u8*>(gt.data()), gt.size());
  bool scored = false;
  for (const CocoType type : {CocoType::segm, CocoType::bbox})
    scored |= survives(
        [&] {
          const CocoTruth truth = parse_coco(bytes, "truth");
          const std::vector<CocoResult> results = parse_coco_results(json, "fuzzed");
          for (const double f : evaluate_coco(truth, results, type).figures)
            if (!(f == -1 || (f >= 0 && f < 1 + 1e-9))) std::abort();
        },
        0);
  return scored;
}

}  // namespace fuzz
