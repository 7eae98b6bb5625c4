// eval-coco and eval-miou as a user meets them.

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/io/stb.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;
using nlohmann::json;

namespace {

void write_text(const std::string& path, const std::string& text) {
  write_file(path, Bytes(reinterpret_cast<const u8*>(text.data()), text.size()));
}

}  // namespace

TEST_CASE("tool: eval-coco prints pycocotools' figures", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const std::string stored = text_of(io_test::reference("coco_ap.json"));
  const std::string files =
      "eval-coco --gt '" + folder / "gt.json" + "' --dt '" + folder / "dt.json" + "' ";
  const json cases = json::parse(stored);
  for (const auto& c : cases) {
    INFO(c.at("name").get<std::string>());
    write_text(folder / "gt.json", c.at("gt").dump());
    write_text(folder / "dt.json", c.at("dt").dump());
    for (const char* protocol : {"pycocotools", "mmdet2"}) {
      const std::string key = std::string(protocol) == "mmdet2" ? "mmdet2" : "coco";
      const Result r = run(files + "--type " + c.at("type").get<std::string>() + " --protocol " +
                           protocol + " --json");
      REQUIRE(r.code == 0);
      const json j = json::parse(r.out);
      for (std::size_t i = 0; i < 12; ++i)
        CHECK(j.at("stats").at(i).get<double>() ==
              Approx(c.at(key).at(i).get<double>()).margin(1e-9).epsilon(0));
      CHECK(j.at("AP") == j.at("stats").at(0));
      CHECK(j.at(key == "coco" ? "AR100" : "AR1000") == j.at("stats").at(8));
      CHECK(j.at("classes").size() == c.at("gt").at("categories").size());
      const bool zero = c.at("name") == "annotation 0, bbox";
      CHECK((r.err.find("annotation has the id 0") != std::string::npos) == zero);
    }
  }
  const Result text = run(files);
  CHECK(text.code == 0);
  CHECK(text.out.find("  AP50   ") != std::string::npos);
  CHECK(text.out.find("    AP    AP50    AP75\n") != std::string::npos);
  write_text(folder / "dt.json", R"([{"image_id": "7"}])");
  const Result wrong = run(files + "--json");
  CHECK(wrong.code == 1);
  CHECK(wrong.out.empty());
  CHECK(wrong.err.find("dt.json: [0]: \"image_id\" is a string; it must be a whole number") !=
        std::string::npos);
  CHECK(run("eval-coco --gt /nowhere.json --dt /nowhere.json").err.find("does not exist") !=
        std::string::npos);
}

TEST_CASE("tool: eval-miou", "[tool]") {
  NEEDS_TOOL();
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#else
  const Folder folder;
  for (const char* sub : {"gt", "gt/below", "pred", "pred/below"})
    std::filesystem::create_directory(folder / sub);
  const auto map = [&](const std::string& name, const std::vector<u8>& labels) {
    write_png(folder / name, Tensor::from<u8>(labels, {2, static_cast<i64>(labels.size()) / 2, 1}));
  };
  map("gt/a.png", {0, 0, 0, 1, 1, 1, 255, 255});
  map("pred/a.png", {0, 0, 1, 1, 1, 2, 0, 77});
  map("gt/below/b.png", {0, 2});
  map("pred/below/b.png", {0, 2});
  const std::string command =
      "eval-miou --pred '" + folder / "pred" + "' --gt '" + folder / "gt" + "' ";
  const Result r = run(command + "--classes 4 --json");
  REQUIRE(r.code == 0);
  const json j = json::parse(r.out);
  CHECK(j.at("images") == 2);
  CHECK(j.at("IoU").at(0).get<double>() == Approx(3.0 / 4));
  CHECK(j.at("IoU").at(1).get<double>() == Approx(2.0 / 4));
  CHECK(j.at("IoU").at(2).get<double>() == Approx(1.0 / 2));
  CHECK(j.at("IoU").at(3).is_null());
  CHECK(j.at("mIoU").get<double>() == Approx((0.75 + 0.5 + 0.5) / 3));
  CHECK(j.at("aAcc").get<double>() == Approx(6.0 / 8));
  CHECK(j.at("mAcc").get<double>() == Approx((3.0 / 4 + 2.0 / 3 + 1) / 3));
  const std::string few = run(command + "--classes 4").out;
  CHECK(few.find("2 images: mIoU 0.5833") == 0);
  // 2 of 3 pixels of class 1, which is taken for 2; a class that is nowhere has no figures.
  CHECK(few.find("  class 1            37.50   50.00       66.67        66.67  class 2\n") !=
        std::string::npos);
  CHECK(few.find("  class 3             0.00       -           -            -\n") !=
        std::string::npos);
  // Of many classes the worst, or all.
  const std::string worst = run(command + "--classes 21").out,
                    all = run(command + "--classes 21 --per-class").out;
  CHECK(worst.find("\n  worst of 21 classes  ") != std::string::npos);  // three have any
  CHECK(std::count(worst.begin(), worst.end(), '\n') == 5);
  CHECK(std::count(all.begin(), all.end(), '\n') == 23);
  const Result range = run(command + "--classes 2 --json");
  CHECK(range.code == 1);
  CHECK(range.err.find("gt/a.png") != std::string::npos);
  CHECK(range.err.find("prediction 2 at row 1, column 1") != std::string::npos);
  CHECK(run(command + "--classes 4 --ignore 7").err.find("label 255 at row 1, column 2") !=
        std::string::npos);
  const Result reduced = run(command + "--classes 2 --reduce-zero-label --json");
  CHECK(reduced.err.find("prediction 2 at row 1") != std::string::npos);
  const Result same = run(command + "--classes 3 --reduce-zero-label --ignore 0");
  CHECK(same.code == 1);
  CHECK(same.err.find("--ignore 0 is one of the 3 classes; take one from 3 on") !=
        std::string::npos);
  CHECK(run(command + "--classes 3 --reduce-zero-label --ignore 3").err.find("--ignore 3") ==
        std::string::npos);
  map("gt/c.png", {0, 0, 0, 0});
  CHECK(
      run(command + "--classes 4").err.find("pred: has no prediction for 1 of 3 label maps of ") !=
      std::string::npos);
  map("pred/c.png", {0, 0});
  CHECK(run(command + "--classes 4").err.find("c.png: the prediction is ") != std::string::npos);
  write_png(folder / "pred/c.png", Tensor::zeros({2, 2, 3}, DType::uint8));
  CHECK(run(command + "--classes 4")
            .err.find("pred/c.png: a label map has one channel; this PNG has colours") !=
        std::string::npos);
#endif
}

#if PPMA_STB
TEST_CASE("tool: eval-miou finds files as they are named, and says what it leaves out", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  namespace fs = std::filesystem;
  const auto map = [&](const std::string& name, const std::vector<u8>& labels) {
    fs::create_directories(fs::path(folder / name).parent_path());
    write_png(folder / name, Tensor::from<u8>(labels, {2, static_cast<i64>(labels.size()) / 2, 1}));
  };
  const auto result = [&](const std::string& options = "--classes 3") {
    return run("eval-miou --pred '" + folder / "pred" + "' --gt '" + folder / "gt" + "' --json " +
               options);
  };
  map("gt/a.PNG", {0, 1, 1, 1}), map("pred/a.png", {0, 1, 1, 0});
  map("real/b.png", {2, 2}), map("pred/deep/b.Png", {2, 2});
  fs::create_directory_symlink(folder / "real", folder / "gt/deep");
  write_text(folder / "gt/._a.png", "AppleDouble"), write_text(folder / "gt/.DS_Store", "x");
  fs::create_directory(folder / "pred/.cache");
  write_text(folder / "pred/.cache/x.png", "x");
  Result r = result();
  REQUIRE(r.code == 0);
  CHECK(r.err.empty());
  CHECK(json::parse(r.out).at("images") == 2);
  CHECK(json::parse(r.out).at("mIoU").get<double>() == Approx((1.0 / 2 + 2.0 / 3 + 1) / 3));
  // As predict --task segment writes: a picture and NAME_labels.png, in one folder.
  fs::remove_all(folder / "pred");
  map("pred/a_labels.png", {0, 1, 1, 1}), map("pred/b_labels.png", {2, 2}),
      map("pred/other_labels.png", {0, 0});
  write_png(folder / "pred/a.png", Tensor::zeros({5, 5, 3}, DType::uint8));
  write_text(folder / "pred/results.json", "[]"), write_text(folder / "gt/readme.txt", "x");
  r = result();
  REQUIRE(r.code == 0);
  CHECK(json::parse(r.out).at("mIoU").get<double>() == 1);
  CHECK(r.err.find("gt: left out: 1 file that is not .png (1 .txt; such as readme.txt)") !=
        std::string::npos);
  CHECK(r.err.find("pred: left out: 1 .png files that are the prediction of no label map") !=
        std::string::npos);
  CHECK(r.err.find("such as other_labels.png") != std::string::npos);
  CHECK(json::parse(r.out).at("warnings").size() == 2);
  map("pred/a.png", {0, 1, 1, 1});
  CHECK(result().err.find("a.png and a_labels.png could both be the prediction of a.PNG") !=
        std::string::npos);
  fs::remove(folder / "pred/a.png");
  map("gt/a.png", {0, 1, 1, 1});
  CHECK(result().err.find("a.PNG and a.png have one name but for the ending") != std::string::npos);
  fs::remove(folder / "gt/a.png");
  fs::create_symlink(folder / "nowhere.png", folder / "gt/gone.png");
  CHECK(result().err.find("gt/gone.png: a link to a file that is not there") != std::string::npos);
  fs::remove(folder / "gt/gone.png");
  map("gt/deep/a.png", {0, 1, 1, 1});
  CHECK(result().err.find("a_labels.png: could be the prediction of a.PNG and of deep/a.png") !=
        std::string::npos);
  fs::remove(folder / "gt/deep/a.png");
  map("gt/a.PNG", {9, 9, 9, 9}), map("gt/deep/b.png", {9, 9});
  CHECK(result("--classes 3 --ignore 9").err.find("no pixel counts: every label is 9") !=
        std::string::npos);
  fs::remove_all(folder / "pred");
  fs::create_directory(folder / "pred");
  write_text(folder / "pred/a.npy", "x");
  CHECK(result().err.find("pred: has no prediction for 2 of 2 label maps") != std::string::npos);
  CHECK(result().err.find("there are 1 file that is not .png (1 .npy; such as a.npy)") !=
        std::string::npos);
}

TEST_CASE("tool: --no-exif and what a folder of classes leaves out", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const TensorMap kinds = read_safetensors(io_test::reference("images/kinds.safetensors")).tensors;
  const auto put = [&](const std::string& name, const std::string& kind) {
    std::filesystem::create_directories(std::filesystem::path(folder / name).parent_path());
    const Tensor& file = *find(kinds, kind);
    write_file(folder / name, Bytes(file.data<u8>(), static_cast<std::size_t>(file.numel())));
  };
  for (const char* part : {"train", "val"})
    for (const char* name : {"cat", "dog"})
      put(str("set/", part, "/", name, "/a.jpg"), "exif 6.jpg");
  put("set/train/cat/b.webp", "x.webp");
  put("plain.jpg", "exif 1.jpg");
  const std::string out = folder / "run";
  const Result trained =
      run("train --data folder --data-dir '" + folder / "set" +
          "' --size 32 --epochs 1 --batch 2 --workers 0 --out '" + out + "' --no-exif");
  REQUIRE(trained.code == 0);
  CHECK(trained.err.find("set/train: left out: 1 file that is not .jpg, .jpeg, .png, .bmp, .ppm or "
                         ".pgm (1 .webp; such as cat/b.webp)") != std::string::npos);
  // Without its EXIF data the turned photograph is the plain one, which has the same pixels.
  const auto seen = [&](const std::string& image, const std::string& option) {
    const Result r = run("predict --weights '" + out + "/best.safetensors' --json " + option +
                         " '" + image + "'");
    CHECK(r.code == 0);
    return json::parse(r.out).at(0).at("top");
  };
  const std::string turned_one = folder / "set/val/cat/a.jpg";
  CHECK(seen(turned_one, "--no-exif") == seen(folder / "plain.jpg", ""));
  CHECK(seen(turned_one, "") != seen(folder / "plain.jpg", ""));
  CHECK(run("train --data shapes --no-exif --epochs 1 --out '" + folder / "s" + "'")
            .err.find("--no-exif is for --data folder") != std::string::npos);
  CHECK(run("train --task segment --no-exif --out '" + folder / "s" + "'").code != 0);
  CHECK_FALSE(std::filesystem::exists(folder / "s"));
}

TEST_CASE("tool: eval-coco refuses what pycocotools refuses", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const std::string box =
      R"({"image_id": 1, "category_id": 1, "score": 0.9, "bbox": [10, 10, 20, 20]})";
  const auto scored = [&](const std::string& annotation, const std::string& results,
                          const std::string& type) {
    write_text(
        folder / "gt.json",
        R"({"images": [{"id": 1, "width": 100, "height": 80}], "categories": [{"id": 1, "name": "a"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, )" +
            annotation + "}]}");
    write_text(folder / "dt.json", results);
    return run("eval-coco --gt '" + folder / "gt.json" + "' --dt '" + folder / "dt.json" +
               "' --type " + type);
  };
  const std::string whole = R"("bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0)";
  CHECK(scored(whole, "[" + box + "]", "bbox").code == 0);
  const Result masks = scored(whole, "[" + box + "]", "segm");
  CHECK(masks.code == 1);
  CHECK(masks.out.empty());
  CHECK(masks.err.find(
            "gt.json: 1 of 1 annotations have no \"segmentation\", the first has the id 1") !=
        std::string::npos);
  CHECK(scored(R"("bbox": [10, 10, 20, 20], "iscrowd": 0)", "[" + box + "]", "bbox")
            .err.find("have no \"area\"") != std::string::npos);
  CHECK(scored(R"("bbox": [10, 10, 20, 20], "area": 400)", "[" + box + "]", "bbox")
            .err.find("annotation 1 has no \"iscrowd\"") != std::string::npos);
  CHECK(scored(whole, "[]", "bbox")
            .err.find("dt.json: an empty list; there are no detections to score") !=
        std::string::npos);
}
#endif
