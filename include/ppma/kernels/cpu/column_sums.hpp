#pragma once
#include "ppma/core/names_begin.hpp"
// Sums over the rows of a matrix in the accumulator's type: the gradient of a bias, whatever dtype
// activations have.

#include "ppma/core/device.hpp"
#include "ppma/kernels/cpu/reduce.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// y[c] = sum over rows of x[r, c].
template <class T>
void column_sums(Cpu on, i64 rows, i64 cols, const T* x, acc_t<T>* y) {
  sum_rows(on, rows, cols, x, y);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/later_sums.cuh"
#endif

#include "ppma/core/names_end.hpp"
