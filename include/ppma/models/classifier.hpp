#pragma once
#include "ppma/core/names_begin.hpp"
// Classifier: any network of this library that classifies, chosen when a program runs. As a module
// it is the network that it holds: the same names of tensors, so the same files of weights.
//
//   Classifier model(classifier_config_by_name("deit_tiny"));
//   load_state_dict(model, read_safetensors("weights.safetensors").tensors);

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>

#include "ppma/models/config_json.hpp"
#include "ppma/models/ppma.hpp"
#include "ppma/models/vit.hpp"

namespace ppma::inline PPMA_ABI {

/// The configuration of a network that classifies.
using ClassifierConfig = std::variant<PpmaConfig, VitConfig>;

/// What config_by_name() knows, deit_tiny, and vit_nano: a plain transformer for images of 32 to 64
/// pixels, 0.2 M parameters with ten classes. Error: there is none of that name.
PPMA_API ClassifierConfig classifier_config_by_name(const std::string& name);

/// As config_to_json(); that of a plain transformer has "network": "vit".
PPMA_API nlohmann::ordered_json classifier_config_to_json(const ClassifierConfig& c);

/// From that, as config_from_text(). "model" names a configuration to start from here too.
PPMA_API ClassifierConfig classifier_config_from_text(const std::string& json,
                                                      const std::string& where);

struct Classifier {
  std::variant<Ppma, Vit> network;

  /// Errors: as those of the networks.
  PPMA_API explicit Classifier(const ClassifierConfig& c, u64 seed = 0);

  /// Its configuration.
  PPMA_API ClassifierConfig config() const;
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

/// As of the network (models/fold.hpp). A plain transformer stays as it is.
PPMA_API void prepare_for_inference(Classifier& model, DType dtype);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include <nlohmann/json.hpp>

#include "ppma/models/fold.hpp"

namespace ppma::inline PPMA_ABI {

ClassifierConfig classifier_config_by_name(const std::string& name) {
  if (name == "deit_tiny") return deit_tiny();
  if (name == "vit_nano") {
    VitConfig c;
    c.name = name, c.image_size = 48, c.patch_size = 4;
    c.width = 64, c.depth = 4, c.heads = 2, c.num_classes = 10;
    return c;
  }
  try {
    return config_by_name(name);
  } catch (const Error& e) {
    throw Error(str(e.what(), "; and deit_tiny, vit_nano"));
  }
}

nlohmann::ordered_json classifier_config_to_json(const ClassifierConfig& c) {
  if (const auto* ppma = std::get_if<PpmaConfig>(&c)) return config_to_json(*ppma);
  nlohmann::ordered_json j{{"network", "vit"}};
  write_json_fields(std::get<VitConfig>(c), j);
  return j;
}

ClassifierConfig classifier_config_from_text(const std::string& json, const std::string& where) {
  const auto j = nlohmann::json::parse(json, nullptr, false);
  const bool is_object = j.is_object();
  std::string kind;
  VitConfig c;
  if (is_object && j.contains("model") && j["model"].is_string()) {
    const std::string name = j["model"];
    if (name == "deit_tiny" || name == "vit_nano")
      kind = "vit", c = std::get<VitConfig>(classifier_config_by_name(name));
  }
  if (is_object && j.contains("network")) {
    read_json_value(j["network"], where, "network", kind);
    check(kind == "vit", where, ": there is no network \"", kind, "\"; it may be vit");
  }
  if (kind.empty()) return config_from_text(json, where);
  check_json_keys(j, where, c, {"model", "network"});
  read_json_fields(j, where, c);
  try {
    check_config(c);
  } catch (const Error& e) {
    throw Error(str(where, ": ", e.what()));
  }
  return c;
}

Classifier::Classifier(const ClassifierConfig& c, u64 seed)
    : network(std::visit(
          [&](const auto& config) -> std::variant<Ppma, Vit> {
            if constexpr (std::is_same_v<decltype(config), const VitConfig&>)
              return Vit(config, seed);
            else
              return Ppma(config, seed);
          },
          c)) {}

ClassifierConfig Classifier::config() const {
  return std::visit([](const auto& n) -> ClassifierConfig { return n.config; }, network);
}

void prepare_for_inference(Classifier& model, DType dtype) {
  if (auto* ppma = std::get_if<Ppma>(&model.network)) prepare_for_inference(*ppma, dtype);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
