#pragma once
#include "ppma/core/names_begin.hpp"
// A table of numbers as colours, with each number in its field: what a grid of settings gave.

#include <string>
#include <vector>

#include "ppma/vis/picture.hpp"

namespace ppma::inline PPMA_ABI {

struct HeatMap {
  std::vector<double> values{};            // (rows, columns); one that is not finite has no colour
  std::vector<std::string> rows, columns;  // names
  std::string title{}, row_label{}, column_label{};
  const char* format = "%.2f";  // of a value
};

/// The table as a picture, its fields as wide as their numbers need. Errors: other than rows times
/// columns values; none that is finite.
PPMA_API Picture heat_map(const HeatMap& map);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

Picture heat_map(const HeatMap& map) {
  check(map.values.size() == map.rows.size() * map.columns.size(), "heat_map: ", map.values.size(),
        " values for ", map.rows.size(), " rows and ", map.columns.size(), " columns");
  Range range{0, 0};
  bool any = false;
  for (const double v : map.values) {
    if (!is_finite(v)) continue;
    range = any ? Range{std::min(range.low, v), std::max(range.high, v)} : Range{v, v};
    any = true;
  }
  check(any, "heat_map: there is no finite value");
  const double size = 9, margin = 24;
  const auto text_of = [&](double v) {
    char text[40];
    std::snprintf(text, sizeof text, map.format, v);
    return std::string(is_finite(v) ? text : "-");
  };
  double cell = 64, names = 0;
  for (const double v : map.values) cell = std::max(cell, text_width(text_of(v), size) + 20);
  for (const std::string& name : map.columns) cell = std::max(cell, text_width(name, size) + 16);
  for (const std::string& name : map.rows) names = std::max(names, text_width(name, size));
  const double height = 40, left = margin + (map.row_label.empty() ? 0 : 22) + names + 12,
               top = map.title.empty() ? margin : 56,
               right = left + cell * static_cast<double>(map.columns.size()),
               bottom = top + height * static_cast<double>(map.rows.size()),
               wide = std::max(right, margin + text_width(map.title, 12)) + margin;
  Picture sheet(static_cast<i64>(std::ceil(wide)), static_cast<i64>(std::ceil(bottom + 60)));
  if (!map.title.empty()) sheet.text(margin, 32, map.title, 12);
  for (std::size_t r = 0; r < map.rows.size(); ++r) {
    const double y = top + height * static_cast<double>(r);
    sheet.text(left - 10, y + height / 2 + size / 2, map.rows[r], size, ink, Align::right);
    for (std::size_t c = 0; c < map.columns.size(); ++c) {
      const double v = map.values[r * map.columns.size() + c],
                   x = left + cell * static_cast<double>(c);
      const bool known = is_finite(v);
      const double t = range.high > range.low ? (v - range.low) / (range.high - range.low) : 0.5;
      const Color color = known ? color_of(ColorMap::viridis, t) : faint_ink;
      sheet.fill(x + 1, y + 1, x + cell - 1, y + height - 1, color);
      sheet.text(x + cell / 2, y + height / 2 + size / 2, text_of(v), size,
                 known && t < 0.6 ? paper_white : ink, Align::center);
    }
  }
  for (std::size_t c = 0; c < map.columns.size(); ++c)
    sheet.text(left + cell * (static_cast<double>(c) + 0.5), bottom + 10 + size, map.columns[c],
               size, ink, Align::center);
  if (!map.column_label.empty())
    sheet.text((left + right) / 2, bottom + 46, map.column_label, size, pale_ink, Align::center);
  if (!map.row_label.empty())
    sheet.text_upwards(margin + size, (top + bottom) / 2, map.row_label, size, pale_ink);
  return sheet;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
