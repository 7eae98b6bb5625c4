#pragma once
#include "ppma/core/names_begin.hpp"
// What trials say together (trials.hpp): a table, NAME.json, NAME.png, NAME.html, in the folder of
// the runs.

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "ppma/commands/costs.hpp"
#include "ppma/commands/reach.hpp"
#include "ppma/commands/trials.hpp"
#include "ppma/vis/intervals.hpp"

namespace ppma::inline PPMA_ABI {

/// What is trained with several seeds.
struct StudyVariant {
  std::vector<std::string> labels;        // a cell of each column: "whole", "polyline"
  std::optional<std::size_t> baseline{};  // the variant that it is compared with
  std::string heading{};                  // above it in the picture, where it begins a group
  NetworkCosts costs{};
};

/// Variants, their runs, and what they are called.
struct Study {
  std::string name, out, title;      // "ablation", the folder, what is studied
  std::vector<std::string> columns;  // of the labels: "structure", "mask"
  std::string baseline;              // what differences are from: "none"
  TaskFigure figure;
  bool over_epochs = false;  // runs are evaluated more than once
  i64 seeds = 0;
  Json options{};           // that all have
  std::string how_costs{};  // were measured
  std::vector<StudyVariant> variants{};
  std::vector<Trial> trials{};
  std::vector<Reach> reaches{};  // of networks that were trained, where they are asked
  std::string how_reaches{};     // were found

  /// What its runs did, seed by seed; empty: not all are trained.
  PPMA_API std::vector<const RunScore*> scores(std::size_t variant) const;
  /// What tells a variant apart: the labels of the columns that differ.
  PPMA_API std::string name_of(std::size_t variant) const;
  /// A figure of theirs.
  PPMA_API std::vector<double> values(std::size_t variant, double RunScore::*of) const;
};

/// Everything that the trained variants say.
struct StudySays {
  TextTable table{}, costs{};
  Json rows = Json::array();
  std::vector<IntervalRow> intervals{};
  std::vector<std::string> missing{};  // variants that are not trained yet

  /// Whether there is a difference to be drawn.
  PPMA_API bool compares() const;
};

/// Hears of a study.
struct StudyObserver : TrialObserver {
  /// Measures what networks cost: measure_costs(), or otherwise; where nothing is measured, costs
  /// are not known.
  virtual void measure(std::vector<CostedNetwork>& networks, i64 batch, i64 size,
                       const ComputeOptions& compute) {
    measure_costs(networks, batch, size, compute);
  }
  /// What is going to be written.
  virtual void says(const Study& /*study*/, const StudySays& /*says*/) {}
};

/// A study that was made.
struct MadeStudy {
  Study study;
  StudySays says;
  std::vector<std::string> files{};  // paths
};

/// What the trained variants of a study say.
PPMA_API StudySays study_says(const Study& s);

/// Takes the costs that an earlier call has written down; whether every trained variant has some,
/// so that none need be measured.
PPMA_API bool take_costs(Study& s);

/// Writes NAME.json and NAME.html; NAME.png where differences are to be drawn.
PPMA_API MadeStudy write_study(const Study& s, const IntervalOptions& drawn, bool picture,
                               StudyObserver& observer);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string_view>
#include <utility>

#include "ppma/io/image.hpp"
#include "ppma/metrics/interval.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/vis/page.hpp"
#include "ppma/vis/report_parts.hpp"
#include "ppma/vis/svg.hpp"

namespace ppma::inline PPMA_ABI {

std::vector<const RunScore*> Study::scores(std::size_t variant) const {
  std::vector<const RunScore*> all;
  for (const Trial& t : trials)
    if (t.variant == variant && t.score) all.push_back(&*t.score);
  return static_cast<i64>(all.size()) == seeds ? all : std::vector<const RunScore*>{};
}

std::string Study::name_of(std::size_t variant) const {
  std::string text;
  for (std::size_t c = 0; c < columns.size(); ++c) {
    const bool differs = std::any_of(variants.begin(), variants.end(), [&](const StudyVariant& v) {
      return v.labels[c] != variants.front().labels[c];
    });
    if (differs) text += (text.empty() ? "" : " ") + variants[variant].labels[c];
  }
  return detail::shortened(text.empty() ? variants[variant].labels.back() : text, 28);
}

std::vector<double> Study::values(std::size_t variant, double RunScore::*of) const {
  std::vector<double> all;
  for (const RunScore* s : scores(variant)) all.push_back(s->*of);
  return all;
}

bool StudySays::compares() const {
  return std::any_of(intervals.begin(), intervals.end(),
                     [](const IntervalRow& r) { return !r.values.empty(); });
}

namespace detail {

/// What the seeds of one variant say: cells of the table, a part of the JSON, a row of the picture.
struct Comparison {
  Json json;
  std::vector<std::string> cells;
  std::optional<IntervalRow> row{};
};

/// Figures of one variant beside those of its baseline, seed by seed; `base` is empty where there
/// is none.
inline Comparison compare(const std::string& name, const std::vector<double>& values,
                          const std::vector<double>& base, const std::string& baseline) {
  const Interval mean = mean_interval(values);
  Comparison c{{{"values", values}, {"mean", mean.mean}},
               {fixed("%.2f %%", mean.mean), fixed("%.2f", mean.deviation), "-"},
               {}};
  if (base.empty()) return c;
  const Interval d = paired_interval(values, base);
  std::vector<double> differences;
  for (std::size_t i = 0; i < values.size(); ++i) differences.push_back(values[i] - base[i]);
  c.row = IntervalRow{name, d, differences};
  c.json["minus_" + baseline] = d.mean;
  if (values.size() > 1) c.json["interval"] = {d.low, d.high};
  c.cells.back() =
      fixed("%+.2f", d.mean) + " (" + fixed("%+.2f", d.low) + " to " + fixed("%+.2f", d.high) + ")";
  return c;
}

/// Words one after the other.
inline std::string joined(const std::vector<std::string>& words, const char* between = " ") {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

/// NAME.html: table, intervals, learning curves (means over seeds), costs and, where there is a
/// picture of it, how far tokens reach.
inline std::string study_page(const Study& s, const StudySays& says, const IntervalOptions& drawn,
                              const std::vector<u8>& reach_png) {
  Page page{s.title,
            str(s.figure.name, " of the last epoch, ", s.seeds, s.seeds == 1 ? " seed" : " seeds"),
            {}};
  page.sections.push_back(
      {"Figures", {{"", html_table(says.table.head, says.table.rows, s.columns.size()), true}}});
  if (says.compares())
    page.sections.back().cards.push_back(
        {drawn.title, svg_intervals(says.intervals, drawn).in_page()});
  PageSection curves{"Learning curves, means of the seeds", {}};
  const auto chart = [&](const std::string& title, Series RunScore::*of) {
    std::vector<Series> series;
    for (std::size_t k = 0; k < s.variants.size(); ++k) {
      std::vector<const Series*> runs;
      for (const RunScore* score : s.scores(k)) runs.push_back(&(score->*of));
      if (!runs.empty()) series.push_back(mean_series(s.name_of(k), runs));
    }
    if (!series.empty())
      curves.cards.push_back(
          {title,
           svg_curves(series, {.title = title, .x_label = "epoch", .width = 500, .height = 320})
               .in_page()});
  };
  if (s.over_epochs) chart(s.figure.name + " on the test images, %", &RunScore::figure);
  chart("loss in training", &RunScore::loss);
  if (!curves.cards.empty()) page.sections.push_back(curves);
  if (!says.costs.rows.empty())
    page.sections.push_back(
        {"Costs",
         {{s.how_costs, html_table(says.costs.head, says.costs.rows, s.columns.size()), true}}});
  if (!s.reaches.empty()) {
    const TextTable table = reach_table(s.reaches);
    page.sections.push_back(
        {"Reach",
         {{s.how_reaches, html_table(table.head, table.rows), false},
          {"Above whom a token tells something, below what it depends on; four decades",
           "<img alt=\"impulse responses and receptive fields\" style=\"max-width:100%\" src=\"" +
               png_source(reach_png) + "\"/>",
           true}}});
  }
  std::vector<std::vector<std::string>> options;
  for (const auto& [key, value] : s.options.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (!text.empty()) options.push_back({key, text});
  }
  page.sections.push_back({"Options of all runs", {{"", html_table({}, options)}}});
  return page_html(page);
}

}  // namespace detail

bool take_costs(Study& s) {
  const std::string path = s.out + "/" + s.name + ".json";
  if (!std::filesystem::exists(path)) return false;
  const Json j = parse_json(read_text(path), path);
  read_member(j, "how_costs", path, s.how_costs);
  bool all = true;
  for (std::size_t k = 0; k < s.variants.size(); ++k) {
    StudyVariant& v = s.variants[k];
    if (j.contains("rows") && j["rows"].is_array())
      for (const Json& row : j["rows"]) {
        bool same = row.is_object() && row.contains("costs");
        for (std::size_t c = 0; same && c < s.columns.size(); ++c)
          same = member<std::string>(row, s.columns[c].c_str(), path) == v.labels[c];
        if (same) v.costs = NetworkCosts::of(row["costs"], path);
      }
    all = all && (v.costs.known() || s.scores(k).empty());
  }
  return all;
}

StudySays study_says(const Study& s) {
  StudySays says;
  const std::string minus = "minus " + s.baseline + ", paired 95 %";
  says.table.head = s.columns;
  says.table.head.insert(says.table.head.end(),
                         {s.figure.name + str(", seeds: ", s.seeds), "deviation", minus});
  if (s.over_epochs)
    says.table.head.insert(says.table.head.end(), {"mean of all evaluations", "deviation", minus});
  says.costs.head = s.columns;
  const std::vector<std::string> costs = NetworkCosts::names();
  says.costs.head.insert(says.costs.head.end(), costs.begin(), costs.end());
  const bool grouped = std::any_of(s.variants.begin(), s.variants.end(),
                                   [](const StudyVariant& v) { return !v.heading.empty(); });
  for (std::size_t k = 0; k < s.variants.size(); ++k) {
    const StudyVariant& v = s.variants[k];
    if (!v.heading.empty()) says.intervals.push_back({v.heading});
    if (s.scores(k).empty()) {
      says.missing.push_back(detail::joined(v.labels));
      continue;
    }
    const auto compared = [&](double RunScore::*of) {
      return detail::compare(
          grouped ? v.labels.back() : s.name_of(k), s.values(k, of),
          v.baseline && *v.baseline != k ? s.values(*v.baseline, of) : std::vector<double>{},
          s.baseline);
    };
    detail::Comparison last = compared(&RunScore::last);
    if (last.row) says.intervals.push_back(*last.row);
    for (std::size_t c = 0; c < s.columns.size(); ++c) last.json[s.columns[c]] = v.labels[c];
    std::vector<std::string> row = v.labels;
    row.insert(row.end(), last.cells.begin(), last.cells.end());
    if (s.over_epochs) {
      const detail::Comparison mean = compared(&RunScore::over_epochs);
      last.json["over_epochs"] = mean.json;
      row.insert(row.end(), mean.cells.begin(), mean.cells.end());
    }
    says.table.rows.push_back(row);
    if (v.costs.known()) {
      row = v.labels;
      const std::vector<std::string> cells = v.costs.cells();
      row.insert(row.end(), cells.begin(), cells.end());
      says.costs.rows.push_back(row);
      last.json["costs"] = v.costs.json();
    }
    says.rows.push_back(std::move(last.json));
  }
  return says;
}

MadeStudy write_study(const Study& s, const IntervalOptions& drawn, bool picture,
                      StudyObserver& observer) {
  MadeStudy made{s, study_says(s)};
  const StudySays& says = made.says;
  observer.says(s, says);
  const std::string base = s.out + "/" + s.name;
  Json all{{"options", s.options}, {"figure", s.figure.name}};
  if (!says.costs.rows.empty()) all["how_costs"] = s.how_costs;
  all["rows"] = says.rows;
  std::filesystem::create_directories(s.out);
  for (const Reach& r : s.reaches) all["reach"].push_back(json_of(r));
  if (!s.reaches.empty()) all["how_reach"] = s.how_reaches;
  write_file(base + ".json", all.dump(1) + "\n");
  std::vector<u8> reaches;
  if (!s.reaches.empty()) {
    reaches = encode_png(reach_picture(s.reaches, 5).image(), base + "_reach.png");
    write_file(base + "_reach.png", reaches);
  }
  write_file(base + ".html", std::string_view(detail::study_page(s, says, drawn, reaches)));
  made.files = {base + ".json", base + ".html"};
  if (!s.reaches.empty()) made.files.push_back(base + "_reach.png");
  if (picture && says.compares()) {
    write_png(base + ".png", intervals(says.intervals, drawn).image());
    made.files.push_back(base + ".png");
  }
  return made;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
