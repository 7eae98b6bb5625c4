#pragma once
#include "ppma/core/names_begin.hpp"
// Sums over the lanes of a warp.

#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

inline constexpr unsigned all_lanes = 0xffffffffu;

// Sum over `width` neighbouring lanes, a power of two; all of them get it.
template <class A>
__device__ __forceinline__ A sum_lanes(A v, int width) {
  for (int o = width / 2; o > 0; o /= 2) v += __shfl_xor_sync(all_lanes, v, o);
  return v;
}

/// Sum over the lanes of a warp up to this one, which is number `lane`.
template <class A>
__device__ __forceinline__ A running_sum(A v, int lane) {
#pragma unroll
  for (int far = 1; far < 32; far *= 2) {
    const A other = __shfl_up_sync(all_lanes, v, far);
    if (lane >= far) v += other;
  }
  return v;
}

/// v[i], summed over the lanes that differ in the bits `from` down to `to`: lanes exchange what the
/// other keeps, until each has one or a few, from v[0] on: those whose number begins with its bits.
/// Added in the order of sum_lanes().
template <int from, int to, class A, int N>
__device__ __forceinline__ void share_out(A (&v)[N]) {
  int n = N;
#pragma unroll
  for (int step = from; step >= to; step /= 2) {
    if (n > 1) {
      n /= 2;
      const bool upper = (threadIdx.x & static_cast<unsigned>(step)) != 0;
#pragma unroll
      for (int i = 0; i < N / 2; ++i)
        if (i < n) {
          const A give = upper ? v[i] : v[n + i], keep = upper ? v[n + i] : v[i];
          v[i] = keep + __shfl_xor_sync(all_lanes, give, step);
        }
    } else {
      v[0] += __shfl_xor_sync(all_lanes, v[0], step);
    }
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
