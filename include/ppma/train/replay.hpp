#pragma once
#include "ppma/core/names_begin.hpp"
// Replay: a step that is done many times with tensors of the same shapes and addresses. On the GPU
// it is run twice, captured as a graph the third time, and launched as one from then on; a step
// that cannot be captured, and every step on the CPU, is simply run each time.

#include <functional>
#include <memory>
#include <string>

#include "ppma/core/device.hpp"

namespace ppma::inline PPMA_ABI {

class Replay {
 public:
  /// `step` must read its inputs from tensors that stay, and must not read results back.
  PPMA_API Replay(std::function<void()> step, Device device, bool capture = true);
  PPMA_API ~Replay();

  /// The step: launched, captured or replayed.
  PPMA_API void operator()();

  /// True once the step is launched as one.
  PPMA_API bool captured() const;
  /// Why it is not.
  PPMA_API std::string reason() const;

 private:
  struct OnGpu;
  std::function<void()> step_;
  std::unique_ptr<OnGpu> gpu_;  // null: each step is run
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRANSFER)

#include <utility>

#if PPMA_CUDA
#include "ppma/core/graph.cuh"
#endif

namespace ppma::inline PPMA_ABI {

#if PPMA_CUDA
struct Replay::OnGpu {
  int runs = 0;
  cuda::Graph graph;

  // False: run it this time.
  bool launch(const std::function<void()>& step) {
    if (!graph.captured() && (++runs != 3 || !graph.capture(step))) return false;
    graph.launch();
    return true;
  }
  bool captured() const { return graph.captured(); }
  std::string reason() const { return graph.reason(); }
};
#else
struct Replay::OnGpu {
  bool launch(const std::function<void()>&) { return false; }
  bool captured() const { return false; }
  std::string reason() const { return "compiled without CUDA"; }
};
#endif

Replay::Replay(std::function<void()> step, Device device, bool capture)
    : step_(std::move(step)),
      gpu_(capture && device == Device::cuda ? std::make_unique<OnGpu>() : nullptr) {}

Replay::~Replay() = default;

void Replay::operator()() {
  if (gpu_ == nullptr || !gpu_->launch(step_)) step_();
}

bool Replay::captured() const { return gpu_ != nullptr && gpu_->captured(); }

std::string Replay::reason() const {
  return gpu_ != nullptr ? gpu_->reason() : "each step is run: it is on the CPU, or capture is off";
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
