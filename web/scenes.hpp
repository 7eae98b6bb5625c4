#pragma once
// The drawn pictures of the page, one for each thing that there is to see.

#include <cmath>

#include "ppma/data/shapes.hpp"

namespace web {

using namespace ppma;

inline constexpr int scenes = 5;

// 0: two figures of one colour. Attention alone cannot tell them apart, the mask can.
inline Tensor twins(i64 side) {
  detail::Canvas canvas(side, side);
  const Ground ground(Rng(5), 0.84, 1.6);
  canvas.everywhere([&](Rgb& p, double x, double y, i64) { p = ground.at(x, y); });
  const auto put = [&](Figure figure, double x, double y, double radius, double turn,
                       double lightness, double chroma, double hue) {
    detail::Placed f;
    f.figure = figure;
    f.x = x, f.y = y, f.radius = radius, f.turn = turn, f.light = 0.8;
    f.top = oklch(lightness + 0.03, chroma, hue), f.bottom = oklch(lightness - 0.03, chroma, hue);
    detail::paint(canvas, f);
  };
  put(Figure::moon, 0.24, 0.75, 0.2, 2.4, 0.72, 0.13, 1.35);
  put(Figure::circle, 0.29, 0.3, 0.22, 0, 0.55, 0.14, 4.4);
  put(Figure::heart, 0.7, 0.66, 0.26, 0.25, 0.55, 0.14, 4.4);
  put(Figure::star, 0.76, 0.2, 0.15, 0.3, 0.6, 0.17, 0.5);
  return canvas.image();
}

// 3: a band that winds inwards. A polyline turns once, so it does not follow.
inline Tensor spiral(i64 side) {
  detail::Canvas canvas(side, side);
  const Rgb pale = oklch(0.9, 0.02, 1.5), deep = oklch(0.5, 0.13, 2.9);
  canvas.everywhere([&](Rgb& p, double x, double y, i64) {
    constexpr double turn = 6.283185307179586, pitch = 0.15;
    const double u = x - 0.5, v = y - 0.5, r = std::hypot(u, v), angle = std::atan2(v, u) / turn;
    // Distance to the nearest winding, r = pitch (k + angle).
    const double k = std::clamp(std::round(r / pitch - angle), 0.0, 3.0);
    const double far = std::abs(r - pitch * std::max(0.15, k + angle));
    p = mix(pale, deep, canvas.coverage(far - 0.036));
  });
  return canvas.image();
}

// 4: two rooms and a door. What lies around one corner is seen through it.
inline Tensor rooms(i64 side) {
  detail::Canvas canvas(side, side);
  const Rgb floor = oklch(0.88, 0.04, 1.4), wall = oklch(0.36, 0.05, 4.6);
  canvas.everywhere([&](Rgb& p, double x, double y, i64) {
    const double frame = std::min({x, y, 1 - x, 1 - y}) - 0.06;
    const double between = std::max(std::abs(x - 0.5) - 0.03, 0.14 - std::abs(y - 0.62));
    p = mix(floor, wall, canvas.coverage(std::min(frame, between)));
  });
  return canvas.image();
}

// 1 and 2: of the set `shapes`, those that docs/algorithm.md shows.
inline Tensor draw_scene(int scene, i64 side) {
  switch (scene) {
    case 0:
      return twins(side);
    case 1:
    case 2:
      return draw_shapes({.height = side,
                          .width = side,
                          .seed = 1,
                          .split = Split::test,
                          .most_clutter = 0},
                         scene == 1 ? 22 : 11)
          .image;
    case 3:
      return spiral(side);
    case 4:
      return rooms(side);
    default:
      fail("there is no scene of number ", scene);
  }
}

}  // namespace web
