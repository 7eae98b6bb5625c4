#pragma once
// ppma data: what a folder of images is, how `train` reads it, and what is broken in it.

#include <filesystem>
#include <memory>

#include "data_find.hpp"

namespace tool {

struct DataCommand {
  std::string path, out;
  bool json = false;
};

inline void add_difference(std::vector<Part>& parts, const std::string& root) {
  if (parts.size() != 2 || parts[0].classes.empty() || parts[1].classes.empty()) return;
  const std::string difference = class_difference(parts[0].classes, parts[1].classes);
  if (!difference.empty())
    parts[1].broken.push_back(str(root, ": ", parts[0].name, " and ", parts[1].name,
                                  " have different classes; in ", parts[1].name, " ", difference));
}

/// A path as a shell takes it.
inline std::string shell_word(const std::string& path) {
  const bool plain = std::all_of(path.begin(), path.end(), [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || std::strchr("_./+-,@%=:", c);
  });
  if (plain) return path;
  std::string s = "'";
  for (const char c : path) s += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return s + "'";
}

inline void describe(const DataCommand& o) {
  namespace fs = std::filesystem;
  const bool folder = fs::is_directory(o.path), is_list = !folder && ending_of(o.path) == ".csv",
             is_shards = !folder && ending_of(o.path) == ".tar";
  check(fs::exists(o.path) || is_shards, o.path, ": there is no such file");
  std::string root =
      folder || is_list || is_shards ? o.path : fs::path(o.path).parent_path().string();
  if (root.empty()) root = ".";
  if (!folder && !is_list && !is_shards && fs::path(root).filename() == "annotations")
    root += "/..";  // COCO's
  FoundSet found = is_list ? find_list(root) : is_shards ? find_shards(root) : find_set(root);
  add_difference(found.parts, root);
  const std::string command =
      found.command.empty() ? "" : "ppma " + found.command + " --data-dir " + shell_word(root);
  if (!o.json)
    std::printf("%s: %s%s%s\n", shown_name(root).c_str(), found.is.c_str(),
                command.empty() ? "" : "; ", shown_name(command).c_str());
  Json parts = Json::array();
  std::size_t broken = 0;
  for (const Part& part : found.parts) {
    const Look look = look_at(part);
    broken += look.broken.size();
    if (o.json)
      parts.push_back(json_of(part, look));
    else
      print_part(part, look);
    std::fflush(stdout);
    if (o.out.empty() || &part != found.parts.data()) continue;
    if (look.readable > 0)
      write_png(o.out, sample_sheet(part, look));
    else
      note("--out: there is no image to show, so ", o.out, " is not written");
  }
  if (o.json)
    print_json({{"path", shown_name(root)},
                {"is", found.is},
                {"command", shown_name(command)},
                {"parts", parts}});
  if (!o.json && broken == 0) std::printf("nothing is broken\n");
  check(broken == 0, "data: ", broken, broken == 1 ? " thing is" : " things are",
        " broken; named above");
}

inline void add_data_command(CLI::App& app) {
  auto o = std::make_shared<DataCommand>();
  auto* c = app.add_subcommand(
      "data", "Says what a folder of images is, counts its classes, and names what is broken");
  c->add_option("PATH", o->path, known_layouts)->required()->check(path_or_pattern());
  c->add_option("--out", o->out,
                "write samples of the first part with their labels to this PNG file")
      ->check(some_text());
  c->add_flag("--json", o->json, "one JSON object instead of text");
  add_threads(*c);
  c->callback([o] { describe(*o); });
}

}  // namespace tool
