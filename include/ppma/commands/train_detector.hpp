#pragma once
#include "ppma/core/names_begin.hpp"
// Trains a detector: from images to a run folder (training_run.hpp, dense_run.hpp).

#include <string>
#include <vector>

#include "ppma/commands/dense_training.hpp"
#include "ppma/commands/training_observer.hpp"
#include "ppma/train/detection.hpp"

namespace ppma::inline PPMA_ABI {

/// A line of a detector's log.
using DetectorRecord = EpochRecord<DetectionEvaluation>;
/// Hears of a detector's run.
using DetectorObserver = TrainingObserver<DetectionEvaluation>;

/// A run's detector.
struct TrainedDetector : TrainedRun {  // best: AP of masks, or of boxes, from 0 to 1
  std::vector<std::string> classes{};
};

/// Trains a detector, or goes on with `o.resume`. `processes` train with this one
/// (other_processes()). Errors: options outside of their limits, or that do not go together; what
/// data, weights, folder and memory refuse.
PPMA_API TrainedDetector train_detector(DetectorTraining o,
                                        DetectorObserver& observer = nobody<DetectorObserver>(),
                                        const std::vector<Communicator>& processes = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <utility>

#include "ppma/commands/dense_data.hpp"
#include "ppma/commands/dense_report.hpp"
#include "ppma/commands/dense_run.hpp"
#include "ppma/train/trainer.hpp"
#include "ppma/vis/overlay.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// An epoch's line in the log.
inline Json record_of(const DetectorRecord& r) {
  Json record = dense_record(r);
  const auto put = [&](const std::string& of, const CocoScores& s) {
    const char* keys[6] = {"mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"};
    for (std::size_t i = 0; i < 6; ++i) record[of + keys[i]] = s.figures[i];
    record[of + "class_AP"] = s.class_ap;
  };
  for (const auto& [prefix, e] : {std::pair{"", &r.test}, std::pair{"ema_", &r.test_ema}})
    if (*e) {
      put(std::string(prefix) + "bbox_", (*e)->boxes);
      if ((*e)->masks) put(std::string(prefix) + "segm_", *(*e)->masks);
    }
  put_times(record, r);
  return record;
}

/// How training images become batches: their sizes, of which the testing needs the largest.
inline DetectionLoading loading_of(const DetectorTraining& o, const BatchPart& part) {
  DetectionLoading l;
  if (o.multi_scale)
    l = multi_scale_loading(o.longer, o.shorter);
  else
    l.longer = o.longer, l.shorter = {o.shorter};
  l.batch = o.batch, l.seed = o.seed, l.part = part;
  if (o.no_flip) l.flip = 0;
  return l;
}

}  // namespace detail

TrainedDetector train_detector(DetectorTraining o, DetectorObserver& observer,
                               const std::vector<Communicator>& processes) {
  detail::TrainingRun run = detail::open_run(o, processes, observer);
  if (o.steps.empty() && (o.schedule.empty() || o.schedule == "step"))
    o.steps = default_steps(o.epochs);
  DetectionData data = detail::at_its_place(o, o.data.folder, [&] {
    return make_detection_data(o.data, o.seed, !o.boxes_only, observer);
  });
  data.train = detail::share_of_set(std::move(data.train), o);
  MaskRcnnConfig config =
      detail::training_config<MaskRcnnConfig>(o, descriptions(o.network, o.task));
  config.roi.num_classes = data.train.classes(),
  config.with_mask = config.with_mask && !o.boxes_only;
  if (o.compute.device == "cpu") {
    // the smallest that an image may be brought to
    const i64 side = o.data.kind == "shapes" ? o.data.size : o.shorter;
    require_memory(
        {config.backbone, std::min(o.batch, data.train.size), side, side, !o.freeze_backbone,
         o.checkpoint_blocks, 4, head_needs(config, side, side), true},
        "`batch`, `size` or `shorter`", network_options(o.task));
  }
  MaskRcnn model(config, o.seed);
  if (o.data.kind == "shapes") o.longer = o.shorter = o.data.size;
  const InputInfo input =
      detail::training_input(run, o,
                             InputInfo::dense(data.train.class_names, o.longer, o.shorter,
                                              data.normalization, data.train.category_ids));
  DetectionLoading loading = detail::loading_of(o, run.part());
  loading.normalization = input.normalization;
  BatchStream<DetectionBatch> batches(detection_batches(data.train, loading),
                                      stream_options(o.data, o.compute.device, 1));
  DetectionTask task(model, data.test, data.truth, loading);
  detail::FirstPictures pictures(run, data.test.size);
  detail::EvaluationScenes scenes;
  const std::vector<std::string>& names = data.test.class_names;
  if (run.speaks())
    task.on_image = [&](const DetectionSample& s, const std::vector<Detection>& found, i64 index,
                        const Testing& testing) {
      const double quality = panoptic_quality(s.objects, found);
      scenes.of(testing).add(
          index, quality, [&] { return detail::detection_scene(s, found, index, names, quality); });
      pictures.add(
          index,
          [&] {
            return overlay(s.image, detail::shown_of(found, names, 0.5), detail::picture_side);
          },
          testing);
    };
  TrainOptions training = detail::place_for_training(run, model, o);
  training.rate = detail::schedule_of(o, "step", o.steps_of(batches.batches()),
                                      o.warmup_epochs(batches.batches()));
  Trainer<DetectionTask> trainer(task, training);
  const std::string key = config.with_mask ? "segm_mAP" : "bbox_mAP";
  const Json told = detector_to_json(config);
  run.begin(trainer, {.about = {{"detector", told.dump()}, {"input", input.to_json().dump()}},
                      .options = options_of(o),
                      .network = told,
                      .training_images = data.train.size,
                      .test_images = data.test.size,
                      .epochs = o.epochs,
                      .stop = o.stop(),
                      .patience = o.patience,
                      .figure = key,
                      .key = key,
                      .averaged_key = "ema_" + key});
  const char* const title = config.with_mask ? "Mask R-CNN" : "Faster R-CNN";
  run.start(trainer, {.network = str(title, " on ", config.backbone.name),
                      .mask = to_string(config.backbone.mask),
                      .parameters = parameter_count(model),
                      .set = o.data.kind,
                      .classes = names,
                      .left_out = data.skips.text()});
  const detail::RunDecays decays(
      model.backbone.backbone, config.backbone.mask, input.normalization, training.at,
      data.test.size,
      [&](i64 i) { return detail::dense_sized(data.test.load(i).image, o.longer, o.shorter); });
  detail::RunReport report({.options = options_of(o),
                            .network = told,
                            .network_name = str(title, " (", config.backbone.name, ")"),
                            .set = data.test.name,
                            .classes = names,
                            .training_images = data.train.size,
                            .test_images = data.test.size,
                            .data = {{"left out of training", data.skips.text()}},
                            .compute = o.compute,
                            .processes = run.part().ranks,
                            .key = key,
                            .averaged_key = "ema_" + key});
  const auto draw = [&] {
    detail::draw_curves(run.folder(), detail::detection_charts(run.folder().records()));
  };
  if (run.speaks() && run.resumed()) {
    if (!run.folder().records().empty()) draw();
    if (trainer.epoch() >= o.stop() && report.is_behind(run.folder())) {
      const bool averaged = report.averaged(run.folder());
      detail::report_detection(report, run.folder(),
                               detail::test_again(task, model, trainer, averaged), *data.truth,
                               averaged ? scenes.averaged : scenes.own);
    }
  }
  report.next_epoch();
  run.train(
      trainer, batches, {.on_batch = [&](const StepReport& r) { report.batch(r); }},
      [&](const DetectorRecord& r) {
        if (r.test) decays.add(run.folder(), r.epoch + 1);
        return detail::record_of(r);
      },
      [&](const DetectorRecord& r, bool is_best) {
        draw();
        if (const auto& e = r.test_ema && report.averaged(run.folder()) ? r.test_ema : r.test; e)
          detail::report_detection(report, run.folder(), *e, *data.truth,
                                   &e == &r.test ? scenes.own : scenes.averaged);
        report.next_epoch();
        observer.epoch(r, is_best);
      });
  return {run.trained(trainer), names};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
