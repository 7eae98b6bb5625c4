#pragma once
#include "ppma/core/names_begin.hpp"
// Images with boxes in PASCAL VOC's layout (Everingham et al., VOC2012's development kit):
//
//   Annotations/NAME.xml             objects of an image: name, bndbox, difficult
//   JPEGImages/NAME.jpg              or another kind of image that is read
//   ImageSets/Main/{train,val}.txt   NAMEs, a line each; test.txt where there is no val.txt
//   classes.txt                      names of the classes, a line each; without it the names that
//                                    occur in both lists, sorted
//
// A box is of whole pixels that count from 1, its corners among them: xmin - 1 to xmax in pixels'
// edges. Difficult objects are COCO's crowds: not learnt from, and no detection on them is wrong.
// Its label maps: voc_segmentation.hpp.

#include <string>
#include <vector>

#include "ppma/data/detection_sets.hpp"

namespace ppma::inline PPMA_ABI {

struct VocObject {
  std::string name;
  CocoBox box{};  // x, y, width, height in pixels from 0
  bool difficult = false;
};

/// What an annotation file says of an image.
struct VocAnnotation {
  i64 height = 0, width = 0;  // 0: it does not say
  std::vector<VocObject> objects;
};

/// An annotation in memory; `name` is what errors call it. Errors: those of parse_xml; another
/// element than "annotation"; an object without name or bndbox; corners that are no numbers, or in
/// the wrong order; each with its line.
PPMA_API VocAnnotation parse_voc(Bytes xml, const std::string& name);

/// The part of a set in the folder `root`. Errors: no list; an image or an annotation of it that is
/// not there or cannot be read; a class that classes.txt does not have. With `broken` those of
/// single images are put there, and the images left out.
PPMA_API DetectionFiles voc_files(const std::string& root, Split split,
                                  std::vector<std::string>* broken = nullptr);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>

#include "ppma/data/image_folder.hpp"
#include "ppma/data/segmentation.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/lines.hpp"
#include "ppma/io/utf8.hpp"
#include "ppma/io/xml.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// The child that an element must have.
inline const XmlElement& xml_child(const XmlElement& e, const char* child,
                                   const std::string& name) {
  const XmlElement* found = e.find(child);
  check(found != nullptr, name, ": line ", e.line, ": the element ", printable(e.name), " has no ",
        child);
  return *found;
}

inline double xml_number(const XmlElement& e, const char* child, const std::string& name) {
  const XmlElement& found = xml_child(e, child, name);
  double value = 0;
  check(take_decimal(found.text, value) && value >= -1e6 && value <= 1e6, name, ": line ",
        found.line, ": ", child, " is \"", printable(found.text), "\", not a number of pixels");
  return value;
}

inline CocoBox voc_box(const XmlElement& object, const std::string& name) {
  const XmlElement& b = xml_child(object, "bndbox", name);
  const double x1 = xml_number(b, "xmin", name), y1 = xml_number(b, "ymin", name),
               x2 = xml_number(b, "xmax", name), y2 = xml_number(b, "ymax", name);
  check(x1 <= x2 && y1 <= y2, name, ": line ", b.line, ": the box from (", x1, ", ", y1, ") to (",
        x2, ", ", y2, ") has its corners in the wrong order");
  // Some tools count from 0.
  const double left = std::max(x1 - 1, 0.0), top = std::max(y1 - 1, 0.0);
  return {left, top, std::max(x2 - left, 0.0), std::max(y2 - top, 0.0)};
}

}  // namespace detail

VocAnnotation parse_voc(Bytes xml, const std::string& name) {
  const XmlElement root = parse_xml(xml, name);
  check(root.name == "annotation", name, ": line ", root.line, ": the element is \"",
        printable(root.name), "\"; PASCAL VOC's is \"annotation\"");
  VocAnnotation a;
  if (const XmlElement* size = root.find("size")) {
    const auto side = [&](const char* which) {
      const double pixels = detail::xml_number(*size, which, name);
      const i64 whole = static_cast<i64>(pixels);
      check(pixels >= 0 && static_cast<double>(whole) == pixels, name, ": line ", size->line, ": ",
            which, " is ", pixels);
      return whole;
    };
    a.height = side("height"), a.width = side("width");
    if (a.height == 0 || a.width == 0) a.height = a.width = 0;  // some tools do not know it
  }
  for (const XmlElement& e : root.children) {
    if (e.name != "object") continue;
    VocObject o{detail::xml_child(e, "name", name).text, detail::voc_box(e, name)};
    check(!o.name.empty(), name, ": line ", e.line, ": an object whose name is empty");
    if (const XmlElement* difficult = e.find("difficult"); difficult && !difficult->text.empty()) {
      check(difficult->text == "0" || difficult->text == "1", name, ": line ", difficult->line,
            ": difficult is \"", printable(difficult->text), "\"; it must be 0 or 1");
      o.difficult = difficult->text == "1";
    }
    a.objects.push_back(std::move(o));
  }
  return a;
}

namespace detail {

/// The list of a part; `task`: "Main", "Segmentation".
inline std::string voc_list(const std::string& root, const std::string& task, Split split) {
  const std::string lists = root + "/ImageSets/" + task + "/";
  std::error_code absent;
  const bool other = split != Split::train && !std::filesystem::exists(lists + "val.txt", absent) &&
                     std::filesystem::exists(lists + "test.txt", absent);
  return lists + (split == Split::train ? "train" : other ? "test" : "val") + ".txt";
}

/// An image of a list with its annotation, or why there is none.
struct VocImage {
  std::string name, path;  // path: below JPEGImages
  VocAnnotation says{};
  std::string wrong{};
};

inline std::vector<VocImage> voc_images(const std::string& root, Split split) {
  check(std::filesystem::is_directory(root + "/Annotations"), root,
        ": has no folder Annotations; give the folder that has, such as VOCdevkit/VOC2012");
  const std::string list = voc_list(root, "Main", split), folder = root + "/JPEGImages";
  const auto of_stem = by_stem(folder, files_below(folder, image_endings()).files);
  std::vector<VocImage> images;
  std::set<std::string> seen;
  for (const TextLine& line : read_lines(list)) {
    const std::string where = str(list, ": line ", line.number, ": ");
    check(seen.insert(line.text).second, where, printable(line.text), " is there twice");
    const auto image = of_stem.find(line.text);
    VocImage one{line.text, image == of_stem.end() ? "" : image->second};
    try {
      check(image != of_stem.end(), where, "there is no image ", folder, "/", printable(line.text),
            ".jpg");
      const std::string path = root + "/Annotations/" + line.text + ".xml";
      one.says = parse_voc(read_file(path), path);
    } catch (const Error& e) {
      one.wrong = e.what();
    }
    images.push_back(std::move(one));
  }
  check(!images.empty(), list, ": names no images");
  return images;
}

/// The classes of both parts: those of classes.txt, or the names that occur.
inline std::vector<std::string> voc_classes(const std::string& root,
                                            const std::vector<VocImage>& images, Split split) {
  std::vector<std::string> names;
  if (std::error_code absent; std::filesystem::exists(root + "/classes.txt", absent)) {
    for (const TextLine& line : read_lines(root + "/classes.txt")) names.push_back(line.text);
    check(
        !names.empty() && std::set<std::string>(names.begin(), names.end()).size() == names.size(),
        root, "/classes.txt: must name the classes, a line each, none twice");
    return names;
  }
  std::set<std::string> all;
  const auto add = [&](const std::vector<VocImage>& part) {
    for (const VocImage& image : part)
      for (const VocObject& o : image.says.objects) all.insert(o.name);
  };
  add(images);
  const Split other = split == Split::train ? Split::val : Split::train;
  if (std::error_code absent; std::filesystem::exists(voc_list(root, "Main", other), absent))
    add(voc_images(root, other));
  check(!all.empty(), root, ": no image of its lists has an object");
  return {all.begin(), all.end()};
}

}  // namespace detail

DetectionFiles voc_files(const std::string& root, Split split, std::vector<std::string>* broken) {
  const std::vector<detail::VocImage> images = detail::voc_images(root, split);
  const std::vector<std::string> names = detail::voc_classes(root, images, split);
  std::map<std::string, i64> number;
  auto truth = std::make_shared<CocoTruth>();
  truth->path = root + "/Annotations";
  for (const std::string& name : names) {
    const i64 rank = static_cast<i64>(number.size());
    number[name] = rank, truth->categories.push_back({rank + 1, name});
  }
  for (const detail::VocImage& image : images) {
    std::string wrong = image.wrong;
    for (const VocObject& o : image.says.objects)
      if (wrong.empty() && number.count(o.name) == 0)
        wrong = str(root, "/Annotations/", image.name, ".xml: the class \"", printable(o.name),
                    "\" is not in ", root, "/classes.txt");
    if (!wrong.empty()) {
      check(broken != nullptr, wrong);
      broken->push_back(wrong);
      continue;
    }
    const i64 index = static_cast<i64>(truth->images.size());
    truth->images.push_back({index + 1, image.path, image.says.height, image.says.width});
    for (const VocObject& o : image.says.objects) {
      CocoAnnotation a;
      a.id = static_cast<i64>(truth->annotations.size()) + 1, a.image = index,
      a.category = number.at(o.name), a.box = o.box, a.area = o.box[2] * o.box[3],
      a.crowd = o.difficult;
      truth->annotations.push_back(std::move(a));
    }
  }
  return {truth, root + "/JPEGImages"};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
