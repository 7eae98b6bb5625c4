// The generated set: figures are what their names say, a scene's masks, labels and boxes agree with
// each other and with the picture, and an image depends on nothing but seed, split and number.

#include "ppma/data/shapes.hpp"

#include "catch.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace shapes_test {

namespace {

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() && a.dtype() == b.dtype() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

double area(Figure f) {  // by counting
  i64 inside = 0;
  for (int i = 0; i < 400; ++i)
    for (int j = 0; j < 400; ++j)
      inside += outline_distance(f, (j + 0.5) / 200 - 1, (i + 0.5) / 200 - 1) < 0;
  return static_cast<double>(inside) / 40000;
}

}  // namespace

TEST_CASE("outlines are signed distances of figures that fill the unit circle") {
  for (i64 k = 0; k < figure_count; ++k) {
    const Figure f = static_cast<Figure>(k);
    INFO(figure_names()[static_cast<std::size_t>(k)]);
    double furthest = 0;
    Rng rng(1, static_cast<u64>(k));
    for (int n = 0; n < 4000; ++n) {
      const double x = rng.uniform(-1.2, 1.2), y = rng.uniform(-1.2, 1.2),
                   d = outline_distance(f, x, y), h = 1e-5;
      if (d < 0) furthest = std::max(furthest, std::hypot(x, y));
      if (std::abs(d) > 0.05) continue;
      // A distance changes by one per unit along its gradient, except where two sides are equally
      // near.
      const double gx = (outline_distance(f, x + h, y) - outline_distance(f, x - h, y)) / (2 * h);
      const double gy = (outline_distance(f, x, y + h) - outline_distance(f, x, y - h)) / (2 * h);
      CHECK(std::hypot(gx, gy) < 1.0001);
      if (n % 8 == 0 && std::abs(d) > 0.01) {
        // Moving by the distance, against the gradient, ends on the outline.
        const double reached = outline_distance(f, x - d * gx, y - d * gy);
        CHECK(std::abs(reached) < 0.03);
      }
    }
    CHECK(furthest > 0.88);
    CHECK(furthest < 1.0);
  }
}

TEST_CASE("outlines have the areas of their figures") {
  const double pi = 3.141592653589793;
  CHECK(area(Figure::circle) == Approx(pi * 0.81).epsilon(0.01));
  CHECK(area(Figure::ring) == Approx(pi * (0.93 * 0.93 - 0.47 * 0.47)).epsilon(0.01));
  CHECK(area(Figure::square) == Approx(1.4 * 1.4).epsilon(0.01));
  CHECK(area(Figure::cross) == Approx(2 * 0.54 * 1.84 - 0.54 * 0.54).epsilon(0.01));
  CHECK(area(Figure::bar) == Approx(1.92 * 0.56).epsilon(0.02));
  // Without its rounding a triangle in the unit circle has 3 sqrt(3) / 4.
  CHECK(area(Figure::triangle) == Approx(1.299).epsilon(0.05));
  // A disc without the lens that it shares with the second one (distance 0.5, radii 1 and 0.78).
  const double d = 0.5, r = 0.78, a = std::acos((d * d + 1 - r * r) / (2 * d)),
               b = std::acos((d * d + r * r - 1) / (2 * d * r));
  const double lens = a - std::sin(2 * a) / 2 + r * r * (b - std::sin(2 * b) / 2);
  CHECK(area(Figure::moon) == Approx(pi - lens).epsilon(0.01));
  // A square of side 1/sqrt(2) that stands on its corner, and a half disc on two of its sides.
  const double s = 1.45, quarter = std::sqrt(2.0) / 4;
  CHECK(area(Figure::heart) == Approx(s * s * (0.5 + pi * quarter * quarter)).epsilon(0.01));
}

TEST_CASE("a scene's masks, labels and boxes agree") {
  ShapesOptions options;
  options.height = 48, options.width = 72;
  options.most_extra = 4;
  i64 objects = 0;
  for (i64 index = 0; index < 40; ++index) {
    const Scene s = draw_shapes(options, index);
    const i64 n = static_cast<i64>(s.classes.size()), H = 48, W = 72;
    REQUIRE(s.image.shape() == Shape({H, W, 3}));
    REQUIRE(s.labels.shape() == Shape({H, W}));
    REQUIRE(s.masks.shape() == Shape({n, H, W}));
    REQUIRE(s.boxes.shape() == Shape({n, 4}));
    REQUIRE(s.label == index % figure_count);
    REQUIRE(s.classes[0] == s.label);
    objects += n;
    for (i64 at = 0; at < H * W; ++at) {
      i64 owners = 0, label = 0;
      for (i64 k = 0; k < n; ++k)
        if (s.masks.data<u8>()[k * H * W + at] != 0)
          ++owners, label = 1 + s.classes[static_cast<std::size_t>(k)];
      REQUIRE(owners <= 1);
      REQUIRE(s.labels.data<u8>()[at] == label);
    }
    for (i64 k = 0; k < n; ++k) {
      float x0 = 1e9f, y0 = 1e9f, x1 = -1, y1 = -1;
      for (i64 i = 0; i < H; ++i)
        for (i64 j = 0; j < W; ++j)
          if (s.masks.data<u8>()[(k * H + i) * W + j] != 0) {
            x0 = std::min(x0, static_cast<float>(j)), x1 = std::max(x1, static_cast<float>(j + 1));
            y0 = std::min(y0, static_cast<float>(i)), y1 = std::max(y1, static_cast<float>(i + 1));
          }
      const float* box = s.boxes.data<float>() + 4 * k;
      REQUIRE(std::vector<float>(box, box + 4) == std::vector<float>{x0, y0, x1, y1});
    }
  }
  CHECK(objects > 80);
}

TEST_CASE("figures stand out from their ground") {
  // Just inside the outline and just outside of it the levels differ: by a tenth of black to white
  // at least, on average by a fifth. The figure can be seen, whatever the colours.
  ShapesOptions options;
  options.most_clutter = 0, options.most_extra = 0;
  double sum = 0;
  for (i64 index = 0; index < 60; ++index) {
    const Scene s = draw_shapes(options, index);
    double level[2][3] = {}, count[2] = {};
    for (i64 at = 0; at < s.labels.numel(); ++at) {
      const int side = s.labels.data<u8>()[at] != 0 ? 1 : 0;
      ++count[side];
      for (int c = 0; c < 3; ++c) level[side][c] += s.image.data<u8>()[3 * at + c];
    }
    double most = 0;
    for (int c = 0; c < 3; ++c)
      most = std::max(most, std::abs(level[0][c] / count[0] - level[1][c] / count[1]) / 255);
    INFO(index);
    CHECK(most > 0.1);
    sum += most;
  }
  CHECK(sum / 60 > 0.2);
}

TEST_CASE("an image depends on seed, split and number alone") {
  ShapesOptions options;
  options.height = options.width = 32;
  const Tensor image = draw_shapes(options, 5).image;
  CHECK(same(image, draw_shapes(options, 5).image));
  CHECK(same(image, shapes(options).get(5).image));
  CHECK(same(image, in_memory(subset(shapes(options), 3, 4)).get(2).image));
  CHECK_FALSE(same(image, draw_shapes(options, 15).image));
  options.split = Split::test;
  CHECK_FALSE(same(image, draw_shapes(options, 5).image));
  options.split = Split::train, options.seed = 1;
  CHECK_FALSE(same(image, draw_shapes(options, 5).image));
}

TEST_CASE("an image shows the same scene at any size") {
  ShapesOptions small, large;
  small.height = small.width = 32;
  large.height = large.width = 96;
  for (i64 index = 0; index < 10; ++index) {
    const Scene a = draw_shapes(small, index), b = draw_shapes(large, index);
    i64 different = 0;
    for (i64 i = 0; i < 32; ++i)
      for (i64 j = 0; j < 32; ++j)  // the middle of a small pixel is the middle of nine
        different +=
            a.labels.data<u8>()[i * 32 + j] != b.labels.data<u8>()[(3 * i + 1) * 96 + 3 * j + 1];
    CHECK(different == 0);
  }
}

TEST_CASE("the set of shapes is balanced and named") {
  ShapesOptions options;
  options.images = 200, options.height = options.width = 16;
  const Dataset set = shapes(options);
  std::vector<i64> count(10);
  for (i64 i = 0; i < set.size; ++i) ++count[static_cast<std::size_t>(set.get(i).label)];
  CHECK(count == std::vector<i64>(10, 20));
  CHECK(set.class_names[static_cast<std::size_t>(set.get(17).label)] == "moon");
  CHECK(set.get(17).name == "shapes/17");
  CHECK(says([&] { set.get(200); }, "sample 200 of 200"));
  CHECK(says([&] { subset(set, 190, 20); }, "it has 200"));
  options.width = 4;
  CHECK(says([&] { shapes(options).get(0); }, "16 x 4 pixels"));
  CHECK(says([&] { in_memory(shapes(options)); }, "16 x 4 pixels"));
}

}  // namespace shapes_test
