#pragma once
#include "ppma/core/names_begin.hpp"
// What training is told whatever it trains: a task adds its own fields to these. A run keeps its
// fields in train.json, where `resume` reads them.

#include <string>
#include <vector>

#include "ppma/commands/data.hpp"
#include "ppma/commands/network.hpp"
#include "ppma/commands/numbers.hpp"
#include "ppma/core/limits.hpp"
#include "ppma/optim/optimizer.hpp"

namespace ppma::inline PPMA_ABI {

/// Of `checkpoint_blocks`, which other commands have too.
constexpr const char* checkpoint_help =
    "compute the blocks again in backward instead of keeping their results: less memory, more time";

/// Of training, whatever the task; what each field means fields() says.
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
  std::string out;
  std::string resume;  // the folder of a run to go on, with its options; `data.folder`: moved data
  bool overwrite = false;
  i64 stop_after = 0;
  double save_every_minutes = 5;
  std::string time_limit;
  double drop_path = -1;  // -1: the configuration's

  TrainingOptions() { data.kind = "shapes"; }

  /// All that a resumed run must keep; by their names, "data", "data_dir" and "fraction" too, with
  /// limits and what they mean.
  template <class Options, class F>
  static void fields(Options& o, F f) {
    DataOptions::fields(o.data, f);
    f("task", o.task), f("dtype", o.compute.dtype);
    f("epochs", o.epochs, counts(most_epochs), "passes over the training images");
    f("batch", o.batch, counts(most_batch), "images a batch");
    f("accumulate", o.accumulate, counts(most_batch), "batches a step");
    f("lr", o.lr, Limits{0, 1e6}, "peak learning rate");
    f("schedule", o.schedule,
      "how the learning rate goes on: cosine, poly (a line to 0), step (a tenth after `steps`) or "
      "constant, all with a warm-up; default: classify cosine, segment poly, detect step");
    f("steps", o.steps, Limits{.least = 1, .most = most_epochs, .or_none = true},
      "epochs after which the rate of `schedule` step falls to a tenth; default: 8 and 11 of 12, "
      "27 and 33 of 36, none of fewer than 4");
    f("final_lr", o.final_lr, Limits{0, 1e6}, "learning rate at the end of a cosine");
    f("optimizer", o.optimizer, "adamw or sgd");
    f("beta2", o.beta2, Limits{0, 0.9999999}, "AdamW's second momentum");
    f("momentum", o.momentum, Limits{0, 0.9999999}, "SGD's momentum");
    f("nesterov", o.nesterov, "SGD with Nesterov's momentum");
    f("weight_decay", o.weight_decay, Limits{0, 100}, "the optimiser's weight decay");
    f("clip", o.clip, Limits{0, 1e9}, "limit of the gradients' norm; 0: none");
    f("ema", o.ema, Limits{0, 0.9999999}, "decay of the average of weights; 0: none");
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
      f("drop_path", o.drop_path, Limits{0, 0.99, {-1}},
        "drop path of the last block; -1: the configuration's");
    }
  };

  /// Seconds of `time_limit`; 0: none. Error: it is no time.
  PPMA_API double seconds() const;
  /// Errors: what is not one of a few words, or goes with another one.
  PPMA_API void check_words() const;
  /// AdamW or SGD as they are told.
  PPMA_API OptimizerOptions optimizer_options() const;
  /// The epochs to do before it rests.
  i64 stop() const { return stop_after > 0 && stop_after < epochs ? stop_after : epochs; }
};

/// The epochs after which the rate falls: the published 8 and 11 of 12, 27 and 33 of 36; else in
/// proportion to the former. Fewer than four epochs are too short to fall twice: none.
PPMA_API std::vector<i64> default_steps(i64 epochs);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

namespace ppma::inline PPMA_ABI {

double TrainingOptions::seconds() const {
  if (time_limit.empty()) return 0;
  double number = 0;
  const char unit = time_limit.back();
  const double scale = unit == 's' ? 1 : unit == 'm' ? 60 : unit == 'h' ? 3600 : 0;
  check(scale > 0 && parse_number(time_limit.substr(0, time_limit.size() - 1), number) &&
            number > 0 && is_finite(number),
        "`time_limit` ", time_limit, ": must be a time such as 90s, 20m or 1.5h");
  return number * scale;
}

void TrainingOptions::check_words() const {
  check(optimizer == "adamw" || optimizer == "sgd", "`optimizer` ", optimizer,
        ": must be adamw or sgd");
  check(optimizer == "sgd" || !nesterov, "`nesterov` is for `optimizer` sgd");
  check(!nesterov || momentum > 0, "`nesterov` needs a `momentum` above 0");
  check(schedule.empty() || schedule == "cosine" || schedule == "poly" || schedule == "step" ||
            schedule == "constant",
        "`schedule` ", schedule, ": must be cosine, poly, step or constant");
}

OptimizerOptions TrainingOptions::optimizer_options() const {
  if (optimizer == "sgd") return SgdOptions{momentum, nesterov};
  return AdamWOptions{.beta2 = beta2};
}

std::vector<i64> default_steps(i64 epochs) {
  if (epochs < 4) return {};
  if (epochs == 36) return {27, 33};
  return {epochs * 2 / 3, epochs * 11 / 12};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
