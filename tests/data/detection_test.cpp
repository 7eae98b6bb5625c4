// Images with objects: geometry by hand, batches, COCO's files with all that may be wrong in them, shapes.

#include "ppma/data/detection_sets.hpp"

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/coco_evaluation.hpp"
#include "thrown.hpp"

using namespace ppma;
using io_test::Folder;

namespace {

Bytes bytes_of(const std::string& s) { return {reinterpret_cast<const u8*>(s.data()), s.size()}; }

DetectionSample two_by_four() {
  DetectionSample s;
  s.image = Tensor::from<u8>({0, 0, 0, 10, 10, 10, 20, 20, 20, 30, 30, 30, 40, 40, 40, 50, 50, 50, 60, 60, 60, 70, 70, 70}, {2, 4, 3});
  s.objects.boxes = {{0, 0, 1, 2}}, s.objects.classes = {0};
  s.objects.masks = Tensor::from<u8>({1, 0, 0, 0, 1, 0, 0, 0}, {1, 2, 4});
  return s;
}

}  // namespace

TEST_CASE("detection data: sizes with the aspect kept", "[data]") {
  CHECK(keep_aspect(480, 640, 1333, 800) == std::array<i64, 2>{800, 1067});
  CHECK(keep_aspect(300, 1000, 1333, 800) == std::array<i64, 2>{400, 1333});
  CHECK(keep_aspect(1, 5000, 1333, 800) == std::array<i64, 2>{1, 1333});
}

TEST_CASE("detection data: flips and resizes boxes with their masks", "[data]") {
  DetectionSample s = two_by_four();
  flip_sample(s);
  CHECK(s.objects.boxes[0].x1 == 3);
  CHECK(s.objects.boxes[0].x2 == 4);
  CHECK(s.objects.masks.to_vector<int>() == std::vector<int>{0, 0, 0, 1, 0, 0, 0, 1});
  CHECK(s.image.data<u8>()[0] == 30);
  resize_sample(s, 4, 8);
  CHECK(s.objects.boxes[0].x1 == 6);
  CHECK(s.objects.boxes[0].y2 == 4);
  CHECK(s.objects.masks.shape() == Shape{1, 4, 8});
  CHECK(s.objects.masks.data<u8>()[6] == 1);
  CHECK(s.objects.masks.data<u8>()[5] == 0);
}

TEST_CASE("detection data: batches are padded and repeat themselves", "[data]") {
  DetectionSet set = shapes_set({.height = 40, .width = 56, .images = 5});
  DetectionLoading o;
  o.batch = 2, o.longer = 56, o.shorter = {40, 33};
  DetectionLoader a(set, o), b(set, o);
  CHECK(a.batches() == 3);
  DetectionBatch x, y;
  a.start(1);
  a.next(x);
  a.start(2), b.start(2);
  while (a.next(x)) {
    REQUIRE(b.next(y));
    CHECK(x.images.dim(2) % 32 == 0);
    CHECK(x.images.to_vector<float>() == y.images.to_vector<float>());
    for (std::size_t k = 0; k < x.frames.size(); ++k) {
      const Frame& f = x.frames[k];
      CHECK(f.padded_width == 64);
      CHECK(x.images.data<float>()[(static_cast<i64>(k) * 3 * x.images.dim(2) + f.height - 1) * 64 + f.width] == 0);
      CHECK(x.objects[k].masks.dim(1) == f.height);
      for (const Box& box : x.objects[k].boxes) CHECK(box.x2 <= static_cast<float>(f.width));
    }
  }
  CHECK_FALSE(b.next(y));
}

TEST_CASE("detection data: wide and high images do not share a batch", "[data]") {
  DetectionSet set = shapes_set({.height = 32, .width = 32, .images = 6});
  set.wide = {true, false, true, false, true, false};
  const auto load = set.load;
  set.load = [load](i64 i) {
    DetectionSample s = load(i);
    resize_sample(s, i % 2 == 0 ? 32 : 64, i % 2 == 0 ? 64 : 32);
    return s;
  };
  DetectionLoading o;
  o.longer = 64, o.shorter = {32};
  DetectionLoader loader(set, o);
  CHECK(loader.batches() == 4);
  DetectionBatch b;
  while (loader.next(b)) CHECK(b.images.dim(2) * b.images.dim(3) == 32 * 64);
}

TEST_CASE("detection data: COCO's crowds, empty boxes and empty images are left out by name", "[data]") {
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#endif
  const Folder folder;
  write_png(folder / "a.png", Tensor::full({40, 60, 3}, 7, DType::uint8));
  const std::string text = R"({"images": [{"id": 9, "file_name": "a.png", "height": 40, "width": 60},
    {"id": 3, "file_name": "b.png", "height": 40, "width": 60}, {"id": 4, "file_name": "c.png", "height": 20, "width": 60},
    {"id": 5, "file_name": "a.png", "height": 41, "width": 60}],
    "categories": [{"id": 90, "name": "z"}, {"id": 2, "name": "y"}],
    "annotations": [
     {"id": 1, "image_id": 9, "category_id": 90, "bbox": [10, 5, 20, 10], "area": 200, "segmentation": [[10, 5, 30, 5, 30, 15, 10, 15]]},
     {"id": 2, "image_id": 9, "category_id": 2, "bbox": [50, 30, 30, 30], "area": 900, "segmentation": []},
     {"id": 3, "image_id": 9, "category_id": 2, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 1, "segmentation": {"size": [40, 60], "counts": [2400]}},
     {"id": 4, "image_id": 9, "category_id": 2, "bbox": [5, 5, 0, 10], "area": 0},
     {"id": 5, "image_id": 9, "category_id": 2, "bbox": [70, 5, 10, 10], "area": 100},
     {"id": 6, "image_id": 4, "category_id": 2, "bbox": [1, 1, 5, 5], "area": 25},
     {"id": 7, "image_id": 5, "category_id": 2, "bbox": [1, 1, 5, 5], "area": 25}]})";
  const auto truth = std::make_shared<const CocoTruth>(parse_coco(bytes_of(text), "notes.json"));
  CocoSkips skips;
  const DetectionSet set = coco_set(truth, folder / "", true, false, &skips);
  CHECK(skips.text() == "1 crowds, 1 boxes of no area, 1 boxes outside of their image, 1 images without boxes, 1 images below 32 pixels");
  REQUIRE(set.size == 2);
  CHECK(set.category_ids == std::vector<i64>{2, 90});
  CHECK(says([&] { set.load(0); }, "notes.json says 41 x 60"));
  const DetectionSample s = set.load(1);
  CHECK(s.image_id == 9);
  CHECK(s.objects.classes == std::vector<i64>{1, 0});
  CHECK(s.objects.boxes[1].x2 == 60);  // clipped to the image
  CHECK(s.objects.boxes[1].y2 == 40);
  CHECK(s.objects.masks.data<u8>()[5 * 60 + 10] == 1);
  CHECK(coco_set(truth, folder / "", false, true).size == 4);
}

TEST_CASE("detection data: the objects of shapes, found exactly, score one", "[data]") {
  const DetectionSet set = shapes_set({.height = 64, .width = 64, .images = 12, .split = Split::test, .most_extra = 3});
  const CocoTruth truth = truth_of(set);
  std::vector<CocoResult> results;
  for (const CocoAnnotation& a : truth.annotations) {
    CocoResult r;
    r.image_id = truth.images[static_cast<std::size_t>(a.image)].id, r.category_id = truth.categories[static_cast<std::size_t>(a.category)].id;
    r.score = 0.9, r.box = a.box, r.mask = a.mask;
    results.push_back(r);
  }
  CHECK(evaluate_coco(truth, results, CocoType::bbox).figures[0] == Approx(1));
  CHECK(evaluate_coco(truth, results, CocoType::segm).figures[0] == Approx(1));
}
