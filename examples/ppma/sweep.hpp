#pragma once
// ppma sweep: a grid over one or two options of `train` (ppma/commands/sweep.hpp).

#include "ppma/commands/sweep.hpp"
#include "trials.hpp"

namespace tool {

/// The point with the highest mean.
inline void print_best_point(const MadeSweep& made) {
  if (!made.best) return;
  const Study& s = made.study;
  std::string what;
  for (std::size_t c = 0; c < s.columns.size(); ++c)
    what += str(" --", s.columns[c], " ", s.variants[*made.best].labels[c]);
  std::printf("highest mean %s: %.2f %% with%s\n", s.figure.name.c_str(), made.best_mean,
              what.c_str());
}

inline void add_sweep(CLI::App& app) {
  auto over = std::make_shared<std::vector<std::string>>();
  auto trials = std::make_shared<TrialArguments>();
  auto base = std::make_shared<TrialBase>("runs/sweep");
  trials->seeds = 1;
  auto* c = app.add_subcommand(
      "sweep", "Trains at each point of a grid of options, with several seeds: means, intervals");
  c->add_option("--over", *over,
                "OPTION=VALUE,VALUE,...: an option of train, or two, and the values that it takes, "
                "as lr=1e-3,2e-3; mask, model and drop-path too")
      ->required()
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->check(accepted_by([](const std::string& text) { SweepAxis::of(text); }));
  trials->add(*c);
  add_network(*c, base->classify.network);
  base->add(*c, "what to learn: to classify, segment or detect. ");
  c->callback([=] {
    check(over->size() <= 2, "sweep: --over is for one option or two, not ", over->size());
    const AnyTraining chosen = base->chosen(*c);
    std::vector<SweepAxis> axes;
    for (const std::string& text : *over) axes.push_back(SweepAxis::of(text));
    ShownStudy shown(*trials);
    const MadeSweep made = sweep(axes, trials->options(), chosen, shown);
    print_files(made);
    if (!made.heat_map.empty()) std::printf("heat map: %s\n", made.heat_map.c_str());
    print_best_point(made);
  });
}

}  // namespace tool
