#pragma once
#include "ppma/core/names_begin.hpp"
// The 2-D selective scan of Zhang et al., "2DMamba: Efficient State Space Model for Image
// Representation with Applications on Giga-Pixel Whole Slide Image Classification", 2025:
// states go along the rows, then down the columns.
//
//   g_ij = e^(D_ij A) g_i,j-1 + D_ij B_ij u_ij      along row i
//   h_ij = e^(D_ij A) h_i-1,j + g_ij                down column j
//   y_ij = C_ij . h_ij + D u_ij
//
// So a token sees all those above and to the left of it. Around it Mamba's block, with a 3x3
// depthwise convolution in place of the causal one, and 16 states a channel:
//   u, z = x W_in,  u = SiLU(DWConv u),  out = ( y * SiLU(z) ) W_out,  E = 2 C channels

#include "ppma/mixers/selective.hpp"

namespace ppma::inline PPMA_ABI {

struct GridScan {
  static constexpr i64 states = 16;

  i64 width;       // E
  Linear in_proj;  // C -> 2 E
  DepthwiseConv2d conv;
  Selection scan;
  Linear out_proj;

  PPMA_API GridScan(const MixerConfig& c, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  /// The selection, its two scans, activations.
  PPMA_API MixerCost cost(const Shape& x) const;
  template <class V>
  void fields(V& v) {
    v.child("in_proj", in_proj), v.child("conv", conv), v.child("scan", scan),
        v.child("out_proj", out_proj);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

GridScan::GridScan(const MixerConfig& c, Rng& rng)
    : width(2 * c.channels),
      in_proj(c.channels, 2 * width, rng),
      conv(width, 3, rng),
      scan(width, (c.channels + 15) / 16, states, rng),
      out_proj(width, c.channels, rng) {}

Tensor GridScan::forward(const Tensor& x) const {
  const Tensor both = in_proj.forward(x);  // (B,H,W,2E)
  const Tensor u = silu(conv.forward(narrow(both, -1, 0, width)));
  return out_proj.forward(scan.scan(u, TokenOrder::grid) * silu(narrow(both, -1, width, width)));
}

MixerCost GridScan::cost(const Shape& x) const {
  const i64 tokens = x[0] * x[1] * x[2];
  MixerCost c = scan.cost(tokens, 2);
  c.other += tokens * width * (4 + 4 + 1);  // SiLU twice, the gate
  return c;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
