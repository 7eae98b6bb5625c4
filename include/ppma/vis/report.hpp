#pragma once
#include "ppma/core/names_begin.hpp"
// What there is to know of a trained classifier, as one page: HTML that is XML too, with its style
// and its pictures inside, without a script. It asks nothing of the network, and reads on a desk,
// on a telephone and in the dark.

#include <string>
#include <utility>
#include <vector>

#include "ppma/metrics/confusion.hpp"
#include "ppma/tensor/tensor.hpp"
#include "ppma/vis/curve.hpp"

namespace ppma::inline PPMA_ABI {

/// Rows of a name and a value.
struct ReportTable {
  std::string title;
  std::vector<std::pair<std::string, std::string>> rows;
};

/// Lines over epochs.
struct ReportChart {
  std::string title;
  std::vector<Series> series;
};

/// An image that was tested, and what was said of it.
struct ReportImage {
  Tensor image;  // uint8 (H,W,3); one above 160 pixels is shown smaller
  Prediction said;
  std::string name{};  // its file; "": it is shown by its number in the set
};

/// All values are text as it is: what HTML reserves is escaped.
struct Report {
  std::string title, subtitle;
  i64 epoch = 0;  // how many had ended, for report_epoch()
  // What counts most: "93.2 %", "top-1".
  std::vector<std::pair<std::string, std::string>> figures{};
  std::vector<ReportChart> charts{};
  std::vector<std::string> classes{};
  Confusion confusion{1};
  std::vector<ReportImage> wrong{}, right{};
  std::vector<ReportTable> tables{};  // of the run
};

/// The page. Errors: not a name for each class; what svg_curves() and encode_png() refuse.
PPMA_API std::string report_html(const Report& r);

/// The epoch of a page that report_html() made; -1: it is none.
PPMA_API i64 report_epoch(const std::string& html);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "ppma/io/image.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/vis/svg.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline constexpr std::string_view report_style = R"(
:root { color-scheme: light dark; --ground: #f6f6f3; --card: #ffffff; --ink: #1f2328;
  --pale: #5c636b; --line: #e1e2df; --good: #12803c; --bad: #bf3a1e; --on: #ffffff;
  --s0: #0072b2; --s1: #c24e00; --s2: #00805e; --s3: #a8457f; --s4: #8a6100; --s5: #28749c;
  --font: system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171a; --card: #1d2125;
  --ink: #e8eaec; --pale: #a2aab2; --line: #343a40; --good: #3fb46b; --bad: #f0734f;
  --on: #101214; --s0: #56b4e9; --s1: #ff9d5c; --s2: #35c99a; --s3: #e59bc6; --s4: #e6b94f;
  --s5: #8fc7e8; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 var(--font); }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 36px 0 12px; }
h3 { font-size: 14px; margin: 0 0 8px; }
p { margin: 4px 0 0; color: var(--pale); overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 16px; min-width: 0; }
.cards { display: grid; gap: 16px; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
.facts { grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr)); }
.run { columns: 3 320px; column-gap: 16px; }
.run .card { break-inside: avoid; margin-bottom: 16px; }
.figures { display: grid; gap: 12px; margin-top: 20px;
  grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
.figures .card { padding: 12px 16px; }
.figures b { display: block; font-size: 24px; line-height: 1.25;
  font-variant-numeric: tabular-nums; }
.figures span, figcaption, small { color: var(--pale); font-size: 13px; }
.scroll { overflow-x: auto; }
.tall { max-height: 620px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 5px 8px; text-align: right; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { position: sticky; top: 0; background: var(--card); color: var(--pale);
  font-weight: 500; }
td small { display: block; }
td:first-child { overflow-wrap: anywhere; }
th[scope=row] { color: var(--pale); font-weight: 400; overflow-wrap: anywhere; }
.run th[scope=row] { white-space: nowrap; }
th[scope=row] + td { overflow-wrap: anywhere; }
th + td:last-child { padding-right: 0; }
tr:last-child :is(th, td) { border-bottom: 0; }
thead tr :is(th, td) { border-bottom: 1px solid var(--line); }
@media (max-width: 480px) { main { padding: 20px 12px 40px; } .card { padding: 12px; }
  th, td { padding: 5px 4px; } }
.share { background: linear-gradient(to right,
  color-mix(in srgb, var(--good) 24%, transparent) var(--p), transparent var(--p)); }
.images { display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(104px, 1fr)); }
figure { margin: 0; min-width: 0; overflow-wrap: anywhere; line-height: 1.35; }
figure img { display: block; width: 100%; height: auto; border-radius: 6px;
  border: 1px solid var(--line); margin-bottom: 6px; background: var(--line); }
figure img.small { image-rendering: pixelated; }
figure b { color: var(--good); font-size: 14px; }
.wrongly figure b { color: var(--bad); }
svg { display: block; width: 100%; height: auto; font: 11px var(--font);
  max-width: calc(1.5 * var(--w)); min-width: min(calc(0.68 * var(--w)), 520px); }
svg .tick { fill: var(--pale); }
svg .name { fill: var(--ink); font-size: 10.5px; }
svg .count { fill: var(--ink); font-size: 10px; }
svg .on { fill: var(--on); }
svg .grid { stroke: var(--line); }
svg .axis { stroke: var(--pale); }
svg .equal { stroke: var(--pale); stroke-dasharray: 4 4; }
svg .bar { fill: var(--s0); fill-opacity: 0.75; }
svg .ground { fill: var(--ground); }
svg .right { fill: var(--good); }
svg .wrong { fill: var(--bad); }
svg polyline { stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.s0 { fill: var(--s0); } polyline.s0 { fill: none; stroke: var(--s0); }
.s1 { fill: var(--s1); } polyline.s1 { fill: none; stroke: var(--s1); }
.s2 { fill: var(--s2); } polyline.s2 { fill: none; stroke: var(--s2); }
.s3 { fill: var(--s3); } polyline.s3 { fill: none; stroke: var(--s3); }
.s4 { fill: var(--s4); } polyline.s4 { fill: none; stroke: var(--s4); }
.s5 { fill: var(--s5); } polyline.s5 { fill: none; stroke: var(--s5); }
)";

inline std::string base64(const std::vector<u8>& bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string s;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    u32 three = 0;
    for (std::size_t k = 0; k < 3; ++k)
      three = three << 8 | (i + k < bytes.size() ? bytes[i + k] : u32{0});
    for (std::size_t k = 0; k < 4; ++k)
      s += i + k > bytes.size() ? '=' : digits[three >> (18 - 6 * k) & 63u];
  }
  return s;
}

/// 0.94123 -> "94.1 %"; NaN: a dash.
inline std::string report_percent(double share, bool unit = true) {
  if (is_nan(share)) return "\u2013";
  char text[32];
  std::snprintf(text, sizeof text, unit ? "%.1f\u2009%%" : "%.1f", 100 * share);
  return text;
}

inline std::string report_table(const ReportTable& t) {
  std::string s = "<div class=\"card\"><h3>" + escape_xml(t.title) + "</h3><table><tbody>\n";
  for (const auto& [name, value] : t.rows)
    s += "<tr><th scope=\"row\">" + escape_xml(name) + "</th><td>" + escape_xml(value) +
         "</td></tr>\n";
  return s + "</tbody></table></div>\n";
}

/// Every class, the least recognised first, those without images last.
inline std::string report_classes(const Report& r) {
  const auto name = [&](i64 k) { return escape_xml(r.classes[static_cast<std::size_t>(k)]); };
  std::vector<Mistaken> most(r.classes.size());  // of each class
  for (const auto& [pair, images] : r.confusion.counts())
    if (Mistaken& m = most[static_cast<std::size_t>(pair.first)];
        pair.first != pair.second && images > m.images)
      m = {pair.first, pair.second, images};
  std::vector<i64> order = r.confusion.worst_classes();
  for (i64 k = 0; k < r.confusion.classes(); ++k)
    if (r.confusion.of_class(k).images == 0) order.push_back(k);
  std::string s =
      "<div class=\"card\"><h3>Each class in %, the least recognised first</h3><div class=\"scroll "
      "tall\">"
      "<table><thead><tr><th scope=\"col\">class</th><th scope=\"col\">images</th><th "
      "scope=\"col\">recall</th><th scope=\"col\">precision</th><th "
      "scope=\"col\">F1</th></tr></thead><tbody>\n";
  for (const i64 k : order) {
    const ClassFigures& c = r.confusion.of_class(k);
    const Mistaken& m = most[static_cast<std::size_t>(k)];
    s += "<tr><td>" + name(k);
    if (m.images > 0)
      s += "<small>" + str(m.images) + " taken for " + name(m.predicted) + "</small>";
    s += "</td><td>" + str(c.images) + "</td><td class=\"share\" style=\"--p:" +
         svg_number(is_nan(c.recall()) ? 0 : 100 * c.recall()) + "%\">" +
         report_percent(c.recall(), false) + "</td><td>" + report_percent(c.precision(), false) +
         "</td><td>" + report_percent(c.f1(), false) + "</td></tr>\n";
  }
  return s + "</tbody></table></div></div>\n";
}

inline std::string report_images(const std::string& title, const Report& r,
                                 const std::vector<ReportImage>& images, bool wrong) {
  std::string s = "<h2>" + title + "</h2>\n<div class=\"card images" +
                  (wrong ? " wrongly" : std::string()) + "\">\n";
  for (const ReportImage& i : images) {
    Tensor image = i.image;
    const i64 longer = std::max(image.dim(0), image.dim(1)), most = 160;
    if (longer > most)
      image = resize_antialiased(image, std::max(i64{1}, image.dim(0) * most / longer),
                                 std::max(i64{1}, image.dim(1) * most / longer));
    const auto name = [&](i64 k) { return escape_xml(r.classes[static_cast<std::size_t>(k)]); };
    const std::string label = name(i.said.label), predicted = name(i.said.predicted);
    s += "<figure><img" + std::string(longer < 80 ? " class=\"small\"" : "") + " alt=\"" + label +
         "\" width=\"" + str(image.dim(1)) + "\" height=\"" + str(image.dim(0)) +
         "\" src=\"data:image/png;base64," + base64(encode_png(image, "report")) +
         "\"/><figcaption><b>" + predicted + "</b> " + report_percent(i.said.confidence) +
         (wrong ? "<br/>is " + label + ", " + report_percent(i.said.of_label) : std::string()) +
         "<br/>" + (i.name.empty() ? "image " + str(i.said.sample) : escape_xml(i.name)) +
         "</figcaption></figure>\n";
  }
  return s + "</div>\n";
}

}  // namespace detail

std::string report_html(const Report& r) {
  using namespace detail;
  check(static_cast<i64>(r.classes.size()) == r.confusion.classes(), "report: ", r.classes.size(),
        " names for ", r.confusion.classes(), " classes");
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
         svg_curves(c.series, {.title = c.title, .x_label = "epoch", .width = 440, .height = 260}) +
         "</div>\n";
  s += "</div></section>\n<section id=\"classes\"><h2>Classes</h2>\n<div class=\"cards\">\n"
       "<div class=\"card\"><h3>What the images of each row are taken for</h3><div "
       "class=\"scroll\">" +
       svg_confusion(r.confusion, r.classes) + "</div></div>\n" + report_classes(r) +
       "</div></section>\n";
  s += "<section id=\"calibration\"><h2>Calibration and mistakes</h2>\n<div class=\"cards\"><div "
       "class=\"card\">"
       "<h3>How often what is said with a confidence is right</h3>" +
       svg_calibration(r.confusion) + "<p>Expected calibration error " +
       report_percent(r.confusion.calibration_error()) +
       ", over 15 bins. Bars below the line: surer than right.</p></div>\n";
  ReportTable mistaken{"Most often mistaken", {}};
  for (const Mistaken& m : r.confusion.most_mistaken(12))
    mistaken.rows.emplace_back(r.classes[static_cast<std::size_t>(m.label)] + " taken for " +
                                   r.classes[static_cast<std::size_t>(m.predicted)],
                               str(m.images));
  if (!mistaken.rows.empty()) s += report_table(mistaken);
  s += "</div></section>\n";
  s += "<section id=\"images\">\n";
  if (!r.wrong.empty()) s += report_images("Wrong, and most sure of it", r, r.wrong, true);
  if (!r.right.empty()) s += report_images("Right, and most sure of it", r, r.right, false);
  s += "</section>\n<section id=\"run\"><h2>The run</h2>\n<div class=\"run\">\n";
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
