#pragma once
#include "ppma/core/names_begin.hpp"
// Classifier: any network of this library that classifies, chosen when a program runs. As a module
// it is the network that it holds: the same names of tensors, so the same files of weights.
//
//   Classifier model(classifier_config_by_name("deit_tiny"));
//   load_state_dict(model, read_safetensors("weights.safetensors").tensors);

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <type_traits>
#include <variant>

#include "ppma/models/config_json.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/models/vit.hpp"
#include "ppma/networks/network.hpp"

namespace ppma::inline PPMA_ABI {

/// The configuration of a network that classifies.
using ClassifierConfig = std::variant<PpmaConfig, VitConfig, NetworkConfig>;

/// What config_by_name() knows, deit_tiny, vit_nano (a plain transformer for images of 32 to 64
/// pixels, 0.2 M parameters with ten classes), and network_names(). Error: there is none of that
/// name.
PPMA_API ClassifierConfig classifier_config_by_name(const std::string& name);

/// As config_to_json(); that of a plain transformer has "network": "vit", that of a network of
/// another paper its row of the table, "network": "mambaout".
PPMA_API nlohmann::ordered_json classifier_config_to_json(const ClassifierConfig& c);

/// From that, as config_from_text(). "model" names a configuration to start from here too.
PPMA_API ClassifierConfig classifier_config_from_text(const std::string& json,
                                                      const std::string& where);

struct Classifier {
  std::variant<Ppma, Vit, Network> network;

  /// Errors: as those of the networks.
  PPMA_API explicit Classifier(const ClassifierConfig& c, u64 seed = 0);

  /// Its configuration.
  PPMA_API ClassifierConfig config() const;
  /// Path of the last linear layer, which tells the classes apart: "head".
  PPMA_API std::string head() const;
  /// Images (B,3,H,W) -> logits (B,classes). A plain transformer takes one size of images.
  Tensor forward(const Tensor& images, Context& ctx) const {
    return std::visit([&](const auto& n) { return n.forward(images, ctx); }, network);
  }
  /// In evaluation mode, without recording.
  Tensor forward(const Tensor& images) const {
    return std::visit([&](const auto& n) { return n.forward(images); }, network);
  }
  template <class V>
  void fields(V& v) {
    std::visit([&](auto& n) { n.fields(v); }, network);
  }
};

/// Of a configuration, as Classifier::head().
PPMA_API std::string head_of(const ClassifierConfig& c);

/// As of the network (models/fold.hpp). A plain transformer stays as it is.
PPMA_API void prepare_for_inference(Classifier& model, DType dtype);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include <nlohmann/json.hpp>

#include "ppma/models/fold.hpp"
#include "ppma/networks/networks.hpp"

namespace ppma::inline PPMA_ABI {

ClassifierConfig classifier_config_by_name(const std::string& name) {
  if (name == "deit_tiny") return deit_tiny();
  if (name == "vit_nano") {
    VitConfig c;
    c.name = name, c.image_size = 48, c.patch_size = 4;
    c.width = 64, c.depth = 4, c.heads = 2, c.num_classes = 10;
    return c;
  }
  if (const auto other = network_config_by_name(name)) return *other;
  try {
    return config_by_name(name);
  } catch (const Error& e) {
    std::string list;
    for (const std::string& other : network_names()) list += ", " + other;
    throw Error(str(e.what(), "; and deit_tiny, vit_nano", list));
  }
}

nlohmann::ordered_json classifier_config_to_json(const ClassifierConfig& c) {
  if (const auto* ppma = std::get_if<PpmaConfig>(&c)) return config_to_json(*ppma);
  nlohmann::ordered_json j;
  if (const auto* network = std::get_if<NetworkConfig>(&c)) {
    write_json_fields(*network, j);
    if (network->heads.empty()) j.erase("heads");
    return j;
  }
  j["network"] = "vit";
  write_json_fields(std::get<VitConfig>(c), j);
  return j;
}

namespace detail {

// `c` with what the object says. Errors: as of config_from_json().
template <class Json, class Config>
Config with_json(const Json& j, const std::string& where, Config c) {
  check_json_keys(j, where, c, {"model", "network"});
  read_json_fields(j, where, c);
  try {
    check_config(c);
  } catch (const Error& e) {
    throw Error(str(where, ": ", e.what()));
  }
  return c;
}

}  // namespace detail

ClassifierConfig classifier_config_from_text(const std::string& json, const std::string& where) {
  const auto j = nlohmann::json::parse(json, nullptr, false);
  const auto text = [&](const char* key) {
    const bool is_there = j.is_object() && j.contains(key) && j[key].is_string();
    return is_there ? j[key].template get<std::string>() : std::string();
  };
  const std::string model = text("model");
  std::string kind;
  if (j.is_object() && j.contains("network")) {
    read_json_value(j["network"], where, "network", kind);
    std::string others;
    bool is_known = kind == "vit";
    for (const NetworkKind& other : networks()) {
      is_known = is_known || kind == other.name;
      others += str(", ", other.name);
    }
    check(is_known, where, ": there is no network \"", kind, "\"; it may be vit", others);
  }
  if (model == "deit_tiny" || model == "vit_nano")
    return detail::with_json(j, where, std::get<VitConfig>(classifier_config_by_name(model)));
  if (const auto known = network_config_by_name(model)) return detail::with_json(j, where, *known);
  if (kind.empty()) return config_from_text(json, where);
  check(model.empty(), where, ": there is no model \"", model, "\" of network ", kind);
  if (kind == "vit") return detail::with_json(j, where, VitConfig());
  NetworkConfig c = network_of(kind).configs.at(0);
  c.name = "custom";
  return detail::with_json(j, where, c);
}

Classifier::Classifier(const ClassifierConfig& c, u64 seed)
    : network(std::visit(
          [&](const auto& config) -> std::variant<Ppma, Vit, Network> {
            using Config = std::remove_cvref_t<decltype(config)>;
            if constexpr (std::is_same_v<Config, VitConfig>)
              return Vit(config, seed);
            else if constexpr (std::is_same_v<Config, NetworkConfig>)
              return Network(config, seed);
            else
              return Ppma(config, seed);
          },
          c)) {}

ClassifierConfig Classifier::config() const {
  return std::visit([](const auto& n) -> ClassifierConfig { return n.config; }, network);
}

std::string Classifier::head() const { return head_of(config()); }

std::string head_of(const ClassifierConfig& c) {
  const auto* other = std::get_if<NetworkConfig>(&c);
  return other == nullptr ? "head" : network_of(other->network).head;
}

void prepare_for_inference(Classifier& model, DType dtype) {
  if (auto* ppma = std::get_if<Ppma>(&model.network)) prepare_for_inference(*ppma, dtype);
  if (auto* other = std::get_if<Network>(&model.network)) prepare_for_inference(*other, dtype);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
