#pragma once
#include "ppma/core/names_begin.hpp"
// The training loop of a segmentation network (spec 6.2): AdamW with a poly schedule over
// iterations. Everything random is keyed by seed, epoch and batch, so that a run resumed from
// save() goes on bit for bit.

#include <cmath>
#include <functional>
#include <map>

#include "ppma/core/float_bits.hpp"
#include "ppma/data/segmentation_loader.hpp"
#include "ppma/optim/poly_schedule.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/training_state.hpp"

namespace ppma::inline PPMA_ABI {

struct SegmentationTraining {
  Placement at{};
  PolySchedule schedule{};  // its `total` is the run's iterations
  // names with `norm` are not decayed; the recipe does not clip
  double weight_decay = 0.05, clip = 0;
  AdamWOptions adamw{};
  u64 seed = 0;
  // compute the blocks again in backward instead of keeping their results: less memory, more time
  bool checkpoint_blocks = false;
};

/// Means since the epoch's beginning.
struct SegmentationStep {
  i64 epoch = 0, batch = 0, batches = 0;  // batch counts from 1
  double rate = 0, loss = 0, decode = 0, auxiliary = 0;
  double decode_accuracy = 0, auxiliary_accuracy = 0;  // percent of the pixels
};

/// Model: loss(images, labels, context) gives a SegmentationLoss; what is auxiliary may be
/// undefined.
template <class Model>
class SegmentationTrainer {
 public:
  SegmentationTrainer(Model& model, const SegmentationTraining& options)
      : model_(model),
        options_(options),
        state_(model, options.weight_decay, options.adamw, options.seed) {}

  i64 epoch() const { return state_.epoch; }
  const TensorMap& weights() const { return state_.tensors(); }

  /// One pass; the last report is the epoch's. Error: a loss or weights that are not finite.
  SegmentationStep run_epoch(SegmentationLoader& loader,
                             const std::function<void(const SegmentationStep&)>& on_batch = {}) {
    SegmentationStep step;
    loader.start(state_.epoch);
    step.epoch = state_.epoch, step.batches = loader.batches();
    double sums[5] = {};
    SegmentationBatch batch;
    while (loader.next(batch)) {
      Context context{true, Rng(options_.seed, static_cast<u64>(state_.epoch),
                                static_cast<u64>(step.batch), 0x5e97)};
      context.checkpoint_blocks = options_.checkpoint_blocks;
      const auto loss =
          model_.loss(options_.at(batch.images), batch.labels.to(options_.at.device), context);
      const double total = loss.total.item();
      check(is_finite(total), "training: the loss is ", total, " in epoch ", state_.epoch,
            ", batch ", step.batch, "; lower the learning rate or clip the gradients");
      const auto item = [](const Tensor& t) { return t.defined() ? t.item() : 0.0; };
      sums[0] += total, sums[1] += item(loss.decode), sums[2] += item(loss.auxiliary);
      sums[3] += item(loss.decode_accuracy), sums[4] += item(loss.auxiliary_accuracy);
      loss.total.backward();
      step.rate = options_.schedule.at(state_.iteration);
      state_.step(step.rate, options_.clip);
      ++step.batch;
      const double n = static_cast<double>(step.batch);
      step.loss = sums[0] / n, step.decode = sums[1] / n, step.auxiliary = sums[2] / n;
      step.decode_accuracy = sums[3] / n, step.auxiliary_accuracy = sums[4] / n;
      if (on_batch) on_batch(step);
    }
    ++state_.epoch;
    state_.require_finite_weights();
    return step;
  }

  /// All that resume() needs, written aside and renamed. Error: a tensor that is not finite.
  void save(const std::string& path,
            const std::map<std::string, std::string>& metadata = {}) const {
    state_.save(path, metadata);
  }
  /// Continues where save() was called; returns the metadata. Errors: another network, another
  /// seed.
  std::map<std::string, std::string> resume(const std::string& path) { return state_.resume(path); }

 private:
  Model& model_;
  SegmentationTraining options_;
  TrainingState<Model> state_;
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
