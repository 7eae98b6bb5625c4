#pragma once
#include "ppma/core/names_begin.hpp"
// Resizing channels-last maps to any grid. Legend: B batch, H W input grid, h w output grid, C
// channels.
//
//   bilinear             source = (o + 1/2) H / h - 1/2, at least 0; neighbours end at the last row
//   bilinear, corners    source = o (H - 1) / (h - 1)
//   nearest              source = floor(o H / h)
//
// Along an axis y_o = (1 - f) x_low + f x_high. Backward gathers: the outputs that read one input
// are neighbours, so no two threads write one cell.

#include "ppma/kernels/args.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// x (B,H,W,C) -> (B,h,w,C), as PyTorch's interpolate with a size. Error: a map without elements,
/// an empty grid.
PPMA_API Tensor resize(const Tensor& x, i64 h, i64 w, Resize how = Resize::bilinear);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_IMAGES)

#include <string>

#include "ppma/kernels/cpu/resize.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor resize(const Tensor& x, i64 h, i64 w, Resize how) {
  check(x.defined() && x.rank() == 4 && x.numel() > 0,
        "resize: x must be (B,H,W,C) with elements, got ",
        x.defined() ? x.shape().str() : std::string("an undefined tensor"));
  check(h >= 1 && w >= 1, "resize: the output grid is ", h, " x ", w, "; both must be at least 1");
  const i64 batch = x.dim(0), channels = x.dim(3);
  const kernels::Axis rows{x.dim(1), h, how}, cols{x.dim(2), w, how};
  Tensor y = Tensor::empty({batch, h, w, channels}, x.dtype(), x.device());
  visit(x.device(), x.dtype(), "resize", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::resize(on, batch, channels, rows, cols, x.data<T>(), y.data<T>());
  });
  return record(y, "resize", {x}, [=, shape = x.shape()](const Tensor& dy) {
    Tensor dx = Tensor::empty(shape, dy.dtype(), dy.device());
    visit(dy.device(), dy.dtype(), "resize", [&](auto on, auto t) {
      using T = decltype(t);
      kernels::resize_backward(on, batch, channels, rows, cols, dy.data<T>(), dx.data<T>());
    });
    return Grads{dx};
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
