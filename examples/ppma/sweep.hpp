#pragma once
// ppma sweep: a grid over one or two options of `train`, each point with several seeds, to a
// folder: runs OPTION-VALUE-SEED (trials.hpp), sweep.json, sweep.html and sweep.png (study.hpp);
// the picture of two options is a heat map.

#include "ppma/vis/heat_map.hpp"
#include "study.hpp"

namespace tool {

/// An option of `train` and the values that it takes in turn: "lr=1e-3,2e-3".
struct Axis {
  std::string key;  // "lr", as in train.json
  std::vector<std::string> values;

  static Axis of(const std::string& text) {
    const std::size_t equal = text.find('=');
    check(equal != std::string::npos && equal > 0 && equal + 1 < text.size(), "--over ", text,
          ": must be OPTION=VALUE,VALUE,...");
    Axis a{text.substr(0, equal), {}};
    a.key.erase(0, a.key.starts_with("--") ? 2 : 0);
    std::replace(a.key.begin(), a.key.end(), '-', '_');
    std::istringstream values(text.substr(equal + 1));
    for (std::string value; std::getline(values, value, ',');) {
      check(!value.empty(), "--over ", text, ": a value is empty");
      check(std::find(a.values.begin(), a.values.end(), value) == a.values.end(), "--over ", text,
            ": ", value, " is there twice");
      a.values.push_back(value);
    }
    return a;
  }
  std::string option() const { return option_of(key); }
};

/// Options that a run has of its own, or that a sweep gives it.
inline bool is_swept(const std::string& key) {
  for (const char* own : {"seed", "task", "data", "data_dir", "no_exif", "patience"})
    if (key == own) return false;
  return true;
}

/// Sets an option, as `train` would read it. Errors: there is none; no such value.
inline void set_option(AnyCommand& c, const Axis& axis, const std::string& value) {
  const std::string where = "--over " + axis.option().substr(2) + "=" + value;
  TrainingOptions& o = common_of(c);
  if (axis.key == "mask" || axis.key == "model") {
    naming(where, [&] {
      if (axis.key == "mask") parse_mask_kind(value);
      if (axis.key == "model") classifier_config_by_name(value);
      return 0;
    });
    (axis.key == "mask" ? o.network.mask : o.network.model) = value;
    return;
  }
  std::string known = "mask, model, drop-path";
  bool found = axis.key == "drop_path";
  const Json options = options_of(c);
  for (const auto& [key, now] : options.items()) {
    if (!is_swept(key) || now.is_array()) continue;
    known += ", " + option_of(key).substr(2);
    found = found || key == axis.key;
  }
  check(found, where, ": train --task ", o.task, " has no such option; there are ", known);
  double number = 0;
  const bool is_number = parse_number(value, number);
  if (axis.key == "drop_path") {
    check(is_number && number >= 0 && number <= 0.99, where, ": must be 0 to 0.99");
    o.drop_path = number;
    return;
  }
  const Json& now = options[axis.key];
  Json told;
  if (now.is_string())
    told = value;
  else if (now.is_boolean())
    told = value == "true" ? Json(true) : value == "false" ? Json(false) : Json(value);
  else if (now.is_number_float())
    told = is_number ? Json(number) : Json(value);
  else if (i64 whole = 0; parse_number(value, whole))
    told = whole;
  else
    told = is_number ? Json(number) : Json(value);
  std::visit([&](auto& command) { read_kept(Json{{axis.key, told}}, where, command); }, c);
}

/// What a point's runs are called: "lr-1e-3-batch-32".
inline std::string point_name(const std::vector<Axis>& axes,
                              const std::vector<std::string>& values) {
  std::string name;
  for (std::size_t a = 0; a < axes.size(); ++a)
    name += (a > 0 ? "-" : "") + axes[a].option().substr(2) + "-" + values[a];
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

inline Study sweep_of(const std::vector<Axis>& axes, const TrialOptions& trials,
                      const AnyCommand& base, bool evaluates_more) {
  const TrainingOptions& common = common_of(base);
  Study s{.name = "sweep",
          .out = common.out,
          .title = str("Sweep: ", common.task, " on ", common.data.kind),
          .columns = {},
          .baseline = "first",
          .figure = TaskFigure::of(common.task),
          .over_epochs = evaluates_more,
          .seeds = trials.seeds,
          .options = options_of(base)};
  for (const Axis& a : axes) {
    s.columns.push_back(a.option().substr(2));
    s.options.erase(a.key);
  }
  s.options.erase("seed");
  std::vector<std::vector<std::string>> points{{}};
  for (const Axis& a : axes) {
    std::vector<std::vector<std::string>> longer;
    for (const auto& point : points)
      for (const std::string& value : a.values) {
        longer.push_back(point);
        longer.back().push_back(value);
      }
    points = longer;
  }
  for (const auto& point : points) s.variants.push_back({point, 0});
  for (i64 k = 0; k < trials.seeds; ++k)
    for (std::size_t v = 0; v < points.size(); ++v) {
      Trial t{v, base};
      const bool at_the_end = common.evaluate_every == common.epochs;
      for (std::size_t a = 0; a < axes.size(); ++a) set_option(t.command, axes[a], points[v][a]);
      std::visit([](const auto& command) { command.check_together(); }, t.command);
      TrainingOptions& run = common_of(t.command);
      if (at_the_end) run.evaluate_every = run.epochs;  // of a sweep over epochs too
      run.seed = common.seed + static_cast<u64>(k);
      run.out = str(s.out, "/", point_name(axes, points[v]), "-", run.seed);
      s.trials.push_back(std::move(t));
    }
  return s;
}

/// sweep.png of two options: the mean at each point of the grid.
inline void draw_heat_map(const Study& s, const std::vector<Axis>& axes) {
  HeatMap map{.rows = axes[0].values,
              .columns = axes[1].values,
              .title = str(s.figure.name, " of the last epoch, mean of ", s.seeds,
                           s.seeds == 1 ? " seed" : " seeds", ", %"),
              .row_label = axes[0].option().substr(2),
              .column_label = axes[1].option().substr(2)};
  for (std::size_t v = 0; v < s.variants.size(); ++v) {
    const std::vector<double> values = s.values(v, &Score::last);
    map.values.push_back(values.empty() ? not_a_number<double>() : mean_interval(values).mean);
  }
  const std::string path = s.out + "/sweep.png";
  write_png(path, heat_map(map).image());
  std::printf("heat map: %s\n", path.c_str());
}

/// The point with the highest mean.
inline void print_best_point(const Study& s) {
  std::optional<std::size_t> best;
  double most = 0;
  for (std::size_t v = 0; v < s.variants.size(); ++v) {
    const std::vector<double> values = s.values(v, &Score::last);
    if (values.empty()) continue;
    const double mean = mean_interval(values).mean;
    if (!best || mean > most) best = v, most = mean;
  }
  if (!best) return;
  std::string what;
  for (std::size_t c = 0; c < s.columns.size(); ++c)
    what += str(" --", s.columns[c], " ", s.variants[*best].labels[c]);
  std::printf("highest mean %s: %.2f %% with%s\n", s.figure.name.c_str(), most, what.c_str());
}

inline void sweep(const std::vector<std::string>& over, const TrialOptions& trials,
                  const AnyCommand& base) {
  std::vector<Axis> axes;
  for (const std::string& text : over) axes.push_back(Axis::of(text));
  check(axes.size() == 1 || axes[0].key != axes[1].key, "--over: ", axes[0].option().substr(2),
        " is there twice");
  const TrainingOptions& common = common_of(base);
  Study s = sweep_of(axes, trials, base, common.evaluate_every < common.epochs);
  run_trials(trials, s.out, s.trials);
  write_study(s,
              {.title = str(s.figure.name, " minus that of the first"),
               .x_label = str("percentage points, ", s.seeds, s.seeds == 1 ? " seed" : " seeds",
                              ", paired 95 % intervals")},
              axes.size() == 1);
  if (axes.size() == 2 && s.variants.size() > study_says(s).missing.size()) draw_heat_map(s, axes);
  print_best_point(s);
}

inline void add_sweep(CLI::App& app) {
  auto over = std::make_shared<std::vector<std::string>>();
  auto trials = std::make_shared<TrialOptions>();
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
      ->check(accepted_by([](const std::string& text) { Axis::of(text); }));
  trials->add(*c);
  add_network(*c, base->classify.network);
  base->add(*c, "what to learn: to classify, segment or detect. ");
  c->callback([=] {
    check(over->size() <= 2, "sweep: --over is for one option or two, not ", over->size());
    sweep(*over, *trials, base->chosen(*c));
  });
}

}  // namespace tool
