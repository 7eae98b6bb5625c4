#pragma once
#include "ppma/core/names_begin.hpp"
// Found objects over a photograph: masks as a veil with an outline, boxes, names and scores on
// tags.

#include <optional>
#include <string>
#include <vector>

#include "ppma/io/rle.hpp"
#include "ppma/vis/picture.hpp"

namespace ppma::inline PPMA_ABI {

/// One object to show. Corners in pixels of the image.
struct Shown {
  double x1 = 0, y1 = 0, x2 = 0, y2 = 0;
  i64 label = 0;
  std::string name;
  double score = -1;  // not shown below 0
  std::optional<Rle> mask{};
};

/// The image, enlarged to at least `least` pixels on its longer side, with the objects over it; the
/// first lie on top.
PPMA_API Picture overlay(const Tensor& image, const std::vector<Shown>& objects, i64 least = 720);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include <algorithm>
#include <cstdio>

#include "ppma/io/resize.hpp"
#include "ppma/vis/palette.hpp"

namespace ppma::inline PPMA_ABI {

Picture overlay(const Tensor& image, const std::vector<Shown>& objects, i64 least) {
  const i64 H = image.dim(0), W = image.dim(1),
            factor = std::max(i64{1}, (least + std::max(H, W) - 1) / std::max(H, W));
  const double f = static_cast<double>(factor);
  Picture p(W * factor, H * factor);
  p.paste(0, 0, factor == 1 ? image : resize_bilinear(image, H * factor, W * factor));
  const double unit = static_cast<double>(std::max(p.width(), p.height())) / 720,
               line = std::max(1.6, 2.0 * unit);
  for (auto o = objects.rbegin(); o != objects.rend(); ++o) {
    if (!o->mask) continue;
    check(o->mask->height == H && o->mask->width == W, "overlay: a mask of ", o->mask->height,
          " x ", o->mask->width, " pixels on an image of ", H, " x ", W);
    // Interpolated, so that an enlarged mask has a smooth edge; the outline is where it passes one
    // half.
    Tensor levels = rle_decode(*o->mask).viewed_as({H, W, 1});
    i64 top = H, bottom = 0, left = W, right = 0;  // around the mask
    u8* level = levels.data<u8>();
    for (i64 i = 0; i < H; ++i)
      for (i64 j = 0; j < W; ++j, ++level) {
        if (*level == 0) continue;
        *level = 255;
        top = std::min(top, i), bottom = i + 1;
        left = std::min(left, j), right = std::max(right, j + 1);
      }
    if (factor > 1) levels = resize_bilinear(levels, p.height(), p.width());
    const u8* m = levels.data<u8>();
    const i64 height = p.height(), width = p.width();
    const auto inside = [=](i64 i, i64 j) {
      return i >= 0 && j >= 0 && i < height && j < width && m[i * width + j] >= 128;
    };
    const i64 reach = std::max(i64{1}, static_cast<i64>(line / 2 + 0.5));
    // Enlarging reaches less than a pixel of the image beyond the mask.
    for (i64 i = std::max(i64{0}, (top - 1) * factor); i < std::min(height, (bottom + 1) * factor);
         ++i)
      for (i64 j = std::max(i64{0}, (left - 1) * factor); j < std::min(width, (right + 1) * factor);
           ++j) {
        if (!inside(i, j)) continue;
        bool rim = false;
        for (i64 d = 1; d <= reach && !rim; ++d)
          rim = !inside(i - d, j) || !inside(i + d, j) || !inside(i, j - d) || !inside(i, j + d);
        p.blend(i, j, class_color(o->label), rim ? 0.95 : 0.42);
      }
  }
  for (auto o = objects.rbegin(); o != objects.rend(); ++o)
    p.frame(o->x1 * f, o->y1 * f, o->x2 * f, o->y2 * f, line, class_color(o->label));
  const double size = 9.5 * std::clamp(unit, 0.9, 2.0), pad = 0.5 * size;
  for (auto o = objects.rbegin(); o != objects.rend(); ++o) {
    std::string words = o->name;
    if (o->score >= 0) {
      char number[16];
      std::snprintf(number, sizeof number, "%s%.0f%%", words.empty() ? "" : " ", 100 * o->score);
      words += number;
    }
    if (words.empty()) continue;
    const double w = text_width(words, size) + 2 * pad, h = size + 2 * pad;
    const double x =
        std::clamp(o->x1 * f - line, 0.0, std::max(0.0, static_cast<double>(p.width()) - w));
    double y = o->y1 * f - line - h;  // above the box, or within it at the upper border
    if (y < 0) y = std::max(0.0, o->y1 * f);
    const Color c = class_color(o->label);
    p.fill(x, y, x + w, y + h, c, 0.93);
    const bool light = 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2] > 150;
    p.text(x + pad, y + h - pad, words, size, light ? Color{20, 20, 20} : paper_white);
  }
  return p;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
