#pragma once
#include "ppma/core/names_begin.hpp"
// A grid over one or two options of training, each point with several seeds, to a folder: runs
// OPTION-VALUE-SEED (trials.hpp), sweep.json, sweep.html and sweep.png (study.hpp); the picture of
// two options is a heat map.

#include <optional>
#include <string>
#include <vector>

#include "ppma/commands/study.hpp"

namespace ppma::inline PPMA_ABI {

/// An option and the values that it takes in turn.
struct SweepAxis {
  std::string key;     // "weight_decay", as in train.json; mask, model and drop_path too
  std::string option;  // "weight-decay", as in tables
  std::vector<std::string> values{};

  /// Of "weight-decay=0,0.1". Error: another form; a value that is empty or there twice.
  PPMA_API static SweepAxis of(const std::string& text);
};

/// A grid that was trained.
struct MadeSweep : MadeStudy {
  std::string heat_map{};             // path of the picture of two options; "": there is none
  std::optional<std::size_t> best{};  // the variant with the highest mean of its last figures
  double best_mean = 0;
};

/// Trains at each point of the grid and writes what comes of it; `base` says all else, and
/// `out` where. Errors: more than two axes, or one twice; no such option or value; what training
/// refuses.
PPMA_API MadeSweep sweep(const std::vector<SweepAxis>& axes, const TrialOptions& trials,
                         const AnyTraining& base,
                         StudyObserver& observer = nobody<StudyObserver>());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <sstream>
#include <utility>

#include "ppma/core/float_bits.hpp"
#include "ppma/io/image.hpp"
#include "ppma/metrics/interval.hpp"
#include "ppma/vis/heat_map.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// "weight-decay" of "weight_decay".
inline std::string dashed(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return key;
}

/// Options that a run has of its own, or that a sweep gives it.
inline bool is_swept(const std::string& key) {
  for (const char* own : {"seed", "task", "data", "data_dir", "no_exif", "patience"})
    if (key == own) return false;
  return true;
}

/// Sets an option, as `train` would read it. Errors: there is none; no such value.
inline void set_option(AnyTraining& c, const SweepAxis& axis, const std::string& value) {
  const std::string where = "`over` " + axis.option + "=" + value;
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
    known += ", " + dashed(key);
    found = found || key == axis.key;
  }
  check(found, where, ": train `task` ", o.task, " has no such option; there are ", known);
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
inline std::string point_name(const std::vector<SweepAxis>& axes,
                              const std::vector<std::string>& values) {
  std::string name;
  for (std::size_t a = 0; a < axes.size(); ++a)
    name += (a > 0 ? "-" : "") + axes[a].option + "-" + values[a];
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

inline Study sweep_of(const std::vector<SweepAxis>& axes, const TrialOptions& trials,
                      const AnyTraining& base, bool evaluates_more) {
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
  for (const SweepAxis& a : axes) {
    s.columns.push_back(a.option);
    s.options.erase(a.key);
  }
  s.options.erase("seed");
  std::vector<std::vector<std::string>> points{{}};
  for (const SweepAxis& a : axes) {
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
      for (std::size_t a = 0; a < axes.size(); ++a) set_option(t.options, axes[a], points[v][a]);
      std::visit([](const auto& command) { command.check_together(); }, t.options);
      TrainingOptions& run = common_of(t.options);
      if (at_the_end) run.evaluate_every = run.epochs;  // of a sweep over epochs too
      run.seed = common.seed + static_cast<u64>(k);
      run.out = str(s.out, "/", point_name(axes, points[v]), "-", run.seed);
      s.trials.push_back(std::move(t));
    }
  return s;
}

/// sweep.png of two options: the mean at each point of the grid.
inline std::string draw_heat_map(const Study& s, const std::vector<SweepAxis>& axes) {
  HeatMap map{.rows = axes[0].values,
              .columns = axes[1].values,
              .title = str(s.figure.name, " of the last epoch, mean of ", s.seeds,
                           s.seeds == 1 ? " seed" : " seeds", ", %"),
              .row_label = axes[0].option,
              .column_label = axes[1].option};
  for (std::size_t v = 0; v < s.variants.size(); ++v) {
    const std::vector<double> values = s.values(v, &RunScore::last);
    map.values.push_back(values.empty() ? not_a_number<double>() : mean_interval(values).mean);
  }
  const std::string path = s.out + "/sweep.png";
  write_png(path, heat_map(map).image());
  return path;
}

}  // namespace detail

SweepAxis SweepAxis::of(const std::string& text) {
  const std::size_t equal = text.find('=');
  check(equal != std::string::npos && equal > 0 && equal + 1 < text.size(), "`over` ", text,
        ": must be OPTION=VALUE,VALUE,...");
  SweepAxis a{.key = text.substr(0, equal), .option = {}};
  a.key.erase(0, a.key.starts_with("--") ? 2 : 0);
  std::replace(a.key.begin(), a.key.end(), '-', '_');
  std::istringstream values(text.substr(equal + 1));
  for (std::string value; std::getline(values, value, ',');) {
    check(!value.empty(), "`over` ", text, ": a value is empty");
    check(std::find(a.values.begin(), a.values.end(), value) == a.values.end(), "`over` ", text,
          ": ", value, " is there twice");
    a.values.push_back(value);
  }
  a.option = detail::dashed(a.key);
  return a;
}

MadeSweep sweep(const std::vector<SweepAxis>& axes, const TrialOptions& trials,
                const AnyTraining& base, StudyObserver& observer) {
  check(!axes.empty() && axes.size() <= 2, "sweep: `over` is for one option or two, not ",
        axes.size());
  check(axes.size() == 1 || axes[0].key != axes[1].key, "`over`: ", axes[0].option,
        " is there twice");
  const TrainingOptions& common = common_of(base);
  Study s = detail::sweep_of(axes, trials, base, common.evaluate_every < common.epochs);
  run_trials(trials, s.out, s.trials, observer);
  MadeSweep made{
      write_study(s,
                  {.title = str(s.figure.name, " minus that of the first"),
                   .x_label = str("percentage points, ", s.seeds, s.seeds == 1 ? " seed" : " seeds",
                                  ", paired 95 % intervals")},
                  axes.size() == 1, observer)};
  if (axes.size() == 2 && s.variants.size() > made.says.missing.size())
    made.heat_map = detail::draw_heat_map(s, axes);
  for (std::size_t v = 0; v < s.variants.size(); ++v) {
    const std::vector<double> values = s.values(v, &RunScore::last);
    if (values.empty()) continue;
    const double mean = mean_interval(values).mean;
    if (!made.best || mean > made.best_mean) made.best = v, made.best_mean = mean;
  }
  return made;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
