#pragma once
// What ppma predict reads and writes: images, folders of them and patterns; text, JSON, CSV, COCO's
// results and pictures.

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "images.hpp"
#include "ppma/commands/json.hpp"
#include "ppma/data/image_folder.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/path_pattern.hpp"

namespace tool {

/// An image to be predicted. `name` says which it is in results, and where they lie below --out:
/// the file's name; for one of a folder or a pattern its path below it.
struct PredictInput {
  std::string path, name;
};

/// The images that the arguments name: files; folders with all below them, sorted; patterns with
/// wildcards and braces. A file's own name counts more than a pattern. Errors: a folder without
/// images.
inline std::vector<PredictInput> predict_inputs(const std::vector<std::string>& arguments) {
  namespace fs = std::filesystem;
  std::vector<PredictInput> all;
  for (const std::string& argument : arguments) {
    std::error_code absent;
    if (fs::is_directory(argument, absent)) {
      const FolderList list = files_below(argument, ppma::detail::image_endings());
      const std::string others = list.left_out(ppma::detail::image_kinds);
      check(!list.files.empty(), argument, ": has no images (", ppma::detail::image_kinds, ")",
            others.empty() ? "" : ", but " + others);
      ppma::detail::note_left_out(notes(), argument, others);
      for (const std::string& file : list.files)
        all.push_back({(fs::path(argument) / file).string(), file});
      continue;
    }
    std::vector<std::string> patterns{argument};
    if (!fs::exists(argument, absent)) patterns = expand_braces(argument);
    for (const std::string& pattern : patterns) {
      std::vector<std::string> found{pattern};
      std::size_t before = std::string::npos;  // its name, if it is of wildcards
      if (!fs::exists(pattern, absent) && has_wildcards(pattern)) {
        found = matching_files(pattern);
        if (found.empty())
          found = {pattern};  // is named with the files that cannot be read
        else                  // behind the folders without wildcards
          before = pattern.rfind('/', pattern.find_first_of("*?[")) + 1;
      }
      for (const std::string& path : found)
        all.push_back({path, before == std::string::npos ? fs::path(path).filename().string()
                                                         : path.substr(before)});
    }
  }
  return all;
}

/// What --format asks for. On the standard output text, or json or csv in its place; in --out, of
/// segmentors and detectors, pictures (png) and COCO's results (coco).
struct PredictFormats {
  bool json = false, csv = false, coco = false, png = false;

  bool text() const { return !json && !csv; }
  bool files() const { return coco || png; }

  /// Those of the option, or what is usual where it is not given. Errors: what the task has not;
  /// both json and csv.
  static PredictFormats of(const std::vector<std::string>& asked, bool json,
                           const std::string& task) {
    const bool dense = task != "classify";
    PredictFormats f;
    f.json = json, f.coco = f.png = dense && asked.empty();
    for (const std::string& name : asked) {
      check(dense || name == "json" || name == "csv", "--format ", name,
            " is for --task segment and detect; to classify there are json and csv");
      (name == "json" ? f.json : name == "csv" ? f.csv : name == "coco" ? f.coco : f.png) = true;
    }
    check(!f.json || !f.csv,
          "--format json and csv both take the standard output; choose one of them");
    return f;
  }
};

/// A line of RFC 4180 on the standard output; fields with commas, quotes or breaks in quotes.
inline void print_csv(const std::vector<std::string>& fields) {
  std::string line;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const bool plain = fields[i].find_first_of(",\"\r\n") == std::string::npos;
    line += i == 0 ? "" : ",";
    if (!plain) line += '"';
    for (const char c : fields[i]) line += c == '"' && !plain ? "\"\"" : std::string(1, c);
    if (!plain) line += '"';
  }
  std::printf("%s\r\n", line.c_str());
}

/// A figure as a field, with all digits that tell it from others.
template <class T>
std::string csv_number(T x) {
  char text[40];
  std::snprintf(text, sizeof text, "%.*g", std::is_same_v<T, float> ? 9 : 17,
                static_cast<double>(x));
  return text;
}

/// An image's line of text, with the picture where one was written.
inline void print_image(const PredictFormats& formats, const std::string& path,
                        const std::string& picture) {
  std::printf("%s%s%s\n", shown_name(path).c_str(), formats.png ? " -> " : "",
              formats.png ? shown_name(picture).c_str() : "");
}

/// An image in COCO's form.
inline Json image_record(i64 id, const std::string& name, const Tensor& image) {
  return {{"id", id},
          {"file_name", shown_name(name)},
          {"height", image.dim(0)},
          {"width", image.dim(1)}};
}

inline void add_format(CLI::App& app, std::vector<std::string>& formats) {
  app.add_option("--format", formats,
                 "json or csv on the standard output instead of text; with --task segment and "
                 "detect also what is written to --out: png (pictures, label maps), coco "
                 "(results.json, images.json); several with commas; default there: png,coco")
      ->delimiter(',')
      ->allow_extra_args(false)  // images follow
      ->check(CLI::IsMember({"json", "csv", "coco", "png"}));
}

}  // namespace tool
