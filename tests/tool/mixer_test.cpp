// Token mixers through the tool: --mixer, and files that say which.

#include <nlohmann/json.hpp>

#include "tool/help.hpp"

using namespace tool_test;

TEST_CASE("tool: a network with another mixer is trained, read back and evaluated", "[tool]") {
  NEEDS_TOOL();
  const io_test::Folder folder;
  const std::string data = " --data shapes --images 40 --test-images 20 --seed 3 ";
  const Result trained =
      run("train --size 32 --epochs 1 --batch 10 --model ppma_nano --mixer "
          "none,window,polyline_linear,retnet" +
          data + "--out " + folder / "a");
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  const auto config = nlohmann::json::parse(text_of(folder / "a/config.json"));
  CHECK(config["mixers"] == nlohmann::json{"none", "window", "polyline", "retnet"});
  CHECK(config["linear"] == nlohmann::json{false, false, true, false});
  const Result evaluated =
      run("eval --weights " + folder / "a/last.safetensors" + " --data shapes --test-images 20");
  INFO(evaluated.err);
  CHECK(evaluated.code == 0);
  CHECK(run("visualize --weights " + folder / "a/last.safetensors" + " --out " + folder / "m.png")
            .code != 0);
}

TEST_CASE("tool: summary counts mixers, and what --mixer refuses", "[tool]") {
  NEEDS_TOOL();
  const Result all = run("summary --model ppma_nano --mixer vmamba --size 32 --depth 6");
  CHECK(all.out.find("layers.3.blocks.0.mixer.mix ") != std::string::npos);
  CHECK(all.out.find("retention.") == std::string::npos);
  struct Wrong {
    const char *arguments, *message;
  };
  for (const Wrong& w :
       {Wrong{"summary --mixer vmambo", "did you mean \"vmamba\"?"},
        Wrong{"summary --mixer none,window", "it must be one for all stages, or four"},
        Wrong{"summary --mixer window --mask polyline", "no stage has a polyline attention"},
        Wrong{"summary --model vit_nano --mixer window", "a plain transformer has attention alone"},
        Wrong{"summary --mixer window --measure", "--measure: the memory of mixers"}}) {
    const Result r = run(w.arguments);
    INFO(w.arguments << "\n" << r.err);
    CHECK(r.code != 0);
    CHECK(r.err.find(w.message) != std::string::npos);
  }
}

TEST_CASE("tool: ablate trains other mixers beside the masks", "[tool]") {
  NEEDS_TOOL();
  const io_test::Folder folder;
  const Result r =
      run("ablate --masks none --mixers window,none --seeds 1 --no-bench --data shapes --size 32 "
          "--images 20 --test-images 10 --epochs 1 --batch 10 --out " +
          folder / "a");
  INFO(r.err);
  REQUIRE(r.code == 0);
  for (const char* line : {"| whole     | none          |", "| mixer     | window        |",
                           "| mixer     | none          |"})
    CHECK(r.out.find(line) != std::string::npos);
  const auto config = nlohmann::json::parse(text_of(folder / "a/networks/mixer-window.json"));
  CHECK(config["mixers"] == nlohmann::json{"window", "window", "window", "window"});
  CHECK_FALSE(
      nlohmann::json::parse(text_of(folder / "a/networks/whole-none.json")).contains("mixers"));
  CHECK(run("ablate --mixers windov").err.find("did you mean \"window\"?") != std::string::npos);
}
