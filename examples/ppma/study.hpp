#pragma once
// What trials say together (trials.hpp): a table, NAME.json, NAME.png, NAME.html, in the folder of
// the runs.

#include "costs.hpp"
#include "ppma/metrics/interval.hpp"
#include "ppma/vis/confusion_picture.hpp"
#include "ppma/vis/intervals.hpp"
#include "ppma/vis/page.hpp"
#include "trials.hpp"

namespace tool {

/// What is trained with several seeds.
struct Variant {
  std::vector<std::string> labels;        // a cell of each column: "whole", "polyline"
  std::optional<std::size_t> baseline{};  // the variant that it is compared with
  std::string heading{};                  // above it in the picture, where it begins a group
  Costs costs{};
};

struct Study {
  std::string name, out, title;      // "ablation", the folder, what is studied
  std::vector<std::string> columns;  // of the labels: "structure", "mask"
  std::string baseline;              // what differences are from: "none"
  TaskFigure figure;
  bool over_epochs = false;  // runs are evaluated more than once
  i64 seeds = 0;
  Json options{};           // that all have
  std::string how_costs{};  // were measured
  std::vector<Variant> variants{};
  std::vector<Trial> trials{};

  /// What its runs did, seed by seed; empty: not all are trained.
  std::vector<const Score*> scores(std::size_t variant) const {
    std::vector<const Score*> all;
    for (const Trial& t : trials)
      if (t.variant == variant && t.score) all.push_back(&*t.score);
    return static_cast<i64>(all.size()) == seeds ? all : std::vector<const Score*>{};
  }
  /// What tells a variant apart: the labels of the columns that differ.
  std::string name_of(std::size_t variant) const {
    std::string text;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      const bool differs = std::any_of(variants.begin(), variants.end(), [&](const Variant& v) {
        return v.labels[c] != variants.front().labels[c];
      });
      if (differs) text += (text.empty() ? "" : " ") + variants[variant].labels[c];
    }
    return ppma::detail::shortened(text.empty() ? variants[variant].labels.back() : text, 28);
  }
  std::vector<double> values(std::size_t variant, double Score::*of) const {
    std::vector<double> all;
    for (const Score* s : scores(variant)) all.push_back(s->*of);
    return all;
  }
};

/// Takes the costs that an earlier call has written down; whether every trained variant has some,
/// so that none need be measured.
inline bool take_costs(Study& s) {
  const std::string path = s.out + "/" + s.name + ".json";
  if (!std::filesystem::exists(path)) return false;
  const Json j = parse_json(read_text(path), path);
  read_member(j, "how_costs", path, s.how_costs);
  bool all = true;
  for (std::size_t k = 0; k < s.variants.size(); ++k) {
    Variant& v = s.variants[k];
    if (j.contains("rows") && j["rows"].is_array())
      for (const Json& row : j["rows"]) {
        bool same = row.is_object() && row.contains("costs");
        for (std::size_t c = 0; same && c < s.columns.size(); ++c)
          same = member<std::string>(row, s.columns[c].c_str(), path) == v.labels[c];
        if (same) v.costs = Costs::of(row["costs"], path);
      }
    all = all && (v.costs.known() || s.scores(k).empty());
  }
  return all;
}

/// A figure of the table; what is not known, as the deviation of one run, is "?".
inline std::string fixed(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return is_finite(value) ? text : "?";
}

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

/// Rows of text under a head, as Markdown with columns of one width.
struct TextTable {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows{};

  void print() const {
    std::vector<std::size_t> widths;
    for (const std::string& h : head) widths.push_back(std::max<std::size_t>(3, h.size()));
    for (const auto& row : rows)
      for (std::size_t k = 0; k < row.size(); ++k) widths[k] = std::max(widths[k], row[k].size());
    const auto line = [&](const std::vector<std::string>& cells) {
      std::string text = "|";
      for (std::size_t k = 0; k < cells.size(); ++k)
        text += " " + cells[k] + std::string(widths[k] - cells[k].size(), ' ') + " |";
      std::printf("%s\n", text.c_str());
    };
    line(head);
    std::vector<std::string> dashes;
    for (const std::size_t w : widths) dashes.emplace_back(w, '-');
    line(dashes);
    for (const auto& row : rows) line(row);
  }
};

/// Everything that the trained variants say.
struct StudySays {
  TextTable table{}, costs{};
  Json rows = Json::array();
  std::vector<IntervalRow> intervals{};
  std::vector<std::string> missing{};  // variants that are not trained yet

  bool compares() const {
    return std::any_of(intervals.begin(), intervals.end(),
                       [](const IntervalRow& r) { return !r.values.empty(); });
  }
};

inline std::string joined(const std::vector<std::string>& words, const char* between = " ") {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

inline StudySays study_says(const Study& s) {
  StudySays says;
  const std::string minus = "minus " + s.baseline + ", paired 95 %";
  says.table.head = s.columns;
  says.table.head.insert(says.table.head.end(),
                         {s.figure.name + str(", seeds: ", s.seeds), "deviation", minus});
  if (s.over_epochs)
    says.table.head.insert(says.table.head.end(), {"mean of all evaluations", "deviation", minus});
  says.costs.head = s.columns;
  const std::vector<std::string> costs = Costs::names();
  says.costs.head.insert(says.costs.head.end(), costs.begin(), costs.end());
  const bool grouped = std::any_of(s.variants.begin(), s.variants.end(),
                                   [](const Variant& v) { return !v.heading.empty(); });
  for (std::size_t k = 0; k < s.variants.size(); ++k) {
    const Variant& v = s.variants[k];
    if (!v.heading.empty()) says.intervals.push_back({v.heading});
    if (s.scores(k).empty()) {
      says.missing.push_back(joined(v.labels));
      continue;
    }
    const auto compared = [&](double Score::*of) {
      return compare(
          grouped ? v.labels.back() : s.name_of(k), s.values(k, of),
          v.baseline && *v.baseline != k ? s.values(*v.baseline, of) : std::vector<double>{},
          s.baseline);
    };
    Comparison last = compared(&Score::last);
    if (last.row) says.intervals.push_back(*last.row);
    for (std::size_t c = 0; c < s.columns.size(); ++c) last.json[s.columns[c]] = v.labels[c];
    std::vector<std::string> row = v.labels;
    row.insert(row.end(), last.cells.begin(), last.cells.end());
    if (s.over_epochs) {
      const Comparison mean = compared(&Score::over_epochs);
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

/// The mean of several runs' series of the same places, as far as all go.
inline Series mean_series(const std::string& name, const std::vector<const Series*>& all) {
  Series mean{name, all.front()->x, {}};
  for (const Series* s : all) mean.x.resize(std::min(mean.x.size(), s->x.size()));
  mean.y.assign(mean.x.size(), 0);
  for (const Series* s : all)
    for (std::size_t i = 0; i < mean.y.size(); ++i)
      mean.y[i] += s->y[i] / static_cast<double>(all.size());
  return mean;
}

/// NAME.html: table, intervals, learning curves (means over seeds) and costs.
inline std::string study_page(const Study& s, const StudySays& says, const IntervalOptions& drawn) {
  Page page{s.title,
            str(s.figure.name, " of the last epoch, ", s.seeds, s.seeds == 1 ? " seed" : " seeds"),
            {}};
  page.sections.push_back(
      {"Figures", {{"", html_table(says.table.head, says.table.rows, s.columns.size()), true}}});
  if (says.compares())
    page.sections.back().cards.push_back(
        {drawn.title, svg_intervals(says.intervals, drawn).in_page()});
  PageSection curves{"Learning curves, means of the seeds", {}};
  const auto chart = [&](const std::string& title, Series Score::*of) {
    std::vector<Series> series;
    for (std::size_t k = 0; k < s.variants.size(); ++k) {
      std::vector<const Series*> runs;
      for (const Score* score : s.scores(k)) runs.push_back(&(score->*of));
      if (!runs.empty()) series.push_back(mean_series(s.name_of(k), runs));
    }
    if (!series.empty())
      curves.cards.push_back(
          {title,
           svg_curves(series, {.title = title, .x_label = "epoch", .width = 500, .height = 320})
               .in_page()});
  };
  if (s.over_epochs) chart(s.figure.name + " on the test images, %", &Score::figure);
  chart("loss in training", &Score::loss);
  if (!curves.cards.empty()) page.sections.push_back(curves);
  if (!says.costs.rows.empty())
    page.sections.push_back(
        {"Costs",
         {{s.how_costs, html_table(says.costs.head, says.costs.rows, s.columns.size()), true}}});
  std::vector<std::vector<std::string>> options;
  for (const auto& [key, value] : s.options.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (!text.empty()) options.push_back({key, text});
  }
  page.sections.push_back({"Options of all runs", {{"", html_table({}, options)}}});
  return page_html(page);
}

/// The table on standard output, and the files; NAME.png where differences are to be drawn.
inline void write_study(const Study& s, const IntervalOptions& drawn, bool picture = true) {
  const StudySays says = study_says(s);
  std::printf("\n");
  says.table.print();
  if (!says.costs.rows.empty()) {
    std::printf("\n%s\n", s.how_costs.c_str());
    says.costs.print();
  }
  const std::string base = s.out + "/" + s.name;
  Json all{{"options", s.options}, {"figure", s.figure.name}};
  if (!says.costs.rows.empty()) all["how_costs"] = s.how_costs;
  all["rows"] = says.rows;
  std::filesystem::create_directories(s.out);
  write_file(base + ".json", all.dump(1) + "\n");
  write_file(base + ".html", std::string_view(study_page(s, says, drawn)));
  std::printf("\n%s.json, %s.html", base.c_str(), base.c_str());
  if (picture && says.compares()) {
    write_png(base + ".png", intervals(says.intervals, drawn).image());
    std::printf(", %s.png", base.c_str());
  }
  std::printf("\n");
  if (!says.missing.empty())
    std::printf("not all trained yet: %s\n", joined(says.missing, ", ").c_str());
}

}  // namespace tool
