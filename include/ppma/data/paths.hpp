#pragma once
#include "ppma/core/names_begin.hpp"
// The generated set `paths`: pictures with two marks and a yes-or-no question whose answer lies on
// the way from one mark to the other, or does not.
//
//   region  the picture is cut by curves: are both marks in one region?
//   curve   among dashed curves, two are marked at an end: are these the ends of one curve?
//           (Pathfinder: Linsley et al., "Learning long-range spatial dependencies with horizontal
//           gated recurrent units", NeurIPS 2018)
//   colour  the pictures of `region`: have both marks one colour, red or blue? What lies between
//           them says nothing.
//
// How far the marks are from each other does not tell the answer: in each picture of the first two
// there are two marks with the one answer and two with the other that are as far apart (within 3 %
// of the picture's side), and the number of the image decides which are drawn. As in `shapes` an
// image is a function of (seed, split, index), the same scene at any size.

#include <array>

#include "ppma/data/dataset.hpp"
#include "ppma/data/outline.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline constexpr double mark_radius = 0.045, curve_width = 0.018;  // of the picture's side

}  // namespace detail

/// What is asked of the two marks.
enum class PathsTask : u8 { region, curve, colour };

struct PathsOptions {
  PathsTask task = PathsTask::region;
  i64 difficulty = 2;  // 1 to 5: how winding the curves are, or how many and how long
  i64 size = 64;       // height and width
  i64 images = 10000;  // in the set
  u64 seed = 0;
  Split split = Split::train;
};

struct PathsScene {
  Tensor image;                       // uint8 (size,size,3)
  i64 label = 0;                      // 1: yes
  std::array<detail::Vec2, 2> marks;  // their centres, 0 to 1
};

/// "region", "curve", "colour".
PPMA_API std::string to_string(PathsTask task);

/// The task of a name. Error: there is none of that name.
PPMA_API PathsTask parse_paths_task(const std::string& name);

/// Scene number `index`; every second answer is yes. Errors: a size outside of 16 to 4096, a
/// difficulty outside of 1 to 5.
PPMA_API PathsScene draw_paths(const PathsOptions& options, i64 index);

/// The set as images with labels. Error: no images; as draw_paths().
PPMA_API Dataset paths(const PathsOptions& options = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_DATA)

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "ppma/data/ground.hpp"
#include "ppma/data/shapes.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// Two pairs of marks, as far from each other: with the answer no and with the answer yes.
using PairOfAnswers = std::array<std::array<Vec2, 2>, 2>;

// Curves as a level set of smooth noise: closed in themselves or by the picture's edge.
class Regions {
 public:
  Regions(Rng rng, i64 difficulty)
      : noise_(rng.fork(1)), scale_(1.5 + 0.6 * static_cast<double>(difficulty)) {
    x_ = rng.uniform(0, 32), y_ = rng.uniform(0, 32);
    const double turn =
        rng.uniform(0, 6.283185307179586);  // the noise's lattice shows in its curves
    cos_ = scale_ * std::cos(turn), sin_ = scale_ * std::sin(turn);
  }

  /// About the distance to the nearest curve; its sign says on which side.
  double distance(Vec2 p) const { return height(p) * step / std::max(rise(p), least_rise()); }

  /// Marks in two regions and marks in one; none where this picture has no such pair, `apart` from
  /// each other.
  std::optional<PairOfAnswers> marks(Rng& rng, double apart) const {
    // Regions are told apart by walls as wide as the curve is drawn, and as wide as a mark: a way
    // that a mark fits through is a way for the eye, and no way is one that a curve crosses.
    std::vector<double> distances(cells * cells);
    for (i64 i = 0; i < cells * cells; ++i)
      distances[static_cast<std::size_t>(i)] = distance(centre(i));
    if (curves_touch(distances)) return std::nullopt;
    const std::vector<i64> narrow = regions(distances, 0.0),
                           wide = regions(distances, curve_width + mark_radius);
    std::optional<std::array<Vec2, 2>> found[2];
    const auto free = [&](i64 cell) { return wide[static_cast<std::size_t>(cell)] >= 0; };
    for (int attempt = 0; attempt < 4000 && !(found[0] && found[1]); ++attempt) {
      const i64 a = rng.below(cells * cells), b = rng.below(cells * cells);
      if (!free(a) || !free(b) || std::abs(length(centre(a) - centre(b)) - apart) > 0.03 ||
          !has_room(centre(a)) || !has_room(centre(b)))
        continue;
      const auto same = [&](const std::vector<i64>& of) {
        return of[static_cast<std::size_t>(a)] == of[static_cast<std::size_t>(b)];
      };
      if (!same(narrow) && !found[0]) found[0] = {centre(a), centre(b)};
      if (same(wide) && !found[1]) found[1] = {centre(a), centre(b)};
    }
    if (!found[0] || !found[1]) return std::nullopt;
    return PairOfAnswers{*found[0], *found[1]};
  }

 private:
  static constexpr i64 cells = 96;  // along a side

  double height(Vec2 p) const {
    const double x = cos_ * p.x - sin_ * p.y + x_, y = sin_ * p.x + cos_ * p.y + y_;
    return static_cast<double>(noise_.at(x, y)) - 0.5;
  }
  static Vec2 centre(i64 cell) {
    return {(static_cast<double>(cell % cells) + 0.5) / cells,
            (static_cast<double>(cell / cells) + 0.5) / cells};
  }

  // How much the noise changes over `step`, at its steepest; below least_rise() it is flat.
  static constexpr double step = 1e-3;
  double rise(Vec2 p) const {
    const double f = height(p);
    const double x = height({p.x + step, p.y}) - f, y = height({p.x, p.y + step}) - f;
    return std::sqrt(x * x + y * y);
  }
  double least_rise() const { return 0.16 * scale_ * step; }

  // Whether curves all but touch somewhere: there the noise is flat at the level of the curves, and
  // a gap would be seen or not by a hair.
  bool curves_touch(const std::vector<double>& distances) const {
    for (i64 i = 0; i < cells * cells; ++i)
      if (std::abs(distances[static_cast<std::size_t>(i)]) < 2 * curve_width &&
          rise(centre(i)) < least_rise())
        return true;
    return false;
  }
  // Whether a mark touches neither a curve nor the picture's edge.
  bool has_room(Vec2 p) const {
    constexpr double reach = mark_radius + curve_width;
    if (std::min(p.x, p.y) < reach || std::max(p.x, p.y) > 1 - reach) return false;
    for (int k = 0; k < 16; ++k) {
      const double angle = 0.39269908169872414 * k;
      const Vec2 beside = p + Vec2{std::cos(angle), std::sin(angle)} * reach;
      if ((height(beside) < 0) != (height(p) < 0)) return false;
    }
    return true;
  }
  // The region of each cell, by number; -1: nearer than `wall` to a curve.
  static std::vector<i64> regions(const std::vector<double>& distances, double wall) {
    std::vector<i64> region(distances.size(), -1), open;
    const auto distance_at = [&](i64 cell) { return distances[static_cast<std::size_t>(cell)]; };
    for (i64 first = 0, number = 0; first < cells * cells; ++first) {
      const auto enter = [&](i64 cell) {
        i64& r = region[static_cast<std::size_t>(cell)];
        if (r >= 0 || std::abs(distance_at(cell)) < wall ||
            (distance_at(cell) < 0) != (distance_at(first) < 0))
          return;
        r = number;
        open.push_back(cell);
      };
      if (region[static_cast<std::size_t>(first)] >= 0) continue;
      for (enter(first); !open.empty();) {
        const i64 cell = open.back(), x = cell % cells;
        open.pop_back();
        if (x > 0) enter(cell - 1);
        if (x + 1 < cells) enter(cell + 1);
        if (cell >= cells) enter(cell - cells);
        if (cell + cells < cells * cells) enter(cell + cells);
      }
      ++number;
    }
    return region;
  }

  Noise noise_;
  double scale_, x_, y_, cos_, sin_;
};

using Curve = std::vector<Vec2>;  // points `curve_step` apart

inline constexpr double curve_step = 0.02, curve_clearance = 0.075;

// A curve of so many points that bends smoothly, keeps away from the others, from itself and from
// the edge; empty where this attempt ran into one.
inline Curve draw_curve(Rng& rng, i64 points, const std::vector<Curve>& others) {
  Curve curve;
  Vec2 p{rng.uniform(0.07, 0.93), rng.uniform(0.07, 0.93)};
  double heading = rng.uniform(0, 6.283185307179586), bend = 0;
  const auto near = [&p](const Curve& c, std::size_t end, double least) {
    return std::any_of(c.begin(), c.begin() + static_cast<std::ptrdiff_t>(end),
                       [&](Vec2 q) { return length(p - q) < least; });
  };
  for (i64 n = 0; n < points; ++n) {
    const std::size_t size = curve.size();
    if (std::min(p.x, p.y) < 0.06 || std::max(p.x, p.y) > 0.94 ||
        near(curve, size > 8 ? size - 8 : 0, curve_clearance) ||
        std::any_of(others.begin(), others.end(),
                    [&](const Curve& c) { return near(c, c.size(), curve_clearance); }))
      return {};
    curve.push_back(p);
    bend = std::clamp(0.8 * bend + rng.uniform(-0.09, 0.09), -0.3, 0.3), heading += bend;
    p = p + Vec2{std::cos(heading), std::sin(heading)} * curve_step;
  }
  return curve;
}

struct Question {
  PathsTask task;
  std::string name;
  std::vector<std::string> answers;  // no, yes
};

inline const std::vector<Question>& questions() {
  static const std::vector<Question> all{
      {PathsTask::region, "region", {"apart", "together"}},
      {PathsTask::curve, "curve", {"two curves", "one curve"}},
      {PathsTask::colour, "colour", {"two colours", "one colour"}}};
  return all;
}
inline const Question& question_of(PathsTask task) {
  return questions()[static_cast<std::size_t>(task)];
}

struct Curves {
  std::vector<Curve> all;
  PairOfAnswers marks;

  Curves(Rng& rng, i64 difficulty) {
    const i64 points = 20 + 6 * difficulty;
    while (all.size() < 2) {
      all.assign(1, {});
      while (all[0].empty()) all[0] = draw_curve(rng, points, {});
      const Vec2 first = all[0].front(), last = all[0].back();
      for (int attempt = 0; attempt < 100 && all.size() < 2; ++attempt) {
        const Curve other = draw_curve(rng, points, all);
        for (const bool end : {false, true}) {
          if (other.empty() || all.size() == 2) continue;
          const Vec2 at = end ? other.back() : other.front();
          if (std::abs(length(at - first) - length(last - first)) > 0.03) continue;
          marks = {{{first, at}, {first, last}}};
          all.push_back(other);
        }
      }
    }
    for (i64 attempt = 0, more = 2 * difficulty; attempt < 30 * difficulty && more > 0; ++attempt)
      if (Curve c = draw_curve(rng, points / 2, all); !c.empty())
        all.push_back(std::move(c)), --more;
  }
};

}  // namespace detail

std::string to_string(PathsTask task) { return detail::question_of(task).name; }

PathsTask parse_paths_task(const std::string& name) {
  for (const detail::Question& q : detail::questions())
    if (name == q.name) return q.task;
  fail("paths: there is no question \"", name, "\"; there are region, curve, colour");
}

PathsScene draw_paths(const PathsOptions& options, i64 index) {
  check(options.size >= 16 && options.size <= 4096, "paths: images of ", options.size,
        " pixels asked for (16 to 4096)");
  check(options.difficulty >= 1 && options.difficulty <= 5, "paths: difficulty ",
        options.difficulty, " asked for (1 to 5)");
  constexpr double turn = 6.283185307179586;
  const bool curves = options.task == PathsTask::curve;
  Rng rng(options.seed, static_cast<u64>(options.split), static_cast<u64>(index),
          curves ? 0x9a7b5 : 0x9a7b4);
  PathsScene scene;
  scene.label = index % 2;

  // A pale or a deep ground, curves far from it; red or blue marks, more colourful than both.
  const bool pale = rng.flip();
  const double hue = rng.uniform(0, turn), lightness = pale ? 0.9 : 0.25, tone = pale ? 0.6 : 0.7;
  const Rgb ground = oklch(lightness, 0.03, hue),
            line = oklch(pale ? rng.uniform(0.35, 0.5) : rng.uniform(0.7, 0.85), 0.08, hue),
            red = oklch(tone, 0.2, 0.5), blue = oklch(tone, 0.2, 4.5);
  const bool first_red = rng.flip(), alike = options.task != PathsTask::colour || scene.label == 1;
  const Rgb colours[2] = {first_red ? red : blue, first_red == alike ? red : blue};

  detail::Canvas canvas(options.size, options.size);
  canvas.everywhere([&](Rgb& p, double x, double y, i64) {  // lighter at the upper left
    p = mix(ground, {1, 1, 1}, static_cast<float>(0.08 * (1 - std::hypot(x - 0.4, y - 0.35))));
  });
  const auto draw = [&](Rgb& p, double distance) {
    p = mix(p, line, canvas.coverage(distance - detail::curve_width / 2));
  };
  if (curves) {
    const detail::Curves drawn(rng, options.difficulty);
    constexpr std::size_t dash = 2, gap = 1;  // in steps
    for (const detail::Curve& c : drawn.all)
      for (std::size_t i = 0; i + 1 < c.size(); ++i) {
        if (i % (dash + gap) >= dash) continue;
        const detail::Vec2 a = c[i], b = c[i + 1];
        canvas.around(a.x, a.y, 2 * detail::curve_step + detail::curve_width,
                      [&](Rgb& p, double x, double y, i64) {
                        draw(p, detail::segment_distance({x, y}, a, b));
                      });
      }
    scene.marks = drawn.marks[static_cast<std::size_t>(scene.label)];
  } else {
    // How far the marks are from each other is drawn before the picture, which must have both
    // answers at that distance.
    const double apart = rng.uniform(0.2, 0.6);
    for (u64 attempt = 0;; ++attempt) {
      const detail::Regions regions(rng.fork(attempt), options.difficulty);
      const auto marks = regions.marks(rng, apart);
      if (!marks) continue;
      canvas.everywhere([&](Rgb& p, double x, double y, i64) {
        draw(p, std::abs(regions.distance({x, y})));
      });
      const i64 pair = options.task == PathsTask::region ? scene.label : rng.below(2);
      scene.marks = (*marks)[static_cast<std::size_t>(pair)];
      break;
    }
  }
  if (rng.flip()) std::swap(scene.marks[0], scene.marks[1]);
  for (std::size_t k = 0; k < 2; ++k) {
    const detail::Vec2 at = scene.marks[k];
    canvas.around(at.x, at.y, 2 * detail::mark_radius, [&](Rgb& p, double x, double y, i64) {
      const double distance = std::hypot(x - at.x, y - at.y) - detail::mark_radius;
      p = mix(p, pale ? Rgb{1, 1, 1} : Rgb{0, 0, 0}, canvas.coverage(distance - 0.008));
      p = mix(p, colours[k], canvas.coverage(distance));
    });
  }
  scene.image = canvas.image();
  return scene;
}

Dataset paths(const PathsOptions& options) {
  check(options.images > 0, "paths: ", options.images, " images asked for");
  draw_paths(options, 0);  // refuses now what it would refuse while training
  const detail::Question& question = detail::question_of(options.task);
  Dataset d;
  d.name = "paths, " + question.name;
  d.size = options.images;
  d.class_names = question.answers;
  d.label = [](i64 index) { return index % 2; };
  d.load = [options](i64 index) {
    PathsScene scene = draw_paths(options, index);
    return Sample{std::move(scene.image), scene.label, str("paths/", index)};
  };
  return d;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
