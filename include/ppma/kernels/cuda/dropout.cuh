#pragma once
#include "ppma/core/names_begin.hpp"
// Dropout on the GPU: the same words of the same blocks as on the CPU.

#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {
template <class T>
__global__ void __launch_bounds__(256)
    dropout_blocks(i64 n, u64 bound, acc_t<T> factor, Rng rng, u64 first, const T* x, T* y) {
  for (i64 block = cuda::first(); block < (n + 3) / 4; block += cuda::stride()) {
    const PhiloxBlock draw = rng.at(first + static_cast<u64>(block));
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (4 * block + i < n)
        y[4 * block + i] = draw.word[i] < bound ? T(0) : T(acc_t<T>(x[4 * block + i]) * factor);
  }
}
}  // namespace detail

template <class T>
void dropout(Cuda, i64 n, double p, const Rng& rng, u64 first, const T* x, T* y) {
  if (n == 0) return;
  const u64 bound = static_cast<u64>(std::llround(p * 4294967296.0));
  const acc_t<T> factor = p < 1 ? static_cast<acc_t<T>>(1 / (1 - p)) : acc_t<T>(0);
  detail::dropout_blocks<<<cuda::blocks((n + 3) / 4, 256), 256, 0, cuda::stream()>>>(
      n, bound, factor, rng, first, x, y);
  cuda::launched("dropout");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
