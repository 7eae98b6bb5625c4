// Non-maximum suppression on cases worked by hand.
#include "ppma/ops/nms.hpp"

#include "catch.hpp"

using namespace ppma;
using Ids = std::vector<i64>;

TEST_CASE("nms: a better box covers by more than the threshold, group by group") {
  // 0 and 1 share 80 of 120: 2/3. 2 is far away. 3 equals 0.
  const std::vector<Box> boxes{{0, 0, 10, 10}, {0, 2, 10, 12}, {50, 50, 60, 60}, {0, 0, 10, 10}};
  CHECK(iou(boxes[0], boxes[1]) == Approx(2.0 / 3));
  CHECK(nms(boxes, {0.5f, 0.9f, 0.1f, 0.5f}, {}, 0.5) == Ids{1, 2});
  CHECK(nms(boxes, {0.5f, 0.9f, 0.1f, 0.5f}, {}, 0.7) == Ids{1, 0, 2});  // 3 comes after its equal
  CHECK(nms(boxes, {0.5f, 0.9f, 0.1f, 0.5f}, {0, 1, 0, 2}, 0.5) == Ids{1, 0, 3, 2});
  CHECK(nms({{0, 0, 2, 1}, {0, 0, 1, 1}}, {1, 0.5f}, {}, 0.5) == Ids{0, 1});  // exactly the threshold stays
}

TEST_CASE("nms: empty boxes cover nothing; misuse is named") {
  CHECK(nms({}, {}, {}, 0.5).empty());
  CHECK(iou({1, 1, 1, 1}, {1, 1, 1, 1}) == 0);
  CHECK(nms({{1, 1, 1, 1}, {1, 1, 1, 1}}, {1, 1}, {}, 0.5) == Ids{0, 1});
  CHECK_THROWS_AS(nms({{}}, {}, {}, 0.5), Error);
}
