#pragma once
#include "ppma/core/names_begin.hpp"
// Reductions: sum, mean, max, min, argmax. Axes may be negative; keepdim leaves reduced axes with
// size 1.
// Sums add in an order that is the same for any number of threads (kernels/cpu/reduce.hpp).

#include <type_traits>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Sum over `axes` (distinct). sum(x (B,N,C), {1}) is (B,C); with keepdim (B,1,C).
PPMA_API Tensor sum(const Tensor& x, const std::vector<int>& axes, bool keepdim = false);

/// Mean over `axes`, as sum.
PPMA_API Tensor mean(const Tensor& x, const std::vector<int>& axes, bool keepdim = false);

/// Sum and mean of all elements: shape ().
PPMA_API Tensor sum(const Tensor& x);

/// The mean of all elements, a scalar.
PPMA_API Tensor mean(const Tensor& x);

/// The result of max and min: values, and the int64 index of each along the axis (the first of
/// equals).
struct Extreme {
  Tensor values, indices;
};

namespace detail {

PPMA_API Extreme extreme(const char* op, const Tensor& x, int axis, bool keepdim, int sign);

}  // namespace detail

/// Largest element along one axis; the gradient goes to the first of equals. NaN counts as largest.
PPMA_API Extreme max(const Tensor& x, int axis, bool keepdim = false);

/// Smallest element along one axis, as max.
PPMA_API Extreme min(const Tensor& x, int axis, bool keepdim = false);

// max(x, 0.5) means something else elsewhere, and would be the largest along axis 0 here: use
// maximum, minimum or clamp.
template <class Number, std::enable_if_t<std::is_floating_point_v<Number>, int> = 0>
Extreme max(const Tensor& x, Number y, bool keepdim = false) = delete;

template <class Number, std::enable_if_t<std::is_floating_point_v<Number>, int> = 0>
Extreme min(const Tensor& x, Number y, bool keepdim = false) = delete;

/// int64 index of the largest element along one axis, the first of equals. Not differentiable.
PPMA_API Tensor argmax(const Tensor& x, int axis, bool keepdim = false);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_ROWS)

#include "ppma/kernels/cpu/reduce.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/elementwise.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

Tensor sum(const Tensor& x, const std::vector<int>& axes, bool keepdim) {
  detail::check_defined("sum", x);
  Shape kept = x.shape();  // reduced axes with size 1
  bool reduced[Shape::max_rank] = {};
  for (const int axis : axes) {
    const int a = x.shape().axis(axis, "sum");
    check(!reduced[a], "sum: axis ", axis, " is named twice");
    reduced[a] = true;
    kept.set(a, 1);
  }
  Shape result;
  for (int a = 0; a < x.rank(); ++a)
    if (keepdim || !reduced[a]) result.push_back(kept[a]);
  Tensor y = Tensor::empty(result, x.dtype(), x.device());
  visit(x.device(), x.dtype(), "sum", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::sum_to(on, x.shape(), x.data<T>(), kept, y.data<T>());
  });
  return record(y, "sum", {x}, [shape = x.shape(), kept](const Tensor& dy) {
    return Grads{broadcast_to(dy.viewed_as(kept), shape)};
  });
}

Tensor mean(const Tensor& x, const std::vector<int>& axes, bool keepdim) {
  const Tensor s = sum(x, axes, keepdim);
  check(x.numel() > 0, "mean: shape ", x.shape(), " has no elements");
  return scale(s, static_cast<double>(s.numel()) / static_cast<double>(x.numel()));
}

Tensor sum(const Tensor& x) {
  std::vector<int> all;
  for (int a = 0; a < x.rank(); ++a) all.push_back(a);
  return sum(x, all);
}

Tensor mean(const Tensor& x) {
  check(x.numel() > 0, "mean: shape ", x.shape(), " has no elements");
  return scale(sum(x), 1.0 / static_cast<double>(x.numel()));
}

namespace detail {

Extreme extreme(const char* op, const Tensor& x, int axis, bool keepdim, int sign) {
  check_defined(op, x);
  const int a = x.shape().axis(axis, op);
  check(x.dim(a) > 0, op, ": axis ", axis, " of shape ", x.shape(), " is empty");
  const i64 outer = x.shape().product(0, a), n = x.dim(a),
            inner = x.shape().product(a + 1, x.rank());
  const Shape shape = keepdim ? with_size(x.shape(), a, 1) : without_axis(x.shape(), a);
  Tensor y = Tensor::empty(shape, x.dtype(), x.device()),
         index = Tensor::empty(shape, DType::int64, x.device());
  visit(x.device(), x.dtype(), op, [&](auto on, auto t) {
    using T = decltype(t);
    kernels::extreme(on, outer, n, inner, static_cast<T>(sign), x.data<T>(), y.data<T>(),
                     index.data<i64>());
  });
  y = record(y, op, {x}, [op, shape = x.shape(), index, outer, n, inner](const Tensor& dy) {
    Tensor dx = Tensor::zeros(shape, dy.dtype(), dy.device());
    visit(dy.device(), dy.dtype(), op, [&](auto on, auto t) {
      using T = decltype(t);
      kernels::scatter_extreme(on, outer, n, inner, index.data<i64>(), dy.data<T>(), dx.data<T>());
    });
    return Grads{dx};
  });
  return {y, index};
}

}  // namespace detail

Extreme max(const Tensor& x, int axis, bool keepdim) {
  return detail::extreme("max", x, axis, keepdim, 1);
}

Extreme min(const Tensor& x, int axis, bool keepdim) {
  return detail::extreme("min", x, axis, keepdim, -1);
}

Tensor argmax(const Tensor& x, int axis, bool keepdim) {
  const NoGrad not_recorded;
  return detail::extreme("argmax", x, axis, keepdim, 1).indices;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
