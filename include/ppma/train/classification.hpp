#pragma once
#include "ppma/core/names_begin.hpp"
// To classify images: cross entropy, and accuracy on a test set.

#include <functional>
#include <vector>

#include "ppma/data/image_batches.hpp"
#include "ppma/metrics/confusion.hpp"
#include "ppma/train/log.hpp"
#include "ppma/train/task.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

using Classifier = std::function<Tensor(const Tensor& images)>;  // (B,3,H,W) -> logits (B,K)

PPMA_API Evaluation evaluate_classifier(const Classifier& forward, BatchStream<Batch>& test,
                                        const Testing& how, std::vector<Prediction>* said);

PPMA_API Loss classification_loss(const Tensor& logits, const Tensor& targets,
                                  double label_smoothing);

}  // namespace detail

/// Mean cross entropy and accuracy of model.forward(images), without recording gradients. Labels
/// must be int64. With `how.among` over the parts of all processes. `said` becomes what was said of
/// each image, by its number in the set, in every process of all. Errors: an empty set; a loss that
/// is not finite.
template <class Model>
Evaluation evaluate(Model& model, BatchStream<Batch>& test, const Testing& how = {},
                    std::vector<Prediction>* said = nullptr) {
  return detail::evaluate_classifier([&](const Tensor& images) { return model.forward(images); },
                                     test, how, said);
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
  // Of the last evaluation: by the weights themselves, and by their average.
  std::vector<Prediction> said{}, said_averaged{};

  /// Network and test set must outlive the task.
  ClassificationTask(Model& network, BatchStream<Batch>& test_set, double smoothing = 0.1)
      : model(network), test(test_set), label_smoothing(smoothing) {}

  /// Cross entropy of the batch.
  Loss loss(const Batch& batch, Context& context) {
    return detail::classification_loss(model.forward(batch.images, context), batch.targets,
                                       label_smoothing);
  }
  /// Accuracies on the test set.
  Evaluation evaluate(const Testing& how) {
    return ppma::evaluate(model, test, how, how.averaged ? &said_averaged : &said);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <algorithm>

#include "ppma/core/float_bits.hpp"
#include "ppma/metrics/accuracy.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// What all processes say, each of its part, becomes what every one has. Numbers pass as doubles,
/// each beside zeros of the others: the sums are exact.
inline void gather_predictions(std::vector<Prediction>& said, const Communicator& among) {
  constexpr std::size_t numbers = 6;
  std::vector<double> counts(static_cast<std::size_t>(among.size));
  counts[static_cast<std::size_t>(among.rank)] = static_cast<double>(said.size());
  counts = among.sums(counts);
  std::size_t all = 0, before = 0;
  for (std::size_t r = 0; r < counts.size(); ++r) {
    const auto count = static_cast<std::size_t>(counts[r]);
    all += count, before += static_cast<i64>(r) < among.rank ? count : 0;
  }
  if (all == 0) return;
  std::vector<double> flat(all * numbers);
  auto to = flat.begin() + static_cast<std::ptrdiff_t>(before * numbers);
  for (const Prediction& p : said)
    for (const double v :
         {static_cast<double>(p.sample), static_cast<double>(p.label),
          static_cast<double>(p.predicted), static_cast<double>(p.place), p.confidence, p.of_label})
      *to++ = v;
  flat = among.sums(flat);
  said.clear();
  for (std::size_t i = 0; i < flat.size(); i += numbers) {
    const auto whole = [&](std::size_t k) { return static_cast<i64>(flat[i + k]); };
    said.push_back({whole(0), whole(1), whole(2), whole(3), flat[i + 4], flat[i + 5]});
  }
}

Evaluation evaluate_classifier(const Classifier& forward, BatchStream<Batch>& test,
                               const Testing& how, std::vector<Prediction>* said) {
  const NoGrad not_recorded;
  Accuracy accuracy;
  double loss = 0;
  Batch batch;
  if (said != nullptr) said->clear();
  test.start(0);
  for (i64 n = 1; test.next(batch); ++n) {
    if (!batch.images.defined()) continue;
    const Tensor scores = forward(how.at(batch.images));  // (B,K)
    // bf16 is not computed there
    const Tensor logits = cast(scores, accumulator_dtype(scores.dtype())).to(Device::cpu);
    loss += cross_entropy(logits, batch.targets).item() * static_cast<double>(logits.dim(0));
    accuracy.add(logits, batch.targets);
    if (said != nullptr)
      add_predictions(*said, logits, batch.targets, static_cast<i64>(said->size()), batch.samples);
    if (how.on_progress) how.on_progress(n, test.batches());
  }
  if (how.among != nullptr) {
    const std::vector<double> all =
        how.among->sums({loss, static_cast<double>(accuracy.images),
                         static_cast<double>(accuracy.top1), static_cast<double>(accuracy.top5)});
    loss = all[0];
    if (said != nullptr) gather_predictions(*said, *how.among);
    accuracy.images = static_cast<i64>(all[1]), accuracy.top1 = static_cast<i64>(all[2]),
    accuracy.top5 = static_cast<i64>(all[3]);
  }
  if (said != nullptr)
    std::stable_sort(said->begin(), said->end(),
                     [](const Prediction& a, const Prediction& b) { return a.sample < b.sample; });
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
