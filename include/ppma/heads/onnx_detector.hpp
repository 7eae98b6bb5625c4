#pragma once
#include "ppma/core/names_begin.hpp"
// The whole detector as an ONNX graph (heads/mask_rcnn.hpp), regions and all, by the operators
// NonMaxSuppression and RoiAlign. How many regions there are is known when it runs: that size is
// OnnxGraph::batch here, and the batch is one image. Legend: C channels, K classes, R regions.

#include "ppma/heads/onnx.hpp"

namespace ppma::inline PPMA_ABI {

/// A detector: input `images` (1,3,height,width), normalised; outputs, best first, `boxes`
/// (objects,4), x1 y1 x2 y2 in pixels of that image, `scores` (objects), `labels` (objects), int64,
/// and with a mask head `masks` (objects,S,S), probabilities of the cells of each box
/// (paste_mask() draws them). Errors: images below 32 x 32, a network that was made ready for
/// inference.
PPMA_API void export_onnx(const MaskRcnn& model, OnnxGraph& g, i64 height, i64 width);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_ONNX)

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "ppma/models/onnx_layers.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline constexpr i64 region_count = OnnxGraph::batch;  // how many there are, as a size

inline OnnxValue sub(const OnnxValue& a, const OnnxValue& b) { return a + scale(b, -1); }

// Rows of x by their numbers.
inline OnnxValue rows_of(const OnnxValue& x, const OnnxValue& numbers) {
  std::vector<i64> shape = x.shape;
  shape[0] = numbers.dim(0);
  return x.graph->node("Gather", {x, numbers}, shape, {{"axis", i64{0}}});
}

// Numbers of the `most` greatest of x (n), or of all where there are fewer, greatest first.
inline OnnxValue best_of(const OnnxValue& x, i64 most) {
  OnnxGraph& g = *x.graph;
  const OnnxValue count = g.node("Min", {g.node("Shape", {x}, {1}), g.integers({most})}, {1});
  const i64 n = x.dim(0) == region_count ? region_count : std::min(most, x.dim(0));
  return g.nodes("TopK", {x, count}, {{n}, {n}})[1];
}

// decode(): boxes (...,4) moved by deltas (...,4), within the image; x and y alike, in pairs.
inline OnnxValue decoded(const OnnxValue& boxes, const OnnxValue& deltas, const BoxCoder& coder,
                         i64 height, i64 width) {
  OnnxGraph& g = *boxes.graph;
  const Delta stds = coder.deviations();
  const OnnxValue d =
      deltas * g.weight("stds", Tensor::from<float>({stds.dx, stds.dy, stds.dw, stds.dh}, {4}));
  const OnnxValue low = narrow(boxes, -1, 0, 2), high = narrow(boxes, -1, 2, 2);
  const OnnxValue size = sub(high, low);
  const OnnxValue centre = scale(low + high, 0.5) + narrow(d, -1, 0, 2) * size;
  const double most = std::abs(std::log(static_cast<float>(coder.wh_ratio_clip)));
  const OnnxValue grown = narrow(d, -1, 2, 2);
  const OnnxValue factor =
      exp(g.node("Clip", {grown, g.scalar(-most), g.scalar(most)}, grown.shape));
  const OnnxValue half = scale(size * factor, 0.5);
  const OnnxValue edge = g.weight(
      "image", Tensor::from<float>({static_cast<float>(width), static_cast<float>(height)}, {2}));
  const auto inside = [&](const OnnxValue& x) {
    return g.node("Max", {g.node("Min", {x, edge}, x.shape), g.scalar(0)}, x.shape);
  };
  return concat({inside(sub(centre, half)), inside(centre + half)}, -1);
}

// Of boxes (groups,n,4) and scores (groups,classes,n) above the least: (R,3), group, class and
// number, by classes and scores.
inline OnnxValue suppressed(const OnnxValue& boxes, const OnnxValue& scores, i64 most,
                            double threshold, double least) {
  OnnxGraph& g = *boxes.graph;
  return g.node("NonMaxSuppression",
                {boxes, scores, g.integers({most}), g.scalar(threshold), g.scalar(least)},
                {region_count, 3});
}

// RpnHead::proposals(): boxes (R,4), best first.
inline OnnxValue proposals(const RpnHead& rpn, const OnnxPyramid& p, i64 height, i64 width) {
  const Scope scope("rpn_head");
  const RpnConfig& c = rpn.config;
  OnnxGraph& g = *p.levels[0].graph;
  std::vector<OnnxValue> boxes, scores;
  for (std::size_t l = 0; l < p.levels.size(); ++l) {
    const i64 h = p.levels[l].dim(2), w = p.levels[l].dim(3);
    std::vector<float> corners;
    for (const Box& b : anchors(h, w, c.strides[l], c.anchor))
      corners.insert(corners.end(), {b.x1, b.y1, b.x2, b.y2});
    const i64 n = static_cast<i64>(corners.size()) / 4;
    const OnnxValue score = reshape(channels_last(sigmoid(p.scores[l])), {n});
    const OnnxValue best = best_of(score, c.test_candidates);
    const OnnxValue anchor = g.weight(str("anchors", l), Tensor::from<float>(corners, {n, 4}));
    const OnnxValue delta = reshape(channels_last(p.deltas[l]), {n, 4});
    boxes.push_back(decoded(rows_of(anchor, best), rows_of(delta, best), c.coder, height, width));
    // boxes without an area count for nothing
    const OnnxValue size = sub(narrow(boxes[l], -1, 2, 2), narrow(boxes[l], -1, 0, 2));
    const OnnxValue least =
        g.node("ReduceMin", {size, g.integers({1})}, {size.dim(0)}, {{"keepdims", i64{0}}});
    const OnnxValue there = g.node("Greater", {least, g.scalar(0)}, least.shape);
    scores.push_back(g.node("Where", {there, rows_of(score, best), g.scalar(-1)}, least.shape));
  }
  const OnnxValue all = concat(boxes, 0), of_all = concat(scores, 0);
  // Levels are suppressed apart, as classes are: each with -1 for the others' boxes.
  std::vector<OnnxValue> apart;
  i64 before = 0;
  for (const OnnxValue& s : scores) {
    const OnnxValue others = g.integers({before, all.dim(0) - before - s.dim(0)});
    apart.push_back(
        reshape(g.node("Pad", {s, others, g.scalar(-1)}, {all.dim(0)}), {1, 1, all.dim(0)}));
    before += s.dim(0);
  }
  const OnnxValue kept = select(
      suppressed(reshape(all, {1, all.dim(0), 4}), concat(apart, 1), all.dim(0), c.nms, -0.5), 1,
      2);
  return rows_of(all, rows_of(kept, best_of(rows_of(of_all, kept), c.proposals)));
}

// roi_features(): the cells (R,C,size,size) of boxes (R,4), sorted by level, and their numbers.
struct OnnxCells {
  OnnxValue cells, numbers;
};
inline OnnxCells roi_features(const std::vector<OnnxValue>& levels, const OnnxValue& boxes,
                              i64 size, double finest) {
  OnnxGraph& g = *boxes.graph;
  const OnnxValue sides = sub(narrow(boxes, -1, 2, 2), narrow(boxes, -1, 0, 2));
  const OnnxValue area = select(sides, 1, 0) * select(sides, 1, 1);
  const OnnxValue side =
      g.node("Sqrt", {g.node("Max", {area, g.scalar(0)}, area.shape)}, area.shape);
  const OnnxValue log = g.node("Log", {scale(side, 1 / finest) + g.scalar(1e-6)}, side.shape);
  const OnnxValue number = g.node("Floor", {scale(log, 1 / std::log(2.0))}, side.shape);
  const OnnxValue level = g.node("Clip", {number, g.scalar(0), g.scalar(3)}, side.shape);
  std::vector<OnnxValue> cells, numbers;
  for (i64 l = 0; l < 4; ++l) {
    const OnnxValue of_level =
        g.node("Equal", {level, g.scalar(static_cast<double>(l))}, level.shape);
    numbers.push_back(reshape(g.node("NonZero", {of_level}, {1, region_count}), {region_count}));
    const OnnxValue image = g.node("Mul", {numbers.back(), g.integer(0)}, {region_count});
    const OnnxValue& map = levels[static_cast<std::size_t>(l)];
    cells.push_back(g.node("RoiAlign", {map, rows_of(boxes, numbers.back()), image},
                           {region_count, map.dim(1), size, size},
                           {{"coordinate_transformation_mode", std::string("half_pixel")},
                            {"output_height", size},
                            {"output_width", size},
                            {"sampling_ratio", i64{0}},
                            {"spatial_scale", static_cast<float>(1.0 / (4 << l))}}));
  }
  const auto joined = [&g](const std::vector<OnnxValue>& parts) {
    return g.node("Concat", parts, parts[0].shape, {{"axis", i64{0}}});
  };
  return {joined(cells), joined(numbers)};
}

struct OnnxDetections {
  OnnxValue boxes, scores, labels;
};

// BoxHead::forward() and detections_of().
inline OnnxDetections emit(const BoxHead& head, const std::vector<OnnxValue>& levels,
                           const OnnxValue& proposed, i64 height, i64 width) {
  const Scope scope("bbox_head");
  const RoiConfig& c = head.config;
  OnnxGraph& g = *proposed.graph;
  const OnnxCells looked = roi_features(levels, proposed, c.box_size, c.finest);
  OnnxValue x = reshape(looked.cells, {region_count, c.channels * c.box_size * c.box_size});
  for (std::size_t i = 0; i < head.shared_fcs.size(); ++i)
    x = relu(emit("shared_fcs", i, head.shared_fcs[i], x));
  const i64 k = c.num_classes;
  const OnnxValue scores = transpose(narrow(softmax(emit("fc_cls", head.fc_cls, x)), 1, 0, k));
  const OnnxValue deltas = reshape(emit("fc_reg", head.fc_reg, x), {region_count, k, 4});
  const OnnxValue from = reshape(rows_of(proposed, looked.numbers), {region_count, 1, 4});
  const OnnxValue boxes =  // (K,R,4): each class has its own
      permute(decoded(from, deltas, c.coder, height, width), {1, 0, 2});
  const OnnxValue kept =
      suppressed(boxes, reshape(scores, {k, 1, region_count}), c.detections, c.nms, c.least_score);
  const OnnxValue places = gather(kept, 1, {0, 2});  // class and region
  const OnnxValue of_kept = g.node("GatherND", {scores, places}, {region_count});
  const OnnxValue best = best_of(of_kept, c.detections);
  return {rows_of(g.node("GatherND", {boxes, places}, {region_count, 4}), best),
          rows_of(of_kept, best), rows_of(select(kept, 1, 0), best)};
}

// MaskHead::forward() and of_class() of what was found: (R,S,S), in the order of the boxes.
inline OnnxValue emit(const MaskHead& head, const std::vector<OnnxValue>& levels,
                      const OnnxDetections& found) {
  const Scope scope("mask_head");
  OnnxGraph& g = *found.boxes.graph;
  const OnnxCells looked =
      roi_features(levels, found.boxes, head.config.mask_size, head.config.finest);
  OnnxValue x = looked.cells;
  for (std::size_t i = 0; i < head.convs.size(); ++i)
    x = relu(emit(str("convs.", i, ".conv").c_str(), head.convs[i].conv, x));
  const i64 size = 2 * x.dim(2);
  x = relu(g.node("ConvTranspose",
                  {x, g.weight("upsample.weight", head.upsample.weight),
                   g.weight("upsample.bias", head.upsample.bias)},
                  {region_count, x.dim(1), size, size}, {{"strides", std::vector<i64>{2, 2}}}));
  const OnnxValue own = reshape(rows_of(found.labels, looked.numbers), {region_count, 1});
  const OnnxValue masks =
      sigmoid(g.node("GatherND", {emit("conv_logits", head.conv_logits, x), own},
                     {region_count, size, size}, {{"batch_dims", i64{1}}}));
  const OnnxValue count = g.node("Shape", {looked.numbers}, {1});
  const OnnxValue back = g.nodes("TopK", {looked.numbers, count}, {{region_count}, {region_count}},
                                 {{"largest", i64{0}}})[1];
  return rows_of(masks, back);
}

}  // namespace detail

void export_onnx(const MaskRcnn& model, OnnxGraph& g, i64 height, i64 width) {
  const detail::OnnxPyramid p = detail::emit(model, detail::onnx_images(g, height, width, 1));
  const OnnxValue proposed = detail::proposals(model.rpn_head, p, height, width);
  const Scope scope("roi_head");
  const detail::OnnxDetections found =
      detail::emit(model.roi_head.bbox_head, p.levels, proposed, height, width);
  g.output("boxes", found.boxes, "x1 y1 x2 y2 in pixels of the image, best first", "objects");
  g.output("scores", found.scores, "from 0 to 1", "objects");
  g.output("labels", found.labels, "classes", "objects", DType::int64);
  if (model.roi_head.mask_head)
    g.output("masks", detail::emit(*model.roi_head.mask_head, p.levels, found),
             "probabilities of the cells of each box", "objects");
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
