// COCO's files and mask texts with small damage, very often: returned or refused, nothing else
// (fuzz/coco_targets.hpp).

#include "../fuzz/coco_targets.hpp"
#include "help.hpp"
#include "ppma/io/pickle.hpp"
#include "ppma/io/png.hpp"
#include "ppma/io/safetensors.hpp"
#include "sanitized.hpp"

using namespace ppma;

namespace {

// How many of `rounds` damaged copies are refused.
int refused(const std::string& file, bool (*reader)(Bytes), int rounds, u64 seed) {
  const auto read = [&](const std::string& s) {
    return reader({reinterpret_cast<const u8*>(s.data()), s.size()});
  };
  REQUIRE(read(file));
  Rng rng(seed);
  static const std::string pieces[] = {"[", "]",     "{",    "}",    ",", ":", "\"", "-",
                                       "9", "1e308", "null", "true", "o", "P", "0"};
  int count = 0;
  for (int i = 0; i < rounds; ++i) {
    std::string s = file;
    for (i64 changes = 1 + rng.below(3); changes > 0; --changes) {
      const std::size_t at = static_cast<std::size_t>(rng.below(static_cast<i64>(s.size())));
      const std::string& piece = pieces[rng.below(static_cast<i64>(std::size(pieces)))];
      switch (rng.below(4)) {
        case 0:
          s[at] = static_cast<char>(rng.below(256));
          break;
        case 1:
          s.insert(at, piece);
          break;
        case 2:
          s.replace(at, 1, piece);
          break;
        default:
          s.erase(at, 1 + static_cast<std::size_t>(rng.below(4)));
      }
      if (s.size() < 4) break;
    }
    count += read(s) ? 0 : 1;
  }
  return count;
}

}  // namespace

TEST_CASE("mutation: damaged COCO files are accepted or refused, nothing else", "[io]") {
  const std::string truth =
      R"({"images": [{"id": 1, "file_name": "a", "height": 20, "width": 30}], "categories": [{"id": 1, "name": "x"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "area": 9, "iscrowd": 0, "segmentation": [[2, 2, 12, 2, 12, 12]]},
    {"id": 2, "image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "iscrowd": 1, "segmentation": {"size": [20, 30], "counts": [100, 200, 300]}}]})";
  const std::string results =
      R"([{"image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10], "score": 0.5, "segmentation": {"size": [20, 30], "counts": [100, 200, 300]}},
    {"image_id": 2, "category_id": 5, "bbox": [0.5, 0.5, 8, 8], "score": 1, "segmentation": {"size": [9, 9], "counts": [0, 81]}}])";
  const int rounds = brief() ? 1500 : 4000;
  CHECK(refused(truth, fuzz::coco, rounds, 1) > rounds / 4);
  CHECK(refused(results, fuzz::coco_results, rounds, 2) > rounds / 4);
  const Rle m = rle_from_polygon({3, 3, 50, 8, 30, 45, 7, 30}, 60, 70);
  CHECK(refused(std::string("\x3c\x46") + rle_string(m), fuzz::rle, rounds, 3) > rounds / 4);
}
