#pragma once
#include "ppma/core/names_begin.hpp"
// The networks as ONNX graphs (io/onnx.hpp), written as their forward passes are. Batch norms and
// layer scales are folded into the layers before them (models/fold.hpp). Legend: B batch, H W grid,
// C channels.
//
//   OnnxGraph g("ppma_tiny");
//   export_onnx(model, g, 224, 224);
//   save_onnx("ppma_tiny.onnx", g);

#include <vector>

#include "ppma/io/onnx_ops.hpp"
#include "ppma/models/classifier.hpp"

namespace ppma::inline PPMA_ABI {

/// A classifier: input `images` (batch,3,height,width), normalised; output `logits`
/// (batch,classes). Errors: images below 32 x 32, a network that was made ready for inference.
PPMA_API void export_onnx(const Ppma& model, OnnxGraph& g, i64 height, i64 width);

/// The same of a vision transformer, at the size of its positions.
PPMA_API void export_onnx(const Vit& model, OnnxGraph& g);

/// The same of either. Error: another size than a vision transformer's positions have.
PPMA_API void export_onnx(const Classifier& model, OnnxGraph& g, i64 height, i64 width);

namespace detail {

/// The input of every network, channels first.
PPMA_API OnnxValue onnx_images(OnnxGraph& g, i64 height, i64 width, i64 batch = OnnxGraph::batch);

/// DenseBackbone::forward of images (B,3,H,W): four maps, (B,C,H,W) here, as heads on ONNX values
/// take them.
PPMA_API std::vector<OnnxValue> emit(const DenseBackbone& model, const OnnxValue& images);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_ONNX)

#include <cmath>
#include <string>
#include <variant>

#include "ppma/models/fold.hpp"
#include "ppma/models/onnx_attention.hpp"
#include "ppma/models/onnx_layers.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/polyline/decay.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// A convolution and its batch norm, (B,I,H,W) -> (B,O,H',W').
inline OnnxValue emit(const Stem& stem, OnnxValue x) {
  const Scope scope("patch_embed");
  for (std::size_t i = 0; i < stem.convs.size(); ++i) {
    x = emit(str("proj.", 3 * i).c_str(), stem.convs[i], x);
    if (i + 1 < stem.convs.size()) x = gelu(x);
  }
  return channels_last(x);
}

// (B,H,W,C) -> (B,H,W,C)
inline OnnxValue emit(const FeedForward& ffn, const OnnxValue& x) {
  const Scope scope("ffn");
  const OnnxValue h = gelu(emit("fc1", ffn.fc1, x));
  return emit("fc2", ffn.fc2, ffn.dwconv ? h + emit("dwconv", *ffn.dwconv, h) : h);
}

inline OnnxValue emit(const Block& b, const OnnxPositions& at, OnnxValue x) {
  if (b.pos) x = x + emit("pos", *b.pos, x);
  const OnnxValue tokens = emit("retention_layer_norm", b.retention_layer_norm, x);
  x = x + emit("retention", b.attention(), at, tokens);
  return x + emit(b.ffn, emit("final_layer_norm", b.final_layer_norm, x));
}

// The four maps before merging, (B,H,W,C) each. Norms and layer scales are folded.
inline std::vector<OnnxValue> emit(const Backbone& backbone, const OnnxValue& images) {
  OnnxValue x = emit(backbone.patch_embed, images);
  std::vector<OnnxValue> maps;
  for (std::size_t s = 0; s < backbone.layers.size(); ++s) {
    const std::string stage_name = str("layers.", s);
    const Scope scope(stage_name);
    const Stage& stage = backbone.layers[s];
    if (!stage.blocks.empty()) {
      check(stage.blocks[0].retention.has_value(),
            "onnx: the stage has another token mixer than polyline attention, which cannot be "
            "written; choose a network without (mixers of its configuration)");
      const OnnxPositions at(*x.graph, stage.Relpos, stage.blocks[0].attention().config, x.dim(1),
                             x.dim(2));
      for (std::size_t n = 0; n < stage.blocks.size(); ++n) {
        const std::string block_name = str("blocks.", n);
        const Scope in_block(block_name);
        x = emit(stage.blocks[n], at, x);
      }
    }
    maps.push_back(x);
    if (stage.downsample)
      x = channels_last(
          emit("downsample.reduction", stage.downsample->reduction, channels_first(x)));
  }
  return maps;
}

inline void check_onnx_size(i64 height, i64 width) {
  check(height >= 32 && width >= 32, "onnx: images must be at least 32 x 32, got ", height, " x ",
        width);
}

}  // namespace detail

OnnxValue detail::onnx_images(OnnxGraph& g, i64 height, i64 width, i64 batch) {
  return g.input("images", {batch, 3, height, width},
                 "RGB images, values from 0 to 1, of each channel its mean subtracted and then "
                 "divided by its deviation");
}

std::vector<OnnxValue> detail::emit(const DenseBackbone& model, const OnnxValue& images) {
  check_onnx_size(images.dim(2), images.dim(3));
  DenseBackbone folded = model;  // the tensors are shared until they are replaced
  fold_batch_norms(folded);
  fold_layer_scales(folded.backbone);
  std::vector<OnnxValue> maps = emit(folded.backbone, images);
  for (std::size_t s = 0; s < maps.size(); ++s)
    maps[s] = channels_first(emit(str("outnorm", s).c_str(), folded.outnorms[s], maps[s]));
  return maps;
}

void export_onnx(const Ppma& model, OnnxGraph& g, i64 height, i64 width) {
  detail::check_onnx_size(height, width);
  Ppma folded = model;  // the tensors are shared until they are replaced
  fold_batch_norms(folded);
  fold_layer_scales(folded.backbone);
  const OnnxValue x =  // (B,H,W,C)
      detail::emit(folded.backbone, detail::onnx_images(g, height, width)).back();
  const OnnxValue y = silu(emit("proj", folded.proj, x));  // (B,H,W,projection)
  g.output("logits", emit("head", folded.head, mean(y, {1, 2})),
           "a number a class, not normalised");
}

// ---- the vision transformer ----

namespace detail {

// x (B,T,C), the class token first.
inline OnnxValue emit(const VitAttention& a, const OnnxValue& x) {
  const Scope scope("attn");
  const VitConfig& c = a.config;
  const i64 b = x.dim(0), t = x.dim(1), heads = c.heads, d = c.width / heads, side = c.grid();
  const OnnxValue all =  // (3,B,G,T,d)
      permute(reshape(emit("qkv", a.qkv, x), {b, t, 3, heads, d}), {2, 0, 3, 1, 4});
  const OnnxValue q = scale(select(all, 0, 0), 1 / std::sqrt(static_cast<double>(d)));
  const OnnxValue scores = matmul(q, transpose(select(all, 0, 1)));
  OnnxDecays decays;
  if (a.path_embed)
    decays = emit(*a.path_embed, reshape(narrow(x, 1, 1, t - 1), {b, side, side, c.width}));
  else if (c.mask == MaskKind::rmt)
    decays = constant_decays(*x.graph, rmt_decay_log(heads, 2, c.rmt_range), side, side);
  std::vector<OnnxValue> masks = ablation_log_masks(c.mask, decays);
  for (OnnxValue& m : masks) m = pad_front(m, {0, 0, 1, 1});  // the class token's
  const OnnxValue y = matmul(masked_probabilities(scores, masks), select(all, 0, 2));
  return emit("proj", a.proj, reshape(permute(y, {0, 2, 1, 3}), {b, t, c.width}));
}

inline OnnxValue emit(const GeluMlp& mlp, const OnnxValue& x) {
  const Scope scope("mlp");
  return emit("fc2", mlp.fc2, gelu(emit("fc1", mlp.fc1, x)));
}

}  // namespace detail

void export_onnx(const Vit& model, OnnxGraph& g) {
  const VitConfig& c = model.config;
  const OnnxValue images = detail::onnx_images(g, c.image_size, c.image_size);
  const OnnxValue map = channels_last(emit("patch_embed.proj", model.patch_embed.proj, images));
  const OnnxValue patches = reshape(map, {images.dim(0), c.grid() * c.grid(), c.width});
  // The class token is a token of zeros in front, to which the first position adds it.
  const i64 tokens = c.grid() * c.grid() + 1;
  const Tensor first = model.cls_token.detach(), positions = model.pos_embed.detach(),
               added = concat(
                   {first + narrow(positions, 1, 0, 1), narrow(positions, 1, 1, tokens - 1)}, 1);
  OnnxValue x = pad_front(patches, {0, 1, 0}) + g.weight("cls_token_and_pos_embed", added);
  for (std::size_t n = 0; n < model.blocks.size(); ++n) {
    const std::string name = str("blocks.", n);
    const Scope scope(name);
    const VitBlock& b = model.blocks[n];
    x = x + detail::emit(b.attn, emit("norm1", b.norm1, x));
    x = x + detail::emit(b.mlp, emit("norm2", b.norm2, x));
  }
  g.output("logits", emit("head", model.head, emit("norm", model.norm, select(x, 1, 0))),
           "a number a class, not normalised");
}

void export_onnx(const Classifier& model, OnnxGraph& g, i64 height, i64 width) {
  if (const auto* other = std::get_if<Network>(&model.network))
    fail("onnx: ", other->config.name, " is a network of another paper, ", other->config.network,
         ", which is not written as ONNX");
  const auto* vit = std::get_if<Vit>(&model.network);
  if (vit == nullptr) return export_onnx(std::get<Ppma>(model.network), g, height, width);
  const i64 side = vit->config.image_size;
  check(height == side && width == side, "onnx: ", vit->config.name, " takes images of ", side,
        " x ", side, " pixels, for which its positions are learnt, not of ", height, " x ", width);
  export_onnx(*vit, g);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
