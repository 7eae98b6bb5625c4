#pragma once
// How the tool reads image files.

#include <CLI/CLI.hpp>

#include "options.hpp"
#include "ppma/io/image.hpp"

namespace tool {

using namespace ppma;

/// --no-exif of the commands that read photographs.
inline CLI::Option* add_no_exif(CLI::App& app, bool& no_exif) {
  return app.add_flag("--no-exif", no_exif,
                      "image files as they are stored, not turned as their EXIF data say");
}

}  // namespace tool
