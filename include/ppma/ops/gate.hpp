#pragma once
#include "ppma/core/names_begin.hpp"
// The gate of a layer whose one projection makes several things side by side:
//
//   map = [ ... | g | i | ... ]   y = f(g) * [ i | tail ]
//
// where `tail` comes from other channels of the map, by a convolution for example. Nothing is cut
// out of the map or joined; one pass, and one of backward, which writes the map's gradient whole.
// Legend: M channels of the map, E of y, T of the tail.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The function of a gate.
enum class Gate { gelu, silu };

/// y (...,E) of map (...,M), whose g is at channels first .. first + E - 1, i (E - T of them)
/// behind it, and tail (...,T), T <= E. Differentiable in both. Errors: shapes, dtypes or devices
/// that do not fit.
PPMA_API Tensor gated(const Tensor& map, i64 first, i64 width, const Tensor& tail, Gate f);

/// The same, op by op.
PPMA_API Tensor gated_composed(const Tensor& map, i64 first, i64 width, const Tensor& tail, Gate f);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_GATE)

#include "ppma/kernels/activation.hpp"
#include "ppma/kernels/cpu/gate.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class F>
void with_gate(Gate gate, F&& f) {
  if (gate == Gate::gelu)
    f(functions::Gelu{});
  else
    f(functions::Silu{});
}

inline kernels::GateShape check_gate(const Tensor& map, i64 first, i64 width, const Tensor& tail) {
  check(map.defined() && tail.defined(), "gated: map or tail is undefined");
  check(
      map.rank() >= 1 && tail.rank() == map.rank() && tail.numel() > 0 &&
          without_axis(map.shape(), map.rank() - 1) == without_axis(tail.shape(), tail.rank() - 1),
      "gated: map ", map.shape(), " and tail ", tail.shape(),
      " must have elements, and one shape but for their channels");
  check(tail.dtype() == map.dtype() && is_floating(map.dtype()) && tail.device() == map.device(),
        "gated: map is ", map.dtype(), " on ", map.device(), ", tail ", tail.dtype(), " on ",
        tail.device(), "; both must be of one floating dtype on one device");
  const kernels::GateShape s{map.numel() / map.dim(-1), map.dim(-1), first, width, tail.dim(-1)};
  check(first >= 0 && s.tail <= width && s.end() <= s.map, "gated: ", width,
        " channels of a gate from ", first, " on, and ", width - s.tail,
        " behind them beside a tail of ", s.tail, ", do not lie in a map of ", s.map);
  return s;
}

}  // namespace detail

Tensor gated(const Tensor& map, i64 first, i64 width, const Tensor& tail, Gate f) {
  const kernels::GateShape s = detail::check_gate(map, first, width, tail);
  Tensor y = Tensor::empty(detail::with_size(map.shape(), map.rank() - 1, width), map.dtype(),
                           map.device());
  visit(map.device(), map.dtype(), "gated", [&](auto on, auto t) {
    using T = decltype(t);
    detail::with_gate(f, [&](auto function) {
      kernels::gate(on, s, map.data<T>(), tail.data<T>(), y.data<T>(), function);
    });
  });
  return record(y, "gated", {map, tail},
                [s, f, saved_map = Saved(map), saved_tail = Saved(tail)](const Tensor& dy) {
                  const Tensor m = saved_map.get(), t = saved_tail.get();
                  Tensor dmap = Tensor::empty(m.shape(), m.dtype(), m.device()),
                         dtail = Tensor::empty(t.shape(), t.dtype(), t.device());
                  visit(dy.device(), dy.dtype(), "gated", [&](auto on, auto number) {
                    using T = decltype(number);
                    detail::with_gate(f, [&](auto function) {
                      kernels::gate_backward(on, s, m.data<T>(), t.data<T>(), dy.data<T>(),
                                             dmap.data<T>(), dtail.data<T>(), function);
                    });
                  });
                  return Grads{dmap, dtail};
                });
}

Tensor gated_composed(const Tensor& map, i64 first, i64 width, const Tensor& tail, Gate f) {
  const kernels::GateShape s = detail::check_gate(map, first, width, tail);
  const Tensor g = narrow(map, -1, first, width);
  const Tensor m = concat({narrow(map, -1, first + width, s.plain()), tail}, -1);
  return (f == Gate::gelu ? gelu(g) : silu(g)) * m;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
