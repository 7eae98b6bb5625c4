#pragma once
#include "ppma/core/names_begin.hpp"
// A page of cards, as one file: HTML that is XML too, in the style of vis/report.hpp, light and
// dark, for a desk and a telephone. It asks nothing of the network and has no script.

#include <string>
#include <vector>

#include "ppma/vis/intervals.hpp"
#include "ppma/vis/svg.hpp"

namespace ppma::inline PPMA_ABI {

/// What stands in a frame of its own: a title, which may be empty, and HTML (html_table(),
/// svg_curves(...).in_page(), svg_intervals(...).in_page()).
struct PageCard {
  std::string title, html;
  bool wide = false;  // over the whole width of the page
};

/// Cards under a heading.
struct PageSection {
  std::string title;
  std::vector<PageCard> cards;
};

/// Titles are text as it is: what HTML reserves is escaped.
struct Page {
  std::string title, subtitle;
  std::vector<PageSection> sections;
};

/// The page as a whole.
PPMA_API std::string page_html(const Page& page);

/// A table of text, which is escaped; without a head where that is empty: then each row's first
/// cell names it. The first `names` columns are words and stand on the left, the others on the
/// right. Error: a row that has not as many cells as the head.
PPMA_API std::string html_table(const std::vector<std::string>& head,
                                const std::vector<std::vector<std::string>>& rows,
                                std::size_t names = 1);

/// intervals() as a drawing of the page: rows with their estimates, intervals and single values, in
/// classes "s0" where an interval does not hold zero and "tick" where it does. Error: no row has
/// values.
PPMA_API Svg svg_intervals(const std::vector<IntervalRow>& rows, const IntervalOptions& options);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>

#include "ppma/core/float_bits.hpp"
#include "ppma/vis/curve.hpp"
#include "ppma/vis/report_style.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// What a page of cards has beside a report's style.
inline constexpr std::string_view page_style = R"(
.wide { grid-column: 1 / -1; }
svg line.s0 { stroke: var(--s0); stroke-width: 2.5; }
svg line.tick { stroke: var(--pale); stroke-width: 2.5; }
svg .single { fill: var(--pale); fill-opacity: 0.45; }
td, thead th { white-space: nowrap; }
.word { text-align: left; }
th[scope=row] + td { white-space: normal; }
)";

}  // namespace detail

std::string page_html(const Page& page) {
  using namespace detail;
  std::string s =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta "
      "name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta "
      "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; img-src data:\"/>\n<title>" +
      escape_xml(page.title) + "</title>\n<style>" + std::string(report_style) +
      std::string(page_style) + "</style>\n</head>\n<body>\n<main>\n<header><h1>" +
      escape_xml(page.title) + "</h1><p>" + escape_xml(page.subtitle) + "</p></header>\n";
  for (const PageSection& section : page.sections) {
    s += "<section><h2>" + escape_xml(section.title) + "</h2>\n<div class=\"cards\">\n";
    for (const PageCard& card : section.cards) {
      s += "<div class=\"card" + std::string(card.wide ? " wide" : "") + "\">";
      if (!card.title.empty()) s += "<h3>" + escape_xml(card.title) + "</h3>";
      s += card.html + "</div>\n";
    }
    s += "</div></section>\n";
  }
  return s + "</main>\n</body>\n</html>\n";
}

std::string html_table(const std::vector<std::string>& head,
                       const std::vector<std::vector<std::string>>& rows, std::size_t names) {
  std::string s = "<div class=\"scroll\"><table>";
  const auto kind = [&](std::size_t k) { return k < names ? " class=\"word\"" : ""; };
  if (!head.empty()) {
    s += "<thead><tr>";
    for (std::size_t k = 0; k < head.size(); ++k)
      s += std::string("<th scope=\"col\"") + kind(k) + ">" + escape_xml(head[k]) + "</th>";
    s += "</tr></thead>";
  }
  s += "<tbody>\n";
  for (const auto& row : rows) {
    check(head.empty() || row.size() == head.size(), "html_table: a row of ", row.size(),
          " cells under a head of ", head.size());
    s += "<tr>";
    for (std::size_t k = 0; k < row.size(); ++k)
      s += head.empty() && k == 0
               ? "<th scope=\"row\">" + escape_xml(row[k]) + "</th>"
               : std::string("<td") + kind(k) + ">" + escape_xml(row[k]) + "</td>";
    s += "</tr>\n";
  }
  return s + "</tbody></table></div>\n";
}

Svg svg_intervals(const std::vector<IntervalRow>& rows, const IntervalOptions& options) {
  using namespace detail;
  Range xs{0, 0};
  std::size_t longest = 0;
  bool any = false;
  for (const IntervalRow& r : rows) {
    longest = std::max(longest, r.name.size());
    any = any || !r.values.empty();
    for (const double v : r.values) xs = {std::min(xs.low, v), std::max(xs.high, v)};
    if (r.values.empty()) continue;
    for (const double v : {r.estimate.low, r.estimate.high})
      if (is_finite(v)) xs = {std::min(xs.low, v), std::max(xs.high, v)};
  }
  check(any, "intervals: there is nothing to draw");
  const double slack = std::max(0.04 * (xs.high - xs.low), 0.005);
  xs = {xs.low - slack, xs.high + slack};
  const double W = 440, left = 16 + 6.9 * static_cast<double>(longest), right = W - 14, top = 8,
               row_height = 26, bottom = top + row_height * static_cast<double>(rows.size());
  check(right > left + 60, "intervals: a name of ", longest, " letters leaves no room");
  const auto px = [&](double x) { return left + xs.place(x) * (right - left); };
  const auto dot = [](double x, double y, const char* radius, const char* kind) {
    return "<circle class=\"" + std::string(kind) + "\" cx=\"" + svg_number(x) + "\" cy=\"" +
           svg_number(y) + "\" r=\"" + radius + "\"/>\n";
  };
  std::string svg;
  const std::vector<double> ticks = round_ticks(xs.low, xs.high, 5);
  const double step = ticks.size() > 1 ? ticks[1] - ticks[0] : 0;
  for (const double v : ticks) {
    svg += svg_line(px(v), top, px(v), bottom, "grid");
    svg += svg_text(px(v), bottom + 16, tick_label(v, step), "tick", "middle");
  }
  svg += svg_line(px(0), top, px(0), bottom + 4, "axis");
  svg += svg_text((left + right) / 2, bottom + 34, options.x_label, "tick", "middle");
  for (std::size_t k = 0; k < rows.size(); ++k) {
    const IntervalRow& r = rows[k];
    const double y = top + row_height * (static_cast<double>(k) + 0.5);
    if (r.values.empty()) {
      svg += svg_text(8, y + 4, r.name, "tick");
      continue;
    }
    svg += svg_text(left - 8, y + 4, r.name, "name", "end");
    for (const double v : r.values)
      if (is_finite(v)) svg += dot(px(v), y + 8, "1.8", "single");
    const char* const kind = r.estimate.differs_from_zero() ? "s0" : "tick";
    if (is_finite(r.estimate.low))
      svg += svg_line(px(r.estimate.low), y, px(r.estimate.high), y, kind);
    svg += dot(px(r.estimate.mean), y, "4.2", kind);
  }
  return {W, bottom + 40, options.title, svg};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
