#pragma once
#include "ppma/core/names_begin.hpp"
// Sums over rows whose last stage waits until a backward pass ends: on the GPU alone
// (kernels/cuda/later_sums.cuh), where each is a launch of its own. Elsewhere none ever waits.

#include "ppma/core/config.hpp"

#if PPMA_CUDA
#include "ppma/kernels/cuda/later_sums.cuh"
#else

#include <cstddef>

namespace ppma::inline PPMA_ABI::kernels {

class LaterSums {
 public:
  static LaterSums*& in_use() {
    thread_local LaterSums* none = nullptr;
    return none;
  }
  std::size_t waiting() const { return 0; }
  bool waits(const void*) const { return false; }
  bool full() const { return false; }
  void run() {}
};

}  // namespace ppma::inline PPMA_ABI::kernels

#endif

#include "ppma/core/names_end.hpp"
