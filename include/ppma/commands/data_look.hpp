#pragma once
#include "ppma/core/names_begin.hpp"
// A look at every image of a set: how many of each class, which sizes, what cannot be read;
// and a sheet of samples.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// What one image was seen to be.
struct ImageFacts {
  i64 height = 0, width = 0;
  std::vector<std::pair<i64, i64>> counts{};  // class; images (1), objects or pixels of it
  std::string wrong{};                        // why there is nothing of the above
};

/// A part of a set, not looked at yet: its images are read by see() and picture().
struct SetPart {
  std::string name;  // "train"; "": the set has one part
  std::vector<std::string> classes{};
  std::string unit{};  // what is counted in an image: "objects", "pixels"; "": images
  i64 size = 0;
  std::string left_out{};
  std::vector<std::string> broken{};  // that was found without looking at images
  bool all_classes = true;            // a class that does not occur is broken
  std::function<ImageFacts(i64)> see{};
  std::function<Tensor(i64)> picture{};  // with what is in it drawn into it, where unit is not ""
};

/// The least, the median and the most of some numbers; zeros of none.
struct SizeSpread {
  i64 least = 0, median = 0, most = 0;

  /// Of these numbers.
  PPMA_API static SizeSpread of(std::vector<i64> all);
};

/// What the images of a part were seen to be.
struct SetLook {
  std::vector<ImageFacts> seen;
  std::vector<i64> images, counts;  // of each class; counts by the part's unit
  i64 readable = 0;
  SizeSpread heights{}, widths{};
  std::vector<std::string> broken;
};

/// Reads every image of a part, with all threads.
PPMA_API SetLook look_at(const SetPart& part);

/// Samples with their labels: of up to ten classes six each, of more one each of up to 48; of
/// objects and pixels nine images. There must be one that can be read.
PPMA_API Tensor sample_sheet(const SetPart& part, const SetLook& look);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <exception>

#include "ppma/core/parallel.hpp"
#include "ppma/io/resize.hpp"
#include "ppma/io/utf8.hpp"
#include "ppma/vis/panels.hpp"

namespace ppma::inline PPMA_ABI {

SizeSpread SizeSpread::of(std::vector<i64> all) {
  if (all.empty()) return {};
  std::sort(all.begin(), all.end());
  return {all.front(), all[all.size() / 2], all.back()};
}

SetLook look_at(const SetPart& part) {
  SetLook look;
  look.seen.resize(static_cast<std::size_t>(part.size));
  parallel_for(part.size, 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      ImageFacts& s = look.seen[static_cast<std::size_t>(i)];
      try {
        s = part.see(i);
      } catch (const std::exception& e) {
        s.wrong = e.what();
      }
    }
  });
  look.images.resize(part.classes.size()), look.counts.resize(part.classes.size());
  look.broken = part.broken;
  std::vector<i64> heights, widths;
  for (const ImageFacts& s : look.seen) {
    if (!s.wrong.empty()) {
      look.broken.push_back(s.wrong);
      continue;
    }
    heights.push_back(s.height), widths.push_back(s.width);
    for (const auto& [label, n] : s.counts) {
      ++look.images[static_cast<std::size_t>(label)];
      look.counts[static_cast<std::size_t>(label)] += n;
    }
  }
  look.readable = static_cast<i64>(heights.size());
  look.heights = SizeSpread::of(std::move(heights)),
  look.widths = SizeSpread::of(std::move(widths));
  for (const std::string& name : part.classes)
    if (!is_utf8(name))
      look.broken.push_back(
          str(part.name, part.name.empty() ? "" : ": ", "the class \"", name,
              "\" is not named in UTF-8, as a network's files name it; rename it"));
  for (std::size_t c = 0; part.all_classes && c < part.classes.size(); ++c)
    if (look.images[c] == 0)
      look.broken.push_back(str(part.name, part.name.empty() ? "" : ": ",
                                "no image has the class \"", part.classes[c], "\""));
  return look;
}

/// An image in the middle of a white square; a small one is enlarged by a whole factor.
namespace detail {

inline Tensor in_square(const Tensor& image, i64 side) {
  const i64 H = image.dim(0), W = image.dim(1), longer = std::max(H, W), factor = side / longer;
  const auto fitted = [&](i64 n) { return std::max(i64{1}, n * side / longer); };
  const Tensor small = factor >= 2
                           ? resize_nearest(image, H * factor, W * factor)
                           : resize_antialiased(image, fitted(H), fitted(W), Filter::bicubic);
  Picture square(side, side);
  square.paste((side - small.dim(1)) / 2, (side - small.dim(0)) / 2, small);
  return square.image();
}

}  // namespace detail

/// A name that is at most `width` pixels wide.
namespace detail {

inline std::string fitting_title(const std::string& name, i64 width, double size) {
  std::string title = printable(name, 60), cut = title;
  while (text_width(title, size) > static_cast<double>(width) && !cut.empty()) {
    do cut.pop_back();
    while (!is_utf8(cut));
    title = cut + "...";
  }
  return title;
}

}  // namespace detail

Tensor sample_sheet(const SetPart& part, const SetLook& look) {
  // images to choose from
  std::vector<std::vector<i64>> groups(part.unit.empty() ? part.classes.size() : 1);
  for (i64 i = 0; i < part.size; ++i)
    if (const ImageFacts& s = look.seen[static_cast<std::size_t>(i)]; s.wrong.empty())
      groups[part.unit.empty() ? static_cast<std::size_t>(s.counts[0].first) : 0].push_back(i);
  std::erase_if(groups, [](const std::vector<i64>& g) { return g.empty(); });
  const bool few = groups.size() <= 10;
  const std::size_t most_groups = std::min<std::size_t>(groups.size(), 48),
                    of_each = !part.unit.empty() ? 9
                              : few              ? 6
                                                 : 1,
                    columns = !part.unit.empty() ? 3
                              : few              ? 6
                                                 : 8;
  const i64 side = part.unit.empty() ? 112 : 320;
  std::vector<std::vector<Panel>> rows;
  for (std::size_t k = 0; k < most_groups; ++k) {
    const std::vector<i64>& g = groups[k * groups.size() / most_groups];
    const std::size_t n = std::min(of_each, g.size());
    if (few && part.unit.empty()) rows.emplace_back();  // a row for each class
    for (std::size_t i = 0; i < n; ++i) {
      const i64 index = g[i * g.size() / n];  // spread: neighbours are often alike
      const ImageFacts& s = look.seen[static_cast<std::size_t>(index)];
      std::string title;
      if (part.unit.empty()) {
        const std::string& name = part.classes[static_cast<std::size_t>(s.counts[0].first)];
        title = detail::fitting_title(name, side, 10);
      }
      if (rows.empty() || rows.back().size() == columns) rows.emplace_back();
      rows.back().push_back(image_panel(title, detail::in_square(part.picture(index), side)));
    }
  }
  return panels(rows, {.size = side}).image();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
