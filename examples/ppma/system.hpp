#pragma once
// What the tool asks of the system that it runs on: the one header with system calls.

#include <cstdlib>
#include <initializer_list>
#include <utility>

#if defined(_WIN32)
#include <io.h>
#define NOMINMAX
#include <windows.h>
#else
#include <sys/resource.h>
#include <unistd.h>
#endif

namespace tool {

/// Bytes of memory that the machine has; 0: not known.
inline double installed_memory() {
#if defined(_WIN32)
  MEMORYSTATUSEX status{};
  status.dwLength = sizeof status;
  return ::GlobalMemoryStatusEx(&status) ? static_cast<double>(status.ullTotalPhys) : 0;
#else
  return static_cast<double>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<double>(::sysconf(_SC_PAGE_SIZE));
#endif
}

/// The most memory this process has had, in MiB; 0: not known.
inline double peak_memory_mib() {
#if defined(_WIN32)
  return 0;
#else
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return static_cast<double>(usage.ru_maxrss) / 1048576.0;
#else
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
#endif
#endif
}

/// How often this process has touched a page of memory that was not there yet; 0: not known.
inline i64 page_faults() {
#if defined(_WIN32)
  return 0;
#else
  struct rusage usage {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<i64>(usage.ru_minflt);
#endif
}

/// Whether somebody looks at the standard output.
inline bool output_is_terminal() {
#if defined(_WIN32)
  return ::_isatty(1) != 0;
#else
  return ::isatty(STDOUT_FILENO) != 0;
#endif
}

/// Starts this program once more, with these variables set: for what is read when it is loaded.
/// Returns where that cannot be done.
inline void start_again_with(
    [[maybe_unused]] char** argv,
    [[maybe_unused]] std::initializer_list<std::pair<const char*, const char*>> variables) {
#if defined(__linux__)
  for (const auto& [name, value] : variables) ::setenv(name, value, 1);
  ::execv("/proc/self/exe", argv);
#endif
}

}  // namespace tool
