// Run folders as the tool keeps them: killed runs of all tasks, mistakes, training that diverges,
// two processes, moved images; and output that cannot be written.

#include "ppma/train/run_folder.hpp"

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "free_port.hpp"
#include "help.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/image.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/train/finite.hpp"
#include "train/crashing.hpp"

namespace run_folder_test {

using namespace ppma;
using io_test::Folder;
using tool_test::Result;
using tool_test::run;
using tool_test::tool;
namespace fs = std::filesystem;

// The smallest run of a task.
std::string small_run(const std::string& task, i64 batch = 4) {
  return "train --task " + task + (task == "detect" ? " --size 64 --boxes-only" : " --size 32") +
         (task == "classify" ? " --warmup 1 --ema 0.5"
                             : " --evaluate-every 1 --warmup-iterations 1 --lr 3e-3") +
         str(" --images 4 --test-images 2 --batch ", batch, " --threads 1");
}

// Two processes with a launcher's variables, rank 0 and 1. What the shell does while they run knows
// them as $p0 and $p1.
std::array<Result, 2> run_two(const std::string& arguments, const std::string& meanwhile = "") {
  const Folder folder;
  const std::string group =
      str("MASTER_ADDR=127.0.0.1 MASTER_PORT=", free_port(), " WORLD_SIZE=2 OMP_NUM_THREADS=1 ");
  std::string command;
  for (const i64 rank : {0, 1}) {
    const std::string to = folder / str(rank);
    command += str(group, "RANK=", rank, " '", tool(), "' ", arguments, " > '", to, ".out' 2> '",
                   to, ".err' < /dev/null & p", rank, "=$!; ");
  }
  command += meanwhile;
  for (const i64 rank : {0, 1})
    command += str("wait $p", rank, "; echo $? > '", folder / str(rank), ".code'; ");
  CHECK(std::system(command.c_str()) == 0);
  std::array<Result, 2> both;
  for (std::size_t rank = 0; rank < 2; ++rank) {
    const std::string from = folder / str(rank);
    both[rank] = {std::stoi(tool_test::text_of(from + ".code")), tool_test::text_of(from + ".out"),
                  tool_test::text_of(from + ".err")};
  }
  return both;
}

using Json = nlohmann::ordered_json;
std::vector<Json> records_of(const std::string& run_folder) {
  std::vector<Json> all;
  std::istringstream lines(tool_test::text_of(run_folder + "/log.jsonl"));
  for (std::string line; std::getline(lines, line);) all.push_back(Json::parse(line));
  return all;
}

bool mentions(const Result& r, const std::string& text) {
  UNSCOPED_INFO(r.err);
  return r.err.find(text) != std::string::npos;
}

}  // namespace run_folder_test

TEST_CASE("tool: two processes share the training step that bench times", "[tool]") {
  using namespace run_folder_test;
  const std::string step =
      " --model ppma_nano --size 32 --batch 2 --threads 1 --repeat 2 --warmup 1 --json";
  for (const std::string task : {"classify", "segment"}) {
    INFO(task);
    const auto [first, second] = run_two("bench --train --task " + task + step);
    INFO(first.err);
    REQUIRE(first.code == 0);
    const Json told = Json::parse(first.out);
    CHECK(told.at("processes") == 2);
    CHECK(std::abs(told.at("images_per_s").get<double>() * told.at("ms").get<double>() - 4000) <
          40);  // printed with so many digits
    CHECK(second.code == 0);
    CHECK(second.out.empty());
    // what is refused is refused without waiting for the others, who may never come
    const Result alone =
        run("bench --task " + task + step, str("RANK=0 WORLD_SIZE=2 MASTER_PORT=", free_port()));
    CHECK(alone.code == 1);
    CHECK(mentions(alone, "several processes share a training step"));
  }
  for (const Result& r : run_two("bench --task detect" + step))
    CHECK(mentions(r, "bench --task detect: runs in one process"));
}

TEST_CASE("tool: a run that is killed anywhere while it is saved is resumed to the same end",
          "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string library = crash_test::crash_library(folder);
  if (library.empty()) PPMA_SKIP("no library that kills can be compiled and loaded here");
  for (const std::string task : {"classify", "segment", "detect"}) {
    // Two batches an epoch, saved after the first as well; `whole` is saved after epochs alone.
    const std::string whole = folder / task, out = folder / "out",
                      same = small_run(task, 2) + " --epochs 2 --save-every-minutes ",
                      begin = "'" + tool() + "' " + same + "1e-9 --out ";
    REQUIRE(run(same + "0 --out " + whole).code == 0);
    fs::remove_all(out);
    REQUIRE(crash_test::run_with(library, begin + out, 0, folder / "count") == 0);
    if (!fs::exists(folder / "count")) PPMA_SKIP("no library is loaded before the tool");
    const i64 events = std::stoll(crash_test::text_of(folder / "count"));
    const crash_test::State right = crash_test::state_of(whole);
    CHECK(crash_test::state_of(out) == right);
    i64 resumed = 0;
    // The folder's own test (tests/train) tries every one.
    const bool full = std::getenv("PPMA_TEST_FULL") != nullptr;
    const i64 points = task == "classify" ? (full ? 5 : 3) : (full ? 3 : 2);
    for (i64 k = 1; k <= points; ++k) {
      const i64 at = events * k / (points + 1) + 1;
      INFO(task << " killed at " << at << " of " << events);
      fs::remove_all(out);
      CHECK(crash_test::run_with(library, begin + out, at) == 128 + SIGKILL);
      const bool begun = fs::exists(out + "/last.safetensors");
      const Result r =
          begun ? run("train --threads 1 --resume " + out) : run(same + "0 --out " + out);
      INFO(r.err);
      CHECK(r.code == 0);
      const crash_test::State now = crash_test::state_of(out);
      CHECK(now.log == right.log);
      CHECK(now.names == right.names);
      CHECK((now.last == right.last && now.best == right.best));
      resumed += begun;
    }
    CHECK(resumed >= points / 2);
  }
}

TEST_CASE("tool: a signal, the clock and patience end a run where it can go on", "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  for (const std::string task : {"classify", "segment", "detect"}) {
    INFO(task);
    const std::string out = folder / task, train = small_run(task, 2) + " --epochs ";
    for (const auto& [name, code] : {std::pair{"INT", 130}, std::pair{"TERM", 143}}) {
      // As soon as something is saved: the tool is in the middle of its training.
      fs::remove_all(out);
      const std::string log = folder / "log",
                        command =
                            "'" + tool() + "' " + train +
                            "100000 --save-every-minutes 1e-9 --out '" + out + "' > '" + log +
                            "' 2>&1 & pid=$!; until test -e '" + out +
                            "/last.safetensors' || ! kill -0 $pid; do sleep 0.05; done; kill -" +
                            name + " $pid; wait $pid";
      CHECK(WEXITSTATUS(std::system(command.c_str())) == code);
      const std::string said = tool_test::text_of(log);
      INFO(said);
      CHECK(said.find("continue with --resume " + out) != std::string::npos);
    }
    const i64 done = fs::exists(out + "/log.jsonl") ? static_cast<i64>(records_of(out).size()) : 0;
    const Result on = run("train --threads 1 --stop-after " + str(done + 1) + " --resume " + out);
    INFO(on.err);
    CHECK(on.code == 0);
    CHECK(records_of(out).size() == static_cast<std::size_t>(done + 1));

    const Result timed = run(train + "100000 --time-limit 0.01s --overwrite --out " + out);
    CHECK(timed.code == 0);
    CHECK(timed.out.find("; continue with --resume " + out) != std::string::npos);
    const Result patient =
        run(train + "100000 --patience 2 --time-limit 60s --overwrite --out " + out);
    CHECK(patient.code == 0);
    CHECK(patient.out.find("none of the last 2 evaluations was the best") != std::string::npos);
    const auto left = records_of(out).size();
    CHECK(run("train --threads 1 --resume " + out).code == 0);
    CHECK(records_of(out).size() == left);
  }
  CHECK(mentions(run("train --time-limit 3x --out " + folder / "x"),
                 "--time-limit 3x: must be a time such as 90s, 20m or 1.5h"));
}

TEST_CASE("tool: a run's options repeat it bit for bit, and others count more", "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  for (const std::string task : {"classify", "segment", "detect"}) {
    INFO(task);
    const std::string a = folder / task, b = a + "-again", c = a + "-longer",
                      own = task == "classify"  ? " --mixup 0.3 --lr 1e-3 --mask rmt"
                            : task == "segment" ? " --head semantic_fpn --most-factor 1.5"
                                                : " --multi-scale";
    REQUIRE(run(small_run(task, 2) + own + " --epochs 2 --seed 3 --out " + a).code == 0);
    const std::string again = "train --threads 1 --config " + a + "/train.json --out ";
    const Result r = run(again + b);
    INFO(r.err);
    REQUIRE(r.code == 0);
    const auto left = crash_test::state_of(a), right = crash_test::state_of(b);
    CHECK((left.last == right.last && left.best == right.best && left.log == right.log));
    CHECK(tool_test::text_of(a + "/train.json") == tool_test::text_of(b + "/train.json"));
    REQUIRE(run(again + c + " --epochs 3").code == 0);
    CHECK(records_of(c).size() == 3);
    Json told = Json::parse(tool_test::text_of(c + "/train.json"));
    CHECK(told["seed"] == 3);
    told["mixupp"] = 1;
    write_file(folder / "wrong.json", told.dump());
    CHECK(mentions(run("train --config " + folder / "wrong.json" + " --out " + folder / "x"),
                   "mixupp"));
    CHECK(mentions(run(again + b + " --task " + (task == "detect" ? "segment" : "detect")),
                   "its task is " + task));
    CHECK(mentions(run(again + b), "already holds a run"));
  }
}

TEST_CASE("tool: an old run outlives a mistake in a new one, and training that diverges",
          "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  fs::create_directories(folder / "empty/train");
  for (const std::string task : {"classify", "segment", "detect"}) {
    const std::string out = folder / task, begin = small_run(task) + " --out '" + out + "'";
    REQUIRE(run(begin + " --epochs 1").code == 0);
    const crash_test::State before = crash_test::state_of(out);
    const auto unchanged = [&] { return crash_test::state_of(out) == before; };
    for (const std::string mistake : {"--batch 0", "--clip=-1"}) {
      INFO(task << " " << mistake);
      CHECK(run(begin + " --overwrite " + mistake).code != 0);
      CHECK(unchanged());
    }
    // Without its log it is still a run.
    fs::rename(out + "/log.jsonl", folder / "log");
    CHECK(run(begin + " --batch 0").code != 0);
    CHECK(mentions(run(begin), "already holds a run"));
    fs::rename(folder / "log", out + "/log.jsonl");
    CHECK(unchanged());
    CHECK(run("train --overwrite --task " + task + " --data folder --data-dir '" +
              folder / "empty" + "' --out '" + out + "'")
              .code != 0);
    CHECK(unchanged());

    const std::string diverges = task == "classify"
                                     ? " --lr 1e6 --warmup 0 --clip 0 --epochs 3"
                                     : " --lr 1e6 --warmup-iterations 0 --clip 0 --epochs 3";
    std::string train = small_run(task);
    for (const std::string option : {" --warmup 1", " --warmup-iterations 1", " --lr 3e-3"})
      if (const std::size_t place = train.find(option); place != std::string::npos)
        train.erase(place, option.size());
    for (const std::string& where :
         {" --overwrite --out '" + out + "'", " --out '" + folder / "new" + "'"}) {
      INFO(task << where);
      const Result r = run(train + diverges + where);
      CHECK(r.code == 1);
      CHECK(mentions(r, "lower the learning rate"));
      for (const char* file : {"/last.safetensors", "/best.safetensors"})
        if (fs::exists(folder / "new" + file))
          for (const auto& [name, tensor] : read_safetensors(folder / "new" + file).tensors)
            CHECK(all_finite(tensor));
    }
    fs::remove_all(folder / "new");
    // Later epochs of the run may have been saved: what is there is whole.
    for (const auto& [name, tensor] : read_safetensors(out + "/last.safetensors").tensors)
      CHECK(all_finite(tensor));
  }
}

TEST_CASE("tool: a disk that is full within an epoch, and a folder that vanishes", "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run", last = out + "/last.safetensors",
                    begin = small_run("classify", 2) + " --epochs 2 --out '";
  REQUIRE(run(begin + folder / "whole'").code == 0);
  REQUIRE(run(begin + out + "' --stop-after 1").code == 0);
  const std::string kept = tool_test::text_of(last);
  // A limit on the size of files is a disk that has no more room than that.
  const auto outcome = [&](const std::string& before, const std::string& arguments) {
    const std::string err = folder / "err";
    const int status = std::system(("bash -c \"" + before + "exec timeout 100 '" + tool() + "' " +
                                    arguments + "\" > /dev/null 2> '" + err + "' < /dev/null")
                                       .c_str());
    return Result{WEXITSTATUS(status), "", tool_test::text_of(err)};
  };
  const Result full = outcome("trap '' XFSZ; ulimit -f 500; ",
                              "train --threads 1 --save-every-minutes 1e-9 --resume '" + out + "'");
  INFO(full.err);
  CHECK(full.code == 1);
  CHECK(mentions(full, "last.safetensors: cannot be written ("));
  CHECK(tool_test::text_of(last) == kept);
  for (const auto& entry : fs::directory_iterator(out))
    CHECK(entry.path().filename().string().find(".tmp") == std::string::npos);
  CHECK(run("train --threads 1 --resume '" + out + "'").code == 0);
  CHECK(crash_test::state_of(out) == crash_test::state_of(folder / "whole"));

  const Result gone = outcome(
      "(until test -e '" + out + "2/last.safetensors'; do sleep 0.05; done; mv '" + out + "2' '" +
          out + "3') & ",
      small_run("classify", 2) + " --epochs 100000 --save-every-minutes 1e-9 --out '" + out + "2'");
  INFO(gone.err);
  CHECK(gone.code == 1);
  CHECK(mentions(gone, "run2/"));
}

TEST_CASE("tool: a second process in a run folder is refused", "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL();
  const Folder folder;
  const std::string out = folder / "run";
  REQUIRE(run(small_run("classify") + " --epochs 2 --stop-after 1 --out '" + out + "'").code == 0);
  {
    const RunFolder held(out, RunFolder::Start::resume);
    for (const std::string& second : {"train --resume '" + out + "'",
                                      small_run("classify") + " --overwrite --out '" + out + "'"}) {
      const Result r = run(second);
      CHECK(r.code == 1);
      CHECK(mentions(
          r, str(out, ": another process (number ", ::getpid(), ") trains in this run folder")));
    }
  }
  write_file(out + "/lock", "1");  // as a dead process leaves it
  CHECK(run("train --resume '" + out + "'").code == 0);
  CHECK(!fs::exists(out + "/lock"));
}

TEST_CASE(
    "tool: the processes of one run share its folder, those of a second run are all refused at "
    "once",
    "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run",
                    begin = small_run("classify") + " --epochs 3 --out '" + out + "'",
                    resume = "train --resume '" + out + "'";
  for (const std::string& arguments : {begin + " --stop-after 1", resume + " --stop-after 2"})
    for (const Result& r : run_two(arguments)) {
      INFO(arguments << ": " << r.err);
      CHECK(r.code == 0);
    }
  CHECK(!fs::exists(out + "/lock"));
  const auto all_refused = [&](const std::string& arguments, const std::string& why) {
    INFO(arguments);
    const auto start = std::chrono::steady_clock::now();
    for (const Result& r : run_two(arguments)) {
      CHECK(r.code == 1);
      CHECK(mentions(r, why));
    }
    // nobody waits for one that is gone
    CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(30));
  };
  all_refused(begin, "already holds a run");
  {
    const RunFolder held(out, RunFolder::Start::resume);
    const std::string taken =
        str(out, ": another process (number ", ::getpid(), ") trains in this run folder");
    all_refused(resume, taken);
    all_refused(begin + " --overwrite", taken);
  }
  for (const Result& r : run_two(resume)) CHECK(r.code == 0);
  i64 epochs = 0;
  for (const char c : tool_test::text_of(out + "/log.jsonl")) epochs += c == '\n';
  CHECK(epochs == 3);
}

TEST_CASE("tool: a signal to one process of a run or to all ends them alike, and once in words",
          "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  const std::string out = folder / "run", last = out + "/last.safetensors",
                    begin = small_run("classify", 2) +
                            " --epochs 100000 --save-every-minutes 1e-9 --overwrite --out '" + out +
                            "'",
                    on = "continue with --resume " + out;
  for (const auto& [signal, to, code] :
       {std::tuple{"INT", "$p0 $p1", 130}, std::tuple{"TERM", "$p1", 143}}) {
    INFO(signal << " to " << to);
    fs::remove_all(out);
    std::string said;
    for (const Result& r : run_two(begin, "until test -e '" + last +
                                              "' || ! kill -0 $p0; do sleep 0.05; done; kill -" +
                                              signal + " " + to + "; ")) {
      INFO(r.err);
      CHECK(r.code == code);
      said += r.out + r.err;
    }
    const auto at = said.find(on);
    REQUIRE(at != said.npos);
    CHECK(said.find(on, at + 1) == said.npos);
  }
  CHECK(!fs::exists(out + "/lock"));
  const i64 done = fs::exists(out + "/log.jsonl") ? static_cast<i64>(records_of(out).size()) : 0;
  for (const Result& r :
       run_two(str("train --threads 1 --stop-after ", done + 1, " --resume '", out, "'"))) {
    INFO(r.err);
    CHECK(r.code == 0);
  }
  CHECK(static_cast<i64>(records_of(out).size()) == done + 1);
}

TEST_CASE("tool: two processes learn to segment and to detect, with averages, and go on",
          "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  for (const std::string task : {"segment", "detect"}) {
    INFO(task);
    std::string options = small_run(task) + " --dtype f64 --epochs 2 --accumulate 1 --ema 0.5";
    if (const auto at = options.find(" --boxes-only"); at != options.npos) options.erase(at, 13);
    const std::string begin = options + " --out '", one = folder / (task + "1"),
                      two = folder / (task + "2");
    REQUIRE(run(begin + one + "'").code == 0);
    for (const std::string& arguments :
         {begin + two + "' --stop-after 1", "train --threads 1 --resume '" + two + "'"})
      for (const Result& r : run_two(arguments)) {
        INFO(r.err);
        CHECK(r.code == 0);
      }
    const std::vector<Json> alone = records_of(one), together = records_of(two);
    REQUIRE((alone.size() == 2 && together.size() == 2));
    for (std::size_t e = 0; e < 2; ++e) {
      for (const auto& [key, value] : alone[e].items())
        if (key.find("loss") != key.npos) {
          INFO(key << " of epoch " << e);
          // In f32 too of the first step; later roundings decide which boxes are kept.
          CHECK(together[e].at(key) == Approx(double(value)).epsilon(1e-9));
        }
      CHECK(together[e].contains(task == "segment" ? "ema_aAcc" : "ema_segm_mAP"));
    }
    CHECK(fs::exists(two + "/pictures/epoch_2_averaged.png"));
  }
}

TEST_CASE("tool: --resume takes images that have been moved, and no others", "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL_AND_PNG();
  const Folder folder;
  for (const char* part : {"train", "val"})
    for (const i64 label : {0, 1})
      for (const char* name : {"/a.png", "/b.png"}) {
        fs::create_directories(folder / "c/" + part + "/" + std::to_string(label));
        write_png(folder / "c/" + part + "/" + std::to_string(label) + name,
                  draw_shapes({.height = 40, .width = 40}, label).image);
        for (const char* kind : {"s/img_dir/", "s/ann_dir/"})
          fs::create_directories(folder / kind + part);
        write_png(folder / "s/img_dir/" + part + name,
                  draw_shapes({.height = 40, .width = 40}, label).image);
        write_png(folder / "s/ann_dir/" + part + name, Tensor::full({40, 40, 1}, 1, DType::uint8));
      }
  write_file(folder / "s/classes.txt", std::string_view("a\nb\n"));
  for (const std::string task :
       {"classify --warmup 1 --size 32", "segment --crop 32 --evaluate-every 1"}) {
    INFO(task);
    const std::string place = folder / (task[0] == 'c' ? "c" : "s"), moved = place + "-moved",
                      out = folder / "run";
    const std::string begin = "train --task " + task + " --threads 1 --data folder --data-dir '" +
                              place + "' --batch 2 --epochs 2 --overwrite --out '";
    REQUIRE(run(begin + folder / "whole'").code == 0);
    REQUIRE(run(begin + out + "' --stop-after 1").code == 0);
    fs::rename(place, moved);
    const Result gone = run("train --resume '" + out + "'");
    CHECK(gone.code == 1);
    CHECK(mentions(gone, "say where they are with --data-dir"));
    const std::string one_more =
                          moved + (task[0] == 'c' ? "/train/0/c.png" : "/img_dir/train/c.png"),
                      labels = moved + "/ann_dir/train/c.png";
    fs::copy(fs::path(one_more).replace_filename("a.png"), one_more);
    if (task[0] == 's') fs::copy(moved + "/ann_dir/train/a.png", labels);
    CHECK(mentions(run("train --resume '" + out + "' --data-dir '" + moved + "'"),
                   "but there are now "));
    fs::remove(one_more), fs::remove(labels);
    REQUIRE(run("train --resume '" + out + "' --data-dir '" + moved + "' --stop-after 1").code ==
            0);
    REQUIRE(run("train --resume '" + out + "'").code == 0);  // it is known now
    const TensorMap a = read_safetensors(folder / "whole/last.safetensors").tensors,
                    b = read_safetensors(out + "/last.safetensors").tensors;
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); ++i)
      CHECK((a[i].first == b[i].first && io_test::same_elements(a[i].second, b[i].second)));
    fs::remove_all(out);
  }
  REQUIRE(
      run(small_run("classify") + " --epochs 2 --stop-after 1 --out '" + folder / "shapes" + "'")
          .code == 0);
  CHECK(mentions(
      run("train --resume '" + folder / "shapes" + "' --data-dir '" + folder / "c-moved" + "'"),
      "leave it out"));
}

TEST_CASE("tool: output that cannot be written is an error", "[tool]") {
  using namespace run_folder_test;
  NEEDS_TOOL();
  if (!fs::is_character_file("/dev/full")) PPMA_SKIP("no /dev/full");
  const Folder folder;
  for (const std::string command :
       {"summary", "summary --json", "--help", "train --help", "--version"}) {
    INFO(command);
    const int status = std::system(
        ("'" + tool() + "' " + command + " > /dev/full 2> '" + folder / "err" + "'").c_str());
    CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 1));
    CHECK(tool_test::text_of(folder / "err").find("the output could not be written") !=
          std::string::npos);
    CHECK(run(command).code == 0);
  }
}
