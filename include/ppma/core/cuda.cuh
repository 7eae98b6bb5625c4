#pragma once
#include "ppma/core/names_begin.hpp"
// What every CUDA kernel of the library needs: the stream it runs on, errors as ppma::Error, and
// the size of a grid. What programs ask is in core/gpu.hpp.
//
// Everything of one thread runs on one stream, in order; so memory that a tensor gives back can be
// taken by the next kernel at once, without any synchronisation.

#include <cuda_runtime.h>

#include <algorithm>

#include "ppma/core/config.hpp"
#include "ppma/core/error.hpp"

namespace ppma::inline PPMA_ABI::cuda {

/// Throws ppma::Error for a failed CUDA call. `what` says what was tried.
inline void require(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // an error that is not sticky must not come up again in the next call
  fail("cuda: ", what, ": ", cudaGetErrorString(status));
}

namespace detail {
inline cudaStream_t& current_stream() {
  thread_local cudaStream_t stream = nullptr;
  return stream;
}
inline cudaStream_t compute_stream() {
  // One for all threads, never destroyed: tensors may be freed when the process ends.
  static const cudaStream_t stream = [] {
    cudaStream_t s = nullptr;
    require(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "no GPU can be used");
    return s;
  }();
  return stream;
}
}  // namespace detail

/// The stream on which this thread's kernels run.
inline cudaStream_t stream() {
  cudaStream_t& s = detail::current_stream();
  if (s == nullptr) s = detail::compute_stream();
  return s;
}

/// Whether what is launched now becomes part of a graph instead of running.
inline bool capturing() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  require(cudaStreamIsCapturing(stream(), &status), "state of the stream");
  return status != cudaStreamCaptureStatusNone;
}

/// After a launch: an invalid grid or too much shared memory shows here. Kernels are named by their
/// op.
inline void launched(const char* op) { require(cudaGetLastError(), op); }

/// Properties of the GPU in use, read once.
inline const cudaDeviceProp& device() {
  static const cudaDeviceProp properties = [] {
    int number = 0;
    cudaDeviceProp p{};
    require(cudaGetDevice(&number), "no GPU");
    require(cudaGetDeviceProperties(&p, number), "properties of the GPU");
    return p;
  }();
  return properties;
}

/// Blocks of `threads` for n items with a grid-stride loop: for (i64 i = first(); i < n; i +=
/// stride()).
inline unsigned blocks(i64 n, i64 threads, i64 most = 132 * 64) {
  return static_cast<unsigned>(std::clamp<i64>((n + threads - 1) / threads, 1, most));
}
#if PPMA_CUDA
__device__ inline i64 first() { return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline i64 stride() { return static_cast<i64>(gridDim.x) * blockDim.x; }
#endif

}  // namespace ppma::inline PPMA_ABI::cuda

#include "ppma/core/names_end.hpp"
