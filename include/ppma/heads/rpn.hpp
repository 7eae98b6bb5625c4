#pragma once
#include "ppma/core/names_begin.hpp"
// Region proposal network (Ren et al., "Faster R-CNN", 2015), recipes 3.1. Dense layers stay on the
// device, and a GPU chooses its proposals; otherwise the host does. What it learns is in
// rpn_loss.hpp.
// Legend: B batch, H W grid of a level, C channels, A anchors a cell, N proposals.

#include <array>
#include <span>
#include <vector>

#include "ppma/data/detection.hpp"
#include "ppma/heads/boxes.hpp"
#include "ppma/heads/targets.hpp"
#include "ppma/nn/layers.hpp"
#include "ppma/ops/best_boxes.hpp"
#include "ppma/parallel/communicator.hpp"

namespace ppma::inline PPMA_ABI {

struct RpnConfig {
  i64 channels = 256;  // of the pyramid, and of the head
  AnchorConfig anchor;
  std::array<i64, 5> strides{4, 8, 16, 32, 64};
  AssignConfig assign{0.7, 0.3, 0.3, true};
  SampleConfig sample{256, 0.5};
  i64 train_candidates = 2000, test_candidates = 1000;  // best of each level before suppression
  i64 proposals = 1000;                                 // an image
  double nms = 0.7;
  BoxCoder coder;
  double cls_weight = 1, bbox_weight = 1;  // of the losses

  bool operator==(const RpnConfig&) const = default;
};

struct RpnOutput {
  std::vector<Tensor> scores, deltas;  // logits (B,H,W,A), deltas (B,H,W,4A), a level each
};

struct RpnLoss {
  Tensor cls, bbox;  // scalars
};

namespace detail {

/// f32 (B,4): each image's width and height, and by how much it was made wider and higher.
PPMA_API Tensor sizes_of(const std::vector<Frame>& frames);

/// What a GPU's choices are told of a batch's truths, as ops/best_boxes.hpp has them.
struct Truths {
  Tensor boxes, sizes;  // f32 (B,T,4), int64 (B,3)
};
/// On the GPU.
PPMA_API Truths truths_of(const std::vector<Frame>& frames, const std::vector<Objects>& objects);

/// How boxes are told apart and drawn.
inline kernels::AnchorRules rules_of(const AssignConfig& assign, const SampleConfig& sample) {
  return {assign.positive,    assign.negative, assign.least_positive,
          assign.low_quality, sample.count,    sample.most_positive()};
}

}  // namespace detail

/// A layer with normal weights and no bias, as the detection heads begin.
template <class Layer>
Layer normal_layer(Layer layer, double deviation, Rng& rng) {
  if (detail::drawing_initial_values())
    layer.weight = parameter(Tensor::randn(layer.weight.shape(), rng, deviation));
  layer.bias = parameter(Tensor::zeros(layer.bias.shape()));
  return layer;
}

struct RpnHead {
  RpnConfig config;
  Conv2d rpn_conv, rpn_cls, rpn_reg;

  PPMA_API RpnHead(const RpnConfig& c, Rng& rng);

  /// Levels (B,H,W,C), finest first -> scores and deltas of every anchor.
  PPMA_API RpnOutput forward(const std::vector<Tensor>& levels) const;

  /// Both losses are sums over the sampled anchors, divided by how many there are in the batch,
  /// times their weights. Of a batch in several processes each samples what one process would of
  /// its images, and the mean of all losses is that of the whole batch.
  PPMA_API RpnLoss loss(const RpnOutput& out, const std::vector<Frame>& frames,
                        const std::vector<Objects>& objects, const Rng& rng,
                        const Communicator* among = nullptr) const;

  /// Boxes that may hold an object, best first, for each image: the best of each level, decoded,
  /// clipped to the image, suppressed within their level. Without gradients. Errors: a score that
  /// is not a number, config.nms below 0.
  PPMA_API std::vector<std::vector<Box>> proposals(const RpnOutput& out,
                                                   const std::vector<Frame>& frames,
                                                   bool training) const;
  /// Whether best() chooses them: the levels are on a GPU, and neither they nor the boxes too many.
  PPMA_API bool chooses_on_gpu(const RpnOutput& out) const;
  /// The same on a GPU, where they stay: f32 (B,N,6), a box, its score, its level, which is -1
  /// behind an image's last box and -2 where a score was not a number. Nothing waits for it.
  PPMA_API Tensor best(const RpnOutput& out, const std::vector<Frame>& frames, bool training) const;
  template <class V>
  void fields(V& v) {
    v.child("rpn_conv", rpn_conv), v.child("rpn_cls", rpn_cls), v.child("rpn_reg", rpn_reg);
  }

 private:
  struct Scored {
    float score;
    Box box;
  };
  // Of one level of one image, best first: scores (H,W,A) in [0,1], deltas (H,W,4A).
  PPMA_API std::vector<Scored> best_of_level(std::span<const float> scores, const float* deltas,
                                             i64 stride, i64 width, const Frame& frame,
                                             i64 candidates) const;
  static i64 anchors_a_cell(const RpnConfig& c) { return static_cast<i64>(c.anchor.ratios.size()); }
  PPMA_API kernels::AnchorGrid grid_of(const RpnOutput& out) const;
  // Of images first, first + 1 ... of the batch of all processes: on the GPU, and on the host.
  PPMA_API detail::AnchorTargets targets_on_gpu(const RpnOutput& out,
                                                const std::vector<Frame>& frames,
                                                const std::vector<Objects>& objects, const Rng& rng,
                                                u64 first) const;
  PPMA_API detail::AnchorTargets targets(const RpnOutput& out, const std::vector<Frame>& frames,
                                         const std::vector<Objects>& objects, const Rng& rng,
                                         u64 first) const;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <algorithm>
#include <cmath>
#include <functional>

#include "ppma/core/float_bits.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/heads/losses.hpp"
#include "ppma/ops/activation.hpp"

namespace ppma::inline PPMA_ABI {

Tensor detail::sizes_of(const std::vector<Frame>& frames) {
  std::vector<float> sizes;
  for (const Frame& f : frames)
    sizes.insert(sizes.end(), {static_cast<float>(f.width), static_cast<float>(f.height),
                               static_cast<float>(f.scale_x()), static_cast<float>(f.scale_y())});
  return Tensor::from<float>(sizes, {static_cast<i64>(frames.size()), 4});
}

detail::Truths detail::truths_of(const std::vector<Frame>& frames,
                                 const std::vector<Objects>& objects) {
  std::size_t most = 1;
  for (const Objects& o : objects) most = std::max(most, o.boxes.size());
  const i64 images = static_cast<i64>(frames.size());
  Tensor boxes = Tensor::zeros({images, static_cast<i64>(most), 4});
  Tensor sizes = Tensor::empty({images, 3}, DType::int64);
  for (std::size_t b = 0; b < frames.size(); ++b) {
    float* box = boxes.data<float>() + b * most * 4;
    for (const Box& t : objects[b].boxes) {
      box[0] = t.x1, box[1] = t.y1, box[2] = t.x2, box[3] = t.y2;
      box += 4;
    }
    i64* const size = sizes.data<i64>() + 3 * b;
    size[0] = frames[b].padded_width, size[1] = frames[b].padded_height,
    size[2] = static_cast<i64>(objects[b].boxes.size());
  }
  return {boxes.to(Device::cuda), sizes.to(Device::cuda)};
}

RpnHead::RpnHead(const RpnConfig& c, Rng& rng)
    : config(c),
      rpn_conv(normal_layer(Conv2d(c.channels, c.channels, 3, {1, 1, 1}, rng), 0.01, rng)),
      rpn_cls(normal_layer(Conv2d(c.channels, anchors_a_cell(c), 1, {}, rng), 0.01, rng)),
      rpn_reg(normal_layer(Conv2d(c.channels, 4 * anchors_a_cell(c), 1, {}, rng), 0.01, rng)) {}

RpnOutput RpnHead::forward(const std::vector<Tensor>& levels) const {  // (B,H,W,C) each
  check(levels.size() == config.strides.size(), "rpn: needs ", config.strides.size(),
        " levels, got ", levels.size());
  RpnOutput out;
  for (const Tensor& x : levels) {
    const Tensor y = relu(rpn_conv.forward(x));  // (B,H,W,C)
    out.scores.push_back(rpn_cls.forward(y));    // (B,H,W,A)
    out.deltas.push_back(rpn_reg.forward(y));    // (B,H,W,4A)
  }
  return out;
}

std::vector<std::vector<Box>> RpnHead::proposals(const RpnOutput& out,
                                                 const std::vector<Frame>& frames,
                                                 bool training) const {
  if (chooses_on_gpu(out)) {
    const Tensor found = best(out, frames, training).to(Device::cpu);  // (B,N,6)
    std::vector<std::vector<Box>> all(frames.size());
    for (i64 row = 0; row < found.numel() / 6; ++row) {
      const float* const b = found.data<float>() + row * 6;
      check(b[5] != -2, "rpn: a score is not a number");
      if (b[5] >= 0)
        all[static_cast<std::size_t>(row / found.dim(1))].push_back({b[0], b[1], b[2], b[3]});
    }
    return all;
  }
  check(config.nms >= 0, "rpn: the threshold nms is ", config.nms, "; it must not be negative");
  const std::size_t levels = out.scores.size();
  std::vector<std::vector<float>> scores, deltas;
  for (std::size_t l = 0; l < levels; ++l) {
    scores.push_back(sigmoid(widened(out.scores[l].detach())).to_vector<float>()),
        deltas.push_back(out.deltas[l].to_vector<float>());
    // both here: threads must not throw
    for (const float s : scores[l]) check(!is_nan(s), "rpn: a score is not a number");
  }
  std::vector<std::vector<Scored>> kept(frames.size() * levels);
  parallel_for(static_cast<i64>(kept.size()), 1, [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) {
      const std::size_t b = static_cast<std::size_t>(i) / levels,
                        l = static_cast<std::size_t>(i) % levels;
      // anchors of an image
      const std::size_t count =
          static_cast<std::size_t>(out.scores[l].numel() / out.scores[l].dim(0));
      kept[static_cast<std::size_t>(i)] =
          best_of_level({scores[l].data() + b * count, count}, deltas[l].data() + 4 * b * count,
                        config.strides[l], out.scores[l].dim(2), frames[b],
                        training ? config.train_candidates : config.test_candidates);
    }
  });
  std::vector<std::vector<Box>> all;
  for (std::size_t b = 0; b < frames.size(); ++b) {
    std::vector<Scored> image;
    for (std::size_t l = 0; l < levels; ++l)
      image.insert(image.end(), kept[b * levels + l].begin(), kept[b * levels + l].end());
    std::stable_sort(image.begin(), image.end(),
                     [](const Scored& x, const Scored& y) { return x.score > y.score; });
    image.resize(std::min(image.size(), static_cast<std::size_t>(config.proposals)));
    all.emplace_back();
    for (const Scored& s : image) all.back().push_back(s.box);
  }
  return all;
}

bool RpnHead::chooses_on_gpu(const RpnOutput& out) const {
  return !out.scores.empty() && out.scores[0].device() == Device::cuda &&
         out.scores.size() <= kernels::most_levels &&
         config.anchor.ratios.size() <= kernels::most_ratios &&
         std::max({config.train_candidates, config.test_candidates, config.proposals}) <=
             kernels::most_boxes;
}

kernels::AnchorGrid RpnHead::grid_of(const RpnOutput& out) const {
  kernels::AnchorGrid grid{};
  grid.levels = static_cast<int>(out.scores.size());
  grid.ratios = static_cast<int>(config.anchor.ratios.size());
  for (std::size_t l = 0; l < out.scores.size(); ++l) {
    const Tensor& s = out.scores[l];
    grid.first[l] = grid.all, grid.width[l] = s.dim(2), grid.stride[l] = config.strides[l];
    grid.all += s.numel() / s.dim(0);
    const double side = config.anchor.scale * static_cast<double>(config.strides[l]);
    for (std::size_t r = 0; r < config.anchor.ratios.size(); ++r) {
      const double root = std::sqrt(config.anchor.ratios[r]);
      grid.half_width[l][r] = side / root / 2, grid.half_height[l][r] = side * root / 2;
    }
  }
  return grid;
}

Tensor RpnHead::best(const RpnOutput& out, const std::vector<Frame>& frames, bool training) const {
  check(config.nms >= 0, "rpn: the threshold nms is ", config.nms, "; it must not be negative");
  check(chooses_on_gpu(out), "rpn: at most ", kernels::most_boxes, " boxes of ",
        kernels::most_levels, " levels and ", kernels::most_ratios,
        " ratios on a GPU are chosen from there");
  return detail::best_anchors(
      out.scores, out.deltas, grid_of(out), config.coder.decoder(),
      detail::sizes_of(frames).to(Device::cuda),
      {training ? config.train_candidates : config.test_candidates, config.nms, config.proposals});
}

std::vector<RpnHead::Scored> RpnHead::best_of_level(std::span<const float> scores,
                                                    const float* deltas, i64 stride, i64 width,
                                                    const Frame& frame, i64 candidates) const {
  // A score's bits above, the anchor's number below, inverted: the greatest keys are the best
  // scores, equal ones in order.
  std::vector<u64> keys(scores.size());
  for (std::size_t k = 0; k < keys.size(); ++k)
    keys[k] = (u64{detail::bits_as<u32>(scores[k])} << 32) + (0xffffffffu - k);
  const auto last = keys.begin() + std::min(static_cast<std::ptrdiff_t>(candidates),
                                            static_cast<std::ptrdiff_t>(keys.size()));
  std::partial_sort(keys.begin(), last, keys.end(), std::greater<>{});
  const std::size_t ratios = config.anchor.ratios.size();
  std::vector<Box> boxes;
  std::vector<float> of;
  for (auto key = keys.begin(); key != last; ++key) {
    const std::size_t k = 0xffffffffu - (*key & 0xffffffffu);
    const i64 cell = static_cast<i64>(k / ratios);
    const float* d = deltas + 4 * k;
    const Box box = decode(anchor(cell / width, cell % width, k % ratios, stride, config.anchor),
                           {d[0], d[1], d[2], d[3]}, static_cast<float>(frame.width),
                           static_cast<float>(frame.height), config.coder);
    if (box.width() > 0 && box.height() > 0) boxes.push_back(box), of.push_back(scores[k]);
  }
  std::vector<Scored> kept;
  for (const i64 k : nms(boxes, of, {}, config.nms))
    kept.push_back({of[static_cast<std::size_t>(k)], boxes[static_cast<std::size_t>(k)]});
  return kept;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
