#pragma once
// ImageFolder: one folder a class, `root`/<class>/*.jpg (or .jpeg, .png, .bmp, .ppm, .pgm in either case, also in
// folders below), as ImageNet is laid out. A class's number is the rank of its folder's name; hidden files are left
// out.

#include <algorithm>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "ppma/data/dataset.hpp"
#include "ppma/io/image.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline bool is_image_name(const std::string& path) {
  std::string ending = std::filesystem::path(path).extension().string();
  for (char& c : ending)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  for (const char* known : {".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm"})
    if (ending == known) return true;
  return false;
}

inline bool is_hidden(const std::filesystem::path& path) { return path.filename().string().starts_with('.'); }

}  // namespace detail

/// The images under `root` in the order of their paths. They are decoded when they are asked for; a file that cannot be
/// is named then. Errors: no such folder, no class folders, a class without images.
inline Dataset image_folder(const std::string& root) {
  namespace fs = std::filesystem;
  std::error_code failed;
  check(fs::is_directory(root, failed), root, ": is not a folder");
  Dataset d;
  d.name = root;
  for (const fs::directory_entry& entry : fs::directory_iterator(root, failed))
    if (entry.is_directory() && !detail::is_hidden(entry.path()))
      d.class_names.push_back(entry.path().filename().string());
  check(!failed, root, ": cannot be read (", failed.message(), ")");
  check(!d.class_names.empty(), root, ": has no folders; one for each class is needed, such as ", root, "/cat");
  std::sort(d.class_names.begin(), d.class_names.end());

  auto files = std::make_shared<std::vector<std::pair<std::string, i64>>>();  // path, class
  for (i64 label = 0; label < d.classes(); ++label) {
    const std::size_t before = files->size();
    const std::string folder = root + "/" + d.class_names[static_cast<std::size_t>(label)];
    for (fs::recursive_directory_iterator it(folder, failed), end; it != end; it.increment(failed)) {
      if (detail::is_hidden(it->path())) {
        if (it->is_directory()) it.disable_recursion_pending();
      } else if (it->is_regular_file() && detail::is_image_name(it->path().string())) {
        files->emplace_back(it->path().string(), label);
      }
    }
    check(!failed, folder, ": cannot be read (", failed.message(), ")");
    check(files->size() > before, folder, ": has no images (.jpg, .jpeg, .png, .bmp, .ppm, .pgm)");
    std::sort(files->begin() + static_cast<std::ptrdiff_t>(before), files->end());
  }
  d.size = static_cast<i64>(files->size());
  d.load = [files](i64 index) {
    const auto& [path, label] = (*files)[static_cast<std::size_t>(index)];
    return Sample{read_image(path), label, path};
  };
  return d;
}

}  // namespace ppma::inline PPMA_ABI
