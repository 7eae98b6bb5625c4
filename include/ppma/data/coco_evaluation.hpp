#pragma once
#include "ppma/core/names_begin.hpp"
// COCO's twelve figures of a set of detections: files (io/coco.hpp) meet the count
// (metrics/average_precision.hpp).

#include <string>
#include <vector>

#include "ppma/io/coco.hpp"
#include "ppma/metrics/average_precision.hpp"

namespace ppma::inline PPMA_ABI {

/// What overlaps are of: boxes or masks.
enum class CocoType : u8 { bbox, segm };

/// pycocotools' own protocol, or mmdet 2's: limits 100, 300, 1000, and a detection's area is its
/// mask's even where the results hold boxes beside it. (pycocotools then takes the boxes' areas for
/// all, going by the first result.)
enum class CocoProtocol : u8 { pycocotools, mmdet2 };

struct CocoScores : CocoFigures {
  std::vector<std::string> warnings;
};

/// Errors: annotations that cannot be scored, which pycocotools refuses too: masks are compared and
/// one has none; one does not say its area (read_coco with `fill` false). The first is named.
PPMA_API void check_scorable(const CocoTruth& truth, CocoType type);

/// Scores detections. Errors: an image that the annotations do not have, no box or mask where it is
/// needed, a mask of another size than its image; each names the file and the record; what
/// check_scorable refuses. A truth's box is looked at, and its mask drawn, only where its image has
/// detections of its class.
PPMA_API CocoScores evaluate_coco(const CocoTruth& truth, const std::vector<CocoResult>& results,
                                  CocoType type, CocoProtocol protocol = CocoProtocol::pycocotools);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <map>

namespace ppma::inline PPMA_ABI {

void check_scorable(const CocoTruth& truth, CocoType type) {
  const auto none = [&](auto lacks, const char* what, const char* remedy) {
    i64 count = 0, first = 0;
    for (const CocoAnnotation& a : truth.annotations)
      if (lacks(a) && count++ == 0) first = a.id;
    check(count == 0, truth.path, ": ", count, " of ", truth.annotations.size(),
          " annotations have no ", what, ", the first has the id ", first, "; ", remedy);
  };
  none([](const CocoAnnotation& a) { return !a.area_said; }, "\"area\"",
       "it says what is small, medium and large: write it down");
  if (type == CocoType::segm)
    none([](const CocoAnnotation& a) { return a.mask.empty(); }, "\"segmentation\"",
         "masks cannot be compared, but boxes can (bbox)");
}

namespace detail {

/// pycocotools takes all results for what the first one is: boxes, or masks whose boxes are around
/// them. Error: one that is something else.
inline void check_alike(const std::vector<CocoResult>& results) {
  for (const CocoResult& r : results) {
    const CocoResult& first = results.front();
    check(!first.box || r.box, r.where, ": has no \"bbox\", which ", first.where,
          " has; give all or none of them one");
    check(first.box || !r.mask.empty(), r.where, ": has no \"segmentation\", which ", first.where,
          " has; give all or none of them one");
  }
}

}  // namespace detail

CocoScores evaluate_coco(const CocoTruth& truth, const std::vector<CocoResult>& results,
                         CocoType type, CocoProtocol protocol) {
  check_scorable(truth, type);
  detail::check_alike(results);
  const bool masks = type == CocoType::segm;
  const std::size_t images = truth.images.size(), classes = truth.categories.size();
  std::vector<std::vector<std::size_t>> truths_of(images), results_of(images);
  for (std::size_t i = 0; i < truth.annotations.size(); ++i)
    truths_of[static_cast<std::size_t>(truth.annotations[i].image)].push_back(i);
  std::map<i64, i64> others;  // results of categories that there are not
  for (std::size_t i = 0; i < results.size(); ++i) {
    const i64 image = detail::rank_of(truth.images, results[i].image_id);
    check(image >= 0, results[i].where, ": ", truth.path, " has no image with the id ",
          results[i].image_id, "; the results are of another set");
    if (detail::rank_of(truth.categories, results[i].category_id) < 0)
      ++others[results[i].category_id];
    else
      results_of[static_cast<std::size_t>(image)].push_back(i);
  }
  // The area of a detection is its box's, or its mask's.
  const bool have_boxes = !results.empty() && results.front().box;
  const bool box_areas = have_boxes && (!masks || protocol == CocoProtocol::pycocotools);

  AveragePrecision ap(static_cast<i64>(classes),
                      protocol == CocoProtocol::mmdet2 ? mmdet2_ap : ApOptions{});
  std::vector<std::vector<std::size_t>> g_of(classes), d_of(classes);
  for (std::size_t n = 0; n < images; ++n) {
    const CocoImage& image = truth.images[n];
    for (auto& list : g_of) list.clear();
    for (auto& list : d_of) list.clear();
    for (const std::size_t i : truths_of[n])
      g_of[static_cast<std::size_t>(truth.annotations[i].category)].push_back(i);
    for (const std::size_t i : results_of[n])
      d_of[static_cast<std::size_t>(detail::rank_of(truth.categories, results[i].category_id))]
          .push_back(i);
    const auto drawn = [&](const CocoMask& mask, const CocoBox* box, const std::string& where) {
      check(image.height > 0 && image.width > 0, truth.path, ": the image ", image.id,
            " has no height and width; masks need them");
      try {
        if (!mask.empty() || box == nullptr) return mask.draw(image.height, image.width);
        // a box is a mask too
        const double x = (*box)[0], y = (*box)[1], right = x + (*box)[2], bottom = y + (*box)[3];
        return rle_from_polygon({x, y, x, bottom, right, bottom, right, y}, image.height,
                                image.width);
      } catch (const Error& e) {
        throw Error(where + ": " + e.what());
      }
    };
    for (std::size_t c = 0; c < classes; ++c) {
      std::vector<TruthInstance> truths;
      std::vector<DetectedInstance> detections;
      std::vector<Rle> g_mask, d_mask;
      std::vector<CocoBox> g_box, d_box;  // around the masks: most pairs are told apart by them
      for (const std::size_t i : g_of[c]) {
        const CocoAnnotation& a = truth.annotations[i];
        truths.push_back({a.area, a.crowd, a.id});
        if (d_of[c].empty()) continue;  // nothing to compare it with: drawing is most of the time
        check(a.crowd_said, truth.path, ": annotation ", a.id,
              " has no \"iscrowd\"; write 0, or 1 for a crowd");
        if (masks) g_mask.push_back(drawn(a.mask, nullptr, str(truth.path, ": annotation ", a.id)));
        check(masks || a.box, truth.path, ": annotation ", a.id, " has no \"bbox\"");
        g_box.push_back(masks ? rle_box(g_mask.back()) : *a.box);
      }
      for (const std::size_t i : d_of[c]) {
        const CocoResult& r = results[i];
        const bool draw = masks || !r.box;
        const Rle mask = draw ? drawn(r.mask, r.box ? &*r.box : nullptr, r.where) : Rle{};
        d_box.push_back(draw ? rle_box(mask) : *r.box);
        const double area = (box_areas || r.mask.empty()) && r.box
                                ? detail::rounded_product((*r.box)[2], (*r.box)[3])
                                : static_cast<double>(rle_area(mask));
        if (masks) d_mask.push_back(mask);
        detections.push_back({area, r.score});
      }
      if (truths.empty() && detections.empty()) continue;
      ap.add(static_cast<i64>(c), truths, detections, [&](std::size_t d, std::size_t g) {
        const double overlap = box_iou(d_box[d], g_box[g], truths[g].crowd);
        return masks && overlap > 0 ? rle_iou(d_mask[d], g_mask[g], truths[g].crowd) : overlap;
      });
    }
  }
  CocoScores scores{ap.result(), {}};
  if (scores.zero_ids > 0)
    scores.warnings.push_back(
        str(truth.path,
            ": an annotation has the id 0; pycocotools counts a detection matched with it as a "
            "mistake, and so do these figures: number annotations from 1"));
  if (!others.empty()) {
    i64 count = 0;
    std::string ids;
    for (const auto& [id, n] : others) {
      count += n;
      if (ids.size() < 40)
        ids += str(ids.empty() ? "" : ", ", id);
      else if (!ids.ends_with("..."))
        ids += ", ...";
    }
    scores.warnings.push_back(str(count, " results have a category that ", truth.path,
                                  " does not have (id ", ids, "); they are left out"));
  }
  return scores;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
