#pragma once
#include "ppma/core/names_begin.hpp"
// Buffer: the bytes under a tensor, 64-byte aligned, from a pool that keeps what is freed; or
// memory that is somebody else's, used where it lies.
//
// Why a pool: a training step frees and asks for the same sizes again and again. malloc hands big
// blocks back to the kernel each time, and the page faults of touching them anew cost a tenth to a
// half of a step. In the steady state this pool asks the system for nothing and faults no page.

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

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ppma::inline PPMA_ABI {

namespace detail {

// Memory on the CPU comes in segments and is handed out in pieces of them. A piece that is freed
// becomes one with its free neighbours; a request takes the smallest piece that has room for it, of
// equals the lowest. So tensors of all sizes share what is resident, and it stays at the most that
// was in use at once, and some for what lies between.
class CpuPool {
 public:
  static CpuPool& get() {
    // never destroyed: tensors in static storage outlive any order
    static CpuPool* pool = new CpuPool;
    return *pool;
  }

  void* take(i64 bytes) {
    bytes = std::max<i64>(64, (bytes + 63) / 64 * 64);
    const std::lock_guard<std::mutex> lock(mutex_);
    Free& among = free_of(bytes);
    auto it = among.lower_bound({bytes, nullptr});
    if (it == among.end()) it = among.insert(grow(bytes)).first;
    char* const p = it->second;
    among.erase(it);
    Piece& piece = pieces_.at(p);
    stats_.cached_bytes -= piece.kept;
    if (piece.bytes > bytes) {
      const Piece rest{piece.bytes - bytes, std::max<i64>(0, piece.kept - bytes), true,
                       piece.segment};
      pieces_.emplace(p + bytes, rest);
      among.emplace(rest.bytes, p + bytes);
      stats_.cached_bytes += rest.kept;
    }
    piece.bytes = bytes, piece.free = false;
    piece.segment->used += bytes;
    stats_.live_bytes += bytes;
    if (stats_.live_bytes > stats_.peak_bytes) stats_.peak_bytes = stats_.live_bytes;
    return p;
  }

  void give(void* memory) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto it = pieces_.find(static_cast<char*>(memory));
    Segment& segment = *it->second.segment;
    it->second.free = true, it->second.kept = it->second.bytes;
    stats_.live_bytes -= it->second.bytes;
    stats_.cached_bytes += it->second.bytes;
    segment.used -= it->second.bytes;
    if (const auto next = std::next(it); joins(next, segment)) join(it, next);
    if (it != pieces_.begin())
      if (const auto before = std::prev(it); joins(before, segment)) join(before, it), it = before;
    if (segment.used == 0 && (PPMA_SANITIZED || !(segment.source == source_)))
      release(segment);
    else if (segment.source == source_)
      segment.free->emplace(it->second.bytes, it->first);
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
    release_unused();
    for (auto& [p, piece] : pieces_)
      if (piece.free && piece.kept > 0) {
        if (piece.segment->source.take == nullptr) give_pages(p, piece.bytes);
        stats_.cached_bytes -= std::exchange(piece.kept, 0);
      }
  }
  void set_source(const MemorySource& source) {
    const std::lock_guard<std::mutex> lock(mutex_);
    check((source.take == nullptr) == (source.give == nullptr),
          "memory: a source needs both functions, take and give");
    release_unused();
    source_ = source;
    small_.clear(), large_.clear();
    for (auto& [p, piece] : pieces_)
      if (piece.free && piece.segment->source == source_)
        piece.segment->free->emplace(piece.bytes, p);
  }

 private:
  using Free = std::set<std::pair<i64, char*>>;  // by size, then by address

  struct Segment {
    char* at;
    std::size_t bytes, alignment;
    MemorySource source;
    Free* free;    // where its free pieces are
    i64 used = 0;  // bytes of pieces that are not free
  };
  struct Piece {
    i64 bytes, kept;  // of a free piece: bytes of it that were in use before
    bool free;
    Segment* segment;
  };
  using Pieces = std::map<char*, Piece>;

  static constexpr i64 huge_page = i64{2} << 20, largest_small = i64{32} << 10;
#if defined(__linux__)
  static constexpr i64 ahead = i64{256} << 20;  // costs nothing until it is touched
#else
  static constexpr i64 ahead = i64{16} << 20;
#endif

  // Small pieces live long (parameters' gradients, statistics): among large ones they would part
  // what should become one again.
  Free& free_of(i64 bytes) { return bytes <= largest_small ? small_ : large_; }

  bool joins(Pieces::iterator piece, const Segment& segment) const {
    return piece != pieces_.end() && piece->second.free && piece->second.segment == &segment;
  }
  // Makes one of two neighbours, of which the first stays; neither is among the free ones then.
  void join(Pieces::iterator first, Pieces::iterator second) {
    Free& among = *first->second.segment->free;
    among.erase({first->second.bytes, first->first});
    among.erase({second->second.bytes, second->first});
    first->second.bytes += second->second.bytes;
    first->second.kept += second->second.kept;
    pieces_.erase(second);
  }

  // A new segment with room for `bytes`; its only piece, free. A program's own source is asked for
  // what is needed, the system for more than that.
  std::pair<i64, char*> grow(i64 bytes) {
    const bool system = source_.take == nullptr && !PPMA_SANITIZED;
    Segment segment{};
    segment.source = source_;
    segment.free = &free_of(bytes);
    void* p = nullptr;
    if (system) {
      i64 held = 0;
      for (const auto& [at, s] : segments_) held += static_cast<i64>(s.bytes);
      p = ask(segment, bytes <= largest_small ? huge_page : std::max({bytes, ahead, held}));
    }
    if (p == nullptr) p = ask(segment, bytes);
    if (p == nullptr) {
      release_unused();
      p = ask(segment, bytes);
    }
    check(p != nullptr, "memory: no room for ", bytes, " bytes; ", stats_.live_bytes,
          " are in use by tensors. Use a smaller batch or image");
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (system && segment.bytes >= 2 * huge_page) madvise(p, segment.bytes, MADV_HUGEPAGE);
#endif
    segment.at = static_cast<char*>(p);
    Segment& kept = segments_.emplace(segment.at, segment).first->second;
    const i64 size = static_cast<i64>(segment.bytes);
    pieces_.emplace(segment.at, Piece{size, 0, true, &kept});
    return {size, segment.at};
  }

  void* ask(Segment& segment, i64 bytes) {
    segment.alignment = static_cast<std::size_t>(bytes >= 2 * huge_page ? huge_page : 64);
    segment.bytes = (static_cast<std::size_t>(bytes) + segment.alignment - 1) / segment.alignment *
                    segment.alignment;
    ++stats_.heap_calls;
    if (source_.take != nullptr)
      return source_.take(source_.self, segment.bytes, segment.alignment);
    return ::operator new(segment.bytes, static_cast<std::align_val_t>(segment.alignment),
                          std::nothrow);
  }

  // Gives a segment back that is one free piece.
  void release(Segment& segment) {
    const auto piece = pieces_.find(segment.at);
    stats_.cached_bytes -= piece->second.kept;
    segment.free->erase({piece->second.bytes, piece->first});
    pieces_.erase(piece);
    if (segment.source.give != nullptr)
      segment.source.give(segment.source.self, segment.at, segment.bytes, segment.alignment);
    else
      ::operator delete(segment.at, static_cast<std::align_val_t>(segment.alignment));
    segments_.erase(segment.at);
  }
  void release_unused() {
    for (auto it = segments_.begin(); it != segments_.end();) {
      Segment& segment = (it++)->second;
      if (segment.used == 0) release(segment);
    }
  }

  // The pages of a free piece of the system's memory.
  static void give_pages([[maybe_unused]] char* p, [[maybe_unused]] i64 bytes) {
#if defined(__linux__) && defined(MADV_DONTNEED)
    const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE)),
               first = (reinterpret_cast<std::uintptr_t>(p) + page - 1) / page * page,
               last = reinterpret_cast<std::uintptr_t>(p + bytes) / page * page;
    if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
#endif
  }

  std::mutex mutex_;
  std::map<char*, Segment> segments_;
  Pieces pieces_;
  Free small_, large_;
  MemorySource source_;
  MemoryStats stats_;
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
  data_ = device == Device::cpu ? detail::CpuPool::get().take(bytes) : detail::cuda_take(bytes);
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
