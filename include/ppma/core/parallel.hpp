#pragma once
#include "ppma/core/names_begin.hpp"
// Threads. parallel_for splits independent work; what one index computes never depends on the
// split, so results are the same for any number of threads.

#include <type_traits>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// Threads that parallel_for uses: 1 without OpenMP, and inside of a parallel region.
PPMA_API int threads();

/// Sets the number of threads for the calling thread's parallel work. No effect without OpenMP.
PPMA_API void set_threads(int n);

/// Takes this process's share of the cores, which so many processes of this machine divide among
/// themselves, for the calling thread's parallel work; unless another number of threads was set
/// (set_threads(), OMP_NUM_THREADS).
PPMA_API void share_cores(i64 processes);

/// On Linux the calling thread gives way to others from now on: for what is made ahead, which must
/// not take a core from a thread that the others of a parallel region wait for.
PPMA_API void give_way();

namespace detail {
// call(work, begin, end) on at most `parts` ranges that cover [0, n).
PPMA_API void run_parts(i64 n, i64 parts, void (*call)(const void*, i64, i64), const void* work);
}  // namespace detail

/// Calls f(begin, end) on disjoint ranges that cover [0, n). Ranges shorter than `grain` are not
/// worth a thread: choose it so that a range is some 20 microseconds of work. What f throws reaches
/// the caller when all ranges have ended; of several exceptions the one that came first.
template <class F>
void parallel_for(i64 n, i64 grain, F&& f) {
  if (n <= 0) return;
  const i64 parts = grain > 0 ? (n + grain - 1) / grain : n;
  using Work = std::remove_reference_t<F>;
  detail::run_parts(
      n, parts,
      [](const void* work, i64 begin, i64 end) {
        (*const_cast<Work*>(static_cast<const Work*>(work)))(begin, end);
      },
      &f);
}

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_CORE)

#if PPMA_OPENMP
#include <omp.h>

#include <exception>
#endif
#if defined(__linux__)
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace ppma::inline PPMA_ABI {

void give_way() {
#if defined(__linux__)
  // refused where the thread gives way more than that already: as well
  setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), 10);
#endif
}

#if PPMA_OPENMP

int threads() { return omp_in_parallel() != 0 ? 1 : omp_get_max_threads(); }

void set_threads(int n) { omp_set_num_threads(n > 0 ? n : 1); }

void share_cores(i64 processes) {
  const int cores = omp_get_num_procs();
  if (processes > 1 && omp_get_max_threads() == cores)
    set_threads(cores / static_cast<int>(processes));
}

void detail::run_parts(i64 n, i64 parts, void (*call)(const void*, i64, i64), const void* work) {
  if (parts > threads()) parts = threads();
  if (parts <= 1) return call(work, 0, n);
  // An exception that leaves a thread of OpenMP's ends the program.
  std::exception_ptr thrown;
  PPMA_OMP(parallel num_threads(static_cast<int>(parts))) {
    // The runtime may give fewer threads than asked for.
    const i64 t = omp_get_thread_num(), count = omp_get_num_threads();
    const i64 begin = n * t / count, end = n * (t + 1) / count;
    try {
      if (begin < end) call(work, begin, end);
    } catch (...) {
      PPMA_OMP(critical(ppma_thrown)) {
        if (!thrown) thrown = std::current_exception();
      }
    }
  }
  if (thrown) std::rethrow_exception(thrown);
}

#else

int threads() { return 1; }

void set_threads(int) {}

void share_cores(i64) {}

void detail::run_parts(i64 n, i64, void (*call)(const void*, i64, i64), const void* work) {
  call(work, 0, n);
}

#endif

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
