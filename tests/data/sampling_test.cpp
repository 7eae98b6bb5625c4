// Shares of a set and balanced orders: what they hold, that a seed has one, and that sets know their
// labels without loading.

#include "ppma/data/sampling.hpp"

#include <algorithm>
#include <set>

#include "catch.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/data/image_batches.hpp"
#include "ppma/data/paths.hpp"
#include "ppma/data/shapes.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

// 90 samples of class 0, 9 of class 1, 1 of class 2, none of class 3; a label is known or not.
Dataset uneven(bool known) {
  Dataset d;
  d.name = "uneven", d.size = 100, d.class_names = {"a", "b", "c", "d"};
  const auto label = [](i64 i) -> i64 { return i < 90 ? 0 : i < 99 ? 1 : 2; };
  d.load = [label](i64 i) {
    return Sample{Tensor::full({2, 2, 3}, static_cast<double>(i), DType::uint8), label(i), ""};
  };
  if (known) d.label = label;
  return d;
}

std::vector<i64> counts(const std::vector<i64>& labels) {
  std::vector<i64> n(4);
  for (const i64 label : labels) ++n[static_cast<std::size_t>(label)];
  return n;
}

}  // namespace

TEST_CASE("a share of a set: as large as said, of every class, the same for a seed", "[data]") {
  const std::vector<i64> tenth = share_of(uneven(true), 0.1, 3);
  const Dataset part = chosen(uneven(true), tenth);
  CHECK(part.size == 11);
  CHECK(counts(labels_of(part)) == std::vector<i64>{9, 1, 1, 0});
  CHECK(part.get(10).image.data<u8>()[0] == 99);
  CHECK(part.label(10) == 2);
  CHECK(std::is_sorted(tenth.begin(), tenth.end()));
  CHECK(share_of(uneven(true), 0.1, 3) == tenth);
  CHECK(share_of(uneven(true), 0.1, 4) != tenth);
  const std::vector<i64> half = share_of(uneven(true), 0.5, 3), all = share_of(uneven(true), 1, 3);
  CHECK(std::includes(half.begin(), half.end(), tenth.begin(), tenth.end()));
  CHECK(all.size() == 100);
  CHECK(share_of(uneven(false), 0.1, 3).size() == 10);
  CHECK(share_of(7, 0.001, 0).size() == 1);
  CHECK(says([] { share_of(7, 0, 0); }, "more than 0 and at most 1, not 0"));
  CHECK(says([] { share_of(7, 1.5, 0); }, "more than 0 and at most 1, not 1.5"));
  CHECK(says([] { chosen(uneven(true), {100}); }, "uneven: sample 100 of 100 asked for"));
}

TEST_CASE("a balanced order has every class equally often, and over epochs every sample",
          "[data]") {
  for (const bool known : {true, false}) {
    const std::vector<i64> labels = labels_of(uneven(known));
    std::set<i64> seen;
    std::vector<std::vector<i64>> orders;
    for (i64 epoch = 0; epoch < 8; ++epoch) {
      const std::vector<i64> order = balanced_order(labels, epoch, 5);
      std::vector<i64> drawn;
      for (const i64 i : order)
        drawn.push_back(labels[static_cast<std::size_t>(i)]), seen.insert(i);
      const std::vector<i64> n = counts(drawn);
      CHECK(n[3] == 0);
      CHECK(*std::max_element(n.begin(), n.begin() + 3) == 34);
      CHECK(*std::min_element(n.begin(), n.begin() + 3) == 33);
      // Also in its beginning, and each of the nine as often as the others.
      drawn.resize(30);
      CHECK(counts(drawn) == std::vector<i64>{10, 10, 10, 0});
      for (i64 i = 90; i < 99; ++i) CHECK(std::count(order.begin(), order.end(), i) >= 3);
      orders.push_back(order);
    }
    CHECK(seen.size() > 95);
    CHECK(orders[0] != orders[1]);
    CHECK(balanced_order(labels, 1, 5) == orders[1]);
    CHECK(balanced_order(labels, 1, 6) != orders[1]);
    const auto plan = image_batches(uneven(known), {.batch = 100, .seed = 5, .balanced = true});
    CHECK(plan.of_epoch(1)(0).samples == orders[1]);
  }
  CHECK(says([] { image_batches(uneven(true), {.batch = 4, .repeats = 3, .balanced = true}); },
             "no sample is repeated"));
}

TEST_CASE("sets say the class that their samples have", "[data]") {
  const Dataset drawn = shapes({.height = 16, .width = 16, .images = 23}),
                marks = paths({.size = 64, .images = 6});
  for (const Dataset& set :
       {drawn, marks, in_memory(drawn), subset(drawn, 3, 11), chosen(marks, {5, 2})}) {
    REQUIRE(set.label);
    for (i64 i = 0; i < set.size; ++i) CHECK(set.label(i) == set.get(i).label);
  }
  // A set of boxes keeps which of its images are wide.
  DetectionSet boxes;
  boxes.name = "boxes", boxes.size = 3, boxes.wide = {true, false, false};
  boxes.load = [](i64 i) {
    DetectionSample s;
    s.name = std::to_string(i);
    return s;
  };
  const DetectionSet two = chosen(boxes, {2, 0});
  CHECK(two.wide == std::vector<bool>{false, true});
  CHECK((two.size == 2 && two.load(0).name == "2" && two.load(1).name == "0"));
}
