#pragma once
// sanitized(): whether the library under test was compiled with the address or thread sanitizer,
// which is known when the program is linked.

extern "C" {
[[gnu::weak]] void __asan_init();  // NOLINT(bugprone-reserved-identifier): the sanitizers' names
[[gnu::weak]] void __tsan_init();  // NOLINT(bugprone-reserved-identifier)
}

inline bool sanitized() { return &__asan_init != nullptr || &__tsan_init != nullptr; }
