#pragma once
#include "ppma/core/names_begin.hpp"
// train/transfer.hpp's part that speaks to the GPU.

#include <cstring>
#include <vector>

#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI {

struct Upload::OnGpu {
  OnGpu() {
    cuda::require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream for copies");
    for (Slot& s : slots) {
      cuda::require(cudaEventCreateWithFlags(&s.copied, cudaEventDisableTiming), "event");
      cuda::require(cudaEventCreateWithFlags(&s.used, cudaEventDisableTiming), "event");
    }
  }
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;
  ~OnGpu() {
    cudaStreamSynchronize(stream);
    cudaStreamSynchronize(cuda::stream());
    for (Slot& s : slots) {
      cudaEventDestroy(s.copied);
      cudaEventDestroy(s.used);
      cudaFreeHost(s.host);
      cudaFree(s.staging);
    }
    cudaStreamDestroy(stream);
  }

  void stage(Tensor& to, const Tensor& from) {
    Slot& s = slots[turn];
    // of two steps before: long done
    if (waiting.empty()) cuda::require(cudaEventSynchronize(s.copied), "upload");
    const i64 bytes = (from.bytes() + unit - 1) / unit * unit;
    if (s.filled + bytes > s.room) grow(s, s.filled + bytes);
    std::memcpy(s.host + s.filled, from.raw(), static_cast<std::size_t>(from.bytes()));
    waiting.push_back({to.raw(), s.filled, bytes});
    s.filled += bytes;
  }

  void send() {
    if (waiting.empty()) return;
    Slot& s = slots[turn];
    // The copy overlaps kernels of the step before; it may not overwrite what those of two steps
    // before still read.
    cuda::require(cudaStreamWaitEvent(stream, s.used, 0), "upload");
    cuda::require(cudaMemcpyAsync(s.staging, s.host, static_cast<std::size_t>(s.filled),
                                  cudaMemcpyHostToDevice, stream),
                  "upload");
    cuda::require(cudaEventRecord(s.copied, stream), "upload");
    cuda::require(cudaStreamWaitEvent(cuda::stream(), s.copied, 0), "upload");
    std::vector<CopyPiece> pieces;
    for (const Part& p : waiting)
      pieces.push_back({p.to, static_cast<const char*>(s.staging) + p.first, p.bytes});
    copy_many(Device::cuda, pieces);
    cuda::require(cudaEventRecord(s.used, cuda::stream()), "upload");
    waiting.clear();
    turn = 1 - turn;
    slots[turn].filled = 0;
  }

 private:
  // where a tensor begins in the staging memory, and its memory ends, is a multiple of it
  static constexpr i64 unit = 16;
  struct Slot {
    char* host = nullptr;  // pinned
    void* staging = nullptr;
    i64 room = 0, filled = 0;
    cudaEvent_t copied = nullptr, used = nullptr;
  };
  struct Part {
    void* to;
    i64 first, bytes;  // where it lies in the slot
  };

  static void grow(Slot& s, i64 bytes) {
    bytes += bytes / 2;
    char* more = nullptr;
    cuda::require(cudaMallocHost(&more, static_cast<std::size_t>(bytes)),
                  "pinned memory for an upload");
    if (s.filled > 0) std::memcpy(more, s.host, static_cast<std::size_t>(s.filled));
    cuda::require(cudaEventSynchronize(s.used), "upload");
    cudaFreeHost(s.host);
    cudaFree(s.staging);
    s.host = more;
    s.room = bytes;
    cuda::require(cudaMalloc(&s.staging, static_cast<std::size_t>(bytes)), "memory for an upload");
  }

  cudaStream_t stream = nullptr;
  Slot slots[2];
  int turn = 0;
  std::vector<Part> waiting;
};

struct Readback::OnGpu {
  OnGpu() {
    cuda::require(cudaMallocHost(&pinned, most * 2 * sizeof(double)), "pinned memory");
    for (cudaEvent_t& e : done)
      cuda::require(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "event");
  }
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;
  ~OnGpu() {
    cudaStreamSynchronize(cuda::stream());
    for (cudaEvent_t e : done) cudaEventDestroy(e);
    cudaFreeHost(pinned);
  }

  void ask(int slot, std::size_t i, const Tensor& scalar) {
    cuda::require(
        cudaMemcpyAsync(place(slot, i), scalar.raw(), static_cast<std::size_t>(scalar.bytes()),
                        cudaMemcpyDeviceToHost, cuda::stream()),
        "readback");
  }
  void asked(int slot) { cuda::require(cudaEventRecord(done[slot], cuda::stream()), "readback"); }
  void wait(int slot) { cuda::require(cudaEventSynchronize(done[slot]), "a kernel failed"); }
  double value(int slot, std::size_t i, DType dtype) const {
    if (dtype == DType::f64) return *place(slot, i);
    float narrow = 0;
    std::memcpy(&narrow, place(slot, i), sizeof narrow);
    return static_cast<double>(narrow);
  }

 private:
  double* place(int slot, std::size_t i) const {
    return pinned + (static_cast<std::size_t>(slot) * most + i);
  }

  double* pinned = nullptr;
  cudaEvent_t done[2] = {};
};

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
