#pragma once
// What `run` and `bench` take with --task: the published segmentor or detector on any backbone, and its weights by their
// OpenMMLab names.

#include "common.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/heads/segmentor_json.hpp"

namespace tool {

inline void add_task(CLI::App& app, std::string& task) {
  app.add_option("--task", task, "classify; segment: UperNet; detect: Mask R-CNN. With the last two --config and --weights are those of the whole network")
      ->check(CLI::IsMember({"classify", "segment", "detect"}))->capture_default_str();
}

inline SegmentorConfig dense_from_json(const Json& j, const Segmentor*) { return segmentor_from_json(j); }
inline MaskRcnnConfig dense_from_json(const Json& j, const MaskRcnn*) { return detector_from_json(j); }

/// The network of --config, or the published heads on the backbone --model; with --weights or random ones; where it computes.
template <class Model>
Model dense_network(const NetworkOptions& o, const Placement& at, bool inference) {
  decltype(Model::config) config;
  if (!o.config.empty()) config = dense_from_json(parse_json(read_text(o.config), o.config), static_cast<const Model*>(nullptr));
  if (!o.model.empty()) config.backbone = config_by_name(o.model);
  if (!o.mask.empty()) config.backbone.mask = parse_mask_kind(o.mask);
  Model model(config);
  if (!o.weights.empty())
    load_state_dict(model, is_safetensors(o.weights) ? read_safetensors(o.weights).tensors : load_weights(o.weights, {.entry = o.entry, .strip = {"module."}}));
  to(model, accumulator_dtype(at.dtype));
  to(model, at.device);
  if (inference && at.device == Device::cuda) prepare_for_inference(model.backbone, at.dtype);
  return model;
}

}  // namespace tool
