#pragma once
#include "ppma/core/names_begin.hpp"
// MaskRcnnConfig as JSON: {"backbone": {...}, "num_classes": 80, "with_mask": true, ...}; every
// number of spec 7.1 and 7.2 has a key. An unknown key is an error.

#include <nlohmann/json_fwd.hpp>

#include "ppma/heads/mask_rcnn.hpp"
#include "ppma/models/config_json.hpp"

namespace ppma::inline PPMA_ABI {

/// Calls f(key, value) for everything but the backbone.
template <class Config, class F>
void each_detector_value(Config& c, F f) {
  f("with_mask", c.with_mask), f("num_classes", c.roi.num_classes), f("channels", c.rpn.channels);
  f("anchor_scale", c.rpn.anchor.scale), f("anchor_ratios", c.rpn.anchor.ratios),
      f("anchor_strides", c.rpn.strides);
  f("rpn_stds", c.rpn.coder.stds), f("rpn_wh_ratio_clip", c.rpn.coder.wh_ratio_clip);
  f("rpn_cls_weight", c.rpn.cls_weight), f("rpn_bbox_weight", c.rpn.bbox_weight);
  f("rpn_positive", c.rpn.assign.positive), f("rpn_negative", c.rpn.assign.negative);
  f("rpn_least_positive", c.rpn.assign.least_positive),
      f("rpn_low_quality", c.rpn.assign.low_quality);
  f("rpn_samples", c.rpn.sample.count), f("rpn_positives", c.rpn.sample.positives);
  f("train_candidates", c.rpn.train_candidates), f("test_candidates", c.rpn.test_candidates);
  f("proposals", c.rpn.proposals), f("rpn_nms", c.rpn.nms);
  f("shared_fcs", c.roi.shared_fcs), f("fc_channels", c.roi.fc_channels),
      f("box_size", c.roi.box_size), f("mask_size", c.roi.mask_size),
      f("mask_convs", c.roi.mask_convs);
  f("finest", c.roi.finest), f("roi_positive", c.roi.assign.positive),
      f("roi_negative", c.roi.assign.negative);
  f("roi_least_positive", c.roi.assign.least_positive),
      f("roi_low_quality", c.roi.assign.low_quality);
  f("roi_samples", c.roi.sample.count), f("roi_positives", c.roi.sample.positives);
  f("least_score", c.roi.least_score), f("nms", c.roi.nms), f("detections", c.roi.detections);
  f("roi_stds", c.roi.coder.stds), f("roi_wh_ratio_clip", c.roi.coder.wh_ratio_clip),
      f("mask_threshold", c.roi.mask_threshold);
  f("cls_weight", c.roi.cls_weight), f("bbox_weight", c.roi.bbox_weight),
      f("mask_weight", c.roi.mask_weight);
}

PPMA_API nlohmann::ordered_json detector_to_json(const MaskRcnnConfig& c);

/// Sets what an object says and leaves the rest of `c`. Errors: an unknown key, a value of the
/// wrong kind.
template <class Json>
MaskRcnnConfig detector_from_json(const Json& j, MaskRcnnConfig c = {}) {
  check(j.is_object(), "config: must be a JSON object, got ", j.dump());
  for (const auto& item : j.items()) {
    bool known = item.key() == "backbone";
    if (known) c.backbone = config_from_json(item.value(), c.backbone);
    each_detector_value(c, [&](const char* key, auto& value) {
      if (item.key() != key) return;
      known = true;
      detail::read_config_value(item.value(), item.key(), value);
    });
    check(known, "config: unknown key \"", item.key(), "\"");
  }
  return c;
}

/// The published detector's small relative, for images of 128 to 400 pixels on a CPU: ours.
PPMA_API MaskRcnnConfig mask_rcnn_nano(i64 classes, bool with_mask);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <nlohmann/json.hpp>

namespace ppma::inline PPMA_ABI {

nlohmann::ordered_json detector_to_json(const MaskRcnnConfig& c) {
  nlohmann::ordered_json j;
  j["backbone"] = config_to_json(c.backbone);
  each_detector_value(c, [&](const char* key, const auto& value) { j[key] = value; });
  return j;
}

MaskRcnnConfig mask_rcnn_nano(i64 classes, bool with_mask) {
  MaskRcnnConfig c;
  c.backbone = ppma_nano();
  c.backbone.chunkwise_recurrents = {true, true, false, false};
  c.rpn.channels = 64;
  c.rpn.anchor.scale = 4;
  c.rpn.train_candidates = 400, c.rpn.test_candidates = 300, c.rpn.proposals = 200;
  c.roi.fc_channels = 256, c.roi.num_classes = classes, c.roi.sample.count = 128,
  c.roi.mask_convs = 2, c.roi.finest = 28;
  c.with_mask = with_mask;
  return c;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
