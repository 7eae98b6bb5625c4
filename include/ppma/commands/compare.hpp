#pragma once
#include "ppma/core/names_begin.hpp"
// How runs differ, in what they were told and in how they did: tables and a page with all curves.
// Runs that differ in the seed alone are one row: mean and 95 % interval.

#include <map>
#include <string>
#include <vector>

#include "ppma/commands/run_scores.hpp"

namespace ppma::inline PPMA_ABI {

/// Runs that differ in their seed alone.
struct RunGroup {
  std::vector<std::string> runs{};  // folders
  std::map<std::string, std::string> told{};
  std::vector<RunScore> scores{};
};

/// What is to be said of runs.
struct RunComparison {
  std::vector<RunGroup> groups{};
  std::vector<std::string> keys{};  // of what not all were told alike
  TextTable differences{}, table{};
  std::string page{};  // HTML, with the curves
};

/// Compares the runs in these folders. Errors: a folder without a run, or whose log has no epoch;
/// runs of several tasks.
PPMA_API RunComparison compare_runs(const std::vector<std::string>& runs);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "ppma/commands/network.hpp"
#include "ppma/metrics/interval.hpp"
#include "ppma/vis/page.hpp"
#include "ppma/vis/svg.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The members of an object, those of objects within by their paths ("backbone.mask").
inline void flatten(const Json& j, const std::string& prefix,
                    std::map<std::string, std::string>& into) {
  for (const auto& [key, value] : j.items()) {
    if (value.is_object())
      flatten(value, prefix + key + ".", into);
    else
      into[prefix + key] = value.is_string() ? value.get<std::string>() : value.dump();
  }
}

/// Everything that a run was told but for its seed: options, and its network as "network. ...".
inline std::map<std::string, std::string> told_of(const std::string& run) {
  std::map<std::string, std::string> told;
  const std::string options = run + "/train.json", network = run + "/config.json";
  check(std::filesystem::exists(options), run, ": is no run's folder, it has no train.json");
  flatten(parse_json(read_text(options), options), "", told);
  if (std::filesystem::exists(network))
    flatten(parse_json(read_text(network), network), "network.", told);
  told.erase("seed");
  return told;
}

inline std::vector<RunGroup> groups_of(const std::vector<std::string>& runs) {
  std::vector<RunGroup> groups;
  std::string task, first;
  for (std::string run : runs) {
    while (run.size() > 1 && run.back() == '/') run.pop_back();
    const auto told = told_of(run);
    const std::string its = told.contains("task") ? told.at("task") : "classify";
    if (task.empty()) task = its, first = run;
    check(its == task, run, ": its task is ", its, ", that of ", first, " is ", task,
          "; compare runs of one task");
    const std::optional<RunScore> score = score_of_log(run, task, 0);
    check(score.has_value(), run, ": has no epoch in its log.jsonl yet");
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const RunGroup& g) { return g.told == told; });
    if (group == groups.end()) {
      groups.push_back({{}, told, {}});
      group = groups.end() - 1;
    }
    group->runs.push_back(run), group->scores.push_back(*score);
  }
  return groups;
}

/// What not all groups were told alike; a network's name says nothing that its values do not.
inline std::vector<std::string> differing(const std::vector<RunGroup>& groups) {
  std::vector<std::string> keys;
  std::map<std::string, std::string> all;
  for (const RunGroup& g : groups) all.insert(g.told.begin(), g.told.end());
  for (const auto& [key, value] : all) {
    const bool same = std::all_of(groups.begin(), groups.end(), [&, &k = key](const RunGroup& g) {
      const auto at = g.told.find(k), one = groups.front().told.find(k);
      return (at == g.told.end()) == (one == groups.front().told.end()) &&
             (at == g.told.end() || at->second == one->second);
    });
    if (!same) keys.push_back(key);
  }
  if (keys.size() > 1)
    std::erase_if(keys, [](const std::string& key) { return key.ends_with("name"); });
  return keys;
}

}  // namespace detail

RunComparison compare_runs(const std::vector<std::string>& runs) {
  RunComparison r;
  r.groups = detail::groups_of(runs), r.keys = detail::differing(r.groups);
  const auto& told = r.groups.front().told;
  const TaskFigure figure =
      TaskFigure::of(told.contains("task") ? told.at("task") : std::string("classify"));
  r.differences.head = {"run"};
  r.table.head = {"run",       "runs", figure.name,        "95 % interval",
                  "deviation", "best", "loss in training", "epochs"};
  r.differences.head.insert(r.differences.head.end(), r.keys.begin(), r.keys.end());
  std::vector<Series> figures, losses;
  for (const RunGroup& g : r.groups) {
    const std::string name =
        std::filesystem::path(g.runs.front()).filename().string() +
        (g.runs.size() > 1 ? str(" and ", g.runs.size() - 1, " more") : std::string());
    std::vector<std::string> row{name};
    for (const std::string& key : r.keys)
      row.push_back(g.told.contains(key) ? g.told.at(key) : std::string("-"));
    r.differences.rows.push_back(row);
    std::vector<double> last, best, loss;
    std::vector<const Series*> of_figure, of_loss;
    for (const RunScore& s : g.scores) {
      last.push_back(s.last), loss.push_back(s.loss.y.back());
      best.push_back(*std::max_element(s.figure.y.begin(), s.figure.y.end()));
      of_figure.push_back(&s.figure), of_loss.push_back(&s.loss);
    }
    const Interval mean = mean_interval(last);
    r.table.rows.push_back(
        {name, str(g.runs.size()), detail::fixed("%.2f %%", mean.mean),
         g.runs.size() > 1
             ? detail::fixed("%.2f", mean.low) + " to " + detail::fixed("%.2f", mean.high)
             : "-",
         detail::fixed("%.2f", mean.deviation), detail::fixed("%.2f %%", mean_interval(best).mean),
         detail::fixed("%.4f", mean_interval(loss).mean),
         detail::fixed("%.0f", g.scores.front().loss.x.back())});
    figures.push_back(detail::mean_series(detail::shortened(name, 28), of_figure));
    losses.push_back(detail::mean_series(detail::shortened(name, 28), of_loss));
  }

  Page page{str("Comparison of ", runs.size(), runs.size() == 1 ? " run" : " runs"),
            str(r.groups.size(), r.groups.size() == 1 ? " configuration" : " configurations", "; ",
                figure.name, " on the test images"),
            {}};
  page.sections.push_back({"Figures of the last evaluation, means of runs that differ in the seed",
                           {{"", html_table(r.table.head, r.table.rows), true}}});
  if (!r.keys.empty())
    page.sections.push_back(
        {"What differs", {{"", html_table(r.differences.head, r.differences.rows), true}}});
  PageSection curves{"Curves", {}};
  for (const auto& [title, series] : {std::pair{figure.name + " on the test images, %", &figures},
                                      std::pair{std::string("loss in training"), &losses}})
    curves.cards.push_back(
        {title,
         svg_curves(*series, {.title = title, .x_label = "epoch", .width = 500, .height = 320})
             .in_page()});
  page.sections.push_back(curves);
  std::vector<std::vector<std::string>> folders;
  for (const RunGroup& g : r.groups)
    for (const std::string& run : g.runs) folders.push_back({g.runs.front(), run});
  page.sections.push_back({"Folders", {{"", html_table({}, folders), true}}});
  r.page = page_html(page);
  return r;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
