#pragma once
#include "ppma/core/names_begin.hpp"
// What a folder or a file of images is: known layouts (docs/data-sets.md) by what lies in them, and
// their parts, to be looked at.

#include <string>
#include <vector>

#include "ppma/commands/data_look.hpp"

namespace ppma::inline PPMA_ABI {

/// What find_set knows.
constexpr const char* known_layouts =
    "a folder for each class, alone or below train and val; a list (.csv); shards (.tar, or a "
    "pattern of them); CIFAR's binary files; "
    "MNIST's (IDX); COCO's annotations and images; PASCAL VOC's; YOLO's; img_dir and ann_dir; "
    "ADE20K's, Cityscapes' and CamVid's";

/// What a folder or file was found to be.
struct FoundSet {
  std::string is;                 // "CIFAR-10, ..."
  std::string data;               // the kind that reads it (DataOptions); "": none does
  std::string task = "classify";  // that it is for
  bool trains = true;             // else it can only be tested on
  bool boxes_only = false;        // to detect: its objects have no masks
  std::string root{};             // where it is
  std::vector<SetPart> parts{};   // "train", "val"
  std::vector<FoundSet> also{};   // what it is as well: label maps beside boxes
};

/// What is at `path`: a folder, a list (.csv), shards (.tar or a pattern of them), or a file that
/// lies in a folder; COCO's annotations are of the folder above theirs. Where its parts have other
/// classes, the second one is broken. Error: nothing that is known.
PPMA_API FoundSet find_set(const std::string& path);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <filesystem>
#include <string_view>
#include <tuple>
#include <utility>

#include "ppma/commands/data_parts.hpp"
#include "ppma/data/cifar.hpp"
#include "ppma/data/idx_folder.hpp"
#include "ppma/data/image_list.hpp"
#include "ppma/data/tar_shards.hpp"
#include "ppma/data/voc_segmentation.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline FoundSet find_cifar(const std::string& root, const Listing& list) {
  const bool hundred = list.file("train.bin", "") || list.file("test.bin", "");
  FoundSet found{str("CIFAR-", hundred ? 100 : 10, " in its binary version"),
                 str("cifar", hundred ? 100 : 10)};
  for (const auto& [name, split, begin] :
       {std::tuple{"train", Split::train, hundred ? "train.bin" : "data_batch_"},
        std::tuple{"test", Split::test, ""}})
    if (list.file(begin, ".bin"))
      found.parts.push_back(
          part_of(name, [&, &n = name, &s = split] { return classified(n, cifar(root, s)); }));
  return found;
}

inline FoundSet find_idx(const std::string& root) {
  FoundSet found{"grey images in MNIST's form (IDX)", "idx"};
  for (const auto& [name, split] : {std::pair{"train", Split::train}, {"test", Split::test}})
    if (split == Split::test || has_idx(root, split))
      found.parts.push_back(
          part_of(name, [&, &n = name, &s = split] { return classified(n, idx_folder(root, s)); }));
  return found;
}

/// Images with objects, in the layout `kind`.
inline FoundSet find_objects(const std::string& kind, const std::string& root, bool has_train) {
  FoundSet found{"images with objects, in " + std::string(kind == "coco"  ? "COCO's files"
                                                          : kind == "voc" ? "PASCAL VOC's layout"
                                                                          : "YOLO's layout"),
                 kind, "detect"};
  bool masks = false;
  for (const char* name : {"train", "val"})
    if (std::string_view(name) == "val" || has_train)
      found.parts.push_back(detection_part(kind, name, root, masks));
  found.boxes_only = !masks;
  return found;
}

inline FoundSet find_segmentation(const std::string& root, SegmentationLayout layout) {
  const std::string kind = to_string(layout);
  FoundSet found{"images with a class for every pixel" + (kind == "folder" ? "" : ", as " + kind),
                 kind, "segment"};
  const Listing list(root);
  for (const auto& [name, split] : {std::pair{"train", Split::train}, {"val", Split::val}})
    if (split == Split::val || list.folder(detail::segmentation_places(layout, split).first))
      found.parts.push_back(part_of(
          name, [&, &n = name, &s = split] { return segmented(n, segmentation_folder(root, s)); }));
  return found;
}

/// PASCAL VOC's label maps.
inline FoundSet find_voc_maps(const std::string& root) {
  FoundSet found{"images with a class for every pixel, in PASCAL VOC's layout", "voc", "segment"};
  const Listing lists(root + "/ImageSets/Segmentation");
  for (const auto& [name, split] : {std::pair{"train", Split::train}, {"val", Split::val}})
    if (split == Split::val || lists.file("train.txt", ""))
      found.parts.push_back(part_of(name, [&, &n = name, &s = split] {
        std::vector<std::string> broken;
        SetPart p = segmented(n, voc_segmentation(root, s, &broken));
        p.broken = std::move(broken);
        return p;
      }));
  return found;
}

/// PASCAL VOC's boxes, label maps or both.
inline FoundSet find_voc(const std::string& root, const Listing& list) {
  const Listing main(root + "/ImageSets/Main"), maps(root + "/ImageSets/Segmentation");
  const bool has_maps = list.folder("SegmentationClass") && maps.file("", ".txt");
  if (!list.folder("Annotations") || (has_maps && !main.file("", ".txt")))
    return find_voc_maps(root);
  FoundSet found = find_objects("voc", root, main.file("train.txt", ""));
  if (has_maps) found.also.push_back(find_voc_maps(root));
  return found;
}

inline FoundSet find_classes(const std::string& root, const Listing& list) {
  FoundSet found{"a folder for each class", "folder"};
  if (list.folder("train") || list.folder("val")) {
    for (const char* name : {"train", "val"})
      if (std::string_view(name) == "val" || list.folder(name))
        found.parts.push_back(class_part(name, root + "/" + name));
    return found;
  }
  check(list.any_folder() && !list_classes(root).files.empty(), root,
        ": holds no set that is known; known are ", known_layouts);
  found.parts.push_back(class_part("", root));
  return found;
}

inline FoundSet find_list(const std::string& path) {
  FoundSet found{"a list of images (CSV)", "csv"};
  ImageList list;
  SetPart whole = part_of("", [&] {
    list = read_image_list(path);
    return SetPart{};
  });
  if (list.has_splits() && !list.has(Split::val) && !list.has(Split::test))
    whole.broken.push_back(path + ": no image has the split val or test, to test on");
  for (const Split split : {Split::train, Split::val, Split::test})
    if (list.has(split) || (split == Split::test && !list.images.empty() && !list.has_splits())) {
      const std::string name = list.has_splits() ? to_string(split) : "";
      found.parts.push_back(classified(name, image_list(list, split, {}, false)));
      // What is not tested is no fault.
      found.parts.back().all_classes = split == Split::train || !list.has_splits();
    }
  found.trains = list.has(Split::train);
  if (list.images.empty()) found.data = "";  // it could not be read
  if (!whole.broken.empty()) found.parts.push_back(whole);
  return found;
}

/// Shards: those of a path, and the others that lie beside them and are tested on.
inline FoundSet find_shards(const std::string& path) {
  FoundSet found{"shards of images (tar), as WebDataset has them", "tar"};
  std::vector<TarShards> all;
  for (const Split split : {Split::train, Split::val, Split::test})
    if (const std::vector<std::string> paths = tar_paths(path, split); !paths.empty())
      found.parts.push_back(part_of(to_string(split), [&] {
        all.push_back(read_tar_shards(paths));
        return SetPart{.name = to_string(split)};
      }));
  std::vector<const TarShards*> read;
  for (const TarShards& shards : all) read.push_back(&shards);
  const std::vector<std::string> classes =
      read.empty() ? std::vector<std::string>() : tar_classes(read);
  for (std::size_t k = 0, next = 0; k < found.parts.size(); ++k)
    if (SetPart& part = found.parts[k]; part.broken.empty()) {
      part = classified(part.name, tar_set(all[next++], classes));
      part.all_classes = part.name == "train";
    }
  if (found.parts.size() == 1 && found.parts[0].name == "train")
    found.parts[0].name = "", found.trains = false;  // which takes all
  return found;
}

/// What a folder is. Error: nothing that is known.
inline FoundSet find_in(const std::string& root) {
  const Listing list(root);
  FoundSet found;
  if (list.file("train.bin", "") || list.file("test.bin", "") || list.file("data_batch_", ".bin") ||
      list.file("test_batch.bin", ""))
    found = find_cifar(root, list);
  else if (has_idx(root, Split::train) || has_idx(root, Split::test))
    found = find_idx(root);
  else if (const Listing annotations(root + "/annotations");
           annotations.file("instances_", ".json"))
    found = find_objects("coco", root, annotations.file("instances_train", ".json"));
  else if ((list.folder("Annotations") || list.folder("SegmentationClass")) &&
           list.folder("JPEGImages"))
    found = find_voc(root, list);
  else if (list.folder("labels/train") || list.folder("labels/val") ||
           list.folder("train/labels") || list.folder("valid/labels"))
    found = find_objects("yolo", root, list.folder("images/train") || list.folder("train/images"));
  else if (list.file("", ".tar") && !list.folder("train") && !list.folder("val"))
    found = find_shards(root);
  else if (const auto layout = segmentation_layout(root))
    found = find_segmentation(root, *layout);
  else
    found = find_classes(root, list);
  return found;
}

/// Says where a set is, and what its parts mean together.
inline void settle(FoundSet& found, const std::string& root) {
  found.root = root;
  for (FoundSet& other : found.also) settle(other, root);
  std::vector<SetPart>& parts = found.parts;
  if (parts.size() == 1 && parts[0].name != "train") {
    found.trains = false;  // images to be tested on are a set too
    if (found.task != "classify") found.data = "";
  }
  if (parts.size() != 2 || parts[0].classes.empty() || parts[1].classes.empty()) return;
  const std::string difference = class_difference(parts[0].classes, parts[1].classes);
  if (!difference.empty())
    parts[1].broken.push_back(str(root, ": ", parts[0].name, " and ", parts[1].name,
                                  " have different classes; in ", parts[1].name, " ", difference));
}

}  // namespace detail

FoundSet find_set(const std::string& path) {
  namespace fs = std::filesystem;
  const bool folder = fs::is_directory(path), is_list = !folder && ending_of(path) == ".csv",
             is_shards = !folder && ending_of(path) == ".tar";
  check(fs::exists(path) || is_shards, path, ": there is no such file");
  std::string root = folder || is_list || is_shards ? path : fs::path(path).parent_path().string();
  if (root.empty()) root = ".";
  if (!folder && !is_list && !is_shards && fs::path(root).filename() == "annotations")
    root += "/..";  // COCO's
  FoundSet found = is_list     ? detail::find_list(root)
                   : is_shards ? detail::find_shards(root)
                               : detail::find_in(root);
  detail::settle(found, root);
  return found;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
