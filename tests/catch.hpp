#pragma once
// Catch2 2.13 or 3, whichever is installed, and skipping aloud.

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
#else
#include <catch2/catch.hpp>
#endif

#include <cstdio>
#include <string>



int& skipped_tests();  // tests/main.cpp

/// Ends a test case that cannot run here; says why and is counted.
#define PPMA_SKIP(reason)                                             \
  do {                                                                \
    std::printf("skipped: %s\n", std::string(reason).c_str());        \
    ++skipped_tests();                                                \
    return;                                                           \
  } while (false)
