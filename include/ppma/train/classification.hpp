#pragma once
#include "ppma/core/names_begin.hpp"
// To classify images: cross entropy, and accuracy on a test set.

#include <functional>

#include "ppma/data/image_batches.hpp"
#include "ppma/train/log.hpp"
#include "ppma/train/task.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

using Classifier = std::function<Tensor(const Tensor& images)>;  // (B,3,H,W) -> logits (B,K)

PPMA_API Evaluation evaluate_classifier(const Classifier& forward, BatchStream<Batch>& test,
                                        const Testing& how);

PPMA_API Loss classification_loss(const Tensor& logits, const Tensor& targets,
                                  double label_smoothing);

}  // namespace detail

/// Mean cross entropy and accuracy of model.forward(images), without recording gradients. Labels
/// must be int64. With `how.among` over the parts of all processes. Errors: an empty set; a loss
/// that is not finite.
template <class Model>
Evaluation evaluate(Model& model, BatchStream<Batch>& test, const Testing& how = {}) {
  return detail::evaluate_classifier([&](const Tensor& images) { return model.forward(images); },
                                     test, how);
}

/// A Task (task.hpp). Model: forward(images, context) gives logits (B,K), forward(images) the same
/// without training.
template <class Model>
class ClassificationTask {
 public:
  /// What a step is made of.
  using Batch = ppma::Batch;

  Model& model;
  BatchStream<Batch>& test;
  double label_smoothing;  // of labels; mixed targets are taken as they are

  /// Network and test set must outlive the task.
  ClassificationTask(Model& network, BatchStream<Batch>& test_set, double smoothing = 0.1)
      : model(network), test(test_set), label_smoothing(smoothing) {}

  /// Cross entropy of the batch.
  Loss loss(const Batch& batch, Context& context) {
    return detail::classification_loss(model.forward(batch.images, context), batch.targets,
                                       label_smoothing);
  }
  /// Accuracies on the test set.
  Evaluation evaluate(const Testing& how) { return ppma::evaluate(model, test, how); }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include "ppma/core/float_bits.hpp"
#include "ppma/metrics/accuracy.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

Evaluation evaluate_classifier(const Classifier& forward, BatchStream<Batch>& test,
                               const Testing& how) {
  const NoGrad not_recorded;
  Accuracy accuracy;
  double loss = 0;
  Batch batch;
  test.start(0);
  for (i64 n = 1; test.next(batch); ++n) {
    if (!batch.images.defined()) continue;
    const Tensor scores = forward(how.at(batch.images));  // (B,K)
    // bf16 is not computed there
    const Tensor logits = cast(scores, accumulator_dtype(scores.dtype())).to(Device::cpu);
    loss += cross_entropy(logits, batch.targets).item() * static_cast<double>(logits.dim(0));
    accuracy.add(logits, batch.targets);
    if (how.on_progress) how.on_progress(n, test.batches());
  }
  if (how.among != nullptr) {
    const std::vector<double> all =
        how.among->sums({loss, static_cast<double>(accuracy.images),
                         static_cast<double>(accuracy.top1), static_cast<double>(accuracy.top5)});
    loss = all[0];
    accuracy.images = static_cast<i64>(all[1]), accuracy.top1 = static_cast<i64>(all[2]),
    accuracy.top5 = static_cast<i64>(all[3]);
  }
  check(accuracy.images > 0, "evaluate: the test set is empty");
  loss /= static_cast<double>(accuracy.images);
  check(is_finite(loss), "evaluate: the loss on the test set is ", loss);
  return {loss, accuracy.acc1(), accuracy.acc5(), accuracy.images};
}

Loss classification_loss(const Tensor& logits, const Tensor& targets, double label_smoothing) {
  const bool soft = targets.dtype() != DType::int64;  // mixed: smoothed when it was mixed
  return {cross_entropy(logits, targets, {soft ? 0.0 : label_smoothing}),
          {},
          static_cast<double>(logits.dim(0))};
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
