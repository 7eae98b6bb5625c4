#pragma once
#include "ppma/core/names_begin.hpp"
// The parts of sets as data_find.hpp gives them: what is seen of an image, and how it is drawn.

#include <algorithm>
#include <filesystem>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "ppma/commands/data_look.hpp"
#include "ppma/commands/dense_data.hpp"
#include "ppma/data/image_folder.hpp"
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

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
