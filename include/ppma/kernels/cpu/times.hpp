#pragma once
#include "ppma/core/names_begin.hpp"
// Multiplication by a number.

#include "ppma/kernels/cpu/map.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

struct Times {
  double factor;
  template <class V>
  PPMA_HD V operator()(V x) const {
    return x * constant<V>(factor);
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
