#pragma once
#include "ppma/core/names_begin.hpp"
// What stands in a run's page (vis/report.hpp) of one task: what was said of its test set, as a
// classifier, a segmentor or a detector says it, and these parts of the page as HTML.

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "ppma/metrics/average_precision.hpp"
#include "ppma/metrics/confusion.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Rows of a name and a value.
struct ReportTable {
  std::string title;
  std::vector<std::pair<std::string, std::string>> rows;
};

/// An image that was tested, and what was said of it.
struct ReportImage {
  Tensor image;  // uint8 (H,W,3); one above 160 pixels is shown smaller
  Prediction said;
  std::string name{};  // its file; "": it is shown by its number in the set
};

/// An image that was tested beside what is true of it and what was said of it; uint8 (H,W,3) each,
/// shown in one width.
struct ReportScene {
  Tensor image, truth, said;
  std::string name, figure;  // "shapes/7", "IoU 34.1 %"
};

struct ClassifierResults {
  Confusion confusion{1};
  std::vector<ReportImage> wrong{}, right{};
};

struct SegmentationResults {
  Confusion pixels{1};
  std::vector<ReportScene> worst{}, best{};
  i64 among = 0;  // images that these were chosen of
};

struct DetectionResults {
  std::vector<std::pair<std::string, CocoFigures>> kinds{};  // of "boxes", of "masks"
  std::vector<i64> objects{};                                // that are to be found, by class
  std::vector<ReportScene> worst{}, best{};
  i64 among = 0;
};

namespace detail {

/// The sections of the page, of classes with these names. Errors: not a name for each class; what
/// svg_confusion() and encode_png() refuse.
PPMA_API std::string report_sections(const ClassifierResults& r,
                                     const std::vector<std::string>& classes);
PPMA_API std::string report_sections(const SegmentationResults& r,
                                     const std::vector<std::string>& classes);
PPMA_API std::string report_sections(const DetectionResults& r,
                                     const std::vector<std::string>& classes);

/// The source of an <img> whose PNG file this is.
PPMA_API std::string png_source(const std::vector<u8>& png);

PPMA_API std::string report_table(const ReportTable& t);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string_view>

#include "ppma/io/image.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/vis/palette.hpp"
#include "ppma/vis/svg.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

std::string png_source(const std::vector<u8>& bytes) {
  constexpr char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string s = "data:image/png;base64,";
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
  std::snprintf(text, sizeof text, unit ? "%.1f\u202f%%" : "%.1f", 100 * share);
  return text;
}

std::string report_table(const ReportTable& t) {
  std::string s = "<div class=\"card\"><h3>" + escape_xml(t.title) + "</h3><table><tbody>\n";
  for (const auto& [name, value] : t.rows)
    s += "<tr><th scope=\"row\">" + escape_xml(name) + "</th><td>" + escape_xml(value) +
         "</td></tr>\n";
  return s + "</tbody></table></div>\n";
}

inline void check_names(const std::vector<std::string>& classes, i64 n) {
  check(static_cast<i64>(classes.size()) == n, "report: ", classes.size(), " names for ", n,
        " classes");
}

/// A table of classes: their names, what more is said of each, cells of numbers, and the share of a
/// row that is filled.
struct ClassRows {
  struct Row {
    std::string name, more;
    std::vector<std::string> cells;
    double share;
    std::size_t shared = 1;  // the cell that shows it
  };
  std::string title;
  std::vector<std::string> heads;
  std::vector<Row> rows{};

  std::string html() const {
    std::string s = "<div class=\"card\"><h3>" + escape_xml(title) +
                    "</h3><div class=\"scroll tall\"><table><thead><tr>";
    for (const std::string& head : heads) s += "<th scope=\"col\">" + escape_xml(head) + "</th>";
    s += "</tr></thead><tbody>\n";
    for (const Row& row : rows) {
      s += "<tr><td>" + escape_xml(row.name);
      if (!row.more.empty()) s += "<small>" + escape_xml(row.more) + "</small>";
      s += "</td>";
      for (std::size_t k = 0; k < row.cells.size(); ++k)
        s += (k == row.shared ? "<td class=\"share\" style=\"--p:" +
                                    svg_number(row.share > 0 ? 100 * row.share : 0) + "%\">"
                              : std::string("<td>")) +
             row.cells[k] + "</td>";
      s += "</tr>\n";
    }
    return s + "</tbody></table></div></div>\n";
  }
};

/// What each class is most often taken for.
inline std::vector<Mistaken> most_mistaken_of_each(const Confusion& confusion) {
  std::vector<Mistaken> most(static_cast<std::size_t>(confusion.classes()));
  for (const auto& [pair, images] : confusion.counts())
    if (Mistaken& m = most[static_cast<std::size_t>(pair.first)];
        pair.first != pair.second && images > m.images)
      m = {pair.first, pair.second, images};
  return most;
}

/// Every class, the least recognised first, those without images last.
inline std::string classifier_table(const Confusion& confusion,
                                    const std::vector<std::string>& classes) {
  const std::vector<Mistaken> most = most_mistaken_of_each(confusion);
  std::vector<i64> order = confusion.worst_classes();
  for (i64 k = 0; k < confusion.classes(); ++k)
    if (confusion.of_class(k).images == 0) order.push_back(k);
  ClassRows t{"Each class in %, the least recognised first",
              {"class", "images", "recall", "precision", "F1"}};
  for (const i64 k : order) {
    const ClassFigures& c = confusion.of_class(k);
    const Mistaken& m = most[static_cast<std::size_t>(k)];
    t.rows.push_back({classes[static_cast<std::size_t>(k)],
                      m.images == 0 ? ""
                                    : str(m.images, " taken for ",
                                          classes[static_cast<std::size_t>(m.predicted)]),
                      {str(c.images), report_percent(c.recall(), false),
                       report_percent(c.precision(), false), report_percent(c.f1(), false)},
                      c.recall()});
  }
  return t.html();
}

/// Every class of pixels, that of least IoU first.
inline std::string pixels_table(const Confusion& pixels, const std::vector<std::string>& classes) {
  const std::vector<Mistaken> most = most_mistaken_of_each(pixels);
  std::vector<i64> order(classes.size());
  for (std::size_t k = 0; k < order.size(); ++k) order[k] = static_cast<i64>(k);
  const auto iou = [&](i64 k) { return pixels.of_class(k).iou(); };
  std::stable_sort(order.begin(), order.end(), [&](i64 a, i64 b) {  // those without one last
    return is_nan(iou(b)) ? !is_nan(iou(a)) : iou(a) < iou(b);
  });
  const double all = static_cast<double>(std::max(pixels.images(), i64{1}));
  ClassRows t{"Each class in %, the least IoU first",
              {"class", "of the pixels", "IoU", "accuracy", "precision"}};
  for (const i64 k : order) {
    const ClassFigures& c = pixels.of_class(k);
    const Mistaken& m = most[static_cast<std::size_t>(k)];
    t.rows.push_back(
        {classes[static_cast<std::size_t>(k)],
         m.images == 0
             ? ""
             : report_percent(static_cast<double>(m.images) / static_cast<double>(c.images)) +
                   " taken for " + classes[static_cast<std::size_t>(m.predicted)],
         {report_percent(static_cast<double>(c.images) / all, false),
          report_percent(c.iou(), false), report_percent(c.recall(), false),
          report_percent(c.precision(), false)},
         c.iou()});
  }
  return t.html();
}

inline std::string report_images(const std::string& title, const std::vector<std::string>& classes,
                                 const std::vector<ReportImage>& images, bool wrong) {
  std::string s = "<h2>" + title + "</h2>\n<div class=\"card images" +
                  (wrong ? " wrongly" : std::string()) + "\">\n";
  for (const ReportImage& i : images) {
    Tensor image = i.image;
    const i64 longer = std::max(image.dim(0), image.dim(1)), most = 160;
    if (longer > most)
      image = resize_antialiased(image, std::max(i64{1}, image.dim(0) * most / longer),
                                 std::max(i64{1}, image.dim(1) * most / longer));
    const auto name = [&](i64 k) { return escape_xml(classes[static_cast<std::size_t>(k)]); };
    const std::string label = name(i.said.label), predicted = name(i.said.predicted);
    s += "<figure><img" + std::string(longer < 80 ? " class=\"small\"" : "") + " alt=\"" + label +
         "\" width=\"" + str(image.dim(1)) + "\" height=\"" + str(image.dim(0)) + "\" src=\"" +
         png_source(encode_png(image, "report")) + "\"/><figcaption><b>" + predicted + "</b> " +
         report_percent(i.said.confidence) +
         (wrong ? "<br/>is " + label + ", " + report_percent(i.said.of_label) : std::string()) +
         "<br/>" + (i.name.empty() ? "image " + str(i.said.sample) : escape_xml(i.name)) +
         "</figcaption></figure>\n";
  }
  return s + "</div>\n";
}

inline std::string report_scenes(const std::string& title, const std::vector<ReportScene>& scenes) {
  if (scenes.empty()) return "";
  std::string s = "<h2>" + escape_xml(title) + "</h2>\n<div class=\"card images scenes\">\n";
  for (const ReportScene& scene : scenes) {
    s += "<figure><div class=\"views\">";
    const std::array<std::pair<const char*, const Tensor*>, 3> views{
        {{"image", &scene.image}, {"label", &scene.truth}, {"prediction", &scene.said}}};
    for (const auto& [what, picture] : views)
      s += "<div><img" +
           std::string(std::max(picture->dim(0), picture->dim(1)) < 160 ? " class=\"small\"" : "") +
           " alt=\"" + escape_xml(scene.name) + ": " + what + "\" width=\"" + str(picture->dim(1)) +
           "\" height=\"" + str(picture->dim(0)) + "\" src=\"" +
           png_source(encode_png(*picture, "report")) + "\"/><span>" + what + "</span></div>";
    s += "</div><figcaption>" + escape_xml(scene.name) + ": " + escape_xml(scene.figure) +
         "</figcaption></figure>\n";
  }
  return s + "</div>\n";
}

/// The colours of classes, as label_veil() and overlay() have them.
inline std::string report_legend(const std::vector<std::string>& classes,
                                 const std::vector<bool>& shown) {
  std::string s = "<div class=\"legend\">";
  for (std::size_t k = 0; k < classes.size(); ++k) {
    if (!shown[k]) continue;
    const Color c = class_color(static_cast<i64>(k));
    char color[8];
    std::snprintf(color, sizeof color, "#%02x%02x%02x", static_cast<unsigned>(c[0]),
                  static_cast<unsigned>(c[1]), static_cast<unsigned>(c[2]));
    s += "<span><i style=\"background:" + std::string(color) + "\"></i>" + escape_xml(classes[k]) +
         "</span>";
  }
  return s + "</div>\n";
}

inline std::string mistaken_table(const Confusion& confusion,
                                  const std::vector<std::string>& classes) {
  ReportTable mistaken{"Most often mistaken", {}};
  for (const Mistaken& m : confusion.most_mistaken(12))
    mistaken.rows.emplace_back(classes[static_cast<std::size_t>(m.label)] + " taken for " +
                                   classes[static_cast<std::size_t>(m.predicted)],
                               str(m.images));
  return mistaken.rows.empty() ? "" : report_table(mistaken);
}

inline std::string matrix_card(const std::string& title, const std::string& drawing) {
  return "<div class=\"card\"><h3>" + title + "</h3><div class=\"scroll\">" + drawing +
         "</div></div>\n";
}

std::string report_sections(const ClassifierResults& r, const std::vector<std::string>& classes) {
  check_names(classes, r.confusion.classes());
  std::string s = "<section id=\"classes\"><h2>Classes</h2>\n<div class=\"cards\">\n" +
                  matrix_card("What the images of each row are taken for",
                              svg_confusion(r.confusion, classes).in_page()) +
                  classifier_table(r.confusion, classes) + "</div></section>\n";
  s += "<section id=\"calibration\"><h2>Calibration and mistakes</h2>\n<div class=\"cards\"><div "
       "class=\"card\">"
       "<h3>How often what is said with a confidence is right</h3>" +
       svg_calibration(r.confusion).in_page() + "<p>Expected calibration error " +
       report_percent(r.confusion.calibration_error()) +
       ", over 15 bins. Bars below the line: surer than right.</p></div>\n" +
       mistaken_table(r.confusion, classes) + "</div></section>\n<section id=\"images\">\n";
  if (!r.wrong.empty()) s += report_images("Wrong, and most sure of it", classes, r.wrong, true);
  if (!r.right.empty()) s += report_images("Right, and most sure of it", classes, r.right, false);
  return s + "</section>\n";
}

std::string report_sections(const SegmentationResults& r, const std::vector<std::string>& classes) {
  check_names(classes, r.pixels.classes());
  std::vector<bool> shown(classes.size());
  for (std::size_t k = 0; k < classes.size(); ++k)
    shown[k] = r.pixels.of_class(static_cast<i64>(k)).images > 0 ||
               r.pixels.of_class(static_cast<i64>(k)).predicted > 0;
  const std::string of = str(" of ", r.among, " images, by their mean IoU");
  return "<section id=\"classes\"><h2>Classes</h2>\n<div class=\"cards\">\n" +
         matrix_card("What the pixels of each row are taken for, in %",
                     svg_confusion(r.pixels, classes, {.pixels = true}).in_page()) +
         pixels_table(r.pixels, classes) + "</div></section>\n<section id=\"images\">\n" +
         report_scenes("The worst" + of, r.worst) + report_scenes("The best" + of, r.best) +
         (r.worst.empty() ? "" : report_legend(classes, shown)) + "</section>\n";
}

std::string report_sections(const DetectionResults& r, const std::vector<std::string>& classes) {
  check_names(classes, static_cast<i64>(r.objects.size()));
  ReportTable all{"All twelve figures of COCO, in %", {}};
  ClassRows t{"Each class in %, the least AP first", {"class", "objects"}};
  std::string heads;
  for (const auto& [what, f] : r.kinds) {
    check_names(classes, static_cast<i64>(f.class_ap.size()));
    for (const char* name : {"AP", "AP50", "AP75"}) t.heads.push_back(what + " " + name);
    heads += (heads.empty() ? "" : " / ") + what;
  }
  const auto share = [](double v) { return v < 0 ? not_a_number<double>() : v; };  // -1: nothing
  for (std::size_t i = 0; i < coco_figure_names.size(); ++i) {
    std::string values;
    for (const auto& [what, f] : r.kinds)
      values += (values.empty() ? "" : " / ") + report_percent(share(f.figures[i]), false);
    all.rows.emplace_back(str(coco_figure_names[i], ", ", heads), values);
  }
  std::vector<std::size_t> order(classes.size());
  for (std::size_t k = 0; k < order.size(); ++k) order[k] = k;
  const auto least = [&](std::size_t k) {  // those that are nowhere come last
    const double ap = r.kinds.empty() ? -1 : r.kinds.back().second.class_ap[k];
    return ap < 0 ? 2 : ap;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return least(a) < least(b); });
  for (const std::size_t k : order) {
    ClassRows::Row row{classes[k], "", {str(r.objects[k])}, 0};
    for (const auto& [what, f] : r.kinds) {
      row.shared = row.cells.size();  // of the last kind: masks, where there are some
      row.share = f.class_ap[k];
      for (const double ap : {f.class_ap[k], f.class_ap50[k], f.class_ap75[k]})
        row.cells.push_back(report_percent(share(ap), false));
    }
    t.rows.push_back(std::move(row));
  }
  const std::string of = str(" of ", r.among, " images, by their panoptic quality");
  return "<section id=\"classes\"><h2>Classes</h2>\n<div class=\"cards\">\n" + t.html() +
         report_table(all) + "</div></section>\n<section id=\"images\">\n" +
         report_scenes("The worst" + of, r.worst) + report_scenes("The best" + of, r.best) +
         "</section>\n";
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
