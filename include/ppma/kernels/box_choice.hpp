#pragma once
#include "ppma/core/names_begin.hpp"
// What a detector's choice of boxes is told of its anchors and of how boxes are coded: plain values
// for kernels.

#include "ppma/core/device.hpp"

namespace ppma::inline PPMA_ABI::kernels {

inline constexpr int most_levels = 8, most_ratios = 8;

/// The anchors of an image: levels of cells, each cell with anchors of several ratios.
struct AnchorGrid {
  int levels, ratios;
  i64 all;                 // anchors of an image
  i64 first[most_levels];  // a level's first
  i64 width[most_levels], stride[most_levels];
  double half_width[most_levels][most_ratios], half_height[most_levels][most_ratios];
};

/// What decode() of heads/boxes.hpp takes of a BoxCoder.
struct BoxDecoder {
  float stds[4];
  float most;  // of what a side's delta is, either way
};

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
