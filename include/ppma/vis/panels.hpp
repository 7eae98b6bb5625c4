#pragma once
#include "ppma/core/names_begin.hpp"
// Panels: images and maps side by side in rows, as figures in papers: titles above them, a
// colour bar under each map, a red frame around the cell in question, equal gaps, a white ground.

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "ppma/vis/colormap.hpp"
#include "ppma/vis/picture.hpp"

namespace ppma::inline PPMA_ABI {

/// Cell (row, column) of a grid of `rows` x `columns` cells laid over a panel.
struct GridCell {
  i64 row = 0, column = 0, rows = 1, columns = 1;
};

struct Panel {
  std::string title;
  Tensor image;                         // uint8 (H,W,3)
  std::optional<Range> range{};         // of the colour bar; none for a photograph
  ColorMap colors = ColorMap::viridis;  // of the colour bar
  std::optional<GridCell> marked{};     // gets a red frame
};

/// A map (H,W) in colours over its own range, with its colour bar.
PPMA_API Panel map_panel(std::string title, const Tensor& map, ColorMap colors = ColorMap::viridis);

/// The same over a range of yours.
PPMA_API Panel map_panel(std::string title, const Tensor& map, ColorMap colors, Range range);
/// A photograph uint8 (H,W,3), without a colour bar.
PPMA_API Panel image_panel(std::string title, const Tensor& image);

struct PanelOptions {
  i64 size = 240;       // pixels of a panel's longer side, about: a map's cells are whole pixels
  bool smooth = false;  // interpolate what is enlarged; else cells stay squares
};

namespace detail {

// The cell of a row of cells in which a place lies that is a fraction of its length.
inline i64 cell_at(double fraction, i64 cells) {
  return std::clamp(static_cast<i64>(fraction * static_cast<double>(cells)), i64{0}, cells - 1);
}

}  // namespace detail

/// A number for people, in as few characters as possible: three significant digits, two where it
/// must be "1.2e-5", or `digits` of them.
PPMA_API std::string short_number(double v, int digits = 0);

/// Rows of panels. All images should have one aspect ratio; each fills a box of the first map's, or
/// else the first image's. Errors: no panels, a panel without an image.
PPMA_API Picture panels(const std::vector<std::vector<Panel>>& rows,
                        const PanelOptions& options = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <cmath>
#include <cstdio>

#include "ppma/io/resize.hpp"

namespace ppma::inline PPMA_ABI {

Panel map_panel(std::string title, const Tensor& map, ColorMap colors) {
  const Range range = range_of(map);
  return {std::move(title), colorize(map, colors, range), range, colors, {}};
}

Panel map_panel(std::string title, const Tensor& map, ColorMap colors, Range range) {
  return {std::move(title), colorize(map, colors, range), range, colors, {}};
}

Panel image_panel(std::string title, const Tensor& image) {
  return {std::move(title), image, {}, {}, {}};
}

std::string short_number(double v, int digits) {
  char buffer[48];
  const bool power = v != 0 && (std::abs(v) < 1e-3 || std::abs(v) >= 1e5);
  if (digits == 0) digits = power ? 2 : 3;
  const int n =
      std::snprintf(buffer, sizeof buffer, power ? "%.*e" : "%.*g", power ? digits - 1 : digits, v);
  std::string s(buffer, buffer + n);
  if (const std::size_t e = s.find('e'); e != std::string::npos) {  // 1.2e-05 to 1.2e-5
    std::size_t power_at = s[e + 1] == '-' ? e + 2 : e + 1;
    if (s[power_at] == '+') s.erase(power_at, 1);
    while (power_at + 1 < s.size() && s[power_at] == '0') s.erase(power_at, 1);
  }
  for (std::size_t i = 0; i < s.size(); ++i)
    // a minus, not a hyphen
    if (s[i] == '-' && (i == 0 || s[i - 1] == 'e')) s.replace(i, 1, "\u2212"), i += 2;
  return s;
}

Picture panels(const std::vector<std::vector<Panel>>& rows, const PanelOptions& options) {
  check(!rows.empty() && !rows[0].empty() && rows[0][0].image.defined(),
        "panels: no panels are given");
  // text and gaps grow with the panels
  const double unit = std::max(1.0, static_cast<double>(options.size) / 240);
  const auto units = [&](double x) { return static_cast<i64>(std::lround(x * unit)); };
  // The cells of a small map are to be equally large: the first map's grid decides, else the first
  // image.
  i64 H = rows[0][0].image.dim(0), W = rows[0][0].image.dim(1), longer = std::max(H, W),
      size = options.size;
  for (const auto& row : rows)
    for (const Panel& p : row)
      if (const i64 cells = p.range ? std::max(p.image.dim(0), p.image.dim(1)) : 0;
          cells > 0 && 2 * cells <= options.size && size == options.size) {
        H = p.image.dim(0), W = p.image.dim(1), longer = cells;
        size = (options.size + cells / 2) / cells * cells;
      }
  const i64 height = std::max(i64{1}, size * H / longer),
            width = std::max(i64{1}, size * W / longer);
  const i64 margin = units(20), gap = units(18), bar = units(7), bar_gap = units(7),
            below = units(26);
  const double title_size = 10 * unit, number_size = 8 * unit;

  std::size_t columns = 0;
  // Titles must not run into each other.
  double widest = 0;
  for (const auto& row : rows) {
    columns = std::max(columns, row.size());
    for (const Panel& p : row) widest = std::max(widest, text_width(p.title, title_size));
  }
  const i64 step = std::max(width, static_cast<i64>(widest)) + gap;
  std::vector<i64> tops;
  i64 y = margin;
  for (const auto& row : rows) {
    if (std::any_of(row.begin(), row.end(), [](const Panel& p) { return !p.title.empty(); }))
      y += units(22);
    tops.push_back(y);
    const bool bars =
        std::any_of(row.begin(), row.end(), [](const Panel& p) { return p.range.has_value(); });
    y += height + (bars ? bar_gap + bar + below : gap);
  }

  Picture sheet(2 * margin + static_cast<i64>(columns) * step - gap, y - gap + margin);
  for (std::size_t r = 0; r < rows.size(); ++r)
    for (std::size_t c = 0; c < rows[r].size(); ++c) {
      const Panel& p = rows[r][c];
      check(p.image.defined() && p.image.rank() == 3 && p.image.dim(2) == 3, "panels: row ", r,
            ", column ", c, ", \"", p.title, "\" has no image (H,W,3)");
      const i64 x0 = margin + static_cast<i64>(c) * step + (step - gap - width) / 2, y0 = tops[r];
      const double left = static_cast<double>(x0), top = static_cast<double>(y0);
      const double right = static_cast<double>(x0 + width),
                   bottom = static_cast<double>(y0 + height);
      // Cells of a small map stay sharp squares; a photograph of about the right size is
      // interpolated.
      const bool cells = !options.smooth && (p.range.has_value() || 3 * p.image.dim(0) <= height);
      sheet.paste(x0, y0,
                  cells ? resize_nearest(p.image, height, width)
                        : resize_antialiased(p.image, height, width, Filter::bicubic));
      if (!p.title.empty())
        sheet.text((left + right) / 2, top - 9 * unit, p.title, title_size, ink, Align::center);
      if (p.marked) {
        const GridCell& m = *p.marked;
        const double h = static_cast<double>(height) / static_cast<double>(m.rows),
                     w = static_cast<double>(width) / static_cast<double>(m.columns);
        // never too small to be seen
        const double grow = std::max(0.0, (5 * unit - std::min(h, w)) / 2);
        const double x = left + w * static_cast<double>(m.column),
                     v = top + h * static_cast<double>(m.row);
        sheet.frame(x - grow, v - grow, x + w + grow, v + h + grow, 3.2 * unit, paper_white);
        sheet.frame(x - grow, v - grow, x + w + grow, v + h + grow, 2 * unit, signal_red);
      }
      if (p.range) {
        const double bar_top = bottom + static_cast<double>(bar_gap),
                     bar_bottom = bar_top + static_cast<double>(bar);
        for (i64 k = 0; k < width; ++k)
          sheet.fill(
              left + static_cast<double>(k), bar_top, left + static_cast<double>(k + 1), bar_bottom,
              color_of(p.colors, (static_cast<double>(k) + 0.5) / static_cast<double>(width)));
        const double line = bar_bottom + 5 * unit + number_size;
        sheet.text(left, line, short_number(p.range->low), number_size, pale_ink);
        sheet.text(right, line, short_number(p.range->high), number_size, pale_ink, Align::right);
      }
    }
  return sheet;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
