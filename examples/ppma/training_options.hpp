#pragma once
// What `train` is told whatever it trains: a task's command adds its own fields to these. A run
// keeps its fields in train.json, where --resume reads them.

#include <cmath>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "common.hpp"
#include "data.hpp"
#include "ppma/data/sampling.hpp"
#include "ppma/optim/poly_schedule.hpp"
#include "ppma/optim/step_schedule.hpp"

namespace tool {

constexpr const char* checkpoint_help =
    "compute the blocks again in backward instead of keeping their results: less memory, more time";

/// Numbers that many options are.
inline Limits rates() { return {0, 1e6}; }
inline Limits below_one() { return {0, 0.9999999}; }

struct TrainingOptions {
  NetworkOptions network;
  ComputeOptions compute;
  DataOptions data;
  std::string task;
  i64 epochs = 6, batch = 16, accumulate = 1, evaluate_every = 1, patience = 0;
  double lr = 2e-3, weight_decay = 0.05, clip = 1, ema = 0, data_fraction = 1, momentum = 0.9,
         beta2 = 0.999, final_lr = 1e-5;
  std::string optimizer = "adamw", schedule, freeze;
  std::vector<i64> steps;  // of the schedule: epochs; none given: default_steps
  bool tensorboard = false, checkpoint_blocks = false, nesterov = false, ema_plain = false,
       no_flip = false;
  u64 seed = 0;
  // Of this call alone.
  std::string out, resume, recipe;
  bool overwrite = false, per_class = false;
  i64 stop_after = 0;
  double save_every_minutes = 5;
  std::string time_limit;
  double drop_path = -1;  // -1: the configuration's

  TrainingOptions() { data.kind = "shapes"; }

  /// All that a resumed run must keep.
  template <class Options, class F>
  static void fields(Options& o, F f) {
    DataOptions::fields(o.data, f);
    f("task", o.task), f("dtype", o.compute.dtype);
    f("epochs", o.epochs, counts(most_epochs), "passes over the training images");
    f("batch", o.batch, counts(most_batch), "images a batch");
    f("accumulate", o.accumulate, counts(most_batch), "batches a step");
    f("lr", o.lr, rates(), "peak learning rate");
    f("schedule", o.schedule,
      "how the learning rate goes on: cosine, poly (a line to 0), step (a tenth after --steps) or "
      "constant, all with a warm-up; default: classify cosine, segment poly, detect step");
    f("steps", o.steps, Limits{.least = 1, .most = most_epochs, .or_none = true},
      "epochs after which the rate of --schedule step falls to a tenth; default: 8 and 11 of 12, "
      "27 and 33 of 36, none of fewer than 4");
    f("final_lr", o.final_lr, rates(), "learning rate at the end of a cosine");
    f("optimizer", o.optimizer, "adamw or sgd");
    f("beta2", o.beta2, below_one(), "AdamW's second momentum");
    f("momentum", o.momentum, below_one(), "SGD's momentum");
    f("nesterov", o.nesterov, "SGD with Nesterov's momentum");
    f("weight_decay", o.weight_decay, Limits{0, 100}, "the optimiser's weight decay");
    f("clip", o.clip, Limits{0, 1e9}, "limit of the gradients' norm; 0: none");
    f("ema", o.ema, below_one(), "decay of the average of weights; 0: none");
    f("ema_plain", o.ema_plain,
      "that decay from the first step on, as published; without: less in the first ones, so that "
      "a short run's average forgets where it began");
    f("freeze", o.freeze,
      "parameters that are not trained, by their names: patterns with * and ?, separated by "
      "commas, such as \"patch_embed.*,*.bias\"");
    f("fraction", o.data_fraction, Limits{1e-6, 1},
      "share of the training images to use, of each class; the same ones for a seed");
    f("no_flip", o.no_flip, "images are not mirrored at random");
    f("evaluate_every", o.evaluate_every, counts(most_epochs), "epochs between evaluations");
    f("patience", o.patience, Limits{0, most_epochs},
      "stop after so many evaluations without a better one; 0: do all epochs");
    f("tensorboard", o.tensorboard, "write event files for TensorBoard into the run folder");
    f("checkpoint_blocks", o.checkpoint_blocks, checkpoint_help);
    f("seed", o.seed, "of weights, order and augmentation");
  }
  /// What each call says anew.
  struct OfCall {
    template <class Options, class F>
    static void fields(Options& o, F f) {
      f("out", o.out, "run folder");
      f("overwrite", o.overwrite, "start anew in a run folder that holds a run");
      f("stop_after", o.stop_after, Limits{0, most_epochs},
        "stop after so many epochs, to be resumed; 0: do all");
      f("save_every_minutes", o.save_every_minutes, Limits{0, 1e6},
        "minutes between savings within an epoch; 0: only after each epoch");
      f("time_limit", o.time_limit,
        "stop after so long, to be resumed: 90s, 20m, 1.5h; default: no limit");
      f("per_class", o.per_class,
        "print figures of all classes, not of the five worst; to segment and detect all of up "
        "to 20 are");
      f("drop_path", o.drop_path, Limits{0, 0.99, {-1}},
        "drop path of the last block; -1: the configuration's");
    }
  };

  /// Seconds of --time-limit; 0: none. Error: it is no time.
  double seconds() const {
    if (time_limit.empty()) return 0;
    double number = 0;
    const char unit = time_limit.back();
    const double scale = unit == 's' ? 1 : unit == 'm' ? 60 : unit == 'h' ? 3600 : 0;
    check(scale > 0 && parse_number(time_limit.substr(0, time_limit.size() - 1), number) &&
              number > 0 && is_finite(number),
          "--time-limit ", time_limit, ": must be a time such as 90s, 20m or 1.5h");
    return number * scale;
  }
  /// Errors: what is not one of a few words, or goes with another one.
  void check_words() const {
    check(optimizer == "adamw" || optimizer == "sgd", "--optimizer ", optimizer,
          ": must be adamw or sgd");
    check(optimizer == "sgd" || !nesterov, "--nesterov is for --optimizer sgd");
    check(!nesterov || momentum > 0, "--nesterov needs a --momentum above 0");
    check(schedule.empty() || schedule == "cosine" || schedule == "poly" || schedule == "step" ||
              schedule == "constant",
          "--schedule ", schedule, ": must be cosine, poly, step or constant");
  }
  OptimizerOptions optimizer_options() const {
    if (optimizer == "sgd") return SgdOptions{momentum, nesterov};
    return AdamWOptions{.beta2 = beta2};
  }
  /// The epochs to do before it rests.
  i64 stop() const { return stop_after > 0 ? std::min(stop_after, epochs) : epochs; }
};

/// The epochs after which the rate falls: the published 8 and 11 of 12, 27 and 33 of 36; else in
/// proportion to the former.
/// Fewer than four epochs are too short to fall twice: none.
inline std::vector<i64> default_steps(i64 epochs) {
  if (epochs < 4) return {};
  if (epochs == 36) return {27, 33};
  return {epochs * 2 / 3, epochs * 11 / 12};
}

/// The learning rates of a run with so many steps an epoch, of which those of `warmup` epochs come
/// first. `usual`: the schedule where the options name none.
inline std::function<double(const Moment&)> schedule_of(const TrainingOptions& o,
                                                        const std::string& usual, i64 steps,
                                                        double warmup) {
  const std::string kind = o.schedule.empty() ? usual : o.schedule;
  const i64 warm_steps = std::llround(warmup * static_cast<double>(steps));
  if (kind == "poly")
    return PolySchedule{.rate = o.lr, .total = o.epochs * steps, .warmup = warm_steps};
  if (kind == "cosine")
    return WarmupCosine{.peak = o.lr,
                        .warmup = warmup,
                        .total = static_cast<double>(o.epochs),
                        .start = 1e-6,
                        .final = o.final_lr};
  const std::vector<i64> falls = kind == "constant" ? std::vector<i64>{}
                                 : o.steps.empty()  ? default_steps(o.epochs)
                                                    : o.steps;
  return StepSchedule{.rate = o.lr, .steps = falls, .warmup = warm_steps};
}

/// Marks the parameters that --freeze names; returns how many tensors. Error: a pattern that fits
/// none.
template <class Model>
i64 freeze(Model& model, const std::string& patterns) {
  i64 frozen = 0;
  std::istringstream all(patterns);
  for (std::string pattern; std::getline(all, pattern, ',');) {
    const i64 before = frozen;
    std::string example;
    for_each_field(model, [&](const std::string& name, Tensor& t, Kind kind) {
      if (kind != Kind::parameter) return;
      example = name;
      if (matches(pattern, name)) t.requires_grad(false), ++frozen;
    });
    check(frozen > before, "--freeze ", pattern, ": no parameter has such a name; they are called ",
          "as ", example, " (ppma info WEIGHTS lists them)");
  }
  return frozen;
}

/// --resume with --data-dir: the run's images, which have been moved. Error: the run made them
///  itself.
inline void take_moved_data(const std::string& moved, std::string& folder, const std::string& out) {
  if (moved.empty()) return;
  check(!folder.empty(), "--data-dir: the run in ", out,
        " has no files of images but --data shapes; leave it out");
  folder = moved;
}

/// Takes the options of the run in `out`, which is resumed, and its network; --data-dir says where
/// its files are now.
template <class Command>
void take_kept(Command& o) {
  const std::string path = o.out + "/train.json", moved = o.data.folder;
  read_kept(parse_json(read_text(path), path), path, o);
  o.network = {}, o.drop_path = -1;
  o.network.config = o.out + "/config.json";
  take_moved_data(moved, o.data.folder, o.out);
}

/// What --config of `train` names: a run's options, as train.json holds them (a file with
/// "epochs"), or nothing where it is a network's configuration.
inline std::optional<Json> run_options(const std::string& path) {
  if (path.empty()) return {};
  Json j = parse_json(read_text(path), path);
  if (!j.is_object() || !j.contains("epochs")) return {};
  return j;
}

/// Takes a run's options from a file; those that were given beside it count more. Error: the file
/// has a key that this task does not know.
template <class Command>
void take_run(const CLI::App& app, const Json& file, const std::string& path, Command& o) {
  Command told = o;
  check_json_keys(file, path, told);
  read_kept(file, path, told);
  take_given<Command>(app, o, told);
  o = told;
}

}  // namespace tool
