#pragma once
#include "ppma/core/names_begin.hpp"
// Images in tar archives (shards) as WebDataset lays them out (https://github.com/webdataset): the
// files of a sample have one name up to the first dot of its last part.
//
//   KEY.jpg     the image, or another kind that is read
//   KEY.cls     its class's number; where it is missing, KEY.json says it as "label"
//   KEY.json    may name the class, as "class_name"
//   KEY.txt     may be the class's name
//   classes.txt beside the shards, may name the classes, a line each
//
// Shards are indexed once and stay as they are: an image is read where it lies.

#include <map>
#include <string>
#include <vector>

#include "ppma/data/dataset.hpp"
#include "ppma/io/image.hpp"

namespace ppma::inline PPMA_ABI {

struct TarSample {
  std::size_t shard = 0, begin = 0, bytes = 0;  // where the image lies
  i64 label = 0;
  std::string name;  // of the image's file
};

/// What lies in some shards.
struct TarShards {
  std::vector<std::string> paths;
  std::vector<TarSample> samples;    // shard by shard, in the order in which their first files are
  i64 classes = 0;                   // one more than the largest label
  std::map<i64, std::string> names;  // of the classes that occur; "": several
  std::string left_out;              // what of the samples is not there and why, for messages
};

/// Indexes shards. Errors: those of read_tar; no images; a file that is there twice; an image
/// without a class; one that is no whole number.
PPMA_API TarShards read_tar_shards(const std::vector<std::string>& paths);

/// The classes of the parts of a set: the lines of classes.txt in the first shard's folder; else
/// the names that the shards have where they have one for each class that occurs, each another;
/// else the numbers. Errors: a classes.txt of less lines than there are classes.
PPMA_API std::vector<std::string> tar_classes(const std::vector<const TarShards*>& parts);

/// The images, which are decoded when they are asked for.
PPMA_API Dataset tar_set(TarShards shards, std::vector<std::string> class_names,
                         ImageReading reading = {});

/// The shards that a path stands for: a folder's *.tar, or a pattern with braces and wildcards.
/// Errors: none; one that is not there.
PPMA_API std::vector<std::string> tar_paths(const std::string& path);

/// Of those the ones to learn from (train), or to test on (val, test), by how their names begin:
/// val and test are to be tested on, others learnt from. Where there are none to test on, those in
/// the folder of the first shard.
PPMA_API std::vector<std::string> tar_paths(const std::string& path, Split split);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "ppma/core/parallel.hpp"
#include "ppma/data/image_folder.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/lines.hpp"
#include "ppma/io/path_pattern.hpp"
#include "ppma/io/tar.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The files of a sample.
struct TarKey {
  const TarEntry *image = nullptr, *cls = nullptr, *json = nullptr, *txt = nullptr;
  const TarEntry* other = nullptr;  // one that is none of them
};

/// What one shard has.
struct TarShard {
  std::vector<TarSample> samples;
  std::vector<std::pair<i64, std::string>> names;  // of classes, as samples say
  std::vector<std::string> without_image;          // names of files
};

class TarShardReader {
 public:
  explicit TarShardReader(const std::string& path)
      : path_(path), entries_(read_tar(path)), file_(path) {
    std::map<std::string, std::size_t> rank;
    for (const TarEntry& e : entries_) {
      const std::size_t last = e.name.rfind('/') + 1, dot = e.name.find('.', last);
      if (dot == std::string::npos || dot == last) continue;  // hidden, or without an ending
      const auto [at, is_new] = rank.emplace(e.name.substr(0, dot), keys_.size());
      if (is_new) keys_.emplace_back();
      put(keys_[at->second], e, ending_of("x" + e.name.substr(dot)), e.name.substr(dot));
    }
  }
  TarShard read(std::size_t shard) const {
    TarShard all;
    for (const TarKey& k : keys_) {
      if (k.image == nullptr) {
        const TarEntry* const any = k.other ? k.other : k.cls ? k.cls : k.json ? k.json : k.txt;
        all.without_image.push_back(any->name);
        continue;
      }
      std::string name;
      const i64 label = label_of(k, name);
      all.samples.push_back({shard, k.image->begin, k.image->bytes, label, k.image->name});
      if (!name.empty()) all.names.emplace_back(label, std::move(name));
    }
    return all;
  }

 private:
  void put(TarKey& k, const TarEntry& e, const std::string& ending, const std::string& whole) {
    const auto& images = image_endings();
    const bool image = whole.size() == ending.size() &&
                       std::find(images.begin(), images.end(), ending) != images.end();
    const TarEntry** const place = image              ? &k.image
                                   : whole == ".cls"  ? &k.cls
                                   : whole == ".json" ? &k.json
                                   : whole == ".txt"  ? &k.txt
                                                      : &k.other;
    check(place == &k.other || *place == nullptr, path_, ": ", printable(e.name),
          image ? ": its sample has two images" : ": is there twice");
    *place = &e;
  }
  std::string text(const TarEntry& e) const {
    check(e.bytes <= 1 << 20, path_, ": ", printable(e.name), ": has ", e.bytes,
          " bytes, too many for what a sample says of its image");
    std::string bytes(e.bytes, '\0');
    file_.read(e.begin, e.bytes, reinterpret_cast<u8*>(bytes.data()));
    return bytes;
  }
  std::string line(const TarEntry& e) const {
    std::string s = text(e);
    const std::size_t begin = std::min(s.find_first_not_of(" \t\r\n"), s.size());
    return s.substr(begin, s.find_last_not_of(" \t\r\n") + 1 - begin);
  }
  /// The class, and its name if the sample says one.
  i64 label_of(const TarKey& k, std::string& name) const {
    nlohmann::json j;
    if (k.json != nullptr) j = nlohmann::json::parse(text(*k.json), nullptr, false);
    check(!j.is_discarded(), path_, ": ", printable(k.json ? k.json->name : ""), ": is no JSON");
    const auto member = [&](const char* key) -> const nlohmann::json* {
      return j.is_object() && j.contains(key) ? &j[key] : nullptr;
    };
    if (const auto* said = member("class_name"); said != nullptr && said->is_string())
      name = said->get<std::string>();
    else if (k.txt != nullptr)
      name = line(*k.txt);
    if (k.cls != nullptr) {
      const std::string digits = line(*k.cls);
      check(!digits.empty() && digits.size() <= 6 &&
                digits.find_first_not_of("0123456789") == std::string::npos,
            path_, ": ", printable(k.cls->name), ": the class is \"", printable(digits),
            "\"; it must be a whole number from 0");
      return std::stol(digits);
    }
    const auto* const label = member("label");
    check(label != nullptr && label->is_number_unsigned() && label->get<u64>() < 1000000, path_,
          ": ", printable(k.image->name),
          ": has no class: neither a .cls beside it, nor a .json with a "
          "whole number as \"label\"");
    return label->get<i64>();
  }

  const std::string& path_;
  std::vector<TarEntry> entries_;
  PartReader file_;
  std::vector<TarKey> keys_{};
};

}  // namespace detail

TarShards read_tar_shards(const std::vector<std::string>& paths) {
  std::vector<detail::TarShard> all(paths.size());
  parallel_for(static_cast<i64>(paths.size()), 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const std::size_t shard = static_cast<std::size_t>(i);
      all[shard] = detail::TarShardReader(paths[shard]).read(shard);
    }
  });
  TarShards shards;
  shards.paths = paths;
  i64 without = 0;
  std::string such;
  for (detail::TarShard& one : all) {
    for (TarSample& s : one.samples) {
      shards.classes = std::max(shards.classes, s.label + 1);
      shards.samples.push_back(std::move(s));
    }
    for (auto& [label, name] : one.names) {
      const auto [at, is_new] = shards.names.emplace(label, name);
      if (!is_new && at->second != name) at->second.clear();
    }
    if (such.empty() && !one.without_image.empty()) such = one.without_image[0];
    without += static_cast<i64>(one.without_image.size());
    one = {};
  }
  if (without > 0)
    shards.left_out = str(without, without == 1 ? " sample" : " samples", " without an image (",
                          detail::image_kinds, "), such as ", printable(such));
  check(!shards.samples.empty(), paths.empty() ? "tar" : paths[0], ": has no images",
        shards.left_out.empty() ? "" : ", but ", shards.left_out);
  return shards;
}

std::vector<std::string> tar_classes(const std::vector<const TarShards*>& parts) {
  i64 classes = 0;
  std::map<i64, std::string> names;
  std::set<i64> occurring;
  for (const TarShards* part : parts) {
    classes = std::max(classes, part->classes);
    for (const TarSample& s : part->samples) occurring.insert(s.label);
    for (const auto& [label, name] : part->names) {
      const auto [at, is_new] = names.emplace(label, name);
      if (!is_new && at->second != name) at->second.clear();
    }
  }
  std::vector<std::string> list;
  const std::string file =
      (std::filesystem::path(parts.at(0)->paths.at(0)).parent_path() / "classes.txt").string();
  if (std::error_code absent; std::filesystem::exists(file, absent)) {
    for (const TextLine& line : read_lines(file)) list.push_back(line.text);
    check(static_cast<i64>(list.size()) >= classes, file, ": names ", list.size(),
          " classes; the shards have the class ", classes - 1);
    return list;
  }
  std::set<std::string> different;
  for (const auto& [label, name] : names)
    if (!name.empty() && is_utf8(name)) different.insert(name);
  const bool named = different.size() == occurring.size();
  for (i64 c = 0; c < classes; ++c)
    list.push_back(named && occurring.count(c) > 0 ? names.at(c) : str(c));
  return list;
}

Dataset tar_set(TarShards shards, std::vector<std::string> class_names, ImageReading reading) {
  Dataset d;
  d.name = shards.paths.at(0), d.class_names = std::move(class_names);
  if (shards.paths.size() > 1) d.name += str(" and ", shards.paths.size() - 1, " more");
  d.size = static_cast<i64>(shards.samples.size()), d.left_out = shards.left_out;
  const auto all = std::make_shared<const TarShards>(std::move(shards));
  d.load = [all, reading](i64 index) {
    const TarSample& s = all->samples[static_cast<std::size_t>(index)];
    const std::string& shard = all->paths[s.shard];
    const std::string name = shard + ": " + printable(s.name);
    return Sample{decode_image(read_part(shard, s.begin, s.bytes), name, reading), s.label, name};
  };
  return d;
}

namespace detail {

inline std::vector<std::string> tars_in(const std::string& folder) {
  return matching_files((folder.empty() ? "" : folder + "/") + "*.tar");
}

inline bool is_of(const std::string& path, Split split) {
  return std::filesystem::path(path).filename().string().starts_with(to_string(split));
}

inline std::vector<std::string> tars_of(std::vector<std::string> all, Split split) {
  std::erase_if(all, [split](const std::string& path) { return !is_of(path, split); });
  return all;
}

}  // namespace detail

std::vector<std::string> tar_paths(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code absent;
  if (fs::is_directory(path, absent)) {
    std::vector<std::string> all = detail::tars_in(path);
    check(!all.empty(), path, ": has no .tar");
    return all;
  }
  if (fs::exists(path, absent)) return {path};
  std::vector<std::string> all;
  for (const std::string& one : expand_braces(path)) {
    std::vector<std::string> found{one};
    if (has_wildcards(one) && !fs::exists(one, absent)) found = matching_files(one);
    check(!found.empty(), one, ": there is no such file");
    for (const std::string& f : found) check(fs::exists(f, absent), f, ": there is no such file");
    all.insert(all.end(), found.begin(), found.end());
  }
  return all;
}

std::vector<std::string> tar_paths(const std::string& path, Split split) {
  const std::vector<std::string> all = tar_paths(path);
  if (split != Split::train) {
    const std::vector<std::string> given = detail::tars_of(all, split);
    const std::string folder = std::filesystem::path(all[0]).parent_path().string();
    return given.empty() ? detail::tars_of(detail::tars_in(folder), split) : given;
  }
  std::vector<std::string> rest = all;
  for (const Split other : {Split::val, Split::test})
    std::erase_if(rest, [other](const std::string& p) { return detail::is_of(p, other); });
  return rest;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
