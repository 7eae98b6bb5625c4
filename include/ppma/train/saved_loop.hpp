#pragma once
#include "ppma/core/names_begin.hpp"
// The file of a training loop (training_loop.hpp): what save() writes and resume() reads.

#include "ppma/train/training_loop.hpp"

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include "ppma/io/safetensors.hpp"
#include "ppma/nn/state_dict.hpp"
#include "ppma/train/finite.hpp"
#include "ppma/train/position.hpp"

namespace ppma::inline PPMA_ABI {

void TrainingLoop::save(const std::string& path,
                        std::map<std::string, std::string> metadata) const {
  TensorMap all;
  detail::add_prefixed(all, "model.", state_);
  if (ema_) detail::add_prefixed(all, "ema.", ema_->average());
  detail::add_prefixed(all, "optimizer.", optimizer_.state());
  metadata["epoch"] = std::to_string(epoch_);
  metadata["iteration"] = std::to_string(iteration_);
  metadata["best"] = detail::number_text(best_);
  metadata["ema_updates"] = std::to_string(ema_ ? ema_->updates() : 0);
  metadata["seed"] = std::to_string(options_.seed);
  metadata["since_best"] = std::to_string(since_best_);
  if (so_far_) metadata["so_far"] = so_far_->text();
  require_finite(all, path + ": not written");
  write_safetensors(path, all, metadata);
}

std::map<std::string, std::string> TrainingLoop::resume(const std::string& path) {
  Safetensors file = read_safetensors(path);
  const std::string& seed = detail::position_of(file, path, "seed");
  check(seed == std::to_string(options_.seed), path, ": was trained with seed ", seed, ", not ",
        options_.seed, "; a resumed run must keep its seed");
  const i64 epoch = detail::whole_of(file, path, "epoch");
  // Of these each was missing in the files of some task before all had one loop.
  const auto whole = [&](const char* key) {
    return file.metadata.contains(key) ? detail::whole_of(file, path, key) : 0;
  };
  const i64 iteration = whole("iteration"), updates = whole("ema_updates");
  const double best = file.metadata.contains("best") ? detail::number_of(file, path, "best") : -1;
  std::optional<detail::EpochSums> so_far;
  if (const auto told = file.metadata.find("so_far"); told != file.metadata.end()) {
    so_far = detail::EpochSums::of_text(told->second, path);
    check(so_far->epoch == epoch, path, ": rests in epoch ", so_far->epoch, " after ", epoch,
          " epochs; the file is damaged");
  }
  require_finite(file.tensors, path);
  const TensorMap weights = detail::part_of(file.tensors, "model."),
                  average = detail::part_of(file.tensors, "ema.");
  check(average.empty() == !ema_, path, ": has ", average.empty() ? "no" : "an",
        " average of weights, this run has ", ema_ ? "one" : "none", "; keep ema_decay");
  check(weights.size() == state_.size(), path, ": has ", static_cast<i64>(weights.size()),
        " tensors, the network ", static_cast<i64>(state_.size()));
  for (auto& [name, tensor] : state_) {
    const Tensor* saved = find(weights, name);
    check(saved != nullptr && saved->shape() == tensor.shape(), path, ": has no ", name,
          " of shape ", tensor.shape());
    tensor.copy_from(*saved);
  }
  optimizer_.load_state(detail::part_of(file.tensors, "optimizer."));
  if (ema_) ema_->load(average, updates);
  epoch_ = epoch, iteration_ = iteration, best_ = best, since_best_ = whole("since_best");
  so_far_ = std::move(so_far);
  return std::move(file.metadata);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
