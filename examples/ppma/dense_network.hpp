#pragma once
// Which segmentor or detector: --task, --model, --mask, --config, --segmentor, --detector, for
// train, predict, run and bench alike.
//
//   --model NAME          ppma_nano: small heads for a CPU; any other backbone: the published heads
//   --config FILE         the whole network as JSON, such as a run's config.json; else what the
//                         weights file says
//   --segmentor, --detector FILE   keys on top of that
//   --mask                last

#include "common.hpp"
#include "dense_needs.hpp"
#include "ppma/heads/detector_json.hpp"
#include "ppma/heads/segmentor_json.hpp"
#include "ppma/nn/state_dict.hpp"

namespace tool {

inline void add_task(CLI::App& app, std::string& task, NetworkOptions& o, const std::string& what) {
  app.add_option("--task", task,
                 what +
                     "With segment and detect --config and --model are about the whole network: "
                     "small heads on ppma_nano, the published ones on others")
      ->check(CLI::IsMember({"classify", "segment", "detect"}))
      ->capture_default_str();
  app.add_option("--segmentor", o.segmentor,
                 "keys of the network's configuration as JSON, on top of --model or --config")
      ->check(CLI::ExistingFile)
      ->group("With --task segment");
  app.add_option("--detector", o.detector, "the same of a detector")
      ->check(CLI::ExistingFile)
      ->group("With --task detect");
}

/// Error: an option was given that another task has. Whose it is, its group says: "With --task
/// segment and detect".
inline void refuse_others(const CLI::App& app, const std::string& task) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string group = option->get_group();
    const bool others = group.starts_with("With --task ") && group.find(task) == std::string::npos;
    check(!others || option->count() == 0, option->get_name(), " is for ",
          group.substr(std::min<std::size_t>(5, group.size())), ", not ", task);
  }
}

template <class Head>
i64 classes_of(const SegmentorConfig<Head>& c) {
  return c.head.num_classes;
}
inline i64 classes_of(const MaskRcnnConfig& c) { return c.roi.num_classes; }
template <class Head>
void set_classes(SegmentorConfig<Head>& c, i64 classes) {
  c.head.num_classes = classes;
}
inline void set_classes(MaskRcnnConfig& c, i64 classes) { c.roi.num_classes = classes; }
template <class Head>
void small_network(SegmentorConfig<Head>& c) {
  c = segmentor_nano<Head>(150);
}
inline void small_network(MaskRcnnConfig& c) { c = mask_rcnn_nano(80, true); }

/// A JSON object about a network, and where it stands.
struct Description {
  Json json;
  std::string where;
};

/// What describes the network beside --model, in the order in which it is read.
inline std::vector<Description> descriptions(const NetworkOptions& o, const std::string& task,
                                             const WeightsFile& weights = {}) {
  std::vector<Description> all;
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

/// The head of a segmentor that they name: the last one counts.
inline std::string head_in(const std::vector<Description>& all) {
  std::string head = SegmentationHeads::names().front();
  for (const Description& d : all) {
    const std::string named = naming(d.where, [&] { return head_of(d.json); });
    if (d.json.contains("head")) head = named;
  }
  return head;
}

/// What a description says, on top of `c`.
template <class Head>
SegmentorConfig<Head> read_description(Json j, const SegmentorConfig<Head>& c) {
  if (j.is_object() && !j.contains("head")) j["head"] = Head::name;
  return segmentor_from_json(j, c);
}
inline MaskRcnnConfig read_description(const Json& j, const MaskRcnnConfig& c) {
  return detector_from_json(j, c);
}

/// The network of --model, `fallback` where it is not given, with what `said` puts on top.
/// `weights`, where there are some, say how many classes they tell apart.
template <class Config>
Config dense_config(const NetworkOptions& o, const char* fallback,
                    const std::vector<Description>& said, const TensorMap& weights = {}) {
  constexpr bool detects = std::is_same_v<Config, MaskRcnnConfig>;
  Config c;
  const PpmaConfig named = config_by_name(o.model.empty() ? fallback : o.model);
  if (named.name.ends_with("_nano"))
    small_network(c), c.backbone.name = named.name, c.backbone.mask = named.mask;
  else
    c.backbone = named;
  if (const Tensor* bias =
          find(weights, detects ? "roi_head.bbox_head.fc_cls.bias" : "decode_head.conv_seg.bias");
      bias != nullptr)
    set_classes(c, bias->numel() - (detects ? 1 : 0));  // a detector's last one is the background
  for (const Description& d : said) naming(d.where, [&] { c = read_description(d.json, c); });
  c.backbone = mixed(c.backbone, o);
  if (!o.mask.empty()) c.backbone.mask = parse_mask_kind(o.mask);
  return c;
}

/// Error: this machine has no memory for the network's weights alone.
template <class Config>
void require_weights(const Config& c, const std::string& task) {
  Work work{c.backbone, 0, least_size, least_size};
  work.head = head_needs(c, least_size, least_size);
  require_memory(work, "--size", network_options(task));
}

/// Those of a whole network, whose backbone has a prefix.
inline WeightsFile dense_weights(const NetworkOptions& o) {
  return read_weights(o, {"module.", "_orig_mod."});
}

/// Converts and moves a dense network; for inference its backbone is made ready, on the CPU the
/// heads' weights as well.
template <class Model>
void place_dense(Model& model, const Placement& at, bool inference) {
  to(model, accumulator_dtype(at.dtype));
  to(model, at.device);
  if (!inference) return;
  prepare_for_inference(model.backbone, at.dtype);
  if (at.device == Device::cpu) narrow_weights(model, at.dtype), pack_weights(model);
}

/// The network of the options, by default the published one on PPMA-T; with --weights (`file`) or
/// random ones; where it computes. `look` sees its configuration before it is made.
template <class Model, class Look>
Model dense_network(const NetworkOptions& o, const WeightsFile& file, const Placement& at,
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
void with_segmentor(const NetworkOptions& o, F f) {
  const WeightsFile file = dense_weights(o);
  with_segmentation_head(head_in(descriptions(o, "segment", file)),
                         [&]<class Head>() { f.template operator()<Head>(file); });
}

}  // namespace tool
