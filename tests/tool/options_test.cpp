// Options with values that mean nothing: every option of every subcommand, as --help lists them.

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "catch.hpp"
#include "io/help.hpp"
#include "tool/help.hpp"

using namespace ppma;
using namespace tool_test;
using io_test::Folder;

namespace {

// A line of --help: "  --lr FLOAT:[0 to 1000000]=0.002   text".
struct Option {
  std::string name, type;
  std::vector<double> also;    // values beside the range
  double least = 0, most = 0;  // of a number
  bool is_number() const {
    return type.starts_with("INT") || type.starts_with("UINT") || type.starts_with("FLOAT");
  }
  bool takes(double value) const {
    if (type[0] != 'F' && value != std::floor(value)) return false;
    for (const double other : also)
      if (value == other) return true;
    return value >= least && value <= most;
  }
};

std::vector<Option> options_in(const std::string& help) {
  std::vector<Option> all;
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    Option o;
    words >> o.name >> o.type;
    if (!line.starts_with("  ") || line[2] == ' ' || o.name.starts_with("-h") || o.type.empty())
      continue;
    const bool positional = o.name[0] != '-';
    if (positional && o.name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ") != std::string::npos)
      continue;
    if (!o.is_number() && !o.type.starts_with("TEXT")) continue;  // a flag, and its text
    if (o.is_number()) {
      const std::size_t begin = line.find(":["), end = line.find(']', begin);
      INFO(line);
      REQUIRE(begin != std::string::npos);  // each number states its range
      std::string range = line.substr(begin + 2, end - begin - 2);
      for (std::size_t at; (at = range.find(", or ")) != std::string::npos; range.erase(0, at + 5))
        o.also.push_back(std::stod(range));
      const std::size_t to = range.find(" to ");
      REQUIRE(to != std::string::npos);
      o.least = std::stod(range), o.most = std::stod(range.substr(to + 4));
      CHECK(o.least < o.most);
    }
    all.push_back(o);
  }
  return all;
}

// In an empty folder, which is empty again afterwards.
class Empty {
 public:
  Empty() : before_(std::filesystem::current_path()) {
    std::filesystem::current_path(folder_ / "");
  }
  ~Empty() { std::filesystem::current_path(before_); }
  bool still() const { return std::filesystem::is_empty(folder_ / ""); }
  Empty(const Empty&) = delete;
  Empty& operator=(const Empty&) = delete;

 private:
  Folder folder_;
  std::filesystem::path before_;
};

// One line that says what is wrong, at once, and nothing is written.
void check_refused(const std::string& arguments, const std::string& message, const Empty& empty) {
  INFO(arguments);
  const auto begin = std::chrono::steady_clock::now();
  const Result r = run(arguments);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  INFO(r.err);
  CHECK((r.code == 1 || r.code == 2));
  CHECK(r.out.empty());
  CHECK(r.err.starts_with("ppma: "));
  CHECK(std::count(r.err.begin(), r.err.end(), '\n') == 1);
  CHECK(r.err.size() < 2200);
  CHECK(r.err.find(message) != std::string::npos);
  CHECK(seconds < 5);
  CHECK(empty.still());
}

}  // namespace

TEST_CASE("tool: a misspelt option or command is answered with the one that is near", "[tool]") {
  NEEDS_TOOL();
  const Empty empty;
  for (const auto& [line, meant] : {std::pair{"train --epoch 3", "did you mean --epochs? "},
                                    std::pair{"trian", "did you mean train? "},
                                    std::pair{"eval --wieghts x", "did you mean --weights? "}}) {
    const Result r = run(line);
    INFO(r.err);
    CHECK(r.code == 2);
    CHECK(r.err.find(meant) != std::string::npos);
  }
  CHECK(run("train --zzzzzzzz").err.find("did you mean") == std::string::npos);
}

TEST_CASE("tool: every option of every subcommand refuses values that mean nothing", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  write_file(folder / "a.pth", std::string_view("there"));
  const Empty empty;
  const bool full = std::getenv("PPMA_TEST_FULL") != nullptr;
  i64 numbers = 0, texts = 0;
  for (const std::string& command : commands()) {
    const Result all = run(command + " --help-all"), usual = run(command + " --help");
    const std::vector<Option> options = options_in((all.code == 0 ? all : usual).out);
    CHECK(usual.code == 0);
    CHECK(!options.empty());
    for (const Option& o : options) {
      std::vector<std::string> wrong{"", "\xff\xfe"};  // as a shell gets them
      if (o.is_number()) {
        ++numbers;
        // What is no number is one function's to refuse; each of these meets some dozens of options.
        static const char* const no_numbers[] = {"nan", "x", "inf", "1x", "-inf", "1e999"};
        for (i64 n = 0; n < 6; ++n)
          if (full || n == numbers % 6 || (n == 0 && o.type[0] == 'F'))
            wrong.push_back(no_numbers[n]);
        for (const char* value : {"-1", "0", "0.5", "2147483648", "1e30", "18446744073709551616"})
          if (!o.takes(std::stod(value))) wrong.push_back(value);
      } else {
        ++texts;
        // Names that are chosen from a list or must be there; any other text may name a new file.
        const bool is_chosen = o.type.find_first_of(":") != std::string::npos ||
                               o.name == "--model" || o.name == "--mask" || o.name == "--mixer";
        if (is_chosen) wrong.insert(wrong.end(), {"-1", "0", "nan", "1e30"});
      }
      if (o.name == "IMAGE") continue;  // one that cannot be read does not stop the others
      for (const std::string& value : wrong) {
        const std::string before = o.name == "OUT" ? " '" + (folder / "a.pth") + "'" : "";
        const std::string name = o.name[0] == '-' ? " " + o.name : "";
        const std::string second = o.name == "--query" ? " 0.5" : "";
        check_refused(command + before + name + " '" + value + "'" + second, o.name, empty);
      }
    }
  }
  CHECK(numbers > 50);
  CHECK(texts > 70);
}

TEST_CASE("tool: what no machine has the memory for is refused by its option, before it begins",
          "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const auto config = [&](const char* name, const char* text) {
    write_file(folder / name, std::string_view(text));
    return " --config '" + (folder / name) + "'";
  };
  const std::string deep = config("deep.json",
                                  R"({"model": "ppma_nano", "depths": [1000000, 1, 1, 1]})"),
                    wide = config(
                        "wide.json",
                        R"({"embed_dims": [16384, 16384, 16384, 16384], "num_heads": [2, 2, 2, 2],
                                  "depths": [1000, 1000, 1000, 1000]})"),
                    wider = config("wider.json", R"({"projection": 9000000000000000000})"),
                    widest = config("widest.json", R"({"projection": 18446744073709551615})");
  const Empty empty;
  for (const std::string command : {"summary", "bench", "train", "visualize"}) {
    check_refused(command + deep, "deep.json: config: depths[0]", empty);
    check_refused(command + wide, "--config or --model", empty);
    check_refused(command + wider, "wider.json: config: projection", empty);
    check_refused(command + widest, "widest.json: config: \"projection\" is too large", empty);
  }
  for (const std::string task : {"segment", "detect"})
    check_refused("bench --task " + task + " --size 16384 --batch 65536", "--batch or --size",
                  empty);
  // Heads, on a small backbone: their weights, and what an image needs of them.
  write_file(folder / "heads.json", std::string_view(R"({"channels": 65536})"));
  for (const auto& [task, option] : {std::pair{"segment", "--segmentor"}, {"detect", "--detector"}})
    for (const std::string command : {"bench", "train --images 2 --test-images 1"})
      check_refused(command + " --model ppma_nano --task " + task + " " + option + " '" +
                        (folder / "heads.json") + "'",
                    std::string("choose a smaller one with --config, --model or ") + option, empty);
  check_refused(
      "train --task segment --size 64 --crop 8192 --batch 65536 --images 65536 --test-images 1",
      "--batch or --crop", empty);
  check_refused(
      "train --task segment --freeze-backbone --size 64 --crop 8192 --batch 65536 --images 65536 "
      "--test-images 1",
      "--batch or --crop", empty);
  check_refused("train --task detect --size 1024 --batch 65536 --images 65536 --test-images 1",
                "--batch, --size or --shorter", empty);
  check_refused("bench --size 16384 --batch 65536", "--batch or --size", empty);
  check_refused("bench --size 16384 --batch 65536 --train", "--batch or --size", empty);
  check_refused("summary --size 16384 --batch 65536", "--batch or --size", empty);
  check_refused("train --batch 65536 --images 100000 --test-images 1 --size 8192",
                "--batch or --size", empty);
  check_refused("train --test-images 1000000 --size 8192", "--test-images or --size", empty);
  check_refused("visualize --samples 1000000000", "--samples", empty);
}

TEST_CASE("tool: options that would do nothing are refused", "[tool]") {
  NEEDS_TOOL();
  const Folder folder;
  const std::string images = " --data-dir '" + (folder / "") + "'";
  write_file(folder / "a.png", std::string_view("there"));
  const Empty empty;
  check_refused("train" + images, "--data-dir is for --data folder", empty);
  check_refused("train --data cifar10 --images 5" + images, "--images is for --data shapes", empty);
  check_refused("train --data folder --test-images 5" + images,
                "--test-images is for --data shapes", empty);
  check_refused("bench --entry ema", "--entry requires --weights", empty);
  check_refused("visualize --samples 2 --image '" + (folder / "a.png") + "'", " excludes --",
                empty);
}
