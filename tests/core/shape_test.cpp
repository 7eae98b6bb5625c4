#include "ppma/core/shape.hpp"

#include <vector>

#include "thrown.hpp"

using namespace ppma;

TEST_CASE("a shape knows its axes, also from the end") {
  const Shape s{2, 3, 64, 96};
  CHECK(s.rank() == 4);
  CHECK(s[0] == 2);
  CHECK(s[-1] == 96);
  CHECK(s.axis(-4) == 0);
  CHECK(s.numel() == 2 * 3 * 64 * 96);
  CHECK(s.product(1, 3) == 3 * 64);
  CHECK(s.str() == "(2, 3, 64, 96)");
  CHECK(s == Shape(std::vector<i64>{2, 3, 64, 96}));
  CHECK_FALSE(s == Shape{2, 3, 64});
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{3, 0}.numel() == 0);
}

TEST_CASE("impossible shapes are errors") {
  CHECK(says([] { Shape{2, 3}.axis(2, "sum"); }, "sum: axis 2 is outside of shape (2, 3)"));
  CHECK(says([] { Shape{2, 3}[-3]; }, "axis -3 is outside of shape (2, 3)"));
  CHECK(says([] { Shape{2, -3}; }, "sizes must not be negative, got -3"));
  CHECK(says([] { Shape{1, 1, 1, 1, 1, 1, 1, 1, 1}; }, "at most 8 axes, got 9"));
  CHECK(says([] { Shape{i64{1} << 32, i64{1} << 32}; }, "more than 2^63 elements"));
}

TEST_CASE("broadcasting aligns at the end") {
  CHECK(broadcast({2, 1, 4}, {3, 1}, "op") == Shape{2, 3, 4});
  CHECK(broadcast({}, {3, 1}, "op") == Shape{3, 1});
  CHECK(broadcast({1}, {0}, "op") == Shape{0});
  CHECK(says([] { broadcast({2, 3}, {2}, "mul"); }, "mul: shapes (2, 3) and (2) do not broadcast"));
}
