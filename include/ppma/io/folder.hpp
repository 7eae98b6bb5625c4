#pragma once
#include "ppma/core/names_begin.hpp"
// What files lie below a folder. As shells and Python's tools see it: hidden files and folders (a
// name that begins with a dot) are none, linked ones are as if they lay there, endings count in any
// case. What is left out is counted, to be said.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// The files of some endings below a folder, and how many others there are.
struct FolderList {
  std::vector<std::string> files;     // paths below the folder, sorted
  std::map<std::string, i64> others;  // by ending, in small letters
  std::string first_other;            // one of them

  /// "3 files that are not .png (2 .webp, 1 .txt; such as a/b.webp)", or "".
  PPMA_API std::string left_out(const std::string& kinds) const;
};

/// The ending of a path with its dot, in small letters: ".png".
PPMA_API std::string ending_of(const std::string& path);

/// True if the last part of the path begins with a dot.
PPMA_API bool is_hidden(const std::filesystem::path& path);

/// The files below `root` with one of these endings (".png"). Errors: no folder; one that cannot be
/// read; a link to nothing in place of such a file; a link to a folder above it.
PPMA_API FolderList files_below(const std::string& root, const std::vector<std::string>& endings);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_IO)

#include <algorithm>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

std::string FolderList::left_out(const std::string& kinds) const {
  i64 count = 0;
  std::string list;
  for (const auto& [ending, n] : others) {
    count += n;
    list += str(list.empty() ? "" : ", ", n, " ", ending.empty() ? "without an ending" : ending);
  }
  if (count == 0) return "";
  return str(count, count == 1 ? " file that is not " : " files that are not ", kinds, " (", list,
             "; such as ", first_other, ")");
}

std::string ending_of(const std::string& path) {
  std::string ending = std::filesystem::path(path).extension().string();
  for (char& c : ending)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return ending;
}

bool is_hidden(const std::filesystem::path& path) {
  return path.filename().string().starts_with('.');
}

namespace detail {

inline void list_folder(const std::string& root, const std::string& below,
                        const std::vector<std::string>& endings,
                        std::vector<std::filesystem::path>& open, FolderList& list) {
  namespace fs = std::filesystem;
  const fs::path here = below.empty() ? fs::path(root) : fs::path(root) / below;
  std::error_code failed;
  const fs::path real = fs::canonical(here, failed);
  check(!failed, here.string(), ": cannot be read (", failed.message(), ")");
  const bool round = std::any_of(open.begin(), open.end(), [&](const fs::path& above) {
    return std::mismatch(real.begin(), real.end(), above.begin(), above.end()).first == real.end();
  });
  check(!round, here.string(), ": a link to a folder that it lies in; remove it");
  open.push_back(real);
  fs::directory_iterator it(here, failed);
  for (; !failed && it != fs::directory_iterator(); it.increment(failed)) {
    if (is_hidden(it->path())) continue;
    const std::string name = it->path().filename().string();
    const std::string path = below.empty() ? name : below + "/" + name;
    std::error_code absent;
    const fs::file_status status = it->status(absent);  // of what a link leads to
    if (fs::is_directory(status)) {
      list_folder(root, path, endings, open, list);
      continue;
    }
    const std::string ending = ending_of(name);
    if (std::find(endings.begin(), endings.end(), ending) == endings.end()) {
      ++list.others[ending];
      if (list.first_other.empty() || path < list.first_other) list.first_other = path;
      continue;
    }
    check(!it->is_symlink() || fs::exists(status), root, "/", path,
          ": a link to a file that is not there");
    check(fs::is_regular_file(status), root, "/", path, ": not a regular file");
    list.files.push_back(path);
  }
  check(!failed, here.string(), ": cannot be read (", failed.message(), ")");
  open.pop_back();
}

}  // namespace detail

FolderList files_below(const std::string& root, const std::vector<std::string>& endings) {
  std::error_code failed;
  check(std::filesystem::is_directory(root, failed), root, ": is not a folder");
  FolderList list;
  std::vector<std::filesystem::path> open;
  detail::list_folder(root, "", endings, open, list);
  std::sort(list.files.begin(), list.files.end());
  return list;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
