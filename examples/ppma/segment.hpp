#pragma once
// ppma train --task segment and ppma predict --task segment.

#include "dense.hpp"
#include "ppma/heads/segment.hpp"
#include "ppma/vis/segment_picture.hpp"
#include "progress.hpp"
#include "report_dense.hpp"

namespace tool {

struct SegmentCommand : DenseTraining {
  std::string head;  // none given: the description's, else the first of SegmentationHeads
  i64 crop = 0;      // 0: the shorter side; longer, shorter 0: the first image's
  double least_factor = 0.5, most_factor = 2;
  bool no_distort = false;

  SegmentCommand() {
    task = "segment", out = "runs/segment";
    data.size = 64, epochs = 20, evaluate_every = 5, clip = 5;
  }
  void check_together() const {
    check_words();
    check(least_factor <= most_factor, "--least-factor ", least_factor,
          " must be at most --most-factor ", most_factor);
  }
  struct Own {
    template <class Options, class F>
    static void fields(Options& o, F f) {
      f("head", o.head);
      f("crop", o.crop, Limits{least_size, most_size, {0}},
        "side of the crops that are learnt from; 0: the shorter side");
      f("least_factor", o.least_factor, Limits{0.01, 100},
        "images are resized by a random factor from this");
      f("most_factor", o.most_factor, Limits{0.01, 100}, "to this");
      f("no_distort", o.no_distort, "colours are not changed at random");
    }
  };
  template <class Options, class F>
  static void fields(Options& o, F f) {
    DenseTraining::fields(o, f);
    Own::fields(o, f);
  }
};

/// A run of which the options are complete.
template <class Head>
void train_segment_with(TrainingRun& run, SegmentCommand o,
                        const std::vector<NetworkDescription>& said) {
  const SegmentationData data = at_its_place(
      o, o.data.folder, [&] { return make_segmentation_data(o.data, o.seed, notes()); });
  const SegmentationSet train = o.share(data.train), &test = data.test;
  const Tensor first = train.get(0).image;
  // An image may be thinner than a network takes, and crops are filled up.
  if (o.longer == 0) o.longer = std::max({least_size, first.dim(0), first.dim(1)});
  if (o.shorter == 0) o.shorter = std::max(least_size, std::min(first.dim(0), first.dim(1)));
  if (o.crop == 0) o.crop = std::max(least_size, o.shorter);

  auto config = training_config<SegmentorConfig<Head>>(o, said);
  set_classes(config, train.classes());
  if (o.compute.device == "cpu")
    require_memory(
        {config.backbone, std::min(o.batch, train.size), o.crop, o.crop, !o.freeze_backbone,
         o.checkpoint_blocks, 4, head_needs(config, o.crop, o.crop), true},
        "--batch or --crop", network_options(o.task));
  Segmentor<Head> model(config, o.seed);
  SegmentationLoading loading;
  const InputInfo input = training_input(
      run, o, InputInfo::dense(train.class_names, o.longer, o.shorter, loading.normalization));
  loading.normalization = input.normalization;
  loading.batch = o.batch, loading.longer = o.longer, loading.shorter = o.shorter,
  loading.crop_height = loading.crop_width = o.crop;
  loading.least_factor = o.least_factor, loading.most_factor = o.most_factor, loading.seed = o.seed;
  loading.part = run.part();
  loading.flip = o.no_flip ? 0 : 0.5, loading.distort = !o.no_distort;
  BatchStream<SegmentationBatch> batches(segmentation_batches(train, loading),
                                         {.workers = o.data.workers, .ahead = o.ahead()});
  SegmentOptions how;
  how.longer = o.longer, how.shorter = o.shorter, how.normalization = loading.normalization;
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
          index, [&] { return segment_picture(s.image, labels, test.class_names, 480); }, testing);
    };
  TrainOptions training = place_for_training(run, model, o);
  training.rate =
      schedule_of(o, "poly", o.steps_of(batches.batches()), o.warmup_epochs(batches.batches()));
  Trainer<SegmentationTask<Segmentor<Head>>> trainer(task, training);
  run.begin(trainer, {.about = {{"segmentor", segmentor_to_json(config).dump()},
                                {"input", input.to_json().dump()}},
                      .options = options_of(o),
                      .network = segmentor_to_json(config),
                      .training_images = train.size,
                      .test_images = test.size,
                      .epochs = o.epochs,
                      .stop = o.stop(),
                      .patience = o.patience,
                      .figure = "mIoU",
                      .key = "mIoU",
                      .averaged_key = "ema_mIoU"});
  const auto draw = [&] { draw_curves(run.folder(), segmentation_charts(run.folder().records())); };
  const DecayHistory history(
      model.backbone.backbone, config.backbone.mask, input.normalization, training.at, test.size,
      [&](i64 i) { return dense_sized(test.get(i).image, o.longer, o.shorter); });
  RunReport report({.options = options_of(o),
                    .network = segmentor_to_json(config),
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
  if (run.speaks()) {
    if (!run.folder().records().empty()) draw();
    std::printf("%s on %s, %s parameters; %s: %s training and %s test images, %lld classes\n",
                Head::title, config.backbone.name.c_str(),
                grouped_digits(parameter_count(model)).c_str(), train.name.c_str(),
                grouped_digits(train.size).c_str(), grouped_digits(test.size).c_str(),
                static_cast<long long>(train.classes()));
    std::fflush(stdout);
  }
  using Record = EpochRecord<SegmentationEvaluation>;
  const auto record_of = [&](const Record& r) {
    if (r.test) history.add(run.folder(), r.epoch + 1);
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
  };
  const auto begin = std::chrono::steady_clock::now();
  const auto show = [&](const Record& r, bool) {
    draw();
    if (const auto& e = r.test_ema && report.averaged(run.folder()) ? r.test_ema : r.test; e)
      report_segmentation(report, run.folder(), *e, &e == &r.test ? scenes.own : scenes.averaged);
    report.next_epoch();
    std::printf("epoch %3lld/%lld  lr %.2e  loss %.4f", static_cast<long long>(r.epoch + 1),
                static_cast<long long>(o.epochs), r.last_lr, r.train_loss);
    for (const auto& [name, value] : r.parts) std::printf("  %s %.4f", name.c_str(), value);
    std::printf(
        "  %s\n",
        clock_text(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count())
            .c_str());
    for (const auto& [what, f] : {std::pair{"", &r.test}, std::pair{"averaged ", &r.test_ema}})
      if (*f) {
        std::printf("  %smIoU %.2f  aAcc %.2f  mAcc %.2f\n", what, 100 * (*f)->mean_iou,
                    100 * (*f)->all_accuracy, 100 * (*f)->mean_accuracy);
        print_pixels(confusion_of((*f)->pixels), shown_classes(train.class_names), o.per_class, 4);
      }
  };
  if (run.speaks() && run.resumed() && trainer.epoch() >= o.stop() &&
      report.is_behind(run.folder())) {
    const bool averaged = report.averaged(run.folder());
    report_segmentation(report, run.folder(), test_again(task, model, trainer, averaged),
                        averaged ? scenes.averaged : scenes.own);
  }
  report.next_epoch();
  run.train(trainer, batches, {.on_batch = [&](const StepReport& r) { report.batch(r); }},
            record_of, show);
  if (run.speaks()) print_best(run.folder(), "mean IoU", 100 * run.folder().best(), 2);
}

inline void train_segment(SegmentCommand o, const std::vector<Communicator>& processes) {
  TrainingRun run = open_run(o, processes);
  const std::vector<NetworkDescription> said = descriptions(o.network, o.task);
  if (o.head.empty()) o.head = head_in(said);
  with_segmentation_head(o.head, [&]<class Head>() { train_segment_with<Head>(run, o, said); });
}

/// The pixels of a class as a result in COCO's form; a label map has no scores: 1.
inline CocoResult class_result(const Tensor& labels, u8 label, i64 image_id, i64 category_id) {
  Tensor mask = Tensor::empty(labels.shape(), DType::uint8);
  for (i64 i = 0; i < labels.numel(); ++i) mask.data<u8>()[i] = labels.data<u8>()[i] == label;
  CocoResult r;
  r.image_id = image_id, r.category_id = category_id, r.score = 1;
  r.mask.rle = rle_encode(mask);
  return r;
}

/// OUT/NAME.png: the image under its classes, with a legend; OUT/NAME_labels.png: the label map;
/// OUT/results.json: a mask for each class of each image, with OUT/images.json.
template <class Head>
void predict_segment_with(const DensePredictCommand& o, const DenseFile& file) {
  const Placement at = o.compute.placement();
  auto model = file.load<Segmentor<Head>>(at);
  SegmentOptions how;
  how.longer = file.longer(2048), how.shorter = file.shorter(512);
  how.normalization = file.normalization();
  how.crop = o.crop, how.stride = o.stride > 0 ? o.stride : std::max<i64>(1, o.crop * 2 / 3),
  how.factors = o.scales, how.flip = o.flip;
  const std::vector<std::string> names = file.names(classes_of(model.config));
  const std::vector<i64> ids = file.category_ids(names), image_ids = file.image_ids();
  const std::vector<std::string> stems =
      result_stems(o, {".png", "_labels.png"}, {"results.json", "images.json"});
  std::vector<CocoResult> results;
  Json all = Json::array(), images = Json::array();
  EachImage each("predict");
  if (o.formats.csv) print_csv({"image", "image_id", "class", "name", "pixels", "share"});
  for (std::size_t n = 0; n < stems.size(); ++n) {
    const std::string &path = o.images[n].path, &stem = stems[n];
    Tensor image;
    if (!each.read(path, all, [&] { image = read_image(path, o.reading()); })) continue;
    const Tensor labels = segment(model, image, how, at);
    if (o.formats.png) {
      write_png(stem + ".png", segment_picture(image, labels, names).image());
      write_png(stem + "_labels.png", labels.viewed_as({labels.dim(0), labels.dim(1), 1}));
    }
    images.push_back(image_record(image_ids[n], o.images[n].name, image));
    std::vector<i64> count(names.size(), 0);
    for (i64 i = 0; i < labels.numel(); ++i) ++count[labels.data<u8>()[i]];
    if (o.formats.text()) print_image(o.formats, path, stem + ".png");
    Json shares;
    for (std::size_t c = 0; c < names.size(); ++c) {
      const double share = static_cast<double>(count[c]) / static_cast<double>(labels.numel());
      if (count[c] > 0) shares[names[c]] = share;
      if (count[c] > 0 && o.formats.csv)
        print_csv({shown_name(path), str(image_ids[n]), str(c), shown_name(names[c]), str(count[c]),
                   csv_number(share)});
      if (count[c] > 0 && o.formats.text())
        std::printf("  %5.1f %%  %s\n", 100 * share, shown_name(names[c]).c_str());
      if (count[c] > 0 && o.formats.coco)
        results.push_back(class_result(labels, static_cast<u8>(c), image_ids[n], ids[c]));
    }
    Json one{{"image", shown_name(path)}, {"image_id", image_ids[n]}};
    if (o.formats.png)
      one["picture"] = shown_name(stem + ".png"), one["labels"] = shown_name(stem + "_labels.png");
    one["shares"] = shares;
    all.push_back(one);
  }
  write_results(o, results, images, names, ids);
  if (o.formats.json) print_json(all);
  each.end();
}

inline void predict_segment(const DensePredictCommand& o) {
  const DenseFile file(o, "segment");
  with_segmentation_head(head_in(file.said),
                         [&]<class Head>() { predict_segment_with<Head>(o, file); });
}

}  // namespace tool
