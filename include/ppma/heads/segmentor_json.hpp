#pragma once
#include "ppma/core/names_begin.hpp"
// The configurations of the segmentation networks as JSON: {"head": "upernet", "backbone": {...},
// "num_classes": 150, ...}.
// An unknown key is an error. Which head is in "head", upernet where it is not said.

#include <string>

#include "ppma/heads/segmentation_heads.hpp"
#include "ppma/heads/segmentor.hpp"
#include "ppma/io/json_fields.hpp"
#include "ppma/models/config_json.hpp"

namespace ppma::inline PPMA_ABI {

/// Json: nlohmann::ordered_json, which the caller includes.
template <class Head, class Json = nlohmann::ordered_json>
Json segmentor_to_json(const SegmentorConfig<Head>& c) {
  Json j;
  j["head"] = Head::name;
  j["backbone"] = config_to_json(c.backbone);
  write_json_fields(c, j);
  return j;
}

/// The head that an object names. Errors: another kind of value, another name.
template <class Json>
std::string head_of(const Json& j) {
  detail::check_object(j, "config");
  std::string name = SegmentationHeads::names().front();
  if (const auto it = j.find("head"); it != j.end()) read_json_value(*it, "config", "head", name);
  with_segmentation_head(name, [&]<class Head>() { name = Head::name; });
  return name;
}

/// Sets what an object says and leaves the rest of `c`; a dropout_ratio alone is an auxiliary
/// head's too. Errors: another head, an unknown key, a value of the wrong kind.
template <class Head, class Json>
SegmentorConfig<Head> segmentor_from_json(const Json& j, SegmentorConfig<Head> c = {}) {
  const std::string head = head_of(j);
  check(head == Head::name, "config: describes the head ", head, ", not ", Head::name);
  check_json_keys(j, "config", c, {"head", "backbone"});
  if (j.contains("backbone")) c.backbone = config_from_json(j["backbone"], c.backbone);
  read_json_fields(j, "config", c);
  if constexpr (requires { c.head.auxiliary_dropout_ratio; })
    if (j.contains("dropout_ratio") && !j.contains("auxiliary_dropout_ratio"))
      c.head.auxiliary_dropout_ratio = c.head.dropout_ratio;
  return c;
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
