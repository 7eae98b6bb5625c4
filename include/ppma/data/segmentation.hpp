#pragma once
#include "ppma/core/names_begin.hpp"
// Images with a class for every pixel: sets on disk in their usual layouts, and the generated
// `shapes`.
//
//   plain        img_dir/{train,val}/NAME.png|jpg, ann_dir/{train,val}/NAME.png, classes.txt with a
//                name a line
//   ADE20K       images/{training,validation}/NAME.jpg, annotations/{training,validation}/NAME.png,
//                label 0 is nothing
//   Cityscapes   leftImg8bit/{train,val}/CITY/*_leftImg8bit.png,
//                gtFine/{train,val}/CITY/*_gtFine_labelTrainIds.png, or where there is none
//                *_gtFine_labelIds.png
//   CamVid       {train,val}/NAME.png, {train,val}annot/NAME.png, label 11 is nothing, as
//                SegNet's authors gave it out
//
// Labels are 0..K-1, and 255 for what does not count. Legend: H W pixels, K classes.

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ppma/data/shapes.hpp"

namespace ppma::inline PPMA_ABI {

struct SegmentationSample {
  Tensor image;   // uint8 (H,W,3)
  Tensor labels;  // uint8 (H,W)
  std::string name;
};

struct SegmentationSet {
  std::string name;
  i64 size = 0;
  std::vector<std::string> class_names;
  std::string left_out;  // what of the files is not in the set and why, for messages
  std::function<SegmentationSample(i64)> load;

  /// How many classes there are.
  i64 classes() const { return static_cast<i64>(class_names.size()); }
  /// Image and labels number i. Errors: no such number; what load() refuses.
  PPMA_API SegmentationSample get(i64 i) const;
};

/// What a file's numbers mean: labels[number], 255 where they do not count, -1 where a file must
/// not have them.
using LabelTable = std::array<int, 256>;

/// Numbers are classes as they are.
PPMA_API LabelTable plain_labels();

/// Cityscapes' label ids 0 to 33 as the 19 classes that are trained.
PPMA_API LabelTable cityscapes_labels();

/// The layouts above.
enum class SegmentationLayout : u8 { plain, ade20k, cityscapes, camvid };

namespace detail {

// Where a layout has the images and the label maps of a part.
PPMA_API std::pair<std::string, std::string> segmentation_places(SegmentationLayout layout,
                                                                 Split split);

// Files by their path without its ending. Error: two of one name but for the ending.
PPMA_API std::map<std::string, std::string> by_stem(const std::string& root,
                                                    const std::vector<std::string>& files);

}  // namespace detail

/// The image and the labels of one sample. Errors, each with the file's name: maps of different
/// sizes; a label that is no class, with its value and place.
PPMA_API SegmentationSample load_segmentation(const std::string& image, const std::string& labels,
                                              const LabelTable& table, bool zero_is_nothing,
                                              i64 classes);

/// "folder", "ade20k", "cityscapes" or "camvid".
PPMA_API std::string to_string(SegmentationLayout layout);

/// The layout that a folder's own folders are of; nothing where they are of none.
PPMA_API std::optional<SegmentationLayout> segmentation_layout(const std::string& root);

/// The set in a folder, of this layout, or of whichever it has. Classes are those of classes.txt, a
/// name a line, else the set's own. Errors: another layout; an image without labels; no names.
PPMA_API SegmentationSet segmentation_folder(const std::string& root, Split split,
                                             std::optional<SegmentationLayout> layout = {});

/// `shapes`: background is class 0, figures are 1..10, the main figure on top.
PPMA_API SegmentationSet shapes_segmentation(const ShapesOptions& options);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <filesystem>
#include <memory>

#include "ppma/data/image_folder.hpp"
#include "ppma/data/segmentation_names.hpp"
#include "ppma/io/folder.hpp"
#include "ppma/io/label_map.hpp"
#include "ppma/metrics/mean_iou.hpp"

namespace ppma::inline PPMA_ABI {

SegmentationSample SegmentationSet::get(i64 i) const {
  check(i >= 0 && i < size, name, ": sample ", i, " of ", size, " asked for");
  return load(i);
}

LabelTable plain_labels() {
  LabelTable t;
  for (std::size_t i = 0; i < 256; ++i) t[i] = static_cast<int>(i);
  return t;
}

LabelTable cityscapes_labels() {
  LabelTable t;
  t.fill(-1);
  std::fill_n(t.begin(), 34, 255), t[255] = 255;
  constexpr int ids[] = {7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33};
  int next = 0;
  for (const int id : ids) t[static_cast<std::size_t>(id)] = next++;
  return t;
}

namespace detail {

inline std::string without_ending(const std::string& path) {
  return std::filesystem::path(path).replace_extension().string();
}

std::map<std::string, std::string> by_stem(const std::string& root,
                                           const std::vector<std::string>& files) {
  std::map<std::string, std::string> of_stem;
  for (const std::string& file : files) {
    const auto entry = of_stem.emplace(without_ending(file), file);
    check(entry.second, root, ": ", entry.first->second, " and ", file,
          " have one name but for the ending, by which images and label maps find each other; one "
          "of them must go");
  }
  return of_stem;
}

}  // namespace detail

SegmentationSample load_segmentation(const std::string& image, const std::string& labels,
                                     const LabelTable& table, bool zero_is_nothing, i64 classes) {
  // As stored, like the labels: EXIF data may turn the one and not the other.
  SegmentationSample s{read_image(image, {.orient = false}), read_label_map(labels), image};
  check(s.image.dim(0) == s.labels.dim(0) && s.image.dim(1) == s.labels.dim(1), labels, ": ",
        s.labels.dim(1), " x ", s.labels.dim(0), " pixels, its image ", s.image.dim(1), " x ",
        s.image.dim(0), " as stored");
  if (s.labels.dtype() == DType::int64) {  // 16 bits
    Tensor narrow = Tensor::empty(s.labels.shape(), DType::uint8);
    const i64* wide = s.labels.data<i64>();
    for (i64 i = 0; i < s.labels.numel(); ++i) {
      check(wide[i] < 256 || wide[i] == 65535, labels, ": label ", wide[i], " at row ",
            i / s.labels.dim(1), ", column ", i % s.labels.dim(1),
            "; labels are 0 to 254, and 255 or 65535 for what does not count");
      narrow.data<u8>()[i] = static_cast<u8>(std::min(wide[i], i64{255}));
    }
    s.labels = narrow;
  }
  if (zero_is_nothing) s.labels = reduce_zero_label(s.labels);
  u8* p = s.labels.data<u8>();
  for (i64 i = 0; i < s.labels.numel(); ++i) {
    const int found = p[i],
              label = zero_is_nothing ? found : table[static_cast<std::size_t>(found)];
    check(label >= 0, labels, ": label ", found, " at row ", i / s.labels.dim(1), ", column ",
          i % s.labels.dim(1), "; there is no such label id");
    check(label == 255 || label < classes, labels, ": label ", found + (zero_is_nothing ? 1 : 0),
          " at row ", i / s.labels.dim(1), ", column ", i % s.labels.dim(1), "; with ", classes,
          " classes it must be ", zero_is_nothing ? 1 : 0, " to ",
          classes - (zero_is_nothing ? 0 : 1), ", or 255");
    p[i] = static_cast<u8>(label);
  }
  return s;
}

std::string to_string(SegmentationLayout layout) {
  switch (layout) {
    case SegmentationLayout::ade20k:
      return "ade20k";
    case SegmentationLayout::cityscapes:
      return "cityscapes";
    case SegmentationLayout::camvid:
      return "camvid";
    default:
      return "folder";
  }
}

std::optional<SegmentationLayout> segmentation_layout(const std::string& root) {
  const auto has = [&](const char* folder) {
    std::error_code absent;
    return std::filesystem::is_directory(root + "/" + folder, absent);
  };
  if (has("gtFine")) return SegmentationLayout::cityscapes;
  if (has("trainannot") || has("valannot")) return SegmentationLayout::camvid;
  if (has("img_dir") || has("ann_dir")) return SegmentationLayout::plain;
  if (has("annotations") && has("images")) return SegmentationLayout::ade20k;
  return {};
}

namespace detail {

std::pair<std::string, std::string> segmentation_places(SegmentationLayout layout, Split split) {
  const bool train = split == Split::train;
  const std::string part = train ? "train" : "val", long_part = train ? "training" : "validation";
  switch (layout) {
    case SegmentationLayout::ade20k:
      return {"images/" + long_part, "annotations/" + long_part};
    case SegmentationLayout::cityscapes:
      return {"leftImg8bit/" + part, "gtFine/" + part};
    case SegmentationLayout::camvid:
      return {part, part + "annot"};
    default:
      return {"img_dir/" + part, "ann_dir/" + part};
  }
}

inline std::vector<std::string> segmentation_names(const std::string& root,
                                                   SegmentationLayout layout) {
  const std::string list = root + "/classes.txt";
  if (!std::filesystem::exists(list)) {
    if (layout == SegmentationLayout::cityscapes) return cityscapes_classes();
    if (layout == SegmentationLayout::ade20k) return ade20k_classes();
    if (layout == SegmentationLayout::camvid) return camvid_classes();
    fail(root, ": has no classes.txt with the classes' names");
  }
  std::vector<std::string> names;
  std::string word;
  for (const u8 c : read_file(list)) {
    if (c != '\n' && c != '\r')
      word += static_cast<char>(c);
    else if (!word.empty())
      names.push_back(word), word.clear();
  }
  if (!word.empty()) names.push_back(word);
  check(!names.empty() && names.size() <= 255, list, ": must name 1 to 255 classes, a line each");
  return names;
}

}  // namespace detail

SegmentationSet segmentation_folder(const std::string& root, Split split,
                                    std::optional<SegmentationLayout> layout) {
  namespace fs = std::filesystem;
  const char* const which = split == Split::train ? "training" : "validation";
  if (!layout) {
    layout = segmentation_layout(root);
    check(layout.has_value(), root,
          ": has neither img_dir and ann_dir, nor images and annotations (ADE20K), nor leftImg8bit "
          "and gtFine (Cityscapes), nor train and trainannot (CamVid) with a folder for ",
          which);
  }
  const auto places = detail::segmentation_places(*layout, split);
  const std::string images = root + "/" + places.first, labels = root + "/" + places.second;
  check(fs::is_directory(images) && fs::is_directory(labels), root, ": has no folders ",
        places.first, " and ", places.second, ", which `data` ", to_string(*layout), " has for ",
        which);
  const bool ade = *layout == SegmentationLayout::ade20k,
             city = *layout == SegmentationLayout::cityscapes;
  SegmentationSet set;
  set.name = root, set.class_names = detail::segmentation_names(root, *layout);
  struct Files {
    std::string image, labels;
    bool ids;  // Cityscapes' label ids instead of classes
  };
  auto files = std::make_shared<std::vector<Files>>();
  const FolderList found = files_below(images, detail::image_endings()),
                   maps = files_below(labels, {".png"});
  const auto of_images = detail::by_stem(images, found.files);
  auto of_labels = detail::by_stem(labels, maps.files);
  const std::string city_end = "_leftImg8bit";
  i64 other_images = 0;
  for (const auto& [stem, file] : of_images) {
    if (city && !stem.ends_with(city_end)) {
      ++other_images;
      continue;
    }
    const std::string key = city ? stem.substr(0, stem.size() - city_end.size()) : stem;
    const std::string usual = city ? key + "_gtFine_labelIds" : key,
                      trained = key + "_gtFine_labelTrainIds";
    const bool of_classes = city && of_labels.count(trained) != 0;
    const auto map = of_labels.find(of_classes ? trained : usual);
    check(map != of_labels.end(), images, "/", file, ": has no labels; ", labels, "/", usual,
          ".png is missing");
    files->push_back({images + "/" + file, labels + "/" + map->second, city && !of_classes});
    of_labels.erase(map);
  }
  check(!files->empty(), images, ": has no images", city ? " *_leftImg8bit.png" : "",
        found.others.empty() ? "" : ", but ", found.left_out(detail::image_kinds));
  // Cityscapes has other pictures beside its label maps, by design.
  set.left_out = found.left_out(detail::image_kinds);
  const auto add = [&](i64 n, const std::string& what) {
    if (n > 0) set.left_out += str(set.left_out.empty() ? "" : ", ", n, what);
  };
  add(other_images, " images that are not named *_leftImg8bit");
  if (!city)
    add(static_cast<i64>(of_labels.size()),
        " label maps without an image" +
            (of_labels.empty() ? "" : " (such as " + of_labels.begin()->second + ")"));
  set.size = static_cast<i64>(files->size());
  LabelTable table = plain_labels();
  if (*layout == SegmentationLayout::camvid && set.class_names.size() == 11) table[11] = 255;
  set.load = [files, ade, table, classes = set.classes()](i64 i) {
    const Files& f = (*files)[static_cast<std::size_t>(i)];
    return load_segmentation(f.image, f.labels, f.ids ? cityscapes_labels() : table, ade, classes);
  };
  return set;
}

SegmentationSet shapes_segmentation(const ShapesOptions& options) {
  check(options.images > 0, "shapes: ", options.images, " images asked for");
  SegmentationSet set;
  set.name = "shapes", set.size = options.images, set.class_names = figure_names();
  set.class_names.insert(set.class_names.begin(), "background");
  set.load = [options](i64 i) {
    const Scene scene = draw_shapes(options, i);
    SegmentationSample s{scene.image,
                         Tensor::zeros({scene.image.dim(0), scene.image.dim(1)}, DType::uint8),
                         str("shapes ", i)};
    const i64 n = s.labels.numel();
    for (std::size_t k = scene.classes.size(); k-- > 0;)
      for (i64 p = 0; p < n; ++p)
        if (scene.masks.data<u8>()[static_cast<i64>(k) * n + p] != 0)
          s.labels.data<u8>()[p] = static_cast<u8>(scene.classes[k] + 1);
    return s;
  };
  return set;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
