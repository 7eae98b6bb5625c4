#pragma once
#include "ppma/core/names_begin.hpp"
// A network as a file for other runtimes: ONNX.

#include <string>
#include <utility>
#include <vector>

#include "ppma/commands/network.hpp"

namespace ppma::inline PPMA_ABI {

/// Which network, and where it is written.
struct ExportOptions {
  NetworkOptions network;         // weights say themselves what they are; without: ppma_tiny
  std::string task = "classify";  // segment, detect
  std::string out;                // the file
  std::vector<i64> size{};        // of the images, height and width, or both in one; none: what the
                                  // weights say, else 224 or 512
};

/// What was written.
struct ExportedNetwork {
  std::string path, name;  // the file; "ppma_nano", "UperNet on ppma_nano"
  std::string ends;        // "images (batch,3,224,224) -> logits (batch,1000)"
  i64 opset = 0, bytes = 0;
};

/// Writes it; the input's entries as the weights have them, task and configuration go into the
/// file's metadata. Without weights they are random, which is noted. Errors: another task; what
/// weights and graph refuse.
PPMA_API ExportedNetwork export_network(const ExportOptions& o, Observer& observer = nobody());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <map>
#include <optional>
#include <type_traits>

#include "ppma/commands/dense_network.hpp"
#include "ppma/heads/onnx.hpp"
#include "ppma/heads/onnx_detector.hpp"
#include "ppma/io/file.hpp"
#include "ppma/models/onnx.hpp"
#include "ppma/models/vit.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

using Sides = std::pair<i64, i64>;  // height and width

/// Those of the images, where the weights say `side` pixels.
inline Sides export_sides(const ExportOptions& o, i64 side) {
  return o.size.empty() ? Sides{side, side} : Sides{o.size.front(), o.size.back()};
}

inline std::string sides_text(const Sides& s) { return str(s.first, ",", s.second, ")"); }

/// Writes the graph, whose metadata are the input's entries as the weights have them, in JSON, the
/// task, and the network's configuration under `what`.
inline ExportedNetwork write_export(const ExportOptions& o, const OnnxGraph& graph,
                                    std::string name, std::string ends, const InputInfo& input,
                                    const char* what, const Json& config, Observer& observer) {
  if (o.network.weights.empty())
    observer.note("no `weights`: the weights of this network are random");
  std::map<std::string, std::string> metadata{{"task", o.task}, {what, config.dump()}};
  const Json entries = input.to_json();
  for (const auto& [key, value] : entries.items())
    if (key != "classes" || !input.classes.empty()) metadata[key] = value.dump();
  save_onnx(o.out, graph, metadata);
  return {o.out, std::move(name), std::move(ends), OnnxGraph::opset,
          static_cast<i64>(size_of_file(o.out))};
}

inline ExportedNetwork export_classifier(const ExportOptions& o, Observer& observer) {
  // Weights say themselves what they are, or the model's name does.
  const char* const fallback = o.network.weights.empty() ? "ppma_tiny" : nullptr;
  const LoadedNetwork<ppma::Classifier> network =
      load_classifier(o.network, read_weights(o.network, observer), fallback);
  InputInfo input = network.input;
  if (const auto* vit = std::get_if<Vit>(&network.model.network))
    input.size = vit->config.image_size;
  const Sides images = export_sides(o, input.size);
  const ClassifierConfig config = network.model.config();
  const std::string name = std::visit([](const auto& c) { return c.name; }, config);
  OnnxGraph graph(name);
  export_onnx(network.model, graph, images.first, images.second);
  return write_export(
      o, graph, name,
      str("images (batch,3,", sides_text(images), " -> logits (batch,", classes_of(config), ")"),
      input, "config", classifier_config_to_json(config), observer);
}

/// A segmentor or a detector; ends_of(config, images) says what goes in and comes out.
template <class Model, class Ends>
ExportedNetwork export_dense(const ExportOptions& o, const WeightsOfFile& file,
                             const std::string& title, Observer& observer, const Ends& ends_of) {
  const auto model = dense_network<Model>(o.network, file, Placement{}, false, [](const auto&) {});
  InputInfo input = InputInfo::dense({}, 512, 512, Normalization{});
  if (const auto said = InputInfo::of(file.metadata, o.network.weights)) input = *said;
  const Sides images = export_sides(o, input.shorter);
  OnnxGraph graph(title);
  export_onnx(model, graph, images.first, images.second);
  constexpr bool detects = std::is_same_v<Model, MaskRcnn>;
  const Json config = [&] {
    if constexpr (detects)
      return detector_to_json(model.config);
    else
      return segmentor_to_json(model.config);
  }();
  return write_export(o, graph, title + " on " + model.config.backbone.name,
                      ends_of(model.config, images), input, detects ? "detector" : "segmentor",
                      config, observer);
}

}  // namespace detail

ExportedNetwork export_network(const ExportOptions& o, Observer& observer) {
  using detail::Sides, detail::sides_text;
  check(!o.out.empty(), "export: needs `out`, the file to write");
  if (o.task == "classify") return detail::export_classifier(o, observer);
  if (o.task == "detect")
    return detail::export_dense<MaskRcnn>(
        o, dense_weights(o.network, observer), "Mask R-CNN", observer,
        [&](const MaskRcnnConfig& c, const Sides& images) {
          return str("images (1,3,", sides_text(images),
                     " -> boxes (objects,4), scores (objects), labels (objects)",
                     c.with_mask ? ", masks (objects," : "",
                     c.with_mask ? str(2 * c.roi.mask_size, ",", 2 * c.roi.mask_size, ")") : "");
        });
  check(o.task == "segment", "`task` ", o.task, ": must be classify, segment or detect");
  ExportedNetwork exported;
  with_segmentor(o.network, observer, [&]<class Head>(const WeightsOfFile& file) {
    exported = detail::export_dense<Segmentor<Head>>(
        o, file, Head::title, observer, [&](const auto& c, const Sides& images) {
          return str("images (batch,3,", sides_text(images), " -> logits (batch,", classes_of(c),
                     ",", sides_text(images));
        });
  });
  return exported;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
