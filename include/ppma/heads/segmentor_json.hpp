#pragma once
#include "ppma/core/names_begin.hpp"
// The configurations of the segmentation networks as JSON: {"head": "upernet", "backbone": {...},
// "num_classes": 150, ...}.
// An unknown key is an error. Which head is in "head", upernet where it is not said.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <type_traits>

#include "ppma/heads/segmentor.hpp"
#include "ppma/heads/semantic_fpn.hpp"
#include "ppma/models/config_json.hpp"
#include "ppma/ops/arithmetic.hpp"

namespace ppma::inline PPMA_ABI {

PPMA_API const char* head_name(const SegmentorConfig&);
PPMA_API const char* head_name(const SemanticFpnConfig&);

/// Calls f(key, value) for everything but head and backbone.
template <class Config, class F>
void each_segmentor_value(Config& c, F f) {
  if constexpr (std::is_same_v<std::remove_const_t<Config>, SemanticFpnConfig>) {
    f("num_classes", c.num_classes), f("channels", c.channels),
        f("pyramid_channels", c.pyramid_channels), f("dropout_ratio", c.dropout_ratio);
    f("ignore_index", c.ignore_index);
  } else {
    f("num_classes", c.decode.num_classes), f("channels", c.decode.channels),
        f("pool_scales", c.decode.pool_scales);
    f("dropout_ratio", c.decode.dropout_ratio), f("auxiliary_channels", c.auxiliary.channels),
        f("auxiliary_dropout_ratio", c.auxiliary.dropout_ratio);
    f("decode_weight", c.decode_weight), f("auxiliary_weight", c.auxiliary_weight),
        f("ignore_index", c.ignore_index);
  }
}

PPMA_API nlohmann::ordered_json segmentor_to_json(const SegmentorConfig& c);
PPMA_API nlohmann::ordered_json segmentor_to_json(const SemanticFpnConfig& c);

/// The head that an object names. Errors: another kind of value, another name.
template <class Json>
std::string head_of(const Json& j) {
  check(j.is_object(), "config: must be a JSON object, got ", j.dump());
  std::string name = head_name(SegmentorConfig{});
  if (const auto it = j.find("head"); it != j.end()) detail::read_config_value(*it, "head", name);
  check(name == "upernet" || name == "semantic_fpn", "config: there is no head \"", name,
        "\"; there are upernet and semantic_fpn");
  return name;
}

/// Sets what an object says and leaves the rest of `c`; a dropout_ratio alone is both heads'.
/// Errors: another head, an unknown key, a value of the wrong kind.
template <class Config = SegmentorConfig, class Json>
Config segmentor_from_json(const Json& j, Config c = {}) {
  const std::string head = head_of(j);
  check(head == head_name(c), "config: describes the head ", head, ", not ", head_name(c));
  for (const auto& item : j.items()) {
    bool known = item.key() == "backbone" || item.key() == "head";
    if (item.key() == "backbone") c.backbone = config_from_json(item.value(), c.backbone);
    each_segmentor_value(c, [&](const char* key, auto& value) {
      if (item.key() != key) return;
      known = true;
      detail::read_config_value(item.value(), item.key(), value);
    });
    check(known, "config: unknown key \"", item.key(), "\"");
  }
  if constexpr (std::is_same_v<Config, SegmentorConfig>) {
    c.auxiliary.num_classes = c.decode.num_classes;
    if (j.contains("dropout_ratio") && !j.contains("auxiliary_dropout_ratio"))
      c.auxiliary.dropout_ratio = c.decode.dropout_ratio;
  }
  return c;
}

/// A small relative of the published network for a CPU: ours.
PPMA_API SegmentorConfig segmentor_nano(i64 classes);

/// The same with the light head.
PPMA_API SemanticFpnConfig semantic_fpn_nano(i64 classes);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <nlohmann/json.hpp>

namespace ppma::inline PPMA_ABI {

const char* head_name(const SegmentorConfig&) { return "upernet"; }
const char* head_name(const SemanticFpnConfig&) { return "semantic_fpn"; }

namespace detail {

template <class Config>
nlohmann::ordered_json segmentor_as_json(const Config& c) {
  nlohmann::ordered_json j;
  j["head"] = head_name(c);
  j["backbone"] = config_to_json(c.backbone);
  each_segmentor_value(c, [&](const char* key, const auto& value) { j[key] = value; });
  return j;
}

}  // namespace detail

nlohmann::ordered_json segmentor_to_json(const SegmentorConfig& c) {
  return detail::segmentor_as_json(c);
}
nlohmann::ordered_json segmentor_to_json(const SemanticFpnConfig& c) {
  return detail::segmentor_as_json(c);
}

SegmentorConfig segmentor_nano(i64 classes) {
  SegmentorConfig c;
  c.backbone = ppma_nano();
  c.backbone.chunkwise_recurrents = {true, true, false, false};
  c.decode.channels = 64, c.decode.num_classes = classes;
  c.auxiliary.channels = 32, c.auxiliary.num_classes = classes;
  return c;
}

SemanticFpnConfig semantic_fpn_nano(i64 classes) {
  SemanticFpnConfig c;
  c.backbone = segmentor_nano(classes).backbone;
  c.pyramid_channels = 64, c.channels = 64, c.num_classes = classes;
  return c;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
