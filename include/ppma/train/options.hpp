#pragma once
#include "ppma/core/names_begin.hpp"
// What the training loop (trainer.hpp) is told: where to compute, how long, with which step.

#include <functional>
#include <vector>

#include "ppma/optim/optimizer.hpp"
#include "ppma/optim/schedule.hpp"
#include "ppma/parallel/communicator.hpp"

namespace ppma::inline PPMA_ABI {

/// Where a network computes, and in what: at(images) brings a batch there. Labels go to the device
/// as they are.
struct Placement {
  Device device = Device::cpu;
  DType dtype = DType::f32;  // parameters are in its accumulator's dtype

  /// The dtype of activations: on the CPU bf16 is the weights' alone, in inference
  /// (prepare_for_inference()).
  DType activations() const {
    return device == Device::cpu && dtype == DType::bf16 ? DType::f32 : dtype;
  }
  /// Images on the device, in the dtype of activations.
  PPMA_API Tensor operator()(const Tensor& images) const;
};

struct TrainOptions {
  Placement at{};
  i64 epochs = 30;
  i64 accumulate = 1;                           // batches per step
  double clip = 0;                              // limit of the gradients' norm; 0 for none
  OptimizerOptions optimizer = AdamWOptions{};  // or SgdOptions
  std::vector<ParameterRule> rules = no_decay_rules(0.05);  // weight decay and the like
  /// The learning rate at a batch: a schedule (optim/), or a function of one's own.
  std::function<double(const Moment&)> rate = WarmupCosine{.total = 30};
  double ema_decay = 0;    // of an average of the weights; 0 for none
  bool ema_warm = true;    // short runs: see Ema
  i64 evaluate_every = 1;  // epochs; the last one always is; 0 for never
  u64 seed = 0;
  // compute the blocks again in backward instead of keeping their results: less memory, more time
  bool checkpoint_blocks = false;
  /// Of a network that several processes train: two communicators (parallel/tcp.hpp), for the steps
  /// and for gradients. Streams then give each process its part of every batch (BatchPart), equal
  /// parts in training. One without processes stays empty.
  std::vector<Communicator> processes{};
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

Tensor Placement::operator()(const Tensor& images) const {
  const Tensor there = images.to(device);
  return there.dtype() == activations() ? there : cast(there, activations());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
