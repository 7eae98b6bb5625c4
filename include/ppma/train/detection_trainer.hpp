#pragma once
// The training loop of a detector (spec 7.3): AdamW, warm-up and steps, several losses. Everything random is keyed by
// seed, epoch and batch, so that a run resumed from save() goes on bit for bit.

#include <cmath>
#include <functional>
#include <map>

#include "ppma/data/detection.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/optim/step_schedule.hpp"
#include "ppma/train/trainer.hpp"

namespace ppma::inline PPMA_ABI {

struct DetectionTraining {
  Placement at{};
  StepSchedule schedule{};
  double weight_decay = 0.05, clip = 0;  // names with `norm` are not decayed; the recipe does not clip
  AdamWOptions adamw{};
  u64 seed = 0;
};

/// Means since the epoch's beginning, by name: loss, loss_rpn_cls, loss_rpn_bbox, loss_cls, loss_bbox, loss_mask, acc.
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
        state_(as_tensors(state_dict(model))),
        optimizer_(trained(model, options.weight_decay), options.adamw) {}

  i64 epoch() const { return epoch_; }
  const TensorMap& weights() const { return state_; }

  /// One pass; the last report is the epoch's. Error: a loss that is not finite.
  DetectionStep run_epoch(DetectionLoader& loader, const std::function<void(const DetectionStep&)>& on_batch = {}) {
    DetectionStep step;
    loader.start(epoch_);
    step.epoch = epoch_, step.batches = loader.batches();
    std::vector<std::pair<std::string, double>> sums;
    DetectionBatch batch;
    while (loader.next(batch)) {
      Context context{true, Rng(options_.seed, static_cast<u64>(epoch_), static_cast<u64>(step.batch), 0xde7ec7)};
      const auto loss = model_.loss(options_.at(batch.images), batch, context);
      std::size_t k = 0;
      const auto report = [&](const char* name, double value) {
        if (k == sums.size()) sums.emplace_back(name, 0.0);
        sums[k++].second += value;
      };
      const auto item = [](const Tensor& t) { return t.defined() ? t.item() : 0.0; };
      const double total = loss.total.item();
      check(std::isfinite(total), "training: the loss is ", total, " in epoch ", epoch_, ", batch ", step.batch, "; lower the learning rate or clip the gradients");
      report("loss", total), report("loss_rpn_cls", item(loss.rpn_cls)), report("loss_rpn_bbox", item(loss.rpn_bbox));
      report("loss_cls", item(loss.cls)), report("loss_bbox", item(loss.bbox)), report("loss_mask", item(loss.mask));
      report("acc", loss.accuracy);
      loss.total.backward();
      const double norm = options_.clip > 0 ? gradient_norm(optimizer_.parameters()) : 0;
      step.rate = options_.schedule.at(epoch_, iteration_);
      optimizer_.step(step.rate, clip_factor(norm, options_.clip));
      optimizer_.zero_grad();
      ++iteration_, ++step.batch;
      step.values = sums;
      for (auto& value : step.values) value.second /= static_cast<double>(step.batch);
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
  DetectionTraining options_;
  TensorMap state_;
  AdamW optimizer_;
  i64 epoch_ = 0, iteration_ = 0;
};

}  // namespace ppma::inline PPMA_ABI
