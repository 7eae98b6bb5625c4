#pragma once
// How the tool reads image files, and what it says of those that a set leaves out.

#include <CLI/CLI.hpp>
#include <string>

#include "options.hpp"
#include "ppma/io/image.hpp"

namespace tool {

using namespace ppma;

/// --no-exif of the commands that read photographs.
inline CLI::Option* add_no_exif(CLI::App& app, bool& no_exif) {
  return app.add_flag("--no-exif", no_exif,
                      "image files as they are stored, not turned as their EXIF data say");
}

/// One line on stderr, or none.
inline void warn_left_out(const std::string& set, const std::string& what) {
  if (!what.empty()) note(set, ": left out: ", what);
}

}  // namespace tool
