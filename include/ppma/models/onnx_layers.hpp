#pragma once
#include "ppma/core/names_begin.hpp"
// The layers of nn/layers.hpp on ONNX values: emit(NAME, layer, x) is layer.forward(x), with the
// layer's tensors under the names that they have in the state dict.

#include "ppma/io/onnx_ops.hpp"
#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

/// (...,in) -> (...,out). The weight is stored turned, (in,out), as `weight_t`.
PPMA_API OnnxValue emit(const char* name, const Linear& l, const OnnxValue& x);
/// (B,I,H,W) -> (B,O,H',W'): channels first.
PPMA_API OnnxValue emit(const char* name, const Conv2d& l, const OnnxValue& x);
/// (B,H,W,C) -> (B,H,W,C)
PPMA_API OnnxValue emit(const char* name, const DepthwiseConv2d& l, const OnnxValue& x);
/// Over the last axis.
PPMA_API OnnxValue emit(const char* name, const LayerNorm& l, const OnnxValue& x);
/// In evaluation, of (B,C,H,W): channels first. A folded one hands x through.
PPMA_API OnnxValue emit(const char* name, const BatchNorm& l, const OnnxValue& x);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_ONNX)

#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// A tensor of a layer, or no value where the layer has none.
inline OnnxValue weight_if(OnnxGraph& g, const char* name, const Tensor& t) {
  return t.defined() ? g.weight(name, t) : OnnxValue();
}

}  // namespace detail

OnnxValue emit(const char* name, const Linear& l, const OnnxValue& x) {
  const Scope scope(name);
  const Tensor turned = l.weight.defined() ? transpose(l.weight.detach(), 0, 1) : l.weight;
  const OnnxValue y = matmul(x, x.graph->weight("weight_t", turned));
  return l.bias.defined() ? y + x.graph->weight("bias", l.bias) : y;
}

OnnxValue emit(const char* name, const Conv2d& l, const OnnxValue& x) {
  const Scope scope(name);
  return conv2d(x, x.graph->weight("weight", l.weight), detail::weight_if(*x.graph, "bias", l.bias),
                l.options.stride, l.options.padding, l.options.groups);
}

OnnxValue emit(const char* name, const DepthwiseConv2d& l, const OnnxValue& x) {
  const Scope scope(name);
  const OnnxValue w = x.graph->weight("conv.weight", l.weight);
  return channels_last(conv2d(channels_first(x), w, x.graph->weight("conv.bias", l.bias), 1,
                              w.dim(-1) / 2, w.dim(0)));
}

OnnxValue emit(const char* name, const LayerNorm& l, const OnnxValue& x) {
  const Scope scope(name);
  return layer_norm(x, x.graph->weight("weight", l.weight), x.graph->weight("bias", l.bias), l.eps);
}

OnnxValue emit(const char* name, const BatchNorm& l, const OnnxValue& x) {
  if (l.folded()) return x;
  const Scope scope(name);
  OnnxGraph& g = *x.graph;
  return batch_norm(x, g.weight("weight", l.weight), g.weight("bias", l.bias),
                    g.weight("running_mean", l.running_mean),
                    g.weight("running_var", l.running_var), l.eps);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
