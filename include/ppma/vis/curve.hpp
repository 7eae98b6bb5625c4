#pragma once
#include "ppma/core/names_begin.hpp"
// Curves: training curves and the like as a line chart. Axes with round numbers, a faint grid, and
// each line's name at its end instead of a legend to look up.

#include <optional>
#include <string>
#include <vector>

#include "ppma/vis/colormap.hpp"
#include "ppma/vis/picture.hpp"

namespace ppma::inline PPMA_ABI {

struct Series {
  std::string name;
  std::vector<double> x, y;  // equally many; points that are not finite interrupt the line
};

struct CurveOptions {
  std::string title{}, x_label{}, y_label{};
  i64 width = 720, height = 440;  // pixels
  std::optional<Range> y_range{};
};

/// Round numbers (1, 2 or 5 times a power of ten apart) in [low, high], about `count` of them;
/// `whole`: no fractions.
PPMA_API std::vector<double> round_ticks(double low, double high, int count, bool whole = false);

namespace detail {

/// What the finite points of some series reach.
struct Extent {
  Range x, y;
  bool whole;  // all x are whole numbers, as epochs are: so are the ticks
};
/// A single value is widened to a range of 1. Errors: those of curves().
PPMA_API Extent extent_of(const std::vector<Series>& series);

// Colours that stay apart for colour-blind eyes (Masataka Okabe and Kei Ito, 2008), darkest first.
PPMA_API Color series_color(std::size_t k);

// As many decimals as tell neighbouring ticks apart.
PPMA_API std::string tick_label(double v, double step);

}  // namespace detail

/// Lines over common axes. Errors: a series whose x and y differ in length; no finite point at all.
PPMA_API Picture curves(const std::vector<Series>& series, const CurveOptions& options = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "ppma/vis/panels.hpp"

namespace ppma::inline PPMA_ABI {

std::vector<double> round_ticks(double low, double high, int count, bool whole) {
  if (!(high > low)) return {low};
  const double even = (high - low) / count, rough = whole ? std::max(even, 1.0) : even,
               power = std::pow(10, std::floor(std::log10(rough)));
  const double fraction = rough / power, step = power * (fraction < 1.5   ? 1
                                                         : fraction < 3.5 ? 2
                                                         : fraction < 7.5 ? 5
                                                                          : 10);
  std::vector<double> ticks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; ++k)
    ticks.push_back(k * step + 0.0);
  return ticks;
}

namespace detail {

Color series_color(std::size_t k) {
  static constexpr Color colors[] = {{0, 114, 178},   {213, 94, 0},  {0, 158, 115},
                                     {204, 121, 167}, {230, 159, 0}, {86, 180, 233}};
  return colors[k % 6];
}

std::string tick_label(double v, double step) {
  if (std::abs(v) >= 1e5 || (step < 1e-4 && step > 0)) {
    const auto power = [](double x) { return static_cast<int>(std::floor(std::log10(x) + 1e-6)); };
    const int digits = step > 0 && v != 0 ? power(std::abs(v)) - power(step) + 1 : 2;
    return short_number(v, std::clamp(digits, 2, 17));
  }
  const int decimals =
      step > 0 ? std::max(0, static_cast<int>(std::ceil(-std::log10(step) - 1e-6))) : 2;
  char buffer[48];
  const int n = std::snprintf(buffer, sizeof buffer, "%.*f", decimals, v);
  std::string s(buffer, buffer + n);
  if (s[0] == '-') s.replace(0, 1, "\u2212");
  return s;
}

Extent extent_of(const std::vector<Series>& series) {
  Range xs{positive_infinity<double>(), negative_infinity<double>()}, ys = xs;
  bool whole = true;
  for (const Series& s : series) {
    check(s.x.size() == s.y.size(), "curves: \"", s.name, "\" has ", s.x.size(), " x and ",
          s.y.size(), " y");
    for (std::size_t i = 0; i < s.x.size(); ++i)
      if (is_finite(s.x[i]) && is_finite(s.y[i])) {
        whole = whole && s.x[i] == std::floor(s.x[i]);
        xs = {std::min(xs.low, s.x[i]), std::max(xs.high, s.x[i])};
        ys = {std::min(ys.low, s.y[i]), std::max(ys.high, s.y[i])};
      }
  }
  check(xs.low <= xs.high, "curves: there is no finite point to draw");
  for (Range* const r : {&xs, &ys})
    if (r->low == r->high) *r = {r->low - 0.5, r->high + 0.5};
  return {xs, ys, whole};
}

}  // namespace detail

Picture curves(const std::vector<Series>& series, const CurveOptions& options) {
  const detail::Extent extent = detail::extent_of(series);
  const Range &xs = extent.x, &points = extent.y;
  // Lines stay off the frame, but what is never negative begins at zero if it comes near.
  const double slack = 0.05 * (points.high - points.low);
  const Range ys = options.y_range.value_or(Range{
      points.low >= 0 && points.low < 6 * slack ? 0.0 : points.low - slack, points.high + slack});

  Picture sheet(options.width, options.height);
  const double W = static_cast<double>(options.width), H = static_cast<double>(options.height);
  const double label_size = 9, number_size = 8, title_size = 12;
  const std::vector<double> y_ticks =
      round_ticks(ys.low, ys.high, std::max(2, static_cast<int>(H / 75)));
  const std::vector<double> x_ticks =
      round_ticks(xs.low, xs.high, std::max(2, static_cast<int>(W / 100)), extent.whole);
  const double y_step = y_ticks.size() > 1 ? y_ticks[1] - y_ticks[0] : 0,
               x_step = extent.whole         ? 1
                        : x_ticks.size() > 1 ? x_ticks[1] - x_ticks[0]
                                             : 0;
  double numbers = 0, names = 0;
  for (const double v : y_ticks)
    numbers = std::max(numbers, text_width(detail::tick_label(v, y_step), number_size));
  for (const Series& s : series) names = std::max(names, text_width(s.name, label_size));
  const double left = 22 + numbers + (options.y_label.empty() ? 4 : 26),
               right = W - 24 - (names > 0 ? names + 10 : 0);
  const double top = options.title.empty() ? 24 : 54,
               bottom = H - 34 - (options.x_label.empty() ? 0 : 24);
  check(right > left + 20 && bottom > top + 20, "curves: ", options.width, " x ", options.height,
        " pixels are too few");
  const auto px = [&](double x) { return left + xs.place(x) * (right - left); };
  const auto py = [&](double y) { return bottom - ys.place(y) * (bottom - top); };

  if (!options.title.empty()) sheet.text(left, 32, options.title, title_size);
  for (const double v : y_ticks) {
    sheet.fill(left, std::round(py(v)), right, std::round(py(v)) + 1, faint_ink, 0.8);
    sheet.text(left - 8, py(v) + number_size / 2, detail::tick_label(v, y_step), number_size,
               pale_ink, Align::right);
  }
  for (const double v : x_ticks) {
    sheet.fill(std::round(px(v)), bottom, std::round(px(v)) + 1, bottom + 5, pale_ink);
    sheet.text(px(v), bottom + 11 + number_size, detail::tick_label(v, x_step), number_size,
               pale_ink, Align::center);
  }
  sheet.fill(left, bottom, right, bottom + 1, pale_ink);
  if (!options.x_label.empty())
    sheet.text((left + right) / 2, H - 14, options.x_label, label_size, ink, Align::center);
  if (!options.y_label.empty())
    sheet.text_upwards(24, (top + bottom) / 2, options.y_label, label_size);

  struct Name {
    double y;
    std::size_t series;
  };
  std::vector<Name> labels;
  for (std::size_t k = 0; k < series.size(); ++k) {
    const Series& s = series[k];
    std::vector<double> run;
    double last = not_a_number<double>();
    const auto finish = [&] {
      if (run.size() == 2) sheet.dot(run[0], run[1], 2.2, detail::series_color(k));
      sheet.line(run, 2.2, detail::series_color(k));
      run.clear();
    };
    for (std::size_t i = 0; i < s.x.size(); ++i) {
      if (!is_finite(s.x[i]) || !is_finite(s.y[i])) {
        finish();
        continue;
      }
      last = std::clamp(py(s.y[i]), top, bottom);
      run.push_back(px(s.x[i]));
      run.push_back(last);
    }
    if (run.size() >= 2)
      sheet.dot(run[run.size() - 2], run[run.size() - 1], 3.2, detail::series_color(k));
    finish();
    if (is_finite(last) && !s.name.empty()) labels.push_back({last, k});
  }
  // Names stand beside the ends of their lines, pushed apart where they would touch.
  std::stable_sort(labels.begin(), labels.end(),
                   [](const Name& a, const Name& b) { return a.y < b.y; });
  const double spacing = 1.9 * label_size;
  for (int round = 0; round < 50; ++round)
    for (std::size_t i = 0; i + 1 < labels.size(); ++i)
      if (const double lack = spacing - (labels[i + 1].y - labels[i].y); lack > 0)
        labels[i].y -= lack / 2, labels[i + 1].y += lack / 2;
  for (const Name& n : labels)
    sheet.text(right + 12, n.y + label_size / 2, series[n.series].name, label_size,
               detail::series_color(n.series));
  return sheet;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
