#pragma once
#include "ppma/core/names_begin.hpp"
// A list of images with their classes: a CSV file (io/csv.hpp) whose first line names its columns,
// in any order:
//   path    of an image, from the list's folder
//   label   the class's name; a class's number is the rank of its name
//   split   train, val or test; may be left out where nothing is trained

#include <optional>
#include <string>
#include <vector>

#include "ppma/data/dataset.hpp"
#include "ppma/io/image.hpp"

namespace ppma::inline PPMA_ABI {

struct ListedImage {
  i64 line = 0;      // of the list
  std::string path;  // as the list has it
  i64 label = 0;     // class
  std::optional<Split> split{};
};

struct ImageList {
  std::string name;  // the list's path
  std::vector<std::string> class_names;
  std::vector<ListedImage> images;

  /// Whether it has an image of this part.
  PPMA_API bool has(Split split) const;
  /// Whether it says of its images which part they are of.
  bool has_splits() const { return !images.empty() && images[0].split.has_value(); }
};

/// A list in memory; `name` is its path, which errors say with the line. Errors: those of
/// parse_csv; no images; a column that is not known, that is there twice, or is missing; an empty
/// path, label or split; a label that is not UTF-8, or begins or ends with a space; a split that is
/// none of the three.
PPMA_API ImageList parse_image_list(Bytes csv, const std::string& name);

/// The same from a file.
PPMA_API ImageList read_image_list(const std::string& path);

/// The list's images of a part; without a split all of them, to test on. All classes of the list
/// are its classes. With `all_there` each file is looked for now, else where it is loaded. Errors:
/// no image of that part; no split, to train on; a file that is not there, with its line.
PPMA_API Dataset image_list(const ImageList& list, Split split, ImageReading reading = {},
                            bool all_there = true);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>

#include "ppma/io/csv.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Which field is path, label and split; the last may be as many as there are fields: none.
struct ListColumns {
  std::size_t path, label, split;
};

inline ListColumns list_columns(const CsvRecord& head, const std::string& name) {
  const std::size_t none = head.fields.size();
  ListColumns c{none, none, none};
  for (std::size_t i = 0; i < none; ++i) {
    const std::string& field = head.fields[i];
    std::size_t* const column = field == "path"    ? &c.path
                                : field == "label" ? &c.label
                                : field == "split" ? &c.split
                                                   : nullptr;
    check(column != nullptr, name, ": line ", head.line, ": the column \"", printable(field),
          "\" is not known; the first line names path, label and, if there are parts, split");
    check(*column == none, name, ": line ", head.line, ": two columns ", field);
    *column = i;
  }
  check(c.path < none && c.label < none, name, ": line ", head.line, ": has no column ",
        c.path < none ? "label" : "path",
        "; the first line names path, label and, if there are "
        "parts, split");
  return c;
}

inline Split parse_split(const std::string& text, const std::string& where) {
  for (const Split split : {Split::train, Split::val, Split::test})
    if (text == to_string(split)) return split;
  fail(where, "the split is \"", printable(text), "\"; it must be train, val or test");
}

}  // namespace detail

bool ImageList::has(Split split) const {
  return std::any_of(images.begin(), images.end(),
                     [split](const ListedImage& i) { return i.split == split; });
}

ImageList parse_image_list(Bytes csv, const std::string& name) {
  const std::vector<CsvRecord> records = parse_csv(csv, name);
  check(!records.empty(), name, ": is empty; its first line names path, label and split");
  const detail::ListColumns column = detail::list_columns(records[0], name);
  check(records.size() > 1, name, ": lists no images");
  ImageList list{name, {}, {}};
  std::map<std::string, i64> classes;
  for (std::size_t i = 1; i < records.size(); ++i) {
    const CsvRecord& r = records[i];
    const std::string where = str(name, ": line ", r.line, ": "), &path = r.fields[column.path],
                      &label = r.fields[column.label];
    check(!path.empty(), where, "the path is empty");
    check(!label.empty(), where, "the label is empty");
    check(is_utf8(label), where, "the label \"", printable(label), "\" is not UTF-8");
    check(label.front() != ' ' && label.back() != ' ', where, "the label \"", printable(label),
          "\" has a space at an end; no spaces stand beside commas");
    ListedImage image{r.line, path};
    if (column.split < r.fields.size())
      image.split = detail::parse_split(r.fields[column.split], where);
    classes.emplace(label, 0);
    list.images.push_back(std::move(image));
  }
  for (auto& [label, number] : classes) {
    number = static_cast<i64>(list.class_names.size());
    list.class_names.push_back(label);
  }
  for (std::size_t i = 1; i < records.size(); ++i)
    list.images[i - 1].label = classes.at(records[i].fields[column.label]);
  return list;
}

ImageList read_image_list(const std::string& path) {
  return parse_image_list(read_file(path), path);
}

Dataset image_list(const ImageList& list, Split split, ImageReading reading, bool all_there) {
  namespace fs = std::filesystem;
  check(list.has_splits() || split != Split::train, list.name,
        ": has no column split, which says what to train on (train) and to test on (val, test)");
  const auto images = std::make_shared<std::vector<ListedImage>>();
  for (const ListedImage& i : list.images)
    if (!i.split || *i.split == split) images->push_back(i);
  check(!images->empty(), list.name, ": no image has the split ", to_string(split));
  const fs::path folder = fs::path(list.name).parent_path();
  for (ListedImage& i : *images) {
    i.path = (folder / i.path).string();  // an absolute one stays
    std::error_code absent;
    check(!all_there || fs::is_regular_file(i.path, absent), list.name, ": line ", i.line, ": ",
          i.path, " is not there, or is no file");
  }
  Dataset d;
  d.name = list.name, d.size = static_cast<i64>(images->size()), d.class_names = list.class_names;
  d.label = [images](i64 index) { return (*images)[static_cast<std::size_t>(index)].label; };
  d.load = [images, reading, name = list.name](i64 index) {
    const ListedImage& i = (*images)[static_cast<std::size_t>(index)];
    try {
      return Sample{read_image(i.path, reading), i.label, i.path};
    } catch (const Error& e) {
      throw Error(str(name, ": line ", i.line, ": ", e.what()));
    }
  };
  return d;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
