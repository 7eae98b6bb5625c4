#pragma once
#include "ppma/core/names_begin.hpp"
// Three depthwise convolutions 3x3 of one map, added up, whose taps lie 1, 3 and 5 apart: the
// fusion of states of Spatial-Mamba (Xiao et al., 2025).
//
//   y[p] = sum over d in 1, 3, 5, o in {-1,0,1}^2 of taps[d,o] x[p + d o]
//
// On a GPU one kernel with the 25 places that differ; elsewhere one of 11 x 11, most of which is 0.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// What lies beyond the grid: zeros, or its edge again.
enum class Beyond { zeros, edges };

/// y (B,H,W,C) of x (B,H,W,C) and taps (27,C): nine of each distance, row by row, f32 beside bf16.
/// Differentiable in both. Errors: shapes, dtypes or devices that do not fit.
PPMA_API Tensor rings_conv2d(const Tensor& x, const Tensor& taps, Beyond beyond);

/// The same, op by op.
PPMA_API Tensor rings_conv2d_composed(const Tensor& x, const Tensor& taps, Beyond beyond);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_RINGS)

#include <vector>

#include "ppma/ops/depthwise.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/constant.hpp"

#if PPMA_CUDA
#include "ppma/kernels/cuda/rings_taps.cuh"
#endif

namespace ppma::inline PPMA_ABI {

namespace detail {

inline constexpr i64 rings_side = 11, rings_beyond = 5;

inline void check_rings(const Tensor& x, const Tensor& taps) {
  check(x.defined() && taps.defined(), "rings_conv2d: x or taps is undefined");
  check(x.rank() == 4 && x.numel() > 0 && taps.shape() == Shape{27, x.dim(3)},
        "rings_conv2d: x must be (B,H,W,C) and taps (27,C), got ", x.shape(), " and ",
        taps.shape());
  check(is_floating(x.dtype()) && taps.dtype() == accumulator_dtype(x.dtype()) &&
            taps.device() == x.device(),
        "rings_conv2d: x is ", x.dtype(), " on ", x.device(), ", taps ", taps.dtype(), " on ",
        taps.device(), "; both must be of one dtype (taps f32 beside bf16) on one device");
}

// x (B,H,W,C) with its edge repeated n times on each side.
inline Tensor with_edges(Tensor x, i64 n) {
  for (const int axis : {1, 2}) {
    const Shape shape = with_size(x.shape(), axis, n);
    x = concat({broadcast_to(narrow(x, axis, 0, 1), shape), x,
                broadcast_to(narrow(x, axis, x.dim(axis) - 1, 1), shape)},
               axis);
  }
  return x;
}

#if PPMA_CUDA
template <class T>
Tensor rings_on_gpu(const Tensor& x, const Tensor& taps, Beyond beyond,
                    const kernels::RingsShape& s) {
  using kernels::Rings;
  using A = acc_t<T>;
  const bool edges = beyond == Beyond::edges;
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  kernels::rings(Cuda{}, s, x.data<T>(), taps.data<A>(), false, edges ? Rings::edges : Rings::zeros,
                 y.data<T>());
  const bool need_x = x.requires_grad(), need_taps = taps.requires_grad();
  const Saved saved_x = need_taps ? Saved(x) : Saved();
  return record(y, "rings_conv2d", {x, taps},
                [s, edges, need_x, need_taps, saved_x, taps = taps.detach()](const Tensor& dy) {
                  Tensor dx, dtaps;
                  if (need_x) {
                    dx = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
                    kernels::rings(Cuda{}, s, dy.data<T>(), taps.data<A>(), true,
                                   edges ? Rings::folded : Rings::zeros, dx.data<T>());
                  }
                  if (need_taps) {
                    const Tensor kept = saved_x.get();
                    dtaps = Tensor::empty(taps.shape(), taps.dtype(), taps.device());
                    kernels::rings_dtaps(Cuda{}, s, kept.data<T>(), dy.data<T>(), edges,
                                         dtaps.data<A>());
                  }
                  return Grads{dx, dtaps};
                });
}
#endif

}  // namespace detail

Tensor rings_conv2d(const Tensor& x, const Tensor& taps, Beyond beyond) {
  detail::check_rings(x, taps);
#if PPMA_CUDA
  const kernels::RingsShape s{x.dim(0), x.dim(1), x.dim(2), x.dim(3)};
  if (x.device() == Device::cuda && x.dtype() != DType::f64 && kernels::rings_fit(s))
    return x.dtype() == DType::bf16 ? detail::rings_on_gpu<bf16>(x, taps, beyond, s)
                                    : detail::rings_on_gpu<float>(x, taps, beyond, s);
#endif
  return rings_conv2d_composed(x, taps, beyond);
}

Tensor rings_conv2d_composed(const Tensor& x, const Tensor& taps, Beyond beyond) {
  detail::check_rings(x, taps);
  constexpr i64 side = detail::rings_side, reach = detail::rings_beyond;
  const Tensor places =
      kept_constant("places of rings", {27, side * side}, taps.dtype(), x.device(), [] {
        std::vector<double> spread(static_cast<std::size_t>(27 * side * side), 0);
        for (i64 t = 0; t < 27; ++t) {
          const i64 distance = 1 + t / 9 * 2, row = reach + (t / 3 % 3 - 1) * distance,
                    column = reach + (t % 3 - 1) * distance;
          spread[static_cast<std::size_t>((t * side + row) * side + column)] = 1;
        }
        return spread;
      });
  const Tensor kernel = reshape(matmul(taps, places, true, false), Shape{x.dim(3), 1, side, side});
  if (beyond == Beyond::zeros) return depthwise_conv2d(x, kernel);
  const Tensor y = depthwise_conv2d(detail::with_edges(x, reach), kernel);
  return narrow(narrow(y, 1, reach, x.dim(1)), 2, reach, x.dim(2));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
