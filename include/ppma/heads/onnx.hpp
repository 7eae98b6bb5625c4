#pragma once
#include "ppma/core/names_begin.hpp"
// Networks for dense prediction as ONNX graphs, written as their forward passes are (the backbone:
// models/onnx.hpp). Maps are channels first here, (B,C,H,W), as ONNX's convolutions have them.

#include <vector>

#include "ppma/heads/mask_rcnn.hpp"
#include "ppma/heads/segmentor.hpp"
#include "ppma/heads/semantic_fpn.hpp"
#include "ppma/heads/upernet.hpp"
#include "ppma/models/onnx.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// A head on four maps (B,C,H,W), finest first: logits (B,K,h,w).
PPMA_API OnnxValue emit(const UperNet& head, const std::vector<OnnxValue>& maps);
PPMA_API OnnxValue emit(const SemanticFpn& head, const std::vector<OnnxValue>& maps);

}  // namespace detail

/// A segmentor: input `images` (batch,3,height,width), normalised; output `logits`
/// (batch,classes,height,width). Errors: images below 32 x 32, a network that was made ready for
/// inference.
template <class Head>
void export_onnx(const Segmentor<Head>& model, OnnxGraph& g, i64 height, i64 width) {
  const OnnxValue images = detail::onnx_images(g, height, width);
  std::vector<OnnxValue> maps;
  {
    const Scope scope("backbone");
    maps = detail::emit(model.backbone, images);
  }
  g.output("logits", resize(detail::emit(model.head, maps), height, width),
           "a number a class and pixel, not normalised");
}

/// What a detector computes of whole images: input `images` (batch,3,height,width), normalised;
/// outputs the pyramid `p2` to `p6` (batch,C,h,w), and of each level the proposals' `scores2` to
/// `scores6`, logits (batch,A,h,w), and `deltas2` to `deltas6` (batch,4A,h,w), of anchor a in
/// channels 4a to 4a + 3. For programs that choose regions themselves; export_onnx() of
/// heads/onnx_detector.hpp does the whole. Errors as a segmentor's.
PPMA_API void export_onnx_pyramid(const MaskRcnn& model, OnnxGraph& g, i64 height, i64 width);

namespace detail {

/// The same as values: levels, and of each scores and deltas.
struct OnnxPyramid {
  std::vector<OnnxValue> levels, scores, deltas;
};
PPMA_API OnnxPyramid emit(const MaskRcnn& model, const OnnxValue& images);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_ONNX)

#include <string>

#include "ppma/models/onnx_layers.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline OnnxValue emit(const char* name, const ConvModule& m, const OnnxValue& x) {
  const Scope scope(name);
  const OnnxValue w = x.graph->weight("conv.weight", m.weight);
  return relu(emit("bn", m.bn, conv2d(x, w, OnnxValue(), 1, w.dim(-1) / 2, 1)));
}

inline OnnxValue resized_as(const OnnxValue& x, const OnnxValue& like,
                            Resize how = Resize::bilinear) {
  return resize(x, like.dim(2), like.dim(3), how);
}

// Means of windows, which are products: of a row's windows (W,s), then of a column's (s,H).
inline OnnxValue adaptive_avg_pool2d(const OnnxValue& x, i64 s) {
  const auto windows = [s](i64 n, bool turned) {
    Tensor t = Tensor::zeros(turned ? Shape{n, s} : Shape{s, n});
    for (i64 o = 0; o < s; ++o) {
      const i64 begin = o * n / s, end = ((o + 1) * n + s - 1) / s;
      for (i64 i = begin; i < end; ++i)
        t.data<float>()[turned ? i * s + o : o * n + i] = 1 / static_cast<float>(end - begin);
    }
    return t;
  };
  OnnxGraph& g = *x.graph;
  const OnnxValue rows = g.weight("pool_rows", windows(x.dim(2), false)),
                  columns = g.weight("pool_columns", windows(x.dim(3), true));
  return matmul(rows, matmul(x, columns));
}

inline OnnxValue emit(const char* name, const PoolBranch& branch, const OnnxValue& x) {
  const Scope scope(name);
  return resized_as(emit("1", branch.conv, adaptive_avg_pool2d(x, branch.scale)), x);
}

inline OnnxValue emit(const char* name, const FpnConv& c, const OnnxValue& x) {
  const Scope scope(name);
  return emit("conv", c.conv, x);
}

inline OnnxValue emit(const char* name, const ScaleHead& head, OnnxValue x) {
  const Scope scope(name);
  for (std::size_t k = 0; k < head.convs.size(); ++k) {
    x = emit(str(2 * k).c_str(), head.convs[k], x);
    if (head.doubles) x = resize(x, 2 * x.dim(2), 2 * x.dim(3));
  }
  return x;
}

// The i-th of several.
template <class Layer>
OnnxValue emit(const char* name, std::size_t i, const Layer& layer, const OnnxValue& x) {
  return emit(str(name, ".", i).c_str(), layer, x);
}

// The pyramid, of five levels.
inline std::vector<OnnxValue> emit(const Fpn& fpn, const std::vector<OnnxValue>& maps) {
  const Scope scope("neck");
  std::vector<OnnxValue> p;
  for (std::size_t i = 0; i < 4; ++i)
    p.push_back(emit("lateral_convs", i, fpn.lateral_convs[i], maps[i]));
  for (std::size_t i = 3; i > 0; --i)
    p[i - 1] = p[i - 1] + resized_as(p[i], p[i - 1], Resize::nearest);
  for (std::size_t i = 0; i < 4; ++i) p[i] = emit("fpn_convs", i, fpn.fpn_convs[i], p[i]);
  p.push_back(max_pool2d(p[3], 1, 2));
  return p;
}

}  // namespace detail

OnnxValue detail::emit(const UperNet& head, const std::vector<OnnxValue>& maps) {
  const Scope scope("decode_head");
  const UperNetHead& d = head.decode_head;
  std::vector<OnnxValue> pyramid{maps[3]};
  for (std::size_t i = 0; i < d.psp_modules.size(); ++i)
    pyramid.push_back(emit("psp_modules", i, d.psp_modules[i], maps[3]));
  std::vector<OnnxValue> levels;
  for (std::size_t i = 0; i < 3; ++i)
    levels.push_back(emit("lateral_convs", i, d.lateral_convs[i], maps[i]));
  levels.push_back(emit("bottleneck", d.bottleneck, concat(pyramid, 1)));
  for (std::size_t i = 3; i > 0; --i)
    levels[i - 1] = levels[i - 1] + resized_as(levels[i], levels[i - 1]);
  for (std::size_t i = 0; i < 3; ++i) levels[i] = emit("fpn_convs", i, d.fpn_convs[i], levels[i]);
  for (std::size_t i = 1; i < 4; ++i) levels[i] = resized_as(levels[i], levels[0]);
  return emit("conv_seg", d.conv_seg, emit("fpn_bottleneck", d.fpn_bottleneck, concat(levels, 1)));
}

OnnxValue detail::emit(const SemanticFpn& head, const std::vector<OnnxValue>& maps) {
  const std::vector<OnnxValue> levels = emit(head.neck, maps);
  const Scope scope("decode_head");
  const SemanticFpnHead& d = head.decode_head;
  OnnxValue sum = emit("scale_heads", 0, d.scale_heads[0], levels[0]);
  for (std::size_t i = 1; i < 4; ++i)
    sum = sum + resized_as(emit("scale_heads", i, d.scale_heads[i], levels[i]), sum);
  return emit("conv_seg", d.conv_seg, sum);
}

detail::OnnxPyramid detail::emit(const MaskRcnn& model, const OnnxValue& images) {
  std::vector<OnnxValue> maps;
  {
    const Scope scope("backbone");
    maps = emit(model.backbone, images);
  }
  OnnxPyramid p;
  p.levels = emit(model.neck, maps);
  const Scope scope("rpn_head");
  const RpnHead& rpn = model.rpn_head;
  for (const OnnxValue& level : p.levels) {
    const OnnxValue y = relu(emit("rpn_conv", rpn.rpn_conv, level));
    p.scores.push_back(emit("rpn_cls", rpn.rpn_cls, y));
    p.deltas.push_back(emit("rpn_reg", rpn.rpn_reg, y));
  }
  return p;
}

void export_onnx_pyramid(const MaskRcnn& model, OnnxGraph& g, i64 height, i64 width) {
  const detail::OnnxPyramid p = detail::emit(model, detail::onnx_images(g, height, width));
  for (std::size_t i = 0; i < p.levels.size(); ++i) {
    g.output(str("p", i + 2), p.levels[i], str("features of stride ", 4 << i));
    g.output(str("scores", i + 2), p.scores[i], "a logit an anchor: whether there is an object");
    g.output(str("deltas", i + 2), p.deltas[i], "four numbers an anchor: where its object is");
  }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
