#pragma once
#include "ppma/core/names_begin.hpp"
// What the training of a classifier is told.

#include "ppma/commands/data.hpp"
#include "ppma/commands/training_options.hpp"

namespace ppma::inline PPMA_ABI {

/// To classify images. The defaults are for ppma_nano on `shapes`: about 95 % after two or three
/// minutes on two cores.
struct ClassifierTraining : TrainingOptions {
  double warmup = 0.3, label_smoothing = 0, mixup = 0, cutmix = 0, erasing = 0, rand_augment = 0,
         least_area = 0.08;
  i64 rand_changes = 2, repeats = 1;
  bool rate_per_epoch = false, balanced = false;

  ClassifierTraining() { task = "classify", out = "runs/train", ema = 0.99, beta2 = 0.98; }
  /// Those that classifiers alone have.
  struct Own {
    template <class Options, class F>
    static void fields(Options& o, F f) {
      f("warmup", o.warmup, Limits{0, most_epochs}, "epochs of linear warm-up");
      f("rate_per_epoch", o.rate_per_epoch,
        "change the cosine's learning rate once an epoch, as the published runs");
      f("label_smoothing", o.label_smoothing, fraction(),
        "share of the target that all classes get");
      f("mixup", o.mixup, Limits{0, 1000}, "mixup's alpha; 0: none");
      f("cutmix", o.cutmix, Limits{0, 1000}, "CutMix's alpha; 0: none");
      f("erasing", o.erasing, fraction(), "probability of random erasing");
      f("rand_augment", o.rand_augment, Limits{0, 10},
        "RandAugment's magnitude, published 9; 0: none");
      f("rand_changes", o.rand_changes, counts(100), "changes of RandAugment an image");
      f("least_area", o.least_area, Limits{0.001, 1},
        "folder, csv: random crops have at least this share of an image's area");
      f("repeats", o.repeats, counts(100),
        "repeated augmentation: each image so often in a row, published 3; an epoch sees fewer");
      f("balanced", o.balanced, "every class equally often, however many images it has");
    }
  };
  template <class Options, class F>
  static void fields(Options& o, F f) {
    TrainingOptions::fields(o, f);
    Own::fields(o, f);
  }
  /// What is drawn of a training image.
  TrainingCrops crops() const { return {.flip = no_flip ? 0 : 0.5, .least_area = least_area}; }
  /// Error: options that do not go together.
  PPMA_API void check_together() const;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

namespace ppma::inline PPMA_ABI {

void ClassifierTraining::check_together() const {
  check_words();
  check(!balanced || repeats == 1, "`balanced` and `repeats` are two orders; leave one out");
  check(!rate_per_epoch || schedule.empty() || schedule == "cosine",
        "`rate_per_epoch` is for `schedule` cosine");
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
