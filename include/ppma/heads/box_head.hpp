#pragma once
#include "ppma/core/names_begin.hpp"
// The box head: the class of a region and its box (recipes 3.2), and what is detected by it.

#include <optional>
#include <vector>

#include "ppma/heads/regions.hpp"
#include "ppma/io/rle.hpp"
#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

struct BoxOutput {
  Tensor scores, deltas;  // logits (R,K+1), background last; deltas (R,4K), by class
};

struct BoxLoss {
  Tensor cls, bbox, accuracy;  // scalars; accuracy in percent, where the scores are
};

struct BoxHead {
  RoiConfig config;
  Linear fc_cls, fc_reg;
  std::vector<Linear> shared_fcs;

  PPMA_API BoxHead(const RoiConfig& c, Rng& rng);
  /// Cells (R,size,size,C) of R regions -> their scores and deltas.
  PPMA_API BoxOutput forward(const Tensor& cells) const;
  /// Cross entropy's mean; the L1 of positive regions, in their truth's class, divided by the
  /// number of all regions; times their weights.
  PPMA_API BoxLoss loss(const BoxOutput& out, const std::vector<Roi>& rois,
                        const std::vector<Objects>& objects) const;
  template <class V>
  void fields(V& v) {
    v.child("fc_cls", fc_cls), v.child("fc_reg", fc_reg), v.children("shared_fcs", shared_fcs);
  }
};

struct Detection {
  Box box;  // pixels of the original image
  i64 label = 0;
  double score = 0;
  std::optional<Rle> mask;  // of the original image's size
};

/// Box head's output of one image -> boxes of the original image: decoded by class, scores above
/// the least, suppressed within their class, best ones kept.
PPMA_API std::vector<Detection> detections_of(const BoxOutput& out, const std::vector<Roi>& rois,
                                              const Frame& frame, const RoiConfig& c);

/// The same of all images of a batch, chosen on a GPU: of regions (B,N,6), as RpnHead::best() gives
/// them, and the box head's output of their B N rows.
PPMA_API std::vector<std::vector<Detection>> detections_of(const BoxOutput& out,
                                                           const Tensor& regions,
                                                           const std::vector<Frame>& frames,
                                                           const RoiConfig& c);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <cmath>

#include "ppma/heads/losses.hpp"
#include "ppma/heads/rpn.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/best_boxes.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/nms.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/softmax.hpp"

namespace ppma::inline PPMA_ABI {

BoxHead::BoxHead(const RoiConfig& c, Rng& rng)
    : config(c),
      fc_cls(normal_layer(Linear(c.fc_channels, c.num_classes + 1, rng), 0.01, rng)),
      fc_reg(normal_layer(Linear(c.fc_channels, 4 * c.num_classes, rng), 0.001, rng)) {
  i64 in = c.channels * c.box_size * c.box_size;
  for (i64 k = 0; k < c.shared_fcs; ++k, in = c.fc_channels) {
    shared_fcs.push_back([&] {
      const SkipInit skip;
      return Linear(in, c.fc_channels, rng);
    }());
    const double bound = std::sqrt(6.0 / static_cast<double>(in + c.fc_channels));  // Xavier
    if (detail::drawing_initial_values())
      shared_fcs.back().weight = parameter(Tensor::rand({c.fc_channels, in}, rng, -bound, bound));
  }
}

BoxOutput BoxHead::forward(const Tensor& cells) const {  // (R,7,7,C)
  Tensor x = permute(cells, {0, 3, 1, 2});  // (R,C,7,7): the order of the published weights
  x = reshape(x, {x.dim(0), x.numel() / x.dim(0)});
  for (const Linear& fc : shared_fcs) x = relu(fc.forward(x));
  return {fc_cls.forward(x), fc_reg.forward(x)};
}

BoxLoss BoxHead::loss(const BoxOutput& out, const std::vector<Roi>& rois,
                      const std::vector<Objects>& objects) const {
  const std::size_t count = rois.size(), width = static_cast<std::size_t>(4 * config.num_classes);
  std::vector<i64> labels;
  std::vector<float> target(count * width), weight(count * width);
  for (std::size_t r = 0; r < count; ++r) {
    labels.push_back(rois[r].label);
    if (rois[r].truth < 0) continue;
    const Delta d = encode(rois[r].box,
                           objects[static_cast<std::size_t>(rois[r].image)]
                               .boxes[static_cast<std::size_t>(rois[r].truth)],
                           config.coder);
    const float values[4] = {d.dx, d.dy, d.dw, d.dh};
    for (std::size_t c = 0; c < 4; ++c) {
      const std::size_t at = r * width + static_cast<std::size_t>(4 * rois[r].label) + c;
      target[at] = values[c], weight[at] = 1;
    }
  }
  const i64 n = static_cast<i64>(count);
  const Tensor y = Tensor::from<i64>(labels, {n}).to(out.scores.device());
  BoxLoss l;
  l.cls = cross_entropy(widened(out.scores), y);
  if (config.cls_weight != 1) l.cls = scale(l.cls, config.cls_weight);
  l.bbox =
      scale(weighted_l1(out.deltas, Tensor::from<float>(target, {static_cast<i64>(target.size())}),
                        Tensor::from<float>(weight, {static_cast<i64>(weight.size())})),
            config.bbox_weight / static_cast<double>(n));
  const NoGrad not_recorded;
  const Tensor apart =
      abs(sub(cast(argmax(out.scores, -1), DType::f64), cast(y, DType::f64)));  // whole numbers
  l.accuracy = scale(mean(relu(add_scalar(scale(apart, -1), 1))), 100);
  return l;
}

std::vector<Detection> detections_of(const BoxOutput& out, const std::vector<Roi>& rois,
                                     const Frame& frame, const RoiConfig& c) {
  const std::vector<float> p = softmax(widened(out.scores.detach()), -1).to_vector<float>(),
                           d = out.deltas.to_vector<float>();
  const auto K = static_cast<std::size_t>(c.num_classes);
  const float sx = static_cast<float>(frame.scale_x()), sy = static_cast<float>(frame.scale_y());
  std::vector<Box> boxes;
  std::vector<float> scores;
  std::vector<i64> labels;
  for (std::size_t r = 0; r < rois.size(); ++r)
    for (std::size_t k = 0; k < K; ++k) {
      const float score = p[r * (K + 1) + k];
      if (static_cast<double>(score) <= c.least_score) continue;
      const float* v = d.data() + 4 * (r * K + k);
      Box b = decode(rois[r].box, {v[0], v[1], v[2], v[3]}, static_cast<float>(frame.width),
                     static_cast<float>(frame.height), c.coder);
      b = {b.x1 / sx, b.y1 / sy, b.x2 / sx, b.y2 / sy};
      boxes.push_back(b), scores.push_back(score), labels.push_back(static_cast<i64>(k));
    }
  std::vector<Detection> found;
  for (const i64 k : nms(boxes, scores, labels, c.nms, c.detections)) {
    const auto i = static_cast<std::size_t>(k);
    found.push_back({boxes[i], labels[i], static_cast<double>(scores[i]), std::nullopt});
  }
  return found;
}

std::vector<std::vector<Detection>> detections_of(const BoxOutput& out, const Tensor& regions,
                                                  const std::vector<Frame>& frames,
                                                  const RoiConfig& c) {
  check(c.nms >= 0, "nms: the threshold is ", c.nms, "; it must not be negative");
  const Tensor best =
      detail::best_of_classes(regions, softmax(cast(out.scores.detach(), DType::f32), -1),
                              out.deltas.detach(), c.coder.decoder(), c.least_score,
                              detail::sizes_of(frames).to(Device::cuda), {0, c.nms, c.detections})
          .to(Device::cpu);  // (B,N,6)
  std::vector<std::vector<Detection>> all(frames.size());
  for (i64 row = 0; row < best.numel() / 6; ++row) {
    const float* const b = best.data<float>() + row * 6;
    check(b[5] != -2, "nms: a score is not a number");
    if (b[5] >= 0)
      all[static_cast<std::size_t>(row / best.dim(1))].push_back({{b[0], b[1], b[2], b[3]},
                                                                  static_cast<i64>(b[5]),
                                                                  static_cast<double>(b[4]),
                                                                  std::nullopt});
  }
  return all;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
