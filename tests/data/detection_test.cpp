// Images with objects: geometry by hand, batches, COCO's files with all that may be wrong in them,
// shapes.

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/coco_evaluation.hpp"
#include "ppma/data/detection_batches.hpp"
#include "ppma/data/detection_sets.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/stb.hpp"
#include "ppma/tensor/tensor.hpp"
#include "thrown.hpp"

using namespace ppma;
using io_test::Folder;

namespace detection_test {

namespace {

Bytes bytes_of(const std::string& s) { return {reinterpret_cast<const u8*>(s.data()), s.size()}; }

DetectionSample two_by_four() {
  DetectionSample s;
  s.image = Tensor::from<u8>(
      {0, 0, 0, 10, 10, 10, 20, 20, 20, 30, 30, 30, 40, 40, 40, 50, 50, 50, 60, 60, 60, 70, 70, 70},
      {2, 4, 3});
  s.objects.boxes = {{0, 0, 1, 2}}, s.objects.classes = {0};
  s.objects.masks = Tensor::from<u8>({1, 0, 0, 0, 1, 0, 0, 0}, {1, 2, 4});
  return s;
}

}  // namespace

TEST_CASE("detection data: sizes with the aspect kept", "[data]") {
  CHECK(keep_aspect(480, 640, 1333, 800) == std::array<i64, 2>{800, 1067});
  CHECK(keep_aspect(300, 1000, 1333, 800) == std::array<i64, 2>{400, 1333});
  CHECK(keep_aspect(1, 5000, 1333, 800) == std::array<i64, 2>{1, 1333});
  CHECK(says([] { keep_aspect(480, 640, 0, 800); },
             "keep_aspect: images are to be brought to 0 x 800 pixels; both must be positive"));
  CHECK(says([] { keep_aspect(480, 640, 1333, -3); }, "to 1333 x -3 pixels"));
  CHECK(says([] { keep_aspect(0, 640, 1333, 800); }, "an image of 0 x 640 pixels"));
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

TEST_CASE("detection data: crops take boxes and masks along", "[data]") {
  DetectionSample s = two_by_four();
  s.objects.boxes = {{0, 0, 1, 2}, {1, 1, 4, 2}}, s.objects.classes = {5, 6};
  s.objects.masks = Tensor::from<u8>({1, 0, 0, 0, 1, 0, 0, 0,  //
                                      0, 0, 0, 0, 0, 1, 1, 1},
                                     {2, 2, 4});
  DetectionSample right = s;
  crop_sample(right, {1, 1, 1, 2});  // beside the first object
  CHECK(right.image.to_vector<int>() == std::vector<int>{50, 50, 50, 60, 60, 60});
  CHECK(right.objects.classes == std::vector<i64>{6});
  REQUIRE(right.objects.boxes.size() == 1);
  const Box b = right.objects.boxes[0];
  CHECK((b.x1 == 0 && b.y1 == 0 && b.x2 == 2 && b.y2 == 1));
  CHECK(right.objects.masks.shape() == Shape{1, 1, 2});
  CHECK(right.objects.masks.to_vector<int>() == std::vector<int>{1, 1});
  DetectionSample nothing = s;
  crop_sample(nothing, {0, 2, 1, 2});  // above the second
  CHECK(nothing.objects.boxes.empty());
  CHECK(nothing.objects.masks.shape() == Shape{0, 1, 2});
  CHECK(says(
      [&] {
        crop_sample(s, {0, 3, 2, 2});
      },
      "crop_sample: rows 0 + 2, columns 3 + 2 of an image of 2 x 4"));
}

TEST_CASE("detection data: the published multi-scale policies", "[data]") {
  const DetectionLoading o = multi_scale_loading();
  CHECK(o.shorter.size() == 11);
  CHECK((o.shorter.front() == 480 && o.shorter.back() == 800 && o.longer == 1333));
  CHECK(o.crop_shorter == std::vector<i64>{400, 500, 600});
  CHECK(o.crop_side == std::array<i64, 2>{384, 600});
  const DetectionLoading quarter = multi_scale_loading(333, 200);
  CHECK((quarter.shorter.front() == 120 && quarter.shorter.back() == 200 &&
         quarter.crop_side == std::array<i64, 2>{96, 150}));
  // An eighth of all sizes, so that images are quick to make. Where pixels are, a mask is red,
  // before and after.
  DetectionLoading small;
  small.longer = 166, small.shorter = {60, 80, 100}, small.crop_shorter = {50, 62, 75},
  small.crop_side = {48, 75}, small.crop = 0.5;
  DetectionSample s;
  s.image = Tensor::zeros({60, 90, 3}, DType::uint8);
  s.objects.masks = Tensor::zeros({1, 60, 90}, DType::uint8);
  for (i64 i = 20; i < 40; ++i)
    for (i64 j = 30; j < 60; ++j)
      s.image.data<u8>()[(i * 90 + j) * 3] = 255, s.objects.masks.data<u8>()[i * 90 + j] = 1;
  s.objects.boxes = {{30, 20, 60, 40}}, s.objects.classes = {2};
  int cropped = 0, lost = 0, other_aspect = 0;
  for (u64 k = 0; k < 200; ++k) {
    DetectionSample t = s;
    Rng rng(7, k);
    augment_detection(t, small, rng);
    const i64 H = t.image.dim(0), W = t.image.dim(1), shorter = std::min(H, W);
    CHECK((std::max(H, W) == 166 || shorter == 60 || shorter == 80 || shorter == 100));
    other_aspect += std::abs(static_cast<double>(W) / static_cast<double>(H) - 1.5) > 0.05;
    if (t.objects.boxes.empty()) {
      ++lost;
      continue;
    }
    // The box is the mask's, and the mask the red pixels', but for edges: two resizings, of masks
    // to the nearest pixel.
    const Box b = t.objects.boxes[0];
    i64 different = 0, inside = 0;
    for (i64 i = 0; i < H; ++i)
      for (i64 j = 0; j < W; ++j) {
        const bool red = t.image.data<u8>()[(i * W + j) * 3] > 127,
                   mask = t.objects.masks.data<u8>()[i * W + j] != 0;
        const float x = static_cast<float>(j) + 0.5f, y = static_cast<float>(i) + 0.5f;
        different += red != mask, inside += mask;
        if (mask) REQUIRE((x > b.x1 - 4 && x < b.x2 + 4 && y > b.y1 - 4 && y < b.y2 + 4));
      }
    REQUIRE(static_cast<float>(inside) > 0.7f * (b.area() - 2 * (b.width() + b.height())));
    REQUIRE(different <= 4 * (H + W) / 2);
    cropped += b.area() / static_cast<float>(H * W) > 0.13f;  // it fills a ninth of the whole image
  }
  CHECK(other_aspect > 50);
  CHECK(cropped > 40);
  CHECK(cropped < 160);
  CHECK(lost < 20);
  // Without crops nothing else is drawn than before there were any.
  small.crop = 0;
  Rng a(1), b(1);
  DetectionSample t = s;
  augment_detection(t, small, a);
  const i64 shorter = small.shorter[static_cast<std::size_t>(b.below(3))];
  CHECK(std::min(t.image.dim(0), t.image.dim(1)) == shorter);
  b.flip(0.5);
  CHECK(a.below(1000) == b.below(1000));
  small.crop = 1, small.crop_side = {9, 8};
  CHECK(
      says([&] { detection_batches(shapes_set({.images = 2}), small); }, "crops of 9 to 8 pixels"));
}

TEST_CASE("detection data: images of one row, and images that are not there", "[data]") {
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#endif
  const Folder folder;
  write_png(folder / "row.png", Tensor::full({1, 300, 3}, 7, DType::uint8));
  const std::string text =
      R"({"images": [{"id": 1, "file_name": "row.png", "height": 1, "width": 300}, {"id": 2, "file_name": "gone.png", "height": 40, "width": 40}],
    "categories": [{"id": 1, "name": "a"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 0, 20, 1], "area": 20}]})";
  const auto truth = std::make_shared<const CocoTruth>(parse_coco(bytes_of(text), "notes.json"));
  const DetectionSet set = coco_set(truth, folder / "", false, true);
  DetectionLoading o;
  o.longer = 64, o.shorter = {32};
  const DetectionBatch b = evaluation_batch(set.load(0), o);
  CHECK(b.images.shape() == Shape{1, 3, 32, 64});
  CHECK((b.frames[0].height == 1 && b.frames[0].width == 64));
  o.crop = 1, o.crop_shorter = {16}, o.crop_side = {8, 16};
  DetectionSample row = set.load(0);
  Rng rng(3);
  augment_detection(row, o, rng);
  CHECK(row.image.dim(0) >= 1);
  CHECK(says([&] { set.load(1); }, "gone.png: cannot be read"));
  // what goes wrong in its threads comes out of next()
  BatchStream<DetectionBatch> loader(detection_batches(set, o));
  CHECK(says(
      [&] {
        DetectionBatch batch;
        for (i64 epoch = 0; epoch < 2; ++epoch)
          for (loader.start(epoch); loader.next(batch);) {
          }
      },
      "gone.png: cannot be read"));
}

TEST_CASE("detection data: batches are padded and repeat themselves", "[data]") {
  DetectionSet set = shapes_set({.height = 40, .width = 56, .images = 5});
  DetectionLoading o;
  o.batch = 2, o.longer = 56, o.shorter = {40, 33};
  const BatchPlan<DetectionBatch> plan = detection_batches(set, o);
  BatchStream<DetectionBatch> a(plan), b(plan, {.workers = 0});
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
      CHECK(x.images.data<float>()[(static_cast<i64>(k) * 3 * x.images.dim(2) + f.height - 1) * 64 +
                                   f.width] == 0);
      CHECK(x.objects[k].masks.dim(1) == f.height);
      for (const Box& box : x.objects[k].boxes) CHECK(box.x2 <= static_cast<float>(f.width));
    }
  }
  CHECK_FALSE(b.next(y));
}

TEST_CASE("detection data: processes share every batch that is complete", "[data]") {
  const DetectionSet set = shapes_set({.height = 40, .width = 56, .images = 5});
  DetectionLoading o;
  o.batch = 2, o.longer = 56, o.shorter = {40, 33};
  const DetectionBatch whole = detection_batches(set, o).of_epoch(1)(1);
  for (i64 rank = 0; rank < 2; ++rank) {
    o.part = {rank, 2};
    const BatchPlan<DetectionBatch> plan = detection_batches(set, o);
    CHECK(plan.batches == 2);  // one image is left
    const DetectionBatch part = plan.of_epoch(1)(1);
    REQUIRE(part.frames.size() == 1);
    const std::size_t k = static_cast<std::size_t>(rank);
    CHECK(part.frames[0].image_id == whole.frames[k].image_id);
    CHECK(part.frames[0].height == whole.frames[k].height);
    CHECK(part.objects[0].masks.to_vector<i64>() == whole.objects[k].masks.to_vector<i64>());
  }
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
  BatchStream<DetectionBatch> loader(detection_batches(set, o));
  CHECK(loader.batches() == 4);
  DetectionBatch b;
  loader.start(0);
  while (loader.next(b)) CHECK(b.images.dim(2) * b.images.dim(3) == 32 * 64);
}

TEST_CASE("detection data: COCO's crowds, empty boxes and empty images are left out by name",
          "[data]") {
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#endif
  const Folder folder;
  write_png(folder / "a.png", Tensor::full({40, 60, 3}, 7, DType::uint8));
  const std::string text =
      R"({"images": [{"id": 9, "file_name": "a.png", "height": 40, "width": 60},
    {"id": 3, "file_name": "b.png", "height": 40, "width": 60}, {"id": 4, "file_name": "c.png", "height": 20, "width": 60},
    {"id": 5, "file_name": "a.png", "height": 41, "width": 60}],
    "categories": [{"id": 90, "name": "z"}, {"id": 2, "name": "y"}],
    "annotations": [
     {"id": 1, "image_id": 9, "category_id": 90, "bbox": [10, 5, 20, 10], "area": 200, "segmentation": [[10, 5, 30, 5, 30, 15, 10, 15]]},
     {"id": 2, "image_id": 9, "category_id": 2, "bbox": [50, 30, 30, 30], "area": 900, "segmentation": [[50, 30, 60, 30, 60, 40]]},
     {"id": 3, "image_id": 9, "category_id": 2, "bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 1, "segmentation": {"size": [40, 60], "counts": [2400]}},
     {"id": 4, "image_id": 9, "category_id": 2, "bbox": [5, 5, 0, 10], "area": 0},
     {"id": 5, "image_id": 9, "category_id": 2, "bbox": [70, 5, 10, 10], "area": 100},
     {"id": 6, "image_id": 4, "category_id": 2, "bbox": [1, 1, 5, 5], "area": 25, "segmentation": [[1, 1, 6, 1, 6, 6]]},
     {"id": 7, "image_id": 5, "category_id": 2, "bbox": [1, 1, 5, 5], "area": 25, "segmentation": [[1, 1, 6, 1, 6, 6]]},
     {"id": 8, "image_id": 9, "category_id": 2, "bbox": [1, 1, 5, 5], "area": 25, "segmentation": []},
     {"id": 10, "image_id": 9, "category_id": 2, "bbox": [1, 1, 5, 5], "area": 25}]})";
  const auto truth = std::make_shared<const CocoTruth>(parse_coco(bytes_of(text), "notes.json"));
  CocoSkips skips;
  const DetectionSet set = coco_set(truth, folder / "", true, false, &skips);
  CHECK(skips.text() ==
        "1 crowds or difficult objects, 1 boxes of no area, 1 boxes outside of their image, 2 "
        "objects without a mask, 1 "
        "images without boxes, 1 images below 32 pixels");
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
  // boxes alone need no masks
  CHECK(coco_set(truth, folder / "", false).load(1).objects.boxes.size() == 4);
  const auto boxes =
      std::make_shared<const CocoTruth>(parse_coco(bytes_of(text), "boxes.json", false));
  CHECK(says(
      [&] { coco_set(boxes, folder / "", true); },
      "boxes.json: none of its objects has a \"segmentation\" or an outline; train on boxes alone "
      "(`boxes_only`)"));
}

TEST_CASE(
    "detection data: boxes of which nothing is left in their image are dropped with class and mask",
    "[data]") {
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#endif
  const Folder folder;
  write_png(folder / "a.png", Tensor::full({64, 80, 3}, 7, DType::uint8));
  // Beside the image; a sliver that float rounds to nothing; a whole one.
  const std::string objects =
      R"("categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}], "annotations": [
    {"id": 1, "image_id": 1, "category_id": 1, "bbox": [200, 10, 20, 20], "area": 400, "segmentation": [[0, 0, 9, 0, 9, 9]]},
    {"id": 2, "image_id": 1, "category_id": 1, "bbox": [79.9999999, 10, 20, 20], "area": 400, "segmentation": [[0, 0, 9, 0, 9, 9]]},
    {"id": 3, "image_id": 1, "category_id": 2, "bbox": [10, 10, 20, 20], "area": 400, "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}]})";
  for (const bool sized : {false, true}) {
    const std::string text = str(R"({"images": [{"id": 1, "file_name": "a.png")",
                                 sized ? R"(, "height": 64, "width": 80)" : "", "}], ", objects);
    CocoSkips skips;
    const DetectionSet set =
        coco_set(std::make_shared<const CocoTruth>(parse_coco(bytes_of(text), "notes.json")),
                 folder / "", true, false, &skips);
    CHECK(skips.outside == (sized ? 2 : 0));  // otherwise known only when the image is read
    const DetectionSample s = set.load(0);
    REQUIRE(s.objects.boxes.size() == 1);
    CHECK(s.objects.classes == std::vector<i64>{1});
    CHECK(s.objects.masks.shape() == Shape{1, 64, 80});
    CHECK(s.objects.masks.data<u8>()[12 * 80 + 12] == 1);
  }
  // At the left border the sliver has a width, until the image is flipped.
  DetectionLoading o;
  o.longer = 80, o.shorter = {64}, o.flip = 1;
  DetectionSample s;
  s.image = Tensor::zeros({64, 80, 3}, DType::uint8);
  s.objects.boxes = {{0, 10, 1e-7f, 30}, {10, 10, 30, 30}}, s.objects.classes = {0, 1};
  s.objects.masks = Tensor::ones({2, 64, 80}, DType::uint8);
  Rng rng(1);
  augment_detection(s, o, rng);
  CHECK(s.objects.classes == std::vector<i64>{1});
  CHECK(s.objects.masks.dim(0) == 1);
}

TEST_CASE(
    "detection data: a mask that cannot be drawn is named with its file, annotation and image",
    "[data]") {
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#endif
  const Folder folder;
  write_png(folder / "a.png", Tensor::full({64, 80, 3}, 7, DType::uint8));
  const auto load = [&](const std::string& segmentation) {
    const std::string text =
        str(R"({"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "a"}],
      "annotations": [{"id": 17, "image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "area": 400, "segmentation": )",
            segmentation, "}]}");
    coco_set(std::make_shared<const CocoTruth>(parse_coco(bytes_of(text), "notes.json")),
             folder / "", true)
        .load(0);
  };
  CHECK(says([&] { load(R"({"size": [100, 100], "counts": [10000]})"); },
             str("notes.json: annotation 17 (", folder / "",
                 "/a.png): mask: of 100 x 100 pixels in an image of 64 x 80")));
  CHECK(says([&] { load("[[1000000000, 0, 9, 0, 9, 9]]"); },
             "a.png): polygon: the coordinate 1e+09"));
}

TEST_CASE("detection data: a set of which nothing is left says why", "[data]") {
  const std::string text =
      R"({"images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 90}, {"id": 2, "file_name": "b.png", "height": 90, "width": 90}],
    "categories": [{"id": 1, "name": "a"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25}]})";
  const DetectionSet set = coco_set(
      std::make_shared<const CocoTruth>(parse_coco(bytes_of(text), "notes.json")), "", false);
  CHECK(says([&] { detection_batches(set, {}); },
             "detection loader: notes.json has no images to learn from; left out: 1 images without "
             "boxes, 1 images below 32 pixels"));
}

TEST_CASE("detection data: the objects of shapes, found exactly, score one", "[data]") {
  const DetectionSet set =
      shapes_set({.height = 64, .width = 64, .images = 12, .split = Split::test, .most_extra = 3});
  const CocoTruth truth = truth_of(set);
  std::vector<CocoResult> results;
  for (const CocoAnnotation& a : truth.annotations) {
    CocoResult r;
    r.image_id = truth.images[static_cast<std::size_t>(a.image)].id,
    r.category_id = truth.categories[static_cast<std::size_t>(a.category)].id;
    r.score = 0.9, r.box = a.box, r.mask = a.mask;
    results.push_back(r);
  }
  CHECK(evaluate_coco(truth, results, CocoType::bbox).figures[0] == Approx(1));
  CHECK(evaluate_coco(truth, results, CocoType::segm).figures[0] == Approx(1));
}

}  // namespace detection_test
