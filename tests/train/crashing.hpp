#pragma once
// Programs that are killed at their N-th change of a file: tests/tool/crash.c, compiled and loaded
// before them.

#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "io/help.hpp"
#include "nlohmann/json.hpp"
#include "ppma/train/csv.hpp"

namespace crash_test {

using namespace ppma;
namespace fs = std::filesystem;

inline std::string text_of(const std::string& path) {
  if (!fs::exists(path)) return "";
  const std::vector<u8> bytes = read_file(path);
  return {bytes.begin(), bytes.end()};
}

/// Compiles the library into a folder; its path, or "" where that is impossible here.
inline std::string crash_library(const io_test::Folder& folder) {
#if defined(__linux__)
  const std::string library = folder / "crash.so",
                    source = PPMA_TEST_SOURCE_DIR "/tests/tool/crash.c";
  const std::string command =
      "cc -shared -fPIC -O1 -o '" + library + "' '" + source + "' -ldl > /dev/null 2>&1";
  if (std::system(command.c_str()) == 0) return library;
#endif
  return "";
}

/// Runs a command with the library; `at` 0: to its end. Its exit status, 128 + 9 where it was
/// killed.
/// A program with a sanitizer otherwise insists on being loaded before the library.
inline int run_with(const std::string& library, const std::string& command, i64 at,
                    const std::string& count = "/dev/null") {
  const std::string all = "ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD='" + library +
                          "' CRASH_AT=" + std::to_string(at) + " CRASH_COUNT='" + count + "' " +
                          command;
  const int status = std::system(("sh -c '" +
                                  [&] {
                                    std::string quoted;
                                    for (const char c : all)
                                      quoted +=
                                          c == '\'' ? std::string("'\\''") : std::string(1, c);
                                    return quoted;
                                  }() +
                                  "' > /dev/null 2>&1")
                                     .c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// What is in a run folder: `last` and `best` byte for byte, the log without the time that it took
/// and whether log.csv is another, and every name.
struct State {
  std::string last, best, log, names;
  bool operator==(const State&) const = default;
};
inline State state_of(const std::string& folder) {
  State s{text_of(folder + "/last.safetensors"), text_of(folder + "/best.safetensors"), "", ""};
  const std::string log = text_of(folder + "/log.jsonl");
  std::vector<nlohmann::ordered_json> records;
  for (std::size_t begin = 0; begin < log.size();) {
    const std::size_t end = log.find('\n', begin);
    auto j = nlohmann::ordered_json::parse(log.substr(begin, end - begin));
    records.push_back(j);
    j.erase("data_seconds");
    s.log += j.erase("seconds") == 1 ? "" : "without its seconds: ";
    s.log += j.dump() + "\n";
    begin = end == std::string::npos ? log.size() : end + 1;
  }
  if (text_of(folder + "/log.csv") != log_as_csv(records)) s.log += "log.csv is another\n";
  std::vector<std::string> names;
  if (fs::exists(folder))
    for (const auto& entry : fs::recursive_directory_iterator(folder))
      names.push_back(fs::relative(entry.path(), folder).string());
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) s.names += name + " ";
  return s;
}

}  // namespace crash_test
