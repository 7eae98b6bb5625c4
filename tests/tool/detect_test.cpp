// train and predict with --task detect and --task segment as a user meets them.

#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/label_map.hpp"
#include "ppma/io/safetensors.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;
using nlohmann::json;

TEST_CASE("tool: a detector is trained, resumed, and finds things in a picture", "[tool]") {
  NEEDS_TOOL();
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#endif
  const Folder folder;
  const std::string out = folder / "run";
  const Result first = run("train --task detect --images 8 --test-images 4 --size 64 --epochs 2 --batch 4 --stop-after 1 --out '" + out + "'");
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK(first.out.find("loss_rpn_bbox") != std::string::npos);
  CHECK(first.out.find("masks  AP") != std::string::npos);
  REQUIRE(run("train --resume '" + out + "'").code == 0);
  CHECK(read_image(out + "/pictures/epoch_2.png").dim(0) > 500);
  const std::string log = text_of(out + "/log.jsonl");
  CHECK(std::count(log.begin(), log.end(), '\n') == 2);
  CHECK(json::parse(log.substr(0, log.find('\n'))).contains("segm_mAP_50"));

  write_png(folder / "a.png", draw_shapes({.height = 50, .width = 70}, 1).image);
  const Result p = run("predict --task detect --json --weights '" + out + "/best.safetensors' --out '" + folder / "p" + "' '" + folder / "a.png" + "'");
  INFO(p.err);
  REQUIRE(p.code == 0);
  CHECK(json::parse(p.out).at(0).at("image_id") == 1);
  CHECK(read_image(folder / "p" + "/a.png").dim(1) % 70 == 0);
  CHECK(json::parse(text_of(folder / "p" + "/results.json")).is_array());
  CHECK(run("train --task detect --data coco --data-dir '" + std::string(folder / "") + "' --out '" + folder / "q" + "'").err.find("there is none of") != std::string::npos);
  CHECK(run("train --data coco --out '" + folder / "q" + "'").err.find("is for --task detect") != std::string::npos);
}

TEST_CASE("tool: train and predict --task segment, in windows and at several sizes", "[tool]") {
  NEEDS_TOOL();
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#endif
  const Folder folder;
  const std::string out = folder / "run";
  const Result first = run("train --task segment --images 8 --test-images 4 --size 64 --epochs 1 --batch 4 --out '" + out + "'");
  INFO(first.err);
  REQUIRE(first.code == 0);
  write_png(folder / "a.png", draw_shapes({.height = 50, .width = 70}, 1).image);
  write_png(folder / "thin.png", Tensor::zeros({1, 40, 3}, DType::uint8));
  for (const char* how : {"", "--crop 32", "--crop 32 --stride 16", "--scales 0.5,1 --flip"}) {
    const Result p = run("predict --task segment --json " + std::string(how) + " --weights '" + out + "/best.safetensors' --out '" + folder / "p" + "' '" +
                         folder / "a.png" + "' '" + folder / "thin.png" + "'");
    INFO(how << p.err);
    REQUIRE(p.code == 0);
    CHECK(json::parse(p.out).size() == 2);
    CHECK(read_label_map(folder / "p" + "/a_labels.png").shape() == Shape{50, 70});
    CHECK(read_label_map(folder / "p" + "/thin_labels.png").shape() == Shape{1, 40});
  }
  CHECK(run("predict --task detect --weights '" + out + "/best.safetensors' '" + folder / "a.png" + "'").err.find("does not describe a detector") != std::string::npos);
}

TEST_CASE("tool: blocks that are computed again give the same weights", "[tool]") {
  NEEDS_TOOL();
#if !PPMA_STB
  PPMA_SKIP("no stb_image, so no PNG");
#endif
  const Folder folder;
  for (const std::string task : {"classify --model ppma_nano --size 32", "segment --size 64", "detect --size 64"}) {
    INFO(task);
    const auto train = [&](const char* out, const char* more) {
      const Result r = run("train --task " + task + " --images 8 --test-images 4 --epochs 1 --batch 4 --overwrite --out '" + folder / out + "' " + more);
      INFO(r.err);
      REQUIRE(r.code == 0);
      return read_safetensors(folder / out + "/last.safetensors").tensors;
    };
    const TensorMap kept = train("kept", ""), again = train("again", "--checkpoint-blocks");
    REQUIRE(kept.size() == again.size());
    for (std::size_t i = 0; i < kept.size(); ++i) {
      INFO(kept[i].first);
      REQUIRE(kept[i].second.to_vector<double>() == again[i].second.to_vector<double>());
    }
  }
}
