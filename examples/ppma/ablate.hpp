#pragma once
// ppma ablate: what is a mask worth? (ppma/commands/ablate.hpp.)

#include "ppma/commands/ablate.hpp"
#include "ppma/mixers/mixers.hpp"
#include "trials.hpp"

namespace tool {

inline void add_ablate(CLI::App& app) {
  auto o = std::make_shared<AblateOptions>();
  auto trials = std::make_shared<TrialArguments>();
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
  c->add_option("--mixers", o->mixers,
                "other token mixers beside them, by the names of train's --mixer, or all")
      ->check(accepted_by([](const std::string& name) {
        if (name != "all") mixer_of(name);
      }))
      ->delimiter(',');
  trials->add(*c);
  c->add_flag("--no-bench", o->no_bench,
              "do not time the networks in the end; those of --task detect are never timed");
  NetworkOptions& network = base->classify.network;
  auto* config = c->add_option("--config", network.config, "the network's configuration as JSON")
                     ->check(CLI::ExistingFile);
  c->add_option("--model", network.model, "a configuration by name [ppma_nano]")
      ->excludes(config)
      ->check(accepted_by([](const std::string& name) { classifier_config_by_name(name); }));
  base->add(*c, "what to learn: to classify, segment or detect. ");
  c->callback([o, trials, base, c] {
    const AnyTraining chosen = base->chosen(*c);
    o->trials = trials->options();
    ShownStudy shown(*trials);
    print_files(ablate(*o, chosen, shown));
  });
}

}  // namespace tool
