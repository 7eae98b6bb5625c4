#pragma once
// Python, where it is there: PPMA_PYTHON names one, otherwise python3 is tried.

#include <cstdlib>
#include <filesystem>
#include <string>

#include "io/help.hpp"

namespace python_test {

inline std::string python() {
  const char* const named = std::getenv("PPMA_PYTHON");
  return named == nullptr ? "python3" : named;
}

/// Whether it can import these modules: "onnx, onnxruntime".
inline bool has(const std::string& modules) {
  return std::system(("'" + python() + "' -c 'import " + modules + "' 2> /dev/null").c_str()) == 0;
}

/// Runs a script of this folder; what it prints where it fails, else "".
inline std::string failure_of(const std::string& script, const std::string& arguments) {
  const io_test::Folder folder;
  const std::string path = (std::filesystem::path(__FILE__).parent_path() / script).string();
  const std::string command = "'" + python() + "' '" + path + "' " + arguments + " > '" +
                              folder / "out" + "' 2>&1 < /dev/null";
  if (std::system(command.c_str()) == 0) return "";
  const std::vector<ppma::u8> said = ppma::read_file(folder / "out");
  return script + " failed:\n" + std::string(said.begin(), said.end());
}

#define NEEDS_PYTHON(modules)     \
  if (!python_test::has(modules)) \
  PPMA_SKIP(python_test::python() + " has no " + (modules) + " (PPMA_PYTHON names another)")

}  // namespace python_test
