#pragma once
// ppma ablate: what is a mask worth? The same network, data and budget with each mask and several
// seeds, to a folder: runs STRUCTURE-MASK-SEED (trials.hpp) and ablation.json, .html and .png
// (study.hpp). Networks of one seed begin with the same weights but for the mask's own. Where runs
// are evaluated more than once, the mean of all evaluations stands beside the last: how soon a
// network learnt. In the end all networks are timed side by side (costs.hpp).

#include "study.hpp"

namespace tool {

struct AblateCommand {
  std::vector<std::string> masks{"all"}, structures{"whole"};
  TrialOptions trials;
  bool no_bench = false;
};

/// The network of a structure and a mask, in a file, which the run is told.
inline void choose_network(AnyCommand& c, const std::string& out, const std::string& structure,
                           const std::string& mask) {
  TrainingOptions& o = common_of(c);
  const auto changed = [&](PpmaConfig& config) {
    config.chunkwise_recurrents.fill(structure == "criss_cross");
    config.linear.fill(structure == "linear");
    config.mask = parse_mask_kind(mask);
    config.name = str(config.name, ", ", structure);
  };
  Json told;
  if (std::holds_alternative<ClassifierTraining>(c)) {
    ClassifierConfig config = classifier_config(o.network, {}, "ppma_nano");
    if (auto* vit = std::get_if<VitConfig>(&config)) {
      check(structure == "whole", "--structures ", structure, ": ", vit->name,
            " is a plain transformer, whose attention is whole");
      vit->mask = parse_mask_kind(mask);
    } else {
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

/// The masks of --masks that a structure takes. Error: one that was named is not among them.
inline std::vector<std::string> masks_of(const AblateCommand& o, const std::string& structure) {
  const bool all = o.masks == std::vector<std::string>{"all"};
  std::vector<std::string> named = o.masks, taken;
  if (all) {
    named.clear();
    for (const Mask& mask : masks()) named.push_back(mask.name);
  }
  for (const std::string& mask : named) {
    const bool takes = structure != "linear" || mask_of(parse_mask_kind(mask)).paths.has_value();
    check(all || takes, "--masks ", mask, ": is not for --structures linear, ",
          "which takes none and the masks along paths (rmt, v2h, polyline, shared)");
    if (takes) taken.push_back(mask);
  }
  return taken;
}

inline Study ablation_of(const AblateCommand& o, const AnyCommand& base) {
  const TrainingOptions& common = common_of(base);
  Study s{.name = "ablation",
          .out = common.out,
          .title = str(
              "Ablation of the mask: ", common.task, " on ",
              common.data.kind == "paths" ? "paths, " + common.data.question : common.data.kind),
          .columns = {"structure", "mask"},
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
  for (i64 k = 0; k < o.trials.seeds; ++k)
    for (std::size_t v = 0; v < s.variants.size(); ++v) {
      const std::string &structure = s.variants[v].labels[0], &mask = s.variants[v].labels[1];
      Trial t{v, base};
      choose_network(t.command, s.out, structure, mask);
      TrainingOptions& run = common_of(t.command);
      run.seed = common.seed + static_cast<u64>(k);
      run.out = str(s.out, "/", structure, "-", mask, "-", run.seed);
      s.trials.push_back(std::move(t));
    }
  return s;
}

/// Times the networks whose runs are all trained, on images and batches such as theirs.
inline void measure(Study& s) {
  std::vector<Costed> networks;
  std::vector<std::size_t> variants;
  BenchOptions o;
  for (const Trial& t : s.trials) {
    if (s.scores(t.variant).empty() ||
        std::find(variants.begin(), variants.end(), t.variant) != variants.end())
      continue;
    const TrainingOptions& run = common_of(t.command);
    if (networks.empty()) {
      const std::string last = run.out + "/last.safetensors", told = run.out + "/train.json";
      o.size =
          run.task == "segment"
              ? member<i64>(parse_json(read_text(told), told), "crop", told)
              : InputInfo::of(read_safetensors(last).metadata, last).value_or(InputInfo{}).size;
      o.compute = run.compute;
      o.batch = run.compute.device == "cpu" ? std::min<i64>(run.batch, 8) : run.batch;
    }
    networks.push_back({run.task, run.out + "/config.json"});
    variants.push_back(t.variant);
  }
  if (networks.empty()) return;
  std::printf("\ntiming %zu networks in turns\n", networks.size());
  std::fflush(stdout);
  measure_costs(networks, o);
  for (std::size_t k = 0; k < networks.size(); ++k)
    s.variants[variants[k]].costs = networks[k].costs;
  s.how_costs =
      str("Measured in turns, ", o.batch, " random images of ", o.size, " pixels at a time, ",
          o.compute.device == "cpu" ? str(threads(), " threads") : "GPU", ", ", o.compute.dtype,
          "; MACs of the backbone for an image, MiB in tensors");
}

inline void ablate(const AblateCommand& o, const AnyCommand& base) {
  Study s = ablation_of(o, base);
  run_trials(o.trials, s.out, s.trials);
  const bool part = o.trials.part != "0/1";
  if (!take_costs(s) && !o.no_bench && !o.trials.report && !part &&
      common_of(base).task != "detect")
    measure(s);
  write_study(s, {.title = str(s.figure.name, " minus that without a mask"),
                  .x_label = str("percentage points, ", s.seeds, s.seeds == 1 ? " seed" : " seeds",
                                 ", paired 95 % intervals")});
}

inline void add_ablate(CLI::App& app) {
  auto o = std::make_shared<AblateCommand>();
  auto base = std::make_shared<TrialBase>("runs/ablation");
  auto* c = app.add_subcommand(
      "ablate", "Trains a network with each mask and several seeds: means, intervals and costs");
  c->add_option("--masks", o->masks, "masks to compare, or all that a structure takes")
      ->check(accepted_by([](const std::string& name) {
        if (name != "all") parse_mask_kind(name);
      }))
      ->delimiter(',')
      ->capture_default_str();
  c->add_option("--structures", o->structures,
                "attention of all stages: whole, criss_cross, linear")
      ->check(CLI::IsMember({"whole", "criss_cross", "linear"}))
      ->delimiter(',')
      ->capture_default_str();
  o->trials.add(*c);
  c->add_flag("--no-bench", o->no_bench,
              "do not time the networks in the end; those of --task detect are never timed");
  NetworkOptions& network = base->classify.network;
  auto* config = c->add_option("--config", network.config, "the network's configuration as JSON")
                     ->check(CLI::ExistingFile);
  c->add_option("--model", network.model, "a configuration by name [ppma_nano]")
      ->excludes(config)
      ->check(accepted_by([](const std::string& name) { classifier_config_by_name(name); }));
  base->add(*c, "what to learn: to classify, segment or detect. ");
  c->callback([o, base, c] { ablate(*o, base->chosen(*c)); });
}

}  // namespace tool
