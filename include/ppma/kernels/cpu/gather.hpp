#pragma once
#include "ppma/core/names_begin.hpp"
// Rows by index, and the largest numbers of rows; formulas: ops/gather.hpp.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "ppma/core/device.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/core/parallel.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// x (batch,rows,width), y (batch,taken,width).
struct GatherShape {
  i64 batch, rows, taken, width;
};

template <class T>
void top_k(Cpu, i64 rows, i64 n, i64 k, const T* x, i64* index) {
  parallel_for(rows, 1 + (i64{1} << 14) / n, [&](i64 begin, i64 end) {
    std::vector<i64> order(static_cast<std::size_t>(n));
    for (i64 row = begin; row < end; ++row) {
      const auto key = [of = x + row * n](i64 i) {
        return is_nan(of[i]) ? negative_infinity<T>() : of[i];
      };
      std::iota(order.begin(), order.end(), i64{0});
      std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](i64 a, i64 b) {
        return key(a) > key(b) || (key(a) == key(b) && a < b);
      });
      std::copy_n(order.begin(), k, index + row * k);
    }
  });
}

template <class T>
void gather_rows(Cpu, const GatherShape& s, const T* x, const i64* index, T* y) {
  parallel_for(s.batch * s.taken, 1 + (i64{1} << 14) / (s.width + 1), [&](i64 begin, i64 end) {
    for (i64 row = begin; row < end; ++row)
      std::copy_n(x + (row / s.taken * s.rows + index[row]) * s.width, s.width, y + row * s.width);
  });
}

/// Its gradient: what was taken is added to where it came from, in order.
template <class T>
void scatter_rows(Cpu, const GatherShape& s, const T* dy, const i64* index, T* dx) {
  parallel_for(s.batch, 1, [&](i64 begin, i64 end) {
    std::fill_n(dx + begin * s.rows * s.width, (end - begin) * s.rows * s.width, T(0));
    for (i64 row = begin * s.taken; row < end * s.taken; ++row) {
      T* const to = dx + (row / s.taken * s.rows + index[row]) * s.width;
      for (i64 i = 0; i < s.width; ++i) to[i] += dy[row * s.width + i];
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/gather.cuh"
#endif

#include "ppma/core/names_end.hpp"
