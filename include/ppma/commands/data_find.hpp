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
};

/// What is at `path`: a folder, a list (.csv), shards (.tar or a pattern of them), or a file that
/// lies in a folder; COCO's annotations are of the folder above theirs. Where its parts have other
/// classes, the second one is broken. Error: nothing that is known.
PPMA_API FoundSet find_set(const std::string& path);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <tuple>
#include <utility>

#include "ppma/commands/dense_data.hpp"
#include "ppma/data/cifar.hpp"
#include "ppma/data/idx_folder.hpp"
#include "ppma/data/image_folder.hpp"
#include "ppma/data/image_list.hpp"
#include "ppma/data/tar_shards.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/io/rle.hpp"
#include "ppma/vis/overlay.hpp"
#include "ppma/vis/segment_picture.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// A part whose set make() reads; an error of it is what is broken.
template <class F>
SetPart part_of(const std::string& name, F make) {
  try {
    return make();
  } catch (const Error& e) {
    SetPart part{.name = name};
    part.broken.push_back(e.what());
    return part;
  }
}

constexpr i64 drawn_side = 480;  // names drawn into larger images could not be read in a sheet

/// What lies directly in a folder, as far as it can be read.
class Listing {
 public:
  explicit Listing(std::string root) : root_(std::move(root)) {
    std::error_code failed;
    std::filesystem::directory_iterator it(root_, failed);
    for (; !failed && it != std::filesystem::directory_iterator(); it.increment(failed))
      names_.push_back(it->path().filename().string());
  }
  bool file(std::string_view begin, std::string_view end) const {
    return std::any_of(names_.begin(), names_.end(), [&](const std::string& n) {
      return n.starts_with(begin) && n.ends_with(end) && !folder(n);
    });
  }
  bool any_folder() const {
    return std::any_of(names_.begin(), names_.end(),
                       [&](const std::string& n) { return !is_hidden(n) && folder(n); });
  }
  bool folder(const std::string& name) const {
    std::error_code failed;
    return std::filesystem::is_directory(root_ + "/" + name, failed);
  }

 private:
  std::string root_;
  std::vector<std::string> names_{};
};

inline SetPart classified(const std::string& name, const Dataset& set) {
  SetPart p{.name = name, .classes = set.class_names};
  p.size = set.size, p.left_out = set.left_out;
  p.see = [set](i64 i) -> ImageFacts {
    const Sample s = set.load(i);
    return {s.image.dim(0), s.image.dim(1), {{s.label, 1}}};
  };
  p.picture = [set](i64 i) { return set.load(i).image; };
  return p;
}

/// How many times an image has to be smaller to be drawn into.
inline double shrinking(const Tensor& image) {
  return std::max(1.0, static_cast<double>(std::max(image.dim(0), image.dim(1))) / drawn_side);
}

inline i64 shrunk(i64 pixels, double factor) {
  return std::max(i64{1}, static_cast<i64>(static_cast<double>(pixels) / factor));
}

inline SetPart segmented(const std::string& name, const SegmentationSet& set) {
  SetPart p{.name = name, .classes = set.class_names, .unit = "pixels"};
  p.size = set.size, p.left_out = set.left_out;
  p.all_classes = name == "train";  // what is not tested is a gap in the figures only
  p.see = [set](i64 i) -> ImageFacts {
    const SegmentationSample s = set.load(i);
    std::vector<i64> counts(256, 0);
    for (i64 k = 0; k < s.labels.numel(); ++k) ++counts[s.labels.data<u8>()[k]];
    ImageFacts seen{s.image.dim(0), s.image.dim(1)};
    for (std::size_t c = 0; c < 255; ++c)
      if (counts[c] > 0) seen.counts.emplace_back(static_cast<i64>(c), counts[c]);
    return seen;
  };
  p.picture = [set](i64 i) {
    const SegmentationSample s = set.load(i);
    const i64 H = s.image.dim(0), W = s.image.dim(1);
    const double f = shrinking(s.image);
    if (f == 1) return segment_picture(s.image, s.labels, set.class_names, 320).image();
    const Tensor labels = resize_nearest(s.labels.viewed_as({H, W, 1}), shrunk(H, f), shrunk(W, f));
    return segment_picture(resize_antialiased(s.image, shrunk(H, f), shrunk(W, f)),
                           labels.viewed_as({labels.dim(0), labels.dim(1)}), set.class_names, 320)
        .image();
  };
  return p;
}

inline SetPart detected(const std::string& name, const DetectionSet& set) {
  SetPart p{.name = name, .classes = set.class_names, .unit = "objects"};
  p.size = set.size, p.left_out = set.left_out;
  p.all_classes = name == "train";
  p.see = [set](i64 i) -> ImageFacts {
    const DetectionSample s = set.load(i);
    std::vector<i64> counts(set.class_names.size(), 0);
    for (const i64 c : s.objects.classes) ++counts[static_cast<std::size_t>(c)];
    ImageFacts seen{s.image.dim(0), s.image.dim(1)};
    for (std::size_t c = 0; c < counts.size(); ++c)
      if (counts[c] > 0) seen.counts.emplace_back(static_cast<i64>(c), counts[c]);
    return seen;
  };
  p.picture = [set](i64 i) {
    const DetectionSample s = set.load(i);
    const i64 H = s.image.dim(0), W = s.image.dim(1);
    const double f = shrinking(s.image);
    const i64 h = shrunk(H, f), w = shrunk(W, f);
    std::vector<Shown> shown;
    for (std::size_t k = 0; k < s.objects.boxes.size(); ++k) {
      const Box& b = s.objects.boxes[k];
      const i64 label = s.objects.classes[k];
      const auto at = [f](float v) { return static_cast<double>(v) / f; };
      Shown one{at(b.x1), at(b.y1), at(b.x2),
                at(b.y2), label,    set.class_names[static_cast<std::size_t>(label)]};
      if (s.objects.masks.defined()) {
        Tensor mask = Tensor::empty({H, W, 1}, DType::uint8);
        std::copy_n(s.objects.masks.data<u8>() + static_cast<i64>(k) * H * W, H * W,
                    mask.data<u8>());
        one.mask = rle_encode(resize_nearest(mask, h, w).viewed_as({h, w}));
      }
      shown.push_back(one);
    }
    return overlay(f == 1 ? s.image : resize_antialiased(s.image, h, w), shown, 320).image();
  };
  return p;
}

/// Classes whose folders are below `root`; those without images are broken, and named.
inline SetPart class_part(const std::string& name, const std::string& root) {
  return part_of(name, [&] {
    const ClassFolders found = list_classes(root);
    SetPart p = classified(name, image_folder(found));
    p.all_classes = false;
    for (const auto& [empty, others] : found.empty)
      p.broken.push_back(str(root, "/", empty, ": a class without images",
                             others.empty() ? "" : "; it holds ", others));
    return p;
  });
}

inline SetPart detection_part(const std::string& kind, const std::string& name,
                              const std::string& root, bool& any_mask) {
  return part_of(name, [&] {
    std::vector<std::string> broken;
    const DetectionFiles files = detection_files(kind, root, name, true, &broken);
    const bool masks = files.any_mask();
    any_mask = any_mask || masks;
    SetPart p = detected(name, detection_set(files, masks, true));
    p.broken = std::move(broken);
    return p;
  });
}

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
  else if (list.folder("Annotations") && list.folder("JPEGImages"))
    found = find_objects("voc", root, Listing(root + "/ImageSets/Main").file("train.txt", ""));
  else if (list.folder("labels/train") || list.folder("labels/val") ||
           list.folder("train/labels") || list.folder("valid/labels"))
    found = find_objects("yolo", root, list.folder("images/train") || list.folder("train/images"));
  else if (list.file("", ".tar") && !list.folder("train") && !list.folder("val"))
    found = find_shards(root);
  else if (const auto layout = segmentation_layout(root))
    found = find_segmentation(root, *layout);
  else
    found = find_classes(root, list);
  if (found.parts.size() == 1 && found.parts[0].name != "train") {
    found.trains = false;  // images to be tested on are a set too
    if (found.task != "classify") found.data = "";
  }
  return found;
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
  found.root = root;
  std::vector<SetPart>& parts = found.parts;
  if (parts.size() != 2 || parts[0].classes.empty() || parts[1].classes.empty()) return found;
  const std::string difference = class_difference(parts[0].classes, parts[1].classes);
  if (!difference.empty())
    parts[1].broken.push_back(str(root, ": ", parts[0].name, " and ", parts[1].name,
                                  " have different classes; in ", parts[1].name, " ", difference));
  return found;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
