#pragma once
#include "ppma/core/names_begin.hpp"
// What networks of four stages have in common.
// Legend: B batch, H W grid, C channels.

#include <string>
#include <utility>
#include <vector>

#include "ppma/networks/network.hpp"
#include "ppma/nn/checkpoint.hpp"

namespace ppma::inline PPMA_ABI {

/// A depthwise convolution whose tensors are published as `weight` and `bias`.
struct Depthwise : DepthwiseConv2d {
  using DepthwiseConv2d::DepthwiseConv2d;
  template <class V>
  void fields(V& v) {
    v.parameter("weight", weight), v.parameter("bias", bias);
  }
};

/// A convolution k x k with padding k / 2, and a layer norm over the channels of each place.
struct NormedConv {
  Conv2d conv;
  LayerNorm norm;

  NormedConv(i64 in, i64 out, i64 kernel, i64 stride, double eps, Rng& rng)
      : conv(in, out, kernel, ConvOptions{stride, kernel / 2, 1}, rng), norm(out, eps) {}
  /// (B,H,W,in) -> (B,H',W',out)
  Tensor forward(const Tensor& x) const { return norm.forward(conv.forward(x)); }
  template <class V>
  void fields(V& v) {
    v.child("conv", conv), v.child("norm", norm);
  }
};

namespace detail {

// Weights drawn as those of linear layers, biases 0.
template <class Conv>
void draw_as_linear(Conv& conv, Rng& rng) {
  conv.weight = parameter(truncated_normal(conv.weight.shape(), rng));
  if (conv.bias.defined()) conv.bias = parameter(Tensor::zeros(conv.bias.shape()));
}

// Error: the configuration has heads, of which the network knows nothing.
PPMA_API void check_no_heads(const NetworkConfig& c);

// Of block n of all blocks.
PPMA_API double drop_path_of(const NetworkConfig& c, i64 n);

// x through the blocks, each with forward(x, ctx); what watchers hear of is called
// name + ".0", ... and with ctx.checkpoint_blocks only its input is kept.
template <class Block>
Tensor through_blocks(const std::vector<Block>& blocks, const std::string& name, Tensor x,
                      Context& ctx) {
  for (std::size_t n = 0; n < blocks.size(); ++n) {
    const std::string path = str(name, ".", n);
    const Scope scope(path);
    x = ctx.seen(ctx.checkpoint_blocks
                     ? checkpoint([block = blocks[n]](const Tensor& in,
                                                      Context& c) { return block.forward(in, c); },
                                  x, ctx)
                     : blocks[n].forward(x, ctx));
  }
  return x;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_NETWORKS)

#include <algorithm>

namespace ppma::inline PPMA_ABI {

void detail::check_no_heads(const NetworkConfig& c) {
  check(c.heads.empty(), c.network, ": has no attention; leave heads out of its configuration");
}

double detail::drop_path_of(const NetworkConfig& c, i64 n) {
  i64 blocks = 0;
  for (const i64 depth : c.depths) blocks += depth;
  return c.drop_path_rate * static_cast<double>(n) /
         static_cast<double>(std::max<i64>(1, blocks - 1));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
