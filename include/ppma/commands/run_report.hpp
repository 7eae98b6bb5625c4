#pragma once
#include "ppma/core/names_begin.hpp"
// OUT/report.html of a run, made anew after every evaluation of what that said, and its curves as
// pictures. What is of one task: classifier_report.hpp, dense_report.hpp.

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "ppma/commands/machine.hpp"
#include "ppma/commands/run_decays.hpp"
#include "ppma/commands/training_run.hpp"
#include "ppma/core/gpu.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/io/image.hpp"
#include "ppma/kernels/instruction_set.hpp"
#include "ppma/metrics/confusion.hpp"
#include "ppma/models/summary.hpp"
#include "ppma/vis/confusion_picture.hpp"
#include "ppma/vis/curve.hpp"
#include "ppma/vis/report.hpp"
#include "ppma/vis/svg_file.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// A figure of a log over its epochs, times `scale`; those that lack it are left out.
inline Series series_of(const std::vector<Json>& log, const std::string& key, std::string name,
                        double scale = 1) {
  Series s{std::move(name), {}, {}};
  for (const Json& r : log)
    if (const auto it = r.find(key); it != r.end() && it->is_number()) {
      s.x.push_back(member<double>(r, "epoch", "log.jsonl") + 1);
      s.y.push_back(scale * it->get<double>());
    }
  return s;
}

/// A chart of those that have a point.
inline ReportChart chart_of(std::string title, std::vector<Series> series) {
  std::erase_if(series, [](const Series& s) {
    return std::none_of(s.y.begin(), s.y.end(), [](double y) { return is_finite(y); });
  });
  return {std::move(title), std::move(series)};
}

/// Charts without a line are left out.
inline std::vector<ReportChart> drawn_charts(std::vector<ReportChart> charts) {
  std::erase_if(charts, [](const ReportChart& c) { return c.series.empty(); });
  return charts;
}

/// OUT/curve.png and curve.svg: the first `most` charts below each other.
inline void draw_curves(const RunFolder& folder, std::vector<ReportChart> charts,
                        std::size_t most = 2) {
  charts.resize(std::min(most, charts.size()));
  charts = drawn_charts(std::move(charts));
  if (charts.empty()) return;
  std::vector<Picture> pictures;
  std::vector<Svg> drawings;
  i64 height = 0;
  for (const ReportChart& c : charts) {
    pictures.push_back(curves(c.series, {.title = c.title, .x_label = "epoch"}));
    drawings.push_back(
        svg_curves(c.series, {.title = c.title, .x_label = "epoch", .width = 640, .height = 320}));
    height += pictures.back().height();
  }
  Picture sheet(pictures[0].width(), height);
  height = 0;
  for (const Picture& p : pictures) sheet.paste(0, height, p.image()), height += p.height();
  write_png(folder.path("curve.png"), sheet.image());
  write_file(folder.path("curve.svg"), std::string_view(svg_file(drawings)));
}

/// OUT/confusion.png and confusion.svg; of more classes than can be seen there are none.
inline void draw_confusion(const RunFolder& folder, const Confusion& confusion,
                           const std::vector<std::string>& classes,
                           const ConfusionOptions& options) {
  if (classes.size() > 4000) return;
  write_png(folder.path("confusion.png"),
            confusion_picture(confusion, printable_names(classes), options).image());
  write_file(folder.path("confusion.svg"),
             std::string_view(svg_file({svg_confusion(confusion, classes, options)})));
}

/// Whether the average of the weights is what counts of a record.
inline bool averaged_counts(const Json& record, const std::string& key,
                            const std::string& averaged_key) {
  const double averaged = figure_of(record, averaged_key);
  return averaged >= 0 && averaged >= figure_of(record, key);
}

/// The options that say something of the run: those of other data than its own are left out.
inline Json told_options(Json options) {
  const std::string data = options.value("data", std::string());
  const bool made = data == "shapes" || data == "paths", paths = data == "paths",
             dense = options.value("task", std::string()) != "classify";
  const auto drop = [&](bool unused, std::initializer_list<const char*> keys) {
    for (const char* key : keys)
      if (unused) options.erase(key);
  };
  drop(!paths, {"question", "difficulty"});
  drop(!made, {"images", "test_images"});
  drop(dense || (data != "folder" && data != "csv" && data != "tar"), {"no_exif"});
  drop(dense && !made, {"size"});
  drop(dense && made, {"longer", "shorter"});
  const std::string task = options.value("task", std::string());
  std::string schedule = options.value("schedule", std::string());
  if (schedule.empty())
    schedule = task == "segment" ? "poly" : task == "detect" ? "step" : "cosine";
  if (options.contains("schedule")) options["schedule"] = schedule;
  const bool sgd = options.value("optimizer", std::string()) == "sgd";
  drop(schedule != "step", {"steps"});
  drop(schedule != "cosine", {"final_lr"});
  drop(sgd, {"beta2"});
  drop(!sgd, {"momentum", "nesterov"});
  drop(options.value("ema", 0.0) == 0, {"ema_plain"});
  drop(options.value("rand_augment", 0.0) == 0, {"rand_changes"});
  drop(options.value("size", i64{0}) == 0, {"size"});  // the table of data says which
  return options;
}

/// The members of an object as rows, those that say nothing left out; what is an object itself has
/// a table of its own.
inline std::vector<ReportTable> tables_of(const std::string& title, const Json& j) {
  std::vector<ReportTable> tables{{title, {}}};
  for (const auto& [key, value] : j.items()) {
    if (value.is_object()) {
      const std::vector<ReportTable> more = tables_of(title + ": " + key, value);
      tables.insert(tables.end(), more.begin(), more.end());
      continue;
    }
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (!text.empty() && text != "null") tables[0].rows.emplace_back(key, text);
  }
  if (tables[0].rows.empty()) tables.erase(tables.begin());
  return tables;
}

/// What made this program.
inline std::string compiler_name() {
#if defined(__clang__)
  return str("clang ", __clang_version__);
#elif defined(__GNUC__)
  return str("GCC ", __VERSION__);
#else
  return "unknown";
#endif
}

/// What a report says of a run besides figures.
struct ReportFacts {
  Json options, network;  // as in train.json and config.json
  std::string network_name, set;
  std::vector<std::string> classes;
  i64 training_images = 0, test_images = 0;
  std::vector<std::pair<std::string, std::string>> data{};  // more of the images
  ComputeOptions compute{};
  i64 processes = 1;
  std::string key, averaged_key;  // of the figure in the log
};

class RunReport {
 public:
  explicit RunReport(ReportFacts facts) : facts_(std::move(facts)) {}

  /// Hears of every batch: that is how it knows how long training took, and what testing did.
  void batch(const StepReport& r) { images_ = r.images, trained_ = seconds(); }

  /// Whether the page in the folder is of an epoch before the last evaluation, or there is none.
  bool is_behind(const RunFolder& folder) const {
    const std::string path = folder.path("report.html");
    if (folder.records().empty() || !was_tested(folder.records().back())) return false;
    std::error_code absent;
    return !std::filesystem::exists(path, absent) ||
           report_epoch(read_text(path)) !=
               member<i64>(folder.records().back(), "epoch", "log.jsonl") + 1;
  }
  /// Whether the averaged weights are those that count in the last record.
  bool averaged(const RunFolder& folder) const {
    return averaged_counts(folder.records().back(), facts_.key, facts_.averaged_key);
  }
  const std::vector<std::string>& classes() const { return facts_.classes; }

  /// Writes the page of the epoch that the log ends with: what `r` has of the task, and all else.
  void write(const RunFolder& folder, Report r) const {
    const Json& last = folder.records().back();
    const bool average = averaged(folder);
    r.title = str(facts_.network_name, " on ", facts_.set);
    r.epoch = member<i64>(last, "epoch", "log.jsonl") + 1;
    r.subtitle = str("after epoch ", r.epoch, " of ", facts_.options.value("epochs", i64{0}),
                     average ? ", by the average" : ", by the",
                     average ? " of its weights" : " weights themselves", ", on ",
                     grouped_digits(facts_.test_images), " test images");
    r.classes = facts_.classes;
    r.charts = drawn_charts(std::move(r.charts));
    r.decays = RunDecays::kept(folder);
    r.tables = tables_of("Options", told_options(facts_.options));
    for (ReportTable& t : tables_of("Configuration", facts_.network))
      r.tables.push_back(std::move(t));
    r.tables.insert(r.tables.end(), {data_table(), environment(), timings(folder.records())});
    write_file(folder.path("report.html"), std::string_view(report_html(r)));
  }

  /// The epoch after what was written begins.
  void next_epoch() { begin_ = seconds(), trained_ = begin_, images_ = 0; }

 private:
  static double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  bool was_tested(const Json& r) const {
    return r.contains(facts_.key) || r.contains(facts_.averaged_key);
  }

  ReportTable data_table() const {
    ReportTable t{"Data",
                  {{"set", facts_.set},
                   {"classes", str(facts_.classes.size())},
                   {"training images", grouped_digits(facts_.training_images)},
                   {"test images", grouped_digits(facts_.test_images)}}};
    for (const auto& row : facts_.data)
      if (!row.second.empty()) t.rows.push_back(row);
    return t;
  }

  ReportTable environment() const {
    const std::time_t now = std::time(nullptr);
    char date[40] = "";
    if (const std::tm* utc = std::gmtime(&now))
      std::strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", utc);
    const ComputeOptions& compute = facts_.compute;
    return {"Environment",
            {{"ppma", str(PPMA_VERSION_MAJOR, ".", PPMA_VERSION_MINOR, ".", PPMA_VERSION_PATCH)},
             {"compiler", compiler_name()},
             {"CPU kernels", instruction_set()},
             {"device",
              compute.device == "cuda" ? str("cuda, GPU ", cuda::device_number()) : compute.device},
             {"element type", compute.dtype},
             {"threads", str(threads())},
             {"processes", str(facts_.processes)},
             {"seed", facts_.options.contains("seed") ? facts_.options["seed"].dump() : "0"},
             {"written", date}}};
  }

  ReportTable timings(const std::vector<Json>& log) const {
    const auto of = [](const Json& r) { return std::max(0.0, figure_of(r, "seconds")); };
    double all = 0;
    for (const Json& r : log) all += of(r);
    const double last = of(log.back());
    ReportTable t{"Timings",
                  {{"all epochs", clock_text(all)}, {"this epoch", decimal(last, 1) + " s"}}};
    const double training = trained_ - begin_, testing = last - training;
    if (images_ == 0) return t;  // it was not trained in this process
    const i64 tests = log.back().contains(facts_.averaged_key) ? 2 : 1;
    const auto rate = [](i64 images, double took) {
      const double r = static_cast<double>(images) / std::max(1e-9, took);
      return decimal(r, r < 10 ? 1 : 0) + " images/s";
    };
    t.rows.emplace_back("training", rate(images_, training));
    if (testing > 0) t.rows.emplace_back("testing", rate(facts_.test_images * tests, testing));
    if (const double peak = peak_memory_mib(); peak > 0)
      t.rows.emplace_back("memory at most", decimal(peak, 0) + " MiB");
    return t;
  }

  ReportFacts facts_;
  i64 images_ = 0;
  double begin_ = seconds(), trained_ = begin_;
};

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
