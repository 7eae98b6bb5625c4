#pragma once
#include "ppma/core/names_begin.hpp"
// Threads. parallel_for splits independent work; what one index computes never depends on the
// split, so results are the same for any number of threads.

#include "ppma/core/config.hpp"

#if PPMA_OPENMP
#include <omp.h>
#endif

namespace ppma::inline PPMA_ABI {

/// Threads that parallel_for uses (1 without OpenMP).
inline int threads() {
#if PPMA_OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// Sets the number of threads for the calling thread's parallel work. No effect without OpenMP.
inline void set_threads(int n) {
#if PPMA_OPENMP
  omp_set_num_threads(n > 0 ? n : 1);
#else
  (void)n;
#endif
}

/// Calls f(begin, end) on disjoint ranges that cover [0, n). Ranges shorter than `grain` are not
/// worth a thread:
/// choose it so that a range is some 20 microseconds of work. f must not throw.
template <class F>
void parallel_for(i64 n, [[maybe_unused]] i64 grain, F&& f) {
  if (n <= 0) return;
#if PPMA_OPENMP
  const i64 most = grain > 0 ? (n + grain - 1) / grain : n;
  const i64 parts = most < threads() ? most : threads();
  if (parts > 1 && omp_in_parallel() == 0) {
    PPMA_OMP(parallel num_threads(static_cast<int>(parts))) {
      // The runtime may give fewer threads than asked for.
      const i64 t = omp_get_thread_num(), count = omp_get_num_threads();
      const i64 begin = n * t / count, end = n * (t + 1) / count;
      if (begin < end) f(begin, end);
    }
    return;
  }
#endif
  f(i64{0}, n);
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
