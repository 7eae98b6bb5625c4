#pragma once
// Catch2 2.13 or 3, whichever is installed, and a way to skip a test aloud.

// An exception out of a CHECK ends its test case, which fails: without a handler about each, a suite
// is compiled in a twentieth less.
#define CATCH_CONFIG_FAST_COMPILE
#ifndef PPMA_CATCH  // which of the two CMake has found, where it has found one
#if __has_include(<catch2/catch_all.hpp>)
#define PPMA_CATCH 3
#else
#define PPMA_CATCH 2
#endif
#endif
#if PPMA_CATCH == 3
#include <catch2/catch_all.hpp>
using Catch::Approx;  // global in 2.13
#else
#include <catch2/catch.hpp>
#endif

#include <cstdio>
#include <string>

/// True once the running test case has said that it cannot run here; main.cpp reads and clears it.
inline bool& skipped_test() {
  static bool skipped = false;
  return skipped;
}

/// Ends a test case that cannot run here: prints the reason, and the case is counted as skipped,
/// not as passed.
///   if (!std::filesystem::exists(folder)) PPMA_SKIP("no CIFAR-10 in " + folder);
#define PPMA_SKIP(reason)                                      \
  do {                                                         \
    std::printf("skipped: %s\n", std::string(reason).c_str()); \
    skipped_test() = true;                                     \
    return;                                                    \
  } while (false)
