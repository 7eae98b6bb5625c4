// COCO's files: what is read, what is refused and how it is named, what is written.

#include "ppma/io/coco.hpp"

#include "catch.hpp"
#include "help.hpp"
#include "thrown.hpp"

using namespace ppma;
using io_test::Folder;

namespace {

Bytes bytes_of(std::string_view s) { return {reinterpret_cast<const u8*>(s.data()), s.size()}; }

CocoTruth truth_of(const std::string& s) { return parse_coco(bytes_of(s), "gt.json"); }
// A file with one annotation.
std::string with(const std::string& annotation) {
  return R"({"annotations": [)" + annotation +
         R"(], "images": [{"id": 7, "height": 4, "width": 5}], "categories": [{"id": 3, "name": "cell"}]})";
}
std::string with_mask(const std::string& mask) {
  return with(R"({"id": 1, "image_id": 7, "category_id": 3, "area": 2, "segmentation": )" + mask +
              "}");
}
std::vector<CocoResult> results_of(const std::string& s) {
  return parse_coco_results(bytes_of(s), "dt.json");
}

}  // namespace

TEST_CASE("coco: every kind of annotation is read", "[io]") {
  const CocoTruth t = truth_of(R"({
    "info": {"year": 2026, "deep": [[{"images": [1]}], null]}, "licenses": [{"id": 1}, 5],
    "annotations": [
      {"id": 90, "image_id": 50, "category_id": 8, "bbox": [1, 2, 3, 2], "area": 5.5, "iscrowd": 0, "extra": {"a": [1]},
       "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3], [0, 0, 1, 0, 1, 1, 0, 1]]},
      {"id": 4, "image_id": 50, "category_id": 3, "bbox": [0, 0, 1, 1], "iscrowd": 1, "segmentation": {"size": [4, 5], "counts": [2, 3, 15]}},
      {"id": 5, "image_id": 7, "category_id": 3, "area": 3, "iscrowd": true, "segmentation": {"size": [4, 5], "counts": "23?"}},
      {"id": 6, "image_id": 7, "category_id": 3, "bbox": [0.5, 0.5, 2, 2], "segmentation": []}],
    "images": [{"id": 50, "file_name": "b.jpg", "height": 4, "width": 5}, {"id": 9, "file_name": "empty.jpg"},
               {"id": 7, "file_name": "a.jpg", "height": 4, "width": 5}],
    "categories": [{"id": 8, "name": "dog"}, {"id": 3, "name": "cat"}]})");
  REQUIRE(t.images.size() == 3);
  CHECK(t.images[0].id == 7);
  CHECK(t.images[1].file_name == "empty.jpg");
  CHECK(t.images[1].height == 0);
  CHECK(t.categories[0].name == "cat");
  REQUIRE(t.annotations.size() == 4);
  const CocoAnnotation& polygons = t.annotations[0];
  CHECK(polygons.id == 90);
  CHECK(polygons.image == 2);
  CHECK(polygons.category == 1);
  CHECK(*polygons.box == CocoBox{1, 2, 3, 2});
  CHECK(polygons.area == 5.5);
  CHECK_FALSE(polygons.crowd);
  CHECK(rle_area(polygons.mask.draw(4, 5)) == 7);
  CHECK(t.annotations[1].crowd);
  CHECK(t.annotations[1].area == 1);  // the box's
  CHECK(t.annotations[1].mask.rle->counts == std::vector<u32>{2, 3, 15});
  CHECK(t.annotations[2].crowd);
  CHECK_FALSE(t.annotations[2].box);
  CHECK(t.annotations[2].mask.rle == t.annotations[1].mask.rle);
  CHECK(t.annotations[3].mask.empty());
  CHECK(rle_area(t.annotations[3].mask.draw(4, 5)) == 0);
  // not looked at
  CHECK(parse_coco(bytes_of(with_mask("7")), "gt.json", false).annotations[0].mask.empty());
}

TEST_CASE("coco: what is wrong is named", "[io]") {
  struct Case {
    std::string json, message;
  };
  const std::string start = R"({"id": 1, "image_id": 7, "category_id": 3, )";
  for (const Case& c : std::vector<Case>{
           {"", "gt.json: not JSON, at byte"},
           {"[1, 2", "gt.json: a list; it must be an object"},
           {"7", "gt.json is 7; it must be an object or a list"},
           {"{", "gt.json: not JSON, at byte 2"},
           {R"({"images": [], "categories": []})", "gt.json: has no \"annotations\""},
           {R"({"images": 5})", "gt.json: \"images\" is 5; it must be a list"},
           {R"({"images": {}})", "gt.json: \"images\" is an object; it must be a list"},
           {R"({"images": [], "images": []})", "\"images\" stands there twice"},
           {R"({"images": [4]})", "gt.json: images[0] is 4; it must be an object"},
           {R"({"images": [[4]]})", "gt.json: images[0] is an array; it must be an object"},
           {R"({"images": [{"id": 1}, {"id": "x"}]})",
            "gt.json: images[1]: \"id\" is a string; it must be a whole number"},
           {R"({"images": [{"id": 1.5}]})", "\"id\" is 1.5; it must be a whole number"},
           {R"({"images": [{"id": 18446744073709551615}]})", "\"id\" is 18446744073709551615"},
           {R"({"images": [{"id": 1, "file_name": 7}]})", "\"file_name\" is 7; it must be a text"},
           {R"({"images": [{"id": 1, "height": -4}]})", "images[0]: \"height\" is -4"},
           {R"({"images": [{"id": 1}, {"id": 1}], "categories": [], "annotations": []})",
            "two images have the id 1"},
           {R"({"images": [], "categories": [{"id": 2}, {"id": 2}], "annotations": []})",
            "two categories have the id 2"},
           {with(R"({"image_id": 7})"), "gt.json: annotations[0]: has no \"id\""},
           {with(start + R"("area": 4})"), "has neither \"bbox\" nor \"segmentation\""},
           {with(start + R"("segmentation": []})"), "has no \"area\""},
           {with(start + R"("bbox": [1, 2, 3]})"), "\"bbox\" has 3 numbers"},
           {with(start + R"("bbox": "box"})"),
            "\"bbox\" is a string; it must be a list of numbers"},
           {with(start + R"("bbox": [1, 2, 3, null]})"), "\"bbox\" has null in it"},
           {with(start + R"("bbox": [1, 2, -3, 4]})"), "the negative size -3 x 4"},
           {with(start + R"("bbox": [1, 2, 3, 1e999]})"), "gt.json: not JSON, at byte"},
           {with(start + R"("bbox": [1, 2, 3, 4], "area": "large"})"),
            "\"area\" is a string; it must be a number"},
           {with(start + R"("bbox": [1, 2, 3, 4], "iscrowd": "no"})"), "\"iscrowd\" is a string"},
           {with(R"({"id": 1, "image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4]})"),
            "annotations[0]: there is no image with the id 8"},
           {with(R"({"id": 1, "image_id": 7, "category_id": 4, "bbox": [1, 2, 3, 4]})"),
            "there is no category with the id 4"},
           {with(start + R"("bbox": [1, 2, 3, 4]}, )" + start + R"("bbox": [1, 2, 3, 4]})"),
            "annotations[1]: the id 1 is used twice"},
           {with_mask("true"), "\"segmentation\" is true; it must be polygons or runs"},
           {with_mask("[[1, 2, 3, 4]]"), "a polygon of 4 numbers"},
           {with_mask("[[1, 2, 3, 4, 5, 6, 7]]"), "a polygon of 7 numbers"},
           {with_mask("[{}]"), "\"segmentation\" is an object; it must be a list of numbers"},
           {with_mask(R"({"counts": "x"})"), "annotations[0]: segmentation: has no \"size\""},
           {with_mask(R"({"size": [4], "counts": "x"})"), "\"size\" must be [height, width]"},
           {with_mask(R"({"size": [4, 1e12], "counts": "x"})"), "\"size\" must be [height, width]"},
           {with_mask(R"({"size": [100000, 100000], "counts": []})"),
            "segmentation: mask: 100000 x 100000 pixels"},
           {with_mask(R"({"size": [4, 5], "counts": [3, 3]})"),
            "its runs are 6 pixels long, 4 x 5 are 20"},
           {with_mask(R"({"size": [4, 5], "counts": [3, -3, 20]})"),
            "segmentation: \"counts\" has -3 in it"},
           {with_mask(R"({"size": [4, 5], "counts": ["a"]})"),
            "gt.json: annotations[0]: segmentation: \"counts\" has a string in it"},
           {with_mask(R"({"size": [4, 5], "counts": "~"})"),
            "gt.json: annotations[0]: segmentation: mask: character 0"},
           {with_mask(R"({"size": [4, 5], "counts": 7})"), "\"counts\" is 7"},
           {with(start + R"("bbox": )" + std::string(100, '[')), "more than 32 deep"}}) {
    INFO(c.json);
    CHECK(says([&] { truth_of(c.json); }, c.message));
  }
  CHECK(says([] { truth_of(std::string(200000, '[')); }, "gt.json: a list"));
  CHECK(says([] { truth_of("{\"info\":" + std::string(200000, '[')); }, "gt.json: not JSON"));
  CHECK(says([] { read_coco("/nowhere/gt.json"); },
             "/nowhere/gt.json: cannot be read (No such file"));
  CHECK(says([] { read_coco("/tmp"); }, "/tmp: cannot be read (not a regular file)"));
  CHECK(says([] { results_of("{}"); }, "dt.json: an object; it must be a list of results"));
  CHECK(says([] { results_of("[1]"); }, "dt.json: [0] is 1; it must be an object"));
  CHECK(says([] { results_of(R"([{"image_id": 1, "category_id": 2, "score": 0.5}])"); },
             "dt.json: [0]: has neither"));
  CHECK(says(
      [] {
        results_of(R"([{"image_id": 1, "category_id": 2, "score": null, "bbox": [1, 2, 3, 4]}])");
      },
      "has no \"score\""));
}

TEST_CASE("coco: results come back as they were written", "[io]") {
  const Folder folder;
  std::vector<CocoResult> results(3);
  results[0] = {7, 3, 0.1 + 0.2, CocoBox{1, 2.5, 1.0 / 3, 4}, {}, ""};
  results[1] = {
      1LL << 40, -2, 1, std::nullopt, {{}, rle_from_polygon({1, 1, 30, 2, 20, 25}, 30, 40)}, ""};
  results[2] = {7, 3, 0, CocoBox{0, 0, 0, 0}, {{}, Rle{2, 2, {4}}}, ""};
  write_coco_results(folder / "r.json", results);
  const std::vector<CocoResult> again = read_coco_results(folder / "r.json");
  REQUIRE(again.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(again[i].image_id == results[i].image_id);
    CHECK(again[i].category_id == results[i].category_id);
    CHECK(again[i].score == results[i].score);
    CHECK(again[i].box == results[i].box);
    CHECK(again[i].mask.rle == results[i].mask.rle);
    CHECK(again[i].where == folder / "r.json" + ": [" + std::to_string(i) + "]");
  }
  write_coco_results(folder / "r.json", {});
  CHECK(read_coco_results(folder / "r.json").empty());
  results[0].score = std::nan("");
  CHECK(says([&] { write_coco_results(folder / "r.json", results); },
             "result 0 has a score or box that is not finite"));
  results[0].score = 1;
  results[0].mask.polygons = {{1, 2, 3, 4, 5, 6}};
  CHECK(says([&] { write_coco_results(folder / "r.json", results); }, "result 0 has polygons"));
  CHECK(folder.files() == 1);  // what was there stays, nothing half-written beside it
}

TEST_CASE("coco: a real set", "[io]") {
  const std::string path =
      std::string(PPMA_TEST_SOURCE_DIR) + "/../shared/data/bccd/annotations/instances_val.json";
  if (!std::filesystem::exists(path)) PPMA_SKIP("no BCCD at " + path);
  const CocoTruth t = read_coco(path);
  CHECK(t.images.size() == 87);
  CHECK(t.categories.size() == 3);
  CHECK(t.annotations.size() > 87);
  CHECK(t.images[0].width == 640);
}
