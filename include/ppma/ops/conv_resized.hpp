#pragma once
#include "ppma/core/names_begin.hpp"
// A 3x3 convolution of maps of several sizes, as decode heads end in: all are resized to the first
// one's grid, joined and convolved.
//
//   conv(concat_l resize(x_l)) = conv_0(x_0) + sum_l>0 sum_t shift_t(resize(W_lt x_l))
//
// Resizing mixes places and a tap's weights mix channels, so they change places: the products are
// taken on the small grids (of four maps, each half as wide as the one before, a third of all
// multiplications), and neither the resized maps nor the joined one is made. Legend: B batch, H W
// the first map's grid, h w another's, I channels of a map, O of the result.

#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// conv2d(concat({maps[0], resize(maps[1], H, W) ...}, -1), w, {}, {1, 1, 1}) of maps (B,h,w,I),
/// the first (B,H,W,I), and w (O, all I, 3, 3) -> (B,H,W,O). Differentiable in the maps and w.
/// Beside bf16 maps w may be f32. Errors: shapes or dtypes that do not go together.
PPMA_API Tensor conv2d_of_resized(const std::vector<Tensor>& maps, const Tensor& w);

/// y (B,H,W,O) + of each z (B,h,w,9,O) its nine maps, resized to (H,W) and moved to where the taps
/// of a 3x3 convolution see them: sum over ty, tx of resize(z[..., 3 ty + tx, :])[i + ty - 1, j +
/// tx - 1], 0 outside. Differentiable in all. Errors: shapes or dtypes that do not go together.
PPMA_API Tensor add_resized_taps(const Tensor& y, const std::vector<Tensor>& z);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_IMAGES)

#include "ppma/kernels/cpu/resized_taps.hpp"
#include "ppma/ops/conv.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/linear.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor conv2d_of_resized(const std::vector<Tensor>& maps, const Tensor& w) {
  check(!maps.empty(), "conv2d_of_resized: there are no maps");
  i64 channels = 0;
  for (const Tensor& x : maps) {
    check(x.defined() && x.rank() == 4 && x.numel() > 0 && x.dim(0) == maps[0].dim(0),
          "conv2d_of_resized: maps must be (B,h,w,I) with elements and one B, got ",
          x.defined() ? x.shape() : Shape{});
    channels += x.dim(3);
  }
  check(w.defined() && w.rank() == 4 && w.dim(1) == channels && w.dim(2) == 3 && w.dim(3) == 3,
        "conv2d_of_resized: w must be (O,", channels, ",3,3), got ",
        w.defined() ? w.shape() : Shape{});
  const i64 out = w.dim(0);
  Tensor y;
  std::vector<Tensor> taps;
  i64 begin = 0;
  for (const Tensor& x : maps) {
    const i64 in = x.dim(3);
    const Tensor part = maps.size() == 1 ? w : narrow(w, 1, begin, in);  // (O,I,3,3)
    if (begin == 0)
      y = conv2d(x, part, Tensor(), {1, 1, 1});
    else  // (B,h,w,I) times (9 O,I)
      taps.push_back(reshape(linear(x, reshape(permute(part, {2, 3, 0, 1}), {9 * out, in})),
                             {x.dim(0), x.dim(1), x.dim(2), 9, out}));
    begin += in;
  }
  return taps.empty() ? y : add_resized_taps(y, taps);
}

Tensor add_resized_taps(const Tensor& y, const std::vector<Tensor>& z) {
  check(y.defined() && y.rank() == 4 && y.numel() > 0,
        "add_resized_taps: y must be (B,H,W,O) with elements, got ",
        y.defined() ? y.shape() : Shape{});
  check(!z.empty(), "add_resized_taps: there is nothing to add");
  const i64 batch = y.dim(0), channels = y.dim(3);
  std::vector<Tensor> inputs{y};
  for (const Tensor& of_map : z) {
    check(of_map.defined() && of_map.rank() == 5 && of_map.numel() > 0 && of_map.dim(0) == batch &&
              of_map.dim(3) == 9 && of_map.dim(4) == channels,
          "add_resized_taps: beside y ", y.shape(), " a z must be (", batch, ",h,w,9,", channels,
          "), got ", of_map.defined() ? of_map.shape() : Shape{});
    check(of_map.dtype() == y.dtype() && of_map.device() == y.device(), "add_resized_taps: y is ",
          y.dtype(), " on the ", y.device(), ", a z is ", of_map.dtype(), " on the ",
          of_map.device());
    inputs.push_back(of_map);
  }
  const auto axes = [h = y.dim(1), w = y.dim(2)](const Shape& of_map) {
    return std::pair{kernels::Axis{of_map[1], h, Resize::bilinear},
                     kernels::Axis{of_map[2], w, Resize::bilinear}};
  };
  Tensor out = Tensor::empty(y.shape(), y.dtype(), y.device());
  visit(y.device(), y.dtype(), "add_resized_taps", [&](auto on, auto t) {
    using T = decltype(t);
    std::vector<kernels::TapsMap<T>> maps;
    for (const Tensor& of_map : z) {
      const auto [rows, cols] = axes(of_map.shape());
      maps.push_back({rows, cols, of_map.data<T>()});
    }
    kernels::add_resized_taps(on, batch, channels, std::span<const kernels::TapsMap<T>>(maps),
                              y.data<T>(), out.data<T>());
  });
  std::vector<Shape> shapes;  // of what needs a gradient; else empty
  for (const Tensor& of_map : z)
    shapes.push_back(of_map.requires_grad() ? of_map.shape() : Shape{});
  return record(out, "add_resized_taps", inputs, [=](const Tensor& dy) {
    Grads grads{dy};
    for (const Shape& shape : shapes) {
      Tensor dz;
      if (shape.rank() == 5) {
        dz = Tensor::empty(shape, dy.dtype(), dy.device());
        const auto both = axes(shape);
        visit(dy.device(), dy.dtype(), "add_resized_taps", [&](auto on, auto t) {
          using T = decltype(t);
          kernels::resized_taps_backward(on, batch, channels, both.first, both.second, dy.data<T>(),
                                         dz.data<T>());
        });
      }
      grads.push_back(dz);
    }
    return grads;
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
