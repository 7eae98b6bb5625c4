#pragma once
#include "ppma/core/names_begin.hpp"
// Outlines of ten plane figures as signed distances: negative inside, zero on the edge, positive
// outside. A distance in pixels is all that an anti-aliased edge, a rim and a soft shadow need.
//
// Each figure fits into the unit circle, y points down. Formulas after Inigo Quilez, "2D distance
// functions" (https://iquilezles.org/articles/distfunctions2d); where one is only a bound far away,
// it is exact near the edge.

#include <string>
#include <vector>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// The figures of the set `shapes`.
enum class Figure : u8 { circle, ring, square, triangle, star, cross, heart, moon, drop, bar };

inline constexpr i64 figure_count = 10;

/// "circle", "ring", ... in the order of Figure.
PPMA_API const std::vector<std::string>& figure_names();

namespace detail {

struct Vec2 {
  double x = 0, y = 0;
  friend Vec2 operator+(Vec2 a, Vec2 b) { return {a.x + b.x, a.y + b.y}; }
  friend Vec2 operator-(Vec2 a, Vec2 b) { return {a.x - b.x, a.y - b.y}; }
  friend Vec2 operator*(Vec2 a, double s) { return {a.x * s, a.y * s}; }
};

PPMA_API double dot(Vec2 a, Vec2 b);
PPMA_API double length(Vec2 a);

PPMA_API double segment_distance(Vec2 p, Vec2 a, Vec2 b);

}  // namespace detail

/// Signed distance of (x, y) to the outline of `figure` in the unit circle.
PPMA_API double outline_distance(Figure figure, double x, double y);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <cmath>

namespace ppma::inline PPMA_ABI {

const std::vector<std::string>& figure_names() {
  static const std::vector<std::string> names{"circle", "ring",  "square", "triangle", "star",
                                              "cross",  "heart", "moon",   "drop",     "bar"};
  return names;
}

namespace detail {

double dot(Vec2 a, Vec2 b) { return a.x * b.x + a.y * b.y; }
double length(Vec2 a) { return std::sqrt(dot(a, a)); }

double segment_distance(Vec2 p, Vec2 a, Vec2 b) {
  const Vec2 pa = p - a, ba = b - a;
  return length(pa - ba * std::clamp(dot(pa, ba) / dot(ba, ba), 0.0, 1.0));
}

inline double box_distance(Vec2 p, Vec2 half) {
  const Vec2 q{std::abs(p.x) - half.x, std::abs(p.y) - half.y};
  return length({std::max(q.x, 0.0), std::max(q.y, 0.0)}) + std::min(std::max(q.x, q.y), 0.0);
}

// A polygon's distance: to the nearest side, with the sign of the crossing number.
template <std::size_t n>
double polygon_distance(Vec2 p, const Vec2 (&corner)[n]) {
  double nearest = 1e9;
  bool inside = false;
  for (std::size_t i = 0, j = n - 1; i < n; j = i++) {
    const Vec2 a = corner[i], b = corner[j];
    nearest = std::min(nearest, segment_distance(p, a, b));
    if ((a.y > p.y) != (b.y > p.y) && p.x < (b.x - a.x) * (p.y - a.y) / (b.y - a.y) + a.x)
      inside = !inside;
  }
  return inside ? -nearest : nearest;
}

// Five points on the unit circle, five between them at radius `inner`: by symmetry, the distance to
// one side of one.
inline double star_distance(Vec2 p, double inner) {
  constexpr double tenth = 0.6283185307179586;
  const double angle = std::abs(std::remainder(std::atan2(p.x, -p.y), 2 * tenth)),
               radius = length(p);
  const Vec2 q{radius * std::sin(angle), radius * std::cos(angle)};
  const Vec2 tip{0, 1}, dent{inner * std::sin(tenth), inner * std::cos(tenth)}, side = dent - tip,
                                                                                to = q - tip;
  const double distance = segment_distance(q, tip, dent);
  return side.x * to.y - side.y * to.x < 0 ? -distance : distance;
}

inline double heart_distance(Vec2 p) {
  // Two quarter circles on a square that stands on its corner at the origin; 1.2 high, to be
  // centred and scaled.
  p = {std::abs(p.x), -p.y};
  if (p.y + p.x > 1.0) return length(p - Vec2{0.25, 0.75}) - std::sqrt(2.0) / 4;
  const double m = 0.5 * std::max(p.x + p.y, 0.0);
  const Vec2 a = p - Vec2{0, 1}, b = p - Vec2{m, m};
  return std::sqrt(std::min(dot(a, a), dot(b, b))) * (p.x - p.y > 0 ? 1.0 : -1.0);
}

// A disc of radius 1 without the disc of radius `bite` about (shift, 0).
inline double moon_distance(Vec2 p, double shift, double bite) {
  p.y = std::abs(p.y);
  const double a = (1 - bite * bite + shift * shift) / (2 * shift),
               b = std::sqrt(std::max(1 - a * a, 0.0));
  if (shift * (p.x * b - p.y * a) > shift * shift * std::max(b - p.y, 0.0))
    return length(p - Vec2{a, b});
  return std::max(length(p) - 1, -(length(p - Vec2{shift, 0}) - bite));
}

// A disc of radius r1 at the origin and one of radius r2 at (0, -height), with their common
// tangents.
inline double drop_distance(Vec2 p, double r1, double r2, double height) {
  p = {std::abs(p.x), -p.y};
  const double b = (r1 - r2) / height, a = std::sqrt(1 - b * b), k = -b * p.x + a * p.y;
  if (k < 0) return length(p) - r1;
  if (k > a * height) return length(p - Vec2{0, height}) - r2;
  return a * p.x + b * p.y - r1;
}

}  // namespace detail

double outline_distance(Figure figure, double x, double y) {
  using detail::Vec2;
  const Vec2 p{x, y};
  constexpr double soft = 0.04;  // corners are rounded a little: drawn, not cut
  switch (figure) {
    case Figure::circle:
      return detail::length(p) - 0.9;
    case Figure::ring:
      return std::abs(detail::length(p) - 0.7) - 0.23;
    case Figure::square:
      return detail::box_distance(p, {0.7 - soft, 0.7 - soft}) - soft;
    case Figure::triangle: {
      constexpr double r = 1.0 - 2 * soft;
      constexpr Vec2 corner[3] = {
          {0, -r}, {0.8660254037844386 * r, 0.5 * r}, {-0.8660254037844386 * r, 0.5 * r}};
      return detail::polygon_distance(p, corner) - soft;
    }
    case Figure::star:
      return 0.95 * detail::star_distance(p * (1 / 0.95), 0.45) - soft;
    case Figure::cross: {
      constexpr double arm = 0.27, r = 0.92;
      return std::min(detail::box_distance(p, {arm - soft, r - soft}),
                      detail::box_distance(p, {r - soft, arm - soft})) -
             soft;
    }
    case Figure::heart: {
      constexpr double scale = 1.45;
      return detail::heart_distance({x / scale, y / scale - 0.55}) * scale;
    }
    case Figure::moon:
      return detail::moon_distance({x, y}, 0.5, 0.78);
    case Figure::drop:
      return detail::drop_distance({x, y - 0.36}, 0.6, 0.05, 1.28);
    case Figure::bar:
      return detail::box_distance(p, {0.96 - 0.1, 0.28 - 0.1}) - 0.1;
  }
  return 1;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
