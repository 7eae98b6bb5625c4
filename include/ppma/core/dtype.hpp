#pragma once
#include "ppma/core/names_begin.hpp"
// DType: what one element of a tensor is. bf16 is storage only (the upper half of an f32);
// arithmetic is in float.

#include <cstring>
#include <string>

#include "ppma/core/config.hpp"
#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

/// Kinds of elements: floating ones of 32, 64 and 16 bits, whole numbers of 64 and 8.
enum class DType : u8 { f32, f64, bf16, int64, uint8 };

struct bf16 {
  std::uint16_t bits;

  bf16() = default;
  /// Rounded to the nearest, ties to even.
  PPMA_HD explicit bf16(float x) : bits(round(x)) {}
  /// Exactly.
  PPMA_HD operator float() const {
    const u32 wide = static_cast<u32>(bits) << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
  }

 private:
  // Round to nearest even; a NaN stays a NaN instead of overflowing to infinity.
  PPMA_HD static std::uint16_t round(float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    std::uint16_t rounded;  // one instruction instead of ten
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(x));
    return rounded;
#else
    u32 wide;
    memcpy(&wide, &x, sizeof wide);
    if ((wide & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((wide >> 16) | 0x40u);
    return static_cast<std::uint16_t>((wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16);
#endif
  }
};

/// Bytes of an element.
constexpr i64 size_of(DType t) {
  switch (t) {
    case DType::f32:
      return 4;
    case DType::f64:
      return 8;
    case DType::bf16:
      return 2;
    case DType::int64:
      return 8;
    case DType::uint8:
      return 1;
  }
  return 0;
}

/// True for f32, f64 and bf16.
constexpr bool is_floating(DType t) {
  return t == DType::f32 || t == DType::f64 || t == DType::bf16;
}

/// "f32", "f64", "bf16", "int64", "uint8".
inline std::string to_string(DType t) {
  switch (t) {
    case DType::f32:
      return "f32";
    case DType::f64:
      return "f64";
    case DType::bf16:
      return "bf16";
    case DType::int64:
      return "int64";
    case DType::uint8:
      return "uint8";
  }
  return "?";
}

/// The DType of a C++ type: dtype_of<float> is DType::f32.
template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<i64> {
  static constexpr DType value = DType::int64;
};
template <>
struct DTypeOf<u8> {
  static constexpr DType value = DType::uint8;
};
template <class T>
inline constexpr DType dtype_of = DTypeOf<T>::value;

/// Calls f(T{}) with the C++ type of `t`, whatever it is. For arithmetic use visit() of
/// core/device.hpp.
template <class F>
decltype(auto) visit_any(DType t, F&& f) {
  switch (t) {
    case DType::f64:
      return f(double{});
    case DType::bf16:
      return f(bf16{});
    case DType::int64:
      return f(i64{});
    case DType::uint8:
      return f(u8{});
    default:
      return f(float{});
  }
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
