#pragma once
#include "ppma/core/names_begin.hpp"
// What convolution and transposed convolution share: each is the other backward.

#include <algorithm>
#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/core/shape.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/conv.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// y[oy, ox, o] = sum over ky, kx, i of x[oy*stride - padding + ky, ox*stride - padding + kx, i]
// w[o, i, ky, kx]
inline kernels::ConvMap conv_map(const Shape& x, const Shape& w, const Shape& y,
                                 const ConvOptions& options) {
  kernels::ConvMap m{};
  m.batch = x[0], m.h = x[1], m.w = x[2], m.ci = x[3];
  m.oh = y[1], m.ow = y[2], m.co = y[3];
  m.stride = options.stride, m.y0 = m.x0 = -options.padding;
  m.th = w[2], m.tw = w[3], m.groups = options.groups;
  m.out_batch = m.oh * m.ow * m.co, m.out_row = m.ow * m.co, m.out_col = m.co;
  return m;
}

// dx: pixel s*j + r of x meets the taps k = (r + padding) mod s, + s, + 2 s ..., and tap k sees dy
// at j + (r + padding - k) / s. So the pixels of one remainder r (in y and in x) are a convolution
// of dy with stride 1.
template <class On, class T>
void conv_dx(On on, const Shape& x, const Shape& w, const Shape& y, const ConvOptions& options,
             const T* weight, const T* dy, T* dx) {
#if PPMA_CUDA
  if constexpr (On::device == Device::cuda && std::is_same_v<T, bf16>)
    if (kernels::convolve_dx(on, conv_map(x, w, y, options), weight, dy, dx)) return;
#endif
  struct TapRange {
    i64 last, count, first_dy;  // the largest tap; how many; where it sees dy for j = 0
  };
  const i64 s = options.stride;
  const auto taps_of = [&](i64 r, i64 size) {
    const i64 k = (r + options.padding) % s;
    const i64 count = k < size ? (size - 1 - k) / s + 1 : 0, last = k + (count - 1) * s;
    return TapRange{last, count, (r + options.padding - last) / s};
  };
  const i64 kk = w[2] * w[3];
  // some pixels meet no tap
  if (s > w[2] || s > w[3]) zero_bytes(dx, on.device, x.numel() * size_of(dtype_of<T>));
  for (i64 ry = 0; ry < std::min(s, x[1]); ++ry)
    for (i64 rx = 0; rx < std::min(s, x[2]); ++rx) {
      const TapRange ty = taps_of(ry, w[2]), tx = taps_of(rx, w[3]);
      if (ty.count == 0 || tx.count == 0) continue;
      kernels::ConvMap m{};
      m.batch = y[0], m.h = y[1], m.w = y[2], m.ci = y[3];
      m.oh = (x[1] - ry + s - 1) / s, m.ow = (x[2] - rx + s - 1) / s, m.co = x[3];
      m.stride = 1, m.y0 = ty.first_dy, m.x0 = tx.first_dy;
      m.th = ty.count, m.tw = tx.count, m.groups = options.groups;
      m.out_batch = x[1] * x[2] * x[3], m.out_row = s * x[2] * x[3], m.out_col = s * x[3];
      const kernels::ConvWeights<T> turned{
          weight, kk,      w[1] * kk, y[3] / options.groups * w[1] * kk, w[2], w[3], ty.last,
          -s,     tx.last, -s};
      kernels::convolve(on, m, dy, turned, static_cast<const T*>(nullptr),
                        dx + (ry * x[2] + rx) * x[3]);
    }
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
