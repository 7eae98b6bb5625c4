#pragma once
// Which task, and which segmentor or detector: --task, --segmentor, --detector.

#include "common.hpp"
#include "ppma/commands/dense_network.hpp"

namespace tool {

inline void add_task(CLI::App& app, std::string& task, NetworkOptions& o, const std::string& what) {
  app.add_option("--task", task,
                 what +
                     "With segment and detect --config and --model are about the whole network: "
                     "small heads on ppma_nano, the published ones on others")
      ->check(CLI::IsMember({"classify", "segment", "detect"}))
      ->capture_default_str();
  app.add_option("--segmentor", o.segmentor,
                 "keys of the network's configuration as JSON, on top of --model or --config")
      ->check(CLI::ExistingFile)
      ->group("With --task segment");
  app.add_option("--detector", o.detector, "the same of a detector")
      ->check(CLI::ExistingFile)
      ->group("With --task detect");
}

/// Error: an option was given that another task has. Whose it is, its group says: "With --task
/// segment and detect".
inline void refuse_others(const CLI::App& app, const std::string& task) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string group = option->get_group();
    const bool others = group.starts_with("With --task ") && group.find(task) == std::string::npos;
    check(!others || option->count() == 0, option->get_name(), " is for ",
          group.substr(std::min<std::size_t>(5, group.size())), ", not ", task);
  }
}

}  // namespace tool
