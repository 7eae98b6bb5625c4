#pragma once
#include "ppma/core/names_begin.hpp"
// Buffer: the bytes under a tensor, 64-byte aligned, from a pool that keeps what is freed; or
// memory that is somebody else's, used where it lies.
//
// Why a pool: a training step frees and asks for the same sizes again and again. malloc hands big
// blocks back to the kernel each time, and the page faults of touching them anew cost a tenth to a
// half of a step. In the steady state this pool makes no heap call and no page fault.

#include <cstddef>
#include <memory>
#include <vector>

#include "ppma/core/config.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI {

struct MemoryStats {
  i64 live_bytes = 0;    // in tensors now
  i64 peak_bytes = 0;    // the most that was live at once since reset_peak_memory()
  i64 cached_bytes = 0;  // freed, kept for reuse
  i64 heap_calls = 0;    // how often the system's allocator was asked
};

/// Bytes in tensors on a device, now and at most. Shared by all threads.
PPMA_API MemoryStats memory_stats(Device device = Device::cpu);
PPMA_API void reset_peak_memory(Device device = Device::cpu);
/// Gives the memory that is kept for reuse back to the system.
PPMA_API void trim_memory(Device device = Device::cpu);

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

/// New memory comes from `source` from now on, or with {} from the system again. What came from one
/// source goes back to it: a source must live as long as its tensors, of which the library holds a
/// few (rotary tables) to the program's end. Error: one function without the other.
PPMA_API void set_memory_source(const MemorySource& source);

/// Bytes to be copied within one device.
struct CopyPiece {
  void* to;
  const void* from;
  i64 bytes;
};

/// Copies bytes between any two devices; the host's side can be used when this returns.
PPMA_API void copy_bytes(void* to, Device to_device, const void* from, Device from_device,
                         i64 bytes);
PPMA_API void zero_bytes(void* p, Device device, i64 bytes);
/// Many copies within one device; on the GPU in a launch for every 64.
PPMA_API void copy_many(Device device, const std::vector<CopyPiece>& pieces);

class Buffer {
 public:
  PPMA_ONCE PPMA_API Buffer(i64 bytes, Device device);
  /// Foreign memory, not counted in memory_stats(): `keep_alive` dies with the buffer.
  PPMA_API Buffer(void* data, i64 bytes, Device device, std::shared_ptr<const void> keep_alive,
                  bool writable);
  PPMA_ONCE PPMA_API ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void* data() const { return data_; }
  i64 bytes() const { return bytes_; }
  Device device() const { return device_; }
  bool foreign() const { return foreign_; }
  bool writable() const { return writable_; }

 private:
  i64 bytes_ = 0;
  Device device_ = Device::cpu;
  void* data_ = nullptr;
  bool foreign_ = false, writable_ = true;
  std::shared_ptr<const void> keep_alive_;
};

/// Scratch memory of a kernel: n elements of T, 64-byte aligned, uninitialised, from the same pool.
template <class T>
class Workspace {
 public:
  explicit Workspace(i64 n, Device device = Device::cpu)
      : buffer_(n * static_cast<i64>(sizeof(T)), device) {}
  T* data() const { return static_cast<T*>(buffer_.data()); }

 private:
  Buffer buffer_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_CORE)

#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ppma::inline PPMA_ABI {

namespace detail {

class CpuPool {
 public:
  static CpuPool& get() {
    // never destroyed: tensors in static storage outlive any order
    static CpuPool* pool = new CpuPool;
    return *pool;
  }

  void* take(i64 bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    void* p = nullptr;
    // Best fit, at most an eighth larger than asked for.
    if (auto it = free_.lower_bound(bytes); it != free_.end() && it->first <= bytes + bytes / 8) {
      // of equals the one freed last: it may still be in the cache
      it = std::prev(free_.upper_bound(it->first));
      p = it->second;
      bytes = it->first;
      free_.erase(it);
      stats_.cached_bytes -= bytes;
    } else {
      // What lies unused is of the wrong sizes: what is held stays within a quarter of the most
      // that was ever in use.
      while (!free_.empty() && stats_.live_bytes + stats_.cached_bytes + bytes >
                                   most_live_ + most_live_ / 4 + (i64{64} << 20))
        release(std::prev(free_.end()));
      p = system_take(bytes);
    }
    live_[p] = {bytes, source_};
    stats_.live_bytes += bytes;
    if (stats_.live_bytes > stats_.peak_bytes) stats_.peak_bytes = stats_.live_bytes;
    if (stats_.live_bytes > most_live_) most_live_ = stats_.live_bytes;
    return p;
  }

  void give(void* p) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = live_.find(p);
    const Block block = it->second;
    const i64 bytes = block.bytes;
    live_.erase(it);
    stats_.live_bytes -= bytes;
    if (PPMA_SANITIZED || !(block.source == source_)) {
      system_give(block.source, p, bytes);
    } else {
      free_.emplace(bytes, p);
      stats_.cached_bytes += bytes;
    }
  }

  MemoryStats stats() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    const std::lock_guard<std::mutex> lock(mutex_);
    stats_.peak_bytes = stats_.live_bytes;
  }
  void trim() {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (!free_.empty()) release(free_.begin());
  }
  void set_source(const MemorySource& source) {
    const std::lock_guard<std::mutex> lock(mutex_);
    check((source.take == nullptr) == (source.give == nullptr),
          "memory: a source needs both functions, take and give");
    while (!free_.empty()) release(free_.begin());
    source_ = source;
  }

 private:
  static constexpr i64 huge_page = i64{2} << 20;

  struct Block {
    i64 bytes;
    MemorySource source;
  };

  // What the system is asked for, by the size that the pool knows.
  struct Request {
    std::size_t bytes, alignment;
    explicit Request(i64 size)
        : alignment(static_cast<std::size_t>(size >= 2 * huge_page ? huge_page : 64)) {
      bytes = (static_cast<std::size_t>(size) + alignment - 1) / alignment * alignment;
    }
    std::align_val_t align() const { return static_cast<std::align_val_t>(alignment); }
  };

  void* system_take(i64 bytes) {
    const Request r(bytes);
    const auto ask = [&] {
      ++stats_.heap_calls;
      return source_.take != nullptr ? source_.take(source_.self, r.bytes, r.alignment)
                                     : ::operator new(r.bytes, r.align(), std::nothrow);
    };
    void* p = ask();
    if (p == nullptr && !free_.empty()) {
      while (!free_.empty()) release(free_.begin());
      p = ask();
    }
    check(p != nullptr, "memory: no room for ", bytes, " bytes; ", stats_.live_bytes,
          " are in use by tensors. Use a smaller batch or image");
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (r.alignment == huge_page && source_.take == nullptr) madvise(p, r.bytes, MADV_HUGEPAGE);
#endif
    return p;
  }

  static void system_give(const MemorySource& source, void* p, i64 bytes) {
    const Request r(bytes);
    if (source.give != nullptr)
      source.give(source.self, p, r.bytes, r.alignment);
    else
      ::operator delete(p, r.align());
  }

  void release(std::multimap<i64, void*>::iterator block) {
    system_give(source_, block->second, block->first);
    stats_.cached_bytes -= block->first;
    free_.erase(block);
  }

  std::mutex mutex_;
  std::multimap<i64, void*> free_;
  std::map<void*, Block> live_;
  MemorySource source_;
  MemoryStats stats_;
  i64 most_live_ = 0;  // ever
};

// Memory of the GPU, defined in buffer.cuh.
#if PPMA_CUDA
PPMA_API void* cuda_take(i64 bytes);
PPMA_API void cuda_give(void* p);
PPMA_API MemoryStats cuda_stats();
PPMA_API void cuda_reset_peak();
PPMA_API void cuda_trim();
PPMA_API void cuda_wait();  // for kernels so far; a failed one is reported by the next call
#else
[[noreturn]] inline void no_cuda() {
  fail(
      "memory: this program was compiled without CUDA; use Device::cpu, link ppma::compiled_cuda, "
      "or compile it with nvcc (ppma_enable_cuda)");
}
inline void* cuda_take(i64) { no_cuda(); }
inline void cuda_give(void*) {}
inline MemoryStats cuda_stats() { no_cuda(); }
inline void cuda_reset_peak() { no_cuda(); }
inline void cuda_trim() { no_cuda(); }
inline void cuda_wait() {}
#endif

// Few distinct sizes: multiples of 64 bytes at first, then of an eighth of the next power of two.
inline i64 round_up(i64 bytes) {
  i64 step = 64;
  while (step * 16 < bytes) step *= 2;
  return bytes == 0 ? 64 : (bytes + step - 1) / step * step;
}

}  // namespace detail

MemoryStats memory_stats(Device device) {
  return device == Device::cpu ? detail::CpuPool::get().stats() : detail::cuda_stats();
}
void reset_peak_memory(Device device) {
  if (device == Device::cpu)
    detail::CpuPool::get().reset_peak();
  else
    detail::cuda_reset_peak();
}
void trim_memory(Device device) {
  if (device == Device::cpu)
    detail::CpuPool::get().trim();
  else
    detail::cuda_trim();
}

void set_memory_source(const MemorySource& source) { detail::CpuPool::get().set_source(source); }

Buffer::Buffer(i64 bytes, Device device) : bytes_(bytes), device_(device) {
  check(bytes >= 0 && bytes < (i64{1} << 46), "memory: ", bytes, " bytes asked for in one piece");
  const i64 rounded = detail::round_up(bytes);
  data_ = device == Device::cpu ? detail::CpuPool::get().take(rounded) : detail::cuda_take(rounded);
}

Buffer::Buffer(void* data, i64 bytes, Device device, std::shared_ptr<const void> keep_alive,
               bool writable)
    : bytes_(bytes),
      device_(device),
      data_(data),
      foreign_(true),
      writable_(writable),
      keep_alive_(std::move(keep_alive)) {}

Buffer::~Buffer() {
  if (foreign_) {
    // Its owner may free or overwrite it as soon as keep_alive_ is gone; our kernels run later.
    if (device_ == Device::cuda) detail::cuda_wait();
  } else if (device_ == Device::cpu)
    detail::CpuPool::get().give(data_);
  else
    detail::cuda_give(data_);
}

#if !PPMA_CUDA
void copy_bytes(void* to, Device, const void* from, Device, i64 bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<std::size_t>(bytes));
}
void zero_bytes(void* p, Device, i64 bytes) { std::memset(p, 0, static_cast<std::size_t>(bytes)); }
void copy_many(Device device, const std::vector<CopyPiece>& pieces) {
  for (const CopyPiece& c : pieces) copy_bytes(c.to, device, c.from, device, c.bytes);
}
#endif

}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/core/buffer.cuh"
#endif

#endif  // definitions

#include "ppma/core/names_end.hpp"
