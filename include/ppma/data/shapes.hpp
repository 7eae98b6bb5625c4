#pragma once
#include "ppma/core/names_begin.hpp"
// The generated set `shapes`: shaded figures in random colours, places, sizes and turns on textured
// grounds, with what a classifier, a segmenter and a detector are to find. Nothing is stored or
// downloaded: an image is a function of (seed, split, index), and it shows the same scene at any
// size. (Another compiler's rounding may move a level by one.)
//
// Each scene has one main figure, whose class is the image's label, and on top of the ground
// clutter (confetti, threads) and smaller figures of any class. Legend: H W pixels, n objects.

#include <algorithm>
#include <cmath>
#include <vector>

#include "ppma/data/dataset.hpp"
#include "ppma/data/ground.hpp"
#include "ppma/data/outline.hpp"

namespace ppma::inline PPMA_ABI {

struct ShapesOptions {
  i64 height = 64, width = 64;
  i64 images = 10000;  // in the set
  u64 seed = 0;
  Split split = Split::train;
  i64 most_extra = 1;    // smaller figures beside the main one: 0 to this many
  i64 most_clutter = 6;  // confetti and threads: 0 to this many
};

/// An image and all that is known about it. What is covered by a figure in front is not part of an
/// object, and an object of which little is left to see is not drawn at all.
struct Scene {
  Tensor image;   // uint8 (H,W,3)
  i64 label = 0;  // class of the main figure
  Tensor labels;  // uint8 (H,W): 0 for the ground, 1 + class on a figure
  Tensor masks;   // uint8 (n,H,W): 1 where object k is seen
  // f32 (n,4): x0 y0 x1 y1 in pixels, the smallest around the mask; x1 and y1 are exclusive
  Tensor boxes;
  std::vector<i64> classes;  // n; the main figure is the first
};

namespace detail {

struct Placed {
  Figure figure = Figure::circle;
  double x = 0, y = 0, radius = 0.3, turn = 0;  // in units of the shorter side
  Rgb top, bottom;                              // shaded from one to the other
  double light = 0;                             // direction of the shading
  int pattern = 0;                              // 0 plain, 1 stripes, 2 a darker rim
};

class Canvas {
 public:
  PPMA_API Canvas(i64 height, i64 width);

  /// Calls f(pixel, x, y, index) for the pixels within `reach` of (cx, cy).
  template <class F>
  void around(double cx, double cy, double reach, F&& f) {
    const auto low = [](double v) { return std::max(i64{0}, static_cast<i64>(std::floor(v))); };
    const i64 i1 = std::min(height_, low((cy + reach) * unit_) + 1),
              j1 = std::min(width_, low((cx + reach) * unit_) + 1);
    for (i64 i = low((cy - reach) * unit_); i < i1; ++i)
      for (i64 j = low((cx - reach) * unit_); j < j1; ++j) {
        const i64 at = i * width_ + j;
        f(pixel_[static_cast<std::size_t>(at)], (static_cast<double>(j) + 0.5) / unit_,
          (static_cast<double>(i) + 0.5) / unit_, at);
      }
  }
  template <class F>
  void everywhere(F&& f) {
    around(0, 0, 1e6, f);
  }

  /// How much of a pixel lies inside, for a signed distance in units.
  float coverage(double distance) const {
    return static_cast<float>(std::clamp(0.5 - distance * unit_, 0.0, 1.0));
  }

  PPMA_API Tensor image() const;
  double unit() const { return unit_; }

 private:
  i64 height_, width_;
  double unit_;  // pixels
  std::vector<Rgb> pixel_;
};

PPMA_API void paint(Canvas& canvas, const Placed& f);

}  // namespace detail

/// Scene number `index`. The class is index modulo the number of classes: every class is equally
/// frequent.
PPMA_API Scene draw_shapes(const ShapesOptions& options, i64 index);

/// The set as images with labels. Errors: no images; a size outside of 8 to 8192.
PPMA_API Dataset shapes(const ShapesOptions& options = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

namespace ppma::inline PPMA_ABI {

namespace detail {

Canvas::Canvas(i64 height, i64 width)
    : height_(height),
      width_(width),
      unit_(static_cast<double>(std::min(height, width))),
      pixel_(static_cast<std::size_t>(height * width)) {}

Tensor Canvas::image() const {
  Tensor out = Tensor::empty({height_, width_, 3}, DType::uint8);
  u8* to = out.data<u8>();
  for (const Rgb& p : pixel_) {
    *to++ = srgb_byte(p.r);
    *to++ = srgb_byte(p.g);
    *to++ = srgb_byte(p.b);
  }
  return out;
}

inline double distance_to(const Placed& f, double x, double y) {
  const double c = std::cos(f.turn), s = std::sin(f.turn), u = (x - f.x) / f.radius,
               v = (y - f.y) / f.radius;
  return outline_distance(f.figure, c * u + s * v, -s * u + c * v) * f.radius;
}

void paint(Canvas& canvas, const Placed& f) {
  const double drop = 0.09 * f.radius, blur = 0.16 * f.radius, lx = std::cos(f.light),
               ly = std::sin(f.light);
  const float edge = static_cast<float>(std::max(0.07 * f.radius, 0.6 / canvas.unit()));
  canvas.around(f.x, f.y, 1.3 * f.radius + 2 / canvas.unit(), [&](Rgb& p, double x, double y, i64) {
    // A soft shadow to the lower right.
    const float shade =
        static_cast<float>(std::clamp(0.5 - distance_to(f, x - drop, y - drop) / blur, 0.0, 1.0));
    p = mix(p, {0, 0, 0}, 0.38f * shade * shade * (3 - 2 * shade));
    const double distance = distance_to(f, x, y);
    const float cover = canvas.coverage(distance);
    if (cover <= 0) return;
    const double u = (x - f.x) / f.radius, v = (y - f.y) / f.radius;
    Rgb colour = mix(f.top, f.bottom,
                     static_cast<float>(std::clamp(0.5 + 0.55 * (lx * u + ly * v), 0.0, 1.0)));
    if (f.pattern == 1 && std::cos(11 * (ly * u - lx * v)) > 0) colour = mix(colour, f.top, 0.6f);
    if (f.pattern == 2 && distance > -2.2f * edge) colour = mix(colour, {0, 0, 0}, 0.45f);
    // Light from the upper left catches the rim.
    const float rim = static_cast<float>(std::clamp(1 + distance / edge, 0.0, 1.0));
    const double facing = distance_to(f, x - 0.02 * f.radius, y - 0.02 * f.radius) - distance;
    colour = mix(colour, facing < 0 ? Rgb{0, 0, 0} : Rgb{1, 1, 1}, 0.22f * rim);
    p = mix(p, colour, cover);
  });
}

// A short thread or a speck of confetti.
inline void paint_clutter(Canvas& canvas, Rng& rng, double right, double bottom, double lightness) {
  const bool thread = rng.flip(0.4);
  const double x = rng.uniform(0, right), y = rng.uniform(0, bottom),
               turn = rng.uniform(0, 6.283185307179586);
  const double half = thread ? rng.uniform(0.06, 0.22) : rng.uniform(0.0, 0.012);
  const double width = thread ? rng.uniform(0.005, 0.011) : rng.uniform(0.012, 0.028);
  const double bend = thread ? rng.uniform(-1.5, 1.5) : 0;
  const Rgb colour = oklch(std::clamp(lightness + (rng.flip() ? 0.2 : -0.2), 0.1, 0.95),
                           rng.uniform(0.02, 0.16), rng.uniform(0, 6.283185307179586));
  const double c = std::cos(turn), s = std::sin(turn);
  canvas.around(x, y, half + width + 0.12, [&](Rgb& p, double px, double py, i64) {
    const double u = c * (px - x) + s * (py - y), v = -s * (px - x) + c * (py - y);
    p = mix(p, colour,
            canvas.coverage(
                segment_distance({u, v - bend * (u * u - half * half)}, {-half, 0}, {half, 0}) -
                width));
  });
}

}  // namespace detail

Scene draw_shapes(const ShapesOptions& options, i64 index) {
  const i64 H = options.height, W = options.width;
  check(H >= 8 && W >= 8 && H <= 8192 && W <= 8192, "shapes: images of ", H, " x ", W,
        " pixels asked for (8 to 8192)");
  Rng rng(options.seed, static_cast<u64>(options.split), static_cast<u64>(index), 0x5a9e5);
  detail::Canvas canvas(H, W);
  const double right = static_cast<double>(W) / canvas.unit(),
               bottom = static_cast<double>(H) / canvas.unit();
  constexpr double turn = 6.283185307179586;

  // A pale, a middle or a deep ground: then there is always room for a clear colour in front of it.
  const i64 depth = rng.below(5);  // two in five pale, two deep
  const double lightness = depth < 2   ? rng.uniform(0.76, 0.9)
                           : depth < 4 ? rng.uniform(0.26, 0.42)
                                       : rng.uniform(0.5, 0.62);
  const double hue = rng.uniform(0, turn);
  const Ground ground(rng.fork(2), lightness, hue);
  canvas.everywhere([&](Rgb& p, double x, double y, i64) { p = ground.at(x, y); });
  for (i64 k = rng.below(options.most_clutter + 1); k > 0; --k)
    detail::paint_clutter(canvas, rng, right, bottom, lightness);

  const auto dress = [&](detail::Placed& f) {
    // Far from the ground in lightness, and in hue.
    const double step = rng.uniform(0.2, 0.36);
    const bool up = depth >= 2;
    const double tone = lightness + (up ? step : -step),
                 tint = hue + turn * rng.uniform(0.17, 0.83);
    const double chroma = rng.uniform(0.12, 0.24), fade = rng.uniform(0.02, 0.08);
    f.top = oklch(tone + fade, chroma, tint + rng.uniform(-0.5, 0.5));
    f.bottom = oklch(tone - fade, chroma, tint);
    f.turn = rng.uniform(0, turn);
    f.light = rng.uniform(0.3, 1.3);
    f.pattern = rng.flip(0.22) ? 1 : rng.flip(0.25) ? 2 : 0;
  };
  std::vector<detail::Placed> figures(1);
  detail::Placed& main = figures[0];
  main.figure = static_cast<Figure>(index % figure_count);
  main.radius = rng.uniform(0.24, 0.4);
  main.x = rng.uniform(0.8 * main.radius, right - 0.8 * main.radius);
  main.y = rng.uniform(0.8 * main.radius, bottom - 0.8 * main.radius);
  dress(main);
  for (i64 k = rng.below(options.most_extra + 1); k > 0; --k)
    for (int attempt = 0; attempt < 20; ++attempt) {
      detail::Placed f;
      f.figure = static_cast<Figure>(rng.below(figure_count));
      f.radius = figures[0].radius * rng.uniform(0.3, 0.6);
      f.x = rng.uniform(0.5 * f.radius, right - 0.5 * f.radius);
      f.y = rng.uniform(0.5 * f.radius, bottom - 0.5 * f.radius);
      const bool free =
          std::none_of(figures.begin(), figures.end(), [&](const detail::Placed& other) {
            return std::hypot(f.x - other.x, f.y - other.y) < 0.85 * (f.radius + other.radius);
          });
      if (!free) continue;
      dress(f);
      figures.push_back(f);
      break;
    }
  // the main figure in front
  for (auto f = figures.rbegin(); f != figures.rend(); ++f) detail::paint(canvas, *f);

  Scene scene;
  scene.image = canvas.image();
  scene.label = index % figure_count;
  const i64 n = static_cast<i64>(figures.size());
  scene.labels = Tensor::zeros({H, W}, DType::uint8);
  Tensor masks = Tensor::zeros({n, H, W}, DType::uint8), boxes = Tensor::empty({n, 4});
  u8* labels = scene.labels.data<u8>();
  i64 seen_objects = 0;
  for (const detail::Placed& f : figures) {  // front to back: what is taken stays taken
    u8* mask = masks.data<u8>() + seen_objects * H * W;
    i64 x0 = W, y0 = H, x1 = 0, y1 = 0;
    canvas.around(f.x, f.y, f.radius, [&](Rgb&, double x, double y, i64 at) {
      if (labels[at] != 0 || detail::distance_to(f, x, y) > 0) return;
      mask[at] = 1;
      labels[at] = static_cast<u8>(1 + static_cast<int>(f.figure));
      x0 = std::min(x0, at % W), x1 = std::max(x1, at % W + 1);
      y0 = std::min(y0, at / W), y1 = std::max(y1, at / W + 1);
    });
    if (x1 == 0) continue;  // too small for a pixel
    float* box = boxes.data<float>() + seen_objects * 4;
    box[0] = static_cast<float>(x0), box[1] = static_cast<float>(y0);
    box[2] = static_cast<float>(x1), box[3] = static_cast<float>(y1);
    scene.classes.push_back(static_cast<i64>(f.figure));
    ++seen_objects;
  }
  scene.masks = Tensor::empty({seen_objects, H, W}, DType::uint8);
  scene.boxes = Tensor::empty({seen_objects, 4});
  std::copy_n(masks.data<u8>(), scene.masks.numel(), scene.masks.data<u8>());
  std::copy_n(boxes.data<float>(), scene.boxes.numel(), scene.boxes.data<float>());
  return scene;
}

Dataset shapes(const ShapesOptions& options) {
  check(options.images > 0, "shapes: ", options.images, " images asked for");
  Dataset d;
  d.name = "shapes";
  d.size = options.images;
  d.class_names = figure_names();
  d.label = [](i64 index) { return index % figure_count; };
  d.load = [options](i64 index) {
    Scene scene = draw_shapes(options, index);
    return Sample{std::move(scene.image), scene.label, str("shapes/", index)};
  };
  return d;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
