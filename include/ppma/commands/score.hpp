#pragma once
#include "ppma/core/names_begin.hpp"
// Figures of detections and label maps that lie in files, whatever program wrote them.

#include <string>
#include <vector>

#include "ppma/commands/observer.hpp"
#include "ppma/data/coco_evaluation.hpp"
#include "ppma/metrics/mean_iou.hpp"

namespace ppma::inline PPMA_ABI {

/// Which detections are scored, and how.
struct DetectionScoreOptions {
  std::string gt, dt;                    // paths: COCO's annotations, results in COCO's form
  std::string type = "bbox";             // what overlaps: bbox or segm
  std::string protocol = "pycocotools";  // or mmdet2: its limits and areas
};

/// COCO's twelve figures.
struct DetectionScore {
  CocoScores scores;
  std::vector<std::string> figure_names;  // of its figures, by the protocol
  std::vector<CocoCategory> categories;   // of its classes
  i64 images = 0, annotations = 0, detections = 0;
};

/// Scores them; warnings are noted too. Errors: no detections; another type or protocol; what the
/// readers of the files refuse.
PPMA_API DetectionScore score_detections(const DetectionScoreOptions& o,
                                         Observer& observer = nobody());

/// Which label maps are scored, and how.
struct LabelMapScoreOptions {
  std::string pred, gt;            // folders of PNG files
  i64 classes = 0;                 // how many there are
  i64 ignore = 255;                // label of pixels that do not count
  bool reduce_zero_label = false;  // labels 1..K are the classes 0..K-1, label 0 does not count
};

/// Mean IoU and its companions.
struct LabelMapScore {
  SegmentationFigures figures;
  MeanIou pixels{1};  // what they are of
  i64 images = 0;
  std::vector<std::string> warnings{};
};

/// Scores them; what is left out is noted too. The prediction of each map of `gt` lies below `pred`
/// under the same name, with any case of its ending, or as predict_segments() names it,
/// NAME_labels.png, there or in `pred` itself. Errors: a map without a prediction; one that two
/// files could be; no pixel that counts.
PPMA_API LabelMapScore score_label_maps(const LabelMapScoreOptions& o,
                                        Observer& observer = nobody());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>

#include "ppma/core/float_bits.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/label_map.hpp"
#include "ppma/io/png.hpp"

namespace ppma::inline PPMA_ABI {

DetectionScore score_detections(const DetectionScoreOptions& o, Observer& observer) {
  check(o.type == "bbox" || o.type == "segm", "`type` ", o.type, ": must be bbox or segm");
  check(o.protocol == "pycocotools" || o.protocol == "mmdet2", "`protocol` ", o.protocol,
        ": must be pycocotools or mmdet2");
  const CocoType type = o.type == "segm" ? CocoType::segm : CocoType::bbox;
  const bool mmdet2 = o.protocol == "mmdet2";
  const CocoTruth truth = read_coco(o.gt, type == CocoType::segm, false);
  const std::vector<CocoResult> results = read_coco_results(o.dt);
  check(!results.empty(), o.dt, ": an empty list; there are no detections to score");
  DetectionScore s{evaluate_coco(truth, results, type,
                                 mmdet2 ? CocoProtocol::mmdet2 : CocoProtocol::pycocotools),
                   {coco_figure_names.begin(), coco_figure_names.end()},
                   truth.categories,
                   static_cast<i64>(truth.images.size()),
                   static_cast<i64>(truth.annotations.size()),
                   static_cast<i64>(results.size())};
  if (mmdet2)
    s.figure_names[6] = "AR100", s.figure_names[7] = "AR300", s.figure_names[8] = "AR1000";
  for (const std::string& w : s.scores.warnings) observer.note(w);
  return s;
}

namespace detail {

/// Where the prediction of each label map lies: pairs of paths. What is left out is warned of.
inline std::vector<std::array<std::string, 2>> miou_pairs(const LabelMapScoreOptions& o,
                                                          std::vector<std::string>& warnings) {
  namespace fs = std::filesystem;
  const FolderList gt = files_below(o.gt, {".png"}), predicted = files_below(o.pred, {".png"});
  const std::string others = gt.left_out(".png");
  check(!gt.files.empty(), o.gt, ": has no label maps (.png)", others.empty() ? "" : ", but ",
        others);
  if (!others.empty()) warnings.push_back(o.gt + ": left out: " + others);
  const auto by_stem = [](const std::string& root, const std::vector<std::string>& files) {
    std::map<std::string, std::string> of;
    for (const std::string& file : files) {
      const auto entry = of.emplace(fs::path(file).replace_extension().string(), file);
      check(entry.second, root, ": ", entry.first->second, " and ", file,
            " have one name but for the ending; one of them must go");
    }
    return of;
  };
  const auto maps = by_stem(o.gt, gt.files), found = by_stem(o.pred, predicted.files);
  std::map<std::string, std::string> taken;  // predictions, by the label map that took them
  std::vector<std::array<std::string, 2>> pairs;
  std::string missing;
  i64 absent = 0;
  std::size_t pictures = 0;  // that predict puts beside its label maps
  for (const auto& [stem, file] : maps) {
    const std::string flat = fs::path(stem).filename().string() + "_labels";
    const std::string labels = found.count(stem + "_labels") != 0 ? stem + "_labels" : flat;
    const bool written = found.count(labels) != 0 && maps.count(labels) == 0,
               same = found.count(stem) != 0;
    if (written && same) {
      const std::string path = o.pred + "/" + found.at(stem);
      const int colour = png_header(read_file(path), path).colour;
      check(colour != 0 && colour != 3, o.pred, ": ", found.at(stem), " and ", found.at(labels),
            " could both be the prediction of ", file, "; one of them must go");
      ++pictures;
    }
    if (!written && !same) {
      if (++absent == 1) missing = file;
      continue;
    }
    const std::string& prediction = found.at(written ? labels : stem);
    const auto entry = taken.emplace(prediction, file);
    check(entry.second, o.pred, "/", prediction, ": could be the prediction of ",
          entry.first->second, " and of ", file, "; put it into a folder as in ", o.gt);
    pairs.push_back({o.gt + "/" + file, o.pred + "/" + prediction});
  }
  const std::string only = predicted.left_out(".png");
  check(absent == 0, o.pred, ": has no prediction for ", absent, " of ", maps.size(),
        " label maps of ", o.gt, ", such as ", missing, "; it must have the same name, or ",
        fs::path(missing).stem().string(), "_labels.png", only.empty() ? "" : "; there are ", only);
  if (const std::size_t more = predicted.files.size() - taken.size() - pictures; more > 0) {
    const auto other = std::find_if(found.begin(), found.end(), [&](const auto& f) {
      return taken.count(f.second) == 0 && maps.count(f.first) == 0;
    });
    warnings.push_back(str(o.pred, ": left out: ", more,
                           " .png files that are the prediction of no label map of ", o.gt,
                           other == found.end() ? "" : " (such as " + other->second + ")"));
  }
  return pairs;
}

}  // namespace detail

LabelMapScore score_label_maps(const LabelMapScoreOptions& o, Observer& observer) {
  check(o.classes > 0, "eval-miou: `classes` is ", o.classes, "; it must be at least 1");
  check(
      !o.reduce_zero_label || o.ignore >= o.classes,
      "eval-miou: `reduce_zero_label` gives label 0 the number that does not count, and `ignore` ",
      o.ignore, " is one of the ", o.classes, " classes; take one from ", o.classes, " on");
  LabelMapScore s;
  const auto pairs = detail::miou_pairs(o, s.warnings);
  for (const std::string& w : s.warnings) observer.note(w);
  s.pixels = MeanIou(o.classes, o.ignore);
  for (const auto& [path, predicted] : pairs) {
    Tensor label = read_label_map(path);
    if (o.reduce_zero_label) label = reduce_zero_label(label, o.ignore);
    s.pixels.add(read_label_map(predicted), label, path + " and " + predicted);
  }
  s.figures = s.pixels.result(), s.images = static_cast<i64>(pairs.size());
  check(!is_nan(s.figures.all_accuracy), o.gt, ": no pixel counts: every label is ", o.ignore,
        ", which `ignore` leaves out");
  return s;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
