// Found objects and label maps over a photograph: what is where, and in which colour.

#include "ppma/vis/overlay.hpp"

#include "catch.hpp"
#include "ppma/vis/palette.hpp"
#include "ppma/vis/segment_picture.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

constexpr Color grey{100, 100, 100};

Tensor photograph(i64 height, i64 width) {
  return Tensor::full({height, width, 3}, 100, DType::uint8);
}
Color pixel(const Picture& p, i64 i, i64 j) {
  const u8* c = p.image().data<u8>() + (i * p.width() + j) * 3;
  return {c[0], c[1], c[2]};
}
/// `color` over grey, covering this much of it.
bool is_mixed(const Color& found, const Color& color, double cover) {
  for (std::size_t k = 0; k < 3; ++k)
    if (std::abs(found[k] - (100 + (color[k] - 100) * cover)) > 1) return false;
  return true;
}
Rle rectangle(i64 height, i64 width, i64 top, i64 left, i64 bottom, i64 right) {
  Tensor m = Tensor::zeros({height, width}, DType::uint8);
  for (i64 i = top; i < bottom; ++i)
    std::fill_n(m.data<u8>() + i * width + left, right - left, u8{1});
  return rle_encode(m);
}

}  // namespace

TEST_CASE(
    "overlay: the box is framed outside, the mask is a veil with a rim, all in the class's colour",
    "[vis]") {
  const Shown o{10, 5, 20, 15, 3, "", -1, rectangle(24, 30, 7, 12, 14, 19)};
  const Picture p = overlay(photograph(24, 30), {o}, 1);
  CHECK((p.width() == 30 && p.height() == 24));
  const Color c = class_color(3);
  CHECK(pixel(p, 1, 1) == grey);
  CHECK(pixel(p, 4, 14) == c);  // the frame is 1.6 thick
  CHECK(is_mixed(pixel(p, 3, 14), c, 0.6));
  CHECK(pixel(p, 2, 14) == grey);
  CHECK((pixel(p, 10, 9) == c && pixel(p, 10, 20) == c && pixel(p, 15, 15) == c));
  CHECK(pixel(p, 5, 10) == grey);  // in the box, not in the mask
  CHECK(is_mixed(pixel(p, 10, 15), c, 0.42));
  for (const auto& [i, j] : std::vector<std::pair<i64, i64>>{{7, 15}, {13, 15}, {10, 12}, {10, 18}})
    CHECK(is_mixed(pixel(p, i, j), c, 0.95));
  CHECK(pixel(p, 6, 15) == grey);
  CHECK(says([&] { overlay(photograph(24, 31), {o}, 1); },
             "overlay: a mask of 24 x 30 pixels on an image of 24 x 31"));
}

TEST_CASE("overlay: enlarged with the image; the first object lies on top", "[vis]") {
  const Shown first{10, 5, 20, 15, 0, "", -1, rectangle(24, 30, 5, 10, 15, 20)},
      second{10, 5, 20, 15, 1, "", -1, rectangle(24, 30, 5, 10, 15, 20)};
  const Picture p = overlay(photograph(24, 30), {first, second}, 50);
  CHECK((p.width() == 60 && p.height() == 48));
  CHECK(pixel(p, 9, 30) == class_color(0));                  // the frame, just above y = 10
  CHECK(pixel(p, 20, 19) == class_color(0));                 // and left of x = 20
  const Color rim = pixel(p, 10, 30), top = class_color(0);  // a twentieth is what lies below
  for (std::size_t k = 0; k < 3; ++k) CHECK(std::abs(rim[k] - top[k]) <= 13);
  CHECK(pixel(p, 5, 5) == grey);
}

TEST_CASE("overlay: the tag stands above the box, or in it where there is no room", "[vis]") {
  const double height = 9.5 * 0.9 * 2;  // of a tag
  Shown o{30, 40, 60, 55, 2, "cat", 0.5};
  const Color c = class_color(2);
  const auto in_tag = [&](const Picture& p, double top) {
    return is_mixed(pixel(p, static_cast<i64>(top + 2), 30), c, 0.93);
  };
  const Picture p = overlay(photograph(70, 90), {o}, 1);
  CHECK(in_tag(p, 40 - 1.6 - height));
  CHECK(pixel(p, static_cast<i64>(40 - 1.6 - height) - 1, 32) == grey);
  CHECK(pixel(p, 45, 45) == grey);  // the box is empty
  o.y1 = 5;
  const Picture q = overlay(photograph(70, 90), {o}, 1);
  CHECK(in_tag(q, 5));
  // With a score its tag is wider; without words there is none.
  o.y1 = 40;
  const auto width_of_tag = [&](const Shown& s) {
    const Picture r = overlay(photograph(70, 90), {s}, 1);
    i64 n = 0;
    for (i64 j = 0; j < 90; ++j)
      n += is_mixed(pixel(r, static_cast<i64>(40 - 1.6 - height + 2), j), c, 0.93);
    return n;
  };
  Shown unsure = o, silent = o;
  unsure.score = -1, silent.name.clear(), silent.score = -1;
  CHECK(width_of_tag(o) > width_of_tag(unsure) + 10);
  CHECK(width_of_tag(unsure) > 15);
  CHECK(width_of_tag(silent) == 0);
}

TEST_CASE("segment picture: a veil with borders, 255 stays clear, the legend names what occurs",
          "[vis]") {
  const i64 H = 40, W = 200;
  Tensor labels = Tensor::zeros({H, W}, DType::uint8);
  u8* const l = labels.data<u8>();
  // 0 on the left, more of 1 on the right
  for (i64 i = 0; i < H; ++i) std::fill_n(l + i * W + 80, 120, u8{1});
  for (i64 i = 30; i < 35; ++i) std::fill_n(l + i * W + 10, 30, u8{255});
  l[5 * W + 5] = l[5 * W + 6] = 4;  // less than a thousandth
  const std::vector<std::string> names{"sky", "road"};
  const Picture p = segment_picture(photograph(H, W), labels, names, 1);
  REQUIRE(p.width() == W);
  CHECK(is_mixed(pixel(p, 20, 40), class_color(0), 0.5));
  CHECK(is_mixed(pixel(p, 20, 150), class_color(1), 0.5));
  CHECK(is_mixed(pixel(p, 20, 79), paper_white, 0.75));  // the border's left side
  CHECK(is_mixed(pixel(p, 20, 80), class_color(1), 0.5));
  CHECK(is_mixed(pixel(p, 29, 20), paper_white, 0.75));  // above what does not count
  CHECK(pixel(p, 32, 20) == grey);
  CHECK(pixel(p, 34, 20) == grey);
  // The legend: largest first.
  const double size = 9, top = 40 + 2.4 * size - 1.15 * size,
               second = 1.5 * size + 2.2 * size + text_width("road", size) + 1.8 * size;
  const i64 row = static_cast<i64>(top + 0.6 * size);
  CHECK(p.height() > 40 + 20);
  CHECK(pixel(p, row, static_cast<i64>(1.5 * size + 5)) == class_color(1));
  CHECK(pixel(p, row, static_cast<i64>(second + 5)) == class_color(0));
  i64 other = 0, written = 0;
  for (i64 i = 40; i < p.height(); ++i)
    for (i64 j = 0; j < W; ++j)
      other += pixel(p, i, j) == class_color(4),
          written += pixel(p, i, j)[0] < 100 && pixel(p, i, j)[1] < 100 && pixel(p, i, j)[2] < 100;
  CHECK(other == 0);
  CHECK(written > 20);
  CHECK(says([&] { segment_picture(photograph(H, W + 1), labels, names, 1); },
             "segment_picture: labels (40, 200) for an image (40, 201, 3)"));
  // A class without a name is numbered, and a picture is enlarged by a whole factor.
  const Picture big = segment_picture(photograph(H, W), labels, {"sky"}, 500);
  CHECK(big.width() == 600);
  CHECK(is_mixed(pixel(big, 60, 120), class_color(0), 0.5));
  CHECK(is_mixed(pixel(big, 60, 239), paper_white, 0.75));
}
