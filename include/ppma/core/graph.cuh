#pragma once
#include "ppma/core/names_begin.hpp"
// Graph: a sequence of kernels, captured once and launched as one.
//
// Capturing runs the host code of a step while its kernels are only written down; launching runs
// them all without the host: PPMA-T's thousand launches cost a few microseconds instead of
// milliseconds. The kernels read and write the addresses that they were captured with, so inputs
// are copied into the tensors of the captured step, and its outputs are held. The memory in between
// stays the graph's own until it is destroyed.

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "ppma/core/buffer.cuh"
#include "ppma/core/buffer.hpp"

namespace ppma::inline PPMA_ABI::cuda {

namespace detail {

/// Takes those edges from a graph that others imply. NCCL puts each of its kernels behind its last
/// one, and so behind what the stream has done anyway; but a node that two others wait for begins a
/// branch, and to go on in another branch takes microseconds. A path through kernels of launch()
/// counts: they wait for the one before.
inline cudaError_t drop_implied([[maybe_unused]] cudaGraph_t graph) {
#if CUDART_VERSION >= 13000
  std::size_t n = 0;
  cudaError_t status = cudaGraphGetEdges(graph, nullptr, nullptr, nullptr, &n);
  std::vector<cudaGraphNode_t> from(n), to(n);
  std::vector<cudaGraphEdgeData> data(n);
  if (status == cudaSuccess && n > 0)
    status = cudaGraphGetEdges(graph, from.data(), to.data(), data.data(), &n);
  if (status != cudaSuccess) return status;
  std::unordered_map<cudaGraphNode_t, std::vector<std::size_t>> edges_to;
  for (std::size_t e = 0; e < n; ++e) edges_to[to[e]].push_back(e);
  const auto is_before = [&](cudaGraphNode_t early, cudaGraphNode_t late) {
    std::vector<cudaGraphNode_t> to_visit{late};
    std::unordered_set<cudaGraphNode_t> seen{late};
    while (!to_visit.empty()) {
      const auto node = to_visit.back();
      if (node == early) return true;
      to_visit.pop_back();
      if (const auto at = edges_to.find(node); at != edges_to.end())
        for (const std::size_t e : at->second)
          if (seen.insert(from[e]).second) to_visit.push_back(from[e]);
    }
    return false;
  };
  for (const auto& at : edges_to)
    for (const std::size_t e : at.second) {
      const cudaGraphEdgeData& kind = data[e];
      if (kind.from_port != 0 || kind.to_port != 0 || kind.type != cudaGraphDependencyTypeDefault)
        continue;
      if (std::none_of(at.second.begin(), at.second.end(), [&](std::size_t other) {
            return other != e && is_before(from[e], from[other]);
          }))
        continue;
      status = cudaGraphRemoveDependencies(graph, &from[e], &to[e], &kind, 1);
      if (status != cudaSuccess) return status;
    }
#endif
  return cudaSuccess;
}

}  // namespace detail

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
      cudaError_t made = detail::drop_implied(graph);
      if (made == cudaSuccess)
        made = cudaGraphInstantiate(&executable_, graph, cudaGraphInstantiateFlagUseNodePriority);
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
