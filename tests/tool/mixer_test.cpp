// Token mixers through the tool: --mixer, and files that say which.

#include <nlohmann/json.hpp>

#include "ppma/io/image.hpp"
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
  NEEDS_TOOL_AND_PNG();
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
  const auto written = nlohmann::json::parse(text_of(folder / "a/ablation.json"));
  REQUIRE(written["reach"].size() == 3);
  CHECK(written["reach"][1]["network"] == "mixer window");
  CHECK(written["reach"][2]["tells"] == 0);  // no mixer
  CHECK(r.out.find("| mixer window | ") != std::string::npos);
  CHECK(text_of(folder / "a/ablation.html").find("alt=\"impulse responses") != std::string::npos);
  CHECK(read_image(folder / "a/ablation_reach.png").dim(2) == 3);
  const auto config = nlohmann::json::parse(text_of(folder / "a/networks/mixer-window.json"));
  CHECK(config["mixers"] == nlohmann::json{"window", "window", "window", "window"});
  CHECK_FALSE(
      nlohmann::json::parse(text_of(folder / "a/networks/whole-none.json")).contains("mixers"));
  CHECK(run("ablate --mixers windov").err.find("did you mean \"window\"?") != std::string::npos);
}

TEST_CASE("tool: visualize draws how far tokens reach", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const io_test::Folder folder;
  const std::string out = " --size 64 --samples 1 --out " + folder / "r.png";
  const Result r = run("visualize --reach --mixers none,polyline_whole --json" + out);
  INFO(r.err);
  REQUIRE(r.code == 0);
  const auto said = nlohmann::json::parse(r.out);
  REQUIRE(said["networks"].size() == 2);
  CHECK(said["networks"][0]["tells"] == 0);
  CHECK(said["networks"][1]["tells"] == 1);
  CHECK(said["networks"][1]["most"].get<double>() >= said["networks"][0]["most"].get<double>());
  CHECK(read_image(folder / "r.png").dim(2) == 3);
  const Result one = run("visualize --reach --mixer window --stage 2" + out);
  CHECK(one.out.find("| tells, % of the tokens | half of its field, pixels |") !=
        std::string::npos);
  for (const char* wrong : {"--mixers none", "--reach --mixers windov", "--reach --head 1",
                            "--reach --mixers none --mixer window", "--reach --statistics 5"}) {
    INFO(wrong);
    CHECK(run(std::string("visualize ") + wrong + out).code != 0);
  }
}
