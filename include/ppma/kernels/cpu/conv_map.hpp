#pragma once
#include "ppma/core/names_begin.hpp"
// Which convolution: its sizes, where its taps fall, and how its weights lie.
// Legend: B batch, H W input, OH OW output, CI CO channels, g groups.

#include "ppma/core/dtype.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Output pixel (oy, ox) sums over taps (ty, tx) input pixel (oy*stride + y0 + ty, ox*stride + x0 +
/// tx); outside is 0.
struct ConvMap {
  i64 batch, h, w, ci;  // input (B,H,W,CI)
  i64 oh, ow, co;       // output pixels to compute, channels of the output tensor
  i64 stride, y0, x0, th, tw, groups;
  i64 out_batch, out_row, out_col;  // distances in the output tensor, in elements
};

/// Which weights the taps of a map use: element w[n*n_step + c*c_step + (ky + ty*ky_step)*kw + kx +
/// tx*kx_step] for the n-th output and c-th input channel of a group; group g starts at
/// g*group_step.
template <class T>
struct ConvWeights {
  const T* w;
  i64 n_step, c_step, group_step, kh, kw, ky, ky_step, kx, kx_step;
  const T* packed = nullptr;  // all of them as pack_conv() lays them out; then w is not read
  // or in bf16: each group's (th * tw * CI/g, CO/g) in strips (kernels/cpu/strips.hpp), beside f32
  const bf16* strips = nullptr;
  // or transformed by pack_winograd()
  const T* transformed = nullptr;

  /// Weight of tap (ty, tx), n-th output and c-th input channel of the first group.
  const T* at(i64 ty, i64 tx, i64 n, i64 c) const {
    return w + n * n_step + c * c_step + (ky + ty * ky_step) * kw + kx + tx * kx_step;
  }
  /// Whether those of rows of tw taps of c channels of an output are neighbours: (taps, c).
  bool by_taps(i64 tw, i64 c) const {
    return c_step == 1 && ky == 0 && kx == 0 && kx_step == c && ky_step == 1 && kw == tw * c;
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
