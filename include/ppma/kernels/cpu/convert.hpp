#pragma once
#include "ppma/core/names_begin.hpp"
// Elements of one dtype into another: bf16 rounds to nearest even, integers truncate.

#include <algorithm>

#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

template <class To, class From>
PPMA_HD To converted(From x) {
  if constexpr (std::is_same_v<To, bf16>)
    return bf16(static_cast<float>(x));
  else if constexpr (std::is_same_v<From, bf16>)
    return static_cast<To>(static_cast<float>(x));
  else
    return static_cast<To>(x);
}

template <class From, class To>
void convert(Cpu, i64 n, const From* x, To* y) {
  parallel_for(n, 1 << 15, [=](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i) y[i] = converted<To>(x[i]);
  });
}

template <class T>
void fill(Cpu, i64 n, T value, T* y) {
  std::fill_n(y, n, value);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/convert.cuh"
#endif

#include "ppma/core/names_end.hpp"
