#pragma once
#include "ppma/core/names_begin.hpp"
// What looks at proposals one by one: the box head and the mask head (He et al., "Mask R-CNN",
// 2017), spec 7.2.
// Legend: R regions, C channels of the pyramid, K classes.

#include <optional>
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

PPMA_API void sort_by_level(std::vector<Roi>& rois, double finest);

/// The regions' cells (R,size,size,C) from P2..P5 at strides 4..32. rois must be sorted by level
/// and not empty.
PPMA_API Tensor roi_features(const std::vector<Tensor>& levels, const std::vector<Roi>& rois,
                             i64 size, double finest);

/// Truths and proposals of one image, of which some are learnt from: positive ones first.
PPMA_API std::vector<Roi> sample_rois(const std::vector<Box>& proposals, const Objects& objects,
                                      i64 image, const RoiConfig& c, const Rng& rng);

struct BoxOutput {
  Tensor scores, deltas;  // logits (R,K+1), background last; deltas (R,4K), by class
};

struct BoxLoss {
  Tensor cls, bbox;
  double accuracy = 0;  // percent
};

struct BoxHead {
  RoiConfig config;
  Linear fc_cls, fc_reg;
  std::vector<Linear> shared_fcs;

  PPMA_API BoxHead(const RoiConfig& c, Rng& rng);
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

namespace detail {

// Kaiming-normal by fan-out, bias 0.
PPMA_API Conv2d kaiming_conv(i64 in, i64 out, i64 kernel, Rng& rng);

}  // namespace detail

/// A convolution published one level down, as `conv`.
struct MaskConv {
  Conv2d conv;
  template <class V>
  void fields(V& v) {
    v.child("conv", conv);
  }
};

/// Twice the cells: transposed convolution, 2 x 2, stride 2.
struct MaskUpsample {
  Tensor weight, bias;  // (I,O,2,2), (O)
  template <class V>
  void fields(V& v) {
    v.parameter("weight", weight), v.parameter("bias", bias);
  }
};

struct MaskHead {
  RoiConfig config;
  std::vector<MaskConv> convs;
  MaskUpsample upsample;
  Conv2d conv_logits;

  PPMA_API MaskHead(const RoiConfig& c, Rng& rng);
  /// (R,14,14,C) -> logits (R,28,28,K).
  PPMA_API Tensor forward(Tensor x) const;
  /// The map of each region's own class, (R,28,28), of logits (R,28,28,K): chosen where the logits
  /// are.
  PPMA_API Tensor of_class(const Tensor& logits, const std::vector<Roi>& rois) const;
  /// Binary cross entropy on the map of each region's class, the mean over regions and cells, times
  /// its weight.
  PPMA_API Tensor loss(const Tensor& logits, const std::vector<Roi>& rois,
                       const std::vector<Objects>& objects) const;
  /// The truth's mask in the region: RoIAlign with as many samples as pixels, at least one half.
  PPMA_API static std::vector<u8> mask_target(const Tensor& masks, const Roi& roi, i64 size);
  template <class V>
  void fields(V& v) {
    v.children("convs", convs), v.child("upsample", upsample), v.child("conv_logits", conv_logits);
  }
};

struct Detection {
  Box box;  // pixels of the original image
  i64 label = 0;
  double score = 0;
  std::optional<Rle> mask;  // of the original image's size
};

/// Probabilities (size,size), row by row, drawn into a box of an image of height x width: bilinear
/// at pixel centres, outside 0, set where at least `threshold`. Runs are made column by column,
/// from the box's pixels alone.
PPMA_API Rle paste_mask(const float* probability, i64 size, const Box& box, i64 height, i64 width,
                        double threshold = 0.5);

/// Box head's output of one image -> boxes of the original image: decoded by class, scores above
/// the least, suppressed within their class, best ones kept.
PPMA_API std::vector<Detection> detections_of(const BoxOutput& out, const std::vector<Roi>& rois,
                                              const Frame& frame, const RoiConfig& c);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <algorithm>
#include <array>
#include <cmath>

#include "ppma/heads/losses.hpp"
#include "ppma/kernels/cpu/roi_align.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv_transpose.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/loss.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/roi_align.hpp"
#include "ppma/ops/softmax.hpp"

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

Tensor roi_features(const std::vector<Tensor>& levels, const std::vector<Roi>& rois, i64 size,
                    double finest) {
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
                              accumulator_dtype(levels[l].dtype()))
                             .to(levels[l].device());
    RoiAlign grid;
    grid.height = grid.width = size, grid.scale = 1 / static_cast<double>(4 << l);
    parts.push_back(roi_align(levels[l], boxes, grid));
  }
  check(begin == rois.size() && !parts.empty(),
        "roi_features: regions must be sorted by level and not empty");
  return parts.size() == 1 ? parts[0] : concat(parts, 0);
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
  const Tensor y = Tensor::from<i64>(labels, {n});
  BoxLoss l;
  l.cls = cross_entropy(widened(out.scores), y.to(out.scores.device()));
  if (config.cls_weight != 1) l.cls = scale(l.cls, config.cls_weight);
  l.bbox =
      scale(weighted_l1(out.deltas, Tensor::from<float>(target, {static_cast<i64>(target.size())}),
                        Tensor::from<float>(weight, {static_cast<i64>(weight.size())})),
            config.bbox_weight / static_cast<double>(n));
  const std::vector<float> scores = out.scores.to_vector<float>();
  const auto classes = static_cast<std::size_t>(config.num_classes + 1);
  i64 right = 0;
  for (std::size_t r = 0; r < count; ++r) {
    const auto row = scores.begin() + static_cast<std::ptrdiff_t>(r * classes);
    right += std::max_element(row, row + static_cast<std::ptrdiff_t>(classes)) - row == labels[r]
                 ? 1
                 : 0;
  }
  l.accuracy = 100 * static_cast<double>(right) / static_cast<double>(n);
  return l;
}

namespace detail {

Conv2d kaiming_conv(i64 in, i64 out, i64 kernel, Rng& rng) {
  return normal_layer(Conv2d(in, out, kernel, {1, kernel / 2, 1}, rng),
                      std::sqrt(2 / static_cast<double>(out * kernel * kernel)), rng);
}

}  // namespace detail

MaskHead::MaskHead(const RoiConfig& c, Rng& rng)
    : config(c), conv_logits(detail::kaiming_conv(c.channels, c.num_classes, 1, rng)) {
  for (i64 k = 0; k < c.mask_convs; ++k)
    convs.push_back({detail::kaiming_conv(c.channels, c.channels, 3, rng)});
  upsample.weight =
      parameter(detail::drawing_initial_values()
                    ? Tensor::randn({c.channels, c.channels, 2, 2}, rng,
                                    std::sqrt(2 / static_cast<double>(4 * c.channels)))
                    : Tensor::zeros({c.channels, c.channels, 2, 2}));
  upsample.bias = parameter(Tensor::zeros({c.channels}));
}

Tensor MaskHead::forward(Tensor x) const {
  for (const MaskConv& c : convs) x = relu(c.conv.forward(x));
  x = relu(conv_transpose2d(x, upsample.weight, upsample.bias));  // (R,28,28,C)
  return conv_logits.forward(x);
}

Tensor MaskHead::of_class(const Tensor& logits, const std::vector<Roi>& rois) const {
  const i64 R = logits.dim(0), K = logits.dim(3);
  const Tensor wide = widened(logits);
  Tensor own = Tensor::zeros({R, 1, 1, K});
  for (i64 r = 0; r < R; ++r)
    own.data<float>()[r * K + rois[static_cast<std::size_t>(r)].label] = 1;
  return sum(mul(wide, cast(own.to(wide.device()), wide.dtype())), {3});
}

Tensor MaskHead::loss(const Tensor& logits, const std::vector<Roi>& rois,
                      const std::vector<Objects>& objects) const {
  const i64 R = logits.dim(0), size = logits.dim(1), cells = size * size;
  Tensor target = Tensor::empty({R, size, size});
  for (i64 r = 0; r < R; ++r) {
    const Roi& roi = rois[static_cast<std::size_t>(r)];
    const std::vector<u8> mask =
        mask_target(objects[static_cast<std::size_t>(roi.image)].masks, roi, size);
    std::copy(mask.begin(), mask.end(), target.data<float>() + r * cells);
  }
  return scale(weighted_bce(of_class(logits, rois), target, Tensor::ones({R, size, size})),
               config.mask_weight / static_cast<double>(R * cells));
}

std::vector<u8> MaskHead::mask_target(const Tensor& masks, const Roi& roi, i64 size) {
  check(masks.defined() && roi.truth >= 0 && roi.truth < masks.dim(0),
        "mask head: the image's objects have no masks; train without the mask head");
  const i64 H = masks.dim(1), W = masks.dim(2);
  const u8* mask = masks.data<u8>() + roi.truth * H * W;
  const float box[4] = {roi.box.x1, roi.box.y1, roi.box.x2, roi.box.y2};
  RoiAlign grid;
  grid.height = grid.width = size;
  std::vector<float> share(static_cast<std::size_t>(size * size));
  kernels::for_roi_taps(box, grid, H, W, [&](i64 cell, i64 row, i64 col, float w) {
    share[static_cast<std::size_t>(cell)] += w * static_cast<float>(mask[row * W + col]);
  });
  std::vector<u8> target;
  for (const float s : share) target.push_back(s >= 0.5f ? 1 : 0);
  return target;
}

Rle paste_mask(const float* probability, i64 size, const Box& box, i64 height, i64 width,
               double threshold) {
  detail::check_mask_size(height, width);
  const double n = static_cast<double>(size);
  struct Place {
    i64 at;        // pixel
    i64 cell;      // the one before its centre, from -1
    double share;  // of the next cell
  };
  // The pixels of an axis that the map reaches.
  const auto places = [&](float begin, float end, i64 pixels) {
    std::vector<Place> all;
    const i64 first = std::max(i64{0}, static_cast<i64>(std::floor(begin)) - 1);
    for (i64 at = first; at < std::min(pixels, static_cast<i64>(end) + 2); ++at) {
      const double v = (static_cast<double>(at) + 0.5 - static_cast<double>(begin)) /
                           static_cast<double>(end - begin) * n -
                       0.5;
      if (v > -1 && v < n) all.push_back({at, static_cast<i64>(std::floor(v)), v - std::floor(v)});
    }
    return all;
  };
  const std::vector<Place> rows = places(box.y1, box.y2, height),
                           columns = places(box.x1, box.x2, width);
  std::vector<i64> changes;
  // of the map, between two of its columns; 0 at both ends
  std::vector<double> column(static_cast<std::size_t>(size + 2));
  for (const Place& x : columns) {
    for (i64 i = 0; i < size; ++i) {
      const double left = x.cell >= 0 ? static_cast<double>(probability[i * size + x.cell]) : 0.0;
      const double right =
          x.cell + 1 < size ? static_cast<double>(probability[i * size + x.cell + 1]) : 0.0;
      column[static_cast<std::size_t>(i + 1)] = (1 - x.share) * left + x.share * right;
    }
    bool inside = false;
    for (const Place& y : rows) {
      const double p = (1 - y.share) * column[static_cast<std::size_t>(y.cell + 1)] +
                       y.share * column[static_cast<std::size_t>(y.cell + 2)];
      if ((p >= threshold) != inside) changes.push_back(x.at * height + y.at), inside = !inside;
    }
    if (inside) changes.push_back(x.at * height + rows.back().at + 1);
  }
  return detail::rle_from_changes(changes, height, width);
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

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
