#pragma once
#include "ppma/core/names_begin.hpp"
// What every elementwise op shares. To add one: write its function and derivative as a struct
//
//   struct Square {
//     static constexpr Keep keep = Keep::input;                       // what df is a function of
//     template <class V> PPMA_HD V f(V x) const { return x * x; }
//         // V: float, double or a Vec of them
//     template <class V> PPMA_HD V df(V x) const { return x + x; }
//   };
//   inline Tensor square(const Tensor& x) { return elementwise("square", x, functions::Square{}); }
//
// and one line in tests/op_cases.

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/map.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class F>
struct Value {
  F function;
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V x) const {
    return function.f(x);
  }
};

template <class F>
struct Slope {  // dx from what was kept and dy
  F function;
  static constexpr bool same_shapes = true;
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V kept, V dy) const {
    return dy * function.df(kept);
  }
};

// Room for a gradient of dy's shape: dy's own elements where nobody else sees them.
PPMA_API Tensor room_for_gradient(const Tensor& dy);

PPMA_API void check_defined(const char* op, const Tensor& x);
PPMA_API void check_same_kind(const char* op, const Tensor& a, const Tensor& b);

}  // namespace detail

/// y = f(x) elementwise; backward dx = dy * df(what was kept).
template <class F>
Tensor elementwise(const char* op, const Tensor& x, const F& function) {
  detail::check_defined(op, x);
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  visit(x.device(), x.dtype(), op, [&](auto on, auto t) {
    using T = decltype(t);
    kernels::map(on, x.numel(), x.data<T>(), y.data<T>(), detail::Value<F>{function});
  });
  const Saved kept = F::keep == Keep::input    ? Saved(x)
                     : F::keep == Keep::output ? Saved(y.detach())
                                               : Saved();
  y = record(y, op, {x}, [op, kept, function](const Tensor& dy) {
    Tensor dx = detail::room_for_gradient(dy);
    const Tensor s = F::keep == Keep::nothing ? dy : kept.get();
    visit(dy.device(), dy.dtype(), op, [&](auto on, auto t) {
      using T = decltype(t);
      kernels::map(on, dy.shape(), s.shape(), s.data<T>(), dy.shape(), dy.data<T>(), dx.data<T>(),
                   detail::Slope<F>{function});
    });
    return Grads{dx};
  });
  // What reads y in backward gets it from x, which is kept: a pass over it, for the memory of y. On
  // a GPU the pass is dearer than the memory.
  if (F::keep != Keep::input || !kept.kept() || x.device() != Device::cpu) return y;
  return made_again(y, [op, x = x.detach(), function] {
    Tensor again = Tensor::empty(x.shape(), x.dtype());
    visit_cpu(x.device(), x.dtype(), op, [&](auto on, auto t) {
      using T = decltype(t);
      kernels::map(on, x.numel(), x.data<T>(), again.data<T>(), detail::Value<F>{function});
    });
    return again;
  });
}

namespace detail {

/// f(a, b) elementwise with broadcasting, not recorded: the op adds its backward.
template <class F>
Tensor combine(const char* op, const Tensor& a, const Tensor& b, const F& f) {
  check_same_kind(op, a, b);
  Tensor y = Tensor::empty(broadcast(a.shape(), b.shape(), op), a.dtype(), a.device());
  visit(a.device(), a.dtype(), op, [&](auto on, auto t) {
    using T = decltype(t);
    kernels::map(on, y.shape(), a.shape(), a.data<T>(), b.shape(), b.data<T>(), y.data<T>(), f);
  });
  return y;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_ELEMENTS)

namespace ppma::inline PPMA_ABI {

namespace detail {

Tensor room_for_gradient(const Tensor& dy) {
  return dy.sole_owner() ? dy.detach() : Tensor::empty(dy.shape(), dy.dtype(), dy.device());
}

void check_defined(const char* op, const Tensor& x) {
  check(x.defined(), op, ": the argument is an undefined tensor; give it a value first");
}

void check_same_kind(const char* op, const Tensor& a, const Tensor& b) {
  check_defined(op, a);
  check_defined(op, b);
  check(a.dtype() == b.dtype(), op, ": dtypes ", a.dtype(), " and ", b.dtype(),
        " differ; convert one with cast");
  check(a.device() == b.device(), op, ": one tensor is on the ", a.device(), ", the other on the ",
        b.device());
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
