#pragma once
#include "ppma/core/names_begin.hpp"
// Intervals: estimates with their intervals, a row each, as medicine's forest plots: where an
// interval crosses the line at zero, nothing was shown.

#include <string>
#include <vector>

#include "ppma/metrics/interval.hpp"
#include "ppma/vis/picture.hpp"

namespace ppma::inline PPMA_ABI {

/// A row: a name and what is drawn, with each single value as a small dot; without values a
/// heading.
struct IntervalRow {
  std::string name;
  Interval estimate{};
  std::vector<double> values{};
};

struct IntervalOptions {
  std::string title{}, x_label{};
  i64 width = 720;  // pixels; the height follows from the rows
};

/// Error: no row has values.
PPMA_API Picture intervals(const std::vector<IntervalRow>& rows, const IntervalOptions& options);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>

#include "ppma/core/float_bits.hpp"
#include "ppma/vis/curve.hpp"

namespace ppma::inline PPMA_ABI {

Picture intervals(const std::vector<IntervalRow>& rows, const IntervalOptions& options) {
  Range xs{0, 0};
  double names = 0;
  bool any = false;
  const double row_height = 30, label_size = 9, number_size = 8;
  for (const IntervalRow& r : rows) {
    names = std::max(names, text_width(r.name, label_size));
    any = any || !r.values.empty();
    std::vector<double> drawn = r.values;
    drawn.push_back(r.values.empty() ? 0 : r.estimate.low);
    drawn.push_back(r.values.empty() ? 0 : r.estimate.high);
    for (const double v : drawn)
      if (is_finite(v)) xs = {std::min(xs.low, v), std::max(xs.high, v)};
  }
  check(any, "intervals: there is nothing to draw");
  const double slack = std::max(0.04 * (xs.high - xs.low), 1e-9);
  xs = {xs.low - slack, xs.high + slack};

  const double W = static_cast<double>(options.width), left = 36 + names, right = W - 28,
               top = options.title.empty() ? 20 : 56,
               bottom = top + row_height * static_cast<double>(rows.size()),
               height = bottom + (options.x_label.empty() ? 36 : 58);
  check(right > left + 60, "intervals: ", options.width, " pixels are too few for the names");
  Picture sheet(options.width, static_cast<i64>(height));
  const auto px = [&](double x) { return left + xs.place(x) * (right - left); };
  if (!options.title.empty()) sheet.text(24, 32, options.title, 12);
  const std::vector<double> ticks =
      round_ticks(xs.low, xs.high, std::max(2, static_cast<int>(W / 100)));
  const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 0;
  for (const double v : ticks) {
    sheet.fill(std::round(px(v)), top, std::round(px(v)) + 1, bottom, faint_ink, 0.8);
    sheet.text(px(v), bottom + 14 + number_size, detail::tick_label(v, step), number_size, pale_ink,
               Align::center);
  }
  sheet.fill(std::round(px(0)), top, std::round(px(0)) + 1, bottom + 6, ink);
  if (!options.x_label.empty())
    sheet.text((left + right) / 2, height - 12, options.x_label, label_size, ink, Align::center);
  for (std::size_t k = 0; k < rows.size(); ++k) {
    const IntervalRow& r = rows[k];
    const double y = top + row_height * (static_cast<double>(k) + 0.5);
    if (r.values.empty()) {
      sheet.text(24, y + label_size / 2, r.name, label_size, pale_ink);
      continue;
    }
    sheet.text(left - 12, y + label_size / 2, r.name, label_size, ink, Align::right);
    const bool known = is_finite(r.estimate.low);
    const Color color = r.estimate.differs_from_zero() ? detail::series_color(0) : pale_ink;
    for (const double v : r.values)
      if (is_finite(v)) sheet.dot(px(v), y + 8, 1.8, faint_ink);
    if (known) sheet.line({px(r.estimate.low), y, px(r.estimate.high), y}, 2.4, color);
    sheet.dot(px(r.estimate.mean), y, 4.2, color);
  }
  return sheet;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
