#pragma once
#include "ppma/core/names_begin.hpp"
// What the training of a segmentor or detector is told.

#include <string>

#include "ppma/commands/training_options.hpp"

namespace ppma::inline PPMA_ABI {

/// To train a segmentor or detector. The network's weights are the backbone's.
struct DenseTraining : TrainingOptions {
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
      f("longer", o.longer, Limits{1, most_size, {0}},
        "images: longer side at most; segment: the first image's");
      f("shorter", o.shorter, Limits{1, most_size, {0}},
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
};

/// To name every pixel. The defaults are for the small network on `shapes`.
struct SegmentorTraining : DenseTraining {
  std::string head{};  // one of SegmentationHeads; none given: the description's, else the first
  i64 crop = 0;        // 0: the shorter side; longer, shorter 0: the first image's
  double least_factor = 0.5, most_factor = 2;
  bool no_distort = false;

  SegmentorTraining() {
    task = "segment", out = "runs/segment";
    data.size = 64, epochs = 20, evaluate_every = 5, clip = 5;
  }
  /// Error: options that do not go together.
  void check_together() const {
    check_words();
    check(least_factor <= most_factor, "`least_factor` ", least_factor,
          " must be at most `most_factor` ", most_factor);
  }
  /// Those that segmentors alone have.
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

/// To find objects. The defaults are for the small network on `shapes`.
struct DetectorTraining : DenseTraining {
  bool boxes_only = false, multi_scale = false;

  DetectorTraining() {
    task = "detect", out = "runs/detect";
    data.size = 128, epochs = 12, longer = 1333, shorter = 800, clip = 10;
  }
  /// Error: options that do not go together.
  void check_together() const {
    check_words();
    check(longer > 0 && shorter > 0, "`longer` and `shorter` must be at least 1");
  }
  /// Those that detectors alone have.
  struct Own {
    template <class Options, class F>
    static void fields(Options& o, F f) {
      f("boxes_only", o.boxes_only, "no mask head (Faster R-CNN)");
      f("multi_scale", o.multi_scale,
        "the 3x schedule's augmentation: shorter sides of 0.6 to 1 `shorter`, half of the images "
        "cropped");
    }
  };
  template <class Options, class F>
  static void fields(Options& o, F f) {
    DenseTraining::fields(o, f);
    Own::fields(o, f);
  }
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
