#pragma once
#include "ppma/core/names_begin.hpp"
// What there is to know of a run, as one page: HTML that is XML too, with its style and its
// pictures inside. It asks nothing of the network, and reads on a desk, on a telephone and in the
// dark; but for the slider of the decays, whose last picture is shown then, without scripts too.
// What differs by task is in vis/report_parts.hpp.

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

/// A network's decays over training, as vis/decay_history.hpp draws them: PNG files.
struct ReportDecays {
  std::vector<u8> images;                               // of decay_images()
  std::vector<std::pair<i64, std::vector<u8>>> epochs;  // of decay_picture(), after how many epochs
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
  ReportDecays decays{};              // without epochs: none are shown
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

namespace detail {

/// Every picture is in the page, one of them is shown; the slider is there where scripts are.
inline std::string report_decays(const ReportDecays& d) {
  const std::size_t last = d.epochs.size() - 1;
  const std::string text = "after epoch " + str(d.epochs[last].first);
  std::string s =
      "<section id=\"decays\"><h2>Decays over training</h2>\n<div class=\"card decays\">"
      "<div class=\"slide\"><label for=\"decay-slider\">Evaluation</label><input type=\"range\" "
      "id=\"decay-slider\" min=\"0\" max=\"" +
      str(last) + "\" value=\"" + str(last) +
      "\" step=\"1\" hidden=\"\"/><output id=\"decay-epoch\" for=\"decay-slider\">" + text +
      "</output></div>\n<div class=\"heads\"><span>image</span><span>decay \u03b1</span>"
      "<span>decay \u03b2</span><span>mask of the middle</span></div>\n<div "
      "class=\"maps\"><img alt=\"test images\" src=\"" +
      png_source(d.images) + "\"/><div>\n";
  for (std::size_t k = 0; k <= last; ++k) {
    const std::string epoch = str(d.epochs[k].first);
    s += "<img data-epoch=\"" + epoch + "\" alt=\"decays and masks after epoch " + epoch + "\"" +
         (k < last ? " hidden=\"\"" : "") + " src=\"" + png_source(d.epochs[k].second) + "\"/>\n";
  }
  return s +
         "</div></div>\n<div class=\"scale\"><div></div><div><div><b></b><span><i>0</i>"
         "<i>0.9</i><i>0.99</i><i>0.999</i></span></div><div><b></b><span><i>0</i><i>1</i></span>"
         "</div></div></div>\n<p>First stage, means over its heads, of the weights themselves: "
         "how easily one passes from the left and from the upper neighbour, and what the token in "
         "the middle of the image sees through them.</p></div></section>\n"
         "<script>\n"
         "const slider = document.getElementById('decay-slider'),\n"
         "  said = document.getElementById('decay-epoch'),\n"
         "  all = [...document.querySelectorAll('img[data-epoch]')];\n"
         "const show = () => {\n"
         "  all.forEach((img, k) => { img.hidden = k !== Number(slider.value); });\n"
         "  said.textContent = 'after epoch ' + all[slider.value].dataset.epoch;\n"
         "  slider.setAttribute('aria-valuetext', said.textContent);\n"
         "};\n"
         "slider.hidden = all.length === 1;\n"
         "slider.addEventListener('input', show);\n"
         "show();\n"
         "</script>\n";
}

}  // namespace detail

std::string report_html(const Report& r) {
  using namespace detail;
  std::string s =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n<meta "
      "name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta "
      "http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
      "'unsafe-inline'; img-src data:" +
      std::string(r.decays.epochs.empty() ? "" : "; script-src 'unsafe-inline'") +
      "\"/>\n<meta name=\"ppma-epoch\" content=\"" + str(r.epoch) + "\"/>\n<title>" +
      escape_xml(r.title) + "</title>\n<style>" + std::string(report_style) +
      "</style>\n</head>\n<body>\n<main>\n<header><h1>" + escape_xml(r.title) + "</h1><p>" +
      escape_xml(r.subtitle) + "</p></header>\n";
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
  if (!r.decays.epochs.empty()) s += report_decays(r.decays);
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
