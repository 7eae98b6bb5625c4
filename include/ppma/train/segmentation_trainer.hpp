#pragma once
// The training loop of a segmentation network (spec 6.2): AdamW with a poly schedule over iterations. Everything random is
// keyed by seed, epoch and batch, so that a run resumed from save() goes on bit for bit.

#include <cmath>
#include <functional>
#include <map>

#include "ppma/data/segmentation_loader.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/poly_schedule.hpp"
#include "ppma/train/trainer.hpp"

namespace ppma::inline PPMA_ABI {

struct SegmentationTraining {
  Placement at{};
  PolySchedule schedule{};  // its `total` is the run's iterations
  double weight_decay = 0.05, clip = 0;  // names with `norm` are not decayed; the recipe does not clip
  AdamWOptions adamw{};
  u64 seed = 0;
};

/// Means since the epoch's beginning.
struct SegmentationStep {
  i64 epoch = 0, batch = 0, batches = 0;  // batch counts from 1
  double rate = 0, loss = 0, decode = 0, auxiliary = 0;
};

/// Model: loss(images, labels, context) gives {total, decode, auxiliary}.
template <class Model>
class SegmentationTrainer {
 public:
  SegmentationTrainer(Model& model, const SegmentationTraining& options)
      : model_(model), options_(options), state_(as_tensors(state_dict(model))), optimizer_(trained(model, options.weight_decay), options.adamw) {}

  i64 epoch() const { return epoch_; }
  const TensorMap& weights() const { return state_; }

  /// One pass; the last report is the epoch's. Error: a loss that is not finite.
  SegmentationStep run_epoch(SegmentationLoader& loader, const std::function<void(const SegmentationStep&)>& on_batch = {}) {
    SegmentationStep step;
    loader.start(epoch_);
    step.epoch = epoch_, step.batches = loader.batches();
    double sums[3] = {};
    SegmentationBatch batch;
    while (loader.next(batch)) {
      Context context{true, Rng(options_.seed, static_cast<u64>(epoch_), static_cast<u64>(step.batch), 0x5e97)};
      const auto loss = model_.loss(options_.at(batch.images), batch.labels.to(options_.at.device), context);
      const double total = loss.total.item();
      check(std::isfinite(total), "training: the loss is ", total, " in epoch ", epoch_, ", batch ", step.batch, "; lower the learning rate or clip the gradients");
      sums[0] += total, sums[1] += loss.decode.item(), sums[2] += loss.auxiliary.item();
      loss.total.backward();
      const double norm = options_.clip > 0 ? gradient_norm(optimizer_.parameters()) : 0;
      step.rate = options_.schedule.at(iteration_);
      optimizer_.step(step.rate, clip_factor(norm, options_.clip));
      optimizer_.zero_grad();
      ++iteration_, ++step.batch;
      const double n = static_cast<double>(step.batch);
      step.loss = sums[0] / n, step.decode = sums[1] / n, step.auxiliary = sums[2] / n;
      if (on_batch) on_batch(step);
    }
    ++epoch_;
    return step;
  }

  /// All that resume() needs, written aside and renamed.
  void save(const std::string& path, std::map<std::string, std::string> metadata = {}) const {
    TensorMap all;
    for (const auto& entry : state_) all.emplace_back("model." + entry.first, entry.second);
    for (const auto& entry : optimizer_.state()) all.emplace_back("optimizer." + entry.first, entry.second);
    metadata["epoch"] = std::to_string(epoch_), metadata["iteration"] = std::to_string(iteration_);
    metadata["seed"] = std::to_string(options_.seed);
    write_safetensors(path, all, metadata);
  }
  /// Continues where save() was called. Errors: another network, another seed.
  void resume(const std::string& path) {
    const Safetensors file = read_safetensors(path);
    const auto number = [&](const char* key) {
      const auto it = file.metadata.find(key);
      check(it != file.metadata.end(), path, ": has no ", key, "; it is not a training checkpoint");
      return it->second;
    };
    check(std::stoull(number("seed")) == options_.seed, path, ": was trained with seed ", number("seed"), ", not ", options_.seed);
    TensorMap weights, moments;
    for (const auto& [name, tensor] : file.tensors) {
      if (name.starts_with("model.")) weights.emplace_back(name.substr(6), tensor);
      if (name.starts_with("optimizer.")) moments.emplace_back(name.substr(10), tensor);
    }
    load_state_dict(model_, weights);
    optimizer_.load_state(moments);
    epoch_ = std::stoll(number("epoch")), iteration_ = std::stoll(number("iteration"));
  }

 private:
  // Frozen parameters are left out.
  static std::vector<Parameter> trained(Model& model, double decay) {
    TensorMap named;
    for (const Field& f : named_parameters(model))
      if (f.tensor.requires_grad()) named.emplace_back(f.name, f.tensor);
    return parameters_with_rules(named, {{"*norm*", Shape::max_rank, 0.0}, {"*", Shape::max_rank, decay}});
  }

  Model& model_;
  SegmentationTraining options_;
  TensorMap state_;
  AdamW optimizer_;
  i64 epoch_ = 0, iteration_ = 0;
};

}  // namespace ppma::inline PPMA_ABI
