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

#include <memory>
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
  /// To this device; the CPU: copies at once.
  PPMA_API explicit Upload(Device device);
  PPMA_API ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  /// to's elements will be from's, which is on the CPU; shapes and dtypes are the same.
  PPMA_API void add(Tensor& to, const Tensor& from);
  /// Begins the transfer of all that was added.
  PPMA_API void send();

 private:
  struct OnGpu;
  std::unique_ptr<OnGpu> gpu_;
};

/// Numbers that a step leaves in memory of the device: asked for after the step, taken after the
/// next one was launched.
class Readback {
 public:
  /// From this device.
  PPMA_API explicit Readback(Device device);
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
  struct OnGpu;
  Asked what_[2];
  i64 asked_ = 0, taken_ = 0;
  std::unique_ptr<OnGpu> gpu_;
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRANSFER)

#if PPMA_CUDA
#include "ppma/train/transfer.cuh"
#else
namespace ppma::inline PPMA_ABI {
// Without CUDA there are no tensors on a GPU, and none of these is made.
struct Upload::OnGpu {
  void stage(Tensor&, const Tensor&) {}
  void send() {}
};
struct Readback::OnGpu {
  void ask(int, std::size_t, const Tensor&) {}
  void asked(int) {}
  void wait(int) {}
  double value(int, std::size_t, DType) { return 0; }
};
}  // namespace ppma::inline PPMA_ABI
#endif

namespace ppma::inline PPMA_ABI {

Upload::Upload(Device device) {
  if (device == Device::cuda) gpu_ = std::make_unique<OnGpu>();
}

Upload::~Upload() = default;

void Upload::add(Tensor& to, const Tensor& from) {
  check(to.shape() == from.shape() && to.dtype() == from.dtype() && from.device() == Device::cpu,
        "upload: ", from.shape(), " ", from.dtype(), " on ", from.device(), " into ", to.shape(),
        " ", to.dtype());
  if (gpu_ != nullptr && to.device() == Device::cuda)
    gpu_->stage(to, from);
  else
    to.copy_from(from);
}

void Upload::send() {
  if (gpu_ != nullptr) gpu_->send();
}

Readback::Readback(Device device) {
  if (device == Device::cuda) gpu_ = std::make_unique<OnGpu>();
}

Readback::~Readback() = default;

void Readback::ask(const std::vector<Tensor>& scalars) {
  check(scalars.size() <= most && asked_ - taken_ < 2, "readback: too much was asked for at once");
  const int slot = static_cast<int>(asked_++ % 2);
  Asked& a = what_[slot];
  a = {};
  for (std::size_t i = 0; i < scalars.size(); ++i) {
    const Tensor& t = scalars[i];
    check(t.numel() == 1 && (t.dtype() == DType::f32 || t.dtype() == DType::f64),
          "readback: needs f32 or f64 scalars, got ", t.shape(), " ", t.dtype());
    a.dtypes.push_back(t.dtype());
    if (gpu_ != nullptr && t.device() == Device::cuda) {
      gpu_->ask(slot, i, t);
      a.pending = true;
    } else {
      a.values.push_back(t.item());
    }
  }
  if (a.pending) gpu_->asked(slot);
}

std::vector<double> Readback::take() {
  check(taken_ < asked_, "readback: nothing was asked for");
  const int slot = static_cast<int>(taken_++ % 2);
  Asked& a = what_[slot];
  if (a.pending) {
    gpu_->wait(slot);
    for (std::size_t i = 0; i < a.dtypes.size(); ++i)
      a.values.push_back(gpu_->value(slot, i, a.dtypes[i]));
  }
  return a.values;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
