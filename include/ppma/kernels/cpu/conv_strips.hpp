#pragma once
#include "ppma/core/names_begin.hpp"
// Convolutions with weights in bf16 (kernels/cpu/strips.hpp): how these are packed, and the
// convolution as one product where AMX multiplies bf16. Legend: see conv_map.hpp.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/amx.hpp"
#include "ppma/kernels/cpu/conv_map.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Elements of a convolution's weights in strips.
inline i64 conv_strips_size(const ConvMap& m) {
  return m.groups * strips_size(m.th * m.tw * (m.ci / m.groups), m.co / m.groups);
}

/// ConvWeights::strips of weights w (CO, CI/g, th, tw).
template <class T>
void pack_conv_strips(Cpu, const ConvMap& m, const T* w, bf16* to) {
  const i64 taps = m.th * m.tw, c = m.ci / m.groups, n = m.co / m.groups;
  for (i64 g = 0; g < m.groups; ++g)
    pack_strips(
        taps * c, n, [=](i64 p, i64 j) { return w[((g * n + j) * c + p % c) * taps + p / c]; },
        to + g * strips_size(taps * c, n));
}

namespace detail {

// The convolution as one product of weights in strips, a row a pixel: only where tiles multiply
// bf16, so fast that copying each input once for each tap that sees it is what is left to be paid.
// x and `out` are dense, and there is one group.
template <class Tiles>
void convolve_strips(const ConvMap& m, const float* x, const bf16* strips, const float* bias,
                     float* out) {
  const Workspace<bf16> narrow(m.batch * m.h * m.w * m.ci);
  parallel_for(m.batch * m.h, std::max<i64>(1, (1 << 16) / (m.w * m.ci)), [&](i64 begin, i64 end) {
    const i64 row = m.w * m.ci;
    Tiles::round((end - begin) * row, x + begin * row, narrow.data() + begin * row);
  });
  const i64 piece = m.tw * m.ci;
  const auto fill = [&](i64 pixel, bf16* to) {
    const i64 image = pixel / (m.oh * m.ow), oy = pixel / m.ow % m.oh, ox = pixel % m.ow;
    const i64 x0 = ox * m.stride + m.x0, left = std::clamp<i64>(-x0, 0, m.tw),
              right = std::clamp<i64>(m.w - x0, left, m.tw);
    for (i64 ty = 0; ty < m.th; ++ty, to += piece) {
      const i64 y = oy * m.stride + m.y0 + ty;
      const bool there = y >= 0 && y < m.h;
      const i64 from = there ? left : 0, until = there ? right : 0;
      std::fill_n(to, from * m.ci, bf16(0.0f));
      std::copy_n(narrow.data() + ((image * m.h + y) * m.w + x0 + from) * m.ci,
                  (until - from) * m.ci, to + from * m.ci);
      std::fill_n(to + until * m.ci, piece - until * m.ci, bf16(0.0f));
    }
  };
  multiply_strips<Tiles>(m.batch * m.oh * m.ow, m.co, m.th * piece, strips, bias, nullptr, out,
                         m.co, fill);
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
