#pragma once
#include "ppma/core/names_begin.hpp"
// The gated CNN block of Yu and Wang, "MambaOut: Do We Really Need Mamba for Vision?", 2025:
// Mamba's block without its state space model.
//
//   y = ( DWConv7x7(x W1) * GELU(x W2) ) W3
//
// The paper widens to 8/3 C and has no feed-forward layer; here the network has one, and the mixer
// widens to 4/3 C, which gives it the 4 C^2 weights of an attention.

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

/// Of E = 4/3 C channels, rounded down, each with a 7x7 convolution of its own.
struct GatedConv {
  i64 width;   // E
  Linear fc1;  // C -> 2 E: what is convolved, and the gate
  DepthwiseConv2d conv;
  Linear fc2;  // E -> C

  PPMA_API GatedConv(const MixerConfig& c, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  /// The gates' GELU and product.
  MixerCost cost(const Shape& x) const { return {0, x.numel() / x[-1] * width * 6}; }
  template <class V>
  void fields(V& v) {
    v.child("fc1", fc1), v.child("conv", conv), v.child("fc2", fc2);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include "ppma/ops/gate.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

GatedConv::GatedConv(const MixerConfig& c, Rng& rng)
    : width(4 * c.channels / 3),
      fc1(c.channels, 2 * width, rng),
      conv(width, 7, rng),
      fc2(width, c.channels, rng) {}

Tensor GatedConv::forward(const Tensor& x) const {
  const Tensor both = fc1.forward(x);  // (B,H,W,2E)
  const Tensor mixed = conv.forward(narrow(both, -1, 0, width));
  return fc2.forward(gated(both, width, width, mixed, Gate::gelu));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
