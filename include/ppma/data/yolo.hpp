#pragma once
#include "ppma/core/names_begin.hpp"
// Images with boxes or outlines in the layout of YOLO, as Ultralytics reads it
// (https://docs.ultralytics.com/datasets):
//
//   images/{train,val}/NAME.jpg    or {train,valid}/images, as Roboflow writes it
//   labels/{train,val}/NAME.txt    an object a line: its class's number from 0, then
//                                    cx cy width height      a box by its middle, or
//                                    x y x y x y ...         an outline, for detection and masks
//                                  in parts of the image's width and height; an image without
//                                  such a file, or with an empty one, has no objects
//   data.yaml                      names: [cat, dog], or - cat lines, or 0: cat lines; or
//   classes.txt                    a name a line
//
// Of data.yaml only names, nc and kpt_shape are looked at: where the images are, the layout says.
// Labels count the pixels of images turned as their EXIF data say.

#include <array>
#include <string>
#include <vector>

#include "ppma/data/detection_sets.hpp"

namespace ppma::inline PPMA_ABI {

struct YoloObject {
  i64 line = 0;                   // of the file
  i64 label = 0;                  // class
  std::array<double, 4> box{};    // x, y, width, height, in parts of the image
  std::vector<double> outline{};  // x, y, x, y, ...; empty: a box alone
};

/// A file of labels in memory; `name` is what errors call it. Errors, with their line: a class that
/// is no whole number from 0; other than 4 numbers, or 3 points and more; a number that is outside
/// of the image (by more than a hundredth, as Ultralytics has it).
PPMA_API std::vector<YoloObject> parse_yolo(Bytes labels, const std::string& name);

/// The classes' names of a data.yaml in memory. Errors, with their line: none; a form that is not
/// read; numbers that are not 0, 1, ...; another number than nc says; key points.
PPMA_API std::vector<std::string> parse_yolo_names(Bytes yaml, const std::string& name);

/// The part of a set in the folder `root`: masks are the objects' outlines. Errors: no such
/// folders; no names; labels or an image that cannot be read; a class without a name. With `broken`
/// those of single images are put there, and the images left out.
PPMA_API DetectionFiles yolo_files(const std::string& root, Split split,
                                   std::vector<std::string>* broken = nullptr);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "ppma/core/parallel.hpp"
#include "ppma/data/image_folder.hpp"
#include "ppma/data/segmentation.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/lines.hpp"
#include "ppma/io/utf8.hpp"
#include "ppma/io/yaml_names.hpp"

namespace ppma::inline PPMA_ABI {

std::vector<YoloObject> parse_yolo(Bytes labels, const std::string& name) {
  std::vector<YoloObject> objects;
  for (const TextLine& line : text_lines(labels, name)) {
    const std::string where = str(name, ": line ", line.number, ": ");
    std::vector<double> numbers;
    for (const std::string_view word : words_of(line.text)) {
      double value = 0;
      check(take_decimal(word, value), where, "\"", printable(word), "\" is not a number");
      check(numbers.empty() || (value >= -0.01 && value <= 1.01), where, printable(word),
            " is outside of the image; numbers are parts of its width and height, from 0 to 1");
      numbers.push_back(numbers.empty() ? value : std::clamp(value, 0.0, 1.0));
    }
    const double label = numbers[0];
    check(label >= 0 && label <= 1e6 && label == std::floor(label), where, "the class is ", label,
          "; it must be a whole number from 0");
    const std::size_t n = numbers.size() - 1;
    check(n == 4 || (n >= 6 && n % 2 == 0), where, "has ", n,
          " numbers behind the class; a box has 4, an outline two for each of 3 points or more");
    YoloObject o{line.number, static_cast<i64>(label)};
    if (n == 4) {
      o.box = {numbers[1] - numbers[3] / 2, numbers[2] - numbers[4] / 2, numbers[3], numbers[4]};
    } else {
      o.outline.assign(numbers.begin() + 1, numbers.end());
      double x1 = 1, y1 = 1, x2 = 0, y2 = 0;
      for (std::size_t i = 0; i < n; i += 2) {
        x1 = std::min(x1, o.outline[i]), x2 = std::max(x2, o.outline[i]);
        y1 = std::min(y1, o.outline[i + 1]), y2 = std::max(y2, o.outline[i + 1]);
      }
      o.box = {x1, y1, x2 - x1, y2 - y1};
    }
    objects.push_back(std::move(o));
  }
  return objects;
}

std::vector<std::string> parse_yolo_names(Bytes yaml, const std::string& name) {
  const YamlNames found = yaml_names(yaml, name);
  check(!found.keys.contains("kpt_shape"), name,
        ": kpt_shape: its labels have key points, which are not read; labels of boxes or outlines "
        "are");
  if (const auto nc = found.keys.find("nc"); nc != found.keys.end() && !nc->second.empty())
    check(nc->second == str(found.names.size()), name, ": nc is ", printable(nc->second),
          ", names has ", found.names.size());
  return found.names;
}

namespace detail {

struct YoloPlaces {
  std::string images, labels;
};

inline YoloPlaces yolo_places(const std::string& root, Split split) {
  const auto is_folder = [](const std::string& path) {
    std::error_code absent;
    return std::filesystem::is_directory(path, absent);
  };
  const std::vector<std::string> parts = split == Split::train
                                             ? std::vector<std::string>{"train"}
                                             : std::vector<std::string>{"val", "valid"};
  for (const std::string& part : parts)
    for (const auto& [before, after] :
         {std::pair{std::string(), "/" + part}, {"/" + part, std::string()}})
      if (is_folder(root + before + "/images" + after)) {
        const YoloPlaces at{root + before + "/images" + after, root + before + "/labels" + after};
        check(is_folder(at.labels), at.labels, ": is not there; it holds the labels of ",
              at.images);
        return at;
      }
  fail(root, ": has neither images/", parts[0], " nor ", parts.back(), "/images");
}

inline std::vector<std::string> yolo_names(const std::string& root) {
  std::error_code absent;
  for (const char* file : {"/data.yaml", "/data.yml"})
    if (std::filesystem::exists(root + file, absent))
      return parse_yolo_names(read_file(root + file), root + file);
  const std::string list = root + "/classes.txt";
  check(std::filesystem::exists(list, absent), root,
        ": has no data.yaml and no classes.txt, which name the classes");
  std::vector<std::string> names;
  for (const TextLine& line : read_lines(list)) names.push_back(line.text);
  check(!names.empty(), list, ": names no classes");
  return names;
}

/// An annotation in pixels.
inline CocoAnnotation yolo_annotation(const YoloObject& o, i64 height, i64 width) {
  const double H = static_cast<double>(height), W = static_cast<double>(width);
  CocoAnnotation a;
  a.category = o.label;
  a.box = CocoBox{o.box[0] * W, o.box[1] * H, o.box[2] * W, o.box[3] * H};
  a.area = (*a.box)[2] * (*a.box)[3];
  if (o.outline.empty()) return a;
  std::vector<double> points = o.outline;
  double twice = 0;  // the polygon's area
  for (std::size_t i = 0, n = points.size(); i < n; i += 2) {
    const std::size_t k = (i + 2) % n;
    twice += o.outline[i] * o.outline[k + 1] - o.outline[k] * o.outline[i + 1];
    points[i] *= W, points[i + 1] *= H;
  }
  a.area = std::abs(twice) / 2 * H * W;
  a.mask.polygons.push_back(std::move(points));
  return a;
}

}  // namespace detail

DetectionFiles yolo_files(const std::string& root, Split split, std::vector<std::string>* broken) {
  const detail::YoloPlaces at = detail::yolo_places(root, split);
  const std::vector<std::string> names = detail::yolo_names(root);
  const FolderList found = files_below(at.images, detail::image_endings());
  check(!found.files.empty(), at.images, ": has no images", found.others.empty() ? "" : ", but ",
        found.left_out(detail::image_kinds));
  const auto of_images = detail::by_stem(at.images, found.files);
  auto of_labels = detail::by_stem(at.labels, files_below(at.labels, {".txt"}).files);
  of_labels.erase("classes");  // LabelImg's list of names
  struct One {
    std::string image, labels;  // paths below the folders; "": none
    std::vector<YoloObject> objects{};
    std::array<i64, 2> size{};
    std::string wrong{};
  };
  std::vector<One> all;
  for (const auto& [stem, file] : of_images) {
    const auto labels = of_labels.find(stem);
    all.push_back({file, labels == of_labels.end() ? "" : labels->second});
    if (labels != of_labels.end()) of_labels.erase(labels);
  }
  DetectionFiles files{nullptr, at.images, {.orient = true}};
  parallel_for(static_cast<i64>(all.size()), 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      One& one = all[static_cast<std::size_t>(i)];
      try {
        if (!one.labels.empty()) {
          const std::string path = at.labels + "/" + one.labels;
          one.objects = parse_yolo(read_file(path), path);
          for (const YoloObject& o : one.objects)
            check(o.label < static_cast<i64>(names.size()), path, ": line ", o.line, ": the class ",
                  o.label, " has no name; there are ", names.size());
        }
        one.size = read_image_size(at.images + "/" + one.image, files.reading);
      } catch (const Error& e) {
        one.wrong = e.what();
      }
    }
  });
  auto truth = std::make_shared<CocoTruth>();
  truth->path = at.labels;
  for (std::size_t c = 0; c < names.size(); ++c)
    truth->categories.push_back({static_cast<i64>(c) + 1, names[c]});
  for (const One& one : all) {
    if (!one.wrong.empty()) {
      check(broken != nullptr, one.wrong);
      broken->push_back(one.wrong);
      continue;
    }
    const i64 index = static_cast<i64>(truth->images.size());
    truth->images.push_back({index + 1, one.image, one.size[0], one.size[1]});
    for (const YoloObject& o : one.objects) {
      truth->annotations.push_back(detail::yolo_annotation(o, one.size[0], one.size[1]));
      truth->annotations.back().id = static_cast<i64>(truth->annotations.size());
      truth->annotations.back().image = index;
    }
  }
  files.truth = truth;
  files.left_out = found.left_out(detail::image_kinds);
  if (!of_labels.empty())
    files.left_out += str(files.left_out.empty() ? "" : ", ", of_labels.size(),
                          " labels without an image (such as ", of_labels.begin()->second, ")");
  return files;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
