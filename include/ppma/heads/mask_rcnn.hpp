#pragma once
#include "ppma/core/names_begin.hpp"
// The detector: backbone, feature pyramid, proposals, box head and, where it is wanted, mask head
// (recipes 3). Without the mask head it is Faster R-CNN. Names of parameters are mmdet's.

#include <optional>
#include <vector>

#include "ppma/core/limits.hpp"
#include "ppma/heads/box_head.hpp"
#include "ppma/heads/fpn.hpp"
#include "ppma/heads/mask_head.hpp"
#include "ppma/heads/regions.hpp"
#include "ppma/heads/rpn.hpp"
#include "ppma/heads/rpn_loss.hpp"
#include "ppma/models/ppma.hpp"

namespace ppma::inline PPMA_ABI {

struct MaskRcnnConfig {
  PpmaConfig backbone = ppma_tiny();
  RpnConfig rpn;
  RoiConfig roi;
  bool with_mask = true;

  bool operator==(const MaskRcnnConfig&) const = default;
  /// All but the backbone's: every number of recipes 3.1 and 3.2.
  template <class Config, class F>
  static void fields(Config& c, F f) {
    f("with_mask", c.with_mask);
    f("num_classes", c.roi.num_classes, counts());
    f("channels", c.rpn.channels, counts());
    f("anchor_scale", c.rpn.anchor.scale, Limits::positive());
    f("anchor_ratios", c.rpn.anchor.ratios, Limits::positive());
    f("anchor_strides", c.rpn.strides, counts());
    f("rpn_stds", c.rpn.coder.stds, Limits::positive());
    f("rpn_wh_ratio_clip", c.rpn.coder.wh_ratio_clip, Limits::positive(1));
    f("rpn_cls_weight", c.rpn.cls_weight, Limits::at_least(0));
    f("rpn_bbox_weight", c.rpn.bbox_weight, Limits::at_least(0));
    f("rpn_positive", c.rpn.assign.positive, fraction());
    f("rpn_negative", c.rpn.assign.negative, fraction());
    f("rpn_least_positive", c.rpn.assign.least_positive, fraction());
    f("rpn_low_quality", c.rpn.assign.low_quality);
    f("rpn_samples", c.rpn.sample.count, counts());
    f("rpn_positives", c.rpn.sample.positives, fraction());
    f("train_candidates", c.rpn.train_candidates, counts());
    f("test_candidates", c.rpn.test_candidates, counts());
    f("proposals", c.rpn.proposals, counts());
    f("rpn_nms", c.rpn.nms, fraction());
    f("shared_fcs", c.roi.shared_fcs, counts(100));
    f("fc_channels", c.roi.fc_channels, counts());
    f("box_size", c.roi.box_size, counts());
    f("mask_size", c.roi.mask_size, counts());
    f("mask_convs", c.roi.mask_convs, Limits{0, 100});
    f("finest", c.roi.finest, Limits::positive());
    f("roi_positive", c.roi.assign.positive, fraction());
    f("roi_negative", c.roi.assign.negative, fraction());
    f("roi_least_positive", c.roi.assign.least_positive, fraction());
    f("roi_low_quality", c.roi.assign.low_quality);
    f("roi_samples", c.roi.sample.count, counts());
    f("roi_positives", c.roi.sample.positives, fraction());
    f("least_score", c.roi.least_score, fraction());
    f("nms", c.roi.nms, fraction());
    f("detections", c.roi.detections, counts());
    f("roi_stds", c.roi.coder.stds, Limits::positive());
    f("roi_wh_ratio_clip", c.roi.coder.wh_ratio_clip, Limits::positive(1));
    f("mask_threshold", c.roi.mask_threshold, fraction());
    f("cls_weight", c.roi.cls_weight, Limits::at_least(0));
    f("bbox_weight", c.roi.bbox_weight, Limits::at_least(0));
    f("mask_weight", c.roi.mask_weight, Limits::at_least(0));
  }
};

/// Throws an Error that names the first value that makes no detector, by its key in JSON.
PPMA_API void check_config(const MaskRcnnConfig& c);

struct DetectionLoss {
  // scalars; undefined where there was nothing to learn from
  Tensor total, rpn_cls, rpn_bbox, cls, bbox, mask;
  Tensor accuracy;  // of the box head, percent
};

struct RoiHead {
  BoxHead bbox_head;
  std::optional<MaskHead> mask_head;
  template <class V>
  void fields(V& v) {
    v.child("bbox_head", bbox_head), v.child("mask_head", mask_head);
  }
};

struct MaskRcnn {
  MaskRcnnConfig config;
  DenseBackbone backbone;
  Fpn neck;
  RpnHead rpn_head;
  RoiHead roi_head;

  explicit MaskRcnn(const MaskRcnnConfig& c, u64 seed = 0) : MaskRcnn(c, Rng(seed)) {}

  /// P2..P6 (B,H,W,C) of images (B,3,Hin,Win).
  std::vector<Tensor> pyramid(const Tensor& images, Context& ctx) const {
    return neck.forward(backbone.forward(images, ctx));
  }

  /// All losses of a batch; boxes are sampled by ctx.rng's stream. `images` are the batch's, where
  /// the network is.
  PPMA_API DetectionLoss loss(const Tensor& images, const DetectionBatch& batch,
                              Context& ctx) const;

  /// What is on each image of a batch, best first, in pixels of the originals.
  PPMA_API std::vector<std::vector<Detection>> detect(const Tensor& images,
                                                      const std::vector<Frame>& frames) const;
  /// The same from the backbone's four maps (B,H,W,C).
  PPMA_API std::vector<std::vector<Detection>> detect_on(const std::vector<Tensor>& maps,
                                                         const std::vector<Frame>& frames) const;
  template <class V>
  void fields(V& v) {
    v.child("backbone", backbone), v.child("neck", neck), v.child("rpn_head", rpn_head),
        v.child("roi_head", roi_head);
  }

 private:
  PPMA_API MaskRcnn(const MaskRcnnConfig& c, Rng rng);
  PPMA_API static MaskRcnnConfig same_channels(MaskRcnnConfig c);

  PPMA_API void find_masks(const std::vector<Tensor>& levels, const Frame& frame, i64 image,
                           std::vector<Detection>& found) const;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <limits>
#include <string>

#include "ppma/core/parallel.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/best_boxes.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/parallel/communicator.hpp"

namespace ppma::inline PPMA_ABI {

void check_config(const MaskRcnnConfig& c) {
  check_config(c.backbone);
  check_fields(c);
  for (const auto& [of, a] : {std::pair{"rpn", &c.rpn.assign}, {"roi", &c.roi.assign}})
    check(a->negative <= a->positive, "config: ", of, "_negative is ", a->negative, ", above ", of,
          "_positive, ", a->positive);
}

DetectionLoss MaskRcnn::loss(const Tensor& images, const DetectionBatch& batch,
                             Context& ctx) const {
  const std::vector<Tensor> levels = pyramid(images, ctx);
  const RpnOutput rpn = rpn_head.forward(levels);
  const RpnLoss of_rpn =
      rpn_head.loss(rpn, batch.frames, batch.objects, ctx.rng.fork(0x59a), ctx.among);
  DetectionLoss l;
  l.rpn_cls = of_rpn.cls, l.rpn_bbox = of_rpn.bbox;
  l.total = add(l.rpn_cls, l.rpn_bbox);

  const std::size_t count = batch.frames.size();
  const u64 first = ctx.among == nullptr ? 0 : static_cast<u64>(ctx.among->rank) * count;
  std::vector<Roi> rois, positive;
  if (count > 0 && rpn_head.chooses_on_gpu(rpn)) {
    rois = sample_rois(rpn_head.best(rpn, batch.frames, true), batch.frames, batch.objects,
                       config.roi, ctx.rng, 0x501 + first);
  } else {
    const std::vector<std::vector<Box>> proposals = rpn_head.proposals(rpn, batch.frames, true);
    for (std::size_t b = 0; b < count; ++b)
      for (const Roi& r : sample_rois(proposals[b], batch.objects[b], static_cast<i64>(b),
                                      config.roi, ctx.rng.fork(0x501 + first + b)))
        rois.push_back(r);
  }
  for (const Roi& r : rois)
    if (r.truth >= 0) positive.push_back(r);
  // Means over the regions of all processes: their own are weighed by how many there are here.
  Tensor weights;  // (2): of means over regions and over positive ones; none: 1
  if (ctx.among != nullptr) {
    Tensor all = Tensor::from<double>(
                     {static_cast<double>(rois.size()), static_cast<double>(positive.size())}, {2})
                     .to(images.device());
    const Tensor here = scale(all, static_cast<double>(ctx.among->size));
    ctx.among->all_reduce_sum(all);  // on a GPU the host does not wait for it
    weights = div(here, clamp(all, 1, std::numeric_limits<double>::infinity()));
  }
  const auto weighed = [&weights](const Tensor& loss, i64 which) {
    return weights.defined()
               ? mul(loss, cast(reshape(narrow(weights, 0, which, 1), {}), loss.dtype()))
               : loss;
  };
  if (rois.empty()) return l;
  sort_by_level(rois, config.roi.finest);
  const BoxLoss of_box =
      roi_head.bbox_head.loss(roi_head.bbox_head.forward(roi_features(
                                  levels, rois, config.roi.box_size, config.roi.finest)),
                              rois, batch.objects);
  l.cls = weighed(of_box.cls, 0), l.bbox = weighed(of_box.bbox, 0);
  l.accuracy = weighed(of_box.accuracy, 0);
  l.total = add(l.total, add(l.cls, l.bbox));
  if (!roi_head.mask_head || positive.empty()) return l;
  sort_by_level(positive, config.roi.finest);
  l.mask = weighed(roi_head.mask_head->loss(roi_head.mask_head->forward(roi_features(
                                                levels, few_sizes(positive, levels[0].device()),
                                                config.roi.mask_size, config.roi.finest)),
                                            positive, batch.objects),
                   1);
  l.total = add(l.total, l.mask);
  return l;
}

std::vector<std::vector<Detection>> MaskRcnn::detect(const Tensor& images,
                                                     const std::vector<Frame>& frames) const {
  const NoGrad not_recorded;
  Context ctx;
  return detect_on(backbone.forward(images, ctx), frames);
}

std::vector<std::vector<Detection>> MaskRcnn::detect_on(const std::vector<Tensor>& maps,
                                                        const std::vector<Frame>& frames) const {
  const NoGrad not_recorded;
  const std::vector<Tensor> levels = neck.forward(maps);
  const RpnOutput rpn = rpn_head.forward(levels);
  std::vector<std::vector<Detection>> all;
  if (!frames.empty() && rpn_head.chooses_on_gpu(rpn)) {
    // the host waits for the boxes that are found, and for their masks
    const Tensor regions = rpn_head.best(rpn, frames, false);  // (B,N,6)
    all = detections_of(roi_head.bbox_head.forward(detail::cells_of_regions(
                            levels, regions, 0, config.roi.box_size, config.roi.finest)),
                        regions, frames, config.roi);
    for (std::size_t b = 0; b < frames.size(); ++b)
      if (roi_head.mask_head && !all[b].empty())
        find_masks(levels, frames[b], static_cast<i64>(b), all[b]);
    return all;
  }
  const std::vector<std::vector<Box>> proposals = rpn_head.proposals(rpn, frames, false);
  for (std::size_t b = 0; b < frames.size(); ++b) {
    std::vector<Roi> rois;
    for (const Box& box : proposals[b]) rois.push_back({box, static_cast<i64>(b), -1, 0});
    all.emplace_back();
    if (rois.empty()) continue;
    sort_by_level(rois, config.roi.finest);
    all.back() = detections_of(roi_head.bbox_head.forward(roi_features(
                                   levels, rois, config.roi.box_size, config.roi.finest)),
                               rois, frames[b], config.roi);
    if (roi_head.mask_head && !all.back().empty())
      find_masks(levels, frames[b], static_cast<i64>(b), all.back());
  }
  return all;
}

MaskRcnn::MaskRcnn(const MaskRcnnConfig& c, Rng rng)
    : config(same_channels(c)),
      backbone(c.backbone, rng.fork(1)),
      neck(c.backbone.embed_dims, c.rpn.channels, rng),
      rpn_head(config.rpn, rng),
      roi_head{BoxHead(config.roi, rng), std::nullopt} {
  if (c.with_mask) roi_head.mask_head.emplace(config.roi, rng);
}

MaskRcnnConfig MaskRcnn::same_channels(MaskRcnnConfig c) {
  check_config(c);
  c.roi.channels = c.rpn.channels;
  return c;
}

void MaskRcnn::find_masks(const std::vector<Tensor>& levels, const Frame& frame, i64 image,
                          std::vector<Detection>& found) const {
  const float sx = static_cast<float>(frame.scale_x()), sy = static_cast<float>(frame.scale_y());
  std::vector<Roi> rois;
  for (std::size_t k = 0; k < found.size(); ++k) {
    const Box& b = found[k].box;
    rois.push_back(
        {{b.x1 * sx, b.y1 * sy, b.x2 * sx, b.y2 * sy}, image, static_cast<i64>(k), found[k].label});
  }
  sort_by_level(rois, config.roi.finest);
  const Tensor logits = roi_head.mask_head->forward(
      roi_features(levels, rois, config.roi.mask_size, config.roi.finest));
  const i64 size = logits.dim(1);
  detail::check_mask_size(frame.original_height, frame.original_width);  // threads must not throw
  const std::vector<float> p =
      sigmoid(roi_head.mask_head->of_class(logits, rois)).to_vector<float>();
  parallel_for(static_cast<i64>(rois.size()), 1, [&](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) {
      Detection& d = found[static_cast<std::size_t>(rois[static_cast<std::size_t>(r)].truth)];
      d.mask = paste_mask(p.data() + r * size * size, size, d.box, frame.original_height,
                          frame.original_width, config.roi.mask_threshold);
    }
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
