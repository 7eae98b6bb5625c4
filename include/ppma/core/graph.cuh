#pragma once
#include "ppma/core/names_begin.hpp"
// Graph: a sequence of kernels, captured once and launched as one.
//
// Capturing runs the host code of a step while its kernels are only written down; launching runs
// them all without the host: PPMA-T's thousand launches cost a few microseconds instead of
// milliseconds. The kernels read and write the addresses that they were captured with, so inputs
// are copied into the tensors of the captured step, and its outputs are held. The memory in between
// stays the graph's own until it is destroyed.

#include "ppma/core/buffer.cuh"
#include "ppma/core/buffer.hpp"

namespace ppma::inline PPMA_ABI::cuda {

class Graph {
 public:
  Graph() = default;
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  ~Graph() { reset(); }

  /// Captures what `step` launches. False if it does something that cannot be captured (it waits
  /// for the GPU, or reads a result back): nothing has run then. Memory
  /// that earlier runs of the step have taken is used again.
  template <class F>
  bool capture(F&& step) {
    reset();
    cudaStream_t s = stream();
    require(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal), "begin of a capture");
    auto& pool = ppma::detail::CudaPool::get();
    pool.begin_capture(&blocks_);
    std::string failure;
    try {
      step();
    } catch (const Error& e) {
      failure = e.what();
    }
    pool.end_capture();
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(s, &graph);
    cudaGetLastError();
    if (failure.empty() && ended == cudaSuccess) {
      const cudaError_t made =
          cudaGraphInstantiate(&executable_, graph, cudaGraphInstantiateFlagUseNodePriority);
      if (made != cudaSuccess) executable_ = nullptr, failure = cudaGetErrorString(made);
    } else if (failure.empty()) {
      failure = cudaGetErrorString(ended);
    }
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    reason_ = failure;
    if (executable_ == nullptr) give_back();
    return executable_ != nullptr;
  }
  bool captured() const { return executable_ != nullptr; }
  /// Why the last capture failed; empty if it did not.
  const std::string& reason() const { return reason_; }
  void launch() { require(cudaGraphLaunch(executable_, stream()), "launch of a captured step"); }

 private:
  void reset() {
    if (executable_ == nullptr) return;
    cudaStreamSynchronize(stream());
    cudaGraphExecDestroy(executable_);
    executable_ = nullptr;
    give_back();
  }
  void give_back() {
    ppma::detail::CudaPool::get().release(blocks_);
    blocks_.clear();
  }

  cudaGraphExec_t executable_ = nullptr;
  ppma::detail::CudaPool::Blocks blocks_;
  std::string reason_;
};

}  // namespace ppma::inline PPMA_ABI::cuda

#include "ppma/core/names_end.hpp"
