#pragma once
// Which images: --data. What they are: ppma/commands/data.hpp.

#include "common.hpp"
#include "images.hpp"
#include "ppma/commands/data.hpp"
#include "ppma/io/path_pattern.hpp"

namespace tool {

/// A path that is there, or a pattern, whose files are looked for later.
inline CLI::Validator path_or_pattern() {
  const auto fits = [](std::string& path) -> std::string {
    const bool pattern = path.find('{') != std::string::npos || has_wildcards(path);
    return pattern ? "" : CLI::ExistingPath(path);
  };
  return CLI::Validator(fits, "PATH");
}

/// Which images, for `train` or for `eval`; how many and of what size is in DataOptions::fields.
inline void add_data(CLI::App& app, DataOptions& o, bool trains) {
  std::vector<std::string> kinds{"shapes", "paths",  "cifar10", "cifar100",
                                 "idx",    "folder", "csv",     "tar"};
  const std::string read =
      "shapes, paths (generated), cifar10, cifar100 (binary versions), idx "
      "(MNIST's files), ";
  if (trains) kinds.insert(kinds.end(), {"coco", "voc", "yolo", "cityscapes", "ade20k", "camvid"});
  app.add_option(
         "--data", o.kind,
         read + (trains ? "folder (train/CLASS/*, val/CLASS/*), csv (a list with the "
                          "columns path, label and split: train, and val or test), tar "
                          "(shards as WebDataset has them); with "
                          "--task detect coco (annotations and images), voc (Pascal's "
                          "XML: boxes) or yolo (text files of boxes or outlines); with "
                          "--task segment cityscapes, ade20k, camvid, voc (SegmentationClass) or "
                          "folder (img_dir, ann_dir)"
                        : "folder (val/CLASS/*, or CLASS/*), csv (a list with the "
                          "columns path, label and split: test, or val; or without split), or tar "
                          "(shards as WebDataset has them)"))
      ->check(CLI::IsMember(kinds))
      ->capture_default_str();
  app.add_option("--data-dir", o.folder,
                 "the folder of the files, if they are not generated; of csv: the list; of tar: a "
                 "shard, a folder of shards, or a pattern such as 'DIR/train-{000..099}.tar'")
      ->check(path_or_pattern())
      ->check(some_text());
  add_no_exif(app, o.no_exif);
  app.add_option(
         "--workers", o.workers,
         "threads that prepare images; 0: none beside the network's; default: 2, with a GPU "
         "all that --threads gives")
      ->check(in_range(i64{0}, i64{256}));
}

/// Error: an option was given that says nothing about data of `kind`.
inline void refuse_other_data(const CLI::App& app, const std::string& kind) {
  const auto refuse = [&](const char* name, const char* other) {
    const CLI::Option* option = app.get_option_no_throw(name);
    check(option == nullptr || option->count() == 0, name, " is for --data ", other, ", not ",
          kind);
  };
  if (kind != "paths") refuse("--question", "paths"), refuse("--difficulty", "paths");
  if (is_generated(kind)) return refuse("--data-dir", "folder, csv and other sets on disk");
  refuse("--images", "shapes or paths"), refuse("--test-images", "shapes or paths");
}

}  // namespace tool
