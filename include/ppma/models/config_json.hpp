#pragma once
#include "ppma/core/names_begin.hpp"
// PpmaConfig as JSON, with the keys of the published configuration files:
//
//   {"embed_dims": [64, 128, 256, 512], "depths": [2, 2, 8, 2], "num_heads": [4, 4, 8, 16],
//   "mlp_ratios": [3, 3, 3, 3],
//    "chunkwise_recurrents": [true, true, false, false], "layerscales": [false, false, false,
//    false],
//    "layer_init_values": 1e-06, "projection": 1024, "num_classes": 1000, "drop_path_rate": 0.1}
//
// "model" names a configuration to start from, {"model": "ppma_tiny", "num_classes": 10}; "mask"
// chooses the ablation, "mixers" a token mixer for each stage: ["window", "window",
// "polyline_whole", "polyline_whole"].

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "ppma/io/json_fields.hpp"
#include "ppma/models/config.hpp"

namespace ppma::inline PPMA_ABI {

/// Every value, as config_from_json() reads it; of those that are ours alone, what is not usual.
PPMA_API nlohmann::ordered_json config_to_json(const PpmaConfig& c);

/// A mask's name in JSON.
inline void from_text(const std::string& text, MaskKind& kind) { kind = parse_mask_kind(text); }

/// Sets what an object says and leaves the rest of `c`. Errors: an unknown key (so that a misspelt
/// one is no silent default), a value of the wrong kind, a configuration that makes no network.
template <class Json>
PpmaConfig config_from_json(const Json& j, PpmaConfig c = {}) {
  check_json_keys(j, "config", c, {"model"});
  if (std::string name; j.contains("model")) {
    read_json_value(j["model"], "config", "model", name);
    c = config_by_name(name);
  }
  read_json_fields(j, "config", c);
  for (std::size_t s = 0; s < 4; ++s) set_mixer(c, s, std::string(c.mixers[s]));
  check_config(c);
  return c;
}

/// The same from text; `where` is named in errors.
PPMA_API PpmaConfig config_from_text(const std::string& json, const std::string& where);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include <nlohmann/json.hpp>

namespace ppma::inline PPMA_ABI {

nlohmann::ordered_json config_to_json(const PpmaConfig& c) {
  nlohmann::ordered_json j, usual;
  write_json_fields(c, j), write_json_fields(PpmaConfig{}, usual);
  for (const char* ours : {"fused", "lepe", "rotary", "depthwise", "linear", "mixers"})
    if (j[ours] == usual[ours]) j.erase(ours);
  return j;
}

PpmaConfig config_from_text(const std::string& json, const std::string& where) {
  const auto j = nlohmann::json::parse(json, nullptr, false);
  check(!j.is_discarded(), where, ": is not JSON");
  try {
    return config_from_json(j);
  } catch (const Error& e) {
    throw Error(str(where, ": ", e.what()));
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
