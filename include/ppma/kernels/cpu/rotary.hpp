#pragma once
#include "ppma/core/names_begin.hpp"
// Rotation of pairs of channels by an angle a token.

#include <algorithm>
#include <cmath>

#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// cos and sin, (tokens, d) each: entry (t, i) belongs to angle[i] * t, formed in T; sine with the
/// sign that channel i needs: - for even i, + for odd i.
template <class T>
void rotary_tables(Cpu, i64 tokens, i64 d, const T* angle, T* cosine, T* sine) {
  parallel_for(tokens, std::max<i64>(1, 512 / d), [=](i64 begin, i64 end) {
    for (i64 t = begin; t < end; ++t)
      for (i64 i = 0; i < d; ++i) {
        const T turn = static_cast<T>(t) * angle[i];
        cosine[t * d + i] = static_cast<T>(std::cos(static_cast<double>(turn)));
        sine[t * d + i] =
            static_cast<T>(std::sin(static_cast<double>(turn))) * (i % 2 == 0 ? T(-1) : T(1));
      }
  });
}

/// The two of each pair change places.
template <class T>
PPMA_INLINE Vec<T> swap_pairs(Vec<T> v) {
#if PPMA_NO_SHUFFLE
  Vec<T> swapped{};
  for (int i = 0; i < static_cast<int>(lanes<T>); ++i) swapped[i] = v[i ^ 1];
  return swapped;
#else
  if constexpr (lanes<T> == 16)
    return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
  else if constexpr (lanes<T> == 8)
    return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
  else if constexpr (lanes<T> == 4)
    return __builtin_shufflevector(v, v, 1, 0, 3, 2);
  else
    return __builtin_shufflevector(v, v, 1, 0);
#endif
}

/// y = scale * (x cos + swapped x * sin) for x (batch, tokens, heads, d); `back` turns the other
/// way.
template <class T>
void rotary(Cpu, i64 batch, i64 tokens, i64 heads, i64 d, const T* x, const T* cosine,
            const T* sine, T scale, bool back, T* y) {
  const T sine_scale = back ? -scale : scale;
  parallel_for(batch * tokens, std::max<i64>(1, 32768 / (heads * d)), [=](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) {
      const T *const c = cosine + r % tokens * d, *const s = sine + r % tokens * d;
      for (i64 h = 0; h < heads; ++h) {
        const i64 at = (r * heads + h) * d;
        i64 i = 0;
        for (; i + lanes<T> <= d; i += lanes<T>) {
          const Vec<T> v = load(x + at + i);
          store(y + at + i,
                v * (scale * load(c + i)) + swap_pairs<T>(v) * (sine_scale * load(s + i)));
        }
        for (; i < d; i += 2) {
          const T a = x[at + i], b = x[at + i + 1];
          y[at + i] = a * (scale * c[i]) + b * (sine_scale * s[i]);
          y[at + i + 1] = b * (scale * c[i + 1]) + a * (sine_scale * s[i + 1]);
        }
      }
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/rotary.cuh"
#endif

#include "ppma/core/names_end.hpp"
