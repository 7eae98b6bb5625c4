#pragma once
#include "ppma/core/names_begin.hpp"
// What is heard of a run of training while it goes, and what it leaves.

#include <string>
#include <vector>

#include "ppma/commands/observer.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/train/log.hpp"
#include "ppma/train/training_loop.hpp"

namespace ppma::inline PPMA_ABI {

/// A run that is about to train.
struct RunStart {
  std::string network;  // what is trained: "ppma_nano", "UperNet on ppma_nano"
  std::string mask;     // its kind
  i64 parameters = 0;
  std::string set;  // the images' name
  i64 training_images = 0, test_images = 0;
  i64 size = 0;  // pixels of a classifier's images
  std::vector<std::string> classes{};
  std::string left_out{};  // of a detector's training images: which, and why; "": none
  i64 processes = 1;
  std::string folder{};
  bool resumed = false;
  i64 epoch = 0, epochs = 0;  // done so far, and of the run
};

/// A run that ends before its last epoch.
struct RunRest {
  i64 epoch = 0;     // done so far
  i64 batch = 0;     // of the next epoch, so many batches
  i64 patience = 0;  // so many evaluations were none the best, which ended it; 0: it can go on
  std::string folder{};
};

/// Hears of a run, whatever it learns. Of several processes that train together the first one's
/// hears, but for notes; stop() is asked in each.
struct RunObserver : Observer {
  /// Of a segmentor or detector that begins with weights: what of them its backbone took.
  virtual void taken(const LoadReport& /*report*/) {}
  /// All is ready.
  virtual void begin(const RunStart& /*run*/) {}
  /// After every training batch.
  virtual void batch(const StepReport& /*report*/) {}
  /// While it is tested; batches or images.
  virtual void evaluation(i64 /*done*/, i64 /*all*/) {}
  /// A step was not taken.
  virtual void skipped(const SkippedStep& /*step*/) {}
  /// Asked before the first step and between steps: 0, or a reason, above 0, for which the run is
  /// to rest there, such as a signal's number. The place is kept: an options' `resume` goes on.
  virtual int stop() { return 0; }
  /// It ends before its last epoch.
  virtual void rest(const RunRest& /*where*/) {}
};

/// The same of a task whose test set gives an Evaluation.
template <class Evaluation>
struct TrainingObserver : RunObserver {
  /// After every epoch, when all of it is written.
  virtual void epoch(const EpochRecord<Evaluation>& /*record*/, bool /*is_best*/) {}
};

/// A run that has ended, or rests.
struct TrainedRun {
  std::string folder;     // all of it
  std::string weights{};  // best.safetensors in it; "": nothing was evaluated yet
  double best = -1;       // the figure of these weights; -1: there is none
  i64 epochs = 0;         // done so far
  int stopped = 0;        // the observer's reason, that of any of several processes; 0: none
  bool first = true;  // of several processes the one that writes the folder: others know no best
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
