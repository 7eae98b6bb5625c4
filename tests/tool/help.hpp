#pragma once
// Runs the command-line tool as a user does.

#include <sys/wait.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "io/help.hpp"
#include "ppma/io/stb.hpp"

namespace tool_test {

using namespace ppma;

// The program that was built with these tests, or the one that PPMA_TOOL names.
inline std::string tool() {
  if (const char* path = std::getenv("PPMA_TOOL")) return path;
#ifdef PPMA_TEST_TOOL
  return PPMA_TEST_TOOL;
#else
  return "";
#endif
}
#define NEEDS_TOOL() \
  if (tool().empty()) PPMA_SKIP("the tool was not built, and PPMA_TOOL names none")
// The same of a test that writes pictures, or lets the tool do so.
#define NEEDS_TOOL_AND_PNG() \
  NEEDS_TOOL();              \
  if (PPMA_STB == 0) PPMA_SKIP("no stb_image, so no PNG")

struct Result {
  int code = -1;
  std::string out, err;
};

inline std::string text_of(const std::string& path) {
  const std::vector<u8> bytes = read_file(path);
  return {bytes.begin(), bytes.end()};
}

// `variables`: of its environment, "A=1 B=2".
inline Result run(const std::string& arguments, const std::string& variables = "") {
  const io_test::Folder folder;
  const std::string command = variables + " '" + tool() + "' " + arguments + " > '" +
                              folder / "out" + "' 2> '" + folder / "err" + "' < /dev/null";
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text_of(folder / "out"),
          text_of(folder / "err")};
}

/// Whether a text has this piece; else both are shown.
inline bool has(const std::string& text, const std::string& piece) {
  if (text.find(piece) != std::string::npos) return true;
  FAIL_CHECK("expected: " << piece << "\nin: " << text);
  return false;
}

/// The subcommands, as --help lists them: "  train                       Trains a network ...".
inline std::vector<std::string> commands() {
  std::vector<std::string> all;
  std::istringstream lines(run("--help").out);
  bool listed = false;
  for (std::string line; std::getline(lines, line);) {
    if (listed && line.starts_with("  ") && line[2] != ' ')
      all.push_back(line.substr(2, line.find(' ', 2) - 2));
    listed = listed || line.starts_with("Subcommands:");
  }
  return all;
}

}  // namespace tool_test
