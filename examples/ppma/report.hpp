#pragma once
// OUT/report.html of a classifier's run: made anew after every evaluation, of what that said.

#include <chrono>
#include <ctime>

#include "class_table.hpp"
#include "data.hpp"
#include "ppma/kernels/instruction_set.hpp"
#include "ppma/train/classification.hpp"
#include "ppma/vis/report.hpp"
#include "progress.hpp"
#include "training_run.hpp"

namespace tool {

/// A classifier's log as curves over epochs.
struct LogCurves {
  std::vector<Series> accuracies, losses, rates;
  explicit LogCurves(const std::vector<ClassifierRecord>& log) {
    Series acc1{"top-1", {}, {}}, ema1{"averaged", {}, {}}, train_loss{"training", {}, {}},
        test_loss{"test", {}, {}}, rate{"", {}, {}};
    for (const ClassifierRecord& r : log) {
      const double epoch = static_cast<double>(r.epoch + 1);
      const auto add = [&](Series& s, double y) { s.x.push_back(epoch), s.y.push_back(y); };
      add(train_loss, r.train_loss), add(rate, r.train_lr);
      if (r.test) add(acc1, r.test->acc1), add(test_loss, r.test->loss);
      if (r.test_ema) add(ema1, r.test_ema->acc1);
    }
    losses.push_back(train_loss), rates.push_back(rate);
    if (!acc1.x.empty()) accuracies.push_back(acc1), losses.push_back(test_loss);
    if (!ema1.x.empty()) accuracies.push_back(ema1);
  }
};

/// Whether the averaged weights are those that count.
inline bool averaged_counts(const ClassifierRecord& r) {
  return r.test_ema && (!r.test || r.test_ema->acc1 >= r.test->acc1);
}

/// The members of an object, as rows; those that say nothing are left out.
inline ReportTable table_of(const std::string& title, const Json& j) {
  ReportTable t{title, {}};
  for (const auto& [key, value] : j.items()) {
    const std::string text = value.is_string() ? value.get<std::string>() : value.dump();
    if (!text.empty() && text != "null") t.rows.emplace_back(key, text);
  }
  return t;
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

class RunReport {
 public:
  /// `options` and `network` as in train.json and config.json; of `processes` processes.
  RunReport(Json options, Json network, const Data& data, const ComputeOptions& compute,
            i64 processes)
      : options_(std::move(options)),
        network_(std::move(network)),
        data_(data),
        compute_(compute),
        processes_(processes) {}

  /// Hears of every batch: that is how it knows how long training took, and what testing did.
  void batch(const StepReport& r) { images_ = r.images, trained_ = seconds(); }

  /// Whether the page in the folder is of an epoch before the last evaluation, or there is none.
  static bool is_behind(const RunFolder& folder) {
    const std::vector<ClassifierRecord> log = read_log(folder.path("log.jsonl"));
    const std::string path = folder.path("report.html");
    if (log.empty() || !log.back().test) return false;
    std::error_code absent;
    return !std::filesystem::exists(path, absent) ||
           report_epoch(read_text(path)) != log.back().epoch + 1;
  }

  /// Writes the page of the epoch that the log ends with, in which `said` was said of the test set.
  void write(const RunFolder& folder, const std::vector<Prediction>& said) const {
    const std::vector<ClassifierRecord> log = read_log(folder.path("log.jsonl"));
    const ClassifierRecord& last = log.back();
    const bool averaged = averaged_counts(last);
    const Evaluation& e = averaged ? *last.test_ema : *last.test;
    Report r;
    const i64 epochs = options_.value("epochs", i64{0});
    r.title = str(network_.value("name", std::string("network")), " on ", data_.test.name);
    r.epoch = last.epoch + 1;
    r.subtitle =
        str("after epoch ", r.epoch, " of ", epochs, averaged ? ", by the average" : ", by the",
            averaged ? " of its weights" : " weights themselves", ", on ",
            grouped_digits(data_.test.size), " test images");
    r.classes = data_.test.class_names;
    r.confusion = Confusion(data_.test.classes(), said);
    const Confusion& c = r.confusion;
    r.figures = {{percent(c.top1(), 2) + " %", "top-1"},
                 {percent(c.top5(), 2) + " %", "top-5"},
                 {percent(c.mean_f1(), 2) + " %", "mean F1 of the classes"},
                 {percent(c.calibration_error(), 2) + " %", "calibration error"},
                 {str_of(e.loss, 4), "loss on the test images"},
                 {str_of(folder.best(), 2) + " %", "best top-1 so far"}};
    const LogCurves curves(log);
    r.charts = {{"Top-1 on the test images, %", curves.accuracies},
                {"Cross entropy", curves.losses},
                {"Learning rate", curves.rates}};
    add_images(r, said);
    r.tables = {table_of("Options", options_), table_of("Configuration", network_), data_table(),
                environment(), timings(log)};
    write_file(folder.path("report.html"), std::string_view(report_html(r)));
  }

  /// The epoch after what was written begins.
  void next_epoch() { begin_ = seconds(), trained_ = begin_, images_ = 0; }

 private:
  static double seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
  static std::string str_of(double value, int decimals) {
    char text[48];
    std::snprintf(text, sizeof text, "%.*f", decimals, value);
    return text;
  }

  /// The twelve right ones and the twelve wrong ones that it is most sure of, as the network saw
  /// them.
  void add_images(Report& r, std::vector<Prediction> said) const {
    std::stable_sort(said.begin(), said.end(), [](const Prediction& a, const Prediction& b) {
      return a.confidence > b.confidence;
    });
    Rng unused;
    for (const Prediction& p : said) {
      std::vector<ReportImage>& to = p.right() ? r.right : r.wrong;
      if (to.size() == 12) continue;
      const Sample sample = data_.test.get(p.sample);
      const std::size_t slash = sample.name.rfind('/');  // a file's name has one
      to.push_back({data_.prepare(sample.image, unused), p,
                    slash == std::string::npos ? "" : sample.name.substr(slash + 1)});
    }
  }

  ReportTable data_table() const {
    const InputInfo& in = data_.input;
    return {"Data",
            {{"set", data_.test.name},
             {"classes", str(data_.test.classes())},
             {"training images", grouped_digits(data_.train.size)},
             {"test images", grouped_digits(data_.test.size)},
             {"image", str(in.size, " x ", in.size, " pixels")},
             {"of the shorter side", str_of(100 * in.crop, 1) + " %"}}};
  }

  ReportTable environment() const {
    const std::time_t now = std::time(nullptr);
    char date[40] = "";
    if (const std::tm* utc = std::gmtime(&now))
      std::strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", utc);
    return {"Environment",
            {{"ppma", str(PPMA_VERSION_MAJOR, ".", PPMA_VERSION_MINOR, ".", PPMA_VERSION_PATCH)},
             {"compiler", compiler_name()},
             {"CPU kernels", instruction_set()},
             {"device", compute_.device == "cuda" ? str("cuda, GPU ", cuda::device_number())
                                                  : compute_.device},
             {"element type", compute_.dtype},
             {"threads", str(threads())},
             {"processes", str(processes_)},
             {"seed", options_.contains("seed") ? options_["seed"].dump() : "0"},
             {"written", date}}};
  }

  ReportTable timings(const std::vector<ClassifierRecord>& log) const {
    double all = 0;
    for (const ClassifierRecord& r : log) all += r.seconds;
    const ClassifierRecord& last = log.back();
    ReportTable t{
        "Timings",
        {{"all epochs", clock_text(all)}, {"this epoch", str_of(last.seconds, 1) + " s"}}};
    const double training = trained_ - begin_, testing = last.seconds - training;
    if (images_ == 0) return t;  // it was not trained in this process
    const double tested = static_cast<double>(data_.test.size * (last.test_ema ? 2 : 1));
    t.rows.emplace_back(
        "training",
        str_of(static_cast<double>(images_) / std::max(1e-9, training), 0) + " images/s");
    if (testing > 0) t.rows.emplace_back("testing", str_of(tested / testing, 0) + " images/s");
    if (const double peak = peak_memory_mib(); peak > 0)
      t.rows.emplace_back("memory at most", str_of(peak, 0) + " MiB");
    return t;
  }

  Json options_, network_;
  const Data& data_;
  ComputeOptions compute_;
  i64 processes_, images_ = 0;
  double begin_ = seconds(), trained_ = begin_;
};

}  // namespace tool
