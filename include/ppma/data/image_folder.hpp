#pragma once
#include "ppma/core/names_begin.hpp"
// ImageFolder: one folder a class, `root`/<class>/*.jpg (or .jpeg, .png, .bmp, .ppm, .pgm in either
// case, also in folders below), as ImageNet is laid out. A class's number is the rank of its
// folder's name; hidden files and folders are none, linked ones are as if they lay there.

#include <string>
#include <vector>

#include "ppma/data/dataset.hpp"
#include "ppma/io/image.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

PPMA_API const std::vector<std::string>& image_endings();
constexpr const char* image_kinds = ".jpg, .jpeg, .png, .bmp, .ppm or .pgm";

}  // namespace detail

/// The images under `root` in the order of their paths, turned as their EXIF data say unless
/// `reading` leaves that out. They are decoded when they are asked for; a file that cannot be is
/// named then. Files of other endings are counted in `left_out`. Errors: no such folder, no class
/// folders, a class without images, a link to nothing.
PPMA_API Dataset image_folder(const std::string& root, ImageReading reading = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <filesystem>
#include <memory>

#include "ppma/io/folder.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

const std::vector<std::string>& image_endings() {
  static const std::vector<std::string> endings{".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm"};
  return endings;
}

}  // namespace detail

Dataset image_folder(const std::string& root, ImageReading reading) {
  namespace fs = std::filesystem;
  std::error_code failed;
  check(fs::is_directory(root, failed), root, ": is not a folder");
  Dataset d;
  d.name = root;
  i64 beside = 0;  // images that are in no class
  fs::directory_iterator it(root, failed);
  for (; !failed && it != fs::directory_iterator(); it.increment(failed)) {
    if (is_hidden(it->path())) continue;
    const std::string name = it->path().filename().string();
    std::error_code absent;
    const fs::file_status status = it->status(absent);  // of what a link leads to
    check(fs::exists(status), root, "/", name, ": a link to what is not there; mend or remove it");
    if (fs::is_directory(status)) {
      d.class_names.push_back(name);
      continue;
    }
    const auto& known = detail::image_endings();
    if (std::find(known.begin(), known.end(), ending_of(name)) != known.end()) ++beside;
  }
  check(!failed, root, ": cannot be read (", failed.message(), ")");
  check(!d.class_names.empty(), root, ": has no folders; one for each class is needed, such as ",
        root, "/cat");
  std::sort(d.class_names.begin(), d.class_names.end());

  auto files = std::make_shared<std::vector<std::pair<std::string, i64>>>();  // path, class
  FolderList others;
  for (i64 label = 0; label < d.classes(); ++label) {
    const std::string& name = d.class_names[static_cast<std::size_t>(label)];
    const std::string folder = root + "/" + name;
    const FolderList list = files_below(folder, detail::image_endings());
    const std::string left_out = list.left_out(detail::image_kinds);
    check(!list.files.empty(), folder, ": has no images (", detail::image_kinds, ")",
          left_out.empty() ? "" : ", but ", left_out);
    for (const std::string& file : list.files) files->emplace_back(folder + "/" + file, label);
    for (const auto& [ending, n] : list.others) others.others[ending] += n;
    if (others.first_other.empty() && !list.others.empty())
      others.first_other = name + "/" + list.first_other;
  }
  d.left_out = others.left_out(detail::image_kinds);
  if (beside > 0)
    d.left_out += str(d.left_out.empty() ? "" : ", ", beside, beside == 1 ? " image" : " images",
                      " beside the class folders");
  d.size = static_cast<i64>(files->size());
  d.load = [files, reading](i64 index) {
    const auto& [path, label] = (*files)[static_cast<std::size_t>(index)];
    return Sample{read_image(path, reading), label, path};
  };
  return d;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
