#pragma once
#include "ppma/core/names_begin.hpp"
// A label map over its photograph, with a legend of the classes that occur.

#include <string>
#include <vector>

#include "ppma/vis/picture.hpp"

namespace ppma::inline PPMA_ABI {

/// The image, enlarged by a whole factor to at least `least` pixels on its longer side, under a
/// veil of the classes' colours with thin borders between them; a strip below names the classes
/// that cover at least a thousandth, largest first, and is wider than a narrow image where a name
/// needs it. labels uint8 (H,W), 255 stays clear.
PPMA_API Picture segment_picture(const Tensor& image, const Tensor& labels,
                                 const std::vector<std::string>& names, i64 least = 720);

/// The image under that veil alone, each of its pixels `factor` x `factor` ones. Error: labels of
/// another size than the image's.
PPMA_API Picture label_veil(const Tensor& image, const Tensor& labels, i64 factor = 1);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cmath>

#include "ppma/io/resize.hpp"
#include "ppma/vis/palette.hpp"

namespace ppma::inline PPMA_ABI {

Picture label_veil(const Tensor& image, const Tensor& labels, i64 factor) {
  const i64 H = image.dim(0), W = image.dim(1), height = H * factor, width = W * factor;
  check(labels.rank() == 2 && labels.dim(0) == H && labels.dim(1) == W, "segment_picture: labels ",
        labels.shape(), " for an image ", image.shape());
  const u8* const l = labels.data<u8>();
  Picture p(width, height);
  p.paste(0, 0, factor == 1 ? image : resize_bilinear(image, height, width));
  for (i64 i = 0; i < height; ++i)
    for (i64 j = 0; j < width; ++j) {
      const u8 c = l[i / factor * W + j / factor];
      if (c == 255) continue;
      const bool rim = (i + 1 < height && l[(i + 1) / factor * W + j / factor] != c) ||
                       (j + 1 < width && l[i / factor * W + (j + 1) / factor] != c);
      p.blend(i, j, rim ? paper_white : class_color(c), rim ? 0.75 : 0.5);
    }
  return p;
}

Picture segment_picture(const Tensor& image, const Tensor& labels,
                        const std::vector<std::string>& names, i64 least) {
  const i64 H = image.dim(0), W = image.dim(1),
            factor = std::max(i64{1}, (least + std::max(H, W) - 1) / std::max(H, W));
  const Picture veiled = label_veil(image, labels, factor);
  const i64 width = W * factor, height = H * factor;
  std::vector<i64> count(256, 0);
  const u8* const l = labels.data<u8>();
  for (i64 i = 0; i < labels.numel(); ++i) ++count[l[i]];
  std::vector<i64> shown;
  for (i64 c = 0; c < 255; ++c)
    if (count[static_cast<std::size_t>(c)] * 1000 >= labels.numel()) shown.push_back(c);
  std::stable_sort(shown.begin(), shown.end(), [&](i64 a, i64 b) {
    return count[static_cast<std::size_t>(a)] > count[static_cast<std::size_t>(b)];
  });

  const double unit = static_cast<double>(std::max(width, height)) / 720,
               size = 10 * std::clamp(unit, 0.9, 2.0), line = 2.4 * size;
  const auto name_of = [&](i64 c) {
    return c < static_cast<i64>(names.size()) ? names[static_cast<std::size_t>(c)]
                                              : str("class ", c);
  };
  struct Entry {
    double x, y;
  };
  std::vector<Entry> at;
  double x = 1.5 * size, y = line, right = static_cast<double>(width);
  for (const i64 c : shown) {
    const double wide = 2.2 * size + text_width(name_of(c), size) + 1.8 * size;
    if (x + wide > static_cast<double>(width) && x > 1.5 * size) x = 1.5 * size, y += line;
    at.push_back({x, y});
    x += wide;
    right = std::max(right, x);
  }
  Picture p(static_cast<i64>(std::ceil(right)), height + static_cast<i64>(y + 1.2 * size));
  p.paste(0, 0, veiled.image());
  for (std::size_t k = 0; k < shown.size(); ++k) {
    const double top = static_cast<double>(height) + at[k].y - 1.15 * size;
    p.fill(at[k].x, top, at[k].x + 1.5 * size, top + 1.3 * size, class_color(shown[k]));
    p.text(at[k].x + 2.2 * size, static_cast<double>(height) + at[k].y, name_of(shown[k]), size);
  }
  return p;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
