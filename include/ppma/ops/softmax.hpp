#pragma once
#include "ppma/core/names_begin.hpp"
// softmax and log_softmax. Over the last axis a row is read once from memory and stays in L1 for
// its three passes (largest, exponentials and their sum, division); another axis is moved to the
// end and back.
//
//   y_k = e^(x_k - m) / s,  m = max x,  s = sum_j e^(x_j - m)
//         dx_k = y_k (dy_k - sum_j dy_j y_j)
//   l_k = x_k - m - ln s
//         dx_k = dl_k - e^(l_k) sum_j dl_j

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Along `axis`, non-negative numbers of sum 1. Any shape; large arguments are safe. An element of
/// -infinity gets 0 and the gradient 0; a line of nothing else has no softmax: NaN throughout, as
/// PyTorch gives, and so is its gradient.
/// A line with a NaN or +infinity is NaN too.
PPMA_API Tensor softmax(const Tensor& x, int axis = -1);

/// ln softmax(x), without forming the softmax. -infinity where the softmax is 0; lines without one
/// as in softmax.
PPMA_API Tensor log_softmax(const Tensor& x, int axis = -1);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_ROWS)

#include "ppma/kernels/cpu/simd.hpp"
#include "ppma/kernels/cpu/softmax.hpp"
#include "ppma/ops/elementwise.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class Forward, class Backward>
Tensor over_last_axis(const char* op, const Tensor& x, int axis, Forward forward,
                      Backward backward) {
  check_defined(op, x);
  check(x.rank() >= 1, op, ": needs an axis, got a tensor of shape ", x.shape());
  const int a = x.shape().axis(axis, op), last = x.rank() - 1;
  if (a != last)
    return transpose(over_last_axis(op, transpose(x, a, last), last, forward, backward), a, last);
  const i64 n = x.dim(last), rows = x.shape().product(0, last);
  check(n > 0, op, ": axis ", axis, " of shape ", x.shape(), " is empty");
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  visit(x.device(), x.dtype(), op, [&](auto on, auto t) {
    using T = decltype(t);
    forward(on, rows, n, x.data<T>(), y.data<T>());
  });
  return record(y, op, {x}, [op, rows, n, backward, y = y.detach()](const Tensor& dy) {
    Tensor dx = room_for_gradient(dy);
    visit(dy.device(), dy.dtype(), op, [&](auto on, auto t) {
      using T = decltype(t);
      backward(on, rows, n, y.data<T>(), dy.data<T>(), dx.data<T>());
    });
    return Grads{dx};
  });
}

}  // namespace detail

Tensor softmax(const Tensor& x, int axis) {
  return detail::over_last_axis(
      "softmax", x, axis, [](auto... a) { kernels::softmax(a...); },
      [](auto... a) { kernels::softmax_backward(a...); });
}

Tensor log_softmax(const Tensor& x, int axis) {
  return detail::over_last_axis(
      "log_softmax", x, axis, [](auto... a) { kernels::log_softmax(a...); },
      [](auto... a) { kernels::log_softmax_backward(a...); });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
