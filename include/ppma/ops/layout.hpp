#pragma once
#include "ppma/core/names_begin.hpp"
// Layout: the same elements under another shape, order or dtype. reshape shares the elements,
// everything else copies, since every tensor is contiguous. All but cast work for every dtype;
// negative axes count from the end.

#include <initializer_list>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The same elements as `shape`.
PPMA_API Tensor reshape(const Tensor& x, const Shape& shape);

/// reshape(x, {B, -1, C}): one size may be -1 and follows from the others.
PPMA_API Tensor reshape(const Tensor& x, std::initializer_list<i64> sizes);

namespace detail {

PPMA_API Shape with_size(Shape shape, int axis, i64 size);
PPMA_API Shape without_axis(const Shape& shape, int axis);

// Elements start .. start + length - 1 of one axis, cut out (not recorded).
PPMA_API Tensor cut(const Tensor& x, int axis, i64 start, i64 length);

// Puts x at `start` of one axis of y.
PPMA_API void paste(const Tensor& x, Tensor& y, int axis, i64 start);

}  // namespace detail

/// Axis k of the result is axis axes[k] of x: permute(x, {0, 2, 1}) exchanges the last two of
/// three.
PPMA_API Tensor permute(const Tensor& x, const std::vector<int>& axes);

/// Exchanges two axes.
PPMA_API Tensor transpose(const Tensor& x, int a, int b);

/// Elements start .. start + length - 1 of one axis; x itself, where that is all.
PPMA_API Tensor narrow(const Tensor& x, int axis, i64 start, i64 length);

/// One element of an axis; the axis goes away.
PPMA_API Tensor select(const Tensor& x, int axis, i64 index);

/// Joins tensors along an axis; all other sizes are equal.
PPMA_API Tensor concat(const std::vector<Tensor>& parts, int axis);

/// Joins tensors of one shape along a new axis.
PPMA_API Tensor stack(const std::vector<Tensor>& parts, int axis = 0);

/// Reverses one axis.
PPMA_API Tensor flip(const Tensor& x, int axis);

/// The elements converted to another dtype (bf16 rounds to nearest even, integers truncate);
/// differentiable between floating dtypes. Returns x itself if it has the dtype already.
PPMA_API Tensor cast(const Tensor& x, DType dtype);

/// x repeated to `shape` where its sizes are 1 or absent.
PPMA_API Tensor broadcast_to(const Tensor& x, const Shape& shape);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_LAYOUT)

#include "ppma/kernels/cpu/permute.hpp"
#include "ppma/ops/elementwise.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor reshape(const Tensor& x, const Shape& shape) {
  detail::check_defined("reshape", x);
  return record(x.viewed_as(shape), "reshape", {x},
                [before = x.shape()](const Tensor& dy) { return Grads{dy.viewed_as(before)}; });
}

Tensor reshape(const Tensor& x, std::initializer_list<i64> sizes) {
  i64 known = 1;
  int open = 0;
  for (const i64 n : sizes) n == -1 ? ++open : known *= n;
  check(open <= 1, "reshape: only one size may be -1");
  check(open == 0 || (known > 0 && x.numel() % known == 0), "reshape: ", x.shape(), " with its ",
        x.numel(), " elements cannot be divided into rows of ", known);
  Shape shape;
  for (const i64 n : sizes) shape.push_back(n == -1 ? x.numel() / known : n);
  return reshape(x, shape);
}

namespace detail {

inline Tensor permuted(const Tensor& x, const std::vector<int>& axes) {
  Shape shape;
  for (const int a : axes) shape.push_back(x.dim(a));
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  const auto move = [&](auto unit) {
    using T = decltype(unit);
    visit_device(x.device(), "permute", [&](auto on) {
      kernels::permute(on, x.shape(), axes.data(), static_cast<const T*>(x.raw()),
                       static_cast<T*>(y.raw()));
    });
  };
  switch (size_of(x.dtype())) {
    case 1:
      move(u8{});
      break;
    case 2:
      move(std::uint16_t{});
      break;
    case 4:
      move(u32{});
      break;
    default:
      move(u64{});
  }
  return y;
}

// x seen as (outer, n, inner) around one axis; inner in bytes.
struct AroundAxis {
  i64 outer, n, inner;
  AroundAxis(const Tensor& x, int axis)
      : outer(x.shape().product(0, axis)),
        n(x.dim(axis)),
        inner(x.shape().product(axis + 1, x.rank()) * size_of(x.dtype())) {}
};

Shape with_size(Shape shape, int axis, i64 size) {
  shape.set(axis, size);
  return shape;
}

Shape without_axis(const Shape& shape, int axis) {
  Shape s;
  for (int a = 0; a < shape.rank(); ++a)
    if (a != axis) s.push_back(shape[a]);
  return s;
}

inline Shape with_axis(const Shape& shape, int axis, i64 size) {
  Shape s;
  for (int a = 0; a <= shape.rank(); ++a) {
    if (a == axis) s.push_back(size);
    if (a < shape.rank()) s.push_back(shape[a]);
  }
  return s;
}

Tensor cut(const Tensor& x, int axis, i64 start, i64 length) {
  const AroundAxis s(x, axis);
  Tensor y = Tensor::empty(with_size(x.shape(), axis, length), x.dtype(), x.device());
  visit_device(x.device(), "narrow", [&](auto on) {
    kernels::copy_rows(on, s.outer, length * s.inner,
                       static_cast<const char*>(x.raw()) + start * s.inner, s.n * s.inner, y.raw(),
                       length * s.inner);
  });
  return y;
}

void paste(const Tensor& x, Tensor& y, int axis, i64 start) {
  const AroundAxis from(x, axis), to(y, axis);
  visit_device(x.device(), "concat", [&](auto on) {
    kernels::copy_rows(on, to.outer, from.n * from.inner, x.raw(), from.n * from.inner,
                       static_cast<char*>(y.raw()) + start * to.inner, to.n * to.inner);
  });
}

// Adds x to what stands at `start` of one axis of y.
inline void paste_sum(const Tensor& x, Tensor& y, int axis, i64 start) {
  const i64 rows = x.shape().product(0, axis), inner = x.shape().product(axis + 1, x.rank()),
            from = x.dim(axis) * inner, to = y.dim(axis) * inner;
  visit(x.device(), x.dtype(), "narrow", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::add_rows(on, rows, from, x.data<T>(), from, y.data<T>() + start * inner, to);
  });
}

}  // namespace detail

Tensor permute(const Tensor& x, const std::vector<int>& axes) {
  detail::check_defined("permute", x);
  const auto rank = static_cast<std::size_t>(x.rank());
  check(axes.size() == rank, "permute: ", axes.size(), " axes for a tensor of shape ", x.shape());
  std::vector<int> forward(rank), inverse(rank, -1);
  for (std::size_t k = 0; k < rank; ++k) {
    forward[k] = x.shape().axis(axes[k], "permute");
    int& from = inverse[static_cast<std::size_t>(forward[k])];
    check(from == -1, "permute: axis ", axes[k], " is named twice");
    from = static_cast<int>(k);
  }
  return record(detail::permuted(x, forward), "permute", {x},
                [inverse](const Tensor& dy) { return Grads{detail::permuted(dy, inverse)}; });
}

Tensor transpose(const Tensor& x, int a, int b) {
  std::vector<int> axes;
  for (int k = 0; k < x.rank(); ++k) axes.push_back(k);
  std::swap(axes[static_cast<std::size_t>(x.shape().axis(a, "transpose"))],
            axes[static_cast<std::size_t>(x.shape().axis(b, "transpose"))]);
  return permute(x, axes);
}

Tensor narrow(const Tensor& x, int axis, i64 start, i64 length) {
  detail::check_defined("narrow", x);
  const int a = x.shape().axis(axis, "narrow");
  check(start >= 0 && length >= 0 && start + length <= x.dim(a), "narrow: elements ", start, " to ",
        start + length, " of axis ", axis, " lie outside of shape ", x.shape());
  if (length == x.dim(a)) return x;
  return record(detail::cut(x, a, start, length), "narrow", {x},
                [shape = x.shape(), a, start](const Tensor& dy) {
                  Tensor dx = gradient_so_far(0);  // of other parts of x
                  if (dx.defined()) {
                    detail::paste_sum(dy, dx, a, start);
                  } else {
                    dx = Tensor::zeros(shape, dy.dtype(), dy.device());
                    detail::paste(dy, dx, a, start);
                  }
                  return Grads{dx};
                });
}

Tensor select(const Tensor& x, int axis, i64 index) {
  detail::check_defined("select", x);
  const int a = x.shape().axis(axis, "select");
  check(index >= 0 && index < x.dim(a), "select: index ", index, " is outside of axis ", axis,
        " of shape ", x.shape());
  return reshape(narrow(x, a, index, 1), detail::without_axis(x.shape(), a));
}

Tensor concat(const std::vector<Tensor>& parts, int axis) {
  check(!parts.empty(), "concat: needs at least one tensor");
  detail::check_defined("concat", parts[0]);
  const int a = parts[0].shape().axis(axis, "concat");
  std::vector<i64> starts;
  i64 total = 0;
  for (const Tensor& p : parts) {
    detail::check_same_kind("concat", parts[0], p);
    check(p.rank() == parts[0].rank() &&
              detail::with_size(p.shape(), a, 0) == detail::with_size(parts[0].shape(), a, 0),
          "concat: shapes ", parts[0].shape(), " and ", p.shape(), " differ on another axis than ",
          axis);
    starts.push_back(total);
    total += p.dim(a);
  }
  Tensor y = Tensor::empty(detail::with_size(parts[0].shape(), a, total), parts[0].dtype(),
                           parts[0].device());
  for (std::size_t i = 0; i < parts.size(); ++i) detail::paste(parts[i], y, a, starts[i]);
  std::vector<i64> lengths;  // -1: this part needs no gradient
  for (const Tensor& p : parts) lengths.push_back(p.requires_grad() ? p.dim(a) : -1);
  return record(y, "concat", parts, [starts, lengths, a](const Tensor& dy) {
    Grads grads(starts.size());
    for (std::size_t i = 0; i < grads.size(); ++i)
      if (lengths[i] >= 0) grads[i] = detail::cut(dy, a, starts[i], lengths[i]);
    return grads;
  });
}

Tensor stack(const std::vector<Tensor>& parts, int axis) {
  check(!parts.empty(), "stack: needs at least one tensor");
  detail::check_defined("stack", parts[0]);
  const int rank = parts[0].rank() + 1, a = axis < 0 ? axis + rank : axis;
  check(a >= 0 && a < rank, "stack: axis ", axis, " is outside of a result of ", rank, " axes");
  std::vector<Tensor> rows;
  for (const Tensor& p : parts) {
    check(p.shape() == parts[0].shape(), "stack: shapes ", parts[0].shape(), " and ", p.shape(),
          " differ");
    rows.push_back(reshape(p, detail::with_axis(p.shape(), a, 1)));
  }
  return concat(rows, a);
}

Tensor flip(const Tensor& x, int axis) {
  detail::check_defined("flip", x);
  const int a = x.shape().axis(axis, "flip");
  const auto reversed = [a](const Tensor& t) {
    const detail::AroundAxis s(t, a);
    Tensor y = Tensor::empty(t.shape(), t.dtype(), t.device());
    const char* from = static_cast<const char*>(t.raw());
    char* to = static_cast<char*>(y.raw());
    visit_device(t.device(), "flip", [&](auto on) {
      for (i64 k = 0; k < s.n; ++k)
        kernels::copy_rows(on, s.outer, s.inner, from + k * s.inner, s.n * s.inner,
                           to + (s.n - 1 - k) * s.inner, s.n * s.inner);
    });
    return y;
  };
  return record(reversed(x), "flip", {x},
                [reversed](const Tensor& dy) { return Grads{reversed(dy)}; });
}

Tensor cast(const Tensor& x, DType dtype) {
  detail::check_defined("cast", x);
  if (x.dtype() == dtype) return x;
  const auto converted = [](const Tensor& t, DType to) {
    Tensor y = Tensor::empty(t.shape(), to, t.device());
    y.copy_from(t);
    return y;
  };
  Tensor y = converted(x, dtype);
  if (!is_floating(dtype) || !is_floating(x.dtype())) return y;
  return record(y, "cast", {x}, [converted, before = x.dtype()](const Tensor& dy) {
    return Grads{converted(dy, before)};
  });
}

namespace functions {

struct First {
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V a, V) const {
    return a;
  }
};

}  // namespace functions

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  detail::check_defined("broadcast_to", x);
  check(broadcast(x.shape(), shape, "broadcast_to") == shape, "broadcast_to: ", x.shape(),
        " does not broadcast to ", shape);
  if (x.shape() == shape) return x;
  Tensor y = Tensor::empty(shape, x.dtype(), x.device());
  visit(x.device(), x.dtype(), "broadcast_to", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::map(on, shape, x.shape(), x.data<T>(), x.shape(), x.data<T>(), y.data<T>(),
                 functions::First{});
  });
  // the engine sums it back
  return record(y, "broadcast_to", {x}, [](const Tensor& dy) { return Grads{dy}; });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
