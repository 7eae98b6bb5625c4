// Colour maps against the published tables, drawing against areas worked by hand, the typeface,
// panels and curves by where things must be, and the numbers of the mask figure.

#include <set>

#include "catch.hpp"
#include "ppma/vis/curve.hpp"
#include "ppma/vis/intervals.hpp"
#include "ppma/vis/mask_picture.hpp"
#include "ppma/vis/segment_picture.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

Color at(const Tensor& image, i64 i, i64 j) {
  const u8* p = image.data<u8>() + (i * image.dim(1) + j) * 3;
  return {p[0], p[1], p[2]};
}
Color at(const Picture& p, i64 i, i64 j) { return at(p.image(), i, j); }

double darkness(const Picture& p) {  // in pixels of full black
  double sum = 0;
  for (const double v : p.image().to_vector<double>()) sum += (255 - v) / 255 / 3;
  return sum;
}

double luminance(Color c) {
  const auto light = [](int v) { return std::pow(v / 255.0, 2.2); };
  return 0.2126 * light(c[0]) + 0.7152 * light(c[1]) + 0.0722 * light(c[2]);
}

constexpr Color black{0, 0, 0};

}  // namespace

TEST_CASE("colour maps are the published ones") {
  // matplotlib 3: viridis(0), viridis(128), viridis(255); magma(64); Greens and RdBu: their first,
  // middle and last colour.
  CHECK(color_of(ColorMap::viridis, 0) == Color{68, 1, 84});
  CHECK(color_of(ColorMap::viridis, 128 / 255.0) == Color{32, 144, 140});
  CHECK(color_of(ColorMap::viridis, 1) == Color{253, 231, 36});
  CHECK(color_of(ColorMap::magma, 64 / 255.0) == Color{80, 18, 123});
  CHECK(color_of(ColorMap::greens, 0) == Color{247, 252, 245});
  CHECK(color_of(ColorMap::greens, 1) == Color{0, 68, 27});
  CHECK(color_of(ColorMap::red_blue, 0.5) == Color{247, 247, 247});
  CHECK(color_of(ColorMap::red_blue, 0) == Color{103, 0, 31});
  CHECK(color_of(ColorMap::grey, 0.5) == Color{128, 128, 128});
  CHECK(color_of(ColorMap::grey, -3) == black);
  CHECK(color_of(ColorMap::grey, 7) == Color{255, 255, 255});
  CHECK(color_of(ColorMap::viridis, NAN) == Color{221, 221, 221});
  for (const ColorMap map : {ColorMap::viridis, ColorMap::magma, ColorMap::grey})
    for (int i = 0; i < 255; ++i)
      CHECK(luminance(color_of(map, i / 255.0)) < luminance(color_of(map, (i + 1) / 255.0)) + 1e-3);
}

TEST_CASE("maps are coloured over their finite range") {
  const Tensor map = Tensor::from<float>({-1, 3, NAN, INFINITY, 1, -INFINITY}, {2, 3});
  CHECK(range_of(map).low == -1);
  CHECK(range_of(map).high == 3);
  const Tensor image = colorize(map, ColorMap::grey);
  REQUIRE(image.shape() == Shape({2, 3, 3}));
  CHECK(at(image, 0, 0) == black);
  CHECK(at(image, 0, 1) == Color{255, 255, 255});
  CHECK(at(image, 0, 2) == Color{221, 221, 221});
  CHECK(at(image, 1, 0) == Color{255, 255, 255});
  CHECK(at(image, 1, 1) == Color{128, 128, 128});
  CHECK(at(image, 1, 2) == black);
  CHECK(at(colorize(Tensor::full({1, 1}, 5), ColorMap::grey), 0, 0) == Color{128, 128, 128});
  CHECK(range_of(Tensor::full({2}, NAN)).high == 1);
  CHECK(says(
      [] {
        colorize(Tensor::zeros({2, 2}, DType::uint8));
      },
      "needs a floating map (H,W), got (2, 2) uint8"));
}

TEST_CASE("what is drawn has its area, whatever its place between pixels") {
  Picture whole(20, 20);
  whole.fill(3, 4, 9, 6, black);
  CHECK(darkness(whole) == Approx(12));
  CHECK(at(whole, 5, 8) == black);
  CHECK(at(whole, 6, 8) == paper_white);
  Picture parts(20, 20);
  parts.fill(3.25, 4.5, 9.75, 6.75, black);
  CHECK(darkness(parts) == Approx(6.5 * 2.25).margin(0.1));
  Picture frame(20, 20);
  frame.frame(5, 5, 10, 12, 2, black);
  CHECK(darkness(frame) == Approx(9 * 11 - 5 * 7));
  Picture line(60, 60);
  line.line({10, 12, 45, 40.5}, 3, black);
  CHECK(darkness(line) == Approx(3 * std::hypot(35, 28.5) + 3.1416 * 2.25).epsilon(0.02));
  Picture dot(20, 20);
  dot.dot(9.3, 10.6, 5, black);
  CHECK(darkness(dot) == Approx(3.1416 * 25).epsilon(0.02));
  Picture joint(60, 60);  // there and back again is no darker than there
  joint.line({10, 12, 45, 40.5, 10, 12}, 3, black);
  CHECK(darkness(joint) == darkness(line));
  Picture outside(20, 20);
  outside.fill(-5, -5, 3, 3, black);
  outside.line({-10, 30, 50, 90}, 4, black);
  outside.dot(19, 40, 3, black);
  outside.paste(-3, 18, Tensor::zeros({5, 5, 3}, DType::uint8));
  outside.paste(25, 2, Tensor::zeros({5, 5, 3}, DType::uint8));
  CHECK(darkness(outside) == Approx(9 + 2 * 2));
}

TEST_CASE("the typeface has every printable character, each of its own look") {
  std::set<std::vector<u8>> looks;
  for (u32 code = 33; code < 127; ++code) {
    Picture p(40, 44);
    p.text(10, 30, std::string(1, static_cast<char>(code)), 20);
    INFO(static_cast<char>(code));
    CHECK(darkness(p) > 3);
    looks.insert(p.image().to_vector<u8>());
    // Nothing is cut off: the border stays white.
    for (i64 k = 0; k < 40; ++k)
      CHECK((at(p, 0, k) == paper_white && at(p, 43, k) == paper_white &&
             at(p, k, 0) == paper_white && at(p, k, 39) == paper_white));
  }
  CHECK(looks.size() == 94);
}

TEST_CASE("text: widths, alignment, UTF-8") {
  CHECK(text_width("", 14) == 0);
  CHECK(text_width("H", 14) == Approx(9.4));
  CHECK(text_width("HH", 28) == Approx(2 * (2 * 9.4 + font_gap)));
  CHECK(text_width("\u03b1", 14) == Approx(8.6));
  CHECK(text_width("\xff", 14) == text_width("?", 14));
  CHECK(text_width("\xce", 14) == text_width("?", 14));
  CHECK(detail::code_points("a\u00b1\u2212\U0001F600") ==
        std::vector<u32>{'a', 0xb1, 0x2212, 0x1f600});
  CHECK(detail::code_points("\xce\x41") == std::vector<u32>{0xfffd, 'A'});
  const auto extent = [](Align align) {
    Picture p(200, 40);
    p.text(100, 30, "HIH", 14, black, align);
    i64 first = 200, last = -1;
    for (i64 i = 0; i < 40; ++i)
      for (i64 j = 0; j < 200; ++j)
        if (at(p, i, j)[0] < 128) first = std::min(first, j), last = std::max(last, j);
    return std::pair<i64, i64>{first, last};
  };
  CHECK(extent(Align::left).first >= 99);
  CHECK(extent(Align::left).first <= 100);
  CHECK(extent(Align::right).second >= 99);
  CHECK(extent(Align::right).second <= 100);
  CHECK(std::abs(extent(Align::center).first + extent(Align::center).second - 199) <= 1);
  Picture upright(60, 200), lying(200, 60);
  upright.text_upwards(40, 100, "polyline", 14, black);
  lying.text(100, 40, "polyline", 14, black, Align::center);
  CHECK(darkness(upright) == Approx(darkness(lying)).epsilon(0.02));
}

TEST_CASE("numbers for people") {
  CHECK(short_number(0) == "0");
  CHECK(short_number(1) == "1");
  CHECK(short_number(0.98431) == "0.984");
  CHECK(short_number(-2.5) == "\u22122.5");
  CHECK(short_number(0.00012) == "1.2e\u22124");
  CHECK(short_number(1.5e-11) == "1.5e\u221211");
  CHECK(short_number(3e7) == "3.0e7");
  CHECK(short_number(0.98431, 4) == "0.9843");
  CHECK(round_ticks(0, 10, 5) == std::vector<double>{0, 2, 4, 6, 8, 10});
  const std::vector<double> tenths = round_ticks(-0.31, 0.12, 4);
  REQUIRE(tenths.size() == 5);
  for (std::size_t k = 0; k < 5; ++k)
    CHECK(tenths[k] == Approx(-0.3 + 0.1 * static_cast<double>(k)).margin(1e-12));
  CHECK(round_ticks(12, 97, 4) == std::vector<double>{20, 40, 60, 80});
  CHECK(round_ticks(1, 3, 7, true) == std::vector<double>{1, 2, 3});
  CHECK(round_ticks(0.5, 1.5, 6, true) == std::vector<double>{1});
  CHECK(round_ticks(1, 90, 5, true) == std::vector<double>{20, 40, 60, 80});
  CHECK(detail::tick_label(-0.1, 0.1) == "\u22120.1");
  CHECK(detail::tick_label(200, 50) == "200");
  // no two ticks have one label, however close
  CHECK(detail::tick_label(0.50001, 1e-5) == "0.50001");
  CHECK(detail::tick_label(0.5, 1e-5) == "0.5");
  CHECK(detail::tick_label(0, 1e-5) == "0");
  CHECK(detail::tick_label(-1.1e-4, 1e-5) == "\u22121.1e\u22124");
  CHECK(detail::tick_label(100001, 1) == "1.00001e5");
  CHECK(detail::tick_label(120000, 20000) == "1.2e5");
}

TEST_CASE(
    "panels stand in rows with equal gaps; maps keep whole cells; the marked cell is framed in "
    "red") {
  const Tensor photo = Tensor::full({120, 120, 3}, 40, DType::uint8);
  Tensor map = Tensor::zeros({7, 7});
  map.data<float>()[3 * 7 + 5] = 2;
  Panel marked = map_panel("map", map, ColorMap::grey);
  marked.marked = GridCell{3, 5, 7, 7};
  const Picture p =
      panels({{image_panel("image", photo), map_panel("map", map, ColorMap::grey), marked},
              {image_panel("", photo)}});
  // 240 pixels make 34 for each of 7 cells: panels of 238, margins of 20, gaps of 18, titles above.
  CHECK(p.width() == 2 * 20 + 3 * 238 + 2 * 18);
  const i64 top = 20 + 22, left = 20 + 238 + 18;
  for (i64 k = 0; k < p.width(); ++k)
    CHECK((at(p, 0, k) == paper_white && at(p, p.height() - 1, k) == paper_white));
  CHECK(at(p, top, 20) == Color{40, 40, 40});
  CHECK(at(p, top + 237, 20 + 237) == Color{40, 40, 40});
  CHECK(at(p, top + 238, 20) == paper_white);
  CHECK(at(p, top, 20 + 238) == paper_white);
  const i64 y = top + 3 * 34, x = left + 5 * 34;  // the bright cell
  CHECK(at(p, y, x) == paper_white);
  CHECK(at(p, y + 33, x + 33) == paper_white);
  CHECK(at(p, y - 1, x) == black);
  CHECK(at(p, y, x - 1) == black);
  CHECK(at(p, y + 34, x + 33) == black);
  const i64 x2 = x + 238 + 18;  // the same cell of the third panel, framed from outside
  CHECK(at(p, y, x2) == paper_white);
  CHECK(at(p, y - 1, x2 + 10) == signal_red);
  CHECK(at(p, y - 2, x2 + 10) == signal_red);
  CHECK(at(p, y + 35, x2 + 10) == signal_red);
  CHECK(at(p, y + 10, x2 - 2) == signal_red);
  CHECK(at(p, y - 5, x2 + 10) == black);
  const i64 bar = top + 238 + 7 + 3;  // the colour bar runs from black to white
  CHECK(at(p, bar, left)[0] < 3);
  CHECK(at(p, bar, left + 119)[0] == Approx(128).margin(2));
  CHECK(at(p, bar, left + 237)[0] > 252);
  // Titles of a later row have the same room.
  const Picture titled =
      panels({{image_panel("image", photo), map_panel("map", map)}, {image_panel("image", photo)}});
  CHECK(titled.height() == p.height() + 22);
  CHECK(says([] { panels({}); }, "no panels"));
  CHECK(says(
      [&] {
        panels({{image_panel("a", photo), image_panel("b", Tensor())}});
      },
      "row 0, column 1, \"b\" has no image"));
}

TEST_CASE("curves: lines are where their numbers say") {
  const Series rising{"", {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}},
      gap{"gap", {0, 1, 2, 3, 4}, {4, NAN, 4, NAN, 4}};
  const Picture p = curves({rising}, {.width = 400, .height = 300, .y_range = Range{0, 4}});
  const Color blue = detail::series_color(0);
  // Bottom left and top right of the axes are on the line, the other corners are not.
  i64 left = 400, right = -1, top = 300, bottom = -1;
  for (i64 i = 0; i < 300; ++i)
    for (i64 j = 0; j < 400; ++j)
      if (at(p, i, j) == blue)
        left = std::min(left, j), right = std::max(right, j), top = std::min(top, i),
        bottom = std::max(bottom, i);
  CHECK(right - left > 300);
  CHECK(bottom - top > 200);
  CHECK(at(p, (top + 3 + bottom) / 2, (left + right - 3) / 2) == blue);
  CHECK(at(p, top + 20, left + 20) != blue);
  const Picture broken = curves({gap, rising}, {.width = 400, .height = 300});
  i64 runs = 0;  // three lone points along the top
  for (i64 i = 0; i < 300 && runs == 0; ++i)
    for (i64 j = 1; j < 330; ++j) runs += at(broken, i, j) == blue && at(broken, i, j - 1) != blue;
  CHECK(runs >= 1);
  CHECK(runs <= 3);
  CHECK_NOTHROW(curves({{"constant", {1}, {5}}}));
  CHECK(says([] { curves({{"a", {1, 2}, {1}}}); }, "\"a\" has 2 x and 1 y"));
  CHECK(says([] { curves({{"a", {1}, {NAN}}}); }, "no finite point"));
  CHECK(says([&] { curves({rising}, {.width = 40, .height = 30}); }, "40 x 30 pixels are too few"));
}

TEST_CASE("intervals: estimates are where their numbers say") {
  const std::vector<IntervalRow> rows{
      {"heading"}, {"clear", {2, 1, 1, 3}, {1, 3}}, {"open", {0.5, 1, -1, 2}, {-0.5, 1.5}}};
  const Picture p = intervals(rows, {.width = 400});
  // The line at zero, the blue interval right of it, the grey one across it.
  i64 zero = -1, blue = 0, blue_left = 0;
  for (i64 j = 0; j < p.width(); ++j) {
    if (at(p, 21, j) == ink) zero = j;
    const Color c = at(p, 20 + 45, j);
    if (c[2] > c[0] + 60) blue += 1, blue_left = blue_left == 0 ? j : blue_left;
  }
  REQUIRE(zero > 0);
  CHECK(blue > 40);
  CHECK(blue_left > zero);
  i64 left = 0, right = 0;
  for (i64 j = 0; j < p.width(); ++j)
    if (const Color c = at(p, 20 + 75, j); c[0] < 140 && c[0] > 100) ++(j < zero ? left : right);
  CHECK(left > 20);
  CHECK(right > left);
  // One value has no interval, and that is no error.
  CHECK_NOTHROW(intervals({{"one", mean_interval({2}), {2}}}, {}));
  CHECK(says([] { intervals({{"heading"}}, {}); }, "nothing to draw"));
  CHECK(says([&] { intervals(rows, {.width = 60}); }, "60 pixels are too few"));
}

TEST_CASE("the numbers of the mask figure, by hand") {
  CHECK(correlation({1, 2, 3}, {2, 4, 6}) == Approx(1));
  CHECK(correlation({1, 2, 3}, {3, 2, 1}) == Approx(-1));
  CHECK(correlation({1, 2, 3, 4}, {1, -1, -1, 1}) == Approx(0).margin(1e-12));
  CHECK(std::isnan(correlation({1, 1}, {1, 2})));

  // Left half black, right half white; 4 x 4 tokens of 2 x 2 pixels: columns 1 and 2 see a change
  // of 1 in three channels.
  Tensor image = Tensor::zeros({8, 8, 3}, DType::uint8);
  for (i64 i = 0; i < 8; ++i)
    for (i64 j = 4; j < 8; ++j)
      for (i64 c = 0; c < 3; ++c) image.data<u8>()[(i * 8 + j) * 3 + c] = 255;
  const auto [across, down] = image_gradients(image, 4, 4);
  for (std::size_t k = 0; k < 16; ++k) {
    CHECK(across[k] == Approx(k % 4 == 1 || k % 4 == 2 ? std::sqrt(3.0) / 2 : 0));
    CHECK(down[k] == 0);
  }

  Tensor weights = Tensor::zeros({4, 4});
  weights.data<float>()[0] = 1;          // (0,0): distance sqrt(2)
  weights.data<float>()[1 * 4 + 3] = 3;  // (1,3): distance 2
  CHECK(mean_radius(weights, 1, 1) == Approx((std::sqrt(2.0) + 6) / 4));

  Tensor object = Tensor::zeros({8, 8}, DType::uint8);
  object.data<u8>()[0] = object.data<u8>()[1] = 1;  // half of token (0,0)
  object.data<u8>()[3 * 8 + 7] = 9;                 // a quarter of token (1,3)
  CHECK(share_inside(weights, object) == Approx((0.5 + 0.75) / 4));
}

TEST_CASE("the mask figure and its statistics") {
  MaskMaps m;
  m.image = Tensor::zeros({32, 32, 3}, DType::uint8);
  for (i64 i = 0; i < 32; ++i)
    for (i64 j = 16; j < 32; ++j) m.image.data<u8>()[(i * 32 + j) * 3 + (i < 16 ? 0 : 1)] = 200;
  m.alpha = Tensor::full({8, 8}, 0.9), m.beta = Tensor::full({8, 8}, 0.9, DType::f64);
  for (i64 i = 0; i < 8; ++i) {
    // falls at the upright contour
    m.alpha.data<float>()[i * 8 + 3] = m.alpha.data<float>()[i * 8 + 4] = 0.1f;
    if (i >= 4) m.beta.data<double>()[3 * 8 + i] = m.beta.data<double>()[4 * 8 + i] = 0.1;
  }
  m.unmasked = Tensor::full({8, 8}, 1.0 / 64), m.mask = Tensor::zeros({8, 8}),
  m.masked = Tensor::zeros({8, 8});
  m.row = 2, m.column = 6;
  m.mask.data<float>()[2 * 8 + 6] = 1, m.masked.data<float>()[2 * 8 + 6] = 1;
  Tensor object = Tensor::zeros({32, 32}, DType::uint8);
  for (i64 i = 0; i < 16; ++i)
    for (i64 j = 16; j < 32; ++j) object.data<u8>()[i * 32 + j] = 1;
  const MaskStatistics s = mask_statistics(m, object);
  CHECK(s.alpha_at_contours == Approx(1));
  CHECK(s.beta_at_contours == Approx(1));
  CHECK(s.mask_radius == 0);
  CHECK(s.masked_inside == 1);
  CHECK(s.unmasked_inside == Approx(0.25));
  CHECK(s.unmasked_radius > 3);
  CHECK(std::isnan(mask_statistics(m).masked_inside));

  const Picture p = mask_picture({m, m});
  CHECK(p.width() == 2 * 20 + 6 * 240 + 5 * 18);
  i64 red = 0;  // twelve frames, 30 x 30 inside, 2 wide
  for (i64 i = 0; i < p.height(); ++i)
    for (i64 j = 0; j < p.width(); ++j) red += at(p, i, j) == signal_red;
  CHECK(red == 12 * (34 * 34 - 30 * 30));
  m.mask = Tensor::zeros({8, 7});
  CHECK(says([&] { mask_picture({m}); }, "mask must be floating (8, 8) like alpha, got (8, 7)"));
  m.mask = m.alpha, m.column = 8;
  CHECK(says([&] { mask_statistics(m); }, "query (2, 8) is outside of the grid (8, 8)"));
}

TEST_CASE("vis: the legend under a narrow image is as wide as its longest name", "[vis]") {
  const std::vector<std::string> names{"background", "a name of several words"};
  Tensor labels = Tensor::zeros({300, 1}, DType::uint8);
  labels.data<u8>()[7] = 1;
  const Picture narrow = segment_picture(Tensor::zeros({300, 1, 3}, DType::uint8), labels, names),
                wide = segment_picture(Tensor::zeros({300, 900, 3}, DType::uint8),
                                       Tensor::zeros({300, 900}, DType::uint8), names);
  CHECK(narrow.width() > static_cast<i64>(text_width(names[1], 9)));
  CHECK(wide.width() == 900);
  // Right of the image's three columns and beside the strip is paper; the last columns hold no ink:
  // nothing is cut off.
  const Tensor drawn = narrow.image();
  bool ink_before = false;
  for (i64 i = 0; i < drawn.dim(0); ++i)
    for (i64 j = 3; j < drawn.dim(1); ++j)
      if (const u8* p = drawn.data<u8>() + (i * drawn.dim(1) + j) * 3; p[0] < 128) {
        ink_before = true;
        CHECK(j < drawn.dim(1) - 3);
      }
  CHECK(ink_before);
}
