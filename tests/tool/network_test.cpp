// Networks of other papers through the tool: --model, files that say which, what is refused.

#include <nlohmann/json.hpp>

#include "tool/help.hpp"

using namespace tool_test;

TEST_CASE("tool: a network of another paper is trained, read back, and begun from", "[tool]") {
  NEEDS_TOOL();
  const io_test::Folder folder;
  const std::string data = " --data shapes --images 40 --test-images 20 --seed 3 ";
  const Result trained =
      run("train --size 32 --epochs 2 --stop-after 1 --batch 10 --model mambaout_nano" + data +
          "--out " + folder / "a");
  INFO(trained.err);
  REQUIRE(trained.code == 0);
  CHECK(trained.out.starts_with("mambaout_nano, 347,322 parameters; "));
  CHECK(nlohmann::json::parse(text_of(folder / "a/config.json"))["network"] == "mambaout");
  CHECK(run("train --resume " + folder / "a").code == 0);
  const std::string weights = " --weights " + folder / "a/last.safetensors";
  const Result evaluated = run("eval" + weights + " --data shapes --test-images 20");
  INFO(evaluated.err);
  CHECK(evaluated.code == 0);
  CHECK(run("bench --batch 2 --repeat 1 --json" + weights).out.find("\"mambaout_nano\"") !=
        std::string::npos);
  // a file without a configuration, as the published ones are
  CHECK(run("convert " + folder / "a/last.safetensors " + folder / "w.pth").code == 0);
  const Result begun =
      run("train --size 32 --epochs 1 --batch 10 --model mambaout_nano --weights " +
          folder / "w.pth" + data + "--out " + folder / "b");
  INFO(begun.err);
  CHECK(begun.code == 0);
  CHECK(begun.err.find("head: taken as it is, for the same classes") != std::string::npos);
}

TEST_CASE("tool: summary of networks of other papers, and what does not know them", "[tool]") {
  NEEDS_TOOL();
  CHECK(nlohmann::json::parse(run("summary --model mambaout_tiny --json").out)["macs"] ==
        4469655744);
  const io_test::Folder folder;
  const std::string large = folder / "large.json";
  write_file(
      large,
      std::string_view(
          R"({"network": "vmamba", "dims": [96, 192, 384, 65536], "depths": [1, 1, 1, 1000]})"));
  for (const char* command : {"summary", "bench", "train --data shapes --out x"}) {
    const Result r = run(std::string(command) + " --config " + large);
    INFO(r.err);
    CHECK(r.code != 0);
    CHECK(r.err.find("the network custom needs at least ") != std::string::npos);
  }
  struct Wrong {
    const char *arguments, *message;
  };
  for (const Wrong& w :
       {Wrong{"summary --model mambaout_nano --mask polyline", "has no polyline attention"},
        Wrong{"summary --model mambaout_nano --mixer window", "a network of another paper its own"},
        Wrong{"summary --model mambaout_nano --measure", "--measure: the memory of mambaout_nano"},
        Wrong{"summary --model mambaout_huge", "vit_nano, mambaout_tiny"},
        Wrong{"visualize --model mambaout_nano --out y.png", "this is for those of this one"},
        Wrong{"export --model mambaout_nano --out x.onnx", "is not written as ONNX"},
        Wrong{"train --task segment --model mambaout_nano --data shapes --out x",
              "no model is called"},
        Wrong{"ablate --model mambaout_nano --seeds 1 --data shapes --out x",
              "has neither masks nor structures"}}) {
    const Result r = run(w.arguments);
    INFO(w.arguments << "\n" << r.err);
    CHECK(r.code != 0);
    CHECK(r.err.find(w.message) != std::string::npos);
  }
}
