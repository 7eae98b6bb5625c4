#pragma once
#include "ppma/core/names_begin.hpp"
// SS2D: Liu et al., "VMamba: Visual State Space Model", 2024: cross scan, a selective
// scan in each of four directions, cross merge.
//
//   u = SiLU(DWConv3x3(x W_in)),  E = 2 C channels
//   y = sum over directions of scan(u in that order)     row by row, column by column, both back
//   out = LN(y) W_out
//
// The block without the multiplicative branch and with one state a channel, as the paper's final
// networks have it (its section on acceleration); the feed-forward layer is the network's.

#include <vector>

#include "ppma/mixers/selective.hpp"

namespace ppma::inline PPMA_ABI {

struct CrossScan {
  static constexpr i64 ways = 4, states = 1;

  i64 width;  // E
  Linear in_proj;
  DepthwiseConv2d conv;
  std::vector<Selection> scans;  // of each direction
  LayerNorm out_norm;
  Linear out_proj;

  PPMA_API CrossScan(const MixerConfig& c, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  /// The four scans, SiLU and the sum of the four.
  PPMA_API MixerCost cost(const Shape& x) const;
  template <class V>
  void fields(V& v) {
    v.child("in_proj", in_proj), v.child("conv", conv), v.children("scans", scans);
    v.child("out_norm", out_norm), v.child("out_proj", out_proj);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

CrossScan::CrossScan(const MixerConfig& c, Rng& rng)
    : width(2 * c.channels),
      in_proj(c.channels, width, rng),
      conv(width, 3, rng),
      out_norm(width),
      out_proj(width, c.channels, rng) {
  for (i64 way = 0; way < ways; ++way)
    scans.emplace_back(width, (c.channels + 15) / 16, states, rng);
}

Tensor CrossScan::forward(const Tensor& x) const {
  const Tensor u = silu(conv.forward(in_proj.forward(x)));  // (B,H,W,E)
  const TokenOrder orders[] = {TokenOrder::rows, TokenOrder::columns, TokenOrder::rows_back,
                               TokenOrder::columns_back};
  Tensor y;
  for (std::size_t way = 0; way < ways; ++way) {
    const Tensor out = scans[way].scan(u, orders[way]);
    y = y.defined() ? y + out : out;
  }
  return out_proj.forward(out_norm.forward(y));
}

MixerCost CrossScan::cost(const Shape& x) const {
  const i64 tokens = x[0] * x[1] * x[2];
  const MixerCost one = scans[0].cost(tokens, 1);
  return {ways * one.macs, ways * one.other + tokens * width * (4 + 3)};  // SiLU, merge
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
