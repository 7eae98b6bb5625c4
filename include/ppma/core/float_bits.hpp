#pragma once
#include "ppma/core/names_begin.hpp"
// NaN and infinity told and made by their bits, and values that the compiler cannot look through.
//
// Programs that include the library may be compiled with -ffast-math. Then the compiler takes for
// granted that there is no NaN and no infinity (std::isnan(x) and x != x become false, x + infinity
// becomes anything) and that sums may be reordered ((x + big) - big becomes x). What depends on
// either goes through the functions of this header: they mean the same under every flag.

#include <cstdint>
#include <cstring>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class T>
struct FloatLayout;
template <>
struct FloatLayout<float> {
  using Bits = std::uint32_t;
  static constexpr Bits infinity = 0x7f800000u, nan = 0x7fc00000u, magnitude = 0x7fffffffu;
};
template <>
struct FloatLayout<double> {
  using Bits = std::uint64_t;
  static constexpr Bits infinity = 0x7ff0000000000000u, nan = 0x7ff8000000000000u,
                        magnitude = 0x7fffffffffffffffu;
};

// The bits of |x|. Compilers know what some tests of bits mean and would turn them back into tests
// of numbers; they know nothing of what comes out of an asm, even of an empty one.
template <class T>
PPMA_HD PPMA_INLINE typename FloatLayout<T>::Bits magnitude_bits(T x) {
  typename FloatLayout<T>::Bits bits;
  memcpy(&bits, &x, sizeof bits);
#if !PPMA_ON_DEVICE
  asm("" : "+r"(bits));
#endif
  return bits & FloatLayout<T>::magnitude;
}

template <class T>
PPMA_HD PPMA_INLINE T from_bits(typename FloatLayout<T>::Bits bits) {
#if !PPMA_ON_DEVICE
  asm("" : "+r"(bits));
#endif
  T x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

// std::bit_cast, which older standard libraries lack (emscripten 3.1.6 has libc++'s of 2021).
template <class To, class From>
PPMA_INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

}  // namespace detail

/// x is a NaN, is an infinity of either sign, is neither: as std::isnan, std::isinf, std::isfinite
/// without -ffast-math.
PPMA_HD PPMA_INLINE bool is_nan(float x) {
  return detail::magnitude_bits(x) > detail::FloatLayout<float>::infinity;
}
PPMA_HD PPMA_INLINE bool is_nan(double x) {
  return detail::magnitude_bits(x) > detail::FloatLayout<double>::infinity;
}
PPMA_HD PPMA_INLINE bool is_inf(float x) {
  return detail::magnitude_bits(x) == detail::FloatLayout<float>::infinity;
}
PPMA_HD PPMA_INLINE bool is_inf(double x) {
  return detail::magnitude_bits(x) == detail::FloatLayout<double>::infinity;
}
PPMA_HD PPMA_INLINE bool is_finite(float x) {
  return detail::magnitude_bits(x) < detail::FloatLayout<float>::infinity;
}
PPMA_HD PPMA_INLINE bool is_finite(double x) {
  return detail::magnitude_bits(x) < detail::FloatLayout<double>::infinity;
}

/// The infinities and a quiet NaN that reach their place under every flag:
/// negative_infinity<float>().
template <class T>
PPMA_HD PPMA_INLINE T positive_infinity() {
  return detail::from_bits<T>(detail::FloatLayout<T>::infinity);
}
template <class T>
PPMA_HD PPMA_INLINE T negative_infinity() {
  return detail::from_bits<T>(~detail::FloatLayout<T>::magnitude |
                              detail::FloatLayout<T>::infinity);
}
template <class T>
PPMA_HD PPMA_INLINE T not_a_number() {
  return detail::from_bits<T>(detail::FloatLayout<T>::nan);
}

/// v itself, a float, a double or a vector of them, of which the compiler does not know how it came
/// about: in opaque(x + big) - big the two do not cancel. Costs no instruction. Means something on
/// the host only.
template <class V>
PPMA_INLINE V opaque(V v) {
#if defined(PPMA_VECTOR_REGISTER)
  asm("" : "+" PPMA_VECTOR_REGISTER(v));
#else
  asm("" : "+m"(v));
#endif
  return v;
}
#if PPMA_CUDA  // nvcc knows no vectors in a function of both sides: only numbers there
#if PPMA_ON_DEVICE
PPMA_HD PPMA_INLINE float opaque(float v) { return v; }
PPMA_HD PPMA_INLINE double opaque(double v) { return v; }
#else
PPMA_HD PPMA_INLINE float opaque(float v) { return opaque<float>(v); }
PPMA_HD PPMA_INLINE double opaque(double v) { return opaque<double>(v); }
#endif
#endif

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
