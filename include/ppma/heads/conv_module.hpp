#pragma once
#include "ppma/core/names_begin.hpp"
// What the segmentation heads are made of: convolution without a bias, batch norm, ReLU, under its
// published names; dropout of channels.

#include <vector>

#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

/// (B,H,W,I) -> (B,H,W,O) with an odd kernel. Initialised Kaiming-normal by fan-out (recipes 2.1).
/// A single value a channel (one image, pooled to one cell) has no variance: it is normalised by
/// the running statistics, also in training.
struct ConvModule {
  Tensor weight;  // (O,I,k,k)
  BatchNorm bn;

  PPMA_API ConvModule(i64 in, i64 out, i64 kernel, Rng& rng);
  /// relu(norm(conv x)), (B,H,W,I) -> (B,H,W,O).
  PPMA_API Tensor forward(const Tensor& x, Context& ctx) const;
  /// The same of maps (B,h,w,I) that are resized to the first's grid and joined; a 3x3 kernel.
  PPMA_API Tensor forward_resized(const std::vector<Tensor>& maps, Context& ctx) const;
  template <class V>
  void fields(V& v) {
    v.parameter("conv.weight", weight), v.child("bn", bn);
  }

 private:
  Tensor normalised(const Tensor& y, Context& ctx) const {
    const Context evaluation;
    return bn.forward_relu(y, y.numel() == y.dim(3) ? evaluation : ctx);
  }
};

namespace detail {

/// Dropout of whole channels of a sample: (B,H,W,C) times a (B,1,1,C) of 0 and 1 / (1 - p).
PPMA_API Tensor channel_dropout(const Tensor& x, double p, Context& ctx);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <cmath>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/conv_resized.hpp"
#include "ppma/ops/dropout.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

ConvModule::ConvModule(i64 in, i64 out, i64 kernel, Rng& rng)
    : weight(
          parameter(detail::drawing_initial_values()
                        ? Tensor::randn({out, in, kernel, kernel}, rng,
                                        std::sqrt(2 / static_cast<double>(out * kernel * kernel)))
                        : Tensor::zeros({out, in, kernel, kernel}))),
      bn(out) {}

Tensor ConvModule::forward(const Tensor& x, Context& ctx) const {
  return normalised(conv2d(x, weight, Tensor(), {1, weight.dim(2) / 2, 1}), ctx);
}

Tensor ConvModule::forward_resized(const std::vector<Tensor>& maps, Context& ctx) const {
  return normalised(conv2d_of_resized(maps, weight), ctx);
}

Tensor detail::channel_dropout(const Tensor& x, double p, Context& ctx) {
  if (!ctx.training || p == 0) return x;
  const Shape shape{x.dim(0), 1, 1, x.dim(3)};
  const Tensor keep =
      ctx.drawn(x.device(), [=](Rng& rng) { return dropout(Tensor::ones(shape), p, rng); });
  return mul(x, cast(keep, x.dtype()));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
