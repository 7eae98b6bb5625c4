#pragma once
#include "ppma/core/names_begin.hpp"
// Which segmentor or detector the options name:
//
//   model                 ppma_nano: small heads for a CPU; any other backbone: the published heads
//   config                the whole network as JSON, such as a run's config.json; else what the
//                         weights file says
//   segmentor, detector   keys on top of that
//   mask                  last

#include <string>
#include <type_traits>
#include <vector>

#include "ppma/commands/dense_memory_needs.hpp"
#include "ppma/commands/network.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/heads/segmentation_heads.hpp"
#include "ppma/heads/segmentor_json.hpp"
#include "ppma/nn/state_dict.hpp"

namespace ppma::inline PPMA_ABI {

/// How many classes it tells apart.
template <class Head>
i64 classes_of(const SegmentorConfig<Head>& c) {
  return c.head.num_classes;
}

inline i64 classes_of(const MaskRcnnConfig& c) { return c.roi.num_classes; }

/// Makes it tell so many apart.
template <class Head>
void set_classes(SegmentorConfig<Head>& c, i64 classes) {
  c.head.num_classes = classes;
}

inline void set_classes(MaskRcnnConfig& c, i64 classes) { c.roi.num_classes = classes; }

/// A JSON object about a network, and where it stands.
struct NetworkDescription {
  Json json;
  std::string where;
};

/// What describes the network beside `model`, in the order in which it is read.
PPMA_API std::vector<NetworkDescription> descriptions(const NetworkOptions& o,
                                                      const std::string& task,
                                                      const WeightsOfFile& weights = {});

/// The head of a segmentor that they name: the last one counts.
PPMA_API std::string head_in(const std::vector<NetworkDescription>& all);

namespace detail {

template <class Head>
void small_network(SegmentorConfig<Head>& c) {
  c = segmentor_nano<Head>(150);
}

inline void small_network(MaskRcnnConfig& c) { c = mask_rcnn_nano(80, true); }

/// What a description says, on top of `c`.
template <class Head>
SegmentorConfig<Head> read_description(Json j, const SegmentorConfig<Head>& c) {
  if (j.is_object() && !j.contains("head")) j["head"] = Head::name;
  return segmentor_from_json(j, c);
}

inline MaskRcnnConfig read_description(const Json& j, const MaskRcnnConfig& c) {
  return detector_from_json(j, c);
}

}  // namespace detail

/// The network of `model`, `fallback` where it is not given, with what `said` puts on top.
/// `weights`, where there are some, say how many classes they tell apart.
template <class Config>
Config dense_config(const NetworkOptions& o, const char* fallback,
                    const std::vector<NetworkDescription>& said, const TensorMap& weights = {}) {
  constexpr bool detects = std::is_same_v<Config, MaskRcnnConfig>;
  Config c;
  const PpmaConfig named = config_by_name(o.model.empty() ? fallback : o.model);
  if (named.name.ends_with("_nano"))
    detail::small_network(c), c.backbone.name = named.name, c.backbone.mask = named.mask;
  else
    c.backbone = named;
  if (const Tensor* bias =
          find(weights, detects ? "roi_head.bbox_head.fc_cls.bias" : "decode_head.conv_seg.bias");
      bias != nullptr)
    set_classes(c, bias->numel() - (detects ? 1 : 0));  // a detector's last one is the background
  for (const NetworkDescription& d : said)
    naming(d.where, [&] { c = detail::read_description(d.json, c); });
  c.backbone = with_mixers_of(o, c.backbone);
  if (!o.mask.empty()) c.backbone.mask = parse_mask_kind(o.mask);
  return c;
}

/// Error: this machine has no memory for the network's weights alone.
template <class Config>
void require_weights(const Config& c, const std::string& task) {
  NetworkPass work{c.backbone, 0, least_size, least_size};
  work.head = head_needs(c, least_size, least_size);
  require_memory(work, "`size`", network_options(task));
}

/// Those of a whole network, whose backbone has a prefix.
inline WeightsOfFile dense_weights(const NetworkOptions& o, Observer& observer = nobody()) {
  return read_weights(o, observer, {"module.", "_orig_mod."});
}

/// Converts and moves a dense network; for inference its backbone is made ready, and the heads'
/// weights.
template <class Model>
void place_dense(Model& model, const Placement& at, bool inference) {
  to(model, accumulator_dtype(at.dtype));
  to(model, at.device);
  if (!inference) return;
  prepare_for_inference(model.backbone, at.dtype);
  narrow_weights(model, at.dtype), pack_weights(model);
}

/// The network of the options, by default the published one on PPMA-T; with the weights in `file`
/// or random ones; where it computes. `look` sees its configuration before it is made.
template <class Model, class Look>
Model dense_network(const NetworkOptions& o, const WeightsOfFile& file, const Placement& at,
                    bool inference, Look look) {
  const std::string task = std::is_same_v<Model, MaskRcnn> ? "detect" : "segment";
  const auto said = descriptions(o, task, file);
  const auto config = dense_config<decltype(Model::config)>(o, "ppma_tiny", said, file.tensors);
  require_weights(config, task);
  look(config);
  Model model(config);
  if (!o.weights.empty()) load_state_dict(model, file.tensors);
  place_dense(model, at, inference);
  return model;
}

/// Calls f.operator()<Head>(file) with the head of the segmentor that the options and the weights
/// name.
template <class F>
void with_segmentor(const NetworkOptions& o, Observer& observer, F f) {
  const WeightsOfFile file = dense_weights(o, observer);
  with_segmentation_head(head_in(descriptions(o, "segment", file)),
                         [&]<class Head>() { f.template operator()<Head>(file); });
}

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

namespace ppma::inline PPMA_ABI {

std::vector<NetworkDescription> descriptions(const NetworkOptions& o, const std::string& task,
                                             const WeightsOfFile& weights) {
  std::vector<NetworkDescription> all;
  const auto add = [&all](const std::string& text, const std::string& where) {
    all.push_back({parse_json(text, where), where});
  };
  const std::string what = task == "segment" ? "segmentor" : "detector",
                    &own = task == "segment" ? o.segmentor : o.detector;
  const auto said = weights.metadata.find(what);
  if (!o.config.empty())
    add(read_text(o.config), o.config);
  else if (o.model.empty() && said != weights.metadata.end())
    add(said->second, o.weights + ": " + what);
  if (!own.empty()) add(read_text(own), own);
  return all;
}

std::string head_in(const std::vector<NetworkDescription>& all) {
  std::string head = SegmentationHeads::names().front();
  for (const NetworkDescription& d : all) {
    const std::string named = naming(d.where, [&] { return head_of(d.json); });
    if (d.json.contains("head")) head = named;
  }
  return head;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
