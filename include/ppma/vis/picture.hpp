#pragma once
#include "ppma/core/names_begin.hpp"
// Picture: a white sheet to draw on - text, lines, frames, images, colour maps - everything
// anti-aliased.
//
// Coordinates are pixels, x to the right, y down; (0, 0) is the upper left corner of the upper left
// pixel, so that the centre of pixel (row i, column j) is (j + 0.5, i + 0.5).

#include <algorithm>
#include <cmath>
#include <string_view>
#include <vector>

#include "ppma/tensor/tensor.hpp"
#include "ppma/vis/colormap.hpp"
#include "ppma/vis/font.hpp"

namespace ppma::inline PPMA_ABI {

inline constexpr Color ink{34, 34, 34}, pale_ink{119, 119, 119}, faint_ink{216, 216, 216},
    paper_white{255, 255, 255}, signal_red{230, 25, 40};

/// Where a text lies beside its place.
enum class Align : u8 { left, center, right };

class Picture {
 public:
  /// A white sheet.
  Picture(i64 width, i64 height)
      : image_(Tensor::full({height, width, 3}, 255, DType::uint8)),
        width_(width),
        height_(height) {}

  /// uint8 (H,W,3), for write_png.
  const Tensor& image() const { return image_; }
  /// Pixels from left to right.
  i64 width() const { return width_; }
  /// Pixels from top to bottom.
  i64 height() const { return height_; }

  /// Mixes a colour into pixel (row i, column j); outside of the picture nothing happens.
  PPMA_API void blend(i64 i, i64 j, Color color, double cover);

  /// A rectangle in one colour.
  PPMA_API void fill(double x0, double y0, double x1, double y1, Color color, double strength = 1);

  /// A frame of the given thickness around the rectangle, outside of it.
  PPMA_API void frame(double x0, double y0, double x1, double y1, double thickness, Color color);

  /// A polyline with round ends and joints through points x, y, x, y ...
  PPMA_API void line(const std::vector<double>& xy, double thickness, Color color,
                     double strength = 1);
  /// A disc.
  void dot(double x, double y, double radius, Color color) {
    draw({{x, y, x, y}}, 2 * radius, color, 1);
  }

  /// Text whose capitals are `size` pixels high, standing on the line y.
  PPMA_API void text(double x, double y, std::string_view words, double size, Color color = ink,
                     Align align = Align::left);
  /// Text that reads upwards, standing on the vertical line x, centred at y.
  PPMA_API void text_upwards(double x, double y, std::string_view words, double size,
                             Color color = ink);

  /// Copies an image uint8 (h,w,3) with its upper left corner at pixel (x, y).
  PPMA_API void paste(i64 x, i64 y, const Tensor& picture);

 private:
  static i64 floor(double v) { return static_cast<i64>(std::floor(v)); }

  // Strokes as one shape: where they overlap, the nearest counts, so that joints are not darker.
  PPMA_API void draw(const std::vector<detail::Stroke>& strokes, double thickness, Color color,
                     double strength);

  template <class Place>
  void letters(std::string_view words, double size, Color color, Place&& place) {
    const double unit = size / font_height, thickness = std::max(1.05, 0.125 * size);
    double along = 0;
    for (const u32 code : detail::code_points(words)) {
      const detail::Glyph& glyph = detail::glyph(code);
      std::vector<detail::Stroke> strokes;
      for (const detail::Stroke& s : glyph.strokes) {
        const auto [ax, ay] = place((along + s.x0) * unit, s.y0 * unit);
        const auto [bx, by] = place((along + s.x1) * unit, s.y1 * unit);
        strokes.push_back({ax, ay, bx, by});
      }
      draw(strokes, thickness, color, 1);
      along += glyph.width + font_gap;
    }
  }

  Tensor image_;
  i64 width_, height_;  // asked for at every pixel  // uint8 (H,W,3)
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_VIS)

#include "ppma/io/resize.hpp"

namespace ppma::inline PPMA_ABI {

void Picture::blend(i64 i, i64 j, Color color, double cover) {
  if (i < 0 || j < 0 || i >= height() || j >= width() || cover <= 0) return;
  u8* p = image_.data<u8>() + (i * width() + j) * 3;
  for (std::size_t c = 0; c < 3; ++c)
    p[c] = static_cast<u8>(p[c] + (color[c] - p[c]) * std::min(cover, 1.0) + 0.5);
}

void Picture::fill(double x0, double y0, double x1, double y1, Color color, double strength) {
  // The part of a unit interval that is covered.
  const auto part = [](double lo, double hi, i64 k) {
    const double at = static_cast<double>(k);
    return std::clamp(std::min(hi, at + 1) - std::max(lo, at), 0.0, 1.0);
  };
  for (i64 i = std::max(i64{0}, floor(y0)); i < std::min(height(), floor(y1) + 1); ++i)
    for (i64 j = std::max(i64{0}, floor(x0)); j < std::min(width(), floor(x1) + 1); ++j)
      blend(i, j, color, strength * part(y0, y1, i) * part(x0, x1, j));
}

void Picture::frame(double x0, double y0, double x1, double y1, double thickness, Color color) {
  fill(x0 - thickness, y0 - thickness, x1 + thickness, y0, color);
  fill(x0 - thickness, y1, x1 + thickness, y1 + thickness, color);
  fill(x0 - thickness, y0, x0, y1, color);
  fill(x1, y0, x1 + thickness, y1, color);
}

void Picture::line(const std::vector<double>& xy, double thickness, Color color, double strength) {
  std::vector<detail::Stroke> strokes;
  for (std::size_t k = 0; k + 3 < xy.size(); k += 2)
    strokes.push_back({xy[k], xy[k + 1], xy[k + 2], xy[k + 3]});
  draw(strokes, thickness, color, strength);
}

void Picture::text(double x, double y, std::string_view words, double size, Color color,
                   Align align) {
  if (align != Align::left) x -= text_width(words, size) * (align == Align::center ? 0.5 : 1.0);
  letters(words, size, color, [&](double along, double up) {
    return std::pair<double, double>{x + along, y - up};
  });
}

void Picture::text_upwards(double x, double y, std::string_view words, double size, Color color) {
  y += text_width(words, size) / 2;
  letters(words, size, color, [&](double along, double up) {
    return std::pair<double, double>{x - up, y - along};
  });
}

void Picture::paste(i64 x, i64 y, const Tensor& picture) {
  for (i64 i = std::max(i64{0}, -y); i < std::min(picture.dim(0), height() - y); ++i) {
    const i64 first = std::max(i64{0}, -x), last = std::min(picture.dim(1), width() - x);
    if (first < last)
      std::copy_n(picture.data<u8>() + (i * picture.dim(1) + first) * 3, (last - first) * 3,
                  image_.data<u8>() + ((y + i) * width() + x + first) * 3);
  }
}

void Picture::draw(const std::vector<detail::Stroke>& strokes, double thickness, Color color,
                   double strength) {
  if (strokes.empty()) return;
  const double reach = thickness / 2 + 1;
  double x0 = 1e9, y0 = 1e9, x1 = -1e9, y1 = -1e9;
  for (const detail::Stroke& s : strokes) {
    x0 = std::min({x0, s.x0, s.x1}), x1 = std::max({x1, s.x0, s.x1});
    y0 = std::min({y0, s.y0, s.y1}), y1 = std::max({y1, s.y0, s.y1});
  }
  const i64 left = std::max(i64{0}, floor(x0 - reach)),
            right = std::min(width(), floor(x1 + reach) + 1);
  const i64 top = std::max(i64{0}, floor(y0 - reach)),
            bottom = std::min(height(), floor(y1 + reach) + 1);
  if (left >= right || top >= bottom) return;
  const i64 w = right - left;
  std::vector<float> nearest(static_cast<std::size_t>(w * (bottom - top)), 1e9f);
  for (const detail::Stroke& s : strokes) {
    const double dx = s.x1 - s.x0, dy = s.y1 - s.y0, squared = dx * dx + dy * dy;
    for (i64 i = std::max(top, floor(std::min(s.y0, s.y1) - reach));
         i < std::min(bottom, floor(std::max(s.y0, s.y1) + reach) + 1); ++i)
      for (i64 j = std::max(left, floor(std::min(s.x0, s.x1) - reach));
           j < std::min(right, floor(std::max(s.x0, s.x1) + reach) + 1); ++j) {
        const double px = static_cast<double>(j) + 0.5 - s.x0,
                     py = static_cast<double>(i) + 0.5 - s.y0;
        const double t = squared > 0 ? std::clamp((px * dx + py * dy) / squared, 0.0, 1.0) : 0;
        float& d = nearest[static_cast<std::size_t>((i - top) * w + j - left)];
        d = std::min(d, static_cast<float>(std::hypot(px - t * dx, py - t * dy)));
      }
  }
  for (i64 i = top; i < bottom; ++i)
    for (i64 j = left; j < right; ++j)
      blend(i, j, color,
            strength * std::clamp(0.5 + thickness / 2 -
                                      nearest[static_cast<std::size_t>((i - top) * w + j - left)],
                                  0.0, 1.0));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
