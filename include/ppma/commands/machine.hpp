#pragma once
#include "ppma/core/names_begin.hpp"
// How much memory the machine has, and what of it this process has had and touched.

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

/// Bytes of memory that this process may have: the machine's, or what its container is limited to;
/// infinity where it is not known.
PPMA_API double machine_memory();

/// The most memory this process has had, in MiB; 0: not known.
PPMA_API double peak_memory_mib();

/// How often this process has touched a page of memory that was not there yet; 0: not known.
PPMA_API i64 page_faults();

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_COMMANDS)

#include <algorithm>
#include <fstream>
#include <limits>

#if !defined(_WIN32)
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace ppma::inline PPMA_ABI {

double machine_memory() {
#if defined(_WIN32)
  return std::numeric_limits<double>::infinity();
#else
  double bytes = static_cast<double>(::sysconf(_SC_PHYS_PAGES)) *
                 static_cast<double>(::sysconf(_SC_PAGE_SIZE));
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    double limit = 0;
    std::ifstream file(path);
    if (file >> limit && limit > 0) bytes = std::min(bytes, limit);  // "max" is no number
  }
  return bytes;
#endif
}

double peak_memory_mib() {
#if defined(_WIN32)
  return 0;
#else
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return static_cast<double>(usage.ru_maxrss) / 1048576.0;
#else
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
#endif
#endif
}

i64 page_faults() {
#if defined(_WIN32)
  return 0;
#else
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<i64>(usage.ru_minflt);
#endif
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
