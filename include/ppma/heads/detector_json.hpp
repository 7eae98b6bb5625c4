#pragma once
#include "ppma/core/names_begin.hpp"
// MaskRcnnConfig as JSON: {"backbone": {...}, "num_classes": 80, "with_mask": true, ...}; every
// number of recipes 3.1 and 3.2 has a key. An unknown key is an error.

#include <nlohmann/json_fwd.hpp>

#include "ppma/heads/mask_rcnn.hpp"
#include "ppma/io/json_fields.hpp"
#include "ppma/models/config_json.hpp"

namespace ppma::inline PPMA_ABI {

/// Every value, as detector_from_json() reads it.
PPMA_API nlohmann::ordered_json detector_to_json(const MaskRcnnConfig& c);

/// Sets what an object says and leaves the rest of `c`. Errors: an unknown key, a value of the
/// wrong kind.
template <class Json>
MaskRcnnConfig detector_from_json(const Json& j, MaskRcnnConfig c = {}) {
  check_json_keys(j, "config", c, {"backbone"});
  if (j.contains("backbone")) c.backbone = config_from_json(j["backbone"], c.backbone);
  read_json_fields(j, "config", c);
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
  write_json_fields(c, j);
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
