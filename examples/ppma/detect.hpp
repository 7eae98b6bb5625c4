#pragma once
// ppma train --task detect and ppma predict --task detect.

#include "dense.hpp"
#include "ppma/data/coco_evaluation.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/data/voc.hpp"
#include "ppma/data/yolo.hpp"
#include "ppma/vis/overlay.hpp"
#include "progress.hpp"
#include "report_dense.hpp"

namespace tool {

struct DetectCommand : DenseTraining {
  bool boxes_only = false, multi_scale = false;

  DetectCommand() {
    task = "detect", out = "runs/detect";
    data.size = 128, epochs = 12, longer = 1333, shorter = 800, clip = 10;
  }
  void check_together() const { check_words(); }
  struct Own {
    template <class Options, class F>
    static void fields(Options& o, F f) {
      f("boxes_only", o.boxes_only, "no mask head (Faster R-CNN)");
      f("multi_scale", o.multi_scale,
        "the 3x schedule's augmentation: shorter sides of 0.6 to 1 --shorter, half of the images "
        "cropped");
    }
  };
  template <class Options, class F>
  static void fields(Options& o, F f) {
    DenseTraining::fields(o, f);
    Own::fields(o, f);
  }
};

/// Detections over an image, those of at least a score.
inline Picture detection_picture(const Tensor& image, const std::vector<Detection>& found,
                                 const std::vector<std::string>& names, double least_score) {
  return overlay(image, shown_of(found, names, least_score));
}

inline void print_table(const char* what, const std::vector<std::string>& names,
                        const CocoScores& s, bool all) {
  std::printf("  %-5s", what);
  for (std::size_t i = 0; i < 6; ++i) std::printf("  %s %.3f", coco_figure_names[i], s.figures[i]);
  std::printf("\n");
  print_ap(s, names, all, 4);
}

inline void train_detect(DetectCommand o, const std::vector<Communicator>& processes) {
  TrainingRun run = open_run(o, processes);
  if (o.steps.empty() && (o.schedule.empty() || o.schedule == "step"))
    o.steps = default_steps(o.epochs);
  DetectionData data = at_its_place(o, o.data.folder, [&] {
    return make_detection_data(o.data, o.seed, !o.boxes_only, notes());
  });
  data.train = o.share(std::move(data.train));
  MaskRcnnConfig config = training_config<MaskRcnnConfig>(o, descriptions(o.network, o.task));
  config.roi.num_classes = data.train.classes(),
  config.with_mask = config.with_mask && !o.boxes_only;
  if (o.compute.device == "cpu") {
    // the smallest that an image may be brought to
    const i64 side = o.data.kind == "shapes" ? o.data.size : o.shorter;
    require_memory(
        {config.backbone, std::min(o.batch, data.train.size), side, side, !o.freeze_backbone,
         o.checkpoint_blocks, 4, head_needs(config, side, side), true},
        "--batch, --size or --shorter", network_options(o.task));
  }
  MaskRcnn model(config, o.seed);
  if (o.data.kind == "shapes") o.longer = o.shorter = o.data.size;
  DetectionLoading loading;
  if (o.multi_scale)
    loading = multi_scale_loading(o.longer, o.shorter);
  else
    loading.longer = o.longer, loading.shorter = {o.shorter};
  const InputInfo input =
      training_input(run, o,
                     InputInfo::dense(data.train.class_names, o.longer, o.shorter,
                                      data.normalization, data.train.category_ids));
  loading.batch = o.batch, loading.seed = o.seed, loading.normalization = input.normalization;
  loading.part = run.part();
  if (o.no_flip) loading.flip = 0;
  BatchStream<DetectionBatch> batches(detection_batches(data.train, loading),
                                      {.workers = o.data.workers, .ahead = o.ahead()});
  DetectionTask task(model, data.test, data.truth, loading);
  FirstPictures pictures(run, data.test.size);
  EvaluationScenes scenes;
  const std::vector<std::string>& names = data.test.class_names;
  if (run.speaks())
    task.on_image = [&](const DetectionSample& s, const std::vector<Detection>& found, i64 index,
                        const Testing& testing) {
      const double quality = panoptic_quality(s.objects, found);
      scenes.of(testing).add(index, quality,
                             [&] { return detection_scene(s, found, index, names, quality); });
      pictures.add(
          index, [&] { return detection_picture(s.image, found, names, 0.5); }, testing);
    };
  TrainOptions training = place_for_training(run, model, o);
  training.rate =
      schedule_of(o, "step", o.steps_of(batches.batches()), o.warmup_epochs(batches.batches()));
  Trainer<DetectionTask> trainer(task, training);
  const std::string key = config.with_mask ? "segm_mAP" : "bbox_mAP";
  run.begin(trainer, {.about = {{"detector", detector_to_json(config).dump()},
                                {"input", input.to_json().dump()}},
                      .options = options_of(o),
                      .network = detector_to_json(config),
                      .training_images = data.train.size,
                      .test_images = data.test.size,
                      .epochs = o.epochs,
                      .stop = o.stop(),
                      .patience = o.patience,
                      .figure = key,
                      .key = key,
                      .averaged_key = "ema_" + key});
  const char* const title = config.with_mask ? "Mask R-CNN" : "Faster R-CNN";
  if (run.speaks()) {
    std::printf("%s on %s, %s parameters; %s: %s training and %s test images, %lld classes\n",
                title, config.backbone.name.c_str(), grouped_digits(parameter_count(model)).c_str(),
                o.data.kind.c_str(), grouped_digits(data.train.size).c_str(),
                grouped_digits(data.test.size).c_str(),
                static_cast<long long>(config.roi.num_classes));
    if (const std::string skipped = data.skips.text(); !skipped.empty())
      std::printf("left out: %s\n", skipped.c_str());
    std::fflush(stdout);
  }
  using Record = EpochRecord<DetectionEvaluation>;
  const auto each_table = [](const Record& r, auto f) {  // f(prefix, what, scores)
    for (const auto& [prefix, e] : {std::pair{"", &r.test}, std::pair{"ema_", &r.test_ema}})
      if (*e) {
        f(std::string(prefix) + "bbox_", *prefix ? "boxes, averaged" : "boxes", (*e)->boxes);
        if ((*e)->masks)
          f(std::string(prefix) + "segm_", *prefix ? "masks, averaged" : "masks", *(*e)->masks);
      }
  };
  const DecayHistory history(model.backbone.backbone, config.backbone.mask, input.normalization,
                             training.at, data.test.size, [&](i64 i) {
                               return dense_sized(data.test.load(i).image, o.longer, o.shorter);
                             });
  const auto record_of = [&](const Record& r) {
    if (r.test) history.add(run.folder(), r.epoch + 1);
    Json record = dense_record(r);
    each_table(r, [&](const std::string& of, const char*, const CocoScores& s) {
      const char* keys[6] = {"mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"};
      for (std::size_t i = 0; i < 6; ++i) record[of + keys[i]] = s.figures[i];
      record[of + "class_AP"] = s.class_ap;
    });
    put_times(record, r);
    return record;
  };
  RunReport report({.options = options_of(o),
                    .network = detector_to_json(config),
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
  const auto begin = std::chrono::steady_clock::now();
  Trainer<DetectionTask>::Observer observer;
  observer.on_batch = [&](const StepReport& s) {
    report.batch(s);
    if (s.batch % 50 != 0 && s.batch != s.batches) return;
    std::printf("epoch %lld [%lld/%lld] lr %.2e  loss %.4f", static_cast<long long>(s.epoch + 1),
                static_cast<long long>(s.batch), static_cast<long long>(s.batches), s.rate, s.loss);
    for (const auto& [name, value] : s.parts) std::printf("  %s %.4f", name.c_str(), value);
    std::printf(
        "  %s\n",
        clock_text(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count())
            .c_str());
    std::fflush(stdout);
  };
  const auto draw = [&] { draw_curves(run.folder(), detection_charts(run.folder().records())); };
  const auto show = [&](const Record& r, bool) {
    draw();
    if (const auto& e = r.test_ema && report.averaged(run.folder()) ? r.test_ema : r.test; e)
      report_detection(report, run.folder(), *e, *data.truth,
                       &e == &r.test ? scenes.own : scenes.averaged);
    report.next_epoch();
    each_table(r, [&](const std::string&, const char* what, const CocoScores& s) {
      print_table(what, shown_classes(names), s, o.per_class);
    });
  };
  if (run.speaks() && run.resumed()) {
    if (!run.folder().records().empty()) draw();
    if (trainer.epoch() >= o.stop() && report.is_behind(run.folder())) {
      const bool averaged = report.averaged(run.folder());
      report_detection(report, run.folder(), test_again(task, model, trainer, averaged),
                       *data.truth, averaged ? scenes.averaged : scenes.own);
    }
  }
  report.next_epoch();
  run.train(trainer, batches, observer, record_of, show);
  if (run.speaks()) print_best(run.folder(), "AP", run.folder().best(), 4);
}

/// OUT/NAME.png with boxes, names, scores and masks; OUT/results.json in COCO's form, with
/// OUT/images.json; on the standard output the objects of --least-score and more.
inline void predict_detect(const DensePredictCommand& o) {
  const DenseFile file(o, "detect");
  const Placement at = o.compute.placement();
  MaskRcnn model = file.load<MaskRcnn>(at);
  DetectionLoading loading;
  loading.longer = file.longer(1333), loading.shorter = {file.shorter(800)};
  loading.normalization = file.normalization();
  const std::vector<std::string> names = file.names(classes_of(model.config));
  const std::vector<i64> ids = file.category_ids(names), image_ids = file.image_ids();
  const std::vector<std::string> stems = result_stems(o, {".png"}, {"results.json", "images.json"});
  std::vector<CocoResult> results;
  Json all = Json::array(), images = Json::array();
  EachImage each("predict");
  if (o.formats.csv)
    print_csv({"image", "image_id", "class", "name", "score", "x1", "y1", "x2", "y2"});
  for (std::size_t n = 0; n < o.images.size(); ++n) {
    const std::string& path = o.images[n].path;
    DetectionSample sample;
    if (!each.read(path, all, [&] { sample.image = read_image(path, o.reading()); })) continue;
    sample.image_id = image_ids[n], sample.name = path;
    const Tensor image = sample.image;
    images.push_back(image_record(image_ids[n], o.images[n].name, image));
    const DetectionBatch batch = evaluation_batch(std::move(sample), loading);
    const std::vector<Detection> found = model.detect(at(batch.images), batch.frames)[0];
    const std::string picture = stems[n] + ".png";
    if (o.formats.png)
      write_png(picture, detection_picture(image, found, names, o.least_score).image());
    if (o.formats.text()) print_image(o.formats, path, picture);
    Json objects = Json::array();
    for (const Detection& d : found) {
      results.push_back(coco_result(d, image_ids[n], ids[static_cast<std::size_t>(d.label)]));
      if (d.score < o.least_score) continue;
      const std::string& name = names[static_cast<std::size_t>(d.label)];
      if (o.formats.csv)
        print_csv({shown_name(path), str(image_ids[n]), str(d.label), shown_name(name),
                   csv_number(d.score), csv_number(d.box.x1), csv_number(d.box.y1),
                   csv_number(d.box.x2), csv_number(d.box.y2)});
      if (o.formats.text())
        std::printf("  %5.1f %%  %-16s %.0f %.0f %.0f %.0f\n", 100 * d.score,
                    shown_name(name).c_str(), static_cast<double>(d.box.x1),
                    static_cast<double>(d.box.y1), static_cast<double>(d.box.x2),
                    static_cast<double>(d.box.y2));
      objects.push_back(
          {{"name", name}, {"score", d.score}, {"box", {d.box.x1, d.box.y1, d.box.x2, d.box.y2}}});
    }
    Json one{{"image", shown_name(path)}, {"image_id", image_ids[n]}};
    if (o.formats.png) one["picture"] = shown_name(picture);
    one["objects"] = objects;
    all.push_back(one);
  }
  write_results(o, results, images, names, ids);
  if (o.formats.json) print_json(all);
  each.end();
}

}  // namespace tool
