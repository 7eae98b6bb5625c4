#pragma once
#include "ppma/core/names_begin.hpp"
// A network made ready for inference: batch norms folded into the convolutions before them, layer
// scales into the projections before them, and dense weights in the dtype of the activations; on
// the CPU in the order that kernels read them in.
//
//   norm(conv(x)) = (w * x + b - mean) f + shift = (f w) * x + ((b - mean) f + shift),
//         f = scale / sqrt(var + eps)

#include "ppma/models/ppma.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

/// Folds `norm`, as evaluation applies it, into the weight and bias of the layer before it, whose
/// output channels are the first axis of its weight. The norm has no tensors afterwards and hands
/// its input through.
template <class L>
void fold_batch_norm(L& layer, BatchNorm& norm) {
  if (norm.folded()) return;
  check(layer.bias.defined(), "fold_batch_norm: the layer has no bias to take the norm's shift");
  const NoGrad off;
  const Tensor factor = div(norm.weight, sqrt(add_scalar(norm.running_var, norm.eps)));  // (O)
  Shape along = layer.weight.shape();
  for (int a = 1; a < along.rank(); ++a) along.set(a, 1);
  layer.bias = add(mul(sub(layer.bias, norm.running_mean), factor), norm.bias);
  layer.weight = mul(layer.weight, reshape(factor, along));
  norm.weight = norm.bias = norm.running_mean = norm.running_var = norm.num_batches_tracked =
      Tensor();
}

/// The same for every norm of a backbone or a classifier, which are for inference from then on:
/// their state dict lacks the norms, so that it loads into no other network by mistake, and a
/// published one does not load into them.
PPMA_API void fold_batch_norms(Backbone& backbone);

PPMA_API void fold_batch_norms(Ppma& model);
PPMA_API void fold_batch_norms(DenseBackbone& model);

/// Layer scales into the last projections of the blocks' branches: gamma (W x + b) = (gamma W) x +
/// gamma b. The blocks have none afterwards, but for those of other mixers than ours.
PPMA_API void fold_layer_scales(Backbone& backbone);

/// All of it: a placed network, for inference with activations of `dtype`. It gives what it gave
/// before, within rounding, sooner. Its weights are there in the kernels' order alone: load,
/// convert or move it before.
template <class M>
void prepare_for_inference(M& model, DType dtype) {
  fold_batch_norms(model);
  fold_layer_scales(model.backbone);
  narrow_weights(model, dtype);
  pack_weights(model);
}

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

namespace ppma::inline PPMA_ABI {

void fold_batch_norms(Backbone& backbone) {
  for (std::size_t i = 0; i < backbone.patch_embed.convs.size(); ++i)
    fold_batch_norm(backbone.patch_embed.convs[i], backbone.patch_embed.norms[i]);
  for (Stage& s : backbone.layers)
    if (s.downsample) fold_batch_norm(s.downsample->reduction, s.downsample->norm);
}

void fold_batch_norms(Ppma& model) {
  fold_batch_norms(model.backbone);
  fold_batch_norm(model.proj, model.norm);
}

void fold_batch_norms(DenseBackbone& model) { fold_batch_norms(model.backbone); }

void fold_layer_scales(Backbone& backbone) {
  const NoGrad off;
  const auto fold = [](Linear& layer, Tensor& gamma) {
    if (!gamma.defined()) return;
    const Tensor factor = reshape(gamma, {gamma.numel()});
    layer.weight = mul(layer.weight, reshape(factor, {gamma.numel(), 1}));
    layer.bias = mul(layer.bias, factor);
    gamma = Tensor();
  };
  for (Stage& s : backbone.layers)
    for (Block& b : s.blocks) {
      if (b.retention) fold(b.retention->out_proj, b.gamma_1);  // other mixers keep their scale
      fold(b.ffn.fc2, b.gamma_2);
    }
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
