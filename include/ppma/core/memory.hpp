#pragma once
#include "ppma/core/names_begin.hpp"
// What the pools of memory count, and where a program's own allocator comes in. The functions are
// in core/buffer.hpp.

#include <cstddef>

#include "ppma/core/config.hpp"

namespace ppma::inline PPMA_ABI {

struct MemoryStats {
  i64 live_bytes = 0;    // in tensors now
  i64 peak_bytes = 0;    // the most that was live at once since reset_peak_memory()
  i64 cached_bytes = 0;  // freed, kept for reuse
  i64 heap_calls = 0;    // how often the system's allocator was asked
};

/// Where the memory of tensors on the CPU comes from: a program's own allocator. The pool stands
/// before it, so it hears of new sizes alone. Both functions may be called by several threads, one
/// at a time, and must not throw.
struct MemorySource {
  /// Room for `bytes` at a multiple of `alignment` (a power of two, 64 or more), or null.
  void* (*take)(void* self, std::size_t bytes, std::size_t alignment) = nullptr;
  /// Takes back what `take` gave, with the same numbers.
  void (*give)(void* self, void* p, std::size_t bytes, std::size_t alignment) = nullptr;
  void* self = nullptr;  // handed to both

  bool operator==(const MemorySource&) const = default;
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
