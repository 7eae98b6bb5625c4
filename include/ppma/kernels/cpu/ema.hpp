#pragma once
#include "ppma/core/names_begin.hpp"
// Moving averages of parameters.

#include "ppma/core/device.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// e <- d e + (1 - d) x, n elements, on the calling thread.
template <class T>
void average_into(Cpu, i64 n, double d, const T* x, T* e) {
  const T keep = static_cast<T>(d), take = static_cast<T>(1 - d);
  i64 i = 0;
  for (; i + lanes<T> <= n; i += lanes<T>) store<T>(e + i, keep * load(e + i) + take * load(x + i));
  if (i < n)
    store_some<T>(e + i, keep * load_some(e + i, n - i) + take * load_some(x + i, n - i), n - i);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
