// Anchors and delta coding on cases worked by hand.
#include "ppma/heads/boxes.hpp"

#include "catch.hpp"

using namespace ppma;

TEST_CASE("boxes: anchors by row, column, ratio, centred on multiples of the stride") {
  const std::vector<Box> a = anchors(2, 3, 4);
  REQUIRE(a.size() == 18);
  CHECK(a[1].x1 == -16);  // ratio 1: side 32 around (0, 0)
  CHECK(a[1].y2 == 16);
  CHECK(a[4].x1 == -12);   // next column
  CHECK(a[10].y1 == -12);  // next row
  CHECK(a[2].height() / a[2].width() == Approx(2));
  CHECK(a[0].area() == Approx(1024));
}

TEST_CASE("boxes: deltas by hand, and back") {
  const Box p{0, 0, 10, 20}, g{5, 10, 25, 20};  // centres (5,10), (15,15); sizes 10x20, 20x10
  const BoxCoder stds{{0.1, 0.1, 0.2, 0.2}, 16.0 / 1000};
  const Delta d = encode(p, g, stds);
  CHECK(d.dx == Approx(10));
  CHECK(d.dy == Approx(2.5));
  CHECK(d.dw == Approx(std::log(2.0) * 5));
  CHECK(d.dh == Approx(-std::log(2.0) * 5));
  const Box b = decode(p, d, 100, 100, stds);
  CHECK(b.x1 == Approx(5));
  CHECK(b.y1 == Approx(10));
  CHECK(b.x2 == Approx(25));
  CHECK(b.y2 == Approx(20));
  CHECK(decode(p, {0, 0, 99, 0}, 1000, 1000).x2 == Approx(5 + 5 * 62.5));
  CHECK(decode(p, {0, 0, 99, -99}, 1000, 1000, {{1, 1, 1, 1}, 0.5}).x2 == Approx(5 + 5 * 2));
  CHECK(decode(p, {0, 0, 99, -99}, 1000, 1000, {{1, 1, 1, 1}, 0.5}).y2 == Approx(10 + 10 * 0.5));
  CHECK(decode(p, d, 20, 12, stds).x2 == 20);
}
