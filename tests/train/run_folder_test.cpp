// A run folder: nothing is lost of it at whatever moment the process dies, and two processes do not
// share it.

#include "ppma/train/run_folder.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "crashing.hpp"
#include "ppma/io/safetensors.hpp"
#include "ppma/train/finite.hpp"
#include "ppma/train/log.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;
using crash_test::State;
using crash_test::state_of;
using io_test::Folder;
namespace fs = std::filesystem;

namespace {

constexpr i64 epochs = 4;
const double figures[epochs] = {0.25, 0.75, 0.5, 1};  // the third epoch is no best one

// A run of one tensor, whose values depend on a seed and on how often it was trained.
void train(const std::string& out, RunFolder::Start start, u64 seed, i64 stop = epochs) {
  RunFolder run(out, start);
  Tensor w = Tensor::full({3}, static_cast<double>(seed));
  i64 epoch = 0;
  const RunFolder::Training training{
      [](const RunFolder::Record& r) { return r.at("figure").get<double>(); },
      [&](const std::string& path, const RunFolder::Metadata& more) {
        RunFolder::Metadata all = more;
        all["epoch"] = std::to_string(epoch);
        write_safetensors(path, {{"w", w}}, all);
      },
      [&](const std::string& path, const RunFolder::Record& r) {
        write_safetensors(path, {{"w", w}}, {{"epoch", r.at("epoch").dump()}});
      }};
  if (start == RunFolder::Start::resume) {
    const Safetensors last = read_safetensors(out + "/last.safetensors");
    w = last.tensors.at(0).second;
    epoch = std::stoll(last.metadata.at("epoch"));
    CHECK(run.resume(last.metadata, epoch, training).empty());
  } else {
    run.begin({{"train.json", str("{\"seed\": ", seed, "}")}, {"config.json", "{}"}}, training);
  }
  for (; epoch < stop;) {
    for (i64 i = 0; i < 3; ++i)
      w.data<float>()[i] = w.data<float>()[i] * 3 + static_cast<float>(epoch);
    write_file(run.picture(str("epoch_", epoch + 1, ".png")),
               std::string_view(std::to_string(seed)));
    const RunFolder::Record record{
        {"epoch", epoch}, {"figure", figures[epoch]}, {"seconds", ::getpid()}};
    ++epoch;
    run.save(record);
  }
}

std::string env(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// The command of a run in a process of its own: this program with the hidden case below.
std::string child(const std::string& out, const std::string& start, int seed) {
  return "RUN_FOLDER_OUT='" + out + "' RUN_FOLDER_START=" + start +
         " RUN_FOLDER_SEED=" + std::to_string(seed) + " '" +
         fs::read_symlink("/proc/self/exe").string() +
         "' 'run folder: a run in a process of its own'";
}

// Of the moments to die at, every one; every seventh under sanitizers, where a process starts
// slowly.
const i64 every = sanitized() ? 7 : 1;

}  // namespace

TEST_CASE("run folder: a run in a process of its own", "[.]") {
  if (env("RUN_FOLDER_OUT").empty()) PPMA_SKIP("part of other tests");
  const std::string start = env("RUN_FOLDER_START");
  train(env("RUN_FOLDER_OUT"),
        start == "resume"      ? RunFolder::Start::resume
        : start == "overwrite" ? RunFolder::Start::overwrite
                               : RunFolder::Start::fresh,
        std::stoull(env("RUN_FOLDER_SEED")));
}

TEST_CASE(
    "run folder: killed at every change of a file, a new run is resumed or begun to the same end",
    "[train]") {
  const Folder folder;
  const std::string library = crash_test::crash_library(folder);
  if (library.empty()) PPMA_SKIP("no library that kills can be compiled and loaded here");
  const std::string whole = folder / "whole", out = folder / "out";
  REQUIRE(crash_test::run_with(library, child(whole, "fresh", 1), 0, folder / "count") == 0);
  if (!fs::exists(folder / "count")) PPMA_SKIP("no library is loaded before this program");
  const i64 events = std::stoll(crash_test::text_of(folder / "count"));
  REQUIRE(events > 60);
  const State right = state_of(whole);
  REQUIRE(right.names ==
          "best.safetensors config.json last.safetensors log.csv log.jsonl pictures "
          "pictures/epoch_1.png "
          "pictures/epoch_2.png "
          "pictures/epoch_3.png pictures/epoch_4.png train.json ");
  CHECK(read_safetensors(whole + "/best.safetensors").metadata.at("epoch") == "3");
  i64 resumed = 0;
  for (i64 at = 1; at <= events; at += every) {
    INFO("killed at " << at << " of " << events);
    fs::remove_all(out);
    CHECK(crash_test::run_with(library, child(out, "fresh", 1), at) == 128 + SIGKILL);
    const bool begun = fs::exists(out + "/last.safetensors");
    if (begun) {
      // The process that resumes it dies too, somewhere.
      CHECK(crash_test::run_with(library, child(out, "resume", 1), 1 + at * 7 % 23) != 1);
      CHECK(crash_test::run_with(library, child(out, "resume", 1), 0) == 0);
      ++resumed;
    } else {
      CHECK(crash_test::run_with(library, child(out, "fresh", 1), 0) == 0);
    }
    CHECK((state_of(out) == right));
  }
  CHECK(resumed * every > events / 2);
}

TEST_CASE(
    "run folder: killed at every change of a file, a run in the place of another leaves one of the "
    "two whole",
    "[train]") {
  const Folder folder;
  const std::string library = crash_test::crash_library(folder);
  if (library.empty()) PPMA_SKIP("no library that kills can be compiled and loaded here");
  const std::string old = folder / "old", out = folder / "out", whole = folder / "whole";
  train(old, RunFolder::Start::fresh, 2);
  write_file(old + "/pictures/mine.png", "kept");
  write_file(old + "/curve.png", "old");
  fs::create_directory(old + "/history");
  write_file(old + "/history/epoch_1.png", "old");
  fs::copy(old, whole, fs::copy_options::recursive);
  REQUIRE(crash_test::run_with(library, child(whole, "overwrite", 1), 0, folder / "count") == 0);
  if (!fs::exists(folder / "count")) PPMA_SKIP("no library is loaded before this program");
  const i64 events = std::stoll(crash_test::text_of(folder / "count"));
  const State before = state_of(old), right = state_of(whole);
  CHECK(right.names.find("mine.png") != std::string::npos);
  CHECK(right.names.find("curve.png") == std::string::npos);
  CHECK(!fs::exists(whole + "/history/epoch_1.png"));
  CHECK((right.last != before.last && right.best != before.best));
  i64 olds = 0, news = 0;
  for (i64 at = 1; at <= events; at += every) {
    INFO("killed at " << at << " of " << events);
    fs::remove_all(out);
    fs::copy(old, out, fs::copy_options::recursive);
    CHECK(crash_test::run_with(library, child(out, "overwrite", 1), at) == 128 + SIGKILL);
    CHECK(fs::exists(out + "/last.safetensors"));
    if (at % 2 == 0) crash_test::run_with(library, child(out, "resume", 1), 1 + at * 7 % 23);
    CHECK(crash_test::run_with(library, child(out, "resume", 1), 0) == 0);
    const State now = state_of(out);
    CHECK((now == before || now == right));
    const std::string seed = crash_test::text_of(out + "/train.json");
    CHECK(seed == (now == right ? "{\"seed\": 1}" : "{\"seed\": 2}"));
    ++(now == right ? news : olds);
  }
  CHECK((olds * every > 5 && news * every > 20));
}

TEST_CASE(
    "run folder: an old run stays until the new one is saved; no second process; leftovers go",
    "[train]") {
  const Folder folder;
  const std::string out = folder / "run";
  train(out, RunFolder::Start::fresh, 2, 2);
  const State before = state_of(out);
  CHECK(says([&] { train(out, RunFolder::Start::fresh, 1); }, "already holds a run"));
  CHECK(says([&] { RunFolder(folder / "none", RunFolder::Start::resume); }, "nothing to resume"));
  CHECK(!fs::exists(folder / "none"));
  {
    RunFolder fails(out, RunFolder::Start::overwrite);
    fails.begin({{"train.json", "{}"}},
                {[](const RunFolder::Record&) { return 1.0; },
                 [](const std::string&, const RunFolder::Metadata&) { fail("not finite"); },
                 {}});
    write_file(fails.picture("epoch_1.png"), "new");
    CHECK(says([&] { RunFolder(out, RunFolder::Start::overwrite); }, "trains in this run folder"));
    CHECK(says([&] { RunFolder(out, RunFolder::Start::resume); }, str("number ", ::getpid())));
    CHECK(says([&] { fails.save({{"epoch", 0}}); }, "not finite"));
  }
  CHECK((state_of(out) == before));
  // Without its log it is a run too.
  fs::rename(out + "/log.jsonl", folder / "log");
  CHECK(says([&] { train(out, RunFolder::Start::fresh, 1); }, "already holds a run"));
  fs::rename(folder / "log", out + "/log.jsonl");
  // What dead processes left goes; what is not ours stays.
  for (const char* name : {"/last.safetensors.tmp.1.0", "/curve.png.tmp.1.3",
                           "/pictures/epoch_9.png.tmp.1.1", "/lock", "/notes.tmp.1.0"})
    write_file(out + name, "left");
  fs::create_directory(out + "/.new");
  write_file(out + "/.new/last.safetensors", "left");
  train(out, RunFolder::Start::resume, 2);
  const State after = state_of(out);
  CHECK(after.names.find("notes.tmp.1.0") != std::string::npos);
  fs::remove(out + "/notes.tmp.1.0");
  train(folder / "whole", RunFolder::Start::fresh, 2);
  CHECK((state_of(out) == state_of(folder / "whole")));
  // A new folder in which nothing was saved goes away again.
  {
    RunFolder nothing(folder / "x/y", RunFolder::Start::fresh);
    nothing.begin({}, {});
    CHECK(fs::exists(folder / "x/y/lock"));
  }
  CHECK(!fs::exists(folder / "x/y"));
}

TEST_CASE("run folder: a log that is gone, cut or wrong; a best file that is gone", "[train]") {
  const Folder folder;
  const std::string out = folder / "run", log = out + "/log.jsonl",
                    best = out + "/best.safetensors";
  train(out, RunFolder::Start::fresh, 1, 2);
  const std::string two_lines = crash_test::text_of(log), best_bytes = crash_test::text_of(best);
  const auto open = [&](bool keeps_log = true) {
    RunFolder run(out, RunFolder::Start::resume);
    Safetensors last = read_safetensors(out + "/last.safetensors");
    if (!keeps_log) last.metadata.erase("log");
    const std::vector<std::string> notes =
        run.resume(last.metadata, 2,
                   {[](const RunFolder::Record& r) { return r.at("figure").get<double>(); },
                    {},
                    [&](const std::string& path, const RunFolder::Record& r) {
                      write_safetensors(path, last.tensors, {{"epoch", r.at("epoch").dump()}});
                    }});
    CHECK(run.best() == (run.records().size() == 2 ? 0.75 : 0.25));
    return notes;
  };
  // Half a line at the end, or one line more than `last` knows.
  for (const std::string& more :
       {std::string("{\"epoch\": 2, \"figu"), std::string("{\"epoch\":2,\"figure\":9}\n")}) {
    write_file(log, two_lines + more);
    CHECK(open().empty());
    CHECK(crash_test::text_of(log) == two_lines);
  }
  const std::string csv = crash_test::text_of(out + "/log.csv");
  CHECK(csv.starts_with("epoch,figure,seconds\n0,0.25,"));
  CHECK(std::count(csv.begin(), csv.end(), '\n') == 3);
  write_file(out + "/log.csv", csv + "9");
  CHECK(open().empty());
  CHECK(crash_test::text_of(out + "/log.csv") == csv);
  fs::remove(log), fs::remove(best), fs::remove(out + "/log.csv");
  CHECK(open().empty());
  CHECK((state_of(out).log.find("without its seconds") == 0));
  CHECK(read_log(log).size() == 2);
  CHECK(crash_test::text_of(best) == best_bytes);
  write_file(best, "damaged");
  CHECK(open().empty());
  CHECK(crash_test::text_of(best) == best_bytes);
  write_file(log, std::string_view("nonsense\n{\"epoch\":1}\n"));
  CHECK(says([&] { open(); }, "log.jsonl: line 1 is not JSON; remove the line"));
  // A run that began before `last` held the log.
  write_file(log, std::string_view(two_lines).substr(0, two_lines.find('\n') + 1));
  const std::vector<std::string> notes = open(false);
  REQUIRE(notes.size() >= 1);
  CHECK(notes[0].find("has 1 lines for 2 epochs") != std::string::npos);
}

TEST_CASE("a log as a table: lists have columns, what a record lacks is empty", "[train]") {
  using Record = RunFolder::Record;
  CHECK(log_as_csv({}).empty());
  CHECK(log_as_csv({Record{{"epoch", 0}, {"seconds", 1.5}},
                    Record{{"epoch", 1},
                           {"IoU", std::vector<Record>{0.25, nullptr, std::nan("")}},
                           {"note", "a, \"b\""},
                           {"seconds", 2}}}) ==
        "epoch,IoU[0],IoU[1],IoU[2],note,seconds\n"
        "0,,,,,1.5\n"
        "1,0.25,,,\"a, \"\"b\"\"\",2\n");
}

TEST_CASE("what is not finite is found in every dtype, by its name", "[train]") {
  for (const double wrong :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity()})
    for (const DType dtype : {DType::f32, DType::f64, DType::bf16}) {
      Tensor t = Tensor::zeros({5}, dtype);
      CHECK(all_finite(t));
      CHECK(all_finite(Tensor::full({3}, 3e38, dtype)));
      Tensor bad = Tensor::full({5}, wrong, dtype);
      CHECK(!all_finite(bad));
      CHECK(says(
          [&] {
            require_finite(TensorMap{{"a", t}, {"b.c", bad}}, "here");
          },
          "here: b.c holds values that are NaN or infinite"));
    }
  CHECK(all_finite(Tensor::full({2}, 1e18, DType::int64)));
}
