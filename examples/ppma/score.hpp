#pragma once
// ppma eval-coco and ppma eval-miou: figures of predictions that lie in files.

#include <memory>

#include "class_table.hpp"
#include "common.hpp"
#include "ppma/commands/score.hpp"

namespace tool {

constexpr const char* per_class_help =
    "figures of all classes, not of the five worst; up to 20 always are";

struct EvalCocoCommand : DetectionScoreOptions {
  bool json = false, per_class = false;
};

inline void eval_coco(const EvalCocoCommand& o) {
  const DetectionScore s = score_detections(o, notes());
  const auto& figures = s.scores.figures;
  if (o.json) {
    Json j;
    j["type"] = o.type;
    j["protocol"] = o.protocol;
    for (std::size_t i = 0; i < figures.size(); ++i) j[s.figure_names[i]] = figures[i];
    j["stats"] = figures;
    j["classes"] = Json::array();
    for (std::size_t c = 0; c < s.categories.size(); ++c)
      j["classes"].push_back({{"id", s.categories[c].id},
                              {"name", s.categories[c].name},
                              {"AP", s.scores.class_ap[c]},
                              {"AP50", s.scores.class_ap50[c]},
                              {"AP75", s.scores.class_ap75[c]}});
    j["warnings"] = s.scores.warnings;
    return print_json(j);
  }
  std::printf("%s: %lld images, %lld annotations, %lld detections\n", o.type.c_str(),
              static_cast<long long>(s.images), static_cast<long long>(s.annotations),
              static_cast<long long>(s.detections));
  for (std::size_t i = 0; i < figures.size(); ++i)
    std::printf("  %-6s %6.4f\n", s.figure_names[i].c_str(), figures[i]);
  std::vector<std::string> classes;
  for (const CocoCategory& c : s.categories) classes.push_back(shown_name(c.name));
  print_ap(s.scores, classes, o.per_class, 2);
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

struct EvalMiouCommand : LabelMapScoreOptions {
  bool json = false, per_class = false;
};

inline void eval_miou(const EvalMiouCommand& o) {
  const LabelMapScore s = score_label_maps(o, notes());
  const SegmentationFigures& r = s.figures;
  if (o.json) {
    Json j;
    j["images"] = s.images;
    j["mIoU"] = r.mean_iou;  // NaN becomes null
    j["aAcc"] = r.all_accuracy;
    j["mAcc"] = r.mean_accuracy;
    j["IoU"] = r.iou;
    j["Acc"] = r.accuracy;
    j["warnings"] = s.warnings;
    return print_json(j);
  }
  std::printf("%lld images: mIoU %.4f, aAcc %.4f, mAcc %.4f\n", static_cast<long long>(s.images),
              r.mean_iou, r.all_accuracy, r.mean_accuracy);
  std::vector<std::string> names;
  for (i64 c = 0; c < o.classes; ++c) names.push_back(str("class ", c));
  print_pixels(confusion_of(s.pixels), names, o.per_class, 2);
}

inline void add_eval_miou(CLI::App& app) {
  auto o = std::make_shared<EvalMiouCommand>();
  auto* c = app.add_subcommand("eval-miou", "Mean IoU and accuracies of label maps");
  c->add_option("--pred", o->pred,
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
  c->add_flag("--reduce-zero-label", o->reduce_zero_label,
              "labels 1..K are the classes 0..K-1, label 0 does not count");
  c->add_flag("--per-class", o->per_class, per_class_help);
  c->add_flag("--json", o->json, "one JSON object, with all figures, instead of text");
  c->callback([o] { eval_miou(*o); });
}

}  // namespace tool
