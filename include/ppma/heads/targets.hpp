#pragma once
#include "ppma/core/names_begin.hpp"
// Which boxes a detector is to learn from (recipes 3.1, 3.2; mmdet's MaxIoUAssigner and
// RandomSampler). On the host: boxes of one image at a time. kernels/cuda/anchor_targets.cuh has
// the same for a batch's anchors on a GPU, drawn_regions.cuh for its regions.

#include <vector>

#include "ppma/core/random.hpp"
#include "ppma/ops/nms.hpp"

namespace ppma::inline PPMA_ABI {

struct AssignConfig {
  // least overlap of a positive box; below `negative` a box is background
  double positive = 0.7, negative = 0.3;
  double least_positive = 0.3;  // a truth without such an overlap is given up
  // the best boxes of a truth are positive, whatever their overlap
  bool low_quality = true;

  bool operator==(const AssignConfig&) const = default;
};

inline constexpr i64 assigned_background = -1, assigned_ignored = -2;

/// For each box the number of its truth, or assigned_background, or assigned_ignored. A box belongs
/// to the truth that it overlaps most (the first of equal ones); where low_quality is on, every box
/// that ties a truth's best overlap of at least least_positive belongs to that truth instead, the
/// last one if there are several.
PPMA_API std::vector<i64> assign(const std::vector<Box>& boxes, const std::vector<Box>& truths,
                                 const AssignConfig& c = {});

struct SampleConfig {
  i64 count = 256;         // boxes an image
  double positives = 0.5;  // share of positive ones, at most

  /// That share in boxes.
  i64 most_positive() const { return static_cast<i64>(static_cast<double>(count) * positives); }

  bool operator==(const SampleConfig&) const = default;
};

/// Numbers of boxes, ascending.
struct Sampled {
  std::vector<i64> positive, negative;
};

/// Positive boxes up to their share, drawn without replacement, then background up to `count`:
/// those of the least drawn numbers (kernels/box_choice.hpp), which a GPU draws too.
PPMA_API Sampled sample(const std::vector<i64>& assigned, const SampleConfig& c, const Rng& rng);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

std::vector<i64> assign(const std::vector<Box>& boxes, const std::vector<Box>& truths,
                        const AssignConfig& c) {
  std::vector<i64> assigned(boxes.size(), assigned_background);
  std::vector<float> most(truths.size(), 0.0f), overlap(boxes.size() * truths.size());
  for (std::size_t b = 0; b < boxes.size(); ++b) {
    float best = 0;
    i64 mine = 0;
    for (std::size_t t = 0; t < truths.size(); ++t) {
      const float o = overlap[b * truths.size() + t] = iou(boxes[b], truths[t]);
      most[t] = std::max(most[t], o);
      if (o > best) best = o, mine = static_cast<i64>(t);
    }
    if (truths.empty()) continue;
    if (static_cast<double>(best) >= c.positive)
      assigned[b] = mine;
    else if (static_cast<double>(best) >= c.negative)
      assigned[b] = assigned_ignored;
  }
  if (!c.low_quality) return assigned;
  for (std::size_t t = 0; t < truths.size(); ++t) {
    if (static_cast<double>(most[t]) < c.least_positive || most[t] <= 0) continue;
    for (std::size_t b = 0; b < boxes.size(); ++b)
      // the maximum itself
      if (overlap[b * truths.size() + t] >= most[t]) assigned[b] = static_cast<i64>(t);
  }
  return assigned;
}

Sampled sample(const std::vector<i64>& assigned, const SampleConfig& c, const Rng& rng) {
  Sampled s;
  for (std::size_t i = 0; i < assigned.size(); ++i) {
    if (assigned[i] >= 0) s.positive.push_back(static_cast<i64>(i));
    if (assigned[i] == assigned_background) s.negative.push_back(static_cast<i64>(i));
  }
  const auto choose = [&rng](std::vector<i64>& from, i64 n) {
    if (static_cast<i64>(from.size()) <= n) return;
    std::vector<u64> drawn;
    for (const i64 k : from) drawn.push_back(kernels::drawn_number(rng, k));
    std::nth_element(drawn.begin(), drawn.begin() + n, drawn.end());
    from.clear();
    for (i64 k = 0; k < n; ++k)
      from.push_back(kernels::drawn_by(drawn[static_cast<std::size_t>(k)]));
    std::sort(from.begin(), from.end());
  };
  choose(s.positive, c.most_positive());
  choose(s.negative, c.count - static_cast<i64>(s.positive.size()));
  return s;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
