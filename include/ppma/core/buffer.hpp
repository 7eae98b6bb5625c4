#pragma once
#include "ppma/core/names_begin.hpp"
// Buffer: the bytes under a tensor, 64-byte aligned, from a pool that keeps what is freed; or
// memory that is somebody else's, used where it lies.
//
// Why a pool: a training step frees and asks for the same sizes again and again. malloc hands big
// blocks back to the kernel each time, and the page faults of touching them anew cost a tenth to a
// half of a step. In the steady state this pool asks the system for nothing and faults no page.

#include <memory>
#include <vector>

#include "ppma/core/config.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/error.hpp"
#include "ppma/core/memory.hpp"

namespace ppma::inline PPMA_ABI {

/// Bytes in tensors on a device, now and at most. Shared by all threads.
PPMA_API MemoryStats memory_stats(Device device = Device::cpu);
PPMA_API void reset_peak_memory(Device device = Device::cpu);
/// Gives the memory that is kept for reuse back to the system.
PPMA_API void trim_memory(Device device = Device::cpu);

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

/// Copies bytes between any two devices; the host's side can be used when this returns. It waits
/// for kernels where bytes come from a GPU, and where more than 4 MiB go to one.
PPMA_API void copy_bytes(void* to, Device to_device, const void* from, Device from_device,
                         i64 bytes);
PPMA_API void zero_bytes(void* p, Device device, i64 bytes);
/// Many copies within one device; on the GPU in a launch for every 64.
PPMA_API void copy_many(Device device, const std::vector<CopyPiece>& pieces);

class Buffer {
 public:
  /// From the device's pool, 64-byte aligned, uninitialised.
  PPMA_ONCE PPMA_API Buffer(i64 bytes, Device device);
  /// Foreign memory, not counted in memory_stats(): `keep_alive` dies with the buffer.
  PPMA_API Buffer(void* data, i64 bytes, Device device, std::shared_ptr<const void> keep_alive,
                  bool writable);
  /// Bytes begin .. begin + bytes of another buffer, which lives on with its parts.
  PPMA_API Buffer(std::shared_ptr<const Buffer> whole, i64 begin, i64 bytes);
  PPMA_ONCE PPMA_API ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  /// The first byte, on the device.
  void* data() const { return data_; }
  /// How many there are.
  i64 bytes() const { return bytes_; }
  /// Where they are.
  Device device() const { return device_; }
  /// Whether they are somebody else's memory.
  bool foreign() const { return foreign_; }
  /// False for const memory of others.
  bool writable() const { return writable_; }

 private:
  i64 bytes_ = 0;
  Device device_ = Device::cpu;
  void* data_ = nullptr;
  bool foreign_ = false, writable_ = true, part_ = false;
  std::shared_ptr<const void> keep_alive_;
};

/// Scratch memory of a kernel: n elements of T, 64-byte aligned, uninitialised, from the same pool.
template <class T>
class Workspace {
 public:
  /// n elements on the device.
  explicit Workspace(i64 n, Device device = Device::cpu)
      : buffer_(n * static_cast<i64>(sizeof(T)), device) {}
  /// The first element.
  T* data() const { return static_cast<T*>(buffer_.data()); }

 private:
  Buffer buffer_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_CORE)

#include <cstring>
#include <utility>

#include "ppma/core/cpu_pool.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

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

Buffer::Buffer(std::shared_ptr<const Buffer> whole, i64 begin, i64 bytes)
    : bytes_(bytes), device_(whole->device_), writable_(whole->writable_), part_(true) {
  check(begin >= 0 && bytes >= 0 && begin + bytes <= whole->bytes_, "memory: bytes ", begin, " to ",
        begin + bytes, " are not in a buffer of ", whole->bytes_);
  data_ = static_cast<char*>(whole->data_) + begin;
  keep_alive_ = std::move(whole);
}

Buffer::~Buffer() {
  if (part_) return;
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
