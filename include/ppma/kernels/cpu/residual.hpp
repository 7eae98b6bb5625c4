#pragma once
#include "ppma/core/names_begin.hpp"
// y = x + g * branch, and its gradients.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/columns.hpp"
#include "ppma/kernels/cpu/reduce.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// y = x + keep * gamma * a for (batch, rows, cols); x, gamma (cols) and keep (batch) may be null:
/// 0, ones, ones.
template <class T>
void residual(Cpu, i64 batch, i64 rows, i64 cols, const T* x, const T* a, const T* gamma,
              const T* keep, T* y) {
  parallel_for(batch * rows, std::max<i64>(1, 32768 / cols), [=](i64 begin, i64 end) {
    for (i64 r = begin; r < end; ++r) {
      const T k = keep ? keep[r / rows] : T(1);
      const i64 at = r * cols;
      columns<T>(cols, [=](i64 c, auto lane) {
        using V = decltype(lane);
        const V scaled = get<V>(a + at + c) * (gamma ? V(k * get<V>(gamma + c)) : V(V{} + k));
        put(y + at + c, x ? V(get<V>(x + at + c) + scaled) : scaled);
      });
    }
  });
}

/// dgamma[c] = sum over rows of keep * a * dy, by blocks of 128 rows.
template <class T>
void residual_dgamma(Cpu, i64 batch, i64 rows, i64 cols, const T* a, const T* keep, const T* dy,
                     T* dgamma) {
  constexpr i64 block = 128;
  const i64 all = batch * rows, blocks = (all + block - 1) / block;
  const Workspace<T> partial(blocks * cols);
  T* const p = partial.data();
  parallel_for(blocks, std::max<i64>(1, 32768 / (block * cols)), [=](i64 begin, i64 end) {
    for (i64 k = begin; k < end; ++k) {
      T* const sum = p + k * cols;
      std::fill_n(sum, cols, T(0));
      for (i64 r = k * block; r < std::min(all, (k + 1) * block); ++r) {
        const T factor = keep ? keep[r / rows] : T(1);
        columns<T>(cols, [=](i64 c, auto lane) {
          using V = decltype(lane);
          put(sum + c,
              V(get<V>(sum + c) + factor * get<V>(a + r * cols + c) * get<V>(dy + r * cols + c)));
        });
      }
    }
  });
  sum_rows(Cpu{}, blocks, cols, p, dgamma);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/residual.cuh"
#endif

#include "ppma/core/names_end.hpp"
