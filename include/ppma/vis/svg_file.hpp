#pragma once
#include "ppma/core/names_begin.hpp"
// Drawings (vis/svg.hpp) as a file of its own, for slides and papers: on a light ground, with
// colours as attributes, since few programs but browsers read styles.

#include <string>
#include <vector>

#include "ppma/vis/svg.hpp"

namespace ppma::inline PPMA_ABI {

/// The file: drawings below each other, each under its label. Error: there is none.
PPMA_API std::string svg_file(const std::vector<Svg>& drawings);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// What of the page's light style (vis/report_style.hpp) an element of a class looks like.
inline std::string svg_attributes(std::string_view element, std::string_view kind) {
  static constexpr std::string_view series[] = {"#0072b2", "#c24e00", "#00805e",
                                                "#a8457f", "#8a6100", "#28749c"};
  if (kind.size() == 2 && kind[0] == 's' && kind[1] >= '0' && kind[1] <= '5') {
    const std::string color(series[static_cast<std::size_t>(kind[1] - '0')]);
    return element == "polyline" ? "fill=\"none\" stroke=\"" + color +
                                       "\" stroke-width=\"2\" stroke-linejoin=\"round\" "
                                       "stroke-linecap=\"round\""
                                 : "fill=\"" + color + "\"";
  }
  if (kind == "tick") return "fill=\"#5c636b\"";
  if (kind == "name") return "fill=\"#1f2328\" font-size=\"10.5\"";
  if (kind == "count") return "fill=\"#1f2328\" font-size=\"10\"";
  if (kind == "count on") return "fill=\"#ffffff\" font-size=\"10\"";
  if (kind == "grid") return "stroke=\"#e1e2df\"";
  if (kind == "axis") return "stroke=\"#5c636b\"";
  if (kind == "equal") return "stroke=\"#5c636b\" stroke-dasharray=\"4 4\"";
  if (kind == "bar") return "fill=\"#0072b2\" fill-opacity=\"0.75\"";
  if (kind == "ground") return "fill=\"#f6f6f3\"";
  if (kind == "right") return "fill=\"#12803c\"";
  if (kind == "wrong") return "fill=\"#bf3a1e\"";
  fail("svg_file: there is no class \"", kind, "\"");
}

/// The elements with colours instead of classes. Text, which is escaped, has neither < nor ".
inline std::string svg_colored(const std::string& elements) {
  constexpr std::string_view mark = " class=\"";
  std::string s;
  std::size_t from = 0;
  for (std::size_t at; (at = elements.find(mark, from)) != std::string::npos;) {
    const std::size_t kind = at + mark.size(), end = elements.find('"', kind),
                      element = elements.rfind('<', at) + 1;
    s.append(elements, from, at + 1 - from);
    s += svg_attributes(std::string_view(elements).substr(element, at - element),
                        std::string_view(elements).substr(kind, end - kind));
    from = end + 1;
  }
  return s.append(elements, from);
}

}  // namespace detail

std::string svg_file(const std::vector<Svg>& drawings) {
  using detail::svg_number;
  check(!drawings.empty(), "svg_file: there is no drawing");
  constexpr double margin = 16, title = 26, gap = 18;
  double width = 0, height = margin;
  std::string all;
  for (const Svg& d : drawings) {
    if (!d.label.empty())
      all += "<text x=\"" + svg_number(margin) + "\" y=\"" + svg_number(height + 14) +
             "\" fill=\"#1f2328\" font-size=\"14\" font-weight=\"600\">" + escape_xml(d.label) +
             "</text>\n";
    height += d.label.empty() ? 0 : title;
    all += "<g transform=\"translate(" + svg_number(margin) + " " + svg_number(height) + ")\">\n" +
           detail::svg_colored(d.elements) + "</g>\n";
    // A title is about 8 units a letter wide.
    width = std::max({width, d.width, 8 * static_cast<double>(d.label.size())});
    height += d.height + gap;
  }
  const std::string w = svg_number(width + 2 * margin), h = svg_number(height - gap + margin);
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + w + "\" height=\"" + h +
         "\" viewBox=\"0 0 " + w + " " + h +
         "\" font-family=\"system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif\" "
         "font-size=\"11\">\n<rect width=\"" +
         w + "\" height=\"" + h + "\" fill=\"#ffffff\"/>\n" + all + "</svg>\n";
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
