#pragma once
#include "ppma/core/names_begin.hpp"
// Sum of squares, for the norm of gradients.

#include "ppma/core/device.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Sum of squares of n elements, n at most update_piece (longer sums want more care with rounding).
template <class T>
double sum_of_squares(Cpu, i64 n, const T* x) {
  Vec<T> s0{}, s1{}, s2{}, s3{};
  constexpr i64 w = lanes<T>;
  i64 i = 0;
  for (; i + 4 * w <= n; i += 4 * w) {
    const Vec<T> a = load(x + i), b = load(x + i + w), c = load(x + i + 2 * w),
                 d = load(x + i + 3 * w);
    s0 += a * a, s1 += b * b, s2 += c * c, s3 += d * d;
  }
  for (; i < n; i += w) {
    const Vec<T> a = load_some(x + i, n - i < w ? n - i : w);
    s0 += a * a;
  }
  return static_cast<double>(lane_sum<T>((s0 + s1) + (s2 + s3)));
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
