#pragma once
// The scene of the lessons 09, 11 and 12: a star, a heart of the same colour, and a disc of
// another on a ground of slate, seen as n x n tokens. A token holds a colour; an edge between two
// tokens of one figure (or of the ground) has the decay 0.97, one across a contour 0.25.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "ppma/data/outline.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/path.hpp"
#include "ppma/vis/panels.hpp"

enum class Region : int { ground, star, heart, disc };

struct LessonScene {
  ppma::i64 n = 0;
  ppma::Tensor image;           // uint8 (12 n, 12 n, 3), to look at
  ppma::Tensor colors;          // f64 (1,n,n,3): what tokens hold, about -1 to 1
  ppma::Tensor decays;          // f64 (2,1,1,n,n): logarithms
  std::vector<Region> regions;  // n n
  ppma::Cell query{};           // on the star

  ppma::i64 query_token() const { return query.row * n + query.column; }

  /// Row `query` of a map (N,N), or its column with `across`, on the grid: (n,n).
  ppma::Tensor of_query(const ppma::Tensor& map, bool across = false) const {
    using namespace ppma;
    return reshape(narrow(reshape(map, {n * n, n * n}), across ? 1 : 0, query_token(), 1), {n, n});
  }
  /// Sum of a map (n,n) over a region.
  double within(const ppma::Tensor& map, Region r) const {
    double sum = 0;
    for (std::size_t u = 0; u < regions.size(); ++u)
      if (regions[u] == r) sum += map.data<double>()[u];
    return sum;
  }
  /// A line of what the query takes by a map (N,N): from each region, and in all.
  void print_shares(const char* name, const ppma::Tensor& map) const {
    const ppma::Tensor of = of_query(map);
    std::printf("  %-34s", name);
    double all = 0;
    for (const Region r : {Region::star, Region::heart, Region::disc, Region::ground}) {
      std::printf(" %6.3f", within(of, r));
      all += within(of, r);
    }
    std::printf(" %6.3f\n", all);
  }
  /// The image, and a map (n,n), or the query's row of one (N,N), in colours from `low` to `high`;
  /// each with a red frame around the query.
  ppma::Panel photo(const char* title) const { return marked(ppma::image_panel(title, image)); }
  ppma::Panel panel(const char* title, const ppma::Tensor& map, double high, double low = 0) const {
    return marked(ppma::map_panel(title, map.dim(0) == n ? map : of_query(map),
                                  low < 0 ? ppma::ColorMap::red_blue : ppma::ColorMap::viridis,
                                  {low, high}));
  }

 private:
  ppma::Panel marked(ppma::Panel p) const {
    p.marked = ppma::GridCell{query.row, query.column, n, n};
    return p;
  }
};

inline LessonScene lesson_scene(ppma::i64 n) {
  using namespace ppma;
  struct Placed {
    Figure figure;
    double x, y, radius;
    double color[3];
  };
  // In units of the image's side; colours from 0 to 1.
  const Placed figures[] = {{Figure::star, 0.29, 0.68, 0.25, {0.95, 0.55, 0.20}},
                            {Figure::heart, 0.73, 0.26, 0.20, {0.95, 0.55, 0.20}},
                            {Figure::circle, 0.76, 0.76, 0.16, {0.20, 0.66, 0.62}}};
  const double ground[] = {0.27, 0.33, 0.43};
  constexpr i64 pixels = 12;  // of a token's side
  const i64 size = n * pixels;
  LessonScene s;
  s.n = n, s.query = {n * 68 / 100, n * 29 / 100};
  s.image = Tensor::empty({size, size, 3}, DType::uint8);
  s.colors = Tensor::empty({1, n, n, 3}, DType::f64);
  s.regions.assign(static_cast<std::size_t>(n * n), Region::ground);
  for (i64 i = 0; i < size; ++i)
    for (i64 j = 0; j < size; ++j) {
      const double x = (static_cast<double>(j) + 0.5) / static_cast<double>(size),
                   y = (static_cast<double>(i) + 0.5) / static_cast<double>(size);
      const bool centre = i % pixels == pixels / 2 && j % pixels == pixels / 2;
      const i64 token = i / pixels * n + j / pixels;
      double color[3];
      for (int c = 0; c < 3; ++c) color[c] = ground[c] * (1.1 - 0.3 * y);
      for (int f = 0; f < 3; ++f) {
        const Placed& p = figures[f];
        const double distance =
            p.radius * outline_distance(p.figure, (x - p.x) / p.radius, (y - p.y) / p.radius);
        const double cover = std::clamp(0.5 - distance * static_cast<double>(size), 0.0, 1.0),
                     light = 1.06 - 0.35 * (y - p.y + p.radius);
        for (int c = 0; c < 3; ++c)
          color[c] += cover * (std::min(1.0, p.color[c] * light) - color[c]);
        if (centre && distance < 0) s.regions[static_cast<std::size_t>(token)] = Region{f + 1};
      }
      for (int c = 0; c < 3; ++c) {
        s.image.data<u8>()[(i * size + j) * 3 + c] = static_cast<u8>(std::lround(255 * color[c]));
        if (centre) s.colors.data<double>()[token * 3 + c] = 2 * color[c] - 1;
      }
    }
  s.decays = Tensor::empty({2, 1, 1, n, n}, DType::f64);
  const auto region = [&](i64 i, i64 j) { return s.regions[static_cast<std::size_t>(i * n + j)]; };
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j < n; ++j) {
      double* logs = s.decays.data<double>() + i * n + j;
      logs[0] = std::log(j > 0 && region(i, j) != region(i, j - 1) ? 0.25 : 0.97);
      logs[n * n] = std::log(i > 0 && region(i, j) != region(i - 1, j) ? 0.25 : 0.97);
    }
  return s;
}
