#pragma once
#include "ppma/core/names_begin.hpp"
// Drawings as SVG: curves and a confusion matrix. In a page their colours are classes of its style
// (vis/report.hpp), so that they follow its light and dark; vis/svg_file.hpp makes files of them.

#include <string>
#include <string_view>
#include <vector>

#include "ppma/metrics/confusion.hpp"
#include "ppma/vis/confusion_picture.hpp"
#include "ppma/vis/curve.hpp"

namespace ppma::inline PPMA_ABI {

/// A drawing, whose elements have classes instead of colours.
struct Svg {
  double width = 0, height = 0;  // units of the view
  std::string label;             // says what is drawn to who does not see it
  std::string elements{};

  /// The element <svg> of a page whose style has the classes.
  PPMA_API std::string in_page() const;
};

/// Text as HTML, SVG and XML take it, in quotes too: & < > " ' escaped, what is no UTF-8 or a
/// control character as printable() writes it.
PPMA_API std::string escape_xml(std::string_view text);

/// Lines over common axes, as curves() draws them; classes s0, s1, ... of series, "axis", "grid",
/// "tick". `options.width` and `height` are the units of the view. Errors: as curves() has them.
PPMA_API Svg svg_curves(const std::vector<Series>& series,
                        const CurveOptions& options = {.width = 440, .height = 260});

/// The matrix as confusion_picture() draws it: cells of classes "right" and "wrong" whose opacity
/// is the square root of their share of the row; counts where there is room. Of up to 200 classes a
/// cell's title says what it counts. `options.size` is not looked at. Error: not a name for each
/// class.
PPMA_API Svg svg_confusion(const Confusion& confusion, const std::vector<std::string>& names,
                           const ConfusionOptions& options = {});

/// Accuracy over confidence: a bar for each bin of the calibration, and the line where both are
/// equal.
PPMA_API Svg svg_calibration(const Confusion& confusion);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "ppma/io/utf8.hpp"
#include "ppma/vis/font.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// A coordinate, with as few digits as it needs.
inline std::string svg_number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f", v);
  std::string s = text;
  s.erase(s.find_last_not_of('0') + 1);
  if (s.back() == '.') s.pop_back();
  return s == "-0" ? "0" : s;
}

inline std::string svg_text(double x, double y, const std::string& words, const char* kind,
                            const char* anchor = "start") {
  return "<text class=\"" + std::string(kind) + "\" x=\"" + svg_number(x) + "\" y=\"" +
         svg_number(y) + "\" text-anchor=\"" + anchor + "\">" + escape_xml(words) + "</text>\n";
}

inline std::string svg_line(double x0, double y0, double x1, double y1, const char* kind) {
  return "<line class=\"" + std::string(kind) + "\" x1=\"" + svg_number(x0) + "\" y1=\"" +
         svg_number(y0) + "\" x2=\"" + svg_number(x1) + "\" y2=\"" + svg_number(y1) + "\"/>\n";
}

}  // namespace detail

std::string Svg::in_page() const {
  const std::string w = detail::svg_number(width), h = detail::svg_number(height);
  return "<svg viewBox=\"0 0 " + w + " " + h + "\" style=\"--w:" + w +
         "px\" role=\"img\" aria-label=\"" + escape_xml(label) + "\">\n" + elements + "</svg>\n";
}

std::string escape_xml(std::string_view text) {
  std::string s;
  for (const char c : printable(text, text.size())) switch (c) {
      case '&':
        s += "&amp;";
        break;
      case '<':
        s += "&lt;";
        break;
      case '>':
        s += "&gt;";
        break;
      case '"':
        s += "&quot;";
        break;
      case '\'':
        s += "&#39;";
        break;
      default:
        s += c;
    }
  return s;
}

Svg svg_curves(const std::vector<Series>& series, const CurveOptions& options) {
  using namespace detail;
  const Extent extent = extent_of(series);
  const Range &xs = extent.x, &points = extent.y;
  std::size_t longest = 0;
  for (const Series& s : series) longest = std::max(longest, code_points(s.name).size());
  const double slack = 0.06 * (points.high - points.low);
  const Range ys = options.y_range.value_or(Range{
      points.low >= 0 && points.low < 6 * slack ? 0.0 : points.low - slack, points.high + slack});
  const std::vector<double> y_ticks = round_ticks(ys.low, ys.high, 5);
  const std::vector<double> x_ticks = round_ticks(xs.low, xs.high, 6, extent.whole);
  const auto step = [](const std::vector<double>& t) { return t.size() > 1 ? t[1] - t[0] : 0.0; };
  std::size_t digits = 0;
  for (const double v : y_ticks)
    digits = std::max(digits, code_points(tick_label(v, step(y_ticks))).size());
  const double W = static_cast<double>(options.width), H = static_cast<double>(options.height),
               left = std::max(44.0, 12 + 6.6 * static_cast<double>(digits)),
               right = W - 14 - 6.9 * static_cast<double>(longest), top = 10,
               bottom = H - (options.x_label.empty() ? 24 : 40);
  check(right > left + 20 && bottom > top + 20, "curves: ", options.width, " x ", options.height,
        " are too few");
  const auto px = [&](double x) { return left + xs.place(x) * (right - left); };
  const auto py = [&](double y) { return bottom - ys.place(y) * (bottom - top); };

  std::string svg;
  for (const double v : y_ticks) {
    svg += svg_line(left, py(v), right, py(v), "grid");
    svg += svg_text(left - 7, py(v) + 4, tick_label(v, step(y_ticks)), "tick", "end");
  }
  for (const double v : x_ticks)
    svg += svg_text(px(v), bottom + 17, tick_label(v, extent.whole ? 1 : step(x_ticks)), "tick",
                    "middle");
  svg += svg_line(left, bottom, right, bottom, "axis");
  if (!options.x_label.empty())
    svg += svg_text((left + right) / 2, H - 6, options.x_label, "tick", "middle");

  struct Name {
    double y;
    std::size_t series;
  };
  std::vector<Name> labels;
  for (std::size_t k = 0; k < series.size(); ++k) {
    const Series& s = series[k];
    const std::string kind = "s" + std::to_string(k % 6);
    std::string run;
    double x = 0, y = not_a_number<double>();
    const auto finish = [&] {
      if (!run.empty()) svg += "<polyline class=\"" + kind + "\" points=\"" + run + "\"/>\n";
      run.clear();
    };
    for (std::size_t i = 0; i < s.x.size(); ++i) {
      if (!is_finite(s.x[i]) || !is_finite(s.y[i])) {
        finish();
        continue;
      }
      x = px(s.x[i]), y = std::clamp(py(s.y[i]), top, bottom);
      run += (run.empty() ? "" : " ") + svg_number(x) + "," + svg_number(y);
    }
    finish();
    if (!is_finite(y)) continue;
    svg += "<circle class=\"" + kind + "\" cx=\"" + svg_number(x) + "\" cy=\"" + svg_number(y) +
           "\" r=\"3\"/>\n";
    if (!s.name.empty()) labels.push_back({y, k});
  }
  // Names stand beside the ends of their lines, pushed apart where they would touch.
  std::stable_sort(labels.begin(), labels.end(),
                   [](const Name& a, const Name& b) { return a.y < b.y; });
  for (int round = 0; round < 50; ++round)
    for (std::size_t i = 0; i + 1 < labels.size(); ++i)
      if (const double lack = 14 - (labels[i + 1].y - labels[i].y); lack > 0)
        labels[i].y -= lack / 2, labels[i + 1].y += lack / 2;
  const double above = labels.empty() ? 0 : std::max(0.0, 8 - labels.front().y);
  for (Name& n : labels) n.y += above;
  for (const Name& n : labels)
    svg += svg_text(right + 8, n.y + 4, series[n.series].name,
                    ("s" + std::to_string(n.series % 6)).c_str());
  return {W, H, options.title, svg};
}

Svg svg_confusion(const Confusion& confusion, const std::vector<std::string>& names,
                  const ConfusionOptions& options) {
  using namespace detail;
  const i64 n = confusion.classes();
  check(static_cast<i64>(names.size()) == n, "confusion: ", names.size(), " names for ", n,
        " classes");
  const double classes = static_cast<double>(n),
               cell = std::min((n > 24 ? 560 : 300) / classes, 44.0);
  const i64 every = std::max(i64{1}, static_cast<i64>(std::ceil(12 / cell)));
  std::vector<std::string> shown;
  std::size_t longest = 0;
  for (const std::string& name : names) {
    shown.push_back(shortened(printable(name, name.size()), 16));
    longest = std::max(longest, code_points(shown.back()).size());
  }
  const double room = 16 + 6.4 * static_cast<double>(longest), left = room, top = room + 14,
               side = cell * classes;
  std::string svg;
  svg += svg_text(left, 11, "taken for", "tick");
  svg += "<rect class=\"ground\" x=\"" + svg_number(left) + "\" y=\"" + svg_number(top) +
         "\" width=\"" + svg_number(side) + "\" height=\"" + svg_number(side) + "\"/>\n";
  // Of many classes a cell is hardly a pixel: marks stay as large as can be seen.
  const double gap = cell >= 10 ? 0.5 : 0, mark = std::max(cell - 2 * gap, 1.8);
  const double faintest = n > 200 ? 0.3 : 0.06;
  for (const auto& [pair, images] : confusion.counts()) {
    const auto [label, predicted] = pair;
    const double share =
        static_cast<double>(images) / static_cast<double>(confusion.of_class(label).images);
    const double x = left + cell * static_cast<double>(predicted),
                 y = top + cell * static_cast<double>(label);
    const std::string count = cell_text(images, share, options.pixels);
    svg += "<rect class=\"" + std::string(label == predicted ? "right" : "wrong") + "\" x=\"" +
           svg_number(x + gap) + "\" y=\"" + svg_number(y + gap) + "\" width=\"" +
           svg_number(mark) + "\" height=\"" + svg_number(mark) + "\" fill-opacity=\"" +
           svg_number(faintest + (1 - faintest) * std::sqrt(share)) + "\"";
    if (n > 200)
      svg += "/>\n";
    else
      svg += "><title>" + escape_xml(names[static_cast<std::size_t>(label)]) + ": " +
             (options.pixels ? svg_number(100 * share) + " %" : count) +
             (label == predicted
                  ? " right"
                  : " taken for " + escape_xml(names[static_cast<std::size_t>(predicted)])) +
             "</title></rect>\n";
    if (5.8 * static_cast<double>(count.size()) < cell - 3 && cell >= 12)
      svg += svg_text(x + cell / 2, y + cell / 2 + 3.5, count, share > 0.35 ? "count on" : "count",
                      "middle");
  }
  for (i64 k = 0; k < n; k += every) {
    const std::string& name = shown[static_cast<std::size_t>(k)];
    const double middle = cell * (static_cast<double>(k) + 0.5) + 3.5;
    svg += svg_text(left - 6, top + middle, name, "name", "end");
    svg += "<text class=\"name\" transform=\"translate(" + svg_number(left + middle) + " " +
           svg_number(top - 6) + ") rotate(-90)\">" + escape_xml(name) + "</text>\n";
  }
  return {left + side + 8, top + side + 8,
          options.title.empty() ? "confusion matrix" : options.title, svg};
}

Svg svg_calibration(const Confusion& confusion) {
  using namespace detail;
  const double left = 40, top = 10, side = 220, bottom = top + side,
               bar = side / static_cast<double>(Confusion::bins);
  std::string svg;
  for (const double v : {0.0, 0.25, 0.5, 0.75, 1.0}) {
    const double y = bottom - v * side;
    svg += svg_line(left, y, left + side, y, "grid");
    svg += svg_text(left - 7, y + 4, svg_number(100 * v), "tick", "end");
    svg += svg_text(left + v * side, bottom + 16, svg_number(100 * v), "tick", "middle");
  }
  for (std::size_t m = 0; m < Confusion::bins; ++m) {
    const Confusion::Bin& b = confusion.calibration()[m];
    if (b.images == 0) continue;
    const double images = static_cast<double>(b.images),
                 accuracy = static_cast<double>(b.right) / images,
                 height = std::max(1.0, accuracy * side);
    svg += "<rect class=\"bar\" x=\"" + svg_number(left + bar * static_cast<double>(m) + 1) +
           "\" y=\"" + svg_number(bottom - height) + "\" width=\"" + svg_number(bar - 2) +
           "\" height=\"" + svg_number(height) + "\"><title>" + std::to_string(b.images) +
           " images: confidence " + svg_number(100 * b.confidence / images) + " %, right " +
           svg_number(100 * accuracy) + " %</title></rect>\n";
  }
  svg += svg_line(left, bottom, left + side, top, "equal");
  svg += svg_line(left, bottom, left + side, bottom, "axis");
  svg += svg_text(left + side / 2, bottom + 33, "confidence %", "tick", "middle");
  return {left + side + 12, bottom + 38, "accuracy over confidence", svg};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
