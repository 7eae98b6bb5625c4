#pragma once
#include "ppma/core/names_begin.hpp"
// Where the grid of tokens gets coarser: the stem, and the merging between stages (algorithm 3.2
// and 3.7).
// Legend: B batch, H W grid, C channels.

#include <vector>

#include "ppma/nn/image_by_image.hpp"
#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

/// Four 3x3 convolutions, the first and third with stride 2: (B,Hin,Win,3) -> (B,H,W,C), stride 4.
struct Stem {
  std::vector<Conv2d> convs;
  std::vector<BatchNorm> norms;

  PPMA_API Stem(i64 channels, Rng& rng);
  /// (B,Hin,Win,3) -> (B,H,W,C), stride 4.
  Tensor forward(const Tensor& x, const Context& ctx) const { return layers(x, 0, ctx); }
  /// The same of images (B,3,Hin,Win).
  PPMA_API Tensor of_images(const Tensor& images, const Context& ctx) const;
  template <class V>
  void fields(V& v) {  // indices of the published Sequential: convolution, norm, GELU
    for (std::size_t i = 0; i < convs.size(); ++i)
      v.child(str("proj.", 3 * i).c_str(), convs[i]),
          v.child(str("proj.", 3 * i + 1).c_str(), norms[i]);
  }

 private:
  PPMA_API Tensor layers(Tensor x, std::size_t first, const Context& ctx) const;
  // What follows convolution i, of its result y.
  Tensor normed(std::size_t i, const Tensor& y, const Context& ctx) const {
    return i + 1 < convs.size() ? norms[i].forward_gelu(y, ctx) : norms[i].forward(y, ctx);
  }
  // Whether the norm is in the convolution, and GELU follows.
  bool fused(std::size_t i, const Context& ctx) const {
    return norms[i].folded() && !ctx.training && i + 1 < convs.size();
  }
};

/// Between stages: convolution 3x3 with stride 2, then batch norm. (B,H,W,in) ->
/// (B,ceil(H/2),ceil(W/2),out)
struct Merge {
  Conv2d reduction;
  BatchNorm norm;

  Merge(i64 in, i64 out, Rng& rng) : reduction(in, out, 3, ConvOptions{2, 1, 1}, rng), norm(out) {}
  /// (B,H,W,in) -> (B,ceil(H/2),ceil(W/2),out)
  Tensor forward(const Tensor& x, const Context& ctx) const {
    return norm.forward(reduction.forward(x), ctx);
  }
  template <class V>
  void fields(V& v) {
    v.child("reduction", reduction), v.child("norm", norm);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MODELS)

#include "ppma/ops/activation.hpp"

namespace ppma::inline PPMA_ABI {

Stem::Stem(i64 channels, Rng& rng) {
  i64 in = 3;
  for (int i = 0; i < 4; ++i) {
    const i64 out = i < 2 ? channels / 2 : channels;
    convs.emplace_back(in, out, 3, ConvOptions{i % 2 == 0 ? 2 : 1, 1, 1}, rng);
    norms.emplace_back(out);
    in = out;
  }
}

Tensor Stem::of_images(const Tensor& images, const Context& ctx) const {
  const Conv2d& c = convs[0];
  if (c.packed.defined()) return layers(channels_last("stem", images), 0, ctx);
  check_images("stem", images);
  const Tensor x = fused(0, ctx)
                       ? conv2d_gelu_of_images(images, c.weight, c.bias, c.options)
                       : normed(0, conv2d_of_images(images, c.weight, c.bias, c.options), ctx);
  return layers(x, 1, ctx);
}

Tensor Stem::layers(Tensor x, std::size_t first, const Context& ctx) const {
  for (std::size_t i = first; i < convs.size(); ++i) {
    if (fused(i, ctx)) {
      x = convs[i].forward_gelu(x);
      continue;
    }
    x = normed(i, convs[i].forward(x), ctx);
  }
  return x;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
