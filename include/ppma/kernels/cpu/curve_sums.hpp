#pragma once
#include "ppma/core/names_begin.hpp"
// Sums along a curve that visits all tokens, between tokens that are neighbours in some other way.

#include <algorithm>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/head.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// y (lines,n): y[order[t]] = the sum of x over the visits first[t] to t, of x (lines,n) by token;
/// 0 where first[t] > t. Summed one by one: no closed edge takes away what lies behind it.
template <class T>
void curve_sums(Cpu, i64 lines, i64 n, const i64* order, const i64* first, const T* x, T* y) {
  constexpr i64 w = lanes<T>;
  parallel_for(lines, 1 + 4096 / n, [=](i64 begin, i64 end) {
    const Workspace<T> by_visit(n + w);
    for (i64 line = begin; line < end; ++line) {
      const T* const from = x + line * n;
      for (i64 t = 0; t < n; ++t) by_visit.data()[t] = from[order[t]];
      for (i64 t = 0; t < n; ++t) {
        T sum = 0;
        i64 s = first[t];
        if (t + 1 - s >= w) {
          Vec<T> sums{};
          for (; s + w <= t + 1; s += w) sums += load(by_visit.data() + s);
          sum = lane_sum<T>(sums);
        }
        for (; s <= t; ++s) sum += by_visit.data()[s];
        y[line * n + order[t]] = sum;
      }
    }
  });
}

/// dx (lines,n) from the gradient dy of the sums; 0 where x is closed.
template <class T>
void curve_sums_backward(Cpu, i64 lines, i64 n, const i64* order, const i64* first, const T* x,
                         const T* dy, T* dx) {
  constexpr i64 w = lanes<T>;
  parallel_for(lines, 1 + 4096 / n, [=](i64 begin, i64 end) {
    const Workspace<T> by_visit(n + w);
    for (i64 line = begin; line < end; ++line) {
      std::fill_n(by_visit.data(), n, T(0));
      for (i64 t = 0; t < n; ++t) {
        const T g = dy[line * n + order[t]];
        i64 s = first[t];
        for (; s + w <= t + 1; s += w)
          store(by_visit.data() + s, load(by_visit.data() + s) + splat(g));
        for (; s <= t; ++s) by_visit.data()[s] += g;
      }
      for (i64 t = 0; t < n; ++t) {
        const i64 at = line * n + order[t];
        dx[at] = is_closed(x[at]) ? T(0) : by_visit.data()[t];
      }
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/curve_sums.cuh"
#endif

#include "ppma/core/names_end.hpp"
