#pragma once
// What the tests of commands share: options of runs that take a second, and the tool with the same.

#include <nlohmann/json.hpp>
#include <string>

#include "io/help.hpp"
#include "ppma/commands/train.hpp"
#include "thrown.hpp"
#include "tool/help.hpp"

namespace commands_test {

using namespace ppma;
using io_test::Folder;
using tool_test::run;
using tool_test::tool;
using json = nlohmann::json;

/// A network that trains in a second, as a file in the folder.
inline std::string small_network(const Folder& folder) {
  const std::string path = folder / "net.json";
  write_file(path,
             "{\"model\": \"ppma_nano\", \"embed_dims\": [8, 8, 8, 8], \"num_heads\": [2, 2, 2, "
             "2], \"projection\": 8}");
  return path;
}

inline const std::string small_arguments =
    " --images 32 --test-images 16 --size 48 --batch 8 --epochs 1";

/// The same options in a program.
template <class Training>
Training small_training(const Folder& folder, const std::string& out) {
  Training o;
  o.data.images = 32, o.data.test_images = 16, o.data.size = 48, o.batch = 8, o.epochs = 1;
  o.out = folder / out;
  return o;
}

/// Keeps what it hears.
template <class Base>
struct Kept : Base {
  std::vector<std::string> notes{};
  void note(const std::string& text) override { notes.push_back(text); }
};

/// The last line of a run's log, without what a clock says.
inline json last_record(const std::string& run_folder) {
  const std::string text = tool_test::text_of(run_folder + "/log.jsonl");
  const std::size_t end = text.rfind('\n'),
                    begin = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
  json j = json::parse(text.substr(begin == std::string::npos ? 0 : begin + 1));
  j.erase("seconds"), j.erase("data_seconds");
  return j;
}

}  // namespace commands_test
