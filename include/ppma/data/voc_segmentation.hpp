#pragma once
#include "ppma/core/names_begin.hpp"
// Images with label maps in PASCAL VOC's layout (Everingham et al., VOC2012's development kit):
//
//   JPEGImages/NAME.jpg                      or another kind of image that is read
//   SegmentationClass/NAME.png               a palette's indices are the classes: 0 the background,
//                                            255 what does not count, as the outlines of objects
//   ImageSets/Segmentation/{train,val}.txt   NAMEs, a line each; test.txt where there is no val.txt
//   classes.txt                              names of the classes, a line each, before which
//                                            "background" is put where it is not the first; without
//                                            it VOC's own

#include <string>
#include <vector>

#include "ppma/data/segmentation.hpp"

namespace ppma::inline PPMA_ABI {

/// VOC's 20 classes behind the background.
PPMA_API const std::vector<std::string>& voc_segmentation_classes();

/// The part of a set in the folder `root`. Errors: no such folders, no list; a name of it without
/// image or label map, or there twice. With `broken` those of single images are put there, and the
/// images left out. Errors of load(): as load_segmentation().
PPMA_API SegmentationSet voc_segmentation(const std::string& root, Split split,
                                          std::vector<std::string>* broken = nullptr);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <filesystem>
#include <memory>
#include <set>
#include <system_error>
#include <utility>

#include "ppma/data/image_folder.hpp"
#include "ppma/data/segmentation_names.hpp"
#include "ppma/data/voc.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/lines.hpp"
#include "ppma/io/utf8.hpp"

namespace ppma::inline PPMA_ABI {

const std::vector<std::string>& voc_segmentation_classes() {
  static const std::vector<std::string> names = detail::split_names(
      "background,aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,diningtable,dog,horse,"
      "motorbike,person,pottedplant,sheep,sofa,train,tvmonitor");
  return names;
}

namespace detail {

inline std::vector<std::string> voc_segmentation_names(const std::string& root) {
  const std::string list = root + "/classes.txt";
  if (std::error_code absent; !std::filesystem::exists(list, absent))
    return voc_segmentation_classes();
  std::vector<std::string> names;
  for (const TextLine& line : read_lines(list)) names.push_back(line.text);
  const bool has_ground =
      !names.empty() && (names[0] == "background" || names[0] == "_background_" ||
                         names[0] == "__background__");  // labelme's; Detectron's
  if (!has_ground) names.insert(names.begin(), "background");
  check(names.size() > 1 && names.size() <= 255, list,
        ": must name 1 to 254 classes beside the background, a line each");
  check(std::set<std::string>(names.begin(), names.end()).size() == names.size(), list,
        ": names a class twice; mend it");
  return names;
}

}  // namespace detail

SegmentationSet voc_segmentation(const std::string& root, Split split,
                                 std::vector<std::string>* broken) {
  const std::string images = root + "/JPEGImages", labels = root + "/SegmentationClass";
  for (const std::string& folder : {images, labels}) {
    std::error_code absent;
    check(std::filesystem::is_directory(folder, absent), root, ": has no folder ",
          folder.substr(root.size() + 1), "; give the folder that has, such as VOCdevkit/VOC2012");
  }
  SegmentationSet set;
  set.name = root, set.class_names = detail::voc_segmentation_names(root);
  const std::string list = detail::voc_list(root, "Segmentation", split);
  const auto of_images =
                 detail::by_stem(images, files_below(images, detail::image_endings()).files),
             of_labels = detail::by_stem(labels, files_below(labels, {".png"}).files);
  auto files = std::make_shared<std::vector<std::pair<std::string, std::string>>>();
  std::set<std::string> seen;
  for (const TextLine& line : read_lines(list)) {
    const std::string where = str(list, ": line ", line.number, ": ");
    check(seen.insert(line.text).second, where, printable(line.text), " is there twice");
    const auto image = of_images.find(line.text), map = of_labels.find(line.text);
    try {
      check(image != of_images.end(), where, "there is no image ", images, "/",
            printable(line.text), ".jpg");
      check(map != of_labels.end(), where, "there is no label map ", labels, "/",
            printable(line.text), ".png");
      files->emplace_back(images + "/" + image->second, labels + "/" + map->second);
    } catch (const Error& e) {
      if (broken == nullptr) throw;
      broken->push_back(e.what());
    }
  }
  check(!files->empty() || broken != nullptr, list, ": names no images");
  set.size = static_cast<i64>(files->size());
  set.load = [files, classes = set.classes()](i64 i) {
    const auto& [image, map] = (*files)[static_cast<std::size_t>(i)];
    return load_segmentation(image, map, plain_labels(), false, classes);
  };
  return set;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
