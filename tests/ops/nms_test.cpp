// Non-maximum suppression on cases worked by hand, by its definition, and against torchvision
// (reference/make_detection.py).
#include "ppma/ops/nms.hpp"

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/core/random.hpp"
#include "ppma/io/file.hpp"
#include "thrown.hpp"

using namespace ppma;
using Ids = std::vector<i64>;

TEST_CASE("nms: a better box covers by more than the threshold, group by group") {
  // 0 and 1 share 80 of 120: 2/3. 2 is far away. 3 equals 0.
  const std::vector<Box> boxes{{0, 0, 10, 10}, {0, 2, 10, 12}, {50, 50, 60, 60}, {0, 0, 10, 10}};
  CHECK(iou(boxes[0], boxes[1]) == Approx(2.0 / 3));
  CHECK(nms(boxes, {0.5f, 0.9f, 0.1f, 0.5f}, {}, 0.5) == Ids{1, 2});
  CHECK(nms(boxes, {0.5f, 0.9f, 0.1f, 0.5f}, {}, 0.7) == Ids{1, 0, 2});  // 3 comes after its equal
  CHECK(nms(boxes, {0.5f, 0.9f, 0.1f, 0.5f}, {0, 1, 0, 2}, 0.5) == Ids{1, 0, 3, 2});
  // exactly the threshold stays
  CHECK(nms({{0, 0, 2, 1}, {0, 0, 1, 1}}, {1, 0.5f}, {}, 0.5) == Ids{0, 1});
}

TEST_CASE("nms: empty boxes cover nothing; misuse is named") {
  CHECK(nms({}, {}, {}, 0.5).empty());
  CHECK(iou({1, 1, 1, 1}, {1, 1, 1, 1}) == 0);
  CHECK(nms({{1, 1, 1, 1}, {1, 1, 1, 1}}, {1, 1}, {}, 0.5) == Ids{0, 1});
  CHECK_THROWS_AS(nms({{}}, {}, {}, 0.5), Error);
  CHECK(thrown([] { nms({{}}, {1}, {}, -0.5); }) ==
        "nms: the threshold is -0.5; it must not be negative");
}

TEST_CASE("nms: what stays is what stays in torchvision") {
  const std::vector<u8> file = read_file(io_test::reference("detection.json"));
  const nlohmann::json stored = nlohmann::json::parse(file.begin(), file.end());
  int runs = 0;
  for (const auto& c : stored.at("nms")) {
    std::vector<Box> boxes;
    for (const auto& b : c.at("boxes"))
      boxes.push_back({b[0].get<float>(), b[1].get<float>(), b[2].get<float>(), b[3].get<float>()});
    for (const auto& run : c.at("runs")) {
      const double threshold = run.at("threshold").get<double>();
      INFO(boxes.size() << " boxes, threshold " << threshold);
      CHECK(nms(boxes, c.at("tied").get<std::vector<float>>(), {}, threshold) ==
            run.at("plain").get<Ids>());
      CHECK(nms(boxes, c.at("distinct").get<std::vector<float>>(), c.at("groups").get<Ids>(),
                threshold) == run.at("grouped").get<Ids>());
      ++runs;
    }
  }
  CHECK(runs == 5);
}

TEST_CASE("nms: many boxes by the definition; the best few are the first of all") {
  Rng rng(7);
  std::vector<Box> boxes;
  std::vector<float> scores;
  std::vector<i64> groups;
  for (int i = 0; i < 400; ++i) {
    const float x = static_cast<float>(40 * rng.uniform()),
                y = static_cast<float>(40 * rng.uniform());
    boxes.push_back({x, y, x + static_cast<float>(30 * rng.uniform()),
                     y + static_cast<float>(30 * rng.uniform())});
    scores.push_back(static_cast<float>(static_cast<int>(50 * rng.uniform())));
    groups.push_back(i % 3 - 1);
  }
  for (const double threshold : {0.0, 0.1, 0.3, 0.5, 0.7}) {
    Ids order(boxes.size()), kept;
    std::iota(order.begin(), order.end(), i64{0});
    const auto at = [](i64 i) { return static_cast<std::size_t>(i); };
    std::stable_sort(order.begin(), order.end(),
                     [&](i64 a, i64 b) { return scores[at(a)] > scores[at(b)]; });
    for (const i64 i : order)
      if (std::none_of(kept.begin(), kept.end(), [&](i64 k) {
            return groups[at(k)] == groups[at(i)] &&
                   static_cast<double>(iou(boxes[at(k)], boxes[at(i)])) > threshold;
          }))
        kept.push_back(i);
    CHECK(nms(boxes, scores, groups, threshold) == kept);
    kept.resize(10);
    CHECK(nms(boxes, scores, groups, threshold, 10) == kept);
    CHECK(nms(boxes, scores, groups, threshold, 0).empty());
  }
}
