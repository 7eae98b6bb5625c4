#pragma once
#include "ppma/core/names_begin.hpp"
// To find objects (recipes 3): a detector's losses, and COCO's figures on a test set.

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "ppma/data/coco_evaluation.hpp"
#include "ppma/data/detection_batches.hpp"
#include "ppma/heads/mask_rcnn.hpp"
#include "ppma/optim/step_schedule.hpp"
#include "ppma/train/task.hpp"

namespace ppma::inline PPMA_ABI {

struct DetectionEvaluation {
  CocoScores boxes;
  std::optional<CocoScores> masks;  // of a network that draws them

  /// AP of the masks, or else of the boxes.
  double figure() const { return masks ? masks->figures[0] : boxes.figures[0]; }
};

/// A detection as COCO's files have it.
PPMA_API CocoResult coco_result(const Detection& d, i64 image_id, i64 category_id);

/// How well the objects of one image were found, from 0 to 1: the panoptic quality of Kirillov, He,
/// Girshick, Rother and Dollar (Panoptic segmentation, CVPR 2019, equation 1) over its objects of
/// all classes. Detections of at least a score are taken, best first; a pair is of one class and
/// overlaps by more than a half, as masks where both have one, else as boxes. NaN: there is nothing
/// to find, and nothing was found.
PPMA_API double panoptic_quality(const Objects& truth, const std::vector<Detection>& found,
                                 double least_score = 0.5);

/// A Task (task.hpp).
class DetectionTask {
 public:
  /// What a step is made of.
  using Batch = DetectionBatch;
  static constexpr u64 stream = 0xde7ec7;
  static constexpr bool reads_back = true;  // which regions are learnt from

  MaskRcnn& model;
  DetectionSet test;
  std::shared_ptr<const CocoTruth> truth;  // of test, all of whose images it has
  DetectionLoading loading;                // sizes and colours of the images that are tested
  /// Sees each image of the test set with what was found on it; may be empty.
  std::function<void(const DetectionSample&, const std::vector<Detection>& found, i64 index,
                     const Testing&)>
      on_image{};

  /// The network must outlive the task.
  explicit DetectionTask(MaskRcnn& network, DetectionSet test_set = {},
                         std::shared_ptr<const CocoTruth> truth_of_test = nullptr,
                         DetectionLoading how = {})
      : model(network),
        test(std::move(test_set)),
        truth(std::move(truth_of_test)),
        loading(std::move(how)) {}

  /// The sum of a detector's losses, and each.
  PPMA_API Loss loss(const Batch& batch, Context& context);
  /// Errors: no test set or no truth; what evaluate_coco refuses.
  PPMA_API DetectionEvaluation evaluate(const Testing& how);
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include <algorithm>
#include <string>

#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The results of all processes, in the order of their ranks. They travel as COCO's JSON: each adds
/// its own bytes, as numbers, to the zeros of the others.
inline std::vector<CocoResult> results_of_all(const std::vector<CocoResult>& mine,
                                              const Communicator& among) {
  const std::string text = coco_results_text(mine, "results");
  std::vector<double> sizes(static_cast<std::size_t>(among.size), 0.0);
  sizes[static_cast<std::size_t>(among.rank)] = static_cast<double>(text.size());
  sizes = among.sums(sizes);
  i64 total = 0;
  std::vector<i64> first;  // byte of each process
  for (const double size : sizes) first.push_back(total), total += static_cast<i64>(size);
  Tensor letters = Tensor::zeros({total});
  std::transform(text.begin(), text.end(),
                 letters.data<float>() + first[static_cast<std::size_t>(among.rank)],
                 [](char c) { return static_cast<float>(static_cast<u8>(c)); });
  among.all_reduce_sum(letters);
  std::vector<u8> bytes(static_cast<std::size_t>(total));
  std::transform(letters.data<float>(), letters.data<float>() + total, bytes.begin(),
                 [](float letter) { return static_cast<u8>(letter); });
  std::vector<CocoResult> all;
  for (std::size_t r = 0; r < sizes.size(); ++r) {
    const Bytes heard = Bytes(bytes).subspan(static_cast<std::size_t>(first[r]),
                                             static_cast<std::size_t>(sizes[r]));
    for (CocoResult& result : parse_coco_results(heard, str("results of process ", r)))
      all.push_back(std::move(result));
  }
  return all;
}

}  // namespace detail

CocoResult coco_result(const Detection& d, i64 image_id, i64 category_id) {
  CocoResult r;
  r.image_id = image_id, r.category_id = category_id, r.score = d.score;
  r.box = CocoBox{static_cast<double>(d.box.x1), static_cast<double>(d.box.y1),
                  static_cast<double>(d.box.width()), static_cast<double>(d.box.height())};
  r.mask.rle = d.mask;
  r.where = str("image ", image_id);
  return r;
}

double panoptic_quality(const Objects& truth, const std::vector<Detection>& found,
                        double least_score) {
  std::vector<const Detection*> taken;
  for (const Detection& d : found)
    if (d.score >= least_score) taken.push_back(&d);
  std::stable_sort(taken.begin(), taken.end(),
                   [](const Detection* a, const Detection* b) { return a->score > b->score; });
  const std::size_t n = truth.boxes.size();
  std::vector<std::optional<Rle>> masks(n);
  if (truth.masks.defined())
    for (std::size_t i = 0; i < n; ++i) {
      const i64 pixels = truth.masks.dim(1) * truth.masks.dim(2);
      Tensor one = Tensor::empty({truth.masks.dim(1), truth.masks.dim(2)}, DType::uint8);
      std::copy_n(truth.masks.data<u8>() + static_cast<i64>(i) * pixels, pixels, one.data<u8>());
      masks[i] = rle_encode(one);
    }
  const auto corners = [](const Box& b) {
    return CocoBox{static_cast<double>(b.x1), static_cast<double>(b.y1),
                   static_cast<double>(b.width()), static_cast<double>(b.height())};
  };
  std::vector<bool> matched(n, false);
  double sum = 0;
  for (const Detection* d : taken) {
    double most = 0.5;
    std::size_t best = n;
    for (std::size_t i = 0; i < n; ++i) {
      if (matched[i] || truth.classes[i] != d->label) continue;
      const double overlap = masks[i] && d->mask
                                 ? rle_iou(*d->mask, *masks[i])
                                 : box_iou(corners(d->box), corners(truth.boxes[i]));
      if (overlap > most) most = overlap, best = i;
    }
    if (best == n) continue;
    matched[best] = true;
    sum += most;
  }
  const double all = static_cast<double>(n + taken.size());
  return all > 0 ? 2 * sum / all : not_a_number<double>();
}

Loss DetectionTask::loss(const Batch& batch, Context& context) {
  const DetectionLoss l = model.loss(batch.images, batch, context);
  return {l.total,
          {{"loss_rpn_cls", l.rpn_cls},
           {"loss_rpn_bbox", l.rpn_bbox},
           {"loss_cls", l.cls},
           {"loss_bbox", l.bbox},
           {"loss_mask", l.mask},
           {"acc", l.accuracy}}};
}

DetectionEvaluation DetectionTask::evaluate(const Testing& how) {
  check(test.size > 0 && truth != nullptr, "evaluate: there is no test set, or no truth of it");
  const BatchPart part{how.among == nullptr ? 0 : how.among->rank,
                       how.among == nullptr ? 1 : how.among->size};
  std::vector<CocoResult> results;
  const i64 begin = part.begin(test.size), end = part.end(test.size);
  for (i64 i = begin; i < end; ++i) {
    const DetectionSample sample = test.load(i);
    const DetectionBatch batch = evaluation_batch(sample, loading);
    const std::vector<Detection> found = model.detect(how.at(batch.images), batch.frames)[0];
    for (const Detection& d : found)
      results.push_back(coco_result(d, batch.frames[0].image_id,
                                    test.category_ids[static_cast<std::size_t>(d.label)]));
    if (on_image) on_image(sample, found, i, how);
    if (how.on_progress) how.on_progress(i + 1 - begin, end - begin);
  }
  if (how.among != nullptr) results = detail::results_of_all(results, *how.among);
  DetectionEvaluation e{evaluate_coco(*truth, results, CocoType::bbox), {}};
  if (model.config.with_mask) e.masks = evaluate_coco(*truth, results, CocoType::segm);
  return e;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
