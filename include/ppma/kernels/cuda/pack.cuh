#pragma once
#include "ppma/core/names_begin.hpp"
// Neighbouring elements that a thread of the GPU loads and stores at once, at most 16 bytes,
// computed in acc_t<T>.

#include <cuda_bf16.h>

#include <cstring>
#include <type_traits>

#include "ppma/core/cuda.cuh"
#include "ppma/core/device.hpp"

namespace ppma::inline PPMA_ABI::kernels {

/// Elements in 16 bytes.
template <class T>
inline constexpr int pack_width = 16 / static_cast<int>(sizeof(T));

namespace detail {
template <int bytes>
struct RawPack;
template <>
struct RawPack<16> {
  using type = uint4;
};
template <>
struct RawPack<8> {
  using type = uint2;
};
template <>
struct RawPack<4> {
  using type = unsigned;
};
template <>
struct RawPack<2> {
  using type = unsigned short;
};
}  // namespace detail

/// v = V elements from p, which is aligned to V elements (or to 16 bytes, where they are more).
template <int V, class T>
__device__ __forceinline__ void load_pack(const T* p, acc_t<T> (&v)[V]) {
  constexpr int bytes = V * static_cast<int>(sizeof(T)), piece = bytes < 16 ? bytes : 16;
  using Raw = typename detail::RawPack<piece>::type;
  Raw raw[bytes / piece];
#pragma unroll
  for (int i = 0; i < bytes / piece; ++i) raw[i] = reinterpret_cast<const Raw*>(p)[i];
  if constexpr (std::is_same_v<T, bf16>) {
    if constexpr (V == 1) {
      v[0] = __uint_as_float(static_cast<unsigned>(raw[0]) << 16);
    } else {
      unsigned pair[V / 2];
      memcpy(pair, raw, sizeof pair);
#pragma unroll
      for (int i = 0; i < V / 2; ++i) {
        v[2 * i] = __uint_as_float(pair[i] << 16);
        v[2 * i + 1] = __uint_as_float(pair[i] & 0xffff0000u);
      }
    }
  } else {
    memcpy(v, raw, sizeof v);
  }
}

/// V elements to p, rounded.
template <int V, class T>
__device__ __forceinline__ void store_pack(T* p, const acc_t<T> (&v)[V]) {
  constexpr int bytes = V * static_cast<int>(sizeof(T)), piece = bytes < 16 ? bytes : 16;
  using Raw = typename detail::RawPack<piece>::type;
  Raw raw[bytes / piece];
  if constexpr (std::is_same_v<T, bf16>) {
    __nv_bfloat16 rounded[V];
    if constexpr (V == 1) {
      rounded[0] = __float2bfloat16_rn(v[0]);
    } else {
      unsigned pair[V / 2];
#pragma unroll
      for (int i = 0; i < V / 2; ++i) {
        const __nv_bfloat162 two = __floats2bfloat162_rn(v[2 * i], v[2 * i + 1]);
        memcpy(pair + i, &two, 4);
      }
      memcpy(rounded, pair, sizeof pair);
    }
    memcpy(raw, rounded, sizeof rounded);
  } else {
    memcpy(raw, v, sizeof v);
  }
#pragma unroll
  for (int i = 0; i < bytes / piece; ++i) reinterpret_cast<Raw*>(p)[i] = raw[i];
}

/// V elements as they lie in memory, moved at once.
template <class T, int V>
struct alignas(sizeof(T) * V) RawElements {
  typename detail::RawPack<(sizeof(T) * V)>::type bits;
};

/// v as it is stored, which v then is too.
template <int V>
__device__ __forceinline__ RawElements<bf16, V> rounded_pack(float (&v)[V]) {
  RawElements<bf16, V> raw;
  store_pack<V>(reinterpret_cast<bf16*>(&raw), v);
  load_pack<V>(reinterpret_cast<const bf16*>(&raw), v);
  return raw;
}

/// Calls f(constant V) with the widest pack that divides rows of `cols` elements: 16 bytes or one
/// element.
template <class T, class F>
void with_pack(i64 cols, F&& f) {
  if (cols % pack_width<T> == 0)
    f(std::integral_constant<int, pack_width<T>>{});
  else
    f(std::integral_constant<int, 1>{});
}

/// The same with the widest of 16, 8, 4 ... bytes or one element that divides the rows.
template <class T, int V = pack_width<T>, class F>
void with_widest_pack(i64 cols, F&& f) {
  if constexpr (V == 1)
    f(std::integral_constant<int, 1>{});
  else if (cols % V == 0)
    f(std::integral_constant<int, V>{});
  else
    with_widest_pack<T, V / 2>(cols, f);
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
