#pragma once
#include "ppma/core/names_begin.hpp"
// To name every pixel (recipes 2): the losses of a segmentation network's heads, and mean IoU on a
// test set.

#include <functional>
#include <utility>

#include "ppma/data/segmentation_batches.hpp"
#include "ppma/heads/segment.hpp"
#include "ppma/metrics/mean_iou.hpp"
#include "ppma/optim/poly_schedule.hpp"
#include "ppma/train/task.hpp"

namespace ppma::inline PPMA_ABI {

/// Mean IoU and its companions, of a whole test set.
struct SegmentationEvaluation : SegmentationFigures {
  MeanIou pixels{1};  // what they are of: label against prediction, of all processes
  /// What the best is chosen by.
  double figure() const { return mean_iou; }
};

namespace detail {

/// The losses by the names of OpenMMLab's logs.
PPMA_API Loss segmentation_loss(const SegmentationLoss& loss);

PPMA_API SegmentationEvaluation
evaluate_segmentation(const std::function<Tensor(const SegmentationSample&, i64)>& labels_of,
                      const SegmentationSet& test, const Testing& how);

}  // namespace detail

/// A Task (task.hpp). Model: loss(images, labels, context) gives a SegmentationLoss, of which what
/// is auxiliary may be undefined; forward(images, context) gives logits (B,H,W,K).
template <class Model>
class SegmentationTask {
 public:
  /// What a step is made of.
  using Batch = SegmentationBatch;
  static constexpr u64 stream = 0x5e97;

  Model& model;
  SegmentationSet test;
  SegmentOptions how_to_segment;
  /// Sees each image of the test set with the labels, uint8 (H,W), that it was given; may be empty.
  std::function<void(const SegmentationSample&, const Tensor& labels, i64 index, const Testing&)>
      on_image{};

  /// The network must outlive the task.
  explicit SegmentationTask(Model& network, SegmentationSet test_set = {}, SegmentOptions how = {})
      : model(network), test(std::move(test_set)), how_to_segment(std::move(how)) {}

  /// The losses of the heads, and their accuracies.
  Loss loss(const Batch& batch, Context& context) {
    return detail::segmentation_loss(model.loss(batch.images, batch.labels, context));
  }
  /// Errors: no test set; labels that are no class.
  SegmentationEvaluation evaluate(const Testing& how) {
    return detail::evaluate_segmentation(
        [&](const SegmentationSample& s, i64 index) {
          const Tensor labels = segment(model, s.image, how_to_segment, how.at);
          if (on_image) on_image(s, labels, index, how);
          return labels;
        },
        test, how);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

namespace ppma::inline PPMA_ABI {

namespace detail {

Loss segmentation_loss(const SegmentationLoss& loss) {
  Loss l{loss.total, {{"acc_seg", loss.decode_accuracy}}};
  if (loss.auxiliary.defined())
    l.parts.insert(l.parts.end(), {{"loss_decode", loss.decode},
                                   {"loss_auxiliary", loss.auxiliary},
                                   {"acc_seg_auxiliary", loss.auxiliary_accuracy}});
  return l;
}

SegmentationEvaluation evaluate_segmentation(
    const std::function<Tensor(const SegmentationSample&, i64)>& labels_of,
    const SegmentationSet& test, const Testing& how) {
  check(test.size > 0, "evaluate: the test set is empty");
  MeanIou score(test.classes());
  const BatchPart part{how.among == nullptr ? 0 : how.among->rank,
                       how.among == nullptr ? 1 : how.among->size};
  const i64 begin = part.begin(test.size), end = part.end(test.size);
  for (i64 i = begin; i < end; ++i) {
    const SegmentationSample s = test.get(i);
    score.add(labels_of(s, i), s.labels, s.name);
    if (how.on_progress) how.on_progress(i + 1 - begin, end - begin);
  }
  if (how.among != nullptr) score.set_counts(how.among->sums(score.counts()));
  return {score.result(), score};
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
