#pragma once
#include "ppma/core/names_begin.hpp"
// Weights of products in bf16, beside activations in f32: half the memory, for inference on the
// CPU.
//
// Columns of B (k,n) lie in strips of 16, and in a strip each two rows are interleaved: (strip,
// row / 2, 16, 2), with zeros behind the last row and column up to a multiple of 32. So 64 bytes
// are what AMX multiplies at once (kernels/cpu/amx.hpp), and two rows of 16 floats where that is
// not there: the elements as 32-bit numbers, shifted and masked.

#include <cstring>

#include "ppma/core/dtype.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Columns of a strip, and what k and n are filled up to.
inline constexpr i64 strip_columns = 16, strip_whole = 32;

/// Elements of a strip of k rows; of all strips of B (k,n).
constexpr i64 strip_size(i64 k) {
  return (k + strip_whole - 1) / strip_whole * strip_whole * strip_columns;
}
constexpr i64 strips_size(i64 k, i64 n) {
  return strip_size(k) * 2 * ((n + strip_whole - 1) / strip_whole);
}

/// B (k,n) in strips: element(p, j) is that of row p and column j.
template <class F>
void pack_strips(i64 k, i64 n, F&& element, bf16* to) {
  for (i64 s = 0; s < strips_size(k, n) / strip_size(k); ++s)
    for (i64 i = 0; i < strip_size(k); ++i, ++to) {
      const i64 p = i / 32 * 2 + i % 2, j = s * strip_columns + i % 32 / 2;
      *to = p < k && j < n ? static_cast<bf16>(element(p, j)) : bf16(0.0f);
    }
}

/// Rows p0.. (even) of `rows`, columns j0.. of a panel two registers wide, as f32: `to` (rows,
/// panel). `strips`: all of B.
inline void unpack_panel(const bf16* strips, i64 k, i64 p0, i64 rows, i64 j0, float* to) {
  constexpr i64 w = lanes<float>;
  for (i64 v = 0; v < 2; ++v) {
    const i64 j = j0 + v * w;
    const bf16* from =
        strips + j / strip_columns * strip_size(k) + (p0 * strip_columns + j % strip_columns * 2);
    for (i64 p = 0; p < rows; p += 2, from += 2 * strip_columns) {
      VecBits<float> both, even, odd;
      std::memcpy(&both, from, sizeof both);
      even = both << 16, odd = both & -65536;
      float* const line = to + p * 2 * w + v * w;
      std::memcpy(line, &even, sizeof even);
      if (p + 1 < rows) std::memcpy(line + 2 * w, &odd, sizeof odd);
    }
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
