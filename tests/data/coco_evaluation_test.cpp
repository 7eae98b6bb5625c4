// COCO's twelve figures against pycocotools (reference/make_coco.py), on random and adversarial
// detections.

#include "ppma/data/coco_evaluation.hpp"

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/coco.hpp"
#include "ppma/train/run_folder.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace coco_evaluation_test {

namespace {

Bytes bytes_of(const std::string& s) { return {reinterpret_cast<const u8*>(s.data()), s.size()}; }

double furthest(const double* a, const nlohmann::json& b) {
  double d = 0;
  for (std::size_t i = 0; i < b.size(); ++i)
    d = std::max(d, std::abs(a[i] - b.at(i).get<double>()));
  return d;
}

}  // namespace

TEST_CASE("coco: the figures are pycocotools'", "[data]") {
  const std::vector<u8> file = read_file(io_test::reference("coco_ap.json"));
  int cases = 0;
  for (const auto& c : nlohmann::json::parse(file.begin(), file.end())) {
    INFO(c.at("name").get<std::string>());
    const std::string gt = c.at("gt").dump(), dt = c.at("dt").dump();
    const CocoTruth truth = parse_coco(bytes_of(gt), "gt.json");
    const std::vector<CocoResult> results = parse_coco_results(bytes_of(dt), "dt.json");
    const CocoType type = c.at("type") == "segm" ? CocoType::segm : CocoType::bbox;
    for (const auto& [protocol, key] :
         {std::pair<CocoProtocol, std::string>{CocoProtocol::pycocotools, "coco"},
          {CocoProtocol::mmdet2, "mmdet2"}}) {
      const CocoScores s = evaluate_coco(truth, results, type, protocol);
      CHECK(furthest(s.figures.data(), c.at(key)) < 1e-9);
      REQUIRE(s.class_ap.size() == c.at(key + "_class_ap").size());
      CHECK(furthest(s.class_ap.data(), c.at(key + "_class_ap")) < 1e-9);
      // Their means over the classes that are there are the figures of those thresholds.
      for (const auto& [figure, of_class] :
           {std::pair{1, &s.class_ap50}, std::pair{2, &s.class_ap75}}) {
        double sum = 0, n = 0;
        for (const double ap : *of_class)
          if (ap >= 0) sum += ap, ++n;
        CHECK((n == 0 ? -1 : sum / n) == Approx(s.figures[static_cast<std::size_t>(figure)]));
      }
      const bool zero = c.at("name") == "annotation 0, bbox";
      CHECK(s.warnings.size() == (zero ? 1 : 0));
      CHECK(s.zero_ids == (zero ? 1 : 0));
    }
    ++cases;
  }
  CHECK(cases == 11);
}

TEST_CASE("coco: a truth's mask is drawn only where there is a detection to compare it with",
          "[data]") {
  // Annotations 2 and 3 cannot be drawn: no detection of their image and class, so nobody asks for
  // their masks.
  const std::string gt =
      R"({"images": [{"id": 1, "height": 50, "width": 60}, {"id": 2, "height": 50, "width": 60}], "categories": [{"id": 1}, {"id": 2}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "area": 1600, "segmentation": [[0, 0, 40, 0, 40, 40, 0, 40]]},
                    {"id": 2, "image_id": 1, "category_id": 2, "bbox": [0, 0, 3, 3], "area": 9, "segmentation": [[1000000000, 0, 3, 0, 3, 3]]},
                    {"id": 3, "image_id": 2, "category_id": 1, "bbox": [0, 0, 3, 3], "area": 9, "segmentation": [[1000000000, 0, 3, 0, 3, 3]]}]})";
  const CocoTruth truth = parse_coco(bytes_of(gt), "gt.json");
  const auto score = [&](i64 image, i64 category) {
    return evaluate_coco(
        truth,
        parse_coco_results(bytes_of(str(R"([{"image_id": )", image, R"(, "category_id": )",
                                        category, R"(, "score": 1, "bbox": [0, 0, 40, 40]}])")),
                           "dt.json"),
        CocoType::segm);
  };
  const CocoScores s = score(1, 1);
  CHECK(s.class_ap[0] == Approx(51.0 / 101));  // one of two found: recalls 0 to 0.5
  CHECK(s.class_ap[1] == 0);                   // it still is to be found
  CHECK(s.class_ap50[0] == Approx(51.0 / 101));
  CHECK(s.class_ap75[0] == Approx(51.0 / 101));
  CHECK(says([&] { score(2, 1); }, "gt.json: annotation 3: polygon: the coordinate 1e+09"));
}

TEST_CASE("coco: what cannot be scored is named", "[data]") {
  const std::string start =
      R"({"images": [{"id": 4, "height": 5, "width": 6}], "categories": [{"id": 2}],
    "annotations": [{"id": 1, "image_id": 4, "category_id": 2, "bbox": [0, 0, 3, 3])";
  const std::string gt = start + R"(, "segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]]}]})";
  const CocoTruth truth = parse_coco(bytes_of(gt), "gt.json");
  const auto score = [&](const std::string& dt, CocoType type) {
    return evaluate_coco(truth, parse_coco_results(bytes_of(dt), "dt.json"), type);
  };
  const std::string mask =
      R"([{"image_id": 4, "category_id": 2, "score": 1, "segmentation": {"size": [7, 6], "counts": [42]}}])";
  CHECK(says([&] { score(mask, CocoType::segm); },
             "dt.json: [0]: mask: of 7 x 6 pixels in an image of 5 x 6"));
  CHECK(says([&] { score(mask, CocoType::bbox); },
             "dt.json: [0]: mask: of 7 x 6 pixels in an image of 5 x 6"));
  CHECK(says(
      [&] {
        score(R"([{"image_id": 5, "category_id": 2, "score": 1, "bbox": [0, 0, 3, 3]}])",
              CocoType::bbox);
      },
      "dt.json: [0]: gt.json has no image with the id 5; the results are of another set"));
  // Masks are compared, and an annotation has none: pycocotools' KeyError, or for [] its
  // IndexError.
  for (const char* none : {"}]}", R"(, "segmentation": []}]})", R"(, "segmentation": null}]})"}) {
    const CocoTruth boxes = parse_coco(bytes_of(start + none), "gt.json");
    const std::vector<CocoResult> results = parse_coco_results(
        bytes_of(R"([{"image_id": 4, "category_id": 2, "score": 1, "bbox": [0, 0, 3, 3]}])"),
        "dt.json");
    CHECK(says([&] { evaluate_coco(boxes, results, CocoType::segm); },
               "gt.json: 1 of 1 annotations have no \"segmentation\", the first has the id 1; "
               "masks cannot be compared"));
    CHECK(evaluate_coco(boxes, results, CocoType::bbox).figures[0] == Approx(1).epsilon(1e-12));
  }
  // Results all of one kind, as pycocotools takes them by the first.
  const std::string
      box = R"({"image_id": 4, "category_id": 2, "score": 1, "bbox": [0, 0, 3, 3]})",
      runs =
          R"({"image_id": 4.0, "category_id": 2, "score": 1, "segmentation": {"size": [5, 6], "counts": [0, 3, 2, 3, 2, 3, 17]}})";
  CHECK(says([&] { score("[" + box + "," + runs + "]", CocoType::segm); },
             "dt.json: [1]: has no \"bbox\", which dt.json: [0] has"));
  CHECK(says([&] { score("[" + runs + "," + box + "]", CocoType::bbox); },
             "dt.json: [1]: has no \"segmentation\", which dt.json: [0] has"));
  // the box around the mask
  CHECK(score("[" + runs + "]", CocoType::bbox).figures[0] == Approx(1).epsilon(1e-12));
  // the box as a mask
  CHECK(score("[" + box + "]", CocoType::segm).figures[0] == Approx(1).epsilon(1e-12));
  // What the file does not say is noted only where it is asked for.
  const auto refused = [&](const std::string& file) {
    evaluate_coco(parse_coco(bytes_of(file), "gt.json", true, false),
                  parse_coco_results(bytes_of("[" + box + "]"), "dt.json"), CocoType::bbox);
  };
  CHECK(says([&] { refused(gt); },
             "gt.json: 1 of 1 annotations have no \"area\", the first has the id 1"));
  CHECK(says([&] { refused(start + R"(, "area": 9}]})"); },
             "gt.json: annotation 1 has no \"iscrowd\"; write 0"));
  CHECK(thrown([&] { refused(start + R"(, "area": 9, "iscrowd": 0}]})"); }) == "nothing");
  CHECK(says(
      [] {
        parse_coco_results(
            bytes_of(R"([{"image_id": 4, "category_id": 2, "score": 1, "keypoints": [1, 2, 2]}])"),
            "dt.json");
      },
      "dt.json: [0]: has neither \"bbox\" nor \"segmentation\"; keypoints alone are not scored"));
  const CocoScores other = score(
      R"([{"image_id": 4, "category_id": 9, "score": 1, "bbox": [0, 0, 3, 3]}])", CocoType::bbox);
  REQUIRE(other.warnings.size() == 1);
  CHECK(other.warnings[0] ==
        "1 results have a category that gt.json does not have (id 9); they are left out");
  CHECK(other.figures[0] == 0);
  CHECK(score("[]", CocoType::bbox).figures[0] == 0);
  CHECK(score("[]", CocoType::bbox).figures[5] == -1);  // no large object
  CHECK(score(R"([{"image_id": 4, "category_id": 2, "score": 1, "bbox": [0, 0, 3, 3]}])",
              CocoType::bbox)
            .figures[0] == Approx(1).epsilon(1e-12));
  CHECK(says([] { AveragePrecision(2, {{10, 5, 100}}); }, "the limits 10, 5, 100"));
  CHECK(
      says([] { AveragePrecision(2).add(2, {}, {}, [](std::size_t, std::size_t) { return 0.0; }); },
           "class 2 of 2"));
}

}  // namespace coco_evaluation_test
