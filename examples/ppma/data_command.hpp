#pragma once
// ppma data: what a folder of images is, how `train` reads it, and what is broken in it.

#include <memory>

#include "data.hpp"
#include "data_look.hpp"
#include "ppma/commands/data_find.hpp"
#include "ppma/io/image.hpp"

namespace tool {

struct DataCommand {
  std::string path, out;
  bool json = false;
};

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

/// The command that reads a set; "": none does.
inline std::string command_of(const FoundSet& found) {
  if (found.data.empty()) return "";
  return str("ppma ", found.trains ? "train" : "eval",
             found.task == "classify" ? "" : " --task " + found.task, " --data ", found.data,
             found.boxes_only ? " --boxes-only" : "", " --data-dir ", shell_word(found.root));
}

/// Prints what it is and looks at its parts; returns that as JSON, and adds to what is broken.
inline Json describe(const DataCommand& o, const FoundSet& found, bool first, std::size_t& broken) {
  const std::string command = command_of(found);
  if (!o.json)
    std::printf("%s%s: %s%s%s\n", first ? "" : "\n", shown_name(found.root).c_str(),
                found.is.c_str(), command.empty() ? "" : "; ", shown_name(command).c_str());
  Json parts = Json::array();
  for (const SetPart& part : found.parts) {
    const SetLook look = look_at(part);
    broken += look.broken.size();
    if (o.json)
      parts.push_back(json_of(part, look));
    else
      print_part(part, look);
    std::fflush(stdout);
    if (o.out.empty() || !first || &part != found.parts.data()) continue;
    if (look.readable > 0)
      write_png(o.out, sample_sheet(part, look));
    else
      note("--out: there is no image to show, so ", o.out, " is not written");
  }
  return {{"path", shown_name(found.root)},
          {"is", found.is},
          {"command", shown_name(command)},
          {"parts", parts}};
}

inline void describe(const DataCommand& o) {
  const FoundSet found = find_set(o.path);
  std::size_t broken = 0;
  Json all = describe(o, found, true, broken);
  for (const FoundSet& other : found.also) {
    Json also = describe(o, other, false, broken);
    also.erase("path");
    all["also"].push_back(also);
  }
  if (o.json) print_json(all);
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
