#pragma once
#include "ppma/core/names_begin.hpp"
// The regions that the box head and the mask head look at (recipes 3.2): which level of the
// pyramid, the cells of it, and which regions are learnt from.

#include <vector>

#include "ppma/data/detection.hpp"
#include "ppma/heads/boxes.hpp"
#include "ppma/heads/rpn.hpp"
#include "ppma/heads/targets.hpp"
#include "ppma/io/rle.hpp"

namespace ppma::inline PPMA_ABI {

struct RoiConfig {
  i64 channels = 256, shared_fcs = 2, fc_channels = 1024, num_classes = 80;
  i64 box_size = 7, mask_size = 14, mask_convs = 4;  // cells
  // boxes of this side and up to twice it are seen on P2
  double finest = 56;
  AssignConfig assign{0.5, 0.5, 0.5, true};
  SampleConfig sample{512, 0.25};
  BoxCoder coder{{0.1, 0.1, 0.2, 0.2}, 16.0 / 1000};
  double cls_weight = 1, bbox_weight = 1, mask_weight = 1;  // of the losses
  double least_score = 0.05, nms = 0.5;
  i64 detections = 100;         // an image
  double mask_threshold = 0.5;  // least probability of a mask's pixel

  bool operator==(const RoiConfig&) const = default;
};

/// A box to look at. `truth` is the number of its object in its image, or -1 for background.
struct Roi {
  Box box;
  i64 image = 0, truth = -1, label = 0;
};

/// Level 0 (P2) to 3 (P5) on which a box is looked at.
PPMA_API std::size_t roi_level(const Box& b, double finest = 56);

/// In place; regions of one level keep their order.
PPMA_API void sort_by_level(std::vector<Roi>& rois, double finest);

/// The regions' cells (R,size,size,C) from P2..P5 at strides 4..32. rois must be sorted by level
/// and not empty.
PPMA_API Tensor roi_features(const std::vector<Tensor>& levels, const std::vector<Roi>& rois,
                             i64 size, double finest);

/// Regions that are sorted by level, with copies of the last one behind them on a GPU: products and
/// convolutions of as many rows as there are regions would be others at each step, for which
/// kernels are looked for, but are of few sizes so.
PPMA_API std::vector<Roi> few_sizes(std::vector<Roi> rois, Device device);

/// Truths and proposals of one image, of which some are learnt from: positive ones first.
PPMA_API std::vector<Roi> sample_rois(const std::vector<Box>& proposals, const Objects& objects,
                                      i64 image, const RoiConfig& c, const Rng& rng);

/// Those of all images of a batch, one after the other, chosen on a GPU from proposals (B,N,6) as
/// RpnHead::best() gives them; image b's by rng.fork(first + b). Errors: a score that is not a
/// number.
PPMA_API std::vector<Roi> sample_rois(const Tensor& proposals, const std::vector<Frame>& frames,
                                      const std::vector<Objects>& objects, const RoiConfig& c,
                                      const Rng& rng, u64 first);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <algorithm>
#include <array>
#include <cmath>

#include "ppma/ops/best_boxes.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/roi_align.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

std::size_t roi_level(const Box& b, double finest) {
  const double side =
      std::sqrt(std::max(0.0, static_cast<double>(b.width()) * static_cast<double>(b.height())));
  return static_cast<std::size_t>(
      std::clamp(std::floor(std::log2(side / finest + 1e-6)), 0.0, 3.0));
}

void sort_by_level(std::vector<Roi>& rois, double finest) {
  std::array<std::vector<Roi>, 4> of_level;
  for (const Roi& r : rois) of_level[roi_level(r.box, finest)].push_back(r);
  rois.clear();
  for (const std::vector<Roi>& some : of_level) rois.insert(rois.end(), some.begin(), some.end());
}

namespace detail {

// Whether all are of one image on a GPU and nothing is recorded: then one kernel sees all levels.
inline bool at_once(const std::vector<Tensor>& levels, const std::vector<Roi>& rois) {
  for (const Roi& r : rois)
    if (r.image != rois[0].image) return false;
  return !rois.empty() && levels.size() >= 4 && levels[0].device() == Device::cuda &&
         !needs_grad({levels[0], levels[1], levels[2], levels[3]});
}

}  // namespace detail

Tensor roi_features(const std::vector<Tensor>& levels, const std::vector<Roi>& rois, i64 size,
                    double finest) {
  if (detail::at_once(levels, rois)) {
    std::vector<float> boxes;
    for (const Roi& r : rois)
      boxes.insert(boxes.end(), {r.box.x1, r.box.y1, r.box.x2, r.box.y2, 0, 0});
    return detail::cells_of_regions(
        levels, Tensor::from<float>(boxes, {1, static_cast<i64>(rois.size()), 6}).to(Device::cuda),
        rois[0].image, size, finest);
  }
  std::vector<Tensor> parts;
  std::size_t begin = 0;
  for (std::size_t l = 0; l < 4; ++l) {
    std::vector<float> rows;
    for (; begin < rois.size() && roi_level(rois[begin].box, finest) == l; ++begin) {
      const Roi& r = rois[begin];
      rows.insert(rows.end(),
                  {static_cast<float>(r.image), r.box.x1, r.box.y1, r.box.x2, r.box.y2});
    }
    if (rows.empty()) continue;
    const Tensor boxes = cast(Tensor::from<float>(rows, {static_cast<i64>(rows.size()) / 5, 5}),
                              accumulator_dtype(levels[l].dtype()));
    RoiAlign grid;
    grid.height = grid.width = size, grid.scale = 1 / static_cast<double>(4 << l);
    parts.push_back(roi_align(levels[l], boxes, grid));
  }
  check(begin == rois.size() && !parts.empty(),
        "roi_features: regions must be sorted by level and not empty");
  return parts.size() == 1 ? parts[0] : concat(parts, 0);
}

std::vector<Roi> few_sizes(std::vector<Roi> rois, Device device) {
  constexpr std::size_t step = 64;
  if (device == Device::cuda && !rois.empty())
    rois.resize((rois.size() + step - 1) / step * step, Roi(rois.back()));
  return rois;
}

std::vector<Roi> sample_rois(const std::vector<Box>& proposals, const Objects& objects, i64 image,
                             const RoiConfig& c, const Rng& rng) {
  std::vector<i64> assigned;
  for (std::size_t k = 0; k < objects.boxes.size(); ++k) assigned.push_back(static_cast<i64>(k));
  const std::vector<i64> of_proposals = assign(proposals, objects.boxes, c.assign);
  assigned.insert(assigned.end(), of_proposals.begin(), of_proposals.end());
  const auto box = [&](i64 k) {
    return k < static_cast<i64>(objects.boxes.size())
               ? objects.boxes[static_cast<std::size_t>(k)]
               : proposals[static_cast<std::size_t>(k) - objects.boxes.size()];
  };
  const Sampled s = sample(assigned, c.sample, rng);
  std::vector<Roi> rois;
  for (const i64 k : s.positive) {
    const i64 truth = assigned[static_cast<std::size_t>(k)];
    rois.push_back({box(k), image, truth, objects.classes[static_cast<std::size_t>(truth)]});
  }
  for (const i64 k : s.negative) rois.push_back({box(k), image, -1, c.num_classes});
  return rois;
}

std::vector<Roi> sample_rois(const Tensor& proposals, const std::vector<Frame>& frames,
                             const std::vector<Objects>& objects, const RoiConfig& c,
                             const Rng& rng, u64 first) {
  const detail::Truths truths = detail::truths_of(frames, objects);
  const Tensor drawn = detail::drawn_regions(proposals, truths.boxes, truths.sizes,
                                             detail::rules_of(c.assign, c.sample), rng, first)
                           .to(Device::cpu);  // (B,S,6)
  std::vector<Roi> rois;
  for (i64 row = 0; row < drawn.numel() / 6; ++row) {
    const float* const b = drawn.data<float>() + row * 6;
    check(b[5] != -2, "rpn: a score is not a number");
    if (b[5] < 0) continue;
    const i64 image = row / drawn.dim(1), truth = static_cast<i64>(b[4]);
    rois.push_back(
        {{b[0], b[1], b[2], b[3]},
         image,
         truth,
         truth < 0
             ? c.num_classes
             : objects[static_cast<std::size_t>(image)].classes[static_cast<std::size_t>(truth)]});
  }
  return rois;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
