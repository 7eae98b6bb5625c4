#pragma once
#include "ppma/core/names_begin.hpp"
// A loop over the channels of a row: whole vectors first, then single elements, with one body for
// both.
//
//   columns<T>(n, [&](i64 c, auto lane) { using V = decltype(lane);  // Vec<T> or T
//     put(y + c, get<V>(x + c) * get<V>(w + c)); });

#include <cstring>
#include <type_traits>

#include "ppma/core/config.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Reads a V (a vector or one element) from p, writes one to p.
template <class V, class T>
PPMA_INLINE V get(const T* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class V, class T>
PPMA_INLINE void put(T* p, V v) {
  static_assert(sizeof(V) % sizeof(T) == 0);
  std::memcpy(p, &v, sizeof v);
}

template <class T, class F>
PPMA_INLINE void columns(i64 n, F&& f) {
  i64 c = 0;
  for (; c + lanes<T> <= n; c += lanes<T>) f(c, Vec<T>{});
  for (; c < n; ++c) f(c, T{});
}

/// Sum over c < n of term(c, V{}), two running vectors.
template <class T, class F>
PPMA_INLINE T sum_columns(i64 n, F&& term) {
  Vec<T> s0{}, s1{};
  i64 c = 0;
  for (; c + 2 * lanes<T> <= n; c += 2 * lanes<T>) {
    s0 += term(c, Vec<T>{});
    s1 += term(c + lanes<T>, Vec<T>{});
  }
  if (c + lanes<T> <= n) {
    s0 += term(c, Vec<T>{});
    c += lanes<T>;
  }
  T tail = 0;
  for (; c < n; ++c) tail += term(c, T{});
  return lane_sum<T>(s0 + s1) + tail;
}

namespace detail {
// f of a vector or of one element; nvcc knows no Vec in what runs on the device too.
template <class T, class F, class V>
PPMA_INLINE V on_lanes(F f, V v) {
  if constexpr (std::is_same_v<V, T> || !PPMA_CUDA) {
    return f(v);
  } else {
    V y{};
    for (i64 i = 0; i < lanes<T>; ++i) y[i] = f(T(v[i]));
    return y;
  }
}
template <class F>
struct ValueOf {
  F function;
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V z) const {
    return function.f(z);
  }
};
template <class F>
struct SlopeOf {
  F function;
  template <class V>
  PPMA_HD PPMA_INLINE V operator()(V z) const {
    return function.df(z);
  }
};
}  // namespace detail

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
