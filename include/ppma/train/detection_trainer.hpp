#pragma once
#include "ppma/core/names_begin.hpp"
// The training loop of a detector (spec 7.3): AdamW, warm-up and steps, several losses. Everything
// random is keyed by seed, epoch and batch, so that a run resumed from save() goes on bit for bit.

#include <cmath>
#include <functional>
#include <map>

#include "ppma/core/float_bits.hpp"
#include "ppma/data/detection_loader.hpp"
#include "ppma/optim/step_schedule.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/training_state.hpp"

namespace ppma::inline PPMA_ABI {

struct DetectionTraining {
  Placement at{};
  StepSchedule schedule{};
  // names with `norm` are not decayed; the recipe does not clip
  double weight_decay = 0.05, clip = 0;
  AdamWOptions adamw{};
  u64 seed = 0;
  // compute the blocks again in backward instead of keeping their results: less memory, more time
  bool checkpoint_blocks = false;
};

/// Means since the epoch's beginning, by name: loss, loss_rpn_cls, loss_rpn_bbox, loss_cls,
/// loss_bbox, loss_mask, acc.
struct DetectionStep {
  i64 epoch = 0, batch = 0, batches = 0;  // batch counts from 1
  double rate = 0;
  std::vector<std::pair<std::string, double>> values;
};

template <class Model>
class DetectionTrainer {
 public:
  DetectionTrainer(Model& model, const DetectionTraining& options)
      : model_(model),
        options_(options),
        state_(model, options.weight_decay, options.adamw, options.seed) {}

  i64 epoch() const { return state_.epoch; }
  const TensorMap& weights() const { return state_.tensors(); }

  /// One pass; the last report is the epoch's. Error: a loss or weights that are not finite.
  DetectionStep run_epoch(DetectionLoader& loader,
                          const std::function<void(const DetectionStep&)>& on_batch = {}) {
    DetectionStep step;
    loader.start(state_.epoch);
    step.epoch = state_.epoch, step.batches = loader.batches();
    std::vector<std::pair<std::string, double>> sums;
    DetectionBatch batch;
    while (loader.next(batch)) {
      Context context{true, Rng(options_.seed, static_cast<u64>(state_.epoch),
                                static_cast<u64>(step.batch), 0xde7ec7)};
      context.checkpoint_blocks = options_.checkpoint_blocks;
      const auto loss = model_.loss(options_.at(batch.images), batch, context);
      std::size_t k = 0;
      const auto report = [&](const char* name, double value) {
        if (k == sums.size()) sums.emplace_back(name, 0.0);
        sums[k++].second += value;
      };
      const auto item = [](const Tensor& t) { return t.defined() ? t.item() : 0.0; };
      const double total = loss.total.item();
      check(is_finite(total), "training: the loss is ", total, " in epoch ", state_.epoch,
            ", batch ", step.batch, "; lower the learning rate or clip the gradients");
      report("loss", total), report("loss_rpn_cls", item(loss.rpn_cls)),
          report("loss_rpn_bbox", item(loss.rpn_bbox));
      report("loss_cls", item(loss.cls)), report("loss_bbox", item(loss.bbox)),
          report("loss_mask", item(loss.mask));
      report("acc", loss.accuracy);
      loss.total.backward();
      step.rate = options_.schedule.at(state_.epoch, state_.iteration);
      state_.step(step.rate, options_.clip);
      ++step.batch;
      step.values = sums;
      for (auto& value : step.values) value.second /= static_cast<double>(step.batch);
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
  DetectionTraining options_;
  TrainingState<Model> state_;
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
