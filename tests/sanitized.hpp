#pragma once
// sanitized(): whether the library under test was compiled with the address or thread sanitizer,
// which is known when the program is linked. brief(): whether a sweep under one may be short.

#include <cstdlib>

extern "C" {
[[gnu::weak]] void __asan_init();  // NOLINT(bugprone-reserved-identifier): the sanitizers' names
[[gnu::weak]] void __tsan_init();  // NOLINT(bugprone-reserved-identifier)
}

inline bool sanitized() { return &__asan_init != nullptr || &__tsan_init != nullptr; }

/// Under a sanitizer a sweep is short where the rest of it is the same operations with other
/// numbers; `./run test full` has all of it.
inline bool brief() { return sanitized() && std::getenv("PPMA_TEST_FULL") == nullptr; }
