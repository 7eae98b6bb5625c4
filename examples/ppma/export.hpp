#pragma once
// ppma export: a network as a file for other runtimes.

#include <memory>

#include "dense_network.hpp"
#include "ppma/heads/onnx.hpp"
#include "ppma/heads/onnx_detector.hpp"
#include "ppma/models/vit.hpp"

namespace tool {

struct ExportOptions {
  NetworkOptions network;
  std::string task = "classify", format = "onnx", out;
  std::vector<i64> size;  // none: what the weights say

  /// Height and width of the images, where the weights say `side` pixels.
  std::pair<i64, i64> images(i64 side) const {
    return size.empty() ? std::pair{side, side} : std::pair{size.front(), size.back()};
  }
};

/// What the file says about the network in its metadata: the input's entries as the weights have
/// them, in JSON, the task, and the network's configuration.
inline std::map<std::string, std::string> export_metadata(const ExportOptions& o,
                                                          const InputInfo& input,
                                                          const std::string& what,
                                                          const std::string& config) {
  std::map<std::string, std::string> all{{"task", o.task}, {what, config}};
  const Json entries = input.to_json();
  for (const auto& [key, value] : entries.items())
    if (key != "classes" || !input.classes.empty()) all[key] = value.dump();
  return all;
}

/// Writes the graph, and says what was written.
inline void write_export(const ExportOptions& o, const OnnxGraph& graph, const std::string& name,
                         const std::map<std::string, std::string>& metadata,
                         const std::string& ends) {
  if (o.network.weights.empty()) note("no --weights: the weights of this network are random");
  save_onnx(o.out, graph, metadata);
  std::printf("%s: %s, %s; ONNX, opset %lld, %.1f MiB\n", shown_name(o.out).c_str(),
              shown(name).c_str(), ends.c_str(), static_cast<long long>(OnnxGraph::opset),
              mib(static_cast<i64>(size_of_file(o.out))));
}

/// "images (batch,3,224,224) -> logits (batch,1000)"
inline std::string ends_of_classifier(std::pair<i64, i64> images, i64 classes) {
  return str("images (batch,3,", images.first, ",", images.second, ") -> logits (batch,", classes,
             ")");
}

inline void export_classifier(const ExportOptions& o) {
  // Weights say themselves what they are, or --model does.
  const char* const fallback = o.network.weights.empty() ? "ppma_tiny" : nullptr;
  const LoadedNetwork<Classifier> network =
      load_classifier(o.network, read_weights(o.network, notes()), fallback);
  InputInfo input = network.input;
  if (const auto* vit = std::get_if<Vit>(&network.model.network))
    input.size = vit->config.image_size;
  const auto images = o.images(input.size);
  const ClassifierConfig config = network.model.config();
  const auto [name, classes] =
      std::visit([](const auto& c) { return std::pair(c.name, c.num_classes); }, config);
  OnnxGraph graph(name);
  export_onnx(network.model, graph, images.first, images.second);
  write_export(o, graph, name,
               export_metadata(o, input, "config", classifier_config_to_json(config).dump()),
               ends_of_classifier(images, classes));
}

/// A segmentor or a detector; ends_of(config, images) says what goes in and comes out.
template <class Model, class Ends>
void export_dense(const ExportOptions& o, const WeightsOfFile& file, const std::string& name,
                  const char* what, const Ends& ends_of) {
  const auto model = dense_network<Model>(o.network, file, Placement{}, false, [](const auto&) {});
  InputInfo input = InputInfo::dense({}, 512, 512, Normalization{});
  if (const auto said = InputInfo::of(file.metadata, o.network.weights)) input = *said;
  const auto images = o.images(input.shorter);
  OnnxGraph graph(name);
  export_onnx(model, graph, images.first, images.second);
  const auto config = [&] {
    if constexpr (std::is_same_v<Model, MaskRcnn>)
      return detector_to_json(model.config);
    else
      return segmentor_to_json(model.config);
  }();
  write_export(o, graph, name + " on " + model.config.backbone.name,
               export_metadata(o, input, what, config.dump()), ends_of(model.config, images));
}

inline void export_network(const ExportOptions& o) {
  const auto sides = [](std::pair<i64, i64> images) {
    return str(images.first, ",", images.second, ")");
  };
  if (o.task == "segment")
    return with_segmentor(o.network, notes(), [&]<class Head>(const WeightsOfFile& file) {
      export_dense<Segmentor<Head>>(
          o, file, Head::title, "segmentor", [&](const auto& c, std::pair<i64, i64> images) {
            return str("images (batch,3,", sides(images), " -> logits (batch,", classes_of(c), ",",
                       sides(images));
          });
    });
  if (o.task == "detect")
    return export_dense<MaskRcnn>(
        o, dense_weights(o.network, notes()), "Mask R-CNN", "detector",
        [&](const MaskRcnnConfig& c, std::pair<i64, i64> images) {
          return str("images (1,3,", sides(images),
                     " -> boxes (objects,4), scores (objects), labels (objects)",
                     c.with_mask ? ", masks (objects," : "",
                     c.with_mask ? str(2 * c.roi.mask_size, ",", 2 * c.roi.mask_size, ")") : "");
        });
  export_classifier(o);
}

inline void add_export(CLI::App& app) {
  auto o = std::make_shared<ExportOptions>();
  auto* c = app.add_subcommand("export", "Writes a network as a file for other runtimes");
  add_network(*c, o->network);
  c->get_option("--model")->description(c->get_option("--model")->get_description() +
                                        " [ppma_tiny]");
  add_task(*c, o->task, o->network, "classify, segment or detect (one image at a time). ");
  c->add_option("--format", o->format, "of the file: onnx, of opset 18")
      ->check(CLI::IsMember({"onnx"}))
      ->capture_default_str();
  c->add_option("--size", o->size,
                "height and width of the images, one number where they are equal; default: what "
                "the weights say (segment, detect: their shorter side), else 224 or 512")
      ->check(in_range(least_size, most_size))
      ->expected(1, 2);
  c->add_option("--out", o->out, "the file to write")->required()->check(some_text());
  c->callback([o, c] {
    refuse_others(*c, o->task);
    export_network(*o);
  });
}

}  // namespace tool
