#pragma once
// What `train` and `predict` do alike for --task segment and --task detect: options, the backbone's
// weights, the file that describes a trained network. A run's folder has beside training_run.hpp's:
//
//   OUT/pictures/epoch_N.png   what the network says of a few images of the test set
//   OUT/curve.png, curve.svg   losses and figures
//   OUT/confusion.png, .svg    segmentation: what pixels are taken for what
//   OUT/history/               decays over training (decay_history.hpp)
//   OUT/report.html            all that is known of the last evaluation and of the run

#include <filesystem>
#include <sstream>

#include "dense_network.hpp"
#include "images.hpp"
#include "ppma/commands/dense_data.hpp"
#include "ppma/io/coco.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/train/detection.hpp"
#include "ppma/train/segmentation.hpp"
#include "ppma/train/trainer.hpp"
#include "ppma/vis/picture.hpp"
#include "predict_files.hpp"
#include "training_options.hpp"
#include "training_run.hpp"

namespace tool {

struct DenseTraining : TrainingOptions {  // the network's weights are the backbone's
  bool freeze_backbone = false;
  i64 longer = 0, shorter = 0;  // segment: 0 is the first image's
  i64 warmup_iterations = 100;

  DenseTraining() {
    data.images = 1500, data.test_images = 200;
    batch = 4, lr = 1e-3;
  }
  /// Those that segmentation and detection share.
  struct Shared {
    template <class Options, class F>
    static void fields(Options& o, F f) {
      f("longer", o.longer, counts(most_size),
        "images: longer side at most; segment: the first image's");
      f("shorter", o.shorter, counts(most_size),
        "images: shorter side, with the aspect kept; segment: the first image's");
      f("warmup_iterations", o.warmup_iterations, Limits{0, 1000000000},
        "iterations of linear warm-up");
      f("freeze_backbone", o.freeze_backbone, "train the heads alone");
    }
  };
  template <class Options, class F>
  static void fields(Options& o, F f) {
    TrainingOptions::fields(o, f);
    Shared::fields(o, f);
  }

  /// Steps of the optimiser in an epoch of so many batches.
  i64 steps_of(i64 batches) const { return (batches + accumulate - 1) / accumulate; }
  /// The warm-up in epochs of so many batches.
  double warmup_epochs(i64 batches) const {
    return static_cast<double>(warmup_iterations) / static_cast<double>(steps_of(batches));
  }
  /// The part of a training set that --fraction says.
  template <class Set>
  Set share(Set set) const {
    if (data_fraction == 1) return set;
    std::vector<i64> which = share_of(set.size, data_fraction, seed);
    return chosen(std::move(set), std::move(which));
  }
  i64 ahead() const { return std::max<i64>(1, data.workers); }  // batches: they are large
};

inline void make_folders(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  check(!error, path, ": cannot be made (", error.message(), ")");
}

/// The network that is trained: by default the small one. --drop-path is on top of what describes
/// it.
template <class Config>
Config training_config(const DenseTraining& o, const std::vector<NetworkDescription>& said) {
  Config c = dense_config<Config>(o.network, "ppma_nano", said);
  if (o.drop_path >= 0) c.backbone.drop_path_rate = o.drop_path;
  return c;
}

/// What images are brought to and what the classes are: `of_data`, but colours as the weights that
/// training begins with take them, and of a resumed run as it had them. Error: the run had other
/// classes.
inline InputInfo training_input(const TrainingRun& run, const DenseTraining& o, InputInfo of_data) {
  if (run.resumed()) {
    const auto had = InputInfo::of(read_safetensors(run.last()).metadata, run.last());
    if (!had) return of_data;
    check_classes_of_run(o.out, *had, of_data);
    return *had;
  }
  if (o.network.weights.empty()) return of_data;
  const WeightsOfFile file = read_weights(o.network, notes());
  if (const auto known = InputInfo::of(file.metadata, o.network.weights)) {
    of_data.normalization = known->normalization;
    if (run.speaks()) note("colours as ", o.network.weights, " says: its mean and deviation");
  }
  return of_data;
}

/// The backbone of --weights, frozen where that is wanted; the network where and in what it is
/// trained; and how it is, but for the learning rate.
template <class Model>
TrainOptions place_for_training(const TrainingRun& run, Model& model, const DenseTraining& o) {
  if (const std::string& weights = o.network.weights; !weights.empty()) {
    const LoadReport report =
        load_state_dict(model.backbone, read_weights(o.network, notes()).tensors,
                        {.strict = false, .ignore = {"proj.", "norm.", "head."}});
    check(report.loaded > 0, weights, ": nothing in it fits the backbone (", report.text(), ")");
    if (run.speaks()) std::printf("backbone: %s\n", report.text().c_str());
  }
  if (o.freeze_backbone) set_trainable(model.backbone, false);
  freeze(model, o.freeze);
  TrainOptions t;
  t.at = o.compute.placement(true);
  to(model, accumulator_dtype(t.at.dtype)), to(model, t.at.device);
  t.epochs = o.stop(), t.accumulate = o.accumulate, t.clip = o.clip, t.ema_decay = o.ema;
  t.rules = norm_rules(o.weight_decay), t.optimizer = o.optimizer_options();
  t.ema_warm = !o.ema_plain;
  t.evaluate_every = o.evaluate_every, t.seed = o.seed;
  t.checkpoint_blocks = o.checkpoint_blocks, t.processes = run.processes();
  return t;
}

/// An epoch's line in the log, with the keys of OpenMMLab's logs; figures follow.
inline Json dense_record(const EpochReport& r) {
  Json record{{"epoch", r.epoch}, {"lr", r.last_lr}, {"loss", r.train_loss}};
  for (const auto& [name, value] : r.parts) record[name] = value;
  return record;
}

/// What an epoch's line in the log ends with.
inline void put_times(Json& record, const EpochReport& r) {
  if (r.skipped > 0) record["skipped_steps"] = r.skipped;
  record["data_seconds"] = r.data_seconds, record["seconds"] = r.seconds;
}

/// The last line of a run: the best of `what`, in a number of `digits`; -1: there is none.
inline void print_best(RunFolder& run, const char* what, double best, int digits) {
  if (best >= 0)
    std::printf("best %s %.*f: %s\n", what, digits, best, run.path("best.safetensors").c_str());
  else
    std::printf("there is no %s yet, so no best.safetensors; the weights are in %s\n", what,
                run.path("last.safetensors").c_str());
}

/// Pictures in two columns.
inline Picture sheet_of(const std::vector<Picture>& pictures) {
  i64 width = 0, height = 0;
  for (const Picture& p : pictures)
    width = std::max(width, p.width()), height = std::max(height, p.height());
  const i64 gap = 12;
  Picture all(2 * width + 3 * gap, 2 * height + 3 * gap);
  for (std::size_t k = 0; k < pictures.size(); ++k)
    all.paste(gap + static_cast<i64>(k % 2) * (width + gap),
              gap + static_cast<i64>(k / 2) * (height + gap), pictures[k].image());
  return all;
}

/// The pictures of a test set's first images, as many as four, in a sheet of the run.
class FirstPictures {
 public:
  FirstPictures(TrainingRun& run, i64 test_images)
      : run_(run), wanted_(std::min<i64>(4, run.part().end(test_images))) {}

  /// draw() is the picture of an image of the test set.
  template <class F>
  void add(i64 index, F draw, const Testing& how) {
    if (index >= wanted_) return;
    if (index == 0) pictures_.clear();
    pictures_.push_back(draw());
    if (index + 1 < wanted_) return;
    const char* const ending = how.averaged ? "_averaged.png" : ".png";
    write_png(run_.folder().picture(str("epoch_", how.epoch, ending)), sheet_of(pictures_).image());
  }

 private:
  TrainingRun& run_;
  i64 wanted_;
  std::vector<Picture> pictures_{};
};

struct DensePredictCommand {
  NetworkOptions network;
  ComputeOptions compute;
  std::string out = "predictions", gt, classes;
  i64 longer = 0, shorter = 0;  // 0: what the weights file says
  std::vector<PredictInput> images;
  PredictFormats formats;
  double least_score = 0.5;
  i64 crop = 0, stride = 0;         // segment: windows
  std::vector<double> scales{1.0};  // segment: sizes
  bool flip = false;                // segment
  bool no_exif = false;

  /// Annotations count stored pixels: results that are to be compared with those of --gt do too.
  ImageReading reading() const { return {.orient = !no_exif && gt.empty()}; }
};

/// OUT/STEM of each image, to which `endings` are put; `others` are written to OUT too. Makes the
/// folders where something is written.
/// Errors: two results in one file; a result in the place of a file that is read.
inline std::vector<std::string> result_stems(const DensePredictCommand& o,
                                             const std::vector<std::string>& endings,
                                             const std::vector<std::string>& others) {
  namespace fs = std::filesystem;
  std::map<std::string, std::string> source;  // of a file that is written
  std::vector<std::string> stems;
  if (o.formats.coco)
    for (const std::string& name : others) source[o.out + "/" + name] = "the results";
  for (const PredictInput& image : o.images) {
    stems.push_back(o.out + "/" + fs::path(image.name).replace_extension().string());
    for (std::size_t k = 0; o.formats.png && k < endings.size(); ++k) {
      const auto [at, is_new] = source.emplace(stems.back() + endings[k], image.path);
      check(is_new, "predict: ", at->second, " and ", image.path, " would both be written to ",
            at->first, "; predict them one after the other, with an --out for each");
    }
  }
  std::vector<std::string> inputs;
  for (const PredictInput& image : o.images) inputs.push_back(image.path);
  inputs.insert(inputs.end(), {o.network.weights, o.network.config, o.network.segmentor,
                               o.network.detector, o.gt, o.classes});
  for (const auto& written : source)
    for (const std::string& input : inputs) {
      std::error_code absent;  // then it is not the same
      check(!fs::equivalent(written.first, input, absent), "predict: ", input,
            " would be overwritten by the picture of ", written.second,
            "; choose another --out than ", o.out);
    }
  if (o.formats.files()) make_folders(o.out);
  for (const std::string& stem : stems)
    if (const std::string folder = fs::path(stem).parent_path().string();
        o.formats.png && folder != o.out)
      make_folders(folder);
  return stems;
}

/// What predict has beside the images: weights, what describes their network, and what numbers and
/// names mean. A run's files say all of it; of others (OpenMMLab's .pth) the options say which
/// network it is, sizes and colours are the published ones.
struct DenseFile {
  const DensePredictCommand& o;
  WeightsOfFile file;
  std::vector<NetworkDescription> said;
  std::optional<InputInfo> input;  // nothing: the file does not say
  std::optional<CocoTruth> truth;  // --gt

  DenseFile(const DensePredictCommand& command, const std::string& task) : o(command) {
    const std::string& path = o.network.weights;
    check(!path.empty(), "predict --task ", task, ": needs --weights");
    file = dense_weights(o.network, notes());
    said = descriptions(o.network, task, file);
    check(!said.empty() || !o.network.model.empty(), path, ": does not describe a ",
          task == "segment" ? "segmentor" : "detector",
          "; take best.safetensors of a run, or say what it is with --model or --config");
    input = InputInfo::of(file.metadata, path);
    check(!input || input->longer > 0, where(), ": is of a classifier, not of a network that can ",
          task);
    if (!o.gt.empty()) truth = read_coco(o.gt, false);
  }
  /// The network with its weights, where it computes.
  template <class Model>
  Model load(const Placement& at) const {
    Model model = [&] {
      const SkipInit skip;
      const auto config =
          dense_config<decltype(Model::config)>(o.network, "ppma_tiny", said, file.tensors);
      require_weights(config, std::is_same_v<Model, MaskRcnn> ? "detect" : "segment");
      return Model(config);
    }();
    load_state_dict(model, file.tensors);
    place_dense(model, at, true);
    return model;
  }
  std::string where() const { return o.network.weights + ": input"; }
  Normalization normalization() const { return input ? input->normalization : Normalization{}; }
  /// What images are brought to: the option, else what the file says, else the published side.
  i64 longer(i64 published) const {
    return side("--longer", o.longer, input ? input->longer : 0, published);
  }
  i64 shorter(i64 published) const {
    return side("--shorter", o.shorter, input ? input->shorter : 0, published);
  }
  /// The classes' names: --classes, else the weights file's, else those of --gt where it has as
  /// many, else numbers. Error: other than one for each class of the network.
  std::vector<std::string> names(i64 classes) const {
    std::vector<std::string> list;
    std::istringstream lines(o.classes.empty() ? "" : read_text(o.classes));
    for (std::string line; std::getline(lines, line);)
      if (!line.empty()) list.push_back(line);
    if (input) input->check_outputs(classes, where());
    if (o.classes.empty() && input) return input->classes;
    if (o.classes.empty() && truth && static_cast<i64>(truth->categories.size()) == classes)
      for (const CocoCategory& c : truth->categories) list.push_back(c.name);
    else if (o.classes.empty())
      for (i64 c = 0; c < classes; ++c) list.push_back(str("class ", c));
    check(static_cast<i64>(list.size()) == classes, o.classes, ": names ", list.size(),
          " classes, the network tells ", classes, " apart");
    return list;
  }
  /// The classes' numbers in results: those that --gt has for all the names, else the weights
  /// file's, else from 1. Error: --gt has a name less, and the file no numbers.
  std::vector<i64> category_ids(const std::vector<std::string>& class_names) const {
    std::vector<i64> ids;
    std::string unknown;
    for (const std::string& name : class_names) {
      ids.push_back(static_cast<i64>(ids.size()) + 1);
      if (!truth) continue;
      const auto it = std::find_if(truth->categories.begin(), truth->categories.end(),
                                   [&](const CocoCategory& c) { return c.name == name; });
      if (it == truth->categories.end())
        unknown = name;
      else
        ids.back() = it->id;
    }
    const bool numbered = input && input->numbered;
    if (numbered && (!truth || !unknown.empty())) return input->category_ids;
    check(unknown.empty(), o.gt, ": has no category \"", unknown,
          "\"; name the network's classes as there, with --classes");
    return ids;
  }
  /// The images' numbers in results: those of --gt for a file of this name, else from 1.
  std::vector<i64> image_ids() const {
    std::vector<i64> ids;
    for (const auto& [image, name] : o.images) {
      ids.push_back(static_cast<i64>(ids.size()) + 1);
      if (!truth) continue;
      const std::string path =
          "/" + std::filesystem::absolute(image).lexically_normal().generic_string();
      std::size_t longest = 0;  // a file_name may hold folders
      for (const CocoImage& i : truth->images)
        if (i.file_name.size() > longest && path.ends_with("/" + i.file_name))
          longest = i.file_name.size(), ids.back() = i.id;
      check(longest > 0, o.gt, ": has no image with the file_name of ", image);
    }
    return ids;
  }

 private:
  static i64 side(const char* name, i64 option, i64 said, i64 published) {
    if (option > 0 && said > 0 && option != said)
      note(name, " ", option, " instead of the ", said, " pixels that the weights say");
    return option > 0 ? option : said > 0 ? said : published;
  }
};

/// With --format coco OUT/results.json in COCO's form, and OUT/images.json: which image and which
/// class each of its numbers is, as in COCO's annotations.
inline void write_results(const DensePredictCommand& o, const std::vector<CocoResult>& results,
                          const Json& images, const std::vector<std::string>& names,
                          const std::vector<i64>& ids) {
  if (!o.formats.coco) return;
  Json categories = Json::array();
  for (std::size_t c = 0; c < names.size(); ++c)
    categories.push_back({{"id", ids[c]}, {"name", names[c]}});
  write_coco_results(o.out + "/results.json", results);
  write_file(o.out + "/images.json",
             std::string_view(Json{{"images", images}, {"categories", categories}}.dump(1) + "\n"));
}

}  // namespace tool
