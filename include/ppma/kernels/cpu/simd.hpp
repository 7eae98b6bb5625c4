#pragma once
#include "ppma/core/names_begin.hpp"
// One vector register and the few functions that kernels need on it, for f32 and f64, at whatever
// width the compiler may use (PPMA_SIMD_BYTES). Built on the vector extensions of g++ and clang: +,
// *, <, ?: work elementwise, no intrinsics. exp, erf and their like are in functions.hpp.

#include <cstring>
#include <type_traits>
#include <utility>

#include "ppma/core/config.hpp"
#include "ppma/core/float_bits.hpp"

// nvcc's own parser knows GCC's __builtin_shufflevector from version 13 on.
#if defined(__CUDACC_VER_MAJOR__) && __CUDACC_VER_MAJOR__ < 13
#define PPMA_NO_SHUFFLE 1
#else
#define PPMA_NO_SHUFFLE 0
#endif

namespace ppma::inline PPMA_ABI::detail PPMA_WIDTH {
// Dependent vector types need the attribute on a non-dependent element type.
template <class T>
struct VecType;
template <>
struct VecType<float> {
  typedef float type __attribute__((vector_size(PPMA_SIMD_BYTES)));
  typedef std::int32_t bits __attribute__((vector_size(PPMA_SIMD_BYTES)));
};
template <>
struct VecType<double> {
  typedef double type __attribute__((vector_size(PPMA_SIMD_BYTES)));
  typedef std::int64_t bits __attribute__((vector_size(PPMA_SIMD_BYTES)));
};
}  // namespace ppma::inline PPMA_ABI::detail PPMA_WIDTH

namespace ppma::inline PPMA_ABI PPMA_WIDTH {

template <class T>
using Vec = typename detail::VecType<T>::type;
// integers of T's size; masks are 0 or -1
template <class T>
using VecBits = typename detail::VecType<T>::bits;
template <class T>
inline constexpr i64 lanes = PPMA_SIMD_BYTES / static_cast<i64>(sizeof(T));

template <class T>
PPMA_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
PPMA_INLINE void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof v);
}
/// The first n < lanes elements; the others are 0. Touches no memory behind them.
template <class T>
PPMA_INLINE Vec<T> load_some(const T* p, i64 n) {
  Vec<T> v{};
  std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(T));
  return v;
}
/// v with 0 in all lanes but the first n.
template <class T>
PPMA_INLINE Vec<T> keep_first(Vec<T> v, i64 n) {
  VecBits<T> lane;
  PPMA_UNROLL
  for (i64 i = 0; i < lanes<T>; ++i)
    lane[i] = static_cast<std::remove_reference_t<decltype(lane[0])>>(i);
  return lane < static_cast<std::remove_reference_t<decltype(lane[0])>>(n) ? v : Vec<T>{};
}
template <class T>
PPMA_INLINE void store_some(T* p, Vec<T> v, i64 n) {
  std::memcpy(p, &v, static_cast<std::size_t>(n) * sizeof(T));
}
template <class T>
PPMA_INLINE Vec<T> splat(T x) {
  return Vec<T>{} + x;
}

}  // namespace ppma::inline PPMA_ABI PPMA_WIDTH

namespace ppma::inline PPMA_ABI::detail PPMA_WIDTH {
// v with its lanes rotated by `by`: lane i becomes lane (i + by) mod lanes.
template <class T, int by>
PPMA_INLINE Vec<T> rotate(Vec<T> v) {
  constexpr int n = static_cast<int>(lanes<T>), m = n - 1;
#if PPMA_NO_SHUFFLE
  Vec<T> turned{};
  for (int i = 0; i < n; ++i) turned[i] = v[(i + by) & m];
  return turned;
#else
  if constexpr (n == 16)
    return __builtin_shufflevector(v, v, by & m, (by + 1) & m, (by + 2) & m, (by + 3) & m,
                                   (by + 4) & m, (by + 5) & m, (by + 6) & m, (by + 7) & m,
                                   (by + 8) & m, (by + 9) & m, (by + 10) & m, (by + 11) & m,
                                   (by + 12) & m, (by + 13) & m, (by + 14) & m, (by + 15) & m);
  else if constexpr (n == 8)
    return __builtin_shufflevector(v, v, by & m, (by + 1) & m, (by + 2) & m, (by + 3) & m,
                                   (by + 4) & m, (by + 5) & m, (by + 6) & m, (by + 7) & m);
  else if constexpr (n == 4)
    return __builtin_shufflevector(v, v, by & m, (by + 1) & m, (by + 2) & m, (by + 3) & m);
  else
    return __builtin_shufflevector(v, v, 1, 0);
#endif
}

template <class T, int by, class Join>
PPMA_INLINE Vec<T> fold(Vec<T> v, Join join) {
  if constexpr (by > 0)
    return fold<T, by / 2>(join(v, rotate<T, by>(v)), join);
  else
    return v;
}
}  // namespace ppma::inline PPMA_ABI::detail PPMA_WIDTH

namespace ppma::inline PPMA_ABI PPMA_WIDTH {

/// Sum and largest of the lanes, by halving.
template <class T>
PPMA_INLINE T lane_sum(Vec<T> v) {
  return detail::fold<T, static_cast<int>(lanes<T> / 2)>(
      v, [](Vec<T> a, Vec<T> b) { return a + b; })[0];
}
template <class T>
PPMA_INLINE T lane_max(Vec<T> v) {
  return detail::fold<T, static_cast<int>(lanes<T> / 2)>(
      v, [](Vec<T> a, Vec<T> b) { return a > b ? a : b; })[0];
}

}  // namespace ppma::inline PPMA_ABI PPMA_WIDTH

namespace ppma::inline PPMA_ABI::detail PPMA_WIDTH {
template <class V>
struct LaneType {
  using type = std::remove_cv_t<std::remove_reference_t<decltype(std::declval<V>()[0])>>;
};
template <>
struct LaneType<float> {
  using type = float;
};
template <>
struct LaneType<double> {
  using type = double;
};
template <class V>
using LaneOf = typename LaneType<V>::type;
template <class V>
struct BitsOf {
  using type = VecBits<LaneOf<V>>;
};
template <>
struct BitsOf<float> {
  using type = std::int32_t;
};
template <>
struct BitsOf<double> {
  using type = std::int64_t;
};

// All lanes x. (nvcc 13 crashes where the initialiser of a variable contains V{} + constant.)
template <class V, class T>
PPMA_INLINE V filled(T x) {
  return V{} + x;
}
}  // namespace ppma::inline PPMA_ABI::detail PPMA_WIDTH

namespace ppma::inline PPMA_ABI PPMA_WIDTH {

/// Where v is a NaN, also under -ffast-math: true or false of a scalar, a mask of a Vec (integers 0
/// or -1).
PPMA_HD PPMA_INLINE bool nan_of(float v) { return is_nan(v); }
PPMA_HD PPMA_INLINE bool nan_of(double v) { return is_nan(v); }
template <class V>
PPMA_INLINE auto nan_of(V v) {
  using Layout = detail::FloatLayout<detail::LaneOf<V>>;
  using Int = std::make_signed_t<typename Layout::Bits>;
  const V hidden = opaque(v);
  typename detail::BitsOf<V>::type bits;
  std::memcpy(&bits, &hidden, sizeof bits);
  return (bits & static_cast<Int>(Layout::magnitude)) > static_cast<Int>(Layout::infinity);
}

template <class V>
PPMA_INLINE V max_of(V a, V b) {
  return a > b ? a : b;
}
template <class V>
PPMA_INLINE V min_of(V a, V b) {
  return a < b ? a : b;
}

}  // namespace ppma::inline PPMA_ABI PPMA_WIDTH

#include "ppma/core/names_end.hpp"
