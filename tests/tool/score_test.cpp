// eval-coco and eval-miou as a user meets them.

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/image.hpp"
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
  const std::string files = "eval-coco --gt '" + folder / "gt.json" + "' --dt '" + folder / "dt.json" + "' ";
  const json cases = json::parse(stored);
  for (const auto& c : cases) {
    INFO(c.at("name").get<std::string>());
    write_text(folder / "gt.json", c.at("gt").dump());
    write_text(folder / "dt.json", c.at("dt").dump());
    for (const char* protocol : {"pycocotools", "mmdet2"}) {
      const std::string key = std::string(protocol) == "mmdet2" ? "mmdet2" : "coco";
      const Result r = run(files + "--type " + c.at("type").get<std::string>() + " --protocol " + protocol + " --json");
      REQUIRE(r.code == 0);
      const json j = json::parse(r.out);
      for (std::size_t i = 0; i < 12; ++i) CHECK(j.at("stats").at(i).get<double>() == Approx(c.at(key).at(i).get<double>()).margin(1e-9).epsilon(0));
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
  write_text(folder / "dt.json", R"([{"image_id": "7"}])");
  const Result wrong = run(files + "--json");
  CHECK(wrong.code == 1);
  CHECK(wrong.out.empty());
  CHECK(wrong.err.find("dt.json: [0]: \"image_id\" is a string; it must be a whole number") != std::string::npos);
  CHECK(run("eval-coco --gt /nowhere.json --dt /nowhere.json").err.find("does not exist") != std::string::npos);
}

TEST_CASE("tool: eval-miou", "[tool]") {
  NEEDS_TOOL();
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#else
  const Folder folder;
  for (const char* sub : {"gt", "gt/below", "pred", "pred/below"}) std::filesystem::create_directory(folder / sub);
  const auto map = [&](const std::string& name, const std::vector<u8>& labels) {
    write_png(folder / name, Tensor::from<u8>(labels, {2, static_cast<i64>(labels.size()) / 2, 1}));
  };
  map("gt/a.png", {0, 0, 0, 1, 1, 1, 255, 255});
  map("pred/a.png", {0, 0, 1, 1, 1, 2, 0, 77});
  map("gt/below/b.png", {0, 2});
  map("pred/below/b.png", {0, 2});
  const std::string command = "eval-miou --pred '" + folder / "pred" + "' --gt '" + folder / "gt" + "' ";
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
  CHECK(run(command + "--classes 4").out.find("2 images: mIoU 0.5833") == 0);
  const Result range = run(command + "--classes 2 --json");
  CHECK(range.code == 1);
  CHECK(range.err.find("gt/a.png") != std::string::npos);
  CHECK(range.err.find("prediction 2 at row 1, column 1") != std::string::npos);
  CHECK(run(command + "--classes 4 --ignore 7").err.find("label 255 at row 1, column 2") != std::string::npos);
  const Result reduced = run(command + "--classes 2 --reduce-zero-label --json");
  CHECK(reduced.err.find("prediction 2 at row 1") != std::string::npos);
  const Result same = run(command + "--classes 3 --reduce-zero-label --ignore 0");
  CHECK(same.code == 1);
  CHECK(same.err.find("--ignore 0 is one of the 3 classes; take one from 3 on") != std::string::npos);
  CHECK(run(command + "--classes 3 --reduce-zero-label --ignore 3").err.find("--ignore 3") == std::string::npos);
  map("gt/c.png", {0, 0, 0, 0});
  CHECK(run(command + "--classes 4").err.find("pred/c.png: cannot be read") != std::string::npos);
  map("pred/c.png", {0, 0});
  CHECK(run(command + "--classes 4").err.find("c.png: the prediction is ") != std::string::npos);
  write_png(folder / "pred/c.png", Tensor::zeros({2, 2, 3}, DType::uint8));
  CHECK(run(command + "--classes 4").err.find("pred/c.png: a label map has one channel; this PNG has colours") != std::string::npos);
#endif
}
