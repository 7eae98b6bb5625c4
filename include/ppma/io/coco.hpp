#pragma once
#include "ppma/core/names_begin.hpp"
// COCO's files: annotations (images, categories, objects) and detection results,
// https://cocodataset.org/#format-data.
// Streamed record by record (io/json_records.hpp); masks stay polygons or runs until somebody draws
// them.

#include <optional>
#include <string>
#include <vector>

#include "ppma/io/file.hpp"
#include "ppma/io/rle.hpp"

namespace ppma::inline PPMA_ABI {

/// What a file says of a mask: polygons (their union), or runs, or nothing.
struct CocoMask {
  std::vector<std::vector<double>> polygons;  // x, y, x, y, ...
  std::optional<Rle> rle;

  /// Whether there is no mask.
  bool empty() const { return polygons.empty() && !rle; }

  /// The mask drawn in an image; without polygons and runs no pixel is set. Errors: runs for
  /// another size.
  PPMA_API Rle draw(i64 height, i64 width) const;
};

struct CocoImage {
  i64 id = 0;
  std::string file_name;
  i64 height = 0, width = 0;  // 0 if the file does not say
};

struct CocoCategory {
  i64 id = 0;
  std::string name;
};

struct CocoAnnotation {
  i64 id = 0;
  i64 image = 0, category = 0;  // numbers in `images` and `categories`, not ids
  std::optional<CocoBox> box;
  double area = 0;  // as annotated; the box's where the file does not say
  bool crowd = false;
  bool area_said = true, crowd_said = true;  // false: not by the file, where that was asked for
  CocoMask mask;
};

struct CocoTruth {
  std::string path;
  std::vector<CocoImage> images;            // ascending ids
  std::vector<CocoCategory> categories;     // ascending ids: the number of a class is its rank
  std::vector<CocoAnnotation> annotations;  // in the file's order
};

struct CocoResult {
  i64 image_id = 0, category_id = 0;
  double score = 0;
  std::optional<CocoBox> box;
  CocoMask mask;
  std::string where;  // for messages: file and number
};

namespace detail {

/// Rank of an id in a sorted list, or -1.
template <class T>
i64 rank_of(const std::vector<T>& sorted, i64 id) {
  const auto it = std::lower_bound(sorted.begin(), sorted.end(), id,
                                   [](const T& a, i64 b) { return a.id < b; });
  return it != sorted.end() && it->id == id ? it - sorted.begin() : -1;
}

}  // namespace detail

/// Reads annotations. `masks` false leaves segmentations out, for boxes alone. Where the file says
/// no area, the box's is taken, and where it says no "iscrowd", none; with `fill` false it is noted
/// that it did not say, and evaluate_coco refuses such annotations, as pycocotools does. Errors
/// name the file and the record.
PPMA_API CocoTruth read_coco(const std::string& path, bool masks = true, bool fill = true);

/// The same from memory; `name` is what errors call it.
PPMA_API CocoTruth parse_coco(Bytes json, const std::string& name, bool masks = true,
                              bool fill = true);

/// Reads a list of detections.
PPMA_API std::vector<CocoResult> read_coco_results(const std::string& path);

/// Results from memory; `name` is what errors call them.
PPMA_API std::vector<CocoResult> parse_coco_results(Bytes json, const std::string& name);

/// Writes detections as COCO wants them, masks as text; whole or not at all. Errors: polygons (draw
/// them first), scores or boxes that are not finite.
PPMA_API void write_coco_results(const std::string& path, const std::vector<CocoResult>& results);

/// The same text in memory; `name` is what errors call it.
PPMA_API std::string coco_results_text(const std::vector<CocoResult>& results,
                                       const std::string& name);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "ppma/core/float_bits.hpp"
#include "ppma/io/json_records.hpp"

namespace ppma::inline PPMA_ABI {

Rle CocoMask::draw(i64 height, i64 width) const {
  detail::check_mask_size(height, width);
  if (rle) {
    check(rle->height == height && rle->width == width, "mask: of ", rle->height, " x ", rle->width,
          " pixels in an image of ", height, " x ", width);
    return *rle;
  }
  Rle all{height, width, {static_cast<u32>(height * width)}};
  for (std::size_t i = 0; i < polygons.size(); ++i) {
    const Rle one = rle_from_polygon(polygons[i], height, width);
    all = i == 0 ? one : rle_union(all, one);
  }
  return all;
}

namespace detail {

template <class T>
void sort_by_id(std::vector<T>& all, const std::string& name, const char* what) {
  std::stable_sort(all.begin(), all.end(), [](const T& a, const T& b) { return a.id < b.id; });
  for (std::size_t i = 1; i < all.size(); ++i)
    check(all[i - 1].id != all[i].id, name, ": two ", what, " have the id ", all[i].id);
}

inline CocoBox read_box(const JsonRecord& r) {
  const std::vector<double> b = r.numbers(r.get("bbox"), "bbox");
  check(b.size() == 4, r.where, ": \"bbox\" has ", b.size(),
        " numbers; it must be [x, y, width, height]");
  check(b[2] >= 0 && b[3] >= 0, r.where, ": \"bbox\" has the negative size ", b[2], " x ", b[3]);
  return {b[0], b[1], b[2], b[3]};
}

inline CocoMask read_mask(const JsonRecord& r) {
  CocoMask mask;
  const nlohmann::json* s = r.find("segmentation");
  if (s == nullptr) return mask;
  if (s->is_array()) {
    if (s->empty()) return mask;
    // one, without the outer list
    if (s->front().is_number())
      mask.polygons.push_back(r.numbers(*s, "segmentation"));
    else
      for (const auto& polygon : *s) mask.polygons.push_back(r.numbers(polygon, "segmentation"));
    for (const auto& p : mask.polygons)
      check(p.size() >= 6 && p.size() % 2 == 0, r.where, ": \"segmentation\" has a polygon of ",
            p.size(), " numbers; it needs three corners or more, two numbers each");
    return mask;
  }
  check(s->is_object(), r.where, ": \"segmentation\" is ", JsonRecord::described(*s),
        "; it must be polygons or runs");
  const JsonRecord runs{*s, "", r.where + ": segmentation"};
  const std::vector<double> size = runs.numbers(runs.get("size"), "size");
  check(size.size() == 2 &&
            std::all_of(size.begin(), size.end(),
                        [](double n) { return n >= 1 && n <= 134217728 && n == std::floor(n); }),
        runs.where, ": \"size\" must be [height, width] in pixels");
  const nlohmann::json& counts = runs.get("counts");
  try {
    const i64 height = static_cast<i64>(size[0]), width = static_cast<i64>(size[1]);
    if (counts.is_string()) {
      mask.rle = rle_from_string(counts.get_ref<const std::string&>(), height, width);
      return mask;
    }
    Rle m{height, width, {}};
    for (const double n : runs.numbers(counts, "counts")) {
      check(n >= 0 && n <= 134217728 && n == std::floor(n), "\"counts\" has ", n,
            " in it; runs are whole numbers of pixels");
      m.counts.push_back(static_cast<u32>(n));
    }
    check_rle(m);
    mask.rle = std::move(m);
  } catch (const Error& e) {
    const std::string message = e.what();
    throw Error(message.starts_with(runs.where) ? message : runs.where + ": " + message);
  }
  return mask;
}

template <class Source>
CocoTruth read_coco_from(Source source, const std::string& name, bool masks, bool fill) {
  CocoTruth truth;
  truth.path = name;
  const auto take = [&](const JsonRecord& r) {
    if (r.list == "images") {
      CocoImage image{r.integer("id"), "", 0, 0};
      if (r.find("file_name") != nullptr) image.file_name = r.text("file_name");
      const auto take_side = [&r](const char* side, i64& to) {
        if (r.find(side) == nullptr) return;
        to = r.integer(side);
        check(to > 0 && to <= 134217728, r.where, ": \"", side, "\" is ", to);
      };
      take_side("height", image.height), take_side("width", image.width);
      truth.images.push_back(std::move(image));
    } else if (r.list == "categories") {
      truth.categories.push_back({r.integer("id"), r.find("name") != nullptr
                                                       ? r.text("name")
                                                       : str("category ", r.integer("id"))});
    } else {
      CocoAnnotation a;
      a.id = r.integer("id");
      // ids until all are read
      a.image = r.integer("image_id"), a.category = r.integer("category_id");
      if (r.find("bbox") != nullptr)
        a.box = read_box(r);
      else
        check(r.find("segmentation") != nullptr, r.where,
              ": has neither \"bbox\" nor \"segmentation\"");
      a.area = r.find("area") != nullptr || !a.box ? r.number("area") : (*a.box)[2] * (*a.box)[3];
      if (const nlohmann::json* crowd = r.find("iscrowd"); crowd != nullptr)
        a.crowd = crowd->is_boolean() ? crowd->get<bool>() : r.integer("iscrowd") != 0;
      a.area_said = fill || r.find("area") != nullptr;
      a.crowd_said = fill || r.find("iscrowd") != nullptr;
      if (masks) a.mask = read_mask(r);
      truth.annotations.push_back(std::move(a));
    }
  };
  read_json_records(source, name, {"images", "annotations", "categories"}, take);
  sort_by_id(truth.images, name, "images");
  sort_by_id(truth.categories, name, "categories");
  std::set<i64> ids;
  for (std::size_t i = 0; i < truth.annotations.size(); ++i) {
    CocoAnnotation& a = truth.annotations[i];
    const i64 image = rank_of(truth.images, a.image),
              category = rank_of(truth.categories, a.category);
    check(image >= 0, name, ": annotations[", i, "]: there is no image with the id ", a.image);
    check(category >= 0, name, ": annotations[", i, "]: there is no category with the id ",
          a.category);
    check(ids.insert(a.id).second, name, ": annotations[", i, "]: the id ", a.id, " is used twice");
    a.image = image, a.category = category;
  }
  return truth;
}

template <class Source>
std::vector<CocoResult> read_coco_results_from(Source source, const std::string& name) {
  std::vector<CocoResult> results;
  const auto take = [&](const JsonRecord& r) {
    CocoResult one;
    one.where = r.where;
    one.image_id = r.integer("image_id"), one.category_id = r.integer("category_id");
    one.score = r.number("score");
    if (const nlohmann::json* box = r.find("bbox");
        box != nullptr && !(box->is_array() && box->empty()))
      one.box = read_box(r);
    one.mask = read_mask(r);
    check(
        one.box || !one.mask.empty(), r.where, ": has neither \"bbox\" nor \"segmentation\"",
        r.find("keypoints") != nullptr ? "; keypoints alone are not scored, give their boxes" : "");
    results.push_back(std::move(one));
  };
  read_json_records(source, name, {}, take);
  return results;
}

}  // namespace detail

CocoTruth read_coco(const std::string& path, bool masks, bool fill) {
  return detail::read_coco_from(path, path, masks, fill);
}

CocoTruth parse_coco(Bytes json, const std::string& name, bool masks, bool fill) {
  return detail::read_coco_from(json, name, masks, fill);
}

std::vector<CocoResult> read_coco_results(const std::string& path) {
  return detail::read_coco_results_from(path, path);
}

std::vector<CocoResult> parse_coco_results(Bytes json, const std::string& name) {
  return detail::read_coco_results_from(json, name);
}

namespace detail {

/// A result as COCO has it; `where` is the list that it is in.
inline std::string coco_result_text(const CocoResult& r, std::size_t number,
                                    const std::string& where) {
  nlohmann::ordered_json j;
  j["image_id"] = r.image_id;
  j["category_id"] = r.category_id;
  bool finite = is_finite(r.score);
  if (r.box) {
    for (const double c : *r.box) finite = finite && is_finite(c);
    j["bbox"] = *r.box;
  }
  check(finite, where, ": result ", number,
        " has a score or box that is not finite; leave such results out");
  check(r.mask.polygons.empty(), where, ": result ", number,
        " has polygons; results hold runs, which draw() gives");
  j["score"] = r.score;
  if (r.mask.rle)
    j["segmentation"] = {{"size", {r.mask.rle->height, r.mask.rle->width}},
                         {"counts", rle_string(*r.mask.rle)}};
  return j.dump();
}

}  // namespace detail

std::string coco_results_text(const std::vector<CocoResult>& results, const std::string& name) {
  std::string text = "[";
  for (std::size_t i = 0; i < results.size(); ++i)
    text += (i == 0 ? "\n" : ",\n") + detail::coco_result_text(results[i], i, name);
  return text + "\n]\n";
}

void write_coco_results(const std::string& path, const std::vector<CocoResult>& results) {
  FileWriter file(path);
  file.write("[");
  for (std::size_t i = 0; i < results.size(); ++i)
    file.write((i == 0 ? "\n" : ",\n") + detail::coco_result_text(results[i], i, path));
  file.write("\n]\n");
  file.commit();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
