#pragma once
#include "ppma/core/names_begin.hpp"
// How a run did, by its log, and tables of it.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ppma/commands/json.hpp"
#include "ppma/vis/curve.hpp"

namespace ppma::inline PPMA_ABI {

/// What is told of a task: the figure on the test images, and where a run's log has it.
struct TaskFigure {
  std::string name;                                       // "accuracy"
  std::vector<std::pair<std::string, std::string>> keys;  // itself, and of averaged weights
  double scale = 1;                                       // to percent
  std::string loss;                                       // of training

  /// That of a task.
  PPMA_API static TaskFigure of(const std::string& task);
  /// Of a line of the log, in percent; nothing where the epoch was not evaluated.
  PPMA_API std::optional<double> in(const Json& record) const;
};

/// How a run did: its figure in the end and as the mean of all evaluations, and both over epochs.
struct RunScore {
  double last = 0, over_epochs = 0;
  Series figure{}, loss{};
};

/// What the log of a run in `folder` says; nothing where it has fewer than `epochs`. Errors: a line
/// that is no record; no epoch that was evaluated.
PPMA_API std::optional<RunScore> score_of_log(const std::string& folder, const std::string& task,
                                              i64 epochs);

/// Rows of text under a head.
struct TextTable {
  std::vector<std::string> head;
  std::vector<std::vector<std::string>> rows{};

  /// As Markdown, with columns of one width.
  PPMA_API std::string text() const;
};

namespace detail {

/// A figure of the table; what is not known, as the deviation of one run, is "?".
PPMA_API std::string fixed(const char* format, double value);

/// The mean of several runs' series of the same places, as far as all go.
PPMA_API Series mean_series(const std::string& name, const std::vector<const Series*>& all);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <sstream>

#include "ppma/commands/network.hpp"
#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

TaskFigure TaskFigure::of(const std::string& task) {
  if (task == "segment") return {"mIoU", {{"mIoU", "ema_mIoU"}}, 100, "loss"};
  if (task == "detect")
    return {"mAP", {{"segm_mAP", "ema_segm_mAP"}, {"bbox_mAP", "ema_bbox_mAP"}}, 100, "loss"};
  return {"accuracy", {{"test_acc1", "test_ema_acc1"}}, 1, "train_loss"};
}

std::optional<double> TaskFigure::in(const Json& record) const {
  for (const auto& [own, averaged] : keys)
    for (const std::string& key : {averaged, own})
      if (double value = -1; read_member(record, key.c_str(), "log.jsonl", value), value >= 0)
        return scale * value;
  return {};
}

namespace detail {

/// Objects of a file that has one a line; none where there is no file. Error: a line is no JSON.
inline std::vector<Json> json_lines(const std::string& path) {
  std::vector<Json> all;
  if (!std::filesystem::exists(path)) return all;
  std::istringstream lines(read_text(path));
  for (std::string line; std::getline(lines, line);) all.push_back(parse_json(line, path));
  return all;
}

}  // namespace detail

std::optional<RunScore> score_of_log(const std::string& folder, const std::string& task,
                                     i64 epochs) {
  const std::string path = folder + "/log.jsonl";
  const std::vector<Json> log = detail::json_lines(path);
  const TaskFigure figure = TaskFigure::of(task);
  if (log.empty() || member<i64>(log.back(), "epoch", path) + 1 < epochs) return {};
  RunScore s;
  for (const Json& r : log) {
    const double epoch = static_cast<double>(member<i64>(r, "epoch", path) + 1);
    s.loss.x.push_back(epoch), s.loss.y.push_back(member<double>(r, figure.loss.c_str(), path));
    const std::optional<double> value = figure.in(r);
    if (!value) continue;
    s.last = *value, s.over_epochs += *value;
    s.figure.x.push_back(epoch), s.figure.y.push_back(*value);
  }
  check(!s.figure.y.empty(), path, ": no epoch has been evaluated");
  s.over_epochs /= static_cast<double>(s.figure.y.size());
  return s;
}

std::string TextTable::text() const {
  std::vector<std::size_t> widths;
  for (const std::string& h : head) widths.push_back(std::max<std::size_t>(3, h.size()));
  for (const auto& row : rows)
    for (std::size_t k = 0; k < row.size(); ++k) widths[k] = std::max(widths[k], row[k].size());
  std::string all;
  const auto line = [&](const std::vector<std::string>& cells) {
    all += "|";
    for (std::size_t k = 0; k < cells.size(); ++k)
      all += " " + cells[k] + std::string(widths[k] - cells[k].size(), ' ') + " |";
    all += "\n";
  };
  line(head);
  std::vector<std::string> dashes;
  for (const std::size_t w : widths) dashes.emplace_back(w, '-');
  line(dashes);
  for (const auto& row : rows) line(row);
  return all;
}

std::string detail::fixed(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return is_finite(value) ? text : "?";
}

Series detail::mean_series(const std::string& name, const std::vector<const Series*>& all) {
  Series mean{name, all.front()->x, {}};
  for (const Series* s : all) mean.x.resize(std::min(mean.x.size(), s->x.size()));
  mean.y.assign(mean.x.size(), 0);
  for (const Series* s : all)
    for (std::size_t i = 0; i < mean.y.size(); ++i)
      mean.y[i] += s->y[i] / static_cast<double>(all.size());
  return mean;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
