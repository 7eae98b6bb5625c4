#pragma once
// What the command line adds to a run's options (ppma/commands/training_options.hpp): a file of
// them, as train.json holds.

#include "common.hpp"
#include "ppma/commands/training_options.hpp"

namespace tool {

/// What --config of `train` names: a run's options, as train.json holds them (a file with
/// "epochs"), or nothing where it is a network's configuration.
inline std::optional<Json> run_options(const std::string& path) {
  if (path.empty()) return {};
  Json j = parse_json(read_text(path), path);
  if (!j.is_object() || !j.contains("epochs")) return {};
  return j;
}

/// Takes a run's options from a file; those that were given beside it count more. Error: the file
/// has a key that this task does not know.
template <class Command>
void take_run(const CLI::App& app, const Json& file, const std::string& path, Command& o) {
  Command told = o;
  check_json_keys(file, path, told);
  read_kept(file, path, told);
  take_given<Command>(app, o, told);
  o = told;
}

}  // namespace tool
