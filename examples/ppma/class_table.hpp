#pragma once
// Figures of each class as text: of a classifier, a segmentor, a detector; of a classifier as JSON
// too.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "common.hpp"
#include "ppma/metrics/average_precision.hpp"
#include "ppma/metrics/confusion.hpp"
#include "ppma/vis/font.hpp"

namespace tool {

using ppma::detail::percent;

/// Names as a terminal may show them.
inline std::vector<std::string> shown_classes(std::vector<std::string> names) {
  return ppma::detail::printable_names(std::move(names));
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

/// What is printed of each class: its name, numbers, and a word that may follow.
struct ClassTable {
  static constexpr i64 few = 20;  // classes that are all shown
  struct Row {
    std::string name;
    std::vector<std::string> cells;
    std::string more{};
  };
  std::vector<std::string> heads;  // of the numbers
  std::string more_head{};         // of the words
  std::vector<Row> rows{};         // by class

  /// All rows in their order, or the first five of `worst`, of which none counts.
  void print(bool all, std::vector<i64> worst, int indent = 0) const {
    constexpr std::size_t most = 5;
    std::string head = "class";
    if (all) {
      worst.resize(rows.size());
      for (std::size_t k = 0; k < worst.size(); ++k) worst[k] = static_cast<i64>(k);
    } else {
      worst.resize(std::min(worst.size(), most));
      if (worst.size() < rows.size()) head = str("worst of ", rows.size(), " classes");
    }
    const auto letters = [](const std::string& s) { return ppma::detail::code_points(s).size(); };
    std::size_t width = letters(head);
    for (const i64 k : worst)
      width = std::max(width, letters(rows[static_cast<std::size_t>(k)].name));
    std::vector<std::size_t> widths;
    for (const std::string& h : heads) widths.push_back(std::max<std::size_t>(6, letters(h)));
    const auto line = [&](const std::string& name, const std::vector<std::string>& cells,
                          const std::string& more) {
      std::string s = std::string(static_cast<std::size_t>(indent), ' ') + name +
                      std::string(width - letters(name), ' ');
      for (std::size_t c = 0; c < cells.size(); ++c)
        s += "  " + std::string(widths[c] - std::min(widths[c], letters(cells[c])), ' ') + cells[c];
      std::printf("%s%s\n", s.c_str(), more.empty() ? "" : ("  " + more).c_str());
    };
    line(head, heads, more_head);
    for (const i64 k : worst) {
      const Row& row = rows[static_cast<std::size_t>(k)];
      line(row.name, row.cells, row.more);
    }
  }
};

/// The classes that have a figure, the least of it first.
inline std::vector<i64> worst_by(const std::vector<double>& figure) {
  std::vector<i64> order;
  for (std::size_t k = 0; k < figure.size(); ++k)
    if (!is_nan(figure[k]) && figure[k] >= 0) order.push_back(static_cast<i64>(k));
  std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) {
    return figure[static_cast<std::size_t>(a)] < figure[static_cast<std::size_t>(b)];
  });
  return order;
}

/// Means over the classes, calibration, and a table: of the classes of least recall, or of all.
inline void print_confusion(const Confusion& confusion, const std::vector<std::string>& names,
                            bool all) {
  std::printf(
      "mean of the classes: recall %s %%, precision %s %%, F1 %s %%; calibration error %s %%\n\n",
      percent(confusion.mean_recall(), 2).c_str(), percent(confusion.mean_precision(), 2).c_str(),
      percent(confusion.mean_f1(), 2).c_str(), percent(confusion.calibration_error(), 2).c_str());
  ClassTable t{{"images", "recall %", "precision %", "F1 %"}, "mostly mistaken for"};
  for (i64 k = 0; k < confusion.classes(); ++k) {
    const ClassFigures& c = confusion.of_class(k);
    t.rows.push_back(
        {names[static_cast<std::size_t>(k)],
         {str(c.images), percent(c.recall(), 1), percent(c.precision(), 1), percent(c.f1(), 1)},
         mistaken_for(confusion, k, names)});
  }
  t.print(all, confusion.worst_classes());
}

/// IoU and accuracy of each class of pixels: of those of least IoU, or of all.
inline void print_pixels(const Confusion& pixels, const std::vector<std::string>& names, bool all,
                         int indent = 0) {
  ClassTable t{{"of the pixels %", "IoU %", "accuracy %", "precision %"}, "mostly mistaken for"};
  std::vector<double> iou;
  const double whole = static_cast<double>(std::max<i64>(1, pixels.images()));
  for (i64 k = 0; k < pixels.classes(); ++k) {
    const ClassFigures& c = pixels.of_class(k);
    iou.push_back(c.iou());
    std::string other = mistaken_for(pixels, k, names);  // with its pixels, which say little
    other.resize(other.empty() ? 0 : other.rfind(" ("));
    t.rows.push_back({names[static_cast<std::size_t>(k)],
                      {percent(static_cast<double>(c.images) / whole, 2), percent(c.iou(), 2),
                       percent(c.recall(), 2), percent(c.precision(), 2)},
                      other});
  }
  t.print(all || pixels.classes() <= ClassTable::few, worst_by(iou), indent);
}

/// AP of each class, at all overlaps and at two: of those of least AP, or of all.
inline void print_ap(const CocoFigures& f, const std::vector<std::string>& names, bool all,
                     int indent = 0) {
  ClassTable t{{"AP", "AP50", "AP75"}};
  const auto cell = [](double ap) -> std::string {
    if (ap < 0) return "-";  // there is nothing to find
    char text[32];
    std::snprintf(text, sizeof text, "%.4f", ap);
    return text;
  };
  for (std::size_t k = 0; k < names.size(); ++k)
    t.rows.push_back(
        {names[k], {cell(f.class_ap[k]), cell(f.class_ap50[k]), cell(f.class_ap75[k])}});
  t.print(all || static_cast<i64>(names.size()) <= ClassTable::few, worst_by(f.class_ap), indent);
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
