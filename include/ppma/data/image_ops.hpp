#pragma once
#include "ppma/core/names_begin.hpp"
// Changes of colour and geometry, equal to Pillow's (ImageOps, ImageEnhance, Image.transform) to
// the last bit: what RandAugment is made of. Images are uint8 (H,W,3), and so are results.

#include <array>

#include "ppma/data/augment.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

using LevelTable = std::array<u8, 256>;

// table[channel](level) for every pixel.
PPMA_API Tensor look_up(const Tensor& image, const std::array<LevelTable, 3>& table);

// f(level) for every level of every channel.
template <class F>
Tensor map_levels(const Tensor& image, const char* op, F&& f) {
  check_image(image, op);
  LevelTable t;
  for (int level = 0; level < 256; ++level)
    t[static_cast<std::size_t>(level)] = static_cast<u8>(f(level));
  return look_up(image, {t, t, t});
}

}  // namespace detail

/// 255 - level.
PPMA_API Tensor invert(const Tensor& image);

/// Keeps the upper `bits` bits of each level; none is black.
PPMA_API Tensor posterize(const Tensor& image, int bits);

/// Inverts levels of `threshold` and more.
PPMA_API Tensor solarize(const Tensor& image, int threshold);

/// Adds `add` to levels below 128.
PPMA_API Tensor solarize_add(const Tensor& image, int add);

/// Stretches each channel's levels to 0 .. 255.
PPMA_API Tensor auto_contrast(const Tensor& image);

/// Makes each channel's levels about equally frequent.
PPMA_API Tensor equalize(const Tensor& image);

/// Colour: 0 is grey, 1 the image.
PPMA_API Tensor adjust_color(const Tensor& image, double factor);

/// Contrast: 0 is the mean grey, 1 the image.
PPMA_API Tensor adjust_contrast(const Tensor& image, double factor);

/// Brightness: 0 is black, 1 the image.
PPMA_API Tensor adjust_brightness(const Tensor& image, double factor);

/// Sharpness: 0 is smoothed by (1 1 1; 1 5 1; 1 1 1) / 13 (all but the border), 1 the image.
PPMA_API Tensor adjust_sharpness(const Tensor& image, double factor);

/// The colour, red, green, blue, of what lies outside of an image.
using Fill = std::array<u8, 3>;

/// The output's pixel (x, y) is the input at (m0 x + m1 y + m2, m3 x + m4 y + m5), both at pixel
/// centres, bicubic (a =
/// -1, neighbours clamped to the image); `fill` where that lies outside.
PPMA_API Tensor affine(const Tensor& image, const std::array<double, 6>& m, const Fill& fill);

/// Counter-clockwise by `degrees` about the centre; the size stays.
PPMA_API Tensor rotate(const Tensor& image, double degrees, const Fill& fill);

/// Rows moved in proportion to their height (x_in = x + factor y), columns likewise (y_in = y +
/// factor x).
PPMA_API Tensor shear_x(const Tensor& image, double factor, const Fill& fill);
PPMA_API Tensor shear_y(const Tensor& image, double factor, const Fill& fill);

/// By `share` of the width (height); positive moves the picture to the left (up).
PPMA_API Tensor translate_x(const Tensor& image, double share, const Fill& fill);

/// As translate_x(), up.
PPMA_API Tensor translate_y(const Tensor& image, double share, const Fill& fill);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <cmath>

namespace ppma::inline PPMA_ABI {

namespace detail {

Tensor look_up(const Tensor& image, const std::array<LevelTable, 3>& table) {
  Tensor out = Tensor::empty(image.shape(), DType::uint8);
  const u8* x = image.data<u8>();
  u8* y = out.data<u8>();
  for (i64 i = 0; i < image.numel(); i += 3)
    for (std::size_t c = 0; c < 3; ++c)
      y[i + static_cast<i64>(c)] = table[c][x[i + static_cast<i64>(c)]];
  return out;
}

// Three tables made from the three histograms.
template <class F>
Tensor map_by_histogram(const Tensor& image, const char* op, F&& make) {
  check_image(image, op);
  std::array<std::array<i64, 256>, 3> count{};
  const u8* x = image.data<u8>();
  for (i64 i = 0; i < image.numel(); i += 3)
    for (std::size_t c = 0; c < 3; ++c) ++count[c][x[i + static_cast<i64>(c)]];
  std::array<LevelTable, 3> tables;
  for (std::size_t c = 0; c < 3; ++c) {
    for (std::size_t level = 0; level < 256; ++level) tables[c][level] = static_cast<u8>(level);
    make(count[c], tables[c]);
  }
  return look_up(image, tables);
}

// Pillow's grey: luma in fixed point.
inline u8 grey_level(const u8* p) {
  return static_cast<u8>((19595 * p[0] + 38470 * p[1] + 7471 * p[2] + 0x8000) >> 16);
}

// from + factor (to - from) in float, truncated, clipped.
inline u8 blend_level(int from, int to, float factor) {
  // The product is exact in double; rounding it to float first is what arithmetic without fused
  // operations does.
  const float step = static_cast<float>(static_cast<double>(factor) * (to - from)),
              v = static_cast<float>(from) + step;
  return v <= 0 ? u8{0} : v >= 255 ? u8{255} : static_cast<u8>(v);
}

// Blends degenerate(pixel index, channel) with the image: 0 is degenerate, 1 the image, above 1
// more than the image.
template <class F>
Tensor enhance(const Tensor& image, double factor, F&& degenerate) {
  Tensor out = Tensor::empty(image.shape(), DType::uint8);
  const u8* x = image.data<u8>();
  u8* y = out.data<u8>();
  for (i64 i = 0; i < image.numel(); ++i)
    y[i] = blend_level(degenerate(i / 3, i % 3), x[i], static_cast<float>(factor));
  return out;
}

}  // namespace detail

Tensor invert(const Tensor& image) {
  return detail::map_levels(image, "invert", [](int v) { return 255 - v; });
}

Tensor posterize(const Tensor& image, int bits) {
  check(bits >= 0 && bits <= 8, "posterize: ", bits, " bits of 8");
  return detail::map_levels(image, "posterize",
                            [&](int v) { return v & ~((1 << (8 - bits)) - 1); });
}

Tensor solarize(const Tensor& image, int threshold) {
  return detail::map_levels(image, "solarize", [&](int v) { return v < threshold ? v : 255 - v; });
}

Tensor solarize_add(const Tensor& image, int add) {
  return detail::map_levels(image, "solarize_add",
                            [&](int v) { return v < 128 ? std::clamp(v + add, 0, 255) : v; });
}

Tensor auto_contrast(const Tensor& image) {
  return detail::map_by_histogram(
      image, "auto_contrast", [](const std::array<i64, 256>& count, detail::LevelTable& table) {
        std::size_t low = 0, high = 255;
        while (low < 255 && count[low] == 0) ++low;
        while (high > 0 && count[high] == 0) --high;
        if (high <= low) return;
        const double scale = 255.0 / static_cast<double>(high - low),
                     offset = -static_cast<double>(low) * scale;
        for (std::size_t v = 0; v < 256; ++v) {
          const volatile double scaled =
              static_cast<double>(v) * scale;  // rounded: fused into the sum, 255 becomes 254
          table[v] = static_cast<u8>(std::clamp(static_cast<int>(scaled + offset), 0, 255));
        }
      });
}

Tensor equalize(const Tensor& image) {
  return detail::map_by_histogram(image, "equalize",
                                  [](const std::array<i64, 256>& count, detail::LevelTable& table) {
                                    i64 pixels = 0, highest = 0, levels = 0;
                                    for (const i64 n : count)
                                      if (n > 0) pixels += n, highest = n, ++levels;
                                    const i64 step = (pixels - highest) / 255;
                                    if (levels <= 1 || step == 0) return;
                                    i64 below = step / 2;
                                    for (std::size_t v = 0; v < 256; below += count[v++])
                                      table[v] = static_cast<u8>(std::min(i64{255}, below / step));
                                  });
}

Tensor adjust_color(const Tensor& image, double factor) {
  detail::check_image(image, "adjust_color");
  return detail::enhance(image, factor, [x = image.data<u8>()](i64 pixel, i64) {
    return detail::grey_level(x + 3 * pixel);
  });
}

Tensor adjust_contrast(const Tensor& image, double factor) {
  detail::check_image(image, "adjust_contrast");
  const i64 pixels = image.dim(0) * image.dim(1);
  i64 sum = 0;
  for (i64 i = 0; i < pixels; ++i) sum += detail::grey_level(image.data<u8>() + 3 * i);
  const int mean = static_cast<int>(static_cast<double>(sum) / static_cast<double>(pixels) + 0.5);
  return detail::enhance(image, factor, [mean](i64, i64) { return mean; });
}

Tensor adjust_brightness(const Tensor& image, double factor) {
  detail::check_image(image, "adjust_brightness");
  return detail::enhance(image, factor, [](i64, i64) { return 0; });
}

Tensor adjust_sharpness(const Tensor& image, double factor) {
  detail::check_image(image, "adjust_sharpness");
  const i64 H = image.dim(0), W = image.dim(1);
  const u8* x = image.data<u8>();
  return detail::enhance(image, factor, [=](i64 pixel, i64 c) -> int {
    const i64 i = pixel / W, j = pixel % W;
    const u8* p = x + pixel * 3 + c;
    if (i == 0 || j == 0 || i == H - 1 || j == W - 1) return *p;
    int sum = 4 * *p;
    for (i64 di = -1; di <= 1; ++di)
      for (i64 dj = -1; dj <= 1; ++dj) sum += p[(di * W + dj) * 3];
    return (2 * sum + 13) / 26;  // rounded
  });
}

Tensor affine(const Tensor& image, const std::array<double, 6>& m, const Fill& fill) {
  detail::check_image(image, "affine");
  const i64 H = image.dim(0), W = image.dim(1);
  Tensor out = Tensor::empty(image.shape(), DType::uint8);
  const u8* from = image.data<u8>();
  u8* to = out.data<u8>();
  const auto cubic = [](double a, double b, double c, double d, double t) {
    return b + t * ((c - a) + t * ((2 * (a - b) + c - d) + t * (b - a - c + d)));
  };
  for (i64 i = 0; i < H; ++i)
    for (i64 j = 0; j < W; ++j, to += 3) {
      const double x = static_cast<double>(j) + 0.5, y = static_cast<double>(i) + 0.5;
      const double u = m[0] * x + m[1] * y + m[2], v = m[3] * x + m[4] * y + m[5];
      if (!(u >= 0 && v >= 0 && u < static_cast<double>(W) && v < static_cast<double>(H))) {
        std::copy_n(fill.data(), 3, to);
        continue;
      }
      const double left = std::floor(u - 0.5), top = std::floor(v - 0.5), du = u - 0.5 - left,
                   dv = v - 0.5 - top;
      i64 column[4], row[4];
      for (i64 k = 0; k < 4; ++k) {
        column[k] = std::clamp(static_cast<i64>(left) - 1 + k, i64{0}, W - 1) * 3;
        row[k] = std::clamp(static_cast<i64>(top) - 1 + k, i64{0}, H - 1) * W * 3;
      }
      for (i64 c = 0; c < 3; ++c) {
        double line[4];
        for (i64 k = 0; k < 4; ++k) {
          const u8* p = from + row[k] + c;
          line[k] = cubic(p[column[0]], p[column[1]], p[column[2]], p[column[3]], du);
        }
        const double level = cubic(line[0], line[1], line[2], line[3], dv);
        // cut off, not rounded
        to[c] = level <= 0 ? u8{0} : level >= 255 ? u8{255} : static_cast<u8>(level);
      }
    }
  return out;
}

Tensor rotate(const Tensor& image, double degrees, const Fill& fill) {
  detail::check_image(image, "rotate");
  if (std::fmod(degrees, 360.0) == 0) return image;
  const double angle = -degrees * 3.141592653589793 / 180, c = std::cos(angle), s = std::sin(angle);
  const double x = static_cast<double>(image.dim(1)) / 2, y = static_cast<double>(image.dim(0)) / 2;
  return affine(image, {c, s, x - c * x - s * y, -s, c, y + s * x - c * y}, fill);
}

Tensor shear_x(const Tensor& image, double factor, const Fill& fill) {
  return affine(image, {1, factor, 0, 0, 1, 0}, fill);
}

Tensor shear_y(const Tensor& image, double factor, const Fill& fill) {
  return affine(image, {1, 0, 0, factor, 1, 0}, fill);
}

Tensor translate_x(const Tensor& image, double share, const Fill& fill) {
  return affine(image, {1, 0, share * static_cast<double>(image.dim(1)), 0, 1, 0}, fill);
}

Tensor translate_y(const Tensor& image, double share, const Fill& fill) {
  return affine(image, {1, 0, 0, 0, 1, share * static_cast<double>(image.dim(0))}, fill);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
