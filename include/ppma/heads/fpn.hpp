#pragma once
#include "ppma/core/names_begin.hpp"
// Feature pyramid network (Lin et al., 2017), recipes 3.1: P2..P5 from four maps, P6 every second
// cell of P5.

#include <array>
#include <vector>

#include "ppma/nn/layers.hpp"

namespace ppma::inline PPMA_ABI {

/// A convolution with bias 0 and Xavier-uniform weights; published one level down, as `conv`.
struct FpnConv {
  Conv2d conv;

  PPMA_API FpnConv(i64 in, i64 out, i64 kernel, Rng& rng);
  template <class V>
  void fields(V& v) {
    v.child("conv", conv);
  }
};

struct Fpn {
  std::vector<FpnConv> lateral_convs, fpn_convs;

  PPMA_API Fpn(const std::array<i64, 4>& in_channels, i64 out, Rng& rng);
  /// Four maps (B,H,W,C), finest first -> five of `out` channels.
  PPMA_API std::vector<Tensor> forward(const std::vector<Tensor>& maps) const;
  template <class V>
  void fields(V& v) {
    v.children("lateral_convs", lateral_convs), v.children("fpn_convs", fpn_convs);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_HEADS)

#include <cmath>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/pool.hpp"
#include "ppma/ops/resize.hpp"

namespace ppma::inline PPMA_ABI {

FpnConv::FpnConv(i64 in, i64 out, i64 kernel, Rng& rng)
    : conv(in, out, kernel, {1, kernel / 2, 1}, rng) {
  // fan_in + fan_out = 6 / bound^2; the drawn weights are uniform in +-1/sqrt(fan_in).
  const double change = std::sqrt(6.0 * static_cast<double>(in) / static_cast<double>(in + out));
  conv.weight = parameter(scale(conv.weight.detach(), change));
  conv.bias = parameter(Tensor::zeros({out}));
}

Fpn::Fpn(const std::array<i64, 4>& in_channels, i64 out, Rng& rng) {
  for (const i64 c : in_channels)
    lateral_convs.emplace_back(c, out, 1, rng), fpn_convs.emplace_back(out, out, 3, rng);
}

std::vector<Tensor> Fpn::forward(const std::vector<Tensor>& maps) const {
  check(maps.size() == 4, "fpn: needs four maps, got ", maps.size());
  std::vector<Tensor> p;
  for (std::size_t i = 0; i < 4; ++i) p.push_back(lateral_convs[i].conv.forward(maps[i]));
  for (std::size_t i = 3; i > 0; --i)
    p[i - 1] = add(p[i - 1], resize(p[i], p[i - 1].dim(1), p[i - 1].dim(2), Resize::nearest));
  for (std::size_t i = 0; i < 4; ++i) p[i] = fpn_convs[i].conv.forward(p[i]);
  p.push_back(max_pool2d(p[3], {1, 2, 0}));
  return p;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
