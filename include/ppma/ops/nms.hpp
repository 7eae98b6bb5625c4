#pragma once
// Boxes, their overlap, and non-maximum suppression by group (class or level). On the host: a few thousand boxes.

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// Corners in pixels; the width is x2 - x1, without 1 added.
struct Box {
  float x1 = 0, y1 = 0, x2 = 0, y2 = 0;
  float width() const { return x2 - x1; }
  float height() const { return y2 - y1; }
  float area() const { return std::max(width(), 0.0f) * std::max(height(), 0.0f); }
};

/// Intersection over union; 0 where both boxes are empty.
inline float iou(const Box& a, const Box& b) {
  const float w = std::min(a.x2, b.x2) - std::max(a.x1, b.x1), h = std::min(a.y2, b.y2) - std::max(a.y1, b.y1);
  if (w <= 0 || h <= 0) return 0;
  return w * h / (a.area() + b.area() - w * h);
}

/// Numbers of the boxes that stay, best score first (equal scores: first come). A box goes if it overlaps a better one
/// of its group by more than `threshold`. groups may be empty: all boxes are one group. Error: lengths that differ, a
/// score that is not a number.
inline std::vector<i64> nms(const std::vector<Box>& boxes, const std::vector<float>& scores, const std::vector<i64>& groups,
                            double threshold) {
  check(scores.size() == boxes.size() && (groups.empty() || groups.size() == boxes.size()), "nms: ", boxes.size(),
        " boxes, ", scores.size(), " scores, ", groups.size(), " groups; the numbers must be equal");
  for (const float s : scores) check(!std::isnan(s), "nms: a score is not a number");
  std::vector<std::size_t> order(boxes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  std::vector<i64> kept;
  for (const std::size_t i : order) {
    const bool covered = std::any_of(kept.begin(), kept.end(), [&](i64 k) {
      const auto better = static_cast<std::size_t>(k);
      return (groups.empty() || groups[better] == groups[i]) &&
             static_cast<double>(iou(boxes[better], boxes[i])) > threshold;
    });
    if (!covered) kept.push_back(static_cast<i64>(i));
  }
  return kept;
}

}  // namespace ppma::inline PPMA_ABI
