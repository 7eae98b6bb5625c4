#pragma once
#include "ppma/core/names_begin.hpp"
// Xiao et al., "Spatial-Mamba: Effective Visual State Space Models via Structure-aware State
// Fusion", 2025: one scan row by row, then each token's state is a weighed sum of those
// around it, then the observation.
//
//   s_t = e^(D_t A) s_t-1 + D_t B_t u_t
//   h_t = sum over k of alpha_k s_k(t)      3x3 neighbours at distances 1, 3 and 5
//   y_t = C_t . h_t + D u_t
//
// One state a channel; alpha of each channel its own, beginning as a mean; outside of the grid
// states are 0. Around it VMamba's block with the multiplicative branch:
//   u, z = x W_in,  u = SiLU(DWConv3x3 u),  out = ( LN(y) * SiLU(z) ) W_out,  E = 2 C channels

#include "ppma/mixers/selective.hpp"

namespace ppma::inline PPMA_ABI {

struct SpatialScan {
  static constexpr i64 taps = 27;

  i64 width;       // E
  Linear in_proj;  // C -> 2 E
  DepthwiseConv2d conv;
  Selection scan;
  Tensor fusion;  // (E,27): alpha of the three distances, rows and columns from -1 to 1
  LayerNorm out_norm;
  Linear out_proj;

  PPMA_API SpatialScan(const MixerConfig& c, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  /// The selection, its scan, the fusion, activations.
  PPMA_API MixerCost cost(const Shape& x) const;
  template <class V>
  void fields(V& v) {
    v.child("in_proj", in_proj), v.child("conv", conv), v.child("scan", scan);
    v.parameter("fusion", fusion), v.child("out_norm", out_norm), v.child("out_proj", out_proj);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/gate.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/rings.hpp"

namespace ppma::inline PPMA_ABI {

SpatialScan::SpatialScan(const MixerConfig& c, Rng& rng)
    : width(2 * c.channels),
      in_proj(c.channels, 2 * width, rng),
      conv(width, 3, rng),
      scan(width, (c.channels + 15) / 16, 1, rng),
      fusion(parameter(Tensor::full({width, taps}, 1.0 / taps))),
      out_norm(width),
      out_proj(width, c.channels, rng) {}

Tensor SpatialScan::forward(const Tensor& x) const {
  const Tensor both = in_proj.forward(x);  // (B,H,W,2E)
  const Tensor u = silu(conv.forward(narrow(both, -1, 0, width)));
  const Selected s = scan.select(u);
  const Tensor states =
      selective_scan(u, s.dt, scan.A(), s.B, Tensor::ones(s.C.shape(), x.dtype(), x.device()),
                     TokenOrder::rows, Tensor(), Tensor(), StepSizes::softplus);
  const Tensor fused = rings_conv2d(states, transpose(fusion, 0, 1), Beyond::zeros);
  const Tensor y = fused * s.C + u * detail::beside(u, scan.D);
  return out_proj.forward(gated(both, width, width, out_norm.forward(y), Gate::silu));
}

MixerCost SpatialScan::cost(const Shape& x) const {
  const i64 tokens = x[0] * x[1] * x[2];
  MixerCost c = scan.cost(tokens, 1);
  c.macs += tokens * width * taps;
  c.other += tokens * width * (4 + 4 + 1);  // SiLU twice, the gate
  return c;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
