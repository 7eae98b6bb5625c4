// The page about a run: well-formed, all parts there, names as they are; and a page to look at, which
// tests/report.sh opens in a browser.

#include "ppma/vis/report.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "catch.hpp"
#include "ppma/io/file.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/stb.hpp"
#include "ppma/vis/page.hpp"
#include "ppma/vis/svg.hpp"
#include "ppma/vis/svg_file.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

// Where `text` is not well-formed XML: elements nest, attributes are quoted and are given once, & and
// < stand for nothing else. "": nowhere.
std::string malformed(const std::string& text) {
  std::vector<std::string> open;
  std::size_t i = text.find('\n') + 1;  // behind the document type
  const auto at = [&](const char* what) { return str(what, " at: ", text.substr(i, 60)); };
  const auto reference = [&](std::size_t k) {  // &...; from k on
    for (const char* known : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"})
      if (text.compare(k, std::string(known).size(), known) == 0) return true;
    return false;
  };
  const auto name_end = [&](std::size_t k) {
    while (k < text.size() && (std::isalnum(static_cast<unsigned char>(text[k])) || text[k] == '-'))
      ++k;
    return k;
  };
  while (i < text.size()) {
    if (text[i] == '&' && !reference(i)) return at("a bare &");
    if (text[i] != '<') {
      if (open.empty() && !std::isspace(static_cast<unsigned char>(text[i]))) return at("outside");
      ++i;
      continue;
    }
    const bool closes = text[i + 1] == '/';
    const std::size_t begin = i + (closes ? 2 : 1), end = name_end(begin);
    const std::string name = text.substr(begin, end - begin);
    if (name.empty()) return at("no name");
    if (closes) {
      if (open.empty() || open.back() != name || text[end] != '>') return at("does not nest");
      open.pop_back(), i = end + 1;
      continue;
    }
    std::vector<std::string> seen;
    std::size_t k = end;
    while (text[k] == ' ') {
      const std::size_t key = k + 1, equal = name_end(key);
      seen.push_back(text.substr(key, equal - key));
      if (std::count(seen.begin(), seen.end(), seen.back()) != 1) return at("twice an attribute");
      if (text.compare(equal, 2, "=\"") != 0) return at("an attribute without quotes");
      for (k = equal + 2; text[k] != '"'; ++k)
        if (text[k] == '<' || (text[k] == '&' && !reference(k)) || k + 1 >= text.size())
          return at("an attribute");
      ++k;
    }
    if (text.compare(k, 2, "/>") == 0)
      i = k + 2;
    else if (text[k] == '>')
      open.push_back(name), i = k + 1;
    else
      return at("a tag");
  }
  return open.empty() ? "" : "not closed: " + open.back();
}

// Of so many classes, with names that HTML would read as its own.
Report example(i64 classes) {
  Report r;
  r.title = "ppma_nano on <b>\"shapes\" & others</b>";
  r.subtitle = "after epoch 3 of 6, by the averaged weights";
  r.epoch = 3;
  r.figures = {{"90.0 %", "top-1"},
               {"99.1 %", "top-5"},
               {"4.1 %", "calibration error"},
               {"1,234", "images/s in training"}};
  r.charts = {
      {"Accuracy %", {{"top-1", {1, 2, 3}, {30, 71, 90}}, {"averaged", {1, 2, 3}, {20, 74, 91}}}},
      {"Loss", {{"training", {1, 2, 3}, {2.1, 1.4, 0.7}}, {"test", {1, 2, 3}, {1.9, 1.2, 0.5}}}}};
  for (i64 k = 0; k < classes; ++k)
    r.classes.push_back(k == 1   ? "cat's <i>&\""
                        : k == 2 ? "a name without an end or a space_in_it"
                                 : str("class ", k));
  ClassifierResults results{Confusion(classes)};
  for (i64 k = 0; k + 1 < classes; ++k)  // of the last class there is no image
    for (i64 i = 0; i < 20; ++i) {
      const i64 other = i < 17 ? k : (k + i) % (classes - 1);
      results.confusion.add(
          {k * 20 + i, k, other, other == k ? 1 : 2, 0.5 + 0.024 * static_cast<double>(i), 0.1});
    }
  Tensor image = Tensor::full({200, 300, 3}, 90, DType::uint8);
  if (PPMA_STB != 0) {
    results.wrong = {{image, {7, 1, 0, 2, 0.987, 0.011}, "a<b>.png"}};
    for (i64 k = 0; k < 3; ++k)
      results.right.push_back(
          {Tensor::full({32, 32, 3}, 60.0 * static_cast<double>(k), DType::uint8),
           {k, 0, 0, 1, 0.99, 0.99}});
  }
  if (PPMA_STB != 0)
    for (const i64 epoch : {1, 3})
      r.decays.epochs.emplace_back(
          epoch,
          encode_png(Tensor::full({40, 120, 3}, 80.0 * static_cast<double>(epoch), DType::uint8),
                     "decays"));
  if (PPMA_STB != 0)
    r.decays.images = encode_png(Tensor::full({40, 40, 3}, 90, DType::uint8), "images");
  r.results = std::move(results);
  r.tables = {{"Configuration", {{"name", "ppma_nano"}, {"depths", "[2,2,8,2]"}}},
              {"Options", {{"data", "a & b <c>"}}},
              {"Environment", {{"threads", "2"}}}};
  return r;
}

std::vector<ReportScene> scenes(const char* figure) {
  if (PPMA_STB == 0) return {};
  const Tensor small = Tensor::full({48, 64, 3}, 90, DType::uint8),
               large = Tensor::full({180, 240, 3}, 150, DType::uint8);
  return {{small, large, large, "a<b>.png", figure}, {small, small, large, "image 7", figure}};
}

Report segmentation_example() {
  Report r = example(4);
  SegmentationResults results{Confusion(4), scenes("IoU 34.1 %"), scenes("IoU 97.0 %"), 40};
  results.pixels.add(0, 0, 90000), results.pixels.add(0, 1, 10000);
  results.pixels.add(1, 1, 3000), results.pixels.add(1, 0, 1000), results.pixels.add(2, 0, 4);
  r.results = std::move(results);
  return r;
}

Report detection_example() {
  Report r = example(3);
  CocoFigures boxes, masks;
  boxes.figures.fill(0.25), boxes.figures[5] = -1;
  boxes.class_ap = {0.5, 0.125, -1}, boxes.class_ap50 = boxes.class_ap75 = boxes.class_ap;
  masks = boxes;
  masks.class_ap = {0.375, 0.5, -1};
  r.results = DetectionResults{
      {{"box", boxes}, {"mask", masks}}, {12, 3, 0}, scenes("PQ 0.0 %"), scenes("PQ 88.0 %"), 20};
  return r;
}

}  // namespace

TEST_CASE("a report is well-formed and whole and asks nothing of the network", "[vis]") {
  for (const i64 classes : {2, 10, 130}) {
    const Report r = example(classes);
    const std::string html = report_html(r);
    INFO(classes);
    CHECK(malformed(html) == "");
    CHECK(report_epoch(html) == 3);
    for (const char* part :
         {"id=\"curves\"", "id=\"classes\"", "id=\"calibration\"", "id=\"run\"",
          "prefers-color-scheme: dark",
          "ppma_nano on &lt;b&gt;&quot;shapes&quot; "
          "&amp; others&lt;/b&gt;",
          "a &amp; b &lt;c&gt;", "Environment", "cat&#39;s &lt;i&gt;&amp;&quot;"})
      CHECK(html.find(part) != std::string::npos);
    for (const char* never : {"<i>\"", "<b>\"", "http:", "https:", "<script ", "<link", "url(",
                              ">nan", "nan\"", "inf\""})
      CHECK(html.find(never) == std::string::npos);
    std::size_t images = 0;
    for (std::size_t at = 0;
         (at = html.find("data:image/png;base64,iVBOR", at)) != std::string::npos; ++at)
      ++images;
    CHECK(images == (PPMA_STB != 0 ? 7u : 0u));
    // Of the decays the last are shown, and the slider is there where scripts are.
    if (PPMA_STB != 0)
      for (const char* part :
           {"<img data-epoch=\"1\" alt=\"decays and masks after epoch 1\" hidden=\"\"",
            "<img data-epoch=\"3\" alt=\"decays and masks after epoch 3\" src=", "max=\"1\"",
            ">after epoch 3</output>", "<label for=\"decay-slider\">"})
        CHECK(html.find(part) != std::string::npos);
    CHECK((PPMA_STB == 0 || html.find("a&lt;b&gt;.png") != std::string::npos));
  }
  // For a browser.
  if (const char* to = std::getenv("PPMA_REPORT_TO")) {
    const std::string folder = to;
    write_file(folder + "/classify.html", std::string_view(report_html(example(10))));
    write_file(folder + "/segment.html", std::string_view(report_html(segmentation_example())));
    write_file(folder + "/detect.html", std::string_view(report_html(detection_example())));
  }
  CHECK(malformed("<!DOCTYPE html>\n<a><b></a></b>").find("does not nest") == 0);
  CHECK(malformed("<!DOCTYPE html>\n<a>x & y</a>").find("a bare &") == 0);
  CHECK(report_epoch("something else") == -1);
  Report r = example(3);
  r.classes.pop_back();
  CHECK(says([&] { report_html(r); }, "2 names for 3 classes"));
}

TEST_CASE("reports of segmentors and detectors say what was counted", "[vis]") {
  const auto has = [](const std::string& html, const char* part) {
    INFO(part);
    CHECK(html.find(part) != std::string::npos);
  };
  const std::string pixels = report_html(segmentation_example());
  CHECK(malformed(pixels) == "");
  // 90000 of 90000 + 10000 + 1000 + 4, and 3000 of 3000 + 1000 + 10000; the last has neither.
  for (const char* part :
       {"<td class=\"share\" style=\"--p:89.11%\">89.1</td>",
        "<td class=\"share\" style=\"--p:21.43%\">21.4</td>", "25.0\u202f% taken for class 0",
        "class 0: 10 % taken for cat&#39;s", "of 40 images, by their mean IoU", ">90</text>",
        "<i style=\"background:#ff574f\"></i>class 0"})
    has(pixels, part);
  CHECK(pixels.find("></i>class 3") == std::string::npos);  // is nowhere
  const std::string objects = report_html(detection_example());
  CHECK(malformed(objects) == "");
  for (const char* part :
       {"<th scope=\"col\">mask AP75</th>",
        "<td>class 0</td><td>12</td><td>50.0</td><td>50.0</td><td>50.0</td><td class=\"share\" "
        "style=\"--p:37.5%\">37.5</td>",
        "<td>0</td><td>\u2013</td>", "APl, box / mask</th><td>\u2013 / \u2013</td>"})
    has(objects, part);
  // The least AP of masks comes first, what is nowhere last.
  const std::size_t first = objects.find("<td>class 0</td>");
  CHECK(first < objects.find("<td>cat&#39;s"));
  CHECK(objects.find("<td>cat&#39;s") < objects.find("<td>a name without"));
  for (const std::string& html : {pixels, objects}) {
    std::size_t images = 0;
    for (std::size_t at = 0; (at = html.find("src=\"data:image/png", at)) != std::string::npos;
         ++at)
      ++images;
    CHECK(images == (PPMA_STB != 0 ? 15u : 0u));
  }
  Report r = detection_example();
  r.decays = {};
  const std::string without = report_html(r);
  for (const char* none : {"<script", "script-src", "id=\"decays\""})
    CHECK(without.find(none) == std::string::npos);
  r.classes.pop_back();
  CHECK(says([&] { report_html(r); }, "2 names for 3 classes"));
}

TEST_CASE("drawings as a file: colours of their own, in a frame that holds all", "[vis]") {
  Confusion c(2);
  c.add(0, 0, 3), c.add(0, 1, 1), c.add(1, 1, 2);
  const Svg lines = svg_curves({{"a < b", {1, 2}, {1, 2}}},
                               {.title = "Loss", .width = 440, .height = 260}),
            matrix = svg_confusion(c, {"one", "two"}, {.title = "Matrix"});
  const std::string file = svg_file({lines, matrix});
  CHECK(malformed("\n" + file) == "");
  for (const char* never : {"class=", "var(", "style="})
    CHECK(file.find(never) == std::string::npos);
  for (const char* part :
       {"xmlns=\"http://www.w3.org/2000/svg\"", "<polyline fill=\"none\" stroke=\"#0072b2\"",
        "<text fill=\"#0072b2\"", "a &lt; b", ">Loss</text>", ">Matrix</text>",
        "<rect fill=\"#12803c\"", "fill=\"#ffffff\"/>"})
    CHECK(file.find(part) != std::string::npos);
  // A margin, the title, the drawing, a margin.
  CHECK(svg_file({lines}).find("width=\"472\" height=\"318\"") != std::string::npos);
  CHECK(says([] { svg_file({}); }, "no drawing"));
}

TEST_CASE("drawings for a page: what they count, and where lines are interrupted", "[vis]") {
  CHECK(escape_xml("<a href='x'>&\"\x1b\xff") == "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\\x1b\\xff");
  Confusion c(3);
  for (const i64 predicted : {0, 0, 0, 1}) c.add({0, 0, predicted, 1, 0.5, 0.5});
  const std::string matrix = svg_confusion(c, {"a", "b", "c"}).in_page();
  CHECK(matrix.find("a: 3 right") != std::string::npos);
  CHECK(matrix.find("a: 1 taken for b") != std::string::npos);
  CHECK(matrix.find("fill-opacity=\"0.53\"") != std::string::npos);  // 0.06 + 0.94 sqrt(1 / 4)
  const double nan = std::nan("");
  const std::string lines = svg_curves({{"x", {1, 2, 3, 4, 5}, {1, 2, nan, 4, 5}}}).elements;
  std::size_t runs = 0;
  for (std::size_t at = 0; (at = lines.find("<polyline", at)) != std::string::npos; ++at) ++runs;
  CHECK(runs == 2);
  CHECK(says([&] { svg_curves({{"x", {1}, {nan}}}); }, "no finite point"));
}

TEST_CASE("a page of cards: tables, intervals, well-formed", "[vis]") {
  const std::string table =
      html_table({"mask", "accuracy"}, {{"a & b", "93.2 %"}, {"<none>", "?"}});
  CHECK(table.find("<td class=\"word\">a &amp; b</td><td>93.2 %</td>") != std::string::npos);
  CHECK(says([] { html_table({"a"}, {{"b", "c"}}); }, "a row of 2 cells under a head of 1"));
  const double nan = std::nan("");
  const std::vector<IntervalRow> rows{{"whole"},
                                      {"polyline", {1, 0.2, 0.5, 1.5}, {0.8, 1.2}},
                                      {"rmt", {0.1, 0.5, -0.4, 0.6}, {-0.2, 0.4}},
                                      {"one run", {0.3, nan, nan, nan}, {0.3}}};
  const std::string drawing =
      svg_intervals(rows, {.title = "a \"title\"", .x_label = "points"}).in_page();
  const auto count = [&](const std::string& what) {
    std::size_t n = 0;
    for (std::size_t at = 0; (at = drawing.find(what, at)) != std::string::npos; ++at) ++n;
    return n;
  };
  CHECK(count("<line class=\"s0\"") == 1);    // it does not hold zero
  CHECK(count("<line class=\"tick\"") == 1);  // it does; of one run there is none
  CHECK(count("<circle class=\"single\"") == 5);
  CHECK(count("nan") == 0);
  CHECK(says([] { svg_intervals({{"whole"}}, {}); }, "there is nothing to draw"));
  const std::string html = page_html(
      {"masks < others", "3 seeds", {{"Figures", {{"", table, true}, {"differences", drawing}}}}});
  CHECK(malformed(html) == "");
  CHECK(html.find("masks &lt; others") != std::string::npos);
  for (const char* never : {"http:", "https:", "<script", "url("})
    CHECK(html.find(never) == std::string::npos);
}
