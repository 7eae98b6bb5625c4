// What predict takes - files, folders, patterns - and what it gives: text, JSON, CSV, COCO, PNG.

#include <filesystem>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/csv.hpp"
#include "ppma/io/image.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;
namespace fs = std::filesystem;
using json = nlohmann::json;

namespace predict_test {

namespace {

std::vector<CsvRecord> csv(const std::string& text) {
  return parse_csv({reinterpret_cast<const u8*>(text.data()), text.size()}, "stdout");
}

void put_image(const std::string& path, i64 number) {
  fs::create_directories(fs::path(path).parent_path());
  write_png(path, draw_shapes({.height = 48, .width = 48}, number).image);
}

}  // namespace

TEST_CASE("tool: predict classifies files, folders and patterns, as text, JSON or CSV", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run", images = folder / "images";
  write_file(folder / "small.json",
             std::string_view(R"({"embed_dims": [8, 8, 8, 8], "num_heads": [1, 1, 1, 1],
                                  "depths": [1, 1, 1, 1], "projection": 16})"));
  REQUIRE(run("train --images 32 --test-images 16 --epochs 1 --batch 16 --config '" +
              (folder / "small.json") + "' --threads 1 --out '" + out + "'")
              .code == 0);
  for (const char* name : {"b.PNG", "a.png", "deep/d, \"e\".png", "deep/.hidden.png"})
    put_image(images + "/" + name, 3);
  write_file(images + "/note.txt", std::string_view("no image"));
  const std::string predict = "predict --weights '" + out + "/best.safetensors' --top 2 ";
  const auto seen = [&](const std::string& arguments, int code = 0) {
    const Result r = run(predict + "--json " + arguments);
    CHECK(r.code == code);
    std::string all;
    for (const json& one : json::parse(r.out))
      if (one.contains("top"))
        all += one["image"].get<std::string>().substr(images.size() + 1) + " ";
    return all;
  };
  CHECK(seen("'" + images + "'") == "a.png b.PNG deep/d, \"e\".png ");
  CHECK(seen("'" + images + "/**/*.png'") == "a.png deep/d, \"e\".png ");
  CHECK(seen("'" + images + "/{b,a}.*'") == "b.PNG a.png ");
  CHECK(seen("'" + images + "/a.png' '" + images + "/z*.png'", 1) == "a.png ");
  has(run("predict --weights '" + out + "/best.safetensors' '" + images + "/z*.png'").err,
      "z*.png: cannot be read");
  has(run(predict + "'" + images + "/*'").err, "note.txt: not a PNG");
  has(run(predict + "'" + images + "'").err, "left out: 1 file that is not");
  fs::create_directories(folder / "none");
  has(run(predict + "'" + (folder / "none") + "'").err, "none: has no images");

  const Result table = run(predict + "--format csv '" + images + "'");
  CHECK(table.code == 0);
  const std::vector<CsvRecord> lines = csv(table.out);
  REQUIRE(lines.size() == 7);
  CHECK(lines[0].fields ==
        std::vector<std::string>{"image", "rank", "class", "name", "probability"});
  CHECK(lines[5].fields[0] == images + "/deep/d, \"e\".png");
  CHECK(lines[6].fields[1] == "2");
  CHECK(std::stod(lines[5].fields[4]) >= std::stod(lines[6].fields[4]));
  CHECK(
      csv(run(predict + "--format csv '" + images + "/a.png' '" + images + "/b.PNG'").out).size() ==
      5);
  CHECK(run(predict + "--format json '" + images + "'").out ==
        run(predict + "--json '" + images + "'").out);
  const Result coco = run(predict + "--format coco '" + images + "'");
  CHECK(coco.code == 1);
  has(coco.err, "--format coco is for --task segment and detect; to classify there are json and");
  has(run(predict + "--format csv,json '" + images + "'").err, "both take the standard output");
  CHECK(run(predict + "--format xml '" + images + "'").code == 2);
}

TEST_CASE("tool: predict writes what --format asks for, below folders as the images lie",
          "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string images = folder / "images";
  put_image(images + "/a.png", 1), put_image(images + "/x/a.png", 2);
  write_file(images + "/b.png", std::string_view("not much of a picture"));
  for (const std::string task : {"segment", "detect"}) {
    INFO(task);
    const std::string out = folder / task;
    REQUIRE(run("train --task " + task +
                " --images 4 --test-images 2 --size 48 --epochs 1 "
                "--batch 4 --threads 1 --out '" +
                out + "'")
                .code == 0);
    const std::string predict = "predict --task " + task + " --weights '" + out +
                                "/last.safetensors' '" + images + "' --out '" + out + "/";
    const Result usual = run(predict + "p'");
    CHECK(usual.code == 1);  // b.png
    has(usual.err, "b.png: not a PNG");
    has(usual.err, "1 of 3 images could not be read");
    has(usual.out, "/x/a.png -> " + out + "/p/x/a.png\n");
    CHECK((fs::exists(out + "/p/a.png") && fs::exists(out + "/p/x/a.png")));
    CHECK(fs::exists(out + "/p/x/a_labels.png") == (task == "segment"));
    CHECK(fs::exists(out + "/p/results.json"));
    const json listed = json::parse(text_of(out + "/p/images.json"));
    REQUIRE(listed["images"].size() == 2);
    CHECK(listed["images"][1]["file_name"] == "x/a.png");

    const Result table =
        run(predict + "c' --format csv" + (task == "detect" ? " --least-score 0" : ""));
    CHECK(!fs::exists(out + "/c"));
    const std::vector<CsvRecord> lines = csv(table.out);
    REQUIRE(lines.size() > 1);
    CHECK(lines[0].fields[task == "segment" ? 4 : 5] == (task == "segment" ? "pixels" : "x1"));
    double share = 0;
    for (const CsvRecord& r : lines)
      if (r.fields[0] == images + "/a.png") share += std::stod(r.fields[task == "segment" ? 5 : 4]);
    if (task == "segment") CHECK(share == Approx(1));
    const Result both = run(predict + "j' --format json,coco");
    CHECK(json::parse(both.out)[0].contains("picture") == false);
    CHECK((fs::exists(out + "/j/results.json") && !fs::exists(out + "/j/a.png")));
    run(predict + "g' --format png");
    CHECK((!fs::exists(out + "/g/results.json") && fs::exists(out + "/g/a.png")));
  }
}

}  // namespace predict_test
