#pragma once
// ppma eval-coco and ppma eval-miou: figures of predictions that lie in files.

#include <filesystem>
#include <memory>

#include "class_table.hpp"
#include "common.hpp"
#include "ppma/data/coco_evaluation.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/label_map.hpp"
#include "ppma/io/png.hpp"
#include "ppma/metrics/mean_iou.hpp"

namespace tool {

constexpr const char* per_class_help =
    "figures of all classes, not of the five worst; up to 20 always are";

struct EvalCocoCommand {
  std::string gt, dt, type = "bbox", protocol = "pycocotools";
  bool json = false, per_class = false;
};

inline void eval_coco(const EvalCocoCommand& o) {
  const CocoType type = o.type == "segm" ? CocoType::segm : CocoType::bbox;
  const bool mmdet2 = o.protocol == "mmdet2";
  const CocoTruth truth = read_coco(o.gt, type == CocoType::segm, false);
  const std::vector<CocoResult> results = read_coco_results(o.dt);
  check(!results.empty(), o.dt, ": an empty list; there are no detections to score");
  const CocoScores s = evaluate_coco(truth, results, type,
                                     mmdet2 ? CocoProtocol::mmdet2 : CocoProtocol::pycocotools);
  std::vector<std::string> names(coco_figure_names.begin(), coco_figure_names.end());
  if (mmdet2) names[6] = "AR100", names[7] = "AR300", names[8] = "AR1000";
  for (const std::string& w : s.warnings) std::fprintf(stderr, "ppma: %s\n", w.c_str());
  if (o.json) {
    Json j;
    j["type"] = o.type;
    j["protocol"] = o.protocol;
    for (std::size_t i = 0; i < names.size(); ++i) j[names[i]] = s.figures[i];
    j["stats"] = s.figures;
    j["classes"] = Json::array();
    for (std::size_t c = 0; c < truth.categories.size(); ++c)
      j["classes"].push_back({{"id", truth.categories[c].id},
                              {"name", truth.categories[c].name},
                              {"AP", s.class_ap[c]},
                              {"AP50", s.class_ap50[c]},
                              {"AP75", s.class_ap75[c]}});
    j["warnings"] = s.warnings;
    return print_json(j);
  }
  std::printf("%s: %zu images, %zu annotations, %zu detections\n", o.type.c_str(),
              truth.images.size(), truth.annotations.size(), results.size());
  for (std::size_t i = 0; i < names.size(); ++i)
    std::printf("  %-6s %6.4f\n", names[i].c_str(), s.figures[i]);
  std::vector<std::string> classes;
  for (const CocoCategory& c : truth.categories) classes.push_back(shown_name(c.name));
  print_ap(s, classes, o.per_class, 2);
}

inline void add_eval_coco(CLI::App& app) {
  auto o = std::make_shared<EvalCocoCommand>();
  auto* c = app.add_subcommand("eval-coco", "COCO's twelve figures of detections");
  c->add_option("--gt", o->gt, "annotations, as COCO JSON")->required()->check(CLI::ExistingFile);
  c->add_option("--dt", o->dt, "detections, a JSON list in COCO's result form")
      ->required()
      ->check(CLI::ExistingFile);
  c->add_option("--type", o->type, "what overlaps: boxes or masks")
      ->check(CLI::IsMember({"bbox", "segm"}))
      ->capture_default_str();
  c->add_option("--protocol", o->protocol,
                "pycocotools' limits 1, 10, 100, or mmdet 2's 100, 300, 1000 with areas of masks")
      ->check(CLI::IsMember({"pycocotools", "mmdet2"}))
      ->capture_default_str();
  c->add_flag("--per-class", o->per_class, per_class_help);
  c->add_flag("--json", o->json, "one JSON object, with all figures, instead of text");
  c->callback([o] { eval_coco(*o); });
}

struct EvalMiouCommand {
  std::string prediction, gt;
  i64 classes = 0, ignore = 255;
  bool reduce_zero = false, json = false, per_class = false;
};

/// Where the prediction of each label map of --gt lies: below --pred under the same name, with any
/// case of its ending, or as `predict --task segment` names it, NAME_labels.png, there or in --pred
/// itself. What is left out goes to `warnings`. Errors: a map without a prediction; one that two
/// files could be.
inline std::vector<std::array<std::string, 2>> miou_pairs(const EvalMiouCommand& o,
                                                          std::vector<std::string>& warnings) {
  namespace fs = std::filesystem;
  const FolderList gt = files_below(o.gt, {".png"}),
                   predicted = files_below(o.prediction, {".png"});
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
  const auto maps = by_stem(o.gt, gt.files), found = by_stem(o.prediction, predicted.files);
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
      const std::string path = o.prediction + "/" + found.at(stem);
      const int colour = detail::png_header(read_file(path), path).colour;
      check(colour != 0 && colour != 3, o.prediction, ": ", found.at(stem), " and ",
            found.at(labels), " could both be the prediction of ", file, "; one of them must go");
      ++pictures;
    }
    if (!written && !same) {
      if (++absent == 1) missing = file;
      continue;
    }
    const std::string& prediction = found.at(written ? labels : stem);
    const auto entry = taken.emplace(prediction, file);
    check(entry.second, o.prediction, "/", prediction, ": could be the prediction of ",
          entry.first->second, " and of ", file, "; put it into a folder as in ", o.gt);
    pairs.push_back({o.gt + "/" + file, o.prediction + "/" + prediction});
  }
  const std::string only = predicted.left_out(".png");
  check(absent == 0, o.prediction, ": has no prediction for ", absent, " of ", maps.size(),
        " label maps of ", o.gt, ", such as ", missing, "; it must have the same name, or ",
        fs::path(missing).stem().string(), "_labels.png", only.empty() ? "" : "; there are ", only);
  if (const std::size_t more = predicted.files.size() - taken.size() - pictures; more > 0) {
    const auto other = std::find_if(found.begin(), found.end(), [&](const auto& f) {
      return taken.count(f.second) == 0 && maps.count(f.first) == 0;
    });
    warnings.push_back(str(o.prediction, ": left out: ", more,
                           " .png files that are the prediction of no label map of ", o.gt,
                           other == found.end() ? "" : " (such as " + other->second + ")"));
  }
  return pairs;
}

inline void eval_miou(const EvalMiouCommand& o) {
  check(
      !o.reduce_zero || o.ignore >= o.classes,
      "eval-miou: --reduce-zero-label gives label 0 the number that does not count, and --ignore ",
      o.ignore, " is one of the ", o.classes, " classes; take one from ", o.classes, " on");
  std::vector<std::string> warnings;
  const auto pairs = miou_pairs(o, warnings);
  for (const std::string& w : warnings) std::fprintf(stderr, "ppma: %s\n", w.c_str());
  MeanIou m(o.classes, o.ignore);
  for (const auto& [path, predicted] : pairs) {
    Tensor label = read_label_map(path);
    if (o.reduce_zero) label = reduce_zero_label(label, o.ignore);
    m.add(read_label_map(predicted), label, path + " and " + predicted);
  }
  const SegmentationFigures r = m.result();
  check(!is_nan(r.all_accuracy), o.gt, ": no pixel counts: every label is ", o.ignore,
        ", which --ignore leaves out");
  if (o.json) {
    Json j;
    j["images"] = pairs.size();
    j["mIoU"] = r.mean_iou;  // NaN becomes null
    j["aAcc"] = r.all_accuracy;
    j["mAcc"] = r.mean_accuracy;
    j["IoU"] = r.iou;
    j["Acc"] = r.accuracy;
    j["warnings"] = warnings;
    return print_json(j);
  }
  std::printf("%zu images: mIoU %.4f, aAcc %.4f, mAcc %.4f\n", pairs.size(), r.mean_iou,
              r.all_accuracy, r.mean_accuracy);
  std::vector<std::string> names;
  for (i64 c = 0; c < o.classes; ++c) names.push_back(str("class ", c));
  print_pixels(confusion_of(m), names, o.per_class, 2);
}

inline void add_eval_miou(CLI::App& app) {
  auto o = std::make_shared<EvalMiouCommand>();
  auto* c = app.add_subcommand("eval-miou", "Mean IoU and accuracies of label maps");
  c->add_option("--pred", o->prediction,
                "folder of predicted label maps (PNG), named as those of --gt or as predict --task "
                "segment names them")
      ->required()
      ->check(CLI::ExistingDirectory);
  c->add_option("--gt", o->gt, "folder of label maps (PNG), also in folders below")
      ->required()
      ->check(CLI::ExistingDirectory);
  c->add_option("--classes", o->classes, "number of classes")
      ->required()
      ->check(in_range(i64{1}, i64{4096}));
  c->add_option("--ignore", o->ignore, "label of pixels that do not count")
      ->check(in_range(i64{0}, i64{65535}))
      ->capture_default_str();
  c->add_flag("--reduce-zero-label", o->reduce_zero,
              "labels 1..K are the classes 0..K-1, label 0 does not count");
  c->add_flag("--per-class", o->per_class, per_class_help);
  c->add_flag("--json", o->json, "one JSON object, with all figures, instead of text");
  c->callback([o] { eval_miou(*o); });
}

}  // namespace tool
