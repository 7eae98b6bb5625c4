#pragma once
#include "ppma/core/names_begin.hpp"
// Memory on the GPU: a pool on top of cudaMalloc, ordered by the compute stream.
//
// A block that is given back can be taken at once, before the kernels that used it have run: what
// uses it next runs after them on the same stream. In the steady state of a training step the pool
// makes no CUDA call.

#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "ppma/core/cuda.cuh"
#include "ppma/core/memory.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

class CudaPool {
 public:
  static CudaPool& get() {
    // never destroyed: tensors in static storage outlive any order
    static CudaPool* pool = new CudaPool;
    return *pool;
  }

  void* take(i64 bytes) {
    bytes = round_up(bytes);
    const std::lock_guard<std::mutex> lock(mutex_);
    void* p = nullptr;
    // Best fit, at most an eighth larger than asked for.
    if (auto it = free_.lower_bound(bytes); it != free_.end() && it->first <= bytes + bytes / 8) {
      p = it->second;
      bytes = it->first;
      free_.erase(it);
      stats_.cached_bytes -= bytes;
    } else {
      p = device_take(bytes);
    }
    size_[p] = bytes;
    if (capturing_ != nullptr) capturing_->push_back(p), reserved_.insert(p);
    stats_.live_bytes += bytes;
    if (stats_.live_bytes > stats_.peak_bytes) stats_.peak_bytes = stats_.live_bytes;
    return p;
  }

  void give(void* p) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto it = size_.find(p);
    const i64 bytes = it->second;
    size_.erase(it);
    stats_.live_bytes -= bytes;
    stats_.cached_bytes += bytes;
    if (reserved_.count(p) != 0 && (capturing_ == nullptr || held_.count(p) != 0))
      idle_.emplace(p, bytes);
    else
      free_.emplace(bytes, p);
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
    release_all();
  }

  /// Blocks that a captured graph uses: its kernels write there at each launch, so nobody else may
  /// have them while it lives.
  using Blocks = std::vector<void*>;
  void begin_capture(Blocks* blocks) {
    const std::lock_guard<std::mutex> lock(mutex_);
    capturing_ = blocks;
  }
  void end_capture() {
    const std::lock_guard<std::mutex> lock(mutex_);
    capturing_ = nullptr;
    held_.clear();
    for (auto it = free_.begin(); it != free_.end();) {
      if (reserved_.count(it->second) == 0) {
        ++it;
        continue;
      }
      idle_.emplace(it->second, it->first);
      it = free_.erase(it);
    }
  }
  /// A block of before that the graph which is being captured, if one is, reads: nobody else gets
  /// it while that lives.
  void hold(const void* read) {
    void* const p = const_cast<void*>(read);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (capturing_ != nullptr) capturing_->push_back(p), reserved_.insert(p), held_.insert(p);
  }
  void release(const Blocks& blocks) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (void* p : blocks) {
      reserved_.erase(reserved_.find(p));
      if (reserved_.count(p) != 0) continue;
      if (const auto it = idle_.find(p); it != idle_.end())
        free_.emplace(it->second, p), idle_.erase(it);
    }
  }

 private:
  // Few distinct sizes: multiples of 512 bytes at first, then of a 64th of the next power of two. A
  // training step holds hundreds of large tensors: steps of an eighth were 6 % of its memory.
  static i64 round_up(i64 bytes) {
    i64 step = 512;
    while (step * 64 < bytes) step *= 2;
    return bytes == 0 ? step : (bytes + step - 1) / step * step;
  }

  void* device_take(i64 bytes) {
    ++stats_.heap_calls;
    void* p = nullptr;
    cudaError_t status = allocate(p, bytes);
    if (status == cudaErrorMemoryAllocation && capturing_ == nullptr) {
      cudaGetLastError();
      release_all();
      status = allocate(p, bytes);
    }
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      std::size_t left = 0, all = 0;
      cudaMemGetInfo(&left, &all);
      fail("memory: no room on the GPU for ", bytes, " bytes; ", stats_.live_bytes,
           " are in use by tensors, ", stats_.cached_bytes, " kept for reuse, ",
           static_cast<i64>(left), " free of ", static_cast<i64>(all),
           ". Use a smaller batch or image");
    }
    cuda::require(status, "memory for a tensor");
    return p;
  }

  // Blocks of other sizes may have taken the places of those that a step had before, so one that is
  // being captured can need more. That is no part of the graph, and allowed if one says so.
  static cudaError_t allocate(void*& p, i64 bytes) {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cuda::require(cudaThreadExchangeStreamCaptureMode(&mode), "memory for a tensor");
    const cudaError_t status = cudaMalloc(&p, static_cast<std::size_t>(bytes));
    cuda::require(cudaThreadExchangeStreamCaptureMode(&mode), "memory for a tensor");
    return status;
  }

  void release_all() {
    if (free_.empty()) return;
    cudaStreamSynchronize(cuda::stream());
    for (const auto& [bytes, p] : free_) cudaFree(p), stats_.cached_bytes -= bytes;
    free_.clear();
  }

  std::mutex mutex_;
  std::multimap<i64, void*> free_;
  std::map<void*, i64> size_;
  std::multiset<void*> reserved_;  // of graphs that are alive: taken or held while captured
  std::set<void*> held_;           // by the graph that is being captured
  std::map<void*, i64> idle_;      // those reserved that no tensor has now
  Blocks* capturing_ = nullptr;
  MemoryStats stats_;
};

/// Pinned memory through which small pieces of the host's memory go to the GPU. A copy out of
/// ordinary memory must be waited for before its source may change, and with it all kernels before
/// it on the stream; what lies here stays as it is until it was sent.
class Uploads {
 public:
  static constexpr i64 most = i64{4} << 20;  // bytes of a piece

  static Uploads& get() {
    static Uploads* uploads = new Uploads;  // never destroyed: the driver may end first
    return *uploads;
  }

  /// Sends at most `most` bytes on the compute stream, which is not being captured: a graph would
  /// read here at each launch, whatever lies here then.
  void send(void* to, const void* from, i64 bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (used_ + bytes > room) turn();
    char* const place = memory_ + now_ * room + used_;
    std::memcpy(place, from, static_cast<std::size_t>(bytes));
    cuda::require(cudaMemcpyAsync(to, place, static_cast<std::size_t>(bytes),
                                  cudaMemcpyHostToDevice, cuda::stream()),
                  "copy of a tensor");
    used_ += (bytes + 63) / 64 * 64;
  }

 private:
  static constexpr i64 room = 2 * most;  // of a half

  // To the other half, once the copies out of it have ended: they were before all of this half's.
  void turn() {
    if (memory_ == nullptr) {
      void* memory = nullptr;
      cuda::require(cudaHostAlloc(&memory, 2 * room, cudaHostAllocDefault), "memory of the host");
      for (cudaEvent_t& e : sent_)
        cuda::require(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "event");
      memory_ = static_cast<char*>(memory);
    } else {
      cuda::require(cudaEventRecord(sent_[now_], cuda::stream()), "event");
      now_ = 1 - now_;
      cuda::require(cudaEventSynchronize(sent_[now_]), "a kernel failed");
    }
    used_ = 0;
  }

  std::mutex mutex_;
  char* memory_ = nullptr;  // two halves
  cudaEvent_t sent_[2] = {};
  i64 now_ = 0, used_ = room;
};

}  // namespace detail
}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_CORE)

namespace ppma::inline PPMA_ABI {

namespace detail {

void* cuda_take(i64 bytes) { return CudaPool::get().take(bytes); }
void cuda_give(void* p) { CudaPool::get().give(p); }
MemoryStats cuda_stats() { return CudaPool::get().stats(); }
void cuda_reset_peak() { CudaPool::get().reset_peak(); }
void cuda_trim() { CudaPool::get().trim(); }
void cuda_wait() {
  cudaStreamSynchronize(cuda::stream());  // a destructor asks: must not throw
}

}  // namespace detail

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, i64 bytes) {
  if (bytes == 0) return;
  if (to_device == Device::cpu && from_device == Device::cpu) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
    return;
  }
  if (from_device == Device::cpu && bytes <= detail::Uploads::most && !cuda::capturing())
    return detail::Uploads::get().send(to, from, bytes);
  cuda::require(
      cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, cuda::stream()),
      "copy of a tensor");
  // The host may touch its side at once; two device tensors are ordered by the stream.
  if (to_device == Device::cpu || from_device == Device::cpu) cuda::synchronize();
}

namespace detail {
struct CopyTable {
  static constexpr int room = 64;
  CopyPiece piece[room];
};
template <class Word>
__device__ __forceinline__ void copy_words(const CopyPiece& piece) {
  const Word* const from = static_cast<const Word*>(piece.from);
  Word* const to = static_cast<Word*>(piece.to);
  const i64 words = piece.bytes / static_cast<i64>(sizeof(Word));
  for (i64 i = cuda::first(); i < words; i += cuda::stride()) to[i] = from[i];
}
// Block (.., n): piece n, in words as wide as its addresses and size allow.
template <int threads>
__global__ void __launch_bounds__(threads) copy_pieces(const __grid_constant__ CopyTable table) {
  const CopyPiece& piece = table.piece[blockIdx.y];
  const auto common = reinterpret_cast<std::uintptr_t>(piece.to) |
                      reinterpret_cast<std::uintptr_t>(piece.from) |
                      static_cast<std::uintptr_t>(piece.bytes);
  if (common % 16 == 0)
    copy_words<uint4>(piece);
  else if (common % 4 == 0)
    copy_words<unsigned>(piece);
  else
    copy_words<unsigned char>(piece);
}
}  // namespace detail

void copy_many(Device device, const std::vector<CopyPiece>& pieces) {
  if (device == Device::cpu) {
    for (const CopyPiece& c : pieces) copy_bytes(c.to, device, c.from, device, c.bytes);
    return;
  }
  for (std::size_t begin = 0; begin < pieces.size(); begin += detail::CopyTable::room) {
    const std::size_t n = std::min<std::size_t>(detail::CopyTable::room, pieces.size() - begin);
    detail::CopyTable table{};
    i64 longest = 0;
    for (std::size_t i = 0; i < n; ++i) {
      table.piece[i] = pieces[begin + i];
      longest = std::max(longest, table.piece[i].bytes);
    }
    // Most pieces are shorter than the longest, and blocks that find nothing to do are not free.
    const i64 processors = cuda::device().multiProcessorCount,
              most = std::max<i64>(64 * processors / static_cast<i64>(n), processors);
    const dim3 grid(cuda::blocks(longest / 16, 256, std::min<i64>(most, 8 * processors)),
                    static_cast<unsigned>(n));
    detail::copy_pieces<256><<<grid, 256, 0, cuda::stream()>>>(table);
  }
  cuda::launched("copies");
}

void zero_bytes(void* p, Device device, i64 bytes) {
  if (device == Device::cpu)
    std::memset(p, 0, static_cast<std::size_t>(bytes));
  else
    cuda::require(cudaMemsetAsync(p, 0, static_cast<std::size_t>(bytes), cuda::stream()), "zeros");
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
