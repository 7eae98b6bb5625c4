#pragma once
#include "ppma/core/names_begin.hpp"
// Sets for detection: annotations as COCO has them (data/voc.hpp and data/yolo.hpp make such of
// theirs), and the generated `shapes` with their masks.

#include <memory>
#include <string>

#include "ppma/data/detection.hpp"
#include "ppma/data/shapes.hpp"
#include "ppma/io/coco.hpp"
#include "ppma/io/image.hpp"

namespace ppma::inline PPMA_ABI {

/// What of a COCO file is not learnt from, by reason.
struct CocoSkips {
  // annotations: crowds, and VOC's difficult objects; less than a pixel; beside the image
  i64 crowds = 0, no_area = 0, outside = 0;
  i64 without_mask = 0;  // annotations, where masks are learnt
  // images: nothing left in them; a side below 32 pixels
  i64 images_without_boxes = 0, small_images = 0;

  /// In a sentence; empty if nothing was left out.
  PPMA_API std::string text() const;
};

namespace detail {

/// A box of a file as corners, clipped to an image.
PPMA_API Box clipped(const CocoBox& b, i64 height, i64 width);

PPMA_API bool is_empty(const Box& b);

}  // namespace detail

/// The images of a COCO file that something is to be learnt from (recipes 3.3); `all_images` keeps
/// the others too, for evaluation. With `masks`, objects without a segmentation are left out; masks
/// are drawn when an image is loaded. Annotations of COCO count the pixels as they are stored.
/// Errors: those of read_coco and read_image; no object with a mask where they are wanted; an image
/// of another size than the file says; a mask of another size than its image (with the annotation's
/// id).
PPMA_API DetectionSet coco_set(const std::shared_ptr<const CocoTruth>& truth,
                               const std::string& folder, bool masks, bool all_images = false,
                               CocoSkips* skips = nullptr,
                               ImageReading reading = {.orient = false});

/// The annotations of a part of a set, and its images.
struct DetectionFiles {
  std::shared_ptr<const CocoTruth> truth;
  std::string images;                     // the folder that file names count from
  ImageReading reading{.orient = false};  // how annotations count pixels
  std::string left_out{};                 // what of the files is not in it and why, for messages

  /// Whether an object has a mask.
  PPMA_API bool any_mask() const;
};

/// The same of such files.
PPMA_API DetectionSet detection_set(const DetectionFiles& files, bool masks,
                                    bool all_images = false, CocoSkips* skips = nullptr);

/// The generated set with boxes and masks. Category ids are class + 1, image ids index + 1.
PPMA_API DetectionSet shapes_set(const ShapesOptions& options);

/// What evaluate_coco compares with: the set's objects as annotations.
PPMA_API CocoTruth truth_of(const DetectionSet& set);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <vector>

namespace ppma::inline PPMA_ABI {

std::string CocoSkips::text() const {
  std::string s;
  const auto add = [&s](i64 n, const char* what) {
    if (n > 0) s += str(s.empty() ? "" : ", ", n, " ", what);
  };
  add(crowds, "crowds or difficult objects"), add(no_area, "boxes of no area"),
      add(outside, "boxes outside of their image");
  add(without_mask, "objects without a mask");
  add(images_without_boxes, "images without boxes"), add(small_images, "images below 32 pixels");
  return s;
}

namespace detail {

Box clipped(const CocoBox& b, i64 height, i64 width) {
  const auto at = [](double v, i64 most) {
    return static_cast<float>(std::clamp(v, 0.0, static_cast<double>(most)));
  };
  return {at(b[0], width), at(b[1], height), at(b[0] + b[2], width), at(b[1] + b[3], height)};
}

bool is_empty(const Box& b) { return !(b.width() > 0 && b.height() > 0); }

}  // namespace detail

DetectionSet coco_set(const std::shared_ptr<const CocoTruth>& truth, const std::string& folder,
                      bool masks, bool all_images, CocoSkips* skips, ImageReading reading) {
  CocoSkips unused, &skip = skips != nullptr ? *skips : unused;
  std::vector<std::vector<std::size_t>> of_image(truth->images.size());
  i64 kept = 0;
  for (std::size_t i = 0; i < truth->annotations.size(); ++i) {
    const CocoAnnotation& a = truth->annotations[i];
    const CocoImage& image = truth->images[static_cast<std::size_t>(a.image)];
    const CocoBox b = a.box ? *a.box : CocoBox{0, 0, 0, 0};
    if (a.crowd) {
      ++skip.crowds;
      continue;
    }
    if (a.area <= 0 || b[2] < 1 || b[3] < 1) {
      ++skip.no_area;
      continue;
    }
    if (image.width > 0 && image.height > 0 &&
        detail::is_empty(detail::clipped(b, image.height, image.width))) {
      ++skip.outside;
      continue;
    }
    if (masks && a.mask.empty()) {
      ++skip.without_mask;
      continue;
    }
    ++kept;
    of_image[static_cast<std::size_t>(a.image)].push_back(i);
  }
  check(kept > 0 || skip.without_mask == 0, truth->path,
        ": none of its objects has a \"segmentation\" or an outline; train on boxes alone "
        "(`boxes_only`)");
  auto chosen = std::make_shared<std::vector<std::size_t>>();
  auto objects_of = std::make_shared<std::vector<std::vector<std::size_t>>>(std::move(of_image));
  DetectionSet set;
  set.name = truth->path;
  set.masks = masks;
  for (std::size_t i = 0; i < truth->images.size(); ++i) {
    const CocoImage& image = truth->images[i];
    if (!all_images) {
      if (image.width > 0 && std::min(image.width, image.height) < 32) {
        ++skip.small_images;
        continue;
      }
      if ((*objects_of)[i].empty()) {
        ++skip.images_without_boxes;
        continue;
      }
    }
    chosen->push_back(i);
    set.wide.push_back(image.width > image.height);
  }
  for (const CocoCategory& c : truth->categories)
    set.class_names.push_back(c.name), set.category_ids.push_back(c.id);
  set.size = static_cast<i64>(chosen->size()), set.left_out = skip.text();
  set.load = [=](i64 index) {
    const std::size_t i = (*chosen)[static_cast<std::size_t>(index)];
    const CocoImage& image = truth->images[i];
    DetectionSample s;
    s.name = folder + "/" + image.file_name;
    s.image = read_image(s.name, reading);
    s.image_id = image.id;
    const i64 H = s.image.dim(0), W = s.image.dim(1);
    check(image.height == 0 || (image.height == H && image.width == W), s.name, ": has ", H, " x ",
          W, " pixels, ", truth->path, " says ", image.height, " x ", image.width);
    std::vector<const CocoAnnotation*> shown;
    for (const std::size_t k : (*objects_of)[i]) {
      const Box box = detail::clipped(*truth->annotations[k].box, H, W);
      if (detail::is_empty(box)) continue;  // beside an image whose size the file does not say
      s.objects.boxes.push_back(box), s.objects.classes.push_back(truth->annotations[k].category);
      shown.push_back(&truth->annotations[k]);
    }
    if (!masks) return s;
    s.objects.masks = Tensor::zeros({static_cast<i64>(shown.size()), H, W}, DType::uint8);
    u8* to = s.objects.masks.data<u8>();
    for (const CocoAnnotation* a : shown) {
      try {
        to = std::copy_n(rle_decode(a->mask.draw(H, W)).data<u8>(), H * W, to);
      } catch (const Error& e) {
        throw Error(str(truth->path, ": annotation ", a->id, " (", s.name, "): ", e.what()));
      }
    }
    return s;
  };
  return set;
}

bool DetectionFiles::any_mask() const {
  return std::any_of(truth->annotations.begin(), truth->annotations.end(),
                     [](const CocoAnnotation& a) { return !a.mask.empty(); });
}

DetectionSet detection_set(const DetectionFiles& files, bool masks, bool all_images,
                           CocoSkips* skips) {
  DetectionSet set = coco_set(files.truth, files.images, masks, all_images, skips, files.reading);
  set.left_out = set.left_out.empty() || files.left_out.empty()
                     ? set.left_out + files.left_out
                     : files.left_out + ", " + set.left_out;
  return set;
}

namespace detail {

inline DetectionSample shapes_sample(const ShapesOptions& options, i64 index) {
  const Scene scene = draw_shapes(options, index);
  DetectionSample s;
  s.image = scene.image, s.image_id = index + 1, s.name = str("shapes/", index);
  const float* b = scene.boxes.data<float>();
  for (std::size_t k = 0; k < scene.classes.size(); ++k, b += 4)
    s.objects.boxes.push_back({b[0], b[1], b[2], b[3]});
  s.objects.classes = scene.classes;
  s.objects.masks = scene.masks;
  return s;
}

}  // namespace detail

DetectionSet shapes_set(const ShapesOptions& options) {
  check(options.images > 0, "shapes: ", options.images, " images asked for");
  DetectionSet set;
  set.name = "shapes", set.size = options.images, set.class_names = figure_names(),
  set.masks = true;
  for (i64 c = 0; c < set.classes(); ++c) set.category_ids.push_back(c + 1);
  set.load = [options](i64 index) { return detail::shapes_sample(options, index); };
  return set;
}

CocoTruth truth_of(const DetectionSet& set) {
  CocoTruth truth;
  truth.path = set.name;
  for (i64 c = 0; c < set.classes(); ++c)
    truth.categories.push_back({set.category_ids[static_cast<std::size_t>(c)],
                                set.class_names[static_cast<std::size_t>(c)]});
  for (i64 i = 0; i < set.size; ++i) {
    const DetectionSample s = set.load(i);
    const i64 H = s.image.dim(0), W = s.image.dim(1);
    truth.images.push_back({s.image_id, s.name, H, W});
    for (std::size_t k = 0; k < s.objects.boxes.size(); ++k) {
      const Box& b = s.objects.boxes[k];
      CocoAnnotation a;
      a.id = static_cast<i64>(truth.annotations.size()) + 1, a.image = i,
      a.category = s.objects.classes[k];
      a.box = CocoBox{static_cast<double>(b.x1), static_cast<double>(b.y1),
                      static_cast<double>(b.width()), static_cast<double>(b.height())};
      a.area = static_cast<double>(b.area());
      if (s.objects.masks.defined()) {
        Tensor mask = Tensor::empty({H, W}, DType::uint8);
        std::copy_n(s.objects.masks.data<u8>() + static_cast<i64>(k) * H * W, H * W,
                    mask.data<u8>());
        a.mask.rle = rle_encode(mask);
        a.area = static_cast<double>(rle_area(*a.mask.rle));
      }
      truth.annotations.push_back(std::move(a));
    }
  }
  return truth;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
