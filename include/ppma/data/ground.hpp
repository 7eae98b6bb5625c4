#pragma once
#include "ppma/core/names_begin.hpp"
// Colours and textured grounds for generated images.
//
// Colours are chosen in Oklab (Bjoern Ottosson, https://bottosson.github.io/posts/oklab, 2020),
// where equal steps look equal, so that "differs from the ground by a fifth of black to white"
// means the same for every hue. Blending is done in linear light, as it happens in a lens; only the
// finished image is gamma-coded.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "ppma/core/random.hpp"

namespace ppma::inline PPMA_ABI {

/// Linear light, 0 to 1 each.
struct Rgb {
  float r = 0, g = 0, b = 0;
};

/// From a (t = 0) to b (t = 1).
PPMA_API Rgb mix(Rgb a, Rgb b, float t);

/// Lightness 0 (black) to 1 (white), chroma 0 (grey) to about 0.25, hue in radians. Where the
/// screen cannot show the colour, its chroma is lowered until it can: lightness and hue stay.
PPMA_API Rgb oklch(double lightness, double chroma, double hue);

/// A level of linear light as the byte of an sRGB image.
PPMA_API u8 srgb_byte(float light);

/// Smooth noise, 0 to 1, mean 1/2: random values on a lattice of width 1, interpolated.
class Noise {
 public:
  /// With the lattice's values drawn from rng.
  explicit Noise(Rng rng) {
    for (float& v : value_) v = static_cast<float>(rng.uniform());
  }
  /// The noise at (x, y).
  PPMA_API float at(double x, double y) const;
  /// Sum of `octaves` copies, each twice as fine and half as strong.
  PPMA_API float fractal(double x, double y, int octaves) const;

 private:
  static constexpr i64 period = 32;
  float value(i64 i, i64 j) const {
    return value_[static_cast<std::size_t>((j & (period - 1)) * period + (i & (period - 1)))];
  }
  std::array<float, period * period> value_;
};

/// What lies behind the figures: two or three tones of neighbouring hues in a pattern. x and y are
/// in units of the image's shorter side, so that a ground looks the same at any size.
class Ground {
 public:
  PPMA_API Ground(Rng rng, double lightness, double hue);

  /// The colour at (x, y).
  PPMA_API Rgb at(double x, double y) const;

 private:
  enum class Kind : u8 { slope, glow, cloud, wood, stripes, checks, dots, marble };
  static constexpr i64 kinds = 8;

  static double wave(double t) { return 0.5 + 0.5 * std::cos(6.283185307179586 * t); }
  static double edge(double t) { return std::clamp(0.5 + 3 * (t - 0.5), 0.0, 1.0); }
  PPMA_API static double dot_pattern(double u, double v);

  Noise noise_;
  Kind kind_;
  int octaves_;
  Rgb dark_, light_;
  double cos_ = 1, sin_ = 0, scale_ = 3, x_ = 0, y_ = 0;
  float grain_ = 0;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <vector>

namespace ppma::inline PPMA_ABI {

Rgb mix(Rgb a, Rgb b, float t) {
  return {a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

Rgb oklch(double lightness, double chroma, double hue) {
  for (;; chroma *= 0.9) {
    const double a = chroma * std::cos(hue), b = chroma * std::sin(hue);
    const auto cube = [](double x) { return x * x * x; };
    const double l = cube(lightness + 0.3963377774 * a + 0.2158037573 * b);
    const double m = cube(lightness - 0.1055613458 * a - 0.0638541728 * b);
    const double s = cube(lightness - 0.0894841775 * a - 1.2914855480 * b);
    const double red = 4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s;
    const double green = -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s;
    const double blue = -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s;
    const auto shown = [](double x) { return x > -1e-4 && x < 1.0001; };
    if ((shown(red) && shown(green) && shown(blue)) || chroma < 1e-3) {
      const auto clip = [](double x) { return static_cast<float>(std::clamp(x, 0.0, 1.0)); };
      return {clip(red), clip(green), clip(blue)};
    }
  }
}

u8 srgb_byte(float light) {
  static const std::vector<u8> table = [] {
    std::vector<u8> t(4097);
    for (std::size_t i = 0; i < t.size(); ++i) {
      // The square root's steps: fine where the eye is.
      const double x = static_cast<double>(i) / 4096, v = x * x;
      t[i] = static_cast<u8>(
          255 * (v <= 0.0031308 ? 12.92 * v : 1.055 * std::pow(v, 1 / 2.4) - 0.055) + 0.5);
    }
    return t;
  }();
  return table[static_cast<std::size_t>(std::sqrt(std::clamp(light, 0.0f, 1.0f)) * 4096 + 0.5f)];
}

float Noise::at(double x, double y) const {
  const double fx = std::floor(x), fy = std::floor(y);
  const auto ease = [](double t) {
    return static_cast<float>(t * t * t * (t * (t * 6 - 15) + 10));
  };
  const float u = ease(x - fx), v = ease(y - fy);
  const i64 i = static_cast<i64>(fx), j = static_cast<i64>(fy);
  const float above = value(i, j) + (value(i + 1, j) - value(i, j)) * u;
  const float below = value(i, j + 1) + (value(i + 1, j + 1) - value(i, j + 1)) * u;
  return above + (below - above) * v;
}

float Noise::fractal(double x, double y, int octaves) const {
  float sum = 0, weight = 1, total = 0;
  for (int o = 0; o < octaves; ++o, weight *= 0.5f) {
    sum += weight * at(x, y);
    total += weight;
    x = 2 * x + 17.3, y = 2 * y + 5.7;
  }
  return sum / total;
}

Ground::Ground(Rng rng, double lightness, double hue)
    : noise_(rng.fork(1)),
      kind_(static_cast<Kind>(rng.below(kinds))),
      octaves_(rng.flip() ? 2 : 4) {
  const double spread = rng.uniform(0.035, 0.09), chroma = rng.uniform(0.02, 0.09),
               turn = rng.uniform(-0.8, 0.8);
  dark_ = oklch(lightness - spread, chroma, hue);
  light_ = oklch(lightness + spread, chroma, hue + turn);
  const double angle = rng.uniform(0, 6.283185307179586);
  cos_ = std::cos(angle), sin_ = std::sin(angle);
  scale_ = rng.uniform(2.5, 6.0);
  grain_ = static_cast<float>(rng.uniform(0.02, 0.10));
  x_ = rng.uniform(0, 1), y_ = rng.uniform(0, 1);
}

Rgb Ground::at(double x, double y) const {
  const double along = cos_ * x + sin_ * y, across = -sin_ * x + cos_ * y;
  double t = 0;
  switch (kind_) {
    case Kind::slope:
      t = 0.5 + 0.6 * (cos_ * (x - 0.5) + sin_ * (y - 0.5));
      break;
    case Kind::glow:
      t = 1.0 - 0.9 * std::hypot(x - x_, y - y_);
      break;
    case Kind::cloud:
      t = 2.2 * (noise_.fractal(scale_ * x, scale_ * y, octaves_) - 0.5) + 0.5;
      break;
    case Kind::wood:
      t = wave(1.4 * scale_ * (along + 0.3 * noise_.fractal(1.5 * along + 3, 3 * across, 2)));
      break;
    case Kind::stripes:
      t = edge(wave(scale_ * along * 1.6));
      break;
    case Kind::checks:
      t = edge(0.5 + 0.5 * (2 * wave(scale_ * along) - 1) * (2 * wave(scale_ * across) - 1));
      break;
    case Kind::dots:
      t = dot_pattern(scale_ * along * 1.6, scale_ * across * 1.6);
      break;
    case Kind::marble:
      t = wave(0.5 * scale_ *
               (along + 0.8 * noise_.fractal(0.5 * scale_ * x, 0.5 * scale_ * y, 3)));
      break;
  }
  const float speckle = grain_ * (noise_.at(150 * x + 0.31, 150 * y + 0.17) - 0.5f);
  return mix(dark_, light_, std::clamp(static_cast<float>(t), 0.0f, 1.0f) + speckle);
}

double Ground::dot_pattern(double u, double v) {
  u = std::abs(u - std::round(u)), v = std::abs(v - std::round(v));
  return std::clamp(0.5 + 8 * (0.3 - std::hypot(u, v)), 0.0, 1.0);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
