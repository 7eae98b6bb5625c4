#pragma once
#include "ppma/core/names_begin.hpp"
// What there is to know of a run, as one page: HTML that is XML too, with its style and its
// pictures inside. It asks nothing of the network, and reads on a desk, on a telephone and in the
// dark. What differs by task is in vis/report_parts.hpp.

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "ppma/vis/curve.hpp"
#include "ppma/vis/report_parts.hpp"

namespace ppma::inline PPMA_ABI {

/// Lines over epochs.
struct ReportChart {
  std::string title;
  std::vector<Series> series;
};

/// All values are text as it is: what HTML reserves is escaped.
struct Report {
  std::string title, subtitle;
  i64 epoch = 0;  // how many had ended, for report_epoch()
  // What counts most: "93.2 %", "top-1".
  std::vector<std::pair<std::string, std::string>> figures{};
  std::vector<ReportChart> charts{};
  std::vector<std::string> classes{};
  std::variant<ClassifierResults, SegmentationResults, DetectionResults> results{};
  std::vector<ReportTable> tables{};  // of the run
};

/// The page. Errors: not a name for each class; what svg_curves() and encode_png() refuse.
PPMA_API std::string report_html(const Report& r);

/// The epoch of a page that report_html() made; -1: it is none.
PPMA_API i64 report_epoch(const std::string& html);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <cstdlib>
#include <string_view>

#include "ppma/vis/report_style.hpp"
#include "ppma/vis/svg.hpp"

namespace ppma::inline PPMA_ABI {

std::string report_html(const Report& r) {
  using namespace detail;
  std::string s =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta "
      "name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta "
      "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; img-src data:\"/>\n<meta name=\"ppma-epoch\" content=\"" +
      str(r.epoch) + "\"/>\n<title>" + escape_xml(r.title) + "</title>\n<style>" +
      std::string(report_style) + "</style>\n</head>\n<body>\n<main>\n<header><h1>" +
      escape_xml(r.title) + "</h1><p>" + escape_xml(r.subtitle) + "</p></header>\n";
  s += "<div class=\"figures\">\n";
  for (const auto& [value, what] : r.figures)
    s += "<div class=\"card\"><b>" + escape_xml(value) + "</b><span>" + escape_xml(what) +
         "</span></div>\n";
  s += "</div>\n<section id=\"curves\"><h2>Curves</h2>\n<div class=\"cards facts\">\n";
  for (const ReportChart& c : r.charts)
    s += "<div class=\"card\"><h3>" + escape_xml(c.title) + "</h3>" +
         svg_curves(c.series, {.title = c.title, .x_label = "epoch", .width = 440, .height = 260})
             .in_page() +
         "</div>\n";
  s += "</div></section>\n" +
       std::visit([&](const auto& results) { return report_sections(results, r.classes); },
                  r.results);
  s += "<section id=\"run\"><h2>The run</h2>\n<div class=\"run\">\n";
  for (const ReportTable& t : r.tables) s += report_table(t);
  return s + "</div></section>\n</main>\n</body>\n</html>\n";
}

i64 report_epoch(const std::string& html) {
  constexpr std::string_view mark = "<meta name=\"ppma-epoch\" content=\"";
  const std::size_t at = html.find(mark);
  return at == std::string::npos ? -1 : std::strtoll(html.c_str() + at + mark.size(), nullptr, 10);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
