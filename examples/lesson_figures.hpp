#pragma once
// What lessons 14 and 15 learn from: generated scenes with one ring, star or bar.

#include <algorithm>
#include <vector>

#include "ppma/data/shapes.hpp"

struct FigureScene {
  ppma::Tensor image;   // uint8 (H,W,3)
  ppma::i64 figure;     // 0 ring, 1 star, 2 bar
  ppma::Tensor labels;  // uint8 (H,W): 0 on the ground, 1 + figure on it
};

/// Scenes 0 to count - 1 of a split; index modulo 3 is the figure.
inline std::vector<FigureScene> figure_scenes(ppma::Split split, ppma::i64 count, ppma::i64 side) {
  using namespace ppma;
  constexpr Figure figures[] = {Figure::ring, Figure::star, Figure::bar};
  const ShapesOptions options{
      .height = side, .width = side, .split = split, .most_extra = 0, .most_clutter = 0};
  std::vector<FigureScene> scenes;
  for (i64 index = 0; index < count; ++index) {
    const i64 figure = index % 3;
    const Scene s =
        draw_shapes(options, index / 3 * figure_count + static_cast<i64>(figures[figure]));
    Tensor labels = s.labels.clone();  // 1 + the class of all ten figures
    for (i64 p = 0; p < labels.numel(); ++p)
      if (labels.data<u8>()[p] != 0) labels.data<u8>()[p] = static_cast<u8>(1 + figure);
    scenes.push_back({s.image, figure, labels});
  }
  return scenes;
}

/// Another order of the scenes.
inline void shuffle(std::vector<FigureScene>& scenes, ppma::Rng rng) {
  for (std::size_t i = scenes.size(); i > 1; --i)
    std::swap(scenes[i - 1],
              scenes[static_cast<std::size_t>(rng.below(static_cast<ppma::i64>(i)))]);
}
