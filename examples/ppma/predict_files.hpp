#pragma once
// What ppma predict writes to the standard output: text, JSON or CSV.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "options.hpp"

namespace tool {

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
