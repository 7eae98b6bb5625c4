#pragma once
#include "ppma/core/names_begin.hpp"
// Trains a segmentor: from images to a run folder (training_run.hpp, dense_run.hpp).

#include <string>
#include <vector>

#include "ppma/commands/dense_training.hpp"
#include "ppma/commands/training_observer.hpp"
#include "ppma/train/segmentation.hpp"

namespace ppma::inline PPMA_ABI {

/// A line of a segmentor's log.
using SegmentorRecord = EpochRecord<SegmentationEvaluation>;
/// Hears of a segmentor's run.
using SegmentorObserver = TrainingObserver<SegmentationEvaluation>;

/// A run's segmentor.
struct TrainedSegmentor : TrainedRun {  // best: mean IoU, from 0 to 1
  std::vector<std::string> classes{};
};

/// Trains a segmentor, or goes on with `o.resume`. `processes` train with this one
/// (other_processes()). Errors: options outside of their limits, or that do not go together; what
/// data, weights, folder and memory refuse.
PPMA_API TrainedSegmentor train_segmentor(SegmentorTraining o,
                                          SegmentorObserver& observer = nobody<SegmentorObserver>(),
                                          const std::vector<Communicator>& processes = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <utility>

#include "ppma/commands/dense_data.hpp"
#include "ppma/commands/dense_report.hpp"
#include "ppma/commands/dense_run.hpp"
#include "ppma/heads/segment.hpp"
#include "ppma/train/trainer.hpp"
#include "ppma/vis/segment_picture.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// Sizes that were not given are the first image's. An image may be thinner than a network takes,
/// and crops are filled up.
inline void complete_sizes(SegmentorTraining& o, const Tensor& first) {
  if (o.longer == 0) o.longer = std::max({least_size, first.dim(0), first.dim(1)});
  if (o.shorter == 0) o.shorter = std::max(least_size, std::min(first.dim(0), first.dim(1)));
  if (o.crop == 0) o.crop = std::max(least_size, o.shorter);
}

/// How training images become batches, in colours as `input` has them.
inline SegmentationLoading loading_of(const SegmentorTraining& o, const InputInfo& input,
                                      const BatchPart& part) {
  SegmentationLoading l;
  l.normalization = input.normalization;
  l.batch = o.batch, l.longer = o.longer, l.shorter = o.shorter;
  l.crop_height = l.crop_width = o.crop;
  l.least_factor = o.least_factor, l.most_factor = o.most_factor, l.seed = o.seed;
  l.part = part;
  l.flip = o.no_flip ? 0 : 0.5, l.distort = !o.no_distort;
  return l;
}

/// An epoch's line in the log.
inline Json record_of(const SegmentorRecord& r) {
  Json record = dense_record(r);
  for (const auto& [prefix, f] : {std::pair{"", &r.test}, std::pair{"ema_", &r.test_ema}})
    if (*f) {
      const std::string of = prefix;
      put_figure(record, of + "mIoU", (*f)->mean_iou);
      put_figure(record, of + "aAcc", (*f)->all_accuracy);
      put_figure(record, of + "mAcc", (*f)->mean_accuracy);
      record[of + "IoU"] = (*f)->iou;
    }
  put_times(record, r);
  return record;
}

/// A run of which the options are complete.
template <class Head>
TrainedSegmentor train_segmentor_with(TrainingRun& run, SegmentorTraining o,
                                      const std::vector<NetworkDescription>& said,
                                      SegmentorObserver& observer) {
  const SegmentationData data = at_its_place(
      o, o.data.folder, [&] { return make_segmentation_data(o.data, o.seed, observer); });
  const SegmentationSet train = share_of_set(data.train, o), &test = data.test;
  complete_sizes(o, train.get(0).image);

  auto config = training_config<SegmentorConfig<Head>>(o, said);
  set_classes(config, train.classes());
  if (o.compute.device == "cpu")
    require_memory(
        {config.backbone, std::min(o.batch, train.size), o.crop, o.crop, !o.freeze_backbone,
         o.checkpoint_blocks, 4, head_needs(config, o.crop, o.crop), true},
        "`batch` or `crop`", network_options(o.task));
  Segmentor<Head> model(config, o.seed);
  const InputInfo input = training_input(
      run, o, InputInfo::dense(train.class_names, o.longer, o.shorter, Normalization{}));
  BatchStream<SegmentationBatch> batches(
      segmentation_batches(train, loading_of(o, input, run.part())),
      stream_options(o.data, o.compute.device, 1));
  SegmentOptions how;
  how.longer = o.longer, how.shorter = o.shorter, how.normalization = input.normalization;
  SegmentationTask<Segmentor<Head>> task(model, test, how);
  FirstPictures pictures(run, test.size);
  EvaluationScenes scenes;
  if (run.speaks())
    task.on_image = [&](const SegmentationSample& s, const Tensor& labels, i64 index,
                        const Testing& testing) {
      MeanIou one(test.classes());
      one.add(labels, s.labels, s.name);
      const double iou = one.result().mean_iou;
      scenes.of(testing).add(index, iou, [&] { return segment_scene(s, labels, index, iou); });
      pictures.add(
          index,
          [&] { return segment_picture(s.image, labels, test.class_names, detail::picture_side); },
          testing);
    };
  TrainOptions training = place_for_training(run, model, o);
  training.rate =
      schedule_of(o, "poly", o.steps_of(batches.batches()), o.warmup_epochs(batches.batches()));
  Trainer<SegmentationTask<Segmentor<Head>>> trainer(task, training);
  const Json told = segmentor_to_json(config);
  run.begin(trainer, {.about = {{"segmentor", told.dump()}, {"input", input.to_json().dump()}},
                      .options = options_of(o),
                      .network = told,
                      .training_images = train.size,
                      .test_images = test.size,
                      .epochs = o.epochs,
                      .stop = o.stop(),
                      .patience = o.patience,
                      .figure = "mIoU",
                      .key = "mIoU",
                      .averaged_key = "ema_mIoU"});
  const auto draw = [&] { draw_curves(run.folder(), segmentation_charts(run.folder().records())); };
  const RunDecays decays(
      model.backbone.backbone, config.backbone.mask, input.normalization, training.at, test.size,
      [&](i64 i) { return dense_sized(test.get(i).image, o.longer, o.shorter); });
  RunReport report({.options = options_of(o),
                    .network = told,
                    .network_name = str(Head::title, " (", config.backbone.name, ")"),
                    .set = test.name,
                    .classes = test.class_names,
                    .training_images = train.size,
                    .test_images = test.size,
                    .data = {{"training crops", str(o.crop, " x ", o.crop, " pixels")}},
                    .compute = o.compute,
                    .processes = run.part().ranks,
                    .key = "mIoU",
                    .averaged_key = "ema_mIoU"});
  if (run.speaks() && !run.folder().records().empty()) draw();
  run.start(trainer, {.network = str(Head::title, " on ", config.backbone.name),
                      .mask = to_string(config.backbone.mask),
                      .parameters = parameter_count(model),
                      .set = train.name,
                      .classes = train.class_names});
  if (run.speaks() && run.resumed() && trainer.epoch() >= o.stop() &&
      report.is_behind(run.folder())) {
    const bool averaged = report.averaged(run.folder());
    report_segmentation(report, run.folder(), test_again(task, model, trainer, averaged),
                        averaged ? scenes.averaged : scenes.own);
  }
  report.next_epoch();
  run.train(
      trainer, batches, {.on_batch = [&](const StepReport& r) { report.batch(r); }},
      [&](const SegmentorRecord& r) {
        if (r.test) decays.add(run.folder(), r.epoch + 1);
        return record_of(r);
      },
      [&](const SegmentorRecord& r, bool is_best) {
        draw();
        if (const auto& e = r.test_ema && report.averaged(run.folder()) ? r.test_ema : r.test; e)
          report_segmentation(report, run.folder(), *e,
                              &e == &r.test ? scenes.own : scenes.averaged);
        report.next_epoch();
        observer.epoch(r, is_best);
      });
  return {run.trained(trainer), test.class_names};
}

}  // namespace detail

TrainedSegmentor train_segmentor(SegmentorTraining o, SegmentorObserver& observer,
                                 const std::vector<Communicator>& processes) {
  detail::TrainingRun run = detail::open_run(o, processes, observer);
  const std::vector<NetworkDescription> said = descriptions(o.network, o.task);
  if (o.head.empty()) o.head = head_in(said);
  TrainedSegmentor trained;
  with_segmentation_head(o.head, [&]<class Head>() {
    trained = detail::train_segmentor_with<Head>(run, o, said, observer);
  });
  return trained;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
