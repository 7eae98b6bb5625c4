#pragma once
#include "ppma/core/names_begin.hpp"
// The steps of a training loop (training_loop.hpp) on a GPU, which are launched and not waited for.

#include "ppma/train/training_loop.hpp"

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include "ppma/parallel/gradients.hpp"
#include "ppma/train/replayed_step.hpp"

namespace ppma::inline PPMA_ABI {

// Launches the step of a batch and hears of the one before.
void TrainingLoop::launch_step(const Rng& rng, double rate, const Listeners& listeners,
                               detail::EpochSums& done) {
  if (!replays_) replays_ = std::make_unique<detail::Replays>(options_.at.device);
  detail::Replays& r = *replays_;
  const std::vector<Tensor*> tensors = batch_tensors();
  const i64 rows = tensors[0]->dim(0);
  detail::ReplayedStep* step = nullptr;
  for (const auto& known : r.steps)
    if (known->takes(tensors)) step = known.get();
  if (step == nullptr) {
    if (reads_back_)
      r.steps.clear();  // images may have any size, in each process another
    else if (among() != nullptr)
      rows_of_all(rows, among()->sum(static_cast<double>(rows)), done.begun - 1);
    const auto loss_of = [this](const std::vector<Tensor>& inputs, Context& context) {
      const std::vector<Tensor*> present = batch_tensors();
      *present[0] = options_.at(inputs[0]);
      for (std::size_t i = 1; i < inputs.size(); ++i) *present[i] = inputs[i];
      Loss loss = loss_of_batch(context);
      drop_batch();  // what lives longer than a captured step is not in it
      return loss;
    };
    step = r.steps
               .emplace_back(std::make_unique<detail::ReplayedStep>(
                   loss_of, optimizer_, options_, gradients_.get(), tensors, !reads_back_))
               .get();
  }
  (*step)(tensors, rng, rate, r.upload);
  ++iteration_;
  if (ema_) ema_->update();
  r.readback.ask(step->results());
  const auto before =
      std::exchange(r.underway, detail::Replays::Underway{step->loss(), rows, rate});
  if (!before) return;
  const auto now = std::exchange(r.underway, before);
  finish_step(listeners, done);
  r.underway = now;
}

// Hears of the step underway. Its batch is gone: where one is not finite, nobody looks for the
// place. The average of weights has had its share of the unchanged ones.
void TrainingLoop::finish_step(const Listeners& listeners, detail::EpochSums& done) {
  const auto underway = std::exchange(replays_->underway, std::nullopt);
  if (!underway) return;
  std::vector<double> results = replays_->readback.take();
  if (gradients_) gradients_->require_group();  // sums that were aborted are none
  const i64 processes = among() == nullptr ? 1 : among()->size;
  if (reads_back_ && among() != nullptr) {
    rows_of_all(underway->rows, results.back(), done.number);
    results.pop_back();
  }
  std::vector<double> values(results.begin(), results.end() - 1);
  for (double& v : values) v /= static_cast<double>(processes);
  done.norm = results.back();
  if (!is_finite(values[0]))
    done.bad = SkippedStep{epoch_, done.number + 1, "loss", values[0], ""};
  else if (!is_finite(done.norm))
    done.bad = SkippedStep{epoch_, done.number + 1, "gradient's norm", done.norm, ""};
  done.add(underway->loss, values, underway->rows * processes, underway->rate, true);
  count_step(listeners, done);
  if (listeners.on_batch) listeners.on_batch(done.report());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
