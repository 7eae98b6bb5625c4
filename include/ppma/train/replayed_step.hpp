#pragma once
#include "ppma/core/names_begin.hpp"
// The step of a classifier's training on a GPU, which the training loop (trainer.hpp) launches and
// does not wait for.

#include <vector>

#include "ppma/data/loader.hpp"
#include "ppma/nn/module.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/clip.hpp"
#include "ppma/parallel/gradients.hpp"
#include "ppma/train/options.hpp"
#include "ppma/train/replay.hpp"
#include "ppma/train/transfer.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// A training step on the GPU for batches of one shape: inputs go to tensors that stay, and the
/// step is replayed as a graph;
/// with other processes too, where their sums are work for the GPU alone.
template <class Model>
class ReplayedStep {
 public:
  ReplayedStep(Model& model, AdamW& optimizer, const TrainOptions& options,
               GradientAverage* gradients, const Batch& like)
      : images_(Tensor::empty(like.images.shape(), like.images.dtype(), options.at.device)),
        targets_(Tensor::empty(like.targets.shape(), like.targets.dtype(), options.at.device)),
        optimizer_(optimizer),
        gradients_(gradients),
        step_(
            [this, &model, &options, gradients] {
              const Communicator* const among =
                  gradients == nullptr ? nullptr : options.processes.data();
              Context context{true, rng_};
              context.host_inputs = &drawn_;
              context.among = among, context.checkpoint_blocks = options.checkpoint_blocks;
              // mixed: smoothed when it was mixed
              const bool soft = targets_.dtype() != DType::int64;
              const Tensor loss = cross_entropy(model.forward(options.at(images_), context),
                                                targets_, {soft ? 0.0 : options.label_smoothing});
              if (gradients != nullptr)
                gradients->backward(loss);
              else
                loss.backward();
              loss_ = cast(loss.detach(), accumulator_dtype(loss.dtype()));
              if (among != nullptr) among->all_reduce_sum(loss_);
              norm_ =
                  options.clip > 0 ? gradient_norm_on_device(optimizer_.parameters()) : Tensor();
              optimizer_.update(norm_, options.clip);
              optimizer_.zero_grad();
            },
            options.at.device, gradients == nullptr || options.processes[0].capturable) {}

  bool takes(const Batch& b) const {
    return b.images.shape() == images_.shape() && b.targets.shape() == targets_.shape() &&
           b.targets.dtype() == targets_.dtype();
  }
  void operator()(const Batch& batch, const Rng& rng, double rate, Upload& upload) {
    upload.add(images_, batch.images), upload.add(targets_, batch.targets);
    rng_ = rng;
    drawn_.refill(rng, [&](Tensor& to, const Tensor& from) { upload.add(to, from); });
    upload.send();
    optimizer_.set_rate(rate);
    if (gradients_ != nullptr) gradients_->require_group();
    step_();
  }
  /// Scalars on the GPU: the loss (summed over the processes), and the norm of the gradients where
  /// they are clipped.
  std::vector<Tensor> results() const {
    return norm_.defined() ? std::vector<Tensor>{loss_, norm_} : std::vector<Tensor>{loss_};
  }

 private:
  Tensor images_, targets_;  // (B,3,H,W); labels (B) or mixed (B,K)
  Tensor loss_, norm_;       // ()
  AdamW& optimizer_;
  GradientAverage* gradients_;  // null: no other processes
  Rng rng_;
  HostInputs drawn_;
  Replay step_;
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
