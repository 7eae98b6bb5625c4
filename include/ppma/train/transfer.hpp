#pragma once
#include "ppma/core/names_begin.hpp"
// What goes to the GPU and what comes back while it computes: the host never waits for a kernel
// that runs now.
//
//   Upload     tensors of the host -> tensors of the GPU, through pinned memory and a stream of its
//              own
//   Readback   a few numbers of the GPU -> the host, taken one step later
//
// On the CPU both are plain copies.

#include <cstring>
#include <vector>

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Copies of tensors to `device`, sent together:
///
///   upload.add(images, batch.images);  // the elements are taken at once: the source may
///                                      // change afterwards
///   upload.add(labels, batch.targets);
///   upload.send();                     // kernels that are launched from now on see them
class Upload {
 public:
  PPMA_API explicit Upload([[maybe_unused]] Device device);
  PPMA_API ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  /// to's elements will be from's, which is on the CPU; shapes and dtypes are the same.
  PPMA_API void add(Tensor& to, const Tensor& from);
  PPMA_API void send();

 private:
#if PPMA_CUDA
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

  void stage(Tensor& to, const Tensor& from) {
    Slot& s = slots_[turn_];
    // of two steps before: long done
    if (waiting_.empty()) cuda::require(cudaEventSynchronize(s.copied), "upload");
    const i64 bytes = (from.bytes() + unit - 1) / unit * unit;
    if (s.filled + bytes > s.room) grow(s, s.filled + bytes);
    std::memcpy(s.host + s.filled, from.raw(), static_cast<std::size_t>(from.bytes()));
    waiting_.push_back({to.raw(), s.filled, bytes});
    s.filled += bytes;
  }
  static void grow(Slot& s, i64 bytes) {
    bytes += bytes / 2;
    char* more = nullptr;
    cuda::require(cudaMallocHost(&more, static_cast<std::size_t>(bytes)),
                  "pinned memory for an upload");
    if (s.filled > 0) std::memcpy(more, s.host, static_cast<std::size_t>(s.filled));
    cuda::require(cudaEventSynchronize(s.used), "upload");
    cudaFreeHost(s.host), cudaFree(s.staging);
    s.host = more, s.room = bytes;
    cuda::require(cudaMalloc(&s.staging, static_cast<std::size_t>(bytes)), "memory for an upload");
  }

  cudaStream_t stream_ = nullptr;
  Slot slots_[2];
  int turn_ = 0;
  std::vector<Part> waiting_;
#endif
};

/// Numbers that a step leaves in memory of the device: asked for after the step, taken after the
/// next one was launched.
class Readback {
 public:
  PPMA_API explicit Readback([[maybe_unused]] Device device);
  PPMA_API ~Readback();
  Readback(const Readback&) = delete;
  Readback& operator=(const Readback&) = delete;

  /// Asks for scalars (f32 or f64); at most 16, and two calls ahead of take().
  PPMA_API void ask(const std::vector<Tensor>& scalars);
  /// The scalars of the oldest call of ask() that were not taken yet; waits for that step alone.
  PPMA_API std::vector<double> take();

 private:
  static constexpr std::size_t most = 16;
  struct Asked {
    std::vector<DType> dtypes;
    std::vector<double> values;
    bool pending = false;
  };
  Asked what_[2];
  i64 asked_ = 0, taken_ = 0;
#if PPMA_CUDA
  double* pinned_ = nullptr;
  cudaEvent_t done_[2] = {};
#endif
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

namespace ppma::inline PPMA_ABI {

Upload::Upload([[maybe_unused]] Device device) {
#if PPMA_CUDA
  if (device != Device::cuda) return;
  cuda::require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "a stream for copies");
  for (Slot& s : slots_) {
    cuda::require(cudaEventCreateWithFlags(&s.copied, cudaEventDisableTiming), "event");
    cuda::require(cudaEventCreateWithFlags(&s.used, cudaEventDisableTiming), "event");
  }
#endif
}

Upload::~Upload() {
#if PPMA_CUDA
  if (stream_ == nullptr) return;
  cudaStreamSynchronize(stream_);
  cudaStreamSynchronize(cuda::stream());
  for (Slot& s : slots_) {
    cudaEventDestroy(s.copied), cudaEventDestroy(s.used);
    cudaFreeHost(s.host), cudaFree(s.staging);
  }
  cudaStreamDestroy(stream_);
#endif
}

void Upload::add(Tensor& to, const Tensor& from) {
  check(to.shape() == from.shape() && to.dtype() == from.dtype() && from.device() == Device::cpu,
        "upload: ", from.shape(), " ", from.dtype(), " on ", from.device(), " into ", to.shape(),
        " ", to.dtype());
#if PPMA_CUDA
  if (to.device() == Device::cuda) return stage(to, from);
#endif
  to.copy_from(from);
}

void Upload::send() {
#if PPMA_CUDA
  if (waiting_.empty()) return;
  Slot& s = slots_[turn_];
  // The copy overlaps kernels of the step before; it may not overwrite what those of two steps
  // before still read.
  cuda::require(cudaStreamWaitEvent(stream_, s.used, 0), "upload");
  cuda::require(cudaMemcpyAsync(s.staging, s.host, static_cast<std::size_t>(s.filled),
                                cudaMemcpyHostToDevice, stream_),
                "upload");
  cuda::require(cudaEventRecord(s.copied, stream_), "upload");
  cuda::require(cudaStreamWaitEvent(cuda::stream(), s.copied, 0), "upload");
  std::vector<CopyPiece> pieces;
  for (const Part& p : waiting_)
    pieces.push_back({p.to, static_cast<const char*>(s.staging) + p.first, p.bytes});
  copy_many(Device::cuda, pieces);
  cuda::require(cudaEventRecord(s.used, cuda::stream()), "upload");
  waiting_.clear();
  turn_ = 1 - turn_;
  slots_[turn_].filled = 0;
#endif
}

Readback::Readback([[maybe_unused]] Device device) {
#if PPMA_CUDA
  if (device != Device::cuda) return;
  cuda::require(cudaMallocHost(&pinned_, most * 2 * sizeof(double)), "pinned memory");
  for (cudaEvent_t& e : done_)
    cuda::require(cudaEventCreateWithFlags(&e, cudaEventDisableTiming), "event");
#endif
}

Readback::~Readback() {
#if PPMA_CUDA
  if (pinned_ == nullptr) return;
  cudaStreamSynchronize(cuda::stream());
  for (cudaEvent_t e : done_) cudaEventDestroy(e);
  cudaFreeHost(pinned_);
#endif
}

void Readback::ask(const std::vector<Tensor>& scalars) {
  check(scalars.size() <= most && asked_ - taken_ < 2, "readback: too much was asked for at once");
  const int slot = static_cast<int>(asked_++ % 2);
  Asked& a = what_[slot];
  a = {};
  for (std::size_t i = 0; i < scalars.size(); ++i) {
    check(scalars[i].numel() == 1 &&
              (scalars[i].dtype() == DType::f32 || scalars[i].dtype() == DType::f64),
          "readback: needs f32 or f64 scalars, got ", scalars[i].shape(), " ", scalars[i].dtype());
    a.dtypes.push_back(scalars[i].dtype());
#if PPMA_CUDA
    if (scalars[i].device() == Device::cuda) {
      cuda::require(cudaMemcpyAsync(pinned_ + (static_cast<std::size_t>(slot) * most + i),
                                    scalars[i].raw(), static_cast<std::size_t>(scalars[i].bytes()),
                                    cudaMemcpyDeviceToHost, cuda::stream()),
                    "readback");
      a.pending = true;
      continue;
    }
#endif
    a.values.push_back(scalars[i].item());
  }
#if PPMA_CUDA
  if (a.pending) cuda::require(cudaEventRecord(done_[slot], cuda::stream()), "readback");
#endif
}

std::vector<double> Readback::take() {
  check(taken_ < asked_, "readback: nothing was asked for");
  const int slot = static_cast<int>(taken_++ % 2);
  Asked& a = what_[slot];
#if PPMA_CUDA
  if (a.pending) {
    cuda::require(cudaEventSynchronize(done_[slot]), "a kernel failed");
    for (std::size_t i = 0; i < a.dtypes.size(); ++i) {
      const double* const from = pinned_ + (static_cast<std::size_t>(slot) * most + i);
      float narrow = 0;
      std::memcpy(&narrow, from, sizeof narrow);
      a.values.push_back(a.dtypes[i] == DType::f64 ? *from : static_cast<double>(narrow));
    }
  }
#endif
  return a.values;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
