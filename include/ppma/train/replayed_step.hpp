#pragma once
#include "ppma/core/names_begin.hpp"
// A step of training on a GPU, which the training loop (trainer.hpp) launches and does not wait
// for.

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "ppma/nn/context.hpp"
#include "ppma/nn/draws.hpp"
#include "ppma/optim/optimizer.hpp"
#include "ppma/parallel/gradients.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/replay.hpp"
#include "ppma/train/task.hpp"
#include "ppma/train/transfer.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// A training step on the GPU for batches of one shape: inputs go to tensors that stay, and the
/// step is replayed as a graph; with other processes too, where their sums are work for the GPU
/// alone. One that cannot be captured is launched kernel by kernel, and not waited for either.
class ReplayedStep {
 public:
  /// The task's loss of a batch of these tensors.
  using LossOf = std::function<Loss(const std::vector<Tensor>& inputs, Context&)>;

  PPMA_API ReplayedStep(LossOf loss_of, Optimizer& optimizer, const TrainOptions& options,
                        GradientAverage* gradients, const std::vector<Tensor*>& like, bool capture);

  PPMA_API bool takes(const std::vector<Tensor*>& batch) const;
  PPMA_API void operator()(const std::vector<Tensor*>& batch, const Rng& rng, double rate,
                           Upload& upload);
  /// Scalars on the GPU: the loss and its parts (summed over the processes), and the norm of the
  /// gradients: where that is not finite, or the loss is not, the optimiser took no step. Of a step
  /// that is not captured, and so may have batches of any shape, with other processes: in the end
  /// the rows of all of them.
  PPMA_API std::vector<Tensor> results() const;
  /// The last step's.
  const Loss& loss() const { return loss_; }

 private:
  PPMA_API void step();

  LossOf loss_of_;
  Optimizer& optimizer_;
  const TrainOptions& options_;
  GradientAverage* gradients_;  // null: no other processes
  std::vector<Tensor> inputs_;
  Loss loss_;
  Tensor norm_, rows_;  // ()
  bool capture_;
  Rng rng_;
  HostInputs drawn_;
  Replay replay_;
};

/// Steps on a GPU: one for each shape that batches have, two where the last batch of an epoch is
/// smaller; of those that are not captured only the last shape's. And the one that the GPU may
/// still be computing.
struct Replays {
  explicit Replays(Device device) : upload(device), readback(device) {}

  std::vector<std::unique_ptr<ReplayedStep>> steps{};
  Upload upload;
  Readback readback;
  struct Underway {
    Loss loss;
    i64 rows;
    double rate;
  };
  std::optional<Underway> underway{};
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/converted_weights.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/optim/clip.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Scalars in f64 become their sums over all processes, which travel in one message.
inline void sum_together(const std::vector<Tensor*>& scalars, const Communicator& among) {
  Tensor all = Tensor::empty({static_cast<i64>(scalars.size())}, DType::f64, scalars[0]->device());
  std::vector<CopyPiece> copies;
  char* to = static_cast<char*>(all.raw());
  for (const Tensor* t : scalars) {
    copies.push_back({to, t->raw(), t->bytes()});
    to += t->bytes();
  }
  copy_many(all.device(), copies);
  among.all_reduce_sum(all);
  for (std::size_t i = 0; i < scalars.size(); ++i) *scalars[i] = all.part(static_cast<i64>(i), {});
}

ReplayedStep::ReplayedStep(LossOf loss_of, Optimizer& optimizer, const TrainOptions& options,
                           GradientAverage* gradients, const std::vector<Tensor*>& like,
                           bool capture)
    : loss_of_(std::move(loss_of)),
      optimizer_(optimizer),
      options_(options),
      gradients_(gradients),
      capture_(capture),
      replay_([this] { step(); }, options.at.device,
              capture && (gradients == nullptr || options.processes[0].capturable)) {
  for (const Tensor* t : like)
    inputs_.push_back(Tensor::empty(t->shape(), t->dtype(), options.at.device));
}

bool ReplayedStep::takes(const std::vector<Tensor*>& batch) const {
  for (std::size_t i = 0; i < inputs_.size(); ++i)
    if (batch[i]->shape() != inputs_[i].shape() || batch[i]->dtype() != inputs_[i].dtype())
      return false;
  return true;
}

void ReplayedStep::operator()(const std::vector<Tensor*>& batch, const Rng& rng, double rate,
                              Upload& upload) {
  for (std::size_t i = 0; i < inputs_.size(); ++i) upload.add(inputs_[i], *batch[i]);
  rng_ = rng;
  drawn_.refill(rng, [&](Tensor& to, const Tensor& from) { upload.add(to, from); });
  upload.send();
  optimizer_.set_rate(rate);
  if (gradients_ != nullptr) gradients_->require_group();
  replay_();
}

std::vector<Tensor> ReplayedStep::results() const {
  std::vector<Tensor> all{loss_.total};
  for (const auto& part : loss_.parts) all.push_back(part.second);
  all.push_back(norm_);
  if (rows_.defined()) all.push_back(rows_);
  return all;
}

void ReplayedStep::step() {
  optimizer_.zero_grad();  // of a step that could not be captured to its end
  const Communicator* const among = gradients_ == nullptr ? nullptr : options_.processes.data();
  Context context{true, rng_};
  context.host_inputs = &drawn_;
  context.among = among, context.checkpoint_blocks = options_.checkpoint_blocks;
  {
    const ConvertedWeights once(tensors_of(optimizer_.parameters()), options_.at.activations());
    loss_ = loss_of_(inputs_, context);
    if (gradients_ != nullptr)
      gradients_->backward(loss_.total);
    else
      loss_.total.backward();
  }
  std::vector<Tensor*> said{&loss_.total};
  for (auto& part : loss_.parts) {
    if (!part.second.defined())  // another process may have it
      part.second = Tensor::zeros({}, loss_.total.dtype(), loss_.total.device());
    said.push_back(&part.second);
  }
  for (Tensor* t : said)
    *t = cast(t->detach(), among == nullptr ? accumulator_dtype(t->dtype()) : DType::f64);
  if (among != nullptr && !capture_) {
    rows_ =
        Tensor::full({}, static_cast<double>(inputs_[0].dim(0)), DType::f64, options_.at.device);
    said.push_back(&rows_);
  }
  if (among != nullptr) sum_together(said, *among);
  norm_ = gradient_norm_on_device(optimizer_.parameters()) +
          scale(cast(loss_.total, DType::f64), 0);  // NaN where the loss is not finite
  optimizer_.update(norm_, options_.clip);
  optimizer_.zero_grad();
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
