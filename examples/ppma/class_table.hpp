#pragma once
// What a classifier takes for what, as text and as JSON.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "common.hpp"
#include "ppma/metrics/confusion.hpp"
#include "ppma/vis/font.hpp"

namespace tool {

/// Names as a terminal may show them.
inline std::vector<std::string> shown_classes(std::vector<std::string> names) {
  for (std::string& name : names) name = shown_name(name);
  return names;
}

/// 0.94123 -> "94.1"; NaN -> "-".
inline std::string percent(double share, int decimals) {
  if (is_nan(share)) return "-";
  char text[32];
  std::snprintf(text, sizeof text, "%.*f", decimals, 100 * share);
  return text;
}

/// The class that images of class k are most often mistaken for, and how often; "" where never.
inline std::string mistaken_for(const Confusion& confusion, i64 k,
                                const std::vector<std::string>& names) {
  i64 most = 0, other = -1;
  const auto& counts = confusion.counts();
  for (auto it = counts.lower_bound({k, 0}); it != counts.end() && it->first.first == k; ++it)
    if (it->first.second != k && it->second > most) most = it->second, other = it->first.second;
  return other < 0 ? "" : str(names[static_cast<std::size_t>(other)], " (", most, ")");
}

/// Means over the classes, calibration, and a table: of the classes of least recall, or of all.
inline void print_confusion(const Confusion& confusion, const std::vector<std::string>& names,
                            bool all) {
  std::printf(
      "mean of the classes: recall %s %%, precision %s %%, F1 %s %%; calibration error %s %%\n",
      percent(confusion.mean_recall(), 2).c_str(), percent(confusion.mean_precision(), 2).c_str(),
      percent(confusion.mean_f1(), 2).c_str(), percent(confusion.calibration_error(), 2).c_str());
  std::vector<i64> rows = confusion.worst_classes();
  const std::size_t most = 5;
  std::string head = "class";
  if (all) {
    rows.resize(static_cast<std::size_t>(confusion.classes()));
    for (std::size_t k = 0; k < rows.size(); ++k) rows[k] = static_cast<i64>(k);
  } else if (rows.size() > most) {
    rows.resize(most);
    head = str("worst of ", confusion.classes(), " classes");
  }
  const auto letters = [](const std::string& s) { return ppma::detail::code_points(s).size(); };
  std::size_t width = letters(head);
  for (const i64 k : rows) width = std::max(width, letters(names[static_cast<std::size_t>(k)]));
  const auto padded = [&](const std::string& s) {
    return s + std::string(width - letters(s), ' ');
  };
  std::printf("\n%s  images  recall %%  precision %%   F1 %%  mostly mistaken for\n",
              padded(head).c_str());
  for (const i64 k : rows) {
    const ClassFigures& c = confusion.of_class(k);
    const std::string other = mistaken_for(confusion, k, names);
    std::printf("%s  %6lld  %8s  %11s  %5s%s\n", padded(names[static_cast<std::size_t>(k)]).c_str(),
                static_cast<long long>(c.images), percent(c.recall(), 1).c_str(),
                percent(c.precision(), 1).c_str(), percent(c.f1(), 1).c_str(),
                other.empty() ? "" : ("  " + other).c_str());
  }
}

/// All that is known, in percent; null where a figure is of nothing. "confusion" lists [class of
/// the image, class that it was taken for, images] for all pairs that occur.
inline void put_confusion(Json& j, const Confusion& confusion,
                          const std::vector<std::string>& names) {
  j["mean_recall"] = 100 * confusion.mean_recall();
  j["mean_precision"] = 100 * confusion.mean_precision();
  j["mean_f1"] = 100 * confusion.mean_f1();
  j["calibration_error"] = 100 * confusion.calibration_error();
  Json& bins = j["calibration"] = Json::array();
  for (const Confusion::Bin& b : confusion.calibration()) {
    const double images = static_cast<double>(b.images);
    bins.push_back({{"images", b.images},
                    {"confidence", 100 * b.confidence / images},
                    {"acc1", 100 * static_cast<double>(b.right) / images}});
  }
  Json& classes = j["classes"] = Json::array();
  for (i64 k = 0; k < confusion.classes(); ++k) {
    const ClassFigures& c = confusion.of_class(k);
    classes.push_back({{"class", k},
                       {"name", names[static_cast<std::size_t>(k)]},
                       {"images", c.images},
                       {"predicted", c.predicted},
                       {"right", c.right},
                       {"recall", 100 * c.recall()},
                       {"precision", 100 * c.precision()},
                       {"f1", 100 * c.f1()}});
  }
  Json& pairs = j["confusion"] = Json::array();
  for (const auto& [pair, images] : confusion.counts())
    pairs.push_back({pair.first, pair.second, images});
}

}  // namespace tool
