#pragma once
// SegmentorConfig as JSON: {"backbone": {...}, "num_classes": 150, "channels": 512, ...}. An unknown key is an error.

#include "ppma/heads/segmentor.hpp"
#include "ppma/models/config_json.hpp"

namespace ppma::inline PPMA_ABI {

/// Calls f(key, value) for everything but the backbone.
template <class Config, class F>
void each_segmentor_value(Config& c, F f) {
  f("num_classes", c.decode.num_classes), f("channels", c.decode.channels), f("pool_scales", c.decode.pool_scales);
  f("dropout_ratio", c.decode.dropout_ratio), f("auxiliary_channels", c.auxiliary.channels), f("auxiliary_weight", c.auxiliary_weight);
}

inline nlohmann::ordered_json segmentor_to_json(const SegmentorConfig& c) {
  nlohmann::ordered_json j;
  j["backbone"] = config_to_json(c.backbone);
  each_segmentor_value(c, [&](const char* key, const auto& value) { j[key] = value; });
  return j;
}

/// Sets what an object says and leaves the rest of `c`. Errors: an unknown key, a value of the wrong kind.
template <class Json>
SegmentorConfig segmentor_from_json(const Json& j, SegmentorConfig c = {}) {
  check(j.is_object(), "config: must be a JSON object, got ", j.dump());
  for (const auto& item : j.items()) {
    bool known = item.key() == "backbone";
    if (known) c.backbone = config_from_json(item.value(), c.backbone);
    each_segmentor_value(c, [&](const char* key, auto& value) {
      if (item.key() != key) return;
      known = true;
      detail::read_config_value(item.value(), item.key(), value);
    });
    check(known, "config: unknown key \"", item.key(), "\"");
  }
  c.auxiliary.num_classes = c.decode.num_classes, c.auxiliary.dropout_ratio = c.decode.dropout_ratio;
  return c;
}

/// A small relative of the published network for a CPU: ours.
inline SegmentorConfig segmentor_nano(i64 classes) {
  SegmentorConfig c;
  c.backbone = ppma_nano();
  c.backbone.chunkwise_recurrents = {true, true, false, false};
  c.decode.channels = 64, c.decode.num_classes = classes;
  c.auxiliary.channels = 32, c.auxiliary.num_classes = classes;
  return c;
}

}  // namespace ppma::inline PPMA_ABI
