#pragma once
#include "ppma/core/names_begin.hpp"
// Arithmetic, elementwise: two tensors with broadcasting (numpy's rule: axes aligned at the end,
// sizes equal or 1), a tensor and a number, and the usual functions. Both tensors of a pair have
// one dtype. Gradients follow PyTorch's.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

// A function and its derivative, on a line each.
// clang-format off

// clang-format on

// ---- a tensor and a number --------------------------------------------------------------------

/// s * x.
PPMA_API Tensor scale(const Tensor& x, double s);

/// x + s.
PPMA_API Tensor add_scalar(const Tensor& x, double s);

/// -x
PPMA_API Tensor neg(const Tensor& x);

// ---- two tensors ------------------------------------------------------------------------------

/// a + b, broadcasting.
PPMA_API Tensor add(const Tensor& a, const Tensor& b);

/// a - b, broadcasting.
PPMA_API Tensor sub(const Tensor& a, const Tensor& b);

/// a * b, broadcasting.
PPMA_API Tensor mul(const Tensor& a, const Tensor& b);

/// a / b, broadcasting.
PPMA_API Tensor div(const Tensor& a, const Tensor& b);

/// The larger of a and b, broadcasting; equal elements get half of the gradient each; NaN stays
/// NaN.
PPMA_API Tensor maximum(const Tensor& a, const Tensor& b);

/// The smaller of a and b, as maximum.
PPMA_API Tensor minimum(const Tensor& a, const Tensor& b);

// ---- functions --------------------------------------------------------------------------------

/// e^x
PPMA_API Tensor exp(const Tensor& x);

/// Natural logarithm; NaN below 0.
PPMA_API Tensor log(const Tensor& x);

/// Square root; NaN below 0.
PPMA_API Tensor sqrt(const Tensor& x);
/// x^2
PPMA_API Tensor square(const Tensor& x);

/// |x|; its gradient at 0 is 0.
PPMA_API Tensor abs(const Tensor& x);

/// x limited to [low, high]; no gradient outside.
PPMA_API Tensor clamp(const Tensor& x, double low, double high);

/// x with |x| limited to [low, high], 0 < low: each element keeps its sign, and 0 stays 0; no
/// gradient outside.
PPMA_API Tensor clamp_magnitude(const Tensor& x, double low, double high);

/// x^p for a number p.
PPMA_API Tensor pow(const Tensor& x, double p);

// ---- operators --------------------------------------------------------------------------------

/// Element by element, with NumPy's broadcasting; with a number, for every element.
PPMA_API Tensor operator+(const Tensor& a, const Tensor& b);

/// As operator+.
PPMA_API Tensor operator-(const Tensor& a, const Tensor& b);
PPMA_API Tensor operator*(const Tensor& a, const Tensor& b);
PPMA_API Tensor operator/(const Tensor& a, const Tensor& b);
PPMA_API Tensor operator-(const Tensor& x);
PPMA_API Tensor operator+(const Tensor& x, double s);
PPMA_API Tensor operator+(double s, const Tensor& x);
PPMA_API Tensor operator-(const Tensor& x, double s);
PPMA_API Tensor operator-(double s, const Tensor& x);
PPMA_API Tensor operator*(const Tensor& x, double s);
PPMA_API Tensor operator*(double s, const Tensor& x);
PPMA_API Tensor operator/(const Tensor& x, double s);
PPMA_API Tensor operator/(double s, const Tensor& x);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_ELEMENTS)

#include <cmath>

#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/ops/elementwise.hpp"

namespace ppma::inline PPMA_ABI {

namespace functions {

struct Add {
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V a, V b) const {
    return a + b;
  }
};

struct Sub {
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V a, V b) const {
    return a - b;
  }
};

struct Mul {
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V a, V b) const {
    return a * b;
  }
};

struct Div {
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V a, V b) const {
    return a / b;
  }
};

struct Larger {  // a NaN on either side stays
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V a, V b) const {
    return nan_of(a) ? a : (nan_of(b) ? b : (a > b ? a : b));
  }
};

struct Smaller {
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V a, V b) const {
    return nan_of(a) ? a : (nan_of(b) ? b : (a < b ? a : b));
  }
};

struct IsLarger {  // 1, 0, and a half each for equals
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V a, V b) const {
    const V one = V{} + constant<V>(1), half = V{} + constant<V>(0.5);
    return a > b ? one : (a < b ? V{} : half);
  }
};

struct Scale {
  double s;
  static constexpr Keep keep = Keep::nothing;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    return x * constant<V>(s);
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V) const {
    return V{} + constant<V>(s);
  }
};

struct AddScalar {
  double s;
  static constexpr Keep keep = Keep::nothing;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    return x + constant<V>(s);
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V) const {
    return V{} + constant<V>(1);
  }
};

struct Exp {
  static constexpr Keep keep = Keep::output;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    return exp_of(x);
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V y) const {
    return y;
  }
};

struct Log {
  static constexpr Keep keep = Keep::input;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    return log_of(x);
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V x) const {
    return constant<V>(1) / x;
  }
};

struct Sqrt {
  static constexpr Keep keep = Keep::output;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    return each_lane(x, [](auto v) { return std::sqrt(v); });
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V y) const {
    return constant<V>(0.5) / y;
  }
};

struct Square {
  static constexpr Keep keep = Keep::input;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    return x * x;
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V x) const {
    return x + x;
  }
};

struct Abs {
  static constexpr Keep keep = Keep::input;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    return abs_of(x);
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V x) const {
    const V one = V{} + constant<V>(1);
    return x > 0 ? one : (x < 0 ? -one : V{});
  }
};

struct Clamp {
  double low, high;
  static constexpr Keep keep = Keep::input;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    const V lo = V{} + constant<V>(low), hi = V{} + constant<V>(high);
    return nan_of(x) ? x : (x < lo ? lo : (x > hi ? hi : x));
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V x) const {
    const V one = V{} + constant<V>(1);
    return x < constant<V>(low) ? V{} : (x > constant<V>(high) ? V{} : one);
  }
};

struct ClampMagnitude {
  double low, high;
  static constexpr Keep keep = Keep::input;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    const V size = Clamp{low, high}.f(abs_of(x));
    return x > 0 ? size : (x < 0 ? -size : x);
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V x) const {
    return Clamp{low, high}.df(abs_of(x));
  }
};

struct Pow {
  double p;
  static constexpr Keep keep = Keep::input;
  template <class V>
  PPMA_HD PPMA_INLINE V f(V x) const {
    return each_lane(x, [q = constant<V>(p)](auto v) { return std::pow(v, q); });
  }
  template <class V>
  PPMA_HD PPMA_INLINE V df(V x) const {
    if (p == 0) return V{};
    return each_lane(x, [q = constant<V>(p)](auto v) { return q * std::pow(v, q - 1); });
  }
};

}  // namespace functions

Tensor scale(const Tensor& x, double s) { return elementwise("scale", x, functions::Scale{s}); }
Tensor add_scalar(const Tensor& x, double s) {
  return elementwise("add_scalar", x, functions::AddScalar{s});
}
Tensor neg(const Tensor& x) { return elementwise("neg", x, functions::Scale{-1}); }

Tensor add(const Tensor& a, const Tensor& b) {
  return record(detail::combine("add", a, b, functions::Add{}), "add", {a, b},
                [](const Tensor& dy) {
                  return Grads{dy, dy};
                });
}

Tensor sub(const Tensor& a, const Tensor& b) {
  const bool needs_b = b.requires_grad();
  return record(detail::combine("sub", a, b, functions::Sub{}), "sub", {a, b},
                [needs_b](const Tensor& dy) {
                  return Grads{dy, needs_b ? neg(dy) : Tensor()};
                });
}

Tensor mul(const Tensor& a, const Tensor& b) {
  // Each factor is kept only if the other one needs a gradient.
  const Tensor keep_a = b.requires_grad() ? a.detach() : Tensor(),
               keep_b = a.requires_grad() ? b.detach() : Tensor();
  return record(detail::combine("mul", a, b, functions::Mul{}), "mul", {a, b},
                [keep_a, keep_b](const Tensor& dy) {
                  return Grads{keep_b.defined() ? mul(dy, keep_b) : Tensor(),
                               keep_a.defined() ? mul(dy, keep_a) : Tensor()};
                });
}

Tensor div(const Tensor& a, const Tensor& b) {
  const Tensor y = detail::combine("div", a, b, functions::Div{});
  const Tensor keep_y = b.requires_grad() ? y.detach() : Tensor();
  return record(y, "div", {a, b}, [b = b.detach(), keep_y](const Tensor& dy) {
    const Tensor da = div(dy, b);  // y = a / b
    return Grads{da, keep_y.defined() ? neg(mul(da, keep_y)) : Tensor()};
  });
}

Tensor maximum(const Tensor& a, const Tensor& b) {
  const Tensor y = detail::combine("maximum", a, b, functions::Larger{});
  return record(y, "maximum", {a, b}, [a = a.detach(), b = b.detach()](const Tensor& dy) {
    const Tensor da = mul(dy, detail::combine("maximum", a, b, functions::IsLarger{}));
    return Grads{da, sub(dy, da)};
  });
}

Tensor minimum(const Tensor& a, const Tensor& b) {
  const Tensor y = detail::combine("minimum", a, b, functions::Smaller{});
  return record(y, "minimum", {a, b}, [a = a.detach(), b = b.detach()](const Tensor& dy) {
    const Tensor da = mul(dy, detail::combine("minimum", b, a, functions::IsLarger{}));
    return Grads{da, sub(dy, da)};
  });
}

Tensor exp(const Tensor& x) { return elementwise("exp", x, functions::Exp{}); }
Tensor log(const Tensor& x) { return elementwise("log", x, functions::Log{}); }
Tensor sqrt(const Tensor& x) { return elementwise("sqrt", x, functions::Sqrt{}); }
Tensor square(const Tensor& x) { return elementwise("square", x, functions::Square{}); }
Tensor abs(const Tensor& x) { return elementwise("abs", x, functions::Abs{}); }

Tensor clamp(const Tensor& x, double low, double high) {
  check(low <= high, "clamp: low ", low, " is above high ", high);
  return elementwise("clamp", x, functions::Clamp{low, high});
}

Tensor clamp_magnitude(const Tensor& x, double low, double high) {
  check(0 < low && low <= high, "clamp_magnitude: [", low, ", ", high,
        "] must be positive, low not above high");
  return elementwise("clamp_magnitude", x, functions::ClampMagnitude{low, high});
}

Tensor pow(const Tensor& x, double p) { return elementwise("pow", x, functions::Pow{p}); }
Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
Tensor operator-(const Tensor& x) { return neg(x); }
Tensor operator+(const Tensor& x, double s) { return add_scalar(x, s); }
Tensor operator+(double s, const Tensor& x) { return add_scalar(x, s); }
Tensor operator-(const Tensor& x, double s) { return add_scalar(x, -s); }
Tensor operator-(double s, const Tensor& x) { return add_scalar(neg(x), s); }
Tensor operator*(const Tensor& x, double s) { return scale(x, s); }
Tensor operator*(double s, const Tensor& x) { return scale(x, s); }
Tensor operator/(const Tensor& x, double s) { return scale(x, 1 / s); }
Tensor operator/(double s, const Tensor& x) { return scale(pow(x, -1), s); }

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
