#pragma once
#include "ppma/core/names_begin.hpp"
// A classifier's report: run_report.hpp has what all tasks share.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "ppma/commands/data.hpp"
#include "ppma/commands/run_report.hpp"
#include "ppma/train/classification.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline std::vector<ReportChart> classifier_charts(const std::vector<Json>& log) {
  return {chart_of("Top-1 on the test images, %", {series_of(log, "test_acc1", "top-1"),
                                                   series_of(log, "test_ema_acc1", "averaged")}),
          chart_of("Cross entropy",
                   {series_of(log, "train_loss", "training"), series_of(log, "test_loss", "test")}),
          chart_of("Learning rate", {series_of(log, "train_lr", "")})};
}

inline ReportFacts classifier_facts(Json options, Json network, const ClassifierData& data,
                                    const ComputeOptions& compute, i64 processes) {
  const InputInfo& in = data.input;
  const std::string name = network.value("name", std::string("network"));
  return {.options = std::move(options),
          .network = std::move(network),
          .network_name = name,
          .set = data.test.name,
          .classes = data.test.class_names,
          .training_images = data.train.size,
          .test_images = data.test.size,
          .data = {{"image", str(in.size, " x ", in.size, " pixels")},
                   {"of the shorter side", decimal(100 * in.crop, 1) + " %"}},
          .compute = compute,
          .processes = processes,
          .key = "test_acc1",
          .averaged_key = "test_ema_acc1"};
}

/// The twelve right ones and the twelve wrong ones that it is most sure of, as the network saw
/// them.
inline void add_images(ClassifierResults& r, const ClassifierData& data,
                       std::vector<Prediction> said) {
  std::stable_sort(said.begin(), said.end(), [](const Prediction& a, const Prediction& b) {
    return a.confidence > b.confidence;
  });
  Rng unused;
  for (const Prediction& p : said) {
    std::vector<ReportImage>& to = p.right() ? r.right : r.wrong;
    if (to.size() == 12) continue;
    const Sample sample = data.test.get(p.sample);
    const std::size_t slash = sample.name.rfind('/');  // a file's name has one
    to.push_back({data.prepare(sample.image, unused), p,
                  slash == std::string::npos ? "" : sample.name.substr(slash + 1)});
  }
}

/// The page and the confusion matrix of the epoch that the log ends with, in which `said` was said
/// of the test set.
inline void report_classifier(const RunReport& report, const RunFolder& folder,
                              const ClassifierData& data, const std::vector<Prediction>& said) {
  const Json& last = folder.records().back();
  ClassifierResults results{Confusion(data.test.classes(), said)};
  const Confusion& c = results.confusion;
  draw_confusion(folder, c, data.test.class_names,
                 {.title = str(data.test.name, ": ", grouped_digits(c.images()), " images, ",
                               percent(c.top1(), 1), " % right")});
  Report r;
  r.figures = {
      {percent(c.top1(), 2) + " %", "top-1"},
      {percent(c.top5(), 2) + " %", "top-5"},
      {percent(c.mean_f1(), 2) + " %", "mean F1 of the classes"},
      {percent(c.calibration_error(), 2) + " %", "calibration error"},
      {decimal(figure_of(last, report.averaged(folder) ? "test_ema_loss" : "test_loss"), 4),
       "loss on the test images"},
      {decimal(folder.best(), 2) + " %", "best top-1 so far"}};
  r.charts = classifier_charts(folder.records());
  add_images(results, data, said);
  r.results = std::move(results);
  report.write(folder, std::move(r));
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
