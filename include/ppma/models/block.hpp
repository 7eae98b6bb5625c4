#pragma once
#include "ppma/core/names_begin.hpp"
// One block and one stage of the network (algorithm 3.3 and 3.6). Legend: B batch, H W grid, C
// channels, F hidden channels.

#include <optional>
#include <vector>

#include "ppma/mixers/mixer.hpp"
#include "ppma/models/attention.hpp"
#include "ppma/models/config.hpp"
#include "ppma/models/stem.hpp"
#include "ppma/ops/depthwise_gelu.hpp"

namespace ppma::inline PPMA_ABI {

/// fc2(h + dwconv(h)), h = GELU(fc1 x); fc2(h) without dwconv
struct FeedForward {
  Linear fc1, fc2;
  std::optional<DepthwiseConv2d> dwconv;  // 3x3

  FeedForward(i64 channels, i64 hidden, bool depthwise, Rng& rng)
      : fc1(channels, hidden, rng),
        fc2(hidden, channels, rng),
        dwconv(depthwise_if(depthwise, hidden, 3, rng)) {}
  /// x (B,H,W,C) -> (B,H,W,C), + add
  PPMA_API Tensor forward(const Tensor& x, const Tensor& add = Tensor()) const;
  /// forward(norm(x), add)
  PPMA_API Tensor forward(const Tensor& x, const LayerNorm& norm, const Tensor& add) const;
  template <class V>
  void fields(V& v) {
    v.child("fc1", fc1), v.child("fc2", fc2), v.child("dwconv", dwconv);
  }

 private:
  // Whether the gradient of fc1's bias comes with the convolution's, which has a kernel for both.
  bool bias_by_convolution() const {
    return dwconv && fc1.bias.device() == Device::cuda && needs_grad({fc1.bias});
  }
  // fc1, its bias not recorded where that is so.
  Linear to_hidden() const {
    Linear l = fc1;
    if (bias_by_convolution()) l.bias = l.bias.detach();
    return l;
  }
  // What follows, of the result h (B,H,W,F) of to_hidden().
  PPMA_API Tensor from_hidden(const Tensor& h, const Tensor& add) const;
};

/// x += pos(x), if any;  x += DropPath(gamma_1 mixed(LN x));  x += DropPath(gamma_2 ffn(LN x))
/// with mixed our attention or another token mixer.
struct Block {
  Tensor gamma_1, gamma_2;  // (1,1,1,C), where layer scale is on
  LayerNorm retention_layer_norm;
  std::optional<Attention> retention;  // where the stage's mixer is "polyline"
  std::optional<Mixer> mixer;          // else
  LayerNorm final_layer_norm;
  FeedForward ffn;
  std::optional<DepthwiseConv2d> pos;  // 3x3
  double drop_path;                    // probability that a sample skips a branch in training

  PPMA_API Block(const StageConfig& c, double drop, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(Tensor x, const Positions& at, Context& ctx) const;
  /// Its attention. Error: the block has another mixer.
  PPMA_API const Attention& attention() const;
  /// x + pos(x), what the attention's norm gets; x (B,H,W,C).
  Tensor positioned(const Tensor& x) const { return pos ? pos->forward(x, x) : x; }
  /// What its attention or mixer makes of such tokens, its norm included; (B,H,W,C).
  PPMA_API Tensor mixed(const Tensor& x, const Positions& at, const Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.parameter("gamma_1", gamma_1), v.parameter("gamma_2", gamma_2);
    v.child("retention_layer_norm", retention_layer_norm), v.child("retention", retention);
    v.child("mixer", mixer);
    v.child("final_layer_norm", final_layer_norm), v.child("ffn", ffn), v.child("pos", pos);
  }

 private:
  PPMA_API Tensor feed_forward(const Tensor& x, const Context& ctx) const;
  bool plain_branches(const Context& ctx) const {
    return !ctx.training && !ctx.observe && !gamma_1.defined() && !gamma_2.defined();
  }
};

/// Blocks at one resolution; the merging that follows is part of the published stage.
struct Stage {
  Positions Relpos;
  std::vector<Block> blocks;
  std::optional<Merge> downsample;

  /// first_block: number of the stage's first block in the whole network, for the drop path rates.
  PPMA_API Stage(const PpmaConfig& c, std::size_t s, i64 first_block, Rng& rng);
  /// The map before merging.
  PPMA_API Tensor forward(Tensor x, Context& ctx) const;
  /// A block whose intermediate results are computed again in backward; the closure owns handles of
  /// its tensors.
  PPMA_API Tensor again(const Block& b, const Tensor& x, Context& ctx) const;
  /// (B,H,W,C) -> the next stage's tokens; x itself after the last stage.
  PPMA_API Tensor merge(const Tensor& x, const Context& ctx) const;
  /// What the blocks of stage s share; `block` is one of theirs.
  PPMA_API static StageConfig stage_config(const PpmaConfig& c, std::size_t s, i64 block = 0);
  template <class V>
  void fields(V& v) {
    v.child("Relpos", Relpos), v.children("blocks", blocks), v.child("downsample", downsample);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include <algorithm>
#include <string>

#include "ppma/mixers/mixers.hpp"
#include "ppma/nn/checkpoint.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/residual.hpp"

namespace ppma::inline PPMA_ABI {

Tensor FeedForward::forward(const Tensor& x, const Tensor& add) const {
  return from_hidden(to_hidden().forward(x), add);
}

Tensor FeedForward::forward(const Tensor& x, const LayerNorm& norm, const Tensor& add) const {
  if (dwconv)
    if (const Tensor z = norm_linear_gelu_conv(x, norm, fc1, *dwconv); z.defined())
      return fc2.forward(z, add);
  if (const Tensor h = norm_linear_gelu(x, norm, fc1); h.defined())
    return fc2.forward(dwconv ? dwconv->forward(h, h) : h, add);
  return from_hidden(norm_linear(x, norm, to_hidden()), add);
}

Tensor FeedForward::from_hidden(const Tensor& h, const Tensor& add) const {
  if (!dwconv) return fc2.forward(gelu(h), add);
  const Tensor shift = bias_by_convolution() ? fc1.bias : Tensor();
  return fc2.forward(depthwise_gelu(h, dwconv->weight, dwconv->bias, shift), add);
}

Block::Block(const StageConfig& c, double drop, Rng& rng)
    : retention_layer_norm(c.channels, 1e-6),
      retention(c.mixer == "polyline" ? std::optional<Attention>(std::in_place, c, rng)
                                      : std::nullopt),
      mixer(c.mixer == "polyline" ? std::nullopt
                                  : std::optional<Mixer>(mixer_of(c.mixer).make(
                                        {c.channels, c.heads, c.stage, c.block}, rng))),
      final_layer_norm(c.channels, 1e-6),
      ffn(c.channels, c.hidden, c.depthwise, rng),
      pos(depthwise_if(c.depthwise, c.channels, 3, rng)),
      drop_path(drop) {
  if (!c.layer_scale) return;
  gamma_1 = parameter(Tensor::full({1, 1, 1, c.channels}, c.layer_init_value));
  gamma_2 = parameter(Tensor::full({1, 1, 1, c.channels}, c.layer_init_value));
}

Tensor Block::forward(Tensor x, const Positions& at, Context& ctx) const {
  x = positioned(x);
  if (plain_branches(ctx)) {  // the last product of a branch adds x itself
    x = retention ? retention->forward(x, retention_layer_norm, at, x) : x + mixed(x, at, ctx);
    return ffn.forward(x, final_layer_norm, x);
  }
  x = residual(x, mixed(x, at, ctx), gamma_1, ctx.drop_path(x, drop_path));
  return residual(x, feed_forward(x, ctx), gamma_2, ctx.drop_path(x, drop_path));
}

Tensor Block::mixed(const Tensor& x, const Positions& at, const Context& ctx) const {
  if (mixer) {
    const Scope scope("mixer");
    return ctx.seen(mixer->forward(retention_layer_norm.forward(x)));
  }
  const Scope scope("retention");
  return ctx.seen(retention->forward(x, retention_layer_norm, at));
}

const Attention& Block::attention() const {
  check(retention.has_value(),
        "block: it has another token mixer, not a polyline attention (mixers of the "
        "configuration); decays and masks are an attention's");
  return *retention;
}

Tensor Block::feed_forward(const Tensor& x, const Context& ctx) const {
  const Scope scope("ffn");
  return ctx.seen(ffn.forward(x, final_layer_norm, Tensor()));
}

Stage::Stage(const PpmaConfig& c, std::size_t s, i64 first_block, Rng& rng)
    : Relpos(stage_config(c, s), c.heads_ranges[s]) {
  const double last = static_cast<double>(std::max<i64>(1, c.blocks() - 1));
  for (i64 n = 0; n < c.depths[s]; ++n)
    blocks.emplace_back(stage_config(c, s, n),
                        c.drop_path_rate * static_cast<double>(first_block + n) / last, rng);
  if (s < 3) downsample.emplace(c.embed_dims[s], c.embed_dims[s + 1], rng);
}

Tensor Stage::forward(Tensor x, Context& ctx) const {
  for (std::size_t n = 0; n < blocks.size(); ++n) {
    const std::string name = str("blocks.", n);
    const Scope scope(name);
    x = ctx.seen(ctx.checkpoint_blocks ? again(blocks[n], x, ctx)
                                       : blocks[n].forward(std::move(x), Relpos, ctx));
  }
  return x;
}

Tensor Stage::again(const Block& b, const Tensor& x, Context& ctx) const {
  return checkpoint(
      [block = b, at = Relpos](const Tensor& in, Context& c) { return block.forward(in, at, c); },
      x, ctx);
}

Tensor Stage::merge(const Tensor& x, const Context& ctx) const {
  if (!downsample) return x;
  const Scope scope("downsample");
  return ctx.seen(downsample->forward(x, ctx));
}

StageConfig Stage::stage_config(const PpmaConfig& c, std::size_t s, i64 block) {
  return {c.embed_dims[s],
          c.num_heads[s],
          static_cast<i64>(c.mlp_ratios[s] * static_cast<double>(c.embed_dims[s])),
          c.chunkwise_recurrents[s],
          c.layerscales[s],
          c.layer_init_values,
          c.mask,
          c.fused,
          c.lepe,
          c.rotary,
          c.depthwise,
          c.linear[s],
          c.mixers[s],
          static_cast<i64>(s),
          block};
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
