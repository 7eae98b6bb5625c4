#pragma once
// ppma train --task segment and ppma predict --task segment.
//
//   OUT/train.json, config.json, log.jsonl, last.safetensors, best.safetensors   as for a classifier
//   OUT/curve.png              losses, and mean IoU on the test images
//   OUT/pictures/epoch_N.png   what the network says of a few images of the test set

#include <filesystem>
#include <sstream>

#include "common.hpp"
#include "detect.hpp"
#include "ppma/heads/segment.hpp"
#include "ppma/heads/segmentor_json.hpp"
#include "ppma/train/segmentation_trainer.hpp"
#include "ppma/vis/curve.hpp"
#include "ppma/vis/segment_picture.hpp"
#include "progress.hpp"

namespace tool {

struct SegmentCommand {
  ComputeOptions compute;
  std::string task = "segment", data = "shapes", folder, out = "runs/segment", resume, segmentor, weights;
  bool overwrite = false, freeze_backbone = false, checkpoint_blocks = false;
  i64 images = 1500, test_images = 200, size = 64;  // of shapes
  i64 epochs = 20, batch = 4, stop_after = 0, evaluate_every = 5;
  i64 longer = 0, shorter = 0, crop = 0, warmup_iterations = 100;  // 0: the first image's size; crop: the shorter side
  double least_factor = 0.5, most_factor = 2, lr = 1e-3, weight_decay = 0.05, clip = 5;
  u64 seed = 0;

  template <class F>
  void each(F f) {
    f("task", task), f("data", data), f("data_dir", folder), f("freeze_backbone", freeze_backbone);
    f("images", images), f("test_images", test_images), f("size", size), f("epochs", epochs), f("batch", batch);
    f("evaluate_every", evaluate_every), f("longer", longer), f("shorter", shorter), f("crop", crop);
    f("warmup_iterations", warmup_iterations), f("least_factor", least_factor), f("most_factor", most_factor);
    f("lr", lr), f("weight_decay", weight_decay), f("clip", clip), f("seed", seed), f("dtype", compute.dtype), f("checkpoint_blocks", checkpoint_blocks);
  }
};

/// Mean IoU of a set; the pictures of its first four images go into a sheet.
inline SegmentationFigures segment_all(Segmentor& model, const SegmentationSet& set, const SegmentOptions& how, const Placement& at, const std::string& sheet) {
  MeanIou score(set.classes());
  std::vector<Picture> pictures;
  for (i64 i = 0; i < set.size; ++i) {
    const SegmentationSample s = set.get(i);
    const Tensor labels = segment(model, s.image, how, at);
    score.add(labels, s.labels, s.name);
    if (pictures.size() < 4) pictures.push_back(segment_picture(s.image, labels, set.class_names, 480));
  }
  write_png(sheet, sheet_of(pictures).image());
  return score.result();
}

inline void draw_segment_curves(const std::string& path, const std::vector<Json>& log) {
  Series loss{"training", {}, {}}, iou{"mean IoU", {}, {}};
  for (const Json& r : log) {
    const double epoch = r.at("epoch").get<double>() + 1;
    loss.x.push_back(epoch), loss.y.push_back(r.at("loss").get<double>());
    if (r.contains("mIoU")) iou.x.push_back(epoch), iou.y.push_back(100 * r.at("mIoU").get<double>());
  }
  const Picture below = curves({loss}, {.title = "Loss", .x_label = "epoch", .y_label = "cross entropy"});
  if (iou.x.empty()) return write_png(path, below.image());
  const Picture above = curves({iou}, {.title = "Mean IoU on the test images", .x_label = "epoch", .y_label = "%"});
  Picture both(above.width(), above.height() + below.height());
  both.paste(0, 0, above.image());
  both.paste(0, above.height(), below.image());
  write_png(path, both.image());
}

inline void train_segment(SegmentCommand o) {
  const bool resumed = !o.resume.empty();
  if (resumed) {
    o.out = o.resume;
    const Json j = Json::parse(read_text(o.out + "/train.json"));
    o.each([&](const char* key, auto& value) { value = j.value(key, value); });
    o.segmentor = o.out + "/config.json", o.weights.clear();
  }
  const std::string log = o.out + "/log.jsonl", last = o.out + "/last.safetensors", best = o.out + "/best.safetensors";
  if (!resumed) {
    check(o.overwrite || !std::filesystem::exists(log), o.out, ": already holds a run; continue it with --resume ", o.out,
          ", start anew with --overwrite, or choose another --out");
    for (const std::string& path : {log, last, best}) std::filesystem::remove(path);
  }
  std::error_code error;
  std::filesystem::create_directories(o.out + "/pictures", error);
  check(!error, o.out, ": cannot be made (", error.message(), ")");

  SegmentationSet train, test;
  if (o.data == "shapes") {
    ShapesOptions s{.height = o.size, .width = o.size, .images = o.images, .seed = o.seed, .split = Split::train, .most_extra = 3};
    train = shapes_segmentation(s);
    s.images = o.test_images, s.seed = 0, s.split = Split::test;
    test = shapes_segmentation(s);
  } else {
    check(o.data == "folder" && !o.folder.empty(), "--task segment: --data is shapes, or folder with --data-dir");
    train = segmentation_folder(o.folder, Split::train), test = segmentation_folder(o.folder, Split::val);
    check(train.class_names == test.class_names, o.folder, ": training and validation have different classes");
  }
  const Tensor first = train.get(0).image;
  if (o.longer == 0) o.longer = std::max(first.dim(0), first.dim(1));
  if (o.shorter == 0) o.shorter = std::min(first.dim(0), first.dim(1));
  if (o.crop == 0) o.crop = o.shorter;

  SegmentorConfig config = segmentor_nano(train.classes());
  if (!o.segmentor.empty()) config = segmentor_from_json(Json::parse(read_text(o.segmentor)), config);
  config.decode.num_classes = config.auxiliary.num_classes = train.classes();
  Segmentor model(config, o.seed);
  if (!o.weights.empty()) {
    const LoadReport report = load_state_dict(model.backbone, read_weights(o.weights).tensors, {.strict = false, .ignore = {"proj.", "norm.", "head."}});
    check(report.loaded > 0, o.weights, ": nothing in it fits the backbone (", report.text(), ")");
    std::printf("backbone: %s\n", report.text().c_str());
  }
  if (o.freeze_backbone) set_trainable(model.backbone, false);
  SegmentationLoading loading;
  loading.batch = o.batch, loading.longer = o.longer, loading.shorter = o.shorter, loading.crop_height = loading.crop_width = o.crop;
  loading.least_factor = o.least_factor, loading.most_factor = o.most_factor, loading.seed = o.seed;
  SegmentationLoader loader(train, loading);
  SegmentationTraining training;
  training.at = o.compute.placement();
  to(model, accumulator_dtype(training.at.dtype)), to(model, training.at.device);
  training.schedule = {.rate = o.lr, .total = o.epochs * loader.batches(), .warmup = o.warmup_iterations};
  training.weight_decay = o.weight_decay, training.clip = o.clip, training.seed = o.seed, training.checkpoint_blocks = o.checkpoint_blocks;
  SegmentationTrainer<Segmentor> trainer(model, training);
  double best_iou = -1;
  std::vector<Json> records;
  if (resumed) {
    trainer.resume(last);
    std::string kept;  // what the log says of epochs that are done
    std::istringstream lines(read_text(log));
    for (std::string line; std::getline(lines, line);) {
      const Json j = Json::parse(line);
      if (j.at("epoch").get<i64>() >= trainer.epoch()) continue;
      kept += line + "\n", records.push_back(j);
      best_iou = std::max(best_iou, j.value("mIoU", -1.0));
    }
    write_file(log, std::string_view(kept));
  } else {
    Json j;
    o.each([&](const char* key, const auto& value) { j[key] = value; });
    write_file(o.out + "/train.json", std::string_view(j.dump(1) + "\n"));
    write_file(o.out + "/config.json", std::string_view(segmentor_to_json(config).dump(1) + "\n"));
  }
  SegmentOptions how;
  how.longer = o.longer, how.shorter = o.shorter, how.normalization = loading.normalization;
  const std::map<std::string, std::string> about{
      {"segmentor", segmentor_to_json(config).dump()},
      {"input", Json{{"classes", train.class_names}, {"longer", o.longer}, {"shorter", o.shorter}, {"mean", how.normalization.mean},
                     {"deviation", how.normalization.deviation}}.dump()}};
  std::printf("UperNet on %s, %s parameters; %s: %s training and %s test images, %lld classes\n", config.backbone.name.c_str(),
              grouped_digits(parameter_count(model)).c_str(), train.name.c_str(), grouped_digits(train.size).c_str(), grouped_digits(test.size).c_str(),
              static_cast<long long>(train.classes()));
  std::fflush(stdout);

  const i64 stop = o.stop_after > 0 ? std::min(o.stop_after, o.epochs) : o.epochs;
  const auto begin = std::chrono::steady_clock::now();
  while (trainer.epoch() < stop) {
    const SegmentationStep step = trainer.run_epoch(loader);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    std::printf("epoch %3lld/%lld  lr %.2e  loss %.4f  decode %.4f  auxiliary %.4f  %s", static_cast<long long>(step.epoch + 1), static_cast<long long>(o.epochs),
                step.rate, step.loss, step.decode, step.auxiliary, clock_text(seconds).c_str());
    Json record{{"epoch", step.epoch}, {"lr", step.rate}, {"loss", step.loss}, {"loss_decode", step.decode}, {"loss_auxiliary", step.auxiliary}};
    if (trainer.epoch() % o.evaluate_every == 0 || trainer.epoch() == stop) {
      const SegmentationFigures f = segment_all(model, test, how, training.at, str(o.out, "/pictures/epoch_", trainer.epoch(), ".png"));
      record["mIoU"] = f.mean_iou, record["aAcc"] = f.all_accuracy, record["mAcc"] = f.mean_accuracy, record["IoU"] = f.iou;
      std::printf("  mIoU %.2f  aAcc %.2f  mAcc %.2f\n", 100 * f.mean_iou, 100 * f.all_accuracy, 100 * f.mean_accuracy);
      for (std::size_t c = 0; c < f.iou.size(); ++c) std::printf("    %-20s IoU %5.2f  accuracy %5.2f\n", train.class_names[c].c_str(), 100 * f.iou[c], 100 * f.accuracy[c]);
      if (f.mean_iou > best_iou) {
        best_iou = f.mean_iou;
        write_safetensors(best, trainer.weights(), about);
      }
    } else {
      std::printf("\n");
    }
    record["seconds"] = seconds;
    records.push_back(record);
    trainer.save(last, about);
    std::string lines;
    for (const Json& r : records) lines += r.dump() + "\n";
    write_file(log, std::string_view(lines));
    draw_segment_curves(o.out + "/curve.png", records);
    std::fflush(stdout);
  }
  if (trainer.epoch() < o.epochs) std::printf("stopped after epoch %lld; continue with --resume %s\n", static_cast<long long>(trainer.epoch()), o.out.c_str());
  std::printf("best mean IoU %.2f: %s\n", 100 * best_iou, best.c_str());
}

/// OUT/NAME.png: the image under its classes, with a legend; OUT/NAME_labels.png: the label map.
inline void predict_segment(const DensePredictCommand& o) {
  const DenseFile file(o.weights, "segment", "segmentor");
  const Json& input = file.input;
  Segmentor model = [&] {
    const SkipInit skip;
    return Segmentor(segmentor_from_json(file.network));
  }();
  load_state_dict(model, file.tensors);
  const Placement at = o.compute.placement();
  to(model, accumulator_dtype(at.dtype)), to(model, at.device);
  SegmentOptions how;
  how.longer = input.at("longer").get<i64>(), how.shorter = input.at("shorter").get<i64>();
  how.normalization = {input.at("mean").get<std::array<float, 3>>(), input.at("deviation").get<std::array<float, 3>>()};
  how.crop = o.crop, how.stride = o.stride > 0 ? o.stride : std::max<i64>(1, o.crop * 2 / 3), how.factors = o.scales, how.flip = o.flip;
  const auto names = input.at("classes").get<std::vector<std::string>>();
  std::error_code error;
  std::filesystem::create_directories(o.out, error);
  check(!error, o.out, ": cannot be made (", error.message(), ")");
  Json all = Json::array();
  for (const std::string& path : o.images) {
    const Tensor image = read_image(path), labels = segment(model, image, how, at);
    const std::string stem = o.out + "/" + std::filesystem::path(path).stem().string();
    write_png(stem + ".png", segment_picture(image, labels, names).image());
    write_png(stem + "_labels.png", labels.viewed_as({labels.dim(0), labels.dim(1), 1}));
    std::vector<i64> count(names.size(), 0);
    for (i64 i = 0; i < labels.numel(); ++i) ++count[labels.data<u8>()[i]];
    if (!o.json) std::printf("%s -> %s.png\n", path.c_str(), stem.c_str());
    Json shares;
    for (std::size_t c = 0; c < names.size(); ++c) {
      const double share = static_cast<double>(count[c]) / static_cast<double>(labels.numel());
      if (count[c] > 0) shares[names[c]] = share;
      if (count[c] > 0 && !o.json) std::printf("  %5.1f %%  %s\n", 100 * share, names[c].c_str());
    }
    all.push_back({{"image", path}, {"picture", stem + ".png"}, {"labels", stem + "_labels.png"}, {"shares", shares}});
  }
  if (o.json) print_json(all);
}

}  // namespace tool
