#pragma once
#include "ppma/core/names_begin.hpp"
// Replay: a step that is done many times with tensors of the same shapes and addresses. On the GPU
// it is run twice, captured as a graph the third time, and launched as one from then on; a step
// that cannot be captured, and every step on the CPU, is simply run each time.

#include <functional>
#include <string>
#include <utility>

#include "ppma/core/device.hpp"

#if PPMA_CUDA
#include "ppma/core/graph.cuh"
#endif

namespace ppma::inline PPMA_ABI {

class Replay {
 public:
  /// `step` must read its inputs from tensors that stay, and must not read results back.
  Replay(std::function<void()> step, Device device, bool capture = true)
      : step_(std::move(step)), may_capture_(capture && device == Device::cuda) {}

  PPMA_API void operator()();

  /// True once the step is launched as one.
  bool captured() const {
#if PPMA_CUDA
    return graph_.captured();
#else
    return false;
#endif
  }
  /// Why it is not.
  std::string reason() const {
#if PPMA_CUDA
    return graph_.reason();
#else
    return "compiled without CUDA";
#endif
  }

 private:
  std::function<void()> step_;
  [[maybe_unused]] bool may_capture_;
#if PPMA_CUDA
  int runs_ = 0;
  cuda::Graph graph_;
#endif
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_TRAIN)

#include "ppma/core/buffer.hpp"

namespace ppma::inline PPMA_ABI {

void Replay::operator()() {
#if PPMA_CUDA
  if (graph_.captured()) return graph_.launch();
  if (may_capture_ && ++runs_ > 2) {
    may_capture_ = false;
    if (graph_.capture(step_)) return graph_.launch();
  }
#endif
  step_();
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
