// COCO's masks against pycocotools (reference/make_coco.py), by hand, and hostile texts.

#include "ppma/io/rle.hpp"

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "help.hpp"
#include "ppma/core/random.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace {

nlohmann::json stored() {
  const std::vector<u8> bytes = read_file(io_test::reference("coco_masks.json"));
  return nlohmann::json::parse(bytes.begin(), bytes.end());
}

}  // namespace

TEST_CASE("rle: polygons are drawn as pycocotools draws them", "[io]") {
  int cases = 0;
  const nlohmann::json all = stored();
  for (const auto& c : all.at("polygons")) {
    const Rle m = rle_from_polygon(c.at("polygon"), c.at("height"), c.at("width"));
    INFO(c.dump());
    CHECK(rle_string(m) == c.at("counts").get<std::string>());
    CHECK(rle_from_string(rle_string(m), m.height, m.width) == m);
    CHECK(rle_area(m) == c.at("area").get<i64>());
    CHECK(rle_box(m) == c.at("box").get<CocoBox>());
    const Rle again = rle_encode(rle_decode(m));
    CHECK(again.counts == c.at("runs").get<std::vector<u32>>());
    ++cases;
  }
  CHECK(cases == 54);
}

TEST_CASE("rle: overlaps and unions as pycocotools counts them", "[io]") {
  const nlohmann::json all = stored();
  bool overlap_seen = false;
  for (const auto& c : all.at("pairs")) {
    std::vector<Rle> m;
    for (const auto& text : c.at("counts"))
      m.push_back(rle_from_string(text.get<std::string>(), c.at("height"), c.at("width")));
    for (int crowd = 0; crowd < 2; ++crowd) {
      const double expected = c.at("iou").at(static_cast<std::size_t>(crowd));
      CHECK(rle_iou(m[0], m[1], crowd == 1) == Approx(expected).epsilon(1e-15).margin(0));
      overlap_seen = overlap_seen || expected > 0.1;
    }
    const Rle all_three = rle_union(rle_union(m[0], m[1]), m[2]);
    CHECK(rle_string(all_three) == c.at("union").get<std::string>());
    CHECK(rle_area(all_three) == c.at("union_area").get<i64>());
  }
  CHECK(overlap_seen);
  for (const auto& c : all.at("boxes"))
    for (int crowd = 0; crowd < 2; ++crowd)
      CHECK(box_iou(c.at("d").get<CocoBox>(), c.at("g").get<CocoBox>(), crowd == 1) ==
            c.at("iou").at(static_cast<std::size_t>(crowd)).get<double>());
}

TEST_CASE("rle: by hand", "[io]") {
  const Tensor bits = Tensor::from<u8>({0, 1, 1,  //
                                        0, 1, 0},
                                       {2, 3});
  const Rle m = rle_encode(bits);
  CHECK(m.counts == std::vector<u32>{2, 3, 1});  // columns 00 11 10
  CHECK(rle_area(m) == 3);
  CHECK(rle_box(m) == CocoBox{1, 0, 2, 2});
  CHECK(rle_string(m) == "231");
  CHECK(rle_encode(Tensor::full({2, 2}, 1, DType::uint8)).counts == std::vector<u32>{0, 4});
  // the same three pixels, an empty run between
  const Rle empty{2, 3, {6}}, split{2, 3, {2, 1, 0, 2, 1}};
  CHECK(rle_area(empty) == 0);
  CHECK(rle_box(empty) == CocoBox{0, 0, 0, 0});
  CHECK(rle_iou(empty, m) == 0);
  CHECK(rle_iou(m, empty) == 0);
  CHECK(rle_intersection(split, m) == 3);
  CHECK(rle_box(split) == rle_box(m));
  CHECK(rle_union(split, split) == m);
  CHECK(rle_iou(m, Rle{2, 3, {0, 6}}) == 0.5);
  CHECK(rle_iou(m, Rle{2, 3, {0, 6}}, true) == 1);
}

TEST_CASE("rle: random masks come back, and overlaps are the pixels'", "[io]") {
  Rng rng(3);
  for (int n = 0; n < 60; ++n) {
    const i64 h = 1 + static_cast<i64>(rng.below(20)), w = 1 + static_cast<i64>(rng.below(20));
    std::vector<u8> a, b;
    i64 both = 0, either = 0;
    const double share = rng.uniform(0, 1);
    for (i64 i = 0; i < h * w; ++i) {
      a.push_back(rng.uniform() < share), b.push_back(rng.uniform() < 0.5);
      both += a.back() & b.back(), either += a.back() | b.back();
    }
    const Rle x = rle_encode(Tensor::from<u8>(a, {h, w})),
              y = rle_encode(Tensor::from<u8>(b, {h, w}));
    CHECK(rle_decode(x).to_vector<u8>() == a);
    CHECK(rle_from_string(rle_string(x), h, w) == x);
    CHECK(rle_intersection(x, y) == both);
    CHECK(rle_area(rle_union(x, y)) == either);
  }
}

TEST_CASE("rle: what is no mask is refused", "[io]") {
  CHECK(says([] { rle_from_string("231", 3, 3); }, "its runs are 6 pixels long, 3 x 3 are 9"));
  CHECK(says([] { rle_from_string("2\x7f", 2, 3); }, "character 1 of its text has the code 127"));
  CHECK(says([] { rle_from_string("2\n", 2, 3); }, "code 10; 48 to 111 are used"));
  CHECK(says([] { rle_from_string("Q", 2, 3); }, "ends within a number"));
  CHECK(says([] { rle_from_string("oooooooooooooooooo0", 2, 3); }, "a number is too long"));
  CHECK(says([] { rle_from_string("O", 2, 3); }, "a run of -1 pixels"));
  CHECK(says([] { rle_from_string("", 1 << 20, 1 << 20); }, "it must have 1 to 134217728"));
  CHECK(says([] { rle_from_string("", 0, 5); }, "0 x 5 pixels"));
  CHECK(says([] { rle_decode({i64{1} << 40, i64{1} << 40, {}}); }, "mask: "));
  CHECK(says([] { rle_decode({2, 2, {1, 2}}); }, "its runs are 3 pixels long"));
  CHECK(says([] { rle_iou({2, 3, {6}}, {3, 2, {6}}); }, "one has 2 x 3 pixels, the other 3 x 2"));
  CHECK(says([] { rle_from_polygon({1, 2, 3, 4}, 5, 5); }, "4 numbers; at least three corners"));
  CHECK(says([] { rle_from_polygon({1, 2, 3, 4, 5, 6, 7}, 5, 5); }, "7 numbers"));
  CHECK(says([] { rle_from_polygon({1, 2, 3, 4, 5, 1e30}, 5, 5); }, "the coordinate 1e+30"));
  CHECK(says([] { rle_from_polygon({1, 2, 3, 4, 5, std::nan("")}, 5, 5); }, "the coordinate nan"));
  CHECK(says([] { rle_from_polygon({0, 0, 1e7, 0, 0, 1}, 5, 5); }, "its edges are longer"));
  CHECK(says([] { rle_encode(Tensor::zeros({2, 2})); }, "rle_encode: the mask must be uint8"));
}
