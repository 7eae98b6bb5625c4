#pragma once
// ppma eval-coco and ppma eval-miou: figures of predictions that lie in files.

#include <filesystem>
#include <memory>

#include "common.hpp"
#include "ppma/data/coco_evaluation.hpp"
#include "ppma/io/label_map.hpp"
#include "ppma/metrics/mean_iou.hpp"

namespace tool {

struct EvalCocoCommand {
  std::string gt, dt, type = "bbox", protocol = "pycocotools";
  bool json = false;
};

inline void eval_coco(const EvalCocoCommand& o) {
  const CocoType type = o.type == "segm" ? CocoType::segm : CocoType::bbox;
  const bool mmdet2 = o.protocol == "mmdet2";
  const CocoTruth truth = read_coco(o.gt, type == CocoType::segm);
  const std::vector<CocoResult> results = read_coco_results(o.dt);
  const CocoScores s = evaluate_coco(truth, results, type, mmdet2 ? CocoProtocol::mmdet2 : CocoProtocol::pycocotools);
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
      j["classes"].push_back({{"id", truth.categories[c].id}, {"name", truth.categories[c].name}, {"AP", s.class_ap[c]}});
    j["warnings"] = s.warnings;
    return print_json(j);
  }
  std::printf("%s: %zu images, %zu annotations, %zu detections\n", o.type.c_str(), truth.images.size(), truth.annotations.size(), results.size());
  for (std::size_t i = 0; i < names.size(); ++i) std::printf("  %-6s %6.4f\n", names[i].c_str(), s.figures[i]);
  for (std::size_t c = 0; c < truth.categories.size(); ++c)
    std::printf("  AP of %-24s %6.4f\n", truth.categories[c].name.c_str(), s.class_ap[c]);
}

inline void add_eval_coco(CLI::App& app) {
  auto o = std::make_shared<EvalCocoCommand>();
  auto* c = app.add_subcommand("eval-coco", "COCO's twelve figures of detections");
  c->add_option("--gt", o->gt, "annotations, as COCO JSON")->required()->check(CLI::ExistingFile);
  c->add_option("--dt", o->dt, "detections, a JSON list in COCO's result form")->required()->check(CLI::ExistingFile);
  c->add_option("--type", o->type, "what overlaps: boxes or masks")->check(CLI::IsMember({"bbox", "segm"}))->capture_default_str();
  c->add_option("--protocol", o->protocol, "pycocotools' limits 1, 10, 100, or mmdet 2's 100, 300, 1000 with areas of masks")
      ->check(CLI::IsMember({"pycocotools", "mmdet2"}))
      ->capture_default_str();
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { eval_coco(*o); });
}

struct EvalMiouCommand {
  std::string prediction, gt;
  i64 classes = 0, ignore = 255;
  bool reduce_zero = false, json = false;
};

inline void eval_miou(const EvalMiouCommand& o) {
  namespace fs = std::filesystem;
  check(!o.reduce_zero || o.ignore >= o.classes, "eval-miou: --reduce-zero-label gives label 0 the number that does not count, and --ignore ", o.ignore, " is one of the ",
        o.classes, " classes; take one from ", o.classes, " on");
  std::vector<std::string> names;  // below the folder
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(o.gt))
    if (entry.is_regular_file() && entry.path().extension() == ".png") names.push_back(fs::relative(entry.path(), o.gt).string());
  check(!names.empty(), o.gt, ": has no .png files");
  std::sort(names.begin(), names.end());
  MeanIou m(o.classes, o.ignore);
  for (const std::string& name : names) {
    const std::string path = o.gt + "/" + name, predicted = o.prediction + "/" + name;
    Tensor label = read_label_map(path);
    if (o.reduce_zero) label = reduce_zero_label(label, static_cast<u8>(o.ignore));
    m.add(read_label_map(predicted), label, path + " and " + predicted);
  }
  const SegmentationFigures r = m.result();
  if (o.json) {
    Json j;
    j["images"] = names.size();
    j["mIoU"] = r.mean_iou;  // NaN becomes null
    j["aAcc"] = r.all_accuracy;
    j["mAcc"] = r.mean_accuracy;
    j["IoU"] = r.iou;
    j["Acc"] = r.accuracy;
    return print_json(j);
  }
  std::printf("%zu images: mIoU %.4f, aAcc %.4f, mAcc %.4f\n", names.size(), r.mean_iou, r.all_accuracy, r.mean_accuracy);
  for (std::size_t c = 0; c < r.iou.size(); ++c) std::printf("  class %3zu  IoU %6.4f  accuracy %6.4f\n", c, r.iou[c], r.accuracy[c]);
}

inline void add_eval_miou(CLI::App& app) {
  auto o = std::make_shared<EvalMiouCommand>();
  auto* c = app.add_subcommand("eval-miou", "Mean IoU and accuracies of label maps");
  c->add_option("--pred", o->prediction, "folder of predicted label maps (PNG), named as those of --gt")->required()->check(CLI::ExistingDirectory);
  c->add_option("--gt", o->gt, "folder of label maps (PNG), also in folders below")->required()->check(CLI::ExistingDirectory);
  c->add_option("--classes", o->classes, "number of classes")->required()->check(CLI::Range(1, 256));
  c->add_option("--ignore", o->ignore, "label of pixels that do not count")->check(CLI::Range(0, 255))->capture_default_str();
  c->add_flag("--reduce-zero-label", o->reduce_zero, "labels 1..K are the classes 0..K-1, label 0 does not count");
  c->add_flag("--json", o->json, "one JSON object instead of text");
  c->callback([o] { eval_miou(*o); });
}

}  // namespace tool
