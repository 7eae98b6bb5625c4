// Commands that train more than once or read several runs: sweep, lr-find, compare.

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "io/help.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;

namespace {

// A network that trains in a second.
std::string small_network(const Folder& folder) {
  const std::string path = folder / "net.json";
  write_file(path,
             "{\"model\": \"ppma_nano\", \"embed_dims\": [8, 8, 8, 8], \"num_heads\": [2, 2, 2, "
             "2], \"projection\": 8}");
  return " --config " + path + " --images 16 --test-images 8 --size 32 --batch 8 --threads 1";
}

}  // namespace

TEST_CASE("tool: a signal to a sweep's processes reaches each of them, once", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string arguments = "sweep --over lr=1e-3,5e-3 --seeds 1 --jobs 2 --epochs 100000" +
                                small_network(folder) + " --out " + folder / "s";
  // To the whole group, as a terminal's Ctrl-C: a second signal would end a run without saving.
  const std::string runs = folder / "s/lr-";
  write_file(folder / "script",
             "set -m\n'" + tool() + "' " + arguments + " > '" + folder / "out" + "' & p=$!\n" +
                 "until [ -e " + runs + "1e-3-0/last.safetensors ] && [ -e " + runs +
                 "5e-3-0/last.safetensors ] || ! kill -0 $p; do sleep 0.05; done\n"
                 "kill -INT -- -$p; wait $p\n");
  const int status = std::system(("bash '" + folder / "script" + "'").c_str());
  REQUIRE((WIFEXITED(status) && WEXITSTATUS(status) == 130));
  for (const char* job : {"s/job-0.log", "s/job-1.log"}) {
    const std::string said = text_of(folder / job);
    INFO(said);
    CHECK(said.find("continue with --resume") != std::string::npos);
  }
  CHECK(text_of(folder / "out").find("stopped: the same command goes on") != std::string::npos);
}

TEST_CASE("tool: sweep trains each point of a grid once; compare knows what differs", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string how = small_network(folder),
                    command =
                        "sweep --over lr=1e-3,5e-3 --over weight-decay=0,0.1 --epochs 1 "
                        "--seeds 2" +
                        how + " --out " + folder / "s";
  const Result first = run(command + " --part 0/2");  // the grid with the first seed
  INFO(first.err);
  REQUIRE(first.code == 0);
  CHECK(first.out.find("not all trained yet: 1e-3 0, 1e-3 0.1, 5e-3 0, 5e-3 0.1") !=
        std::string::npos);
  const Result whole = run(command + " --jobs 2");
  INFO(whole.err);
  REQUIRE(whole.code == 0);
  CHECK(whole.out.find("8 of 8 trained") != std::string::npos);
  CHECK(whole.out.find("highest mean accuracy") != std::string::npos);
  const auto j = nlohmann::json::parse(text_of(folder / "s/sweep.json"));
  REQUIRE(j["rows"].size() == 4);
  CHECK(j["rows"][2]["lr"] == "5e-3");
  CHECK(j["rows"][1]["weight-decay"] == "0.1");
  CHECK(!j["options"].contains("lr"));
  CHECK(read_file(folder / "s/sweep.png").size() > 1000);
  const std::string point = folder / "s/lr-5e-3-weight-decay-0.1-1";
  const auto told = nlohmann::json::parse(text_of(point + "/train.json"));
  CHECK(told["lr"] == 0.005);
  CHECK(told["weight_decay"] == 0.1);
  CHECK(told["seed"] == 1);
  REQUIRE(run("train --lr 5e-3 --weight-decay 0.1 --seed 1 --epochs 1" + how + " --out " +
              folder / "one")
              .code == 0);
  CHECK(read_file(point + "/last.safetensors") == read_file(folder / "one/last.safetensors"));

  // Two seeds are one row; the other point is another.
  const Result both = run("compare " + point + " " + folder / "s/lr-5e-3-weight-decay-0.1-0" + " " +
                          folder / "s/lr-1e-3-weight-decay-0.1-0" + " --out " + folder / "c.html");
  INFO(both.out << both.err);
  REQUIRE(both.code == 0);
  CHECK(both.out.find("lr-5e-3-weight-decay-0.1-1 and 1 more") != std::string::npos);
  CHECK(both.out.find("| lr ") != std::string::npos);
  CHECK(both.out.find("weight_decay") == std::string::npos);  // the same
  const std::string page = text_of(folder / "c.html");
  CHECK(page.find("3 runs") != std::string::npos);
  CHECK(page.find("2 configurations") != std::string::npos);
  CHECK(
      run("compare " + folder / "s" + " --out " + folder / "d.html").err.find("no run's folder") !=
      std::string::npos);
  CHECK(!std::filesystem::exists(folder / "d.html"));

  for (const auto& [over, message] :
       {std::pair{"lr", "must be OPTION=VALUE,VALUE"}, std::pair{"lr=", "must be OPTION=VALUE"},
        std::pair{"lr=1,1", "1 is there twice"}, std::pair{"rate=1", "has no such option"},
        std::pair{"lr=x", "\"lr\" must be a number"}, std::pair{"epochs=0", "epochs"},
        std::pair{"mask=square", "there is no mask \"square\""},
        std::pair{"batch=8 --over batch=16", "batch is there twice"}}) {
    INFO(over);
    const Result r = run("sweep --out " + folder / "no" + " --over " + over);
    CHECK(r.code != 0);
    CHECK(r.err.find(message) != std::string::npos);
    CHECK(!std::filesystem::exists(folder / "no"));
  }
}

TEST_CASE("tool: lr-find suggests a rate of the range and writes its picture alone", "[tool]") {
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string command = "lr-find --config " + folder / "net.json" +
                              " --images 16 --size 32 --batch 8 --threads 1 --out " +
                              folder / "found.png";
  small_network(folder);
  const Result r = run(command + " --steps 60 --least 1e-5 --most 1e6 --clip 0");
  INFO(r.out << r.err);
  REQUIRE(r.code == 0);
  const std::size_t at = r.out.find("suggestion: --lr ");
  REQUIRE(at != std::string::npos);
  const double rate = std::stod(r.out.substr(at + 17));
  CHECK((rate > 1e-5 && rate < 80));
  CHECK(r.out.find("diverged at") != std::string::npos);
  CHECK(read_file(folder / "found.png").size() > 1000);
  std::size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder / ""))
    ++files;
  CHECK(files == 2);  // net.json, found.png
  CHECK(run(command + " --least 1 --most 0.1").err.find("--least 1 must be less than --most 0.1") !=
        std::string::npos);
}
