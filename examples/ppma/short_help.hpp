#pragma once
// --help of a command with many options: those that one begins with; --help-all shows all.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace tool {

class ShortHelp : public CLI::Formatter {
 public:
  explicit ShortHelp(std::vector<std::string> first) : first_(std::move(first)) {}

  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override {
    short_ = mode != CLI::AppFormatMode::All;
    std::string text = CLI::Formatter::make_help(app, std::move(name), mode);
    for (std::size_t at; (at = text.find("\n\n\n")) != std::string::npos;) text.erase(at, 1);
    while (text.ends_with('\n')) text.pop_back();
    if (short_) text += "\n\nAll options: ppma " + app->get_name() + " --help-all";
    return text + "\n";
  }
  std::string make_group(std::string group, bool is_positional,
                         std::vector<const CLI::Option*> options) const override {
    if (short_)
      std::erase_if(options, [&](const CLI::Option* o) {
        return std::find(first_.begin(), first_.end(), o->get_name()) == first_.end();
      });
    if (options.empty()) return "";
    return CLI::Formatter::make_group(std::move(group), is_positional, std::move(options));
  }

 private:
  std::vector<std::string> first_;
  mutable bool short_ = false;  // make_group is not told
};

/// Puts options that have no group of their own yet into one.
inline void group_options(CLI::App& command, const char* group,
                          const std::vector<const char*>& names) {
  for (const char* name : names)
    if (CLI::Option* o = command.get_option(name); o->get_group() == "Options") o->group(group);
}

/// Has --help of a command show the options `first` alone, in the order in which they were added.
inline void shorten_help(CLI::App& command, std::vector<std::string> first) {
  first.insert(first.end(), {"--help", "--help-all"});
  command.set_help_all_flag("--help-all", "Print all options and exit");
  command.formatter(std::make_shared<ShortHelp>(std::move(first)));
}

}  // namespace tool
