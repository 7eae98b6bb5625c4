#pragma once
#include "ppma/core/names_begin.hpp"
// The reports of segmentors and detectors: run_report.hpp has what all tasks share.

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ppma/commands/run_report.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/io/rle.hpp"
#include "ppma/train/detection.hpp"
#include "ppma/train/segmentation.hpp"
#include "ppma/vis/overlay.hpp"
#include "ppma/vis/segment_picture.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The images of an evaluation that have least and most of a figure from 0 to 1.
class Extremes {
 public:
  static constexpr std::size_t most = 4;

  /// The image number `index`, of which the first begins anew; scene() is drawn only where it is
  /// one of them. One whose figure is NaN is left out.
  template <class F>
  void add(i64 index, double figure, F scene) {
    if (index == 0) images_ = 0, worst_.clear(), best_.clear();
    if (is_nan(figure)) return;
    ++images_;
    std::optional<ReportScene> drawn;
    const auto into = [&](auto& list, auto before) {
      const auto at = std::find_if(list.begin(), list.end(),
                                   [&](const auto& e) { return before(figure, e.first); });
      if (at == list.end() && list.size() == most) return;
      if (!drawn) drawn = scene();
      list.insert(at, {figure, *drawn});
      if (list.size() > most) list.pop_back();
    };
    into(worst_, std::less<>{});
    into(best_, std::greater_equal<>{});  // of equal ones the last: the worst are the first
  }
  i64 images() const { return images_; }
  /// Of few images none is in both.
  std::vector<ReportScene> worst() const {
    return first(worst_, std::min(most, static_cast<std::size_t>(images_ / 2)));
  }
  std::vector<ReportScene> best() const {
    return first(best_, std::min(most, static_cast<std::size_t>(images_ - images_ / 2)));
  }

 private:
  using List = std::vector<std::pair<double, ReportScene>>;
  static std::vector<ReportScene> first(const List& list, std::size_t n) {
    std::vector<ReportScene> scenes;
    for (std::size_t k = 0; k < n; ++k) scenes.push_back(list[k].second);
    return scenes;
  }

  i64 images_ = 0;
  List worst_{}, best_{};
};

/// Those of the last evaluation of the weights themselves, and of their average.
struct EvaluationScenes {
  Extremes own, averaged;
  Extremes& of(const Testing& how) { return how.averaged ? averaged : own; }
};

constexpr i64 scene_side = 240;  // pixels of a scene's longer side, about

/// Height and width of an image that is shown: at most scene_side.
inline std::array<i64, 2> scene_size(const Tensor& image) {
  const i64 H = image.dim(0), W = image.dim(1), longer = std::max(H, W);
  if (longer <= scene_side) return {H, W};
  return {std::max(i64{1}, H * scene_side / longer), std::max(i64{1}, W * scene_side / longer)};
}

/// A file's name, or that of a generated image.
inline std::string scene_name(const std::string& name, i64 index) {
  const std::string file = std::filesystem::path(name).filename().string();
  return name.find('/') == std::string::npos || file.find('.') == std::string::npos
             ? str("image ", index)
             : file;
}

inline ReportScene segment_scene(const SegmentationSample& s, const Tensor& labels, i64 index,
                                 double iou) {
  const auto [h, w] = scene_size(s.image);
  const Tensor image = h == s.image.dim(0) ? s.image : resize_antialiased(s.image, h, w);
  const i64 factor = std::max(i64{1}, (scene_side + std::max(h, w) - 1) / std::max(h, w));
  const auto veiled = [&, h = h, w = w](const Tensor& l) {
    const Tensor small =
        resize_nearest(l.viewed_as({l.dim(0), l.dim(1), 1}), h, w).viewed_as({h, w});
    return label_veil(image, small, factor).image();
  };
  return {image, veiled(s.labels), veiled(labels), scene_name(s.name, index),
          str("IoU ", percent(iou, 1), " %")};
}

/// Boxes and masks over an image that is brought to the size of scenes.
inline Tensor objects_scene(const Tensor& image, std::vector<Shown> objects) {
  const auto [h, w] = scene_size(image);
  const double scale = static_cast<double>(h) / static_cast<double>(image.dim(0));
  for (Shown& o : objects) {
    o.x1 *= scale, o.y1 *= scale, o.x2 *= scale, o.y2 *= scale;
    if (o.mask && h != image.dim(0)) {
      const Tensor m = rle_decode(*o.mask);
      o.mask =
          rle_encode(resize_nearest(m.viewed_as({m.dim(0), m.dim(1), 1}), h, w).viewed_as({h, w}));
    }
  }
  return overlay(h == image.dim(0) ? image : resize_antialiased(image, h, w), objects, scene_side)
      .image();
}

/// Detections of at least a score, to be drawn.
inline std::vector<Shown> shown_of(const std::vector<Detection>& found,
                                   const std::vector<std::string>& names, double least_score) {
  std::vector<Shown> shown;
  for (const Detection& d : found)
    if (d.score >= least_score)
      shown.push_back({static_cast<double>(d.box.x1), static_cast<double>(d.box.y1),
                       static_cast<double>(d.box.x2), static_cast<double>(d.box.y2), d.label,
                       names[static_cast<std::size_t>(d.label)], d.score, d.mask});
  return shown;
}

inline std::vector<Shown> truth_shown(const Objects& truth, const std::vector<std::string>& names) {
  std::vector<Shown> shown;
  for (std::size_t i = 0; i < truth.boxes.size(); ++i) {
    const Box& b = truth.boxes[i];
    Shown s{static_cast<double>(b.x1), static_cast<double>(b.y1),
            static_cast<double>(b.x2), static_cast<double>(b.y2),
            truth.classes[i],          names[static_cast<std::size_t>(truth.classes[i])]};
    if (truth.masks.defined()) {
      const i64 h = truth.masks.dim(1), w = truth.masks.dim(2);
      Tensor one = Tensor::empty({h, w}, DType::uint8);
      std::copy_n(truth.masks.data<u8>() + static_cast<i64>(i) * h * w, h * w, one.data<u8>());
      s.mask = rle_encode(one);
    }
    shown.push_back(std::move(s));
  }
  return shown;
}

inline ReportScene detection_scene(const DetectionSample& s, const std::vector<Detection>& found,
                                   i64 index, const std::vector<std::string>& names,
                                   double quality) {
  const auto [h, w] = scene_size(s.image);
  return {resize_antialiased(s.image, h, w), objects_scene(s.image, truth_shown(s.objects, names)),
          objects_scene(s.image, shown_of(found, names, 0.5)), scene_name(s.name, index),
          str("PQ ", percent(quality, 1), " %")};
}

inline std::vector<ReportChart> segmentation_charts(const std::vector<Json>& log) {
  return {chart_of("Mean IoU on the test images, %", {series_of(log, "mIoU", "mean IoU", 100),
                                                      series_of(log, "ema_mIoU", "averaged", 100)}),
          chart_of("Loss", {series_of(log, "loss", "sum"), series_of(log, "loss_decode", "decode"),
                            series_of(log, "loss_auxiliary", "auxiliary")}),
          chart_of("Accuracy on the test images, %", {series_of(log, "aAcc", "of pixels", 100),
                                                      series_of(log, "mAcc", "of classes", 100)}),
          chart_of("Learning rate", {series_of(log, "lr", "")})};
}

/// The page and the confusion matrix of the epoch that the log ends with.
inline void report_segmentation(const RunReport& report, const RunFolder& folder,
                                const SegmentationEvaluation& e, const Extremes& scenes) {
  const Confusion pixels = confusion_of(e.pixels);
  draw_confusion(folder, pixels, report.classes(),
                 {.title = str("mean IoU ", percent(e.mean_iou, 1), " %; of all pixels ",
                               percent(e.all_accuracy, 1), " % right"),
                  .pixels = true});
  Report r;
  r.figures = {{percent(e.mean_iou, 2) + " %", "mean IoU"},
               {percent(e.all_accuracy, 2) + " %", "accuracy of all pixels"},
               {percent(e.mean_accuracy, 2) + " %", "mean accuracy of the classes"},
               {percent(folder.best() < 0 ? not_a_number<double>() : folder.best(), 2) + " %",
                "best mean IoU so far"}};
  r.charts = segmentation_charts(folder.records());
  r.results = SegmentationResults{pixels, scenes.worst(), scenes.best(), scenes.images()};
  report.write(folder, std::move(r));
}

inline std::vector<ReportChart> detection_charts(const std::vector<Json>& log) {
  const auto figures = [&](const std::string& of, const char* what) {
    return chart_of(str(what, " on the test images, %"),
                    {series_of(log, "bbox_" + of, "boxes", 100),
                     series_of(log, "ema_bbox_" + of, "boxes, averaged", 100),
                     series_of(log, "segm_" + of, "masks", 100),
                     series_of(log, "ema_segm_" + of, "masks, averaged", 100)});
  };
  return {
      figures("mAP", "AP"),
      chart_of("Loss",
               {series_of(log, "loss", "sum"), series_of(log, "loss_rpn_cls", "RPN"),
                series_of(log, "loss_rpn_bbox", "RPN boxes"), series_of(log, "loss_cls", "classes"),
                series_of(log, "loss_bbox", "boxes"), series_of(log, "loss_mask", "masks")}),
      figures("mAP_50", "AP50"), figures("mAP_75", "AP75"),
      chart_of("Learning rate", {series_of(log, "lr", "")})};
}

/// The page of the epoch that the log ends with.
inline void report_detection(const RunReport& report, const RunFolder& folder,
                             const DetectionEvaluation& e, const CocoTruth& truth,
                             const Extremes& scenes) {
  DetectionResults results;
  results.kinds.emplace_back("box", e.boxes);
  if (e.masks) results.kinds.emplace_back("mask", *e.masks);
  results.objects.resize(truth.categories.size());
  for (const CocoAnnotation& a : truth.annotations)
    results.objects[static_cast<std::size_t>(a.category)] += a.crowd ? 0 : 1;
  results.worst = scenes.worst(), results.best = scenes.best(), results.among = scenes.images();
  const auto share = [](double v) { return percent(v < 0 ? not_a_number<double>() : v, 2) + " %"; };
  Report r;
  for (const auto& [what, f] : results.kinds)
    for (std::size_t i = 0; i < 3; ++i)
      r.figures.emplace_back(share(f.figures[i]), what + " " + coco_figure_names[i]);
  r.figures.emplace_back(share(folder.best()), "best AP so far");
  r.charts = detection_charts(folder.records());
  r.results = std::move(results);
  report.write(folder, std::move(r));
}

/// Of a run that is over: it died before its last page was written, so that what it is of is tested
/// again.
template <class Task, class Model>
auto test_again(Task& task, Model& model, const TrainingLoop& trainer, bool averaged) {
  if (averaged) load_state_dict(model, trainer.average());
  return task.evaluate(
      {.at = trainer.options().at, .epoch = trainer.epoch(), .averaged = averaged});
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
