#pragma once
#include "ppma/core/names_begin.hpp"
// MNIST and sets in its form (Fashion-MNIST, KMNIST, EMNIST): IDX files of grey images and labels,
// packed by gzip or not. A folder holds one set:
//   train-images-idx3-ubyte, train-labels-idx1-ubyte,
//   t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte
//   emnist-NAME-train-images-idx3-ubyte ... emnist-NAME-test-labels-idx1-ubyte,
//   emnist-NAME-mapping.txt
// with a dot before idx as well, and .gz at the end.

#include <string>

#include "ppma/data/dataset.hpp"

namespace ppma::inline PPMA_ABI {

/// The set in `folder`: a grey level becomes three equal channels. Classes are named by
/// classes.txt (a name a line), else by EMNIST's mapping (a label, then its characters' codes, a
/// line), else by their numbers. EMNIST's files hold images mirrored at their diagonal; they are
/// mirrored back. Errors: no files of this form, or of two sets; those of parse_idx and gunzip;
/// another number of labels than of images; a label that is not named.
PPMA_API Dataset idx_folder(const std::string& folder, Split split = Split::train);

/// Whether `folder` holds images of this form, to train on or to test on. Error: no folder.
PPMA_API bool has_idx(const std::string& folder, Split split);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <vector>

#include "ppma/data/cifar.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/gzip.hpp"
#include "ppma/io/idx.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// A file's bytes, unpacked, and the array in them.
struct IdxFile {
  std::string path;
  std::vector<u8> bytes;
  IdxArray array;

  const u8* data() const { return bytes.data() + array.begin; }
};

inline IdxFile read_idx(const std::string& path, std::size_t axes) {
  IdxFile f{path, read_file(path), {}};
  if (is_gzip(f.bytes)) f.bytes = gunzip(f.bytes, path);
  f.array = parse_idx(f.bytes, path);
  check(f.array.shape.size() == axes, path, ": has ", f.array.shape.size(), " axes; ",
        axes == 3 ? "images have 3" : "labels have 1");
  return f;
}

// The parts as files' names call them.
inline std::vector<std::string> idx_parts(Split split) {
  if (split == Split::train) return {"train-"};
  return {"t10k-", "test-"};
}

// How a file's name may end that holds "images" or "labels".
inline std::vector<std::string> idx_ends(const std::string& what) {
  const std::string type = what == "images" ? "idx3-ubyte" : "idx1-ubyte";
  return {what + "-" + type, what + "." + type, what + "-" + type + ".gz",
          what + "." + type + ".gz"};
}

// What stands before "train-images-idx3-ubyte" in a file's name, "" or "emnist-letters-"; nothing
// if it is no file of images of that part.
inline std::optional<std::string> idx_prefix(const std::string& name, Split split) {
  for (const std::string& part : idx_parts(split))
    for (const std::string& end : idx_ends("images")) {
      if (!name.ends_with(part + end)) continue;
      const std::string before = name.substr(0, name.size() - part.size() - end.size());
      if (before.empty() || before.ends_with('-')) return before;
    }
  return {};
}

inline std::vector<std::string> names_in(const std::string& folder) {
  namespace fs = std::filesystem;
  std::vector<std::string> names;
  std::error_code failed;
  fs::directory_iterator it(folder, failed);
  for (; !failed && it != fs::directory_iterator(); it.increment(failed))
    if (!is_hidden(it->path())) names.push_back(it->path().filename().string());
  check(!failed, folder, ": cannot be read (", failed.message(), ")");
  return names;
}

// The files of the one set in a folder.
struct IdxNames {
  std::string folder, prefix{};

  explicit IdxNames(const std::string& root) : folder(root) {
    std::set<std::string> prefixes;
    for (const std::string& name : names_in(root))
      for (const Split split : {Split::train, Split::test})
        if (const auto before = idx_prefix(name, split)) prefixes.insert(*before);
    check(!prefixes.empty(), root,
          ": has no train-images-idx3-ubyte and no t10k-images-idx3-ubyte (MNIST's files, or .gz)");
    check(prefixes.size() == 1, root, ": holds several sets, ", printable(*prefixes.begin()),
          "* and ", printable(*prefixes.rbegin()), "*; give each a folder of its own");
    prefix = *prefixes.begin();
  }
  // The path of the "images" or "labels" of a part, or "".
  std::string find(Split split, const std::string& what) const {
    for (const std::string& part : idx_parts(split))
      for (const std::string& end : idx_ends(what))
        if (const std::string path = str(folder, "/", prefix, part, end);
            std::filesystem::exists(path))
          return path;
    return "";
  }
};

// The classes of labels.
struct IdxClasses {
  std::vector<std::string> names{};
  std::vector<int> of_label = std::vector<int>(256, -1);
};

// EMNIST's mapping: "10 65" is label 10, "A".
inline IdxClasses mapped_classes(const std::string& path) {
  IdxClasses classes;
  const std::vector<u8> bytes = read_file(path);
  std::istringstream lines{std::string(text_of(bytes))};
  i64 line = 0;
  for (std::string text; std::getline(lines, text);) {
    ++line;
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    std::istringstream words(text);
    int label = -1, code = -1;
    std::string name;
    words >> label;
    while (words >> code) {
      check(code > 32 && code < 127, path, ": line ", line, ": ", code,
            " is no character's code (33 to 126)");
      name += (name.empty() ? "" : "/") + std::string(1, static_cast<char>(code));
    }
    check(words.eof() && label >= 0 && label < 256 && !name.empty(), path, ": line ", line, ": \"",
          printable(text), "\" is not a label and characters' codes");
    int& number = classes.of_label[static_cast<std::size_t>(label)];
    check(number < 0, path, ": line ", line, ": label ", label, " stands there twice");
    number = static_cast<int>(classes.names.size());
    classes.names.push_back(name);
  }
  check(!classes.names.empty(), path, ": names no classes");
  return classes;
}

inline IdxClasses idx_classes(const IdxNames& files) {
  const std::string own = files.folder + "/classes.txt",
                    mapping = files.folder + "/" + files.prefix + "mapping.txt";
  IdxClasses classes;
  if (std::filesystem::exists(own)) {
    classes.names = read_names(own);
    check(!classes.names.empty() && classes.names.size() <= 256, own,
          ": must name 1 to 256 classes, a line each");
  } else if (!files.prefix.empty() && std::filesystem::exists(mapping)) {
    return mapped_classes(mapping);
  } else {  // as many as either part has
    int most = 0;
    for (const Split split : {Split::train, Split::test})
      if (const std::string path = files.find(split, "labels"); !path.empty()) {
        const IdxFile f = read_idx(path, 1);
        for (std::size_t k = f.array.begin; k < f.bytes.size(); ++k)
          most = std::max(most, int{f.bytes[k]});
      }
    for (int c = 0; c <= most; ++c) classes.names.push_back(str(c));
  }
  for (std::size_t c = 0; c < classes.names.size(); ++c) classes.of_label[c] = static_cast<int>(c);
  return classes;
}

}  // namespace detail

bool has_idx(const std::string& folder, Split split) {
  const std::vector<std::string> names = detail::names_in(folder);
  return std::any_of(names.begin(), names.end(), [split](const std::string& name) {
    return detail::idx_prefix(name, split).has_value();
  });
}

Dataset idx_folder(const std::string& folder, Split split) {
  const detail::IdxNames files(folder);
  const std::string at = files.find(split, "images"), labels_at = files.find(split, "labels");
  const bool train = split == Split::train;
  check(!at.empty(), folder, ": has no ", files.prefix, train ? "train" : "t10k",
        "-images-idx3-ubyte, the ", train ? "training" : "test", " images");
  check(!labels_at.empty(), folder, ": has no labels beside ", at);
  const auto images = std::make_shared<const detail::IdxFile>(detail::read_idx(at, 3));
  const detail::IdxFile labels = detail::read_idx(labels_at, 1);
  const i64 n = images->array.shape[0], H = images->array.shape[1], W = images->array.shape[2];
  check(n == labels.array.shape[0], labels_at, ": ", labels.array.shape[0], " labels for ", n,
        " images in ", at);
  check(n > 0 && H > 0 && W > 0, at, ": holds no images");

  Dataset d;
  const detail::IdxClasses classes = detail::idx_classes(files);
  d.name = folder, d.size = n, d.class_names = classes.names;
  const auto label = std::make_shared<std::vector<i64>>();
  for (i64 i = 0; i < n; ++i) {
    label->push_back(classes.of_label[labels.data()[i]]);
    check(label->back() >= 0, labels_at, ": image ", i, " has label ", int{labels.data()[i]},
          ", which is none of the ", d.class_names.size(), " classes that are named");
  }
  const bool mirrored = files.prefix.starts_with("emnist-");
  d.label = [label](i64 index) { return (*label)[static_cast<std::size_t>(index)]; };
  d.load = [=](i64 index) {
    Sample s{Tensor::empty(mirrored ? Shape{W, H, 3} : Shape{H, W, 3}, DType::uint8),
             (*label)[static_cast<std::size_t>(index)], str(at, ": image ", index)};
    const u8* from = images->data() + index * H * W;
    u8* to = s.image.data<u8>();
    for (i64 i = 0; i < s.image.dim(0); ++i)
      for (i64 j = 0; j < s.image.dim(1); ++j)
        to = std::fill_n(to, 3, mirrored ? from[j * W + i] : from[i * W + j]);
    return s;
  };
  return d;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
