// The generated set of marks and curves: the answer is what a way over the drawn picture says, and
// the marks alone do not tell it.

#include "ppma/data/paths.hpp"

#include <cstring>
#include <vector>

#include "catch.hpp"
#include "ppma/metrics/interval.hpp"
#include "sanitized.hpp"
#include "thrown.hpp"

using namespace ppma;

namespace paths_test {

namespace {

bool same(const Tensor& a, const Tensor& b) {
  return a.shape() == b.shape() &&
         std::memcmp(a.raw(), b.raw(), static_cast<std::size_t>(a.bytes())) == 0;
}

// Whether a way leads from one mark to the other over pixels that are as the ground, which varies
// little: by looking at the picture alone.
bool a_way(const PathsScene& scene) {
  const i64 S = scene.image.dim(0);
  const u8* const pixels = scene.image.data<u8>();
  const auto pixel_of = [S](const detail::Vec2& p) {
    return std::min(S - 1, static_cast<i64>(p.y * static_cast<double>(S))) * S +
           std::min(S - 1, static_cast<i64>(p.x * static_cast<double>(S)));
  };
  const i64 marks[2] = {pixel_of(scene.marks[0]), pixel_of(scene.marks[1])};
  const auto near_mark = [&](i64 at) {
    for (const i64 m : marks)
      if (std::hypot(static_cast<double>(at % S - m % S), static_cast<double>(at / S - m / S)) <
          static_cast<double>(S) * (detail::mark_radius + 0.014))
        return true;
    return false;
  };
  // The ground's colour: of the level that most pixels have.
  std::vector<i64> count(256);
  for (i64 i = 0; i < S * S; ++i) ++count[pixels[3 * i + 1]];
  i64 ground = 0, most = 0;
  for (i64 v = 4; v < 252; ++v) {
    i64 near = 0;
    for (i64 w = v - 4; w <= v + 4; ++w) near += count[static_cast<std::size_t>(w)];
    if (near > most) most = near, ground = v;
  }
  const auto open_at = [&](i64 at) {
    return near_mark(at) || std::abs(pixels[3 * at + 1] - ground) < 28;
  };
  std::vector<bool> seen(static_cast<std::size_t>(S * S));
  std::vector<i64> open{marks[0]};
  while (!open.empty()) {
    const i64 at = open.back();
    open.pop_back();
    if (seen[static_cast<std::size_t>(at)] || !open_at(at)) continue;
    seen[static_cast<std::size_t>(at)] = true;
    if (at % S > 0) open.push_back(at - 1);
    if (at % S + 1 < S) open.push_back(at + 1);
    if (at >= S) open.push_back(at - S);
    if (at + S < S * S) open.push_back(at + S);
  }
  return seen[static_cast<std::size_t>(marks[1])];
}

double apart(const PathsScene& s) { return detail::length(s.marks[0] - s.marks[1]); }

}  // namespace

TEST_CASE("marks are in one region where a way leads from one to the other", "[data]") {
  for (const i64 difficulty : {1, 3, 5})
    for (i64 k = 0; k < (brief() ? 8 : 40); ++k) {
      const PathsScene scene = draw_paths({.difficulty = difficulty, .size = 192}, k);
      INFO("difficulty " << difficulty << ", image " << k);
      CHECK(scene.label == k % 2);
      CHECK(a_way(scene) == (scene.label == 1));
    }
}

TEST_CASE("how far marks are from each other does not tell the answer", "[data]") {
  for (const PathsTask task : {PathsTask::region, PathsTask::curve, PathsTask::colour}) {
    std::vector<double> far[2], middle[2];
    for (i64 k = 0; k < (sanitized() ? 20 : 600); ++k) {
      const PathsScene s = draw_paths({.task = task, .size = 16, .seed = 5}, k);
      far[s.label].push_back(apart(s));
      const detail::Vec2 m = (s.marks[0] + s.marks[1]) * 0.5 - detail::Vec2{0.5, 0.5};
      middle[s.label].push_back(detail::length(m));
    }
    if (sanitized()) continue;  // means of so few say nothing
    INFO(to_string(task));
    const Interval d = paired_interval(far[0], far[1]);
    CHECK(std::abs(d.mean) < 0.03);
    // where they lie may say a little: at the picture's edge there is less room for a region
    CHECK(std::abs(paired_interval(middle[0], middle[1]).mean) < 0.06);
  }
}

TEST_CASE("marks have one colour where that is the answer", "[data]") {
  for (i64 k = 0; k < 20; ++k) {
    const PathsScene s = draw_paths({.task = PathsTask::colour, .size = 128}, k);
    int difference = 0;
    for (i64 c = 0; c < 3; ++c) {
      const auto level = [&](const detail::Vec2& p) {
        const i64 i = static_cast<i64>(p.y * 128), j = static_cast<i64>(p.x * 128);
        return static_cast<int>(s.image.data<u8>()[(i * 128 + j) * 3 + c]);
      };
      difference = std::max(difference, std::abs(level(s.marks[0]) - level(s.marks[1])));
    }
    CHECK((difference < 4) == (s.label == 1));
    CHECK((difference < 4 || difference > 30));
  }
}

TEST_CASE("a picture of the set depends on seed, split and number alone", "[data]") {
  for (const PathsTask task : {PathsTask::region, PathsTask::curve, PathsTask::colour}) {
    const PathsOptions o{.task = task, .size = 48, .images = 4};
    const Dataset set = paths(o);
    CHECK(set.size == 4);
    CHECK(set.classes() == 2);
    CHECK(same(set.get(3).image, draw_paths(o, 3).image));
    CHECK_FALSE(same(draw_paths(o, 3).image, draw_paths(o, 1).image));
    PathsOptions other = o;
    other.seed = 1;
    CHECK_FALSE(same(draw_paths(o, 3).image, draw_paths(other, 3).image));
    other = o, other.split = Split::test;
    CHECK_FALSE(same(draw_paths(o, 3).image, draw_paths(other, 3).image));
    // the same scene at another size
    other = o, other.size = 96;
    CHECK(draw_paths(o, 3).marks[0].x == draw_paths(other, 3).marks[0].x);
  }
}

TEST_CASE("what makes no picture of marks and curves is refused", "[data]") {
  CHECK(says([] { draw_paths({.size = 8}, 0); }, "images of 8 pixels"));
  CHECK(says([] { draw_paths({.difficulty = 6}, 0); }, "difficulty 6"));
  CHECK(says([] { paths({.images = 0}); }, "0 images"));
  CHECK(says([] { parse_paths_task("regions"); }, "no question \"regions\""));
}

}  // namespace paths_test
