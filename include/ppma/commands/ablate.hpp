#pragma once
#include "ppma/core/names_begin.hpp"
// What is a mask worth? The same network, data and budget with each mask and several seeds, to a
// folder: runs STRUCTURE-MASK-SEED (trials.hpp) and ablation.json, .html and .png (study.hpp).
// Networks of one seed begin with the same weights but for the mask's own. Where runs are evaluated
// more than once, the mean of all evaluations stands beside the last: how soon a network learnt. In
// the end what networks cost is measured side by side (costs.hpp). `mixers` puts other token mixers
// beside them, in all stages of the same network: runs mixer-NAME-SEED; and draws how far the
// tokens of the trained networks reach.

#include <string>
#include <vector>

#include "ppma/commands/study.hpp"

namespace ppma::inline PPMA_ABI {

/// Which masks are compared, and how.
struct AblateOptions {
  std::vector<std::string> masks{"all"};         // or all that a structure takes
  std::vector<std::string> structures{"whole"};  // of attention: whole, criss_cross, linear
  std::vector<std::string> mixers{};             // beside them, by name, or all
  TrialOptions trials{};
  bool no_bench = false;  // do not measure what the networks cost; a detector's never are
};

/// Trains a network with each mask and writes what comes of it; `base` says all else, and where.
/// Errors: a mask that a structure does not take; another structure; what training refuses.
PPMA_API MadeStudy ablate(const AblateOptions& o, const AnyTraining& base,
                          StudyObserver& observer = nobody<StudyObserver>());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>
#include <variant>

#include "ppma/commands/dense_network.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/io/file.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/mixers/mixers.hpp"
#include "ppma/polyline/masks.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The network of a structure and a mask, or of "mixer" and its name, in a file, which the run is
/// told.
inline void choose_network(AnyTraining& c, const std::string& out, const std::string& structure,
                           const std::string& mask) {
  TrainingOptions& o = common_of(c);
  const auto changed = [&](PpmaConfig& config) {
    const bool other = structure == "mixer";
    for (std::size_t stage = 0; stage < 4; ++stage)
      set_mixer(config, stage, other ? mask : "polyline_" + structure);
    config.name = str(config.name, ", ", other ? mask : structure);
    if (!other) config.mask = parse_mask_kind(mask);
  };
  Json told;
  if (std::holds_alternative<ClassifierTraining>(c)) {
    ClassifierConfig config = classifier_config(o.network, {}, "ppma_nano");
    if (auto* vit = std::get_if<VitConfig>(&config)) {
      check(structure == "whole", structure == "mixer" ? "`mixers` " : "`structures` ",
            structure == "mixer" ? mask : structure, ": ", vit->name,
            " is a plain transformer, whose attention is whole");
      vit->mask = parse_mask_kind(mask);
    } else {
      check(std::holds_alternative<PpmaConfig>(config), "`model` ", o.network.model,
            ": a network of another paper has neither masks nor structures; ablate one of this "
            "paper, and train the other beside it");
      changed(std::get<PpmaConfig>(config));
    }
    told = classifier_config_to_json(config);
  } else {
    const auto said = descriptions(o.network, o.task);
    if (auto* segment = std::get_if<SegmentorTraining>(&c)) {
      if (segment->head.empty()) segment->head = head_in(said);
      with_segmentation_head(segment->head, [&]<class Head>() {
        auto config = dense_config<SegmentorConfig<Head>>(o.network, "ppma_nano", said);
        changed(config.backbone);
        told = segmentor_to_json(config);
      });
    } else {
      auto config = dense_config<MaskRcnnConfig>(o.network, "ppma_nano", said);
      changed(config.backbone);
      told = detector_to_json(config);
    }
  }
  std::filesystem::create_directories(out + "/networks");
  const std::string path = str(out, "/networks/", structure, "-", mask, ".json"),
                    text = told.dump(1) + "\n";
  if (!std::filesystem::exists(path) || read_text(path) != text) write_file(path, text);
  o.network = {};
  o.network.config = path;
}

/// The masks of `masks` that a structure takes. Error: one that was named is not among them.
inline std::vector<std::string> masks_of(const AblateOptions& o, const std::string& structure) {
  const bool all = o.masks == std::vector<std::string>{"all"};
  std::vector<std::string> named = o.masks, taken;
  if (all) {
    named.clear();
    for (const Mask& mask : masks()) named.push_back(mask.name);
  }
  for (const std::string& mask : named) {
    const bool takes = structure != "linear" || mask_of(parse_mask_kind(mask)).paths.has_value();
    check(all || takes, "`masks` ", mask, ": is not for `structures` linear, ",
          "which takes none and the masks along paths (rmt, v2h, polyline, shared)");
    if (takes) taken.push_back(mask);
  }
  return taken;
}

inline Study ablation_of(const AblateOptions& o, const AnyTraining& base) {
  const TrainingOptions& common = common_of(base);
  Study s{.name = "ablation",
          .out = common.out,
          .title = str(
              "Ablation of the mask: ", common.task, " on ",
              common.data.kind == "paths" ? "paths, " + common.data.question : common.data.kind),
          .columns = {"structure", o.mixers.empty() ? "mask" : "mask or mixer"},
          .baseline = "none",
          .figure = TaskFigure::of(common.task),
          .over_epochs = common.evaluate_every < common.epochs,
          .seeds = o.trials.seeds,
          .options = options_of(base)};
  s.options.erase("seed");
  for (const std::string& structure : o.structures) {
    const std::vector<std::string> names = masks_of(o, structure);
    std::optional<std::size_t> baseline;
    for (std::size_t k = 0; k < names.size(); ++k)
      if (names[k] == "none") baseline = s.variants.size() + k;
    for (const std::string& mask : names) s.variants.push_back({{structure, mask}, baseline});
    if (o.structures.size() > 1) s.variants[s.variants.size() - names.size()].heading = structure;
  }
  std::vector<std::string> others = o.mixers;
  if (others == std::vector<std::string>{"all"}) {
    others.clear();
    for (const MixerKind& kind : mixers()) others.push_back(kind.name);
  }
  std::optional<std::size_t> unmasked;  // the first attention without a mask
  for (std::size_t k = s.variants.size(); k-- > 0;)
    if (s.variants[k].labels[1] == "none") unmasked = k;
  const std::size_t first_other = s.variants.size();
  for (const std::string& mixer : others) s.variants.push_back({{"mixer", mixer}, unmasked});
  if (!others.empty()) s.variants[first_other].heading = "other mixers";
  for (i64 k = 0; k < o.trials.seeds; ++k)
    for (std::size_t v = 0; v < s.variants.size(); ++v) {
      const std::string &structure = s.variants[v].labels[0], &mask = s.variants[v].labels[1];
      Trial t{v, base};
      choose_network(t.options, s.out, structure, mask);
      TrainingOptions& run = common_of(t.options);
      run.seed = common.seed + static_cast<u64>(k);
      run.out = str(s.out, "/", structure, "-", mask, "-", run.seed);
      s.trials.push_back(std::move(t));
    }
  return s;
}

/// The pixels of the images that a trained run takes.
inline i64 pixels_of(const TrainingOptions& run) {
  const std::string last = run.out + "/last.safetensors", told = run.out + "/train.json";
  if (run.task == "segment") return member<i64>(parse_json(read_text(told), told), "crop", told);
  return InputInfo::of(read_safetensors(last).metadata, last).value_or(InputInfo{}).size;
}

/// How far tokens reach in the first seed's networks of variants that are trained: those in the
/// middle of the stage with most blocks, in its last one.
inline void see_reaches(Study& s, Observer& observer) {
  std::vector<bool> seen(s.variants.size(), false);
  const i64 samples = 8;
  for (const Trial& t : s.trials) {
    const TrainingOptions& run = common_of(t.options);
    if (seen[t.variant] || s.scores(t.variant).empty()) continue;
    seen[t.variant] = true;
    NetworkOptions weights;
    weights.weights = run.out + "/last.safetensors";
    const LoadedNetwork<Ppma> network = network_to_look_at(weights, observer);
    const auto& depths = network.model.config.depths;
    ReachView view{.seed = 1};
    view.stage =
        static_cast<std::size_t>(std::max_element(depths.begin(), depths.end()) - depths.begin());
    view.block = static_cast<std::size_t>(depths[view.stage] - 1);
    InputInfo input = network.input;
    input.size = pixels_of(run);
    s.reaches.push_back(reach_of(s.name_of(t.variant), network.model.backbone,
                                 reach_images({.samples = samples, .seed = 1}, input), view));
    s.how_reaches = str("Means over ", samples, " generated pictures of ", input.size,
                        " pixels, of the token in the middle of stage ", view.stage, ", block ",
                        view.block, ", and of seed ", run.seed);
  }
}

/// Has the networks measured whose runs are all trained, on images and batches such as theirs.
inline void measure(Study& s, StudyObserver& observer) {
  std::vector<CostedNetwork> networks;
  std::vector<std::size_t> variants;
  i64 batch = 0, size = 0;
  ComputeOptions compute;
  for (const Trial& t : s.trials) {
    if (s.scores(t.variant).empty() ||
        std::find(variants.begin(), variants.end(), t.variant) != variants.end())
      continue;
    const TrainingOptions& run = common_of(t.options);
    if (networks.empty()) {
      size = pixels_of(run);
      compute = run.compute;
      batch = run.compute.device == "cpu" ? std::min<i64>(run.batch, 8) : run.batch;
    }
    networks.push_back({run.task, run.out + "/config.json"});
    variants.push_back(t.variant);
  }
  if (networks.empty()) return;
  observer.measure(networks, batch, size, compute);
  for (std::size_t k = 0; k < networks.size(); ++k)
    s.variants[variants[k]].costs = networks[k].costs;
  if (networks[0].costs.known())
    s.how_costs =
        str("Measured in turns, ", batch, " random images of ", size, " pixels at a time, ",
            compute.device == "cpu" ? str(threads(), " threads") : "GPU", ", ", compute.dtype,
            "; MACs of the backbone for an image, MiB in tensors");
}

}  // namespace detail

MadeStudy ablate(const AblateOptions& o, const AnyTraining& base, StudyObserver& observer) {
  for (const std::string& s : o.structures)
    check(s == "whole" || s == "criss_cross" || s == "linear", "`structures` ", s,
          ": must be whole, criss_cross or linear");
  Study s = detail::ablation_of(o, base);
  run_trials(o.trials, s.out, s.trials, observer);
  if (!take_costs(s) && !o.no_bench && !o.trials.report && o.trials.parts == 1 &&
      common_of(base).task != "detect")
    detail::measure(s, observer);
  if (!o.mixers.empty() && o.trials.parts == 1 && common_of(base).task != "detect")
    detail::see_reaches(s, observer);
  return write_study(s,
                     {.title = str(s.figure.name, " minus that ",
                                   o.mixers.empty() ? "" : "of attention ", "without a mask"),
                      .x_label = str("percentage points, ", s.seeds,
                                     s.seeds == 1 ? " seed" : " seeds", ", paired 95 % intervals")},
                     true, observer);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
