#pragma once
#include "ppma/core/names_begin.hpp"
// Boxes, their overlap, and non-maximum suppression by group (class or level). On the host: a few
// thousand boxes.

#include <algorithm>
#include <limits>
#include <vector>

#include "ppma/core/config.hpp"
#include "ppma/kernels/box_choice.hpp"

namespace ppma::inline PPMA_ABI {

/// Corners in pixels; the width is x2 - x1, without 1 added.
struct Box {
  float x1 = 0, y1 = 0, x2 = 0, y2 = 0;
  /// x2 - x1
  float width() const { return x2 - x1; }
  /// y2 - y1
  float height() const { return y2 - y1; }
  /// 0 for a box that is turned over.
  float area() const { return std::max(width(), 0.0f) * std::max(height(), 0.0f); }
};

/// Intersection over union; 0 where both boxes are empty.
PPMA_API float iou(const Box& a, const Box& b);

/// Numbers of the boxes that stay, best score first (equal scores: first come), at most `most` of
/// them. A box goes if it overlaps a better one of its group by more than `threshold`. groups may
/// be empty: all boxes are one group. Error:
/// lengths that differ, a score that is not a number, a threshold below 0.
PPMA_API std::vector<i64> nms(const std::vector<Box>& boxes, const std::vector<float>& scores,
                              const std::vector<i64>& groups, double threshold,
                              i64 most = std::numeric_limits<i64>::max());

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_IMAGES)

#include <cmath>
#include <numeric>
#include <unordered_map>

#include "ppma/core/error.hpp"
#include "ppma/core/float_bits.hpp"

namespace ppma::inline PPMA_ABI {

float iou(const Box& a, const Box& b) {
  return kernels::overlap({a.x1, a.y1, a.x2, a.y2}, {b.x1, b.y1, b.x2, b.y2});
}

namespace detail {

/// Boxes that stay, by coordinate: their overlaps with another one are found several at a time.
struct KeptBoxes {
  std::vector<float> x1, y1, x2, y2, area;

  void add(const Box& b) {
    x1.push_back(b.x1), y1.push_back(b.y1), x2.push_back(b.x2), y2.push_back(b.y2),
        area.push_back(b.area());
  }
  /// Whether iou(one of them, b) > limit.
  bool cover(const Box& b, float limit) const {
    const float of_b = b.area(), *const left = x1.data(), *const top = y1.data(),
                *const right = x2.data(), *const bottom = y2.data(), *const of_kept = area.data();
    const int count = static_cast<int>(area.size());
    int covered = 0;
    PPMA_OMP(simd reduction(| : covered))
    for (int k = 0; k < count; ++k) {
      const float w = (right[k] < b.x2 ? right[k] : b.x2) - (left[k] > b.x1 ? left[k] : b.x1);
      const float h = (bottom[k] < b.y2 ? bottom[k] : b.y2) - (top[k] > b.y1 ? top[k] : b.y1);
      const float both = (w > 0 ? w : 0) * (h > 0 ? h : 0);
      covered |= both / (of_kept[k] + of_b - both) > limit ? 1 : 0;
    }
    return covered != 0;
  }
};

}  // namespace detail

std::vector<i64> nms(const std::vector<Box>& boxes, const std::vector<float>& scores,
                     const std::vector<i64>& groups, double threshold, i64 most) {
  check(scores.size() == boxes.size() && (groups.empty() || groups.size() == boxes.size()),
        "nms: ", boxes.size(), " boxes, ", scores.size(), " scores, ", groups.size(),
        " groups; the numbers must be equal");
  check(threshold >= 0, "nms: the threshold is ", threshold, "; it must not be negative");
  for (const float s : scores) check(!is_nan(s), "nms: a score is not a number");
  std::vector<std::size_t> order(boxes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  // rounded down: as many floats lie above it as above the threshold
  float limit = static_cast<float>(threshold);
  if (static_cast<double>(limit) > threshold) limit = std::nextafter(limit, -1.0f);
  std::vector<i64> kept;
  std::unordered_map<i64, detail::KeptBoxes> kept_of;  // group
  for (const std::size_t i : order) {
    if (static_cast<i64>(kept.size()) >= most) break;
    detail::KeptBoxes& better = kept_of[groups.empty() ? 0 : groups[i]];
    if (better.cover(boxes[i], limit)) continue;
    better.add(boxes[i]);
    kept.push_back(static_cast<i64>(i));
  }
  return kept;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
