#pragma once
// Memory on the GPU: a pool on top of cudaMalloc, ordered by the compute stream.
//
// A block that is given back can be taken at once, before the kernels that used it have run: what uses it next runs
// after them on the same stream. In the steady state of a training step the pool makes no CUDA call.

#include <map>
#include <mutex>

#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI {

namespace detail {

class CudaPool {
 public:
  static CudaPool& get() {
    static CudaPool* pool = new CudaPool;  // never destroyed: tensors in static storage outlive any order
    return *pool;
  }

  void* take(i64 bytes) {
    bytes = (bytes + 511) / 512 * 512;
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
  /// While a captured graph is alive its kernels write into blocks that look free: nothing is handed back to the driver.
  void hold(int graphs) {
    const std::lock_guard<std::mutex> lock(mutex_);
    held_ += graphs;
  }

 private:
  void* device_take(i64 bytes) {
    ++stats_.heap_calls;
    void* p = nullptr;
    cudaError_t status = cudaMalloc(&p, static_cast<std::size_t>(bytes));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      release_all();
      status = cudaMalloc(&p, static_cast<std::size_t>(bytes));
    }
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      std::size_t left = 0, all = 0;
      cudaMemGetInfo(&left, &all);
      fail("memory: no room on the GPU for ", bytes, " bytes; ", stats_.live_bytes, " are in use by tensors, ",
           stats_.cached_bytes, " kept for reuse, ", static_cast<i64>(left), " free of ", static_cast<i64>(all),
           ". Use a smaller batch or image");
    }
    cuda::require(status, "memory for a tensor");
    return p;
  }

  void release_all() {
    if (held_ > 0 || free_.empty()) return;
    cudaStreamSynchronize(cuda::stream());
    for (const auto& [bytes, p] : free_) cudaFree(p);
    free_.clear();
    stats_.cached_bytes = 0;
  }

  std::mutex mutex_;
  std::multimap<i64, void*> free_;
  std::map<void*, i64> size_;
  MemoryStats stats_;
  int held_ = 0;
};

inline void* cuda_take(i64 bytes) { return CudaPool::get().take(bytes); }
inline void cuda_give(void* p) { CudaPool::get().give(p); }
inline MemoryStats cuda_stats() { return CudaPool::get().stats(); }
inline void cuda_reset_peak() { CudaPool::get().reset_peak(); }
inline void cuda_trim() { CudaPool::get().trim(); }

}  // namespace detail

inline void copy_bytes(void* to, Device to_device, const void* from, Device from_device, i64 bytes) {
  if (bytes == 0) return;
  if (to_device == Device::cpu && from_device == Device::cpu) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
    return;
  }
  cuda::require(cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDefault, cuda::stream()), "copy of a tensor");
  // The host may touch its side at once; two device tensors are ordered by the stream.
  if (to_device == Device::cpu || from_device == Device::cpu) cuda::synchronize();
}

inline void zero_bytes(void* p, Device device, i64 bytes) {
  if (device == Device::cpu) std::memset(p, 0, static_cast<std::size_t>(bytes));
  else cuda::require(cudaMemsetAsync(p, 0, static_cast<std::size_t>(bytes), cuda::stream()), "zeros");
}

}  // namespace ppma::inline PPMA_ABI
