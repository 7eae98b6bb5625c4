#pragma once
// ppma train --task detect and ppma predict --task detect.
//
//   OUT/train.json, config.json, log.jsonl, last.safetensors, best.safetensors   as for a classifier
//   OUT/pictures/epoch_N.png   what the detector says of a few images of the test set

#include <filesystem>
#include <sstream>

#include "common.hpp"
#include "ppma/data/coco_evaluation.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/train/detection_trainer.hpp"
#include "ppma/vis/overlay.hpp"
#include "progress.hpp"

namespace tool {

struct DetectCommand {
  ComputeOptions compute;
  std::string data = "shapes", folder, out = "runs/detect", resume, detector, weights;
  bool overwrite = false, boxes_only = false, freeze_backbone = false, checkpoint_blocks = false;
  i64 images = 1500, test_images = 200, size = 128;  // of shapes
  i64 epochs = 12, batch = 4, stop_after = 0, evaluate_every = 1;
  i64 longer = 1333, shorter = 800, warmup_iterations = 100;
  std::vector<i64> steps;  // epochs; none given: two thirds and eleven twelfths of the run, as 8 and 11 of 12
  double lr = 1e-3, weight_decay = 0.05, clip = 10;
  u64 seed = 0;

  template <class F>
  void each(F f) {
    f("task", task), f("data", data), f("data_dir", folder), f("boxes_only", boxes_only), f("freeze_backbone", freeze_backbone);
    f("images", images), f("test_images", test_images), f("size", size), f("epochs", epochs), f("batch", batch);
    f("evaluate_every", evaluate_every), f("longer", longer), f("shorter", shorter), f("warmup_iterations", warmup_iterations);
    f("steps", steps), f("lr", lr), f("weight_decay", weight_decay), f("clip", clip), f("seed", seed), f("dtype", compute.dtype), f("checkpoint_blocks", checkpoint_blocks);
  }
  std::string task = "detect";
};

/// The first of some paths that exists.
inline std::string existing(const std::vector<std::string>& paths) {
  for (const std::string& p : paths)
    if (std::filesystem::exists(p)) return p;
  std::string all;
  for (const std::string& p : paths) all += (all.empty() ? "" : ", ") + p;
  fail("there is none of ", all);
}

struct DetectionData {
  DetectionSet train, test;
  CocoTruth truth;  // of test
  CocoSkips skips;  // of train
  Normalization normalization{};
};

inline DetectionData make_detection_data(const DetectCommand& o) {
  DetectionData d;
  if (o.data == "shapes") {
    ShapesOptions s{.height = o.size, .width = o.size, .images = o.images, .seed = o.seed, .split = Split::train, .most_extra = 3};
    d.train = shapes_set(s);
    s.images = o.test_images, s.seed = 0, s.split = Split::test;
    d.test = shapes_set(s);
    d.truth = truth_of(d.test);
    d.normalization = {{0.5f, 0.5f, 0.5f}, {0.25f, 0.25f, 0.25f}};
    return d;
  }
  check(o.data == "coco" && !o.folder.empty(), "--task detect: --data is shapes, or coco with --data-dir");
  const auto part = [&](const std::string& name, bool all, CocoSkips* skips, CocoTruth* copy) {
    const std::string notes = o.folder + "/annotations/instances_" + name;
    const auto truth = std::make_shared<const CocoTruth>(read_coco(existing({notes + ".json", notes + "2017.json"}), !o.boxes_only));
    if (copy != nullptr) *copy = *truth;
    return coco_set(truth, existing({o.folder + "/images/" + name, o.folder + "/" + name + "2017", o.folder + "/" + name}), !o.boxes_only, all, skips);
  };
  d.train = part("train", false, &d.skips, nullptr);
  d.test = part("val", true, nullptr, &d.truth);
  check(d.train.category_ids == d.test.category_ids, o.folder, ": training and validation files have different categories");
  return d;
}

inline CocoResult coco_result(const Detection& d, i64 image_id, i64 category_id) {
  CocoResult r;
  r.image_id = image_id, r.category_id = category_id, r.score = d.score;
  r.box = CocoBox{static_cast<double>(d.box.x1), static_cast<double>(d.box.y1), static_cast<double>(d.box.width()), static_cast<double>(d.box.height())};
  r.mask.rle = d.mask;
  r.where = str("image ", image_id);
  return r;
}

/// Detections over an image, those of at least a score.
inline Picture detection_picture(const Tensor& image, const std::vector<Detection>& found, const std::vector<std::string>& names, double least_score) {
  std::vector<Shown> shown;
  for (const Detection& d : found)
    if (d.score >= least_score)
      shown.push_back({static_cast<double>(d.box.x1), static_cast<double>(d.box.y1), static_cast<double>(d.box.x2), static_cast<double>(d.box.y2),
                       d.label, names[static_cast<std::size_t>(d.label)], d.score, d.mask});
  return overlay(image, shown);
}

/// Pictures in two columns.
inline Picture sheet_of(const std::vector<Picture>& pictures) {
  i64 width = 0, height = 0;
  for (const Picture& p : pictures) width = std::max(width, p.width()), height = std::max(height, p.height());
  const i64 gap = 12;
  Picture all(2 * width + 3 * gap, 2 * height + 3 * gap);
  for (std::size_t k = 0; k < pictures.size(); ++k)
    all.paste(gap + static_cast<i64>(k % 2) * (width + gap), gap + static_cast<i64>(k / 2) * (height + gap), pictures[k].image());
  return all;
}

/// Results on a whole set; the pictures of its first four images go into a sheet.
inline std::vector<CocoResult> detect_all(MaskRcnn& model, const DetectionSet& set, const DetectionLoading& loading, const Placement& at, const std::string& sheet) {
  std::vector<CocoResult> results;
  std::vector<Picture> pictures;
  for (i64 i = 0; i < set.size; ++i) {
    DetectionSample sample = set.load(i);
    const Tensor image = sample.image;
    const DetectionBatch batch = evaluation_batch(std::move(sample), loading);
    const std::vector<Detection> found = model.detect(at(batch.images), batch.frames)[0];
    for (const Detection& d : found) results.push_back(coco_result(d, batch.frames[0].image_id, set.category_ids[static_cast<std::size_t>(d.label)]));
    if (pictures.size() < 4) pictures.push_back(detection_picture(image, found, set.class_names, 0.5));
  }
  write_png(sheet, sheet_of(pictures).image());
  return results;
}

inline void print_table(const char* what, const CocoTruth& truth, const CocoScores& s) {
  std::printf("  %-5s", what);
  for (std::size_t i = 0; i < 6; ++i) std::printf("  %s %.3f", coco_figure_names[i], s.figures[i]);
  std::printf("\n");
  for (std::size_t c = 0; c < truth.categories.size(); ++c) std::printf("    %-20s AP %.3f\n", truth.categories[c].name.c_str(), s.class_ap[c]);
}

inline void train_detect(DetectCommand o) {
  const bool resumed = !o.resume.empty();
  if (resumed) {
    o.out = o.resume;
    const Json j = Json::parse(read_text(o.out + "/train.json"));
    o.each([&](const char* key, auto& value) { value = j.value(key, value); });
    o.detector = o.out + "/config.json", o.weights.clear();
  }
  if (o.steps.empty()) o.steps = {o.epochs * 2 / 3, o.epochs * 11 / 12};
  const std::string log = o.out + "/log.jsonl", last = o.out + "/last.safetensors", best = o.out + "/best.safetensors";
  if (!resumed) {
    check(o.overwrite || !std::filesystem::exists(log), o.out, ": already holds a run; continue it with --resume ", o.out,
          ", start anew with --overwrite, or choose another --out");
    for (const std::string& path : {log, last, best}) std::filesystem::remove(path);
  }
  std::error_code error;
  std::filesystem::create_directories(o.out + "/pictures", error);
  check(!error, o.out, ": cannot be made (", error.message(), ")");

  const DetectionData data = make_detection_data(o);
  MaskRcnnConfig config = mask_rcnn_nano(data.train.classes(), !o.boxes_only);
  if (!o.detector.empty()) config = detector_from_json(Json::parse(read_text(o.detector)), config);
  config.roi.num_classes = data.train.classes(), config.with_mask = config.with_mask && !o.boxes_only;
  MaskRcnn model(config, o.seed);
  if (!o.weights.empty()) {
    const LoadReport report = load_state_dict(model.backbone, read_weights(o.weights).tensors, {.strict = false, .ignore = {"proj.", "norm.", "head."}});
    check(report.loaded > 0, o.weights, ": nothing in it fits the backbone (", report.text(), ")");
    std::printf("backbone: %s\n", report.text().c_str());
  }
  if (o.freeze_backbone) set_trainable(model.backbone, false);
  DetectionTraining training;
  training.at = o.compute.placement();
  to(model, accumulator_dtype(training.at.dtype)), to(model, training.at.device);
  training.schedule = {.rate = o.lr, .steps = o.steps, .warmup = o.warmup_iterations};
  training.weight_decay = o.weight_decay, training.clip = o.clip, training.seed = o.seed, training.checkpoint_blocks = o.checkpoint_blocks;
  DetectionTrainer<MaskRcnn> trainer(model, training);
  double best_ap = -1;
  if (resumed) {
    trainer.resume(last);
    std::string kept;  // what the log says of epochs that are done
    std::istringstream lines(read_text(log));
    for (std::string line; std::getline(lines, line);) {
      const Json j = Json::parse(line);
      if (j.at("epoch").get<i64>() >= trainer.epoch()) continue;
      kept += line + "\n";
      best_ap = std::max(best_ap, j.value(config.with_mask ? "segm_mAP" : "bbox_mAP", -1.0));
    }
    write_file(log, std::string_view(kept));
  } else {
    Json j;
    o.each([&](const char* key, const auto& value) { j[key] = value; });
    write_file(o.out + "/train.json", std::string_view(j.dump(1) + "\n"));
    write_file(o.out + "/config.json", std::string_view(detector_to_json(config).dump(1) + "\n"));
  }
  DetectionLoading loading;
  loading.batch = o.batch, loading.longer = o.longer, loading.shorter = {o.shorter}, loading.seed = o.seed;
  if (o.data == "shapes") loading.longer = loading.shorter[0] = o.size;
  loading.normalization = data.normalization;
  DetectionLoader loader(data.train, loading);
  const std::map<std::string, std::string> about{
      {"detector", detector_to_json(config).dump()},
      {"input", Json{{"classes", data.train.class_names}, {"category_ids", data.train.category_ids}, {"longer", loading.longer}, {"shorter", loading.shorter[0]},
                     {"mean", loading.normalization.mean}, {"deviation", loading.normalization.deviation}}.dump()}};
  std::printf("%s on %s, %s parameters; %s: %s training and %s test images, %lld classes\n", config.with_mask ? "Mask R-CNN" : "Faster R-CNN",
              config.backbone.name.c_str(), grouped_digits(parameter_count(model)).c_str(), o.data.c_str(), grouped_digits(data.train.size).c_str(),
              grouped_digits(data.test.size).c_str(), static_cast<long long>(config.roi.num_classes));
  if (const std::string skipped = data.skips.text(); !skipped.empty()) std::printf("left out: %s\n", skipped.c_str());
  std::fflush(stdout);

  const auto append = [&](const Json& j) { write_file(log, std::string_view((std::filesystem::exists(log) ? read_text(log) : std::string()) + j.dump() + "\n")); };
  const i64 stop = o.stop_after > 0 ? std::min(o.stop_after, o.epochs) : o.epochs;
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  while (trainer.epoch() < stop) {
    const auto print = [&](const DetectionStep& s) {
      std::printf("epoch %lld [%lld/%lld] lr %.2e", static_cast<long long>(s.epoch + 1), static_cast<long long>(s.batch), static_cast<long long>(s.batches), s.rate);
      for (const auto& [name, value] : s.values) std::printf("  %s %.4f", name.c_str(), value);
      std::printf("  %s\n", clock_text(seconds()).c_str());
      std::fflush(stdout);
    };
    const DetectionStep step = trainer.run_epoch(loader, [&](const DetectionStep& s) {
      if (s.batch % 50 == 0 || s.batch == s.batches) print(s);
    });
    Json record;
    record["epoch"] = step.epoch, record["lr"] = step.rate;
    for (const auto& [name, value] : step.values) record[name] = value;
    if (trainer.epoch() % o.evaluate_every == 0 || trainer.epoch() == stop) {
      const std::vector<CocoResult> results = detect_all(model, data.test, loading, training.at, str(o.out, "/pictures/epoch_", trainer.epoch(), ".png"));
      double ap = -1;
      for (const bool masks : {false, true}) {
        if (masks && !config.with_mask) continue;
        const CocoScores s = evaluate_coco(data.truth, results, masks ? CocoType::segm : CocoType::bbox);
        print_table(masks ? "masks" : "boxes", data.truth, s);
        const char* names[6] = {"mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"};
        for (std::size_t i = 0; i < 6; ++i) record[str(masks ? "segm_" : "bbox_", names[i])] = s.figures[i];
        record[masks ? "segm_class_AP" : "bbox_class_AP"] = s.class_ap;
        ap = s.figures[0];
      }
      if (ap > best_ap) {
        best_ap = ap;
        write_safetensors(best, trainer.weights(), about);
      }
    }
    record["seconds"] = seconds();
    trainer.save(last, about);
    append(record);
    std::fflush(stdout);
  }
  if (trainer.epoch() < o.epochs) std::printf("stopped after epoch %lld; continue with --resume %s\n", static_cast<long long>(trainer.epoch()), o.out.c_str());
  std::printf("best AP %.4f: %s\n", best_ap, best.c_str());
}

struct DensePredictCommand {
  ComputeOptions compute;
  std::string weights, out = "predictions";
  std::vector<std::string> images;
  double least_score = 0.5;
  i64 crop = 0, stride = 0;          // segment: windows
  std::vector<double> scales{1.0};   // segment: sizes
  bool flip = false;                 // segment
  bool json = false;
};

/// A file that --task segment or detect wrote: `what` in its metadata describes the network.
struct DenseFile {
  Json network, input;
  TensorMap tensors;

  DenseFile(const std::string& path, const char* task, const char* what) {
    check(is_safetensors(path), "predict --task ", task, ": needs --weights FILE.safetensors of a ", what);
    const Safetensors file = read_safetensors(path);
    check(file.metadata.count(what) == 1 && file.metadata.count("input") == 1, path, ": does not describe a ", what, "; take best.safetensors of a run");
    network = Json::parse(file.metadata.at(what)), input = Json::parse(file.metadata.at("input"));
    for (const auto& [name, tensor] : file.tensors)
      if (!name.starts_with("optimizer.")) tensors.emplace_back(name.starts_with("model.") ? name.substr(6) : name, tensor);
  }
};

/// OUT/NAME.png with boxes, names, scores and masks; OUT/results.json in COCO's form, images numbered from 1.
inline void predict_detect(const DensePredictCommand& o) {
  const DenseFile file(o.weights, "detect", "detector");
  const Json& input = file.input;
  MaskRcnn model = [&] {
    const SkipInit skip;
    return MaskRcnn(detector_from_json(file.network));
  }();
  load_state_dict(model, file.tensors);
  const Placement at = o.compute.placement();
  to(model, accumulator_dtype(at.dtype)), to(model, at.device);
  DetectionLoading loading;
  loading.longer = input.at("longer").get<i64>(), loading.shorter = {input.at("shorter").get<i64>()};
  loading.normalization = {input.at("mean").get<std::array<float, 3>>(), input.at("deviation").get<std::array<float, 3>>()};
  const auto names = input.at("classes").get<std::vector<std::string>>();
  const auto ids = input.at("category_ids").get<std::vector<i64>>();
  std::error_code error;
  std::filesystem::create_directories(o.out, error);
  check(!error, o.out, ": cannot be made (", error.message(), ")");
  std::vector<CocoResult> results;
  Json all = Json::array();
  for (std::size_t n = 0; n < o.images.size(); ++n) {
    DetectionSample sample;
    sample.image = read_image(o.images[n]), sample.image_id = static_cast<i64>(n) + 1, sample.name = o.images[n];
    const Tensor image = sample.image;
    const DetectionBatch batch = evaluation_batch(std::move(sample), loading);
    const std::vector<Detection> found = model.detect(at(batch.images), batch.frames)[0];
    const std::string picture = o.out + "/" + std::filesystem::path(o.images[n]).stem().string() + ".png";
    write_png(picture, detection_picture(image, found, names, o.least_score).image());
    if (!o.json) std::printf("%s -> %s\n", o.images[n].c_str(), picture.c_str());
    Json objects = Json::array();
    for (const Detection& d : found) {
      results.push_back(coco_result(d, static_cast<i64>(n) + 1, ids[static_cast<std::size_t>(d.label)]));
      if (d.score < o.least_score) continue;
      const std::string& name = names[static_cast<std::size_t>(d.label)];
      if (!o.json)
        std::printf("  %5.1f %%  %-16s %.0f %.0f %.0f %.0f\n", 100 * d.score, name.c_str(), static_cast<double>(d.box.x1), static_cast<double>(d.box.y1),
                    static_cast<double>(d.box.x2), static_cast<double>(d.box.y2));
      objects.push_back({{"name", name}, {"score", d.score}, {"box", {d.box.x1, d.box.y1, d.box.x2, d.box.y2}}});
    }
    all.push_back({{"image", o.images[n]}, {"image_id", n + 1}, {"picture", picture}, {"objects", objects}});
  }
  write_coco_results(o.out + "/results.json", results);
  if (o.json) print_json(all);
}

}  // namespace tool
