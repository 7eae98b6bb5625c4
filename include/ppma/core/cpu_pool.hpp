#pragma once
#include "ppma/core/names_begin.hpp"
// The pool of the CPU's memory, on top of the system's allocator or a program's own.
//
// Memory on the CPU comes in segments and is handed out in pieces of them. A piece that is freed
// becomes one with its free neighbours; a request takes the smallest piece that has room for it, of
// equals the lowest. So tensors of all sizes share what is resident, and it stays at the most that
// was in use at once, and some for what lies between.

#include <algorithm>
#include <cstdint>
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

#include "ppma/core/error.hpp"
#include "ppma/core/memory.hpp"

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

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
