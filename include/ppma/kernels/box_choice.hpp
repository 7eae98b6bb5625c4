#pragma once
#include "ppma/core/names_begin.hpp"
// What a detector's choice of boxes is told of its anchors and of how boxes are coded: plain values
// for kernels; and the functions of boxes that the CPU and a GPU must compute to the same bit.

#include "ppma/core/device.hpp"
#include "ppma/core/random.hpp"

namespace ppma::inline PPMA_ABI::kernels {

inline constexpr int most_levels = 8, most_ratios = 8;
/// How many boxes of a group a GPU sorts at most.
inline constexpr i64 most_boxes = 8192;

/// The anchors of an image: levels of cells, each cell with anchors of several ratios.
struct AnchorGrid {
  int levels, ratios;
  i64 all;                 // anchors of an image
  i64 first[most_levels];  // a level's first
  i64 width[most_levels], stride[most_levels];
  double half_width[most_levels][most_ratios], half_height[most_levels][most_ratios];

  /// How many of a level there are.
  PPMA_HD i64 count(int level) const {
    return (level + 1 < levels ? first[level + 1] : all) - first[level];
  }
};

/// Corners of a box in pixels, as Box of ops/nms.hpp has them.
struct Corners {
  float x1, y1, x2, y2;
};

/// An anchor by its number in its level.
PPMA_HD inline Corners anchor_of(const AnchorGrid& grid, int level, i64 place) {
  const i64 cell = place / grid.ratios, r = place % grid.ratios;
  const double x = static_cast<double>(cell % grid.width[level] * grid.stride[level]),
               y = static_cast<double>(cell / grid.width[level] * grid.stride[level]),
               w = grid.half_width[level][r], h = grid.half_height[level][r];
  return {static_cast<float>(x - w), static_cast<float>(y - h), static_cast<float>(x + w),
          static_cast<float>(y + h)};
}

/// Intersection over union; 0 where boxes do not meet. Products of floats are exact in double, so
/// that a compiler may fuse one with a sum and gets the same bits.
PPMA_HD inline float overlap(const Corners& a, const Corners& b) {
  const float w = (a.x2 < b.x2 ? a.x2 : b.x2) - (a.x1 > b.x1 ? a.x1 : b.x1),
              h = (a.y2 < b.y2 ? a.y2 : b.y2) - (a.y1 > b.y1 ? a.y1 : b.y1);
  if (!(w > 0) || !(h > 0)) return 0;
  const auto product = [](float x, float y) {
    return static_cast<double>(x) * static_cast<double>(y);
  };
  const double both = product(w, h), of_a = product(a.x2 - a.x1, a.y2 - a.y1),
               of_b = product(b.x2 - b.x1, b.y2 - b.y1);
  return static_cast<float>(both / (of_a + of_b - both));
}

/// The number that is drawn for the k-th of many (k < 2^32 - 1); no two are equal, none is 0. The n
/// least are n of them drawn without replacement, in whatever order they are looked at.
PPMA_HD inline u64 drawn_number(const Rng& rng, i64 k) {
  return u64{rng.at(static_cast<u64>(k / 4)).word[k % 4]} << 32 | static_cast<u64>(k + 1);
}
/// Whose that number is: k.
PPMA_HD inline i64 drawn_by(u64 number) { return static_cast<i64>(number & 0xffffffff) - 1; }

/// What decode() of heads/boxes.hpp takes of a BoxCoder.
struct BoxDecoder {
  float stds[4];
  float most;  // of what a side's delta is, either way
};

/// How anchors are told apart and drawn: AssignConfig and SampleConfig of heads/targets.hpp.
struct AnchorRules {
  double positive, negative, least_positive;
  bool low_quality;
  i64 count, positives;  // an image; of them with a truth, at most
};

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
