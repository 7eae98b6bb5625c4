#pragma once
#include "ppma/core/names_begin.hpp"
// ImageFolder: one folder a class, `root`/<class>/*.jpg (or .jpeg, .png, .bmp, .ppm, .pgm in either
// case, also in folders below), as ImageNet is laid out. A class's number is the rank of its
// folder's name; hidden files and folders are none, linked ones are as if they lay there.

#include <string>
#include <utility>
#include <vector>

#include "ppma/data/dataset.hpp"
#include "ppma/io/image.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

PPMA_API const std::vector<std::string>& image_endings();
constexpr const char* image_kinds = ".jpg, .jpeg, .png, .bmp, .ppm or .pgm";

}  // namespace detail

/// What lies in a folder of classes.
struct ClassFolders {
  std::string root;
  std::vector<std::string> names;                          // the classes, sorted
  std::vector<std::pair<std::string, i64>> files;          // path and class, sorted by class
  std::vector<std::pair<std::string, std::string>> empty;  // classes without images, what they hold
  std::string left_out;  // what of the files is no image of a class, for messages
};

/// Lists the images under `root`, and which classes have none. Errors: no such folder, no class
/// folders, a link to nothing.
PPMA_API ClassFolders list_classes(const std::string& root);

/// The listed images, classes without any among them.
PPMA_API Dataset image_folder(ClassFolders found, ImageReading reading = {});

/// The images under `root` in the order of their paths, turned as their EXIF data say unless
/// `reading` leaves that out. They are decoded when they are asked for; a file that cannot be is
/// named then. Files of other endings are counted in `left_out`. Errors: no such folder, no class
/// folders, classes without images (all of them by name), a link to nothing.
PPMA_API Dataset image_folder(const std::string& root, ImageReading reading = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <filesystem>
#include <memory>

#include "ppma/io/folder.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

const std::vector<std::string>& image_endings() {
  static const std::vector<std::string> endings{".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm"};
  return endings;
}

}  // namespace detail

ClassFolders list_classes(const std::string& root) {
  namespace fs = std::filesystem;
  std::error_code failed;
  check(fs::is_directory(root, failed), root, ": is not a folder");
  ClassFolders found;
  found.root = root;
  i64 beside = 0;  // images that are in no class
  fs::directory_iterator it(root, failed);
  for (; !failed && it != fs::directory_iterator(); it.increment(failed)) {
    if (is_hidden(it->path())) continue;
    const std::string name = it->path().filename().string();
    std::error_code absent;
    const fs::file_status status = it->status(absent);  // of what a link leads to
    check(fs::exists(status), root, "/", name, ": a link to what is not there; mend or remove it");
    if (fs::is_directory(status)) {
      found.names.push_back(name);
      continue;
    }
    const auto& known = detail::image_endings();
    if (std::find(known.begin(), known.end(), ending_of(name)) != known.end()) ++beside;
  }
  check(!failed, root, ": cannot be read (", failed.message(), ")");
  check(!found.names.empty(), root, ": has no folders; one for each class is needed, such as ",
        root, "/cat");
  std::sort(found.names.begin(), found.names.end());

  FolderList others;
  for (std::size_t label = 0; label < found.names.size(); ++label) {
    const std::string &name = found.names[label], folder = root + "/" + name;
    const FolderList list = files_below(folder, detail::image_endings());
    if (list.files.empty()) found.empty.emplace_back(name, list.left_out(detail::image_kinds));
    for (const std::string& file : list.files)
      found.files.emplace_back(folder + "/" + file, static_cast<i64>(label));
    for (const auto& [ending, n] : list.others) others.others[ending] += n;
    if (others.first_other.empty() && !list.others.empty())
      others.first_other = name + "/" + list.first_other;
  }
  found.left_out = others.left_out(detail::image_kinds);
  if (beside > 0)
    found.left_out += str(found.left_out.empty() ? "" : ", ", beside,
                          beside == 1 ? " image" : " images", " beside the class folders");
  return found;
}

Dataset image_folder(ClassFolders found, ImageReading reading) {
  Dataset d;
  d.name = found.root, d.class_names = found.names, d.left_out = found.left_out;
  d.size = static_cast<i64>(found.files.size());
  const auto files = std::make_shared<const decltype(found.files)>(std::move(found.files));
  d.label = [files](i64 index) { return (*files)[static_cast<std::size_t>(index)].second; };
  d.load = [files, reading](i64 index) {
    const auto& [path, label] = (*files)[static_cast<std::size_t>(index)];
    return Sample{read_image(path, reading), label, path};
  };
  return d;
}

Dataset image_folder(const std::string& root, ImageReading reading) {
  ClassFolders found = list_classes(root);
  if (found.empty.size() == 1) {
    const auto& [name, others] = found.empty[0];
    fail(root, "/", name, ": has no images (", detail::image_kinds, ")",
         others.empty() ? "" : ", but ", others);
  }
  constexpr std::size_t most = 20;
  std::string names;
  for (std::size_t i = 0; i < std::min(most, found.empty.size()); ++i)
    names += (i == 0 ? "" : ", ") + printable(found.empty[i].first);
  check(found.empty.empty(), root, ": ", found.empty.size(), " classes have no images (",
        detail::image_kinds, "): ", names, found.empty.size() > most ? ", ..." : "");
  return image_folder(std::move(found), reading);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
