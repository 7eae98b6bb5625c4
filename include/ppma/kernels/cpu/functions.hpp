#pragma once
#include "ppma/core/names_begin.hpp"
// exp, log, erf and their like without libm. Each takes a Vec (simd.hpp) or a plain float or
// double, so that a kernel's tail computes exactly what its body computes.

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "ppma/core/float_bits.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::detail PPMA_WIDTH {

// sum of c[i] * x^i, Horner.
template <class V, class T, std::size_t n>
PPMA_INLINE V polynomial(V x, const T (&c)[n]) {
  V y = filled<V>(c[n - 1]);
  for (std::size_t i = n - 1; i-- > 0;) y = y * x + c[i];
  return y;
}

// The reduction that both exponentials below share: e^x = 2^n e^r with |r| <= ln2 / 2. Returns e^r;
// n stands in the low bits of `shifted`, above shifter()'s own.
template <class V>
PPMA_INLINE V shifter() {  // adding 1.5 * 2^(mantissa bits) rounds to an integer
  return filled<V>(std::is_same_v<LaneOf<V>, float> ? LaneOf<V>(12582912.0)
                                                    : LaneOf<V>(6755399441055744.0));
}
template <class V>
PPMA_INLINE V exp_reduced(V x, V& shifted) {
  using T = LaneOf<V>;
  constexpr bool single = std::is_same_v<T, float>;
  constexpr T ln2_hi = single ? T(0.693359375) : T(6.93147180369123816490e-01);
  constexpr T ln2_lo = single ? T(-2.12194440e-4) : T(1.90821492927058770002e-10);
  // Each opaque() keeps a step that is exact in this order only: -ffast-math would cancel the
  // shifter, and would sum the two parts of ln 2.
  shifted = opaque(x * T(1.4426950408889634) + shifter<V>());
  const V n = shifted - shifter<V>();
  const V r = opaque(x - n * ln2_hi) - n * ln2_lo;
  if constexpr (single) {  // Cephes' expf
    constexpr T c[] = {5.0000001201e-1f, 1.6666665459e-1f, 4.1665795894e-2f,
                       8.3334519073e-3f, 1.3981999507e-3f, 1.9875691500e-4f};
    return r * r * polynomial(r, c) + r + T(1);
  } else {  // Taylor; the next term is below 1e-17
    constexpr T c[] = {1.0,
                       1.0,
                       1.0 / 2,
                       1.0 / 6,
                       1.0 / 24,
                       1.0 / 120,
                       1.0 / 720,
                       1.0 / 5040,
                       1.0 / 40320,
                       1.0 / 362880,
                       1.0 / 3628800,
                       1.0 / 39916800,
                       1.0 / 479001600,
                       1.0 / 6227020800.0};
    return polynomial(r, c);
  }
}

}  // namespace ppma::inline PPMA_ABI::detail PPMA_WIDTH

namespace ppma::inline PPMA_ABI PPMA_WIDTH {

template <class V>
PPMA_INLINE V abs_of(V a) {
  return a < 0 ? -a : a;
}

/// e^x, relative error below 2 ulp. Results that would be denormal are 0; overflow is infinity, NaN
/// stays NaN.
template <class V>
PPMA_INLINE V exp_of(V x) {
  using T = detail::LaneOf<V>;
  using B = typename detail::BitsOf<V>::type;
  constexpr bool single = std::is_same_v<T, float>;
  constexpr T low = single ? T(-87.33) : T(-708.3), high = single ? T(88.722) : T(709.78);
  V shifted;
  const V p = detail::exp_reduced(
      min_of(max_of(x, detail::filled<V>(low)), detail::filled<V>(high)), shifted);
  // 2^n by its exponent bits, in two factors: n reaches 128 (1024), one beyond the largest
  // exponent.
  constexpr int mantissa = single ? 23 : 52;
  B bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const V base = detail::shifter<V>();
  B zero;
  std::memcpy(&zero, &base, sizeof zero);
  const B whole = bits - zero, half = whole >> 1, rest = whole - half;
  const B one = detail::filled<B>(single ? 127 : 1023);
  B b1 = (half + one) << mantissa, b2 = (rest + one) << mantissa;
  V f1, f2;
  std::memcpy(&f1, &b1, sizeof f1);
  std::memcpy(&f2, &b2, sizeof f2);
  const V y = opaque(p * f1) * f2;  // f1 * f2 alone may be infinite
  // Outside of the range, chosen by integers: of floats -ffast-math assumes that they are never
  // infinite or NaN.
  B result;
  std::memcpy(&result, &y, sizeof result);
  using Int = std::make_signed_t<typename detail::FloatLayout<T>::Bits>;
  const B endless = detail::filled<B>(static_cast<Int>(detail::FloatLayout<T>::infinity));
  B argument;
  std::memcpy(&argument, &x, sizeof argument);
  result = x <= high ? result : endless;
  result = x < low ? B{} : result;
  result = nan_of(x) ? argument : result;
  V chosen;
  std::memcpy(&chosen, &result, sizeof chosen);
  return chosen;
}

/// e^x for x <= 0, in half of exp_of()'s operations: what a softmax needs once the maximum is
/// taken off. Relative error below 2 ulp; 0 below -87.7 (-708.7), NaN stays NaN.
template <class V>
PPMA_INLINE V exp_below_zero(V x) {
  using T = detail::LaneOf<V>;
  using B = typename detail::BitsOf<V>::type;
  // From the bound on n is -127 (-1023), whose exponent bits are those of 0.
  const V bound = detail::filled<V>(std::is_same_v<T, float> ? T(-88) : T(-709));
  const V clamped = bound > x ? bound : x;
  V shifted;
  const V p = detail::exp_reduced(clamped, shifted);
  B bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  constexpr int mantissa = std::is_same_v<T, float> ? 23 : 52;
  bits =
      (bits << mantissa) + (detail::filled<B>(std::is_same_v<T, float> ? 127 : 1023) << mantissa);
  V scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}

/// ln x, below 1 ulp; ln 0 is -infinity, of less than 0 NaN. f32: Cephes' logf, as Eigen has it (a
/// register at a time, and as exact as libm lane by lane); f64: libm, which Eigen's is less exact
/// than.
template <class V>
PPMA_INLINE V log_of(V x) {
  using T = detail::LaneOf<V>;
  if constexpr (std::is_same_v<T, float>) {
    using B = typename detail::BitsOf<V>::type;
    B given, bits, mantissa, exponent;
    std::memcpy(&given, &x, sizeof given);
    // A denormal is made normal first: times 2^25.
    const V larger = opaque(x * T(33554432));
    std::memcpy(&bits, &larger, sizeof bits);
    const B none{}, smallest = detail::filled<B>(0x00800000);
    bits = given < smallest ? bits : given;
    // x = 2^e (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)); n is e as a float, by 1.5 * 2^23 + e.
    const B e = (bits - 0x3f3504f3) >> 23;
    mantissa = bits - (e << 23);
    exponent = e - (given < smallest ? detail::filled<B>(25) : none) + 0x4b400000;
    V m, shifted;
    std::memcpy(&m, &mantissa, sizeof m);
    std::memcpy(&shifted, &exponent, sizeof shifted);
    const V n = shifted - T(12582912), f = m - T(1), f2 = f * f;
    constexpr T c[] = {3.3333331174e-1f,  -2.4999993993e-1f, 2.0000714765e-1f,
                       -1.6668057665e-1f, 1.4249322787e-1f,  -1.2420140846e-1f,
                       1.1676998740e-1f,  -1.1514610310e-1f, 7.0376836292e-2f};
    // Each opaque() keeps the two parts of ln 2 apart under -ffast-math.
    const V rest = opaque(f * f2 * detail::polynomial(f, c) + n * T(-2.12194440e-4)) - f2 * T(0.5);
    const V y = opaque(f + rest) + n * T(0.693359375);
    B result;
    std::memcpy(&result, &y, sizeof result);
    const B endless = detail::filled<B>(0x7f800000), magnitude = given & 0x7fffffff,
            minus = detail::filled<B>(std::numeric_limits<std::int32_t>::min());
    result = given < endless ? result : given;  // infinity and NaN
    result = given < 0 ? endless + 0x00400000 : result;
    result = magnitude == 0 ? endless | minus : result;
    V chosen;
    std::memcpy(&chosen, &result, sizeof chosen);
    return chosen;
  } else if constexpr (std::is_same_v<V, double>) {
    return std::log(x);
  } else {
    V y{};
    for (i64 i = 0; i < lanes<T>; ++i) y[i] = std::log(x[i]);
    return y;
  }
}

/// ln(1 + u) for 0 <= u <= 1, relative error a few ulp also for tiny u: 2 artanh(u / (2 + u)) by
/// its series.
template <class V>
PPMA_INLINE V log1p_unit(V u) {
  using T = detail::LaneOf<V>;
  const V s = u / (u + T(2));
  const V s2 = s * s;  // <= 1/9
  if constexpr (std::is_same_v<T, float>) {
    constexpr T c[] = {2.f, 2.f / 3, 2.f / 5, 2.f / 7, 2.f / 9, 2.f / 11, 2.f / 13, 2.f / 15};
    return s * detail::polynomial(s2, c);
  } else {
    constexpr T c[] = {2.0,      2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11,
                       2.0 / 13, 2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23,
                       2.0 / 25, 2.0 / 27, 2.0 / 29, 2.0 / 31, 2.0 / 33};
    return s * detail::polynomial(s2, c);
  }
}

/// ln(1 + e^x) without overflow.
template <class V>
PPMA_INLINE V softplus_of(V x) {
  return max_of(x, V{}) + log1p_unit(exp_of(-abs_of(x)));
}

/// 1 / (1 + e^-x) without overflow.
template <class V>
PPMA_INLINE V sigmoid_of(V x) {
  using T = detail::LaneOf<V>;
  const V e = exp_of(-abs_of(x));
  return (x < 0 ? e : V{} + T(1)) / (e + T(1));
}

template <class V>
PPMA_INLINE V tanh_of(V x) {
  using T = detail::LaneOf<V>;
  if constexpr (std::is_same_v<T, float>) {
    // For small |x| the quotient cancels: an odd series there, (1 - e) / (1 + e) with e =
    // exp(-2|x|) elsewhere.
    const V a = abs_of(x), e = exp_of(a * T(-2)), x2 = x * x;
    constexpr T c[] = {T(1),           T(-1.0 / 3),    T(2.0 / 15),
                       T(-17.0 / 315), T(62.0 / 2835), T(-1382.0 / 155925)};
    const V small = x * detail::polynomial(x2, c), big = (T(1) - e) / (T(1) + e);
    return a < T(0.35) ? small : (x < 0 ? -big : big);
  } else if constexpr (std::is_same_v<V, double>) {
    return std::tanh(x);
  } else {
    V y{};
    for (i64 i = 0; i < lanes<T>; ++i) y[i] = std::tanh(x[i]);
    return y;
  }
}

/// The error function. f32: the rational approximation on [-4, 4] that Eigen and XLA use (a few
/// ulp); f64: libm.
template <class V>
PPMA_INLINE V erf_of(V x) {
  using T = detail::LaneOf<V>;
  if constexpr (std::is_same_v<T, float>) {
    constexpr T p[] = {-1.60960333262415e-02f, -2.95459980854025e-03f, -7.34990630326855e-04f,
                       -5.69250639462346e-05f, -2.10102402082508e-06f, 2.77068142495902e-08f,
                       -2.72614225801306e-10f};
    constexpr T q[] = {-1.42647390514189e-02f, -7.37332916720468e-03f, -1.68282697438203e-03f,
                       -2.13374055278905e-04f, -1.45660718464996e-05f};
    const V c = min_of(max_of(x, detail::filled<V>(T(-4))), detail::filled<V>(T(4))), c2 = c * c;
    const V inside = c * detail::polynomial(c2, p) / detail::polynomial(c2, q),
            one = detail::filled<V>(T(1));
    // A quotient by a rounded reciprocal, as -ffast-math has it, misses 1, and GELU far below 0 is
    // off by |x| ulp.
    return c >= T(4) ? one : (c <= T(-4) ? -one : inside);
  } else if constexpr (std::is_same_v<V, double>) {
    return std::erf(x);
  } else {
    V y{};
    for (i64 i = 0; i < lanes<T>; ++i) y[i] = std::erf(x[i]);
    return y;
  }
}

}  // namespace ppma::inline PPMA_ABI PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/functions.cuh"
#endif

#include "ppma/core/names_end.hpp"
