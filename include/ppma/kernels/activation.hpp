#pragma once
#include "ppma/core/names_begin.hpp"
// Activation functions and their derivatives, for CPU and GPU: what they are for stands in
// ops/activation.hpp.

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/map.hpp"

namespace ppma::inline PPMA_ABI {

// A function and its derivative, on a line each.
// clang-format off
namespace functions {

struct Relu {
  static constexpr Keep keep = Keep::output;
  template <class V> PPMA_HD PPMA_INLINE V f(V x) const {
    return nan_of(x) ? x : (x < 0 ? V{} : x);
  }
  template <class V> PPMA_HD PPMA_INLINE V df(V y) const {
    const V one = V{} + constant<V>(1);
    return y > 0 ? one : V{};
  }
};
struct Gelu {
  static constexpr Keep keep = Keep::input;
  template <class V> PPMA_HD PPMA_INLINE V phi(V x) const {  // the normal distribution function
    // opaque: x / 2 + x / 2 erf(...), as -ffast-math would have it, does not vanish far below 0.
    const V above = opaque(constant<V>(1) + erf_of(x * constant<V>(0.70710678118654752440)));
    return constant<V>(0.5) * above;
  }
  template <class V> PPMA_HD PPMA_INLINE V f(V x) const { return x * phi(x); }
  template <class V> PPMA_HD PPMA_INLINE V df(V x) const {
    const V density = constant<V>(0.39894228040143267794) * exp_of(x * x * constant<V>(-0.5));
    return phi(x) + x * density;
  }
};
struct Silu {
  static constexpr Keep keep = Keep::input;
  template <class V> PPMA_HD PPMA_INLINE V f(V x) const { return x * sigmoid_of(x); }
  template <class V> PPMA_HD PPMA_INLINE V df(V x) const {
    const V s = sigmoid_of(x);
    return s * (constant<V>(1) + x * (constant<V>(1) - s));
  }
};
struct Sigmoid {
  static constexpr Keep keep = Keep::output;
  template <class V> PPMA_HD PPMA_INLINE V f(V x) const { return sigmoid_of(x); }
  template <class V> PPMA_HD PPMA_INLINE V df(V y) const { return y * (constant<V>(1) - y); }
};
struct Tanh {
  static constexpr Keep keep = Keep::output;
  template <class V> PPMA_HD PPMA_INLINE V f(V x) const { return tanh_of(x); }
  template <class V> PPMA_HD PPMA_INLINE V df(V y) const { return constant<V>(1) - y * y; }
};
struct Softplus {
  static constexpr Keep keep = Keep::input;
  template <class V> PPMA_HD PPMA_INLINE V f(V x) const {
    return x > constant<V>(20) ? x : softplus_of(x);
  }
  template <class V> PPMA_HD PPMA_INLINE V df(V x) const {
    const V one = V{} + constant<V>(1);
    return x > constant<V>(20) ? one : sigmoid_of(x);
  }
};

}  // namespace functions
// clang-format on

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
