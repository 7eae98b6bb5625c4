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
// chooses the ablation.

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <type_traits>
#include <vector>

#include "ppma/models/config.hpp"

namespace ppma::inline PPMA_ABI {

PPMA_API nlohmann::ordered_json config_to_json(const PpmaConfig& c);

namespace detail {

template <class Json, class T>
void read_config_value(const Json& value, const std::string& key, T& into) {
  if constexpr (std::is_same_v<T, bool>) {
    check(value.is_boolean() || (value.is_number_integer() && (value == 0 || value == 1)),
          "config: ", key, " must be true or false, got ", value.dump());
    into = value.is_boolean() ? value.template get<bool>() : value == 1;
  } else if constexpr (std::is_same_v<T, i64>) {
    check(value.is_number_integer(), "config: ", key, " must be an integer, got ", value.dump());
    into = value.template get<i64>();
    check(!value.is_number_unsigned() || into >= 0, "config: ", key, " is too large, ",
          value.dump());
  } else if constexpr (std::is_same_v<T, double>) {
    check(value.is_number(), "config: ", key, " must be a number, got ", value.dump());
    into = value.template get<double>();
  } else if constexpr (std::is_same_v<T, std::string>) {
    check(value.is_string(), "config: ", key, " must be text, got ", value.dump());
    into = value.template get<std::string>();
  } else {
    // as many entries as there are
    if constexpr (std::is_same_v<T, std::vector<typename T::value_type>>) {
      check(value.is_array() && !value.empty(), "config: ", key, " must be a list, got ",
            value.dump());
      into.resize(value.size());
    } else {  // one entry a stage, and the like
      check(value.is_array() && value.size() == into.size(), "config: ", key, " must be a list of ",
            static_cast<i64>(into.size()), " entries, got ", value.dump());
    }
    for (std::size_t s = 0; s < into.size(); ++s)
      read_config_value(value[s], str(key, "[", s, "]"), into[s]);
  }
}

}  // namespace detail

/// Sets what an object says and leaves the rest of `c`. Errors: an unknown key (so that a misspelt
/// one is no silent default), a value of the wrong kind, a configuration that makes no network.
template <class Json>
PpmaConfig config_from_json(const Json& j, PpmaConfig c = {}) {
  check(j.is_object(), "config: must be a JSON object, got ", j.dump());
  std::string text;
  if (j.contains("model")) {
    detail::read_config_value(j["model"], "model", text);
    c = config_by_name(text);
  }
  for (const auto& item : j.items()) {
    const std::string& key = item.key();
    const auto read = [&](auto& into) { detail::read_config_value(item.value(), key, into); };
    if (key == "model") continue;
    if (key == "name")
      read(c.name);
    else if (key == "embed_dims")
      read(c.embed_dims);
    else if (key == "depths")
      read(c.depths);
    else if (key == "num_heads")
      read(c.num_heads);
    else if (key == "mlp_ratios")
      read(c.mlp_ratios);
    else if (key == "chunkwise_recurrents")
      read(c.chunkwise_recurrents);
    else if (key == "layerscales")
      read(c.layerscales);
    else if (key == "layer_init_values")
      read(c.layer_init_values);
    else if (key == "heads_ranges")
      read(c.heads_ranges);
    else if (key == "projection")
      read(c.projection);
    else if (key == "num_classes")
      read(c.num_classes);
    else if (key == "drop_path_rate")
      read(c.drop_path_rate);
    else if (key == "fused")
      read(c.fused);
    else if (key == "mask")
      read(text), c.mask = parse_mask_kind(text);
    else
      fail("config: unknown key \"", key, "\"");
  }
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
  nlohmann::ordered_json j;
  j["name"] = c.name;
  j["embed_dims"] = c.embed_dims;
  j["depths"] = c.depths;
  j["num_heads"] = c.num_heads;
  j["mlp_ratios"] = c.mlp_ratios;
  j["chunkwise_recurrents"] = c.chunkwise_recurrents;
  j["layerscales"] = c.layerscales;
  j["layer_init_values"] = c.layer_init_values;
  j["heads_ranges"] = c.heads_ranges;
  j["projection"] = c.projection;
  j["num_classes"] = c.num_classes;
  j["drop_path_rate"] = c.drop_path_rate;
  j["mask"] = to_string(c.mask);
  if (!c.fused) j["fused"] = false;
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
