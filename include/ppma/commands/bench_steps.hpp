#pragma once
#include "ppma/core/names_begin.hpp"
// The steps that are timed, on random images.

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "ppma/commands/bench_options.hpp"
#include "ppma/commands/dense_network.hpp"
#include "ppma/commands/machine.hpp"
#include "ppma/commands/timing.hpp"
#include "ppma/core/buffer.hpp"
#include "ppma/core/gpu.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/nn/draws.hpp"
#include "ppma/nn/init.hpp"
#include "ppma/ops/converted_weights.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/optim/adamw.hpp"
#include "ppma/parallel/gradients.hpp"
#include "ppma/train/replay.hpp"
#include "ppma/train/transfer.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// Runs once(), which runs `step`, to warm up and then to be timed; the processes `among` which it
/// is shared start together.
template <class F>
Timing time_step(const BenchOptions& o, const Placement& at, const Replay& step,
                 const Communicator* among, F&& once) {
  // before the step is captured: a replay takes its memory all at once
  reset_peak_memory(at.device);
  for (i64 i = 0; i < std::max<i64>(o.warmup, at.device == Device::cuda ? 4 : 1); ++i) once();
  if (at.device == Device::cuda) cuda::synchronize();
  if (among != nullptr) among->barrier();
  const i64 faults = page_faults();
  const std::vector<double> ms = timed(o.repeat, at.device, once);
  Timing t{median(ms),
           *std::min_element(ms.begin(), ms.end()),
           memory_stats(at.device).peak_bytes,
           peak_memory_mib(),
           static_cast<double>(page_faults() - faults) / static_cast<double>(o.repeat),
           step.captured(),
           step.reason()};
  if (among != nullptr) among->barrier();
  return t;
}

/// A training step that is replayed: `loss_of(context)` forward and backward, AdamW. What it draws
/// changes from step to step.
template <class Loss>
Timing time_training(const BenchOptions& o, const Placement& at, AdamW& optimizer,
                     const std::vector<Communicator>& processes, Loss&& loss_of) {
  const Communicator* const among = processes.empty() ? nullptr : processes.data();
  std::unique_ptr<GradientAverage> gradients;
  if (among != nullptr) {
    gradients = std::make_unique<GradientAverage>(processes[1], tensors_of(optimizer.parameters()));
  }
  u64 steps = 0;
  HostInputs drawn;
  Upload upload(at.device);
  Tensor result;  // stays: a captured step writes there
  Replay step(
      [&] {
        optimizer.zero_grad();  // of a step that could not be captured to its end
        Context context{true, Rng(2)};
        context.host_inputs = &drawn, context.among = among,
        context.checkpoint_blocks = o.checkpoint_blocks;
        Tensor loss;
        {
          const ConvertedWeights once(tensors_of(optimizer.parameters()), at.activations());
          loss = loss_of(context);
          if (gradients)
            gradients->backward(loss);
          else
            loss.backward();
        }
        optimizer.update();
        optimizer.zero_grad();
        result = loss.detach();
      },
      at.device, o.graph && (among == nullptr || among->capturable));
  return time_step(o, at, step, among, [&] {
    drawn.refill(Rng(2, 0, steps++), [&](Tensor& to, const Tensor& from) { upload.add(to, from); });
    upload.send();
    optimizer.set_rate(1e-4);
    if (gradients) gradients->require_group();
    step();
  });
}

inline Tensor random_labels(const Shape& shape, i64 classes, Rng& rng) {
  Tensor labels = Tensor::empty(shape, DType::int64);
  for (i64 i = 0; i < labels.numel(); ++i) labels.data<i64>()[i] = rng.below(classes);
  return labels;
}

/// A training step of a classifier, which `processes` share, or inference.
template <class Model>
Timing time_classifier(const BenchOptions& o, const Placement& at, Model& model, i64 classes,
                       const std::vector<Communicator>& processes = {}) {
  Rng rng(1);
  const Tensor images = at(Tensor::randn({o.batch, 3, o.size, o.image_width()}, rng));
  const Tensor labels = random_labels({o.batch}, classes, rng).to(at.device);
  if (o.train) {
    AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
    return time_training(o, at, optimizer, processes, [&](Context& context) {
      return cross_entropy(model.forward(images, context), labels);
    });
  }
  Tensor result;  // stays: a captured step writes there
  Replay step([&] { result = model.forward(images); }, at.device, o.graph);
  return time_step(o, at, step, nullptr, step);
}

/// The same of a segmentor.
template <class Head>
Timing time_segmentor(const BenchOptions& o, const Placement& at, Segmentor<Head>& model,
                      const std::vector<Communicator>& processes = {}) {
  Rng rng(1);
  const Tensor images = at(Tensor::randn({o.batch, 3, o.size, o.image_width()}, rng));
  const Tensor labels =
      random_labels({o.batch, o.size, o.image_width()}, classes_of(model.config), rng)
          .to(at.device);
  if (o.train) {
    AdamW optimizer(parameters_of(model, no_decay_rules(0.05)));
    return time_training(o, at, optimizer, processes, [&](Context& context) {
      return model.loss(images, labels, context).total;
    });
  }
  Tensor result;
  Replay step(
      [&] {
        const NoGrad not_recorded;
        Context context;
        result = model.forward(images, context);
      },
      at.device, o.graph);
  return time_step(o, at, step, nullptr, step);
}

/// Multiply-accumulates of a dense network's backbone, which need not be there, for an image.
inline i64 backbone_macs(const PpmaConfig& backbone, i64 height, i64 width) {
  const SkipInit not_drawn;
  DenseBackbone model(backbone);
  return summary(model, 1, height, width).macs();
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
