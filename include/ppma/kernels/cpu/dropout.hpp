#pragma once
#include "ppma/core/names_begin.hpp"
// Masks of dropout: which elements of a counter-based random sequence are kept.

#include <algorithm>
#include <cmath>

#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/core/random.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// y = x / (1 - p) where kept, else 0: element i is dropped if word i % 4 of block `first + i / 4`
/// is below p 2^32.
template <class T>
void dropout(Cpu, i64 n, double p, const Rng& rng, u64 first, const T* x, T* y) {
  const u64 bound = static_cast<u64>(std::llround(p * 4294967296.0));
  const T factor = p < 1 ? static_cast<T>(1 / (1 - p)) : T(0);
  parallel_for((n + 3) / 4, 2048, [=](i64 begin, i64 end) {
    for (i64 block = begin; block < end; ++block) {
      const PhiloxBlock draw = rng.at(first + static_cast<u64>(block));
      const i64 count = std::min<i64>(4, n - 4 * block);
      for (i64 i = 0; i < count; ++i)
        y[4 * block + i] = draw.word[i] < bound ? T(0) : x[4 * block + i] * factor;
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/dropout.cuh"
#endif

#include "ppma/core/names_end.hpp"
