#pragma once
#include "ppma/core/names_begin.hpp"
// What every CUDA kernel of the library needs: the stream it runs on, errors as ppma::Error, and
// the size of a grid. What programs ask is in core/gpu.hpp.
//
// Everything of one thread runs on one stream, in order; so memory that a tensor gives back can be
// taken by the next kernel at once, without any synchronisation.

#include <cuda_runtime.h>

#include <algorithm>
#include <atomic>
#include <cstddef>

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
inline cudaStream_t stream() {
  cudaStream_t& s = current_stream();
  if (s == nullptr) s = compute_stream();
  return s;
}
/// The stream whose last work is a kernel of launch(); null: another's, or none is known.
inline std::atomic<cudaStream_t>& overtaken() {
  static std::atomic<cudaStream_t> stream{nullptr};
  return stream;
}
}  // namespace detail

/// The stream on which this thread's kernels run. Who asks may give it work of any kind: the next
/// kernel of launch() begins after that.
inline cudaStream_t stream() {
  detail::overtaken() = nullptr;
  return detail::stream();
}

/// Whether what is launched now becomes part of a graph instead of running.
inline bool capturing() {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  require(cudaStreamIsCapturing(detail::stream(), &status), "state of the stream");
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

/// Launches a kernel all of whose blocks call wait(): behind another one of these it starts before
/// that has ended (from sm_90 on), and what it does until wait() costs no time. Until then it may
/// read what no kernel behind the last ordinary launch has written, such as the parameters of a
/// network, and nothing else. Where every block can have a multiprocessor, there it asks for more
/// than half of the shared memory: those that come early would share the first that are free.
template <class... Parameters, class... Arguments>
void launch(const char* op, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t shared, const Arguments&... arguments) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t how{};
  how.gridDim = grid, how.blockDim = block, how.dynamicSmemBytes = shared;
  how.stream = detail::stream(), how.attrs = &early;
  const bool behind_another = detail::overtaken().exchange(how.stream) == how.stream;
  how.numAttrs = behind_another && device().major >= 9 ? 1 : 0;
  const std::size_t half = device().sharedMemPerMultiprocessor / 2,
                    blocks = std::size_t{grid.x} * grid.y * grid.z;
  if (how.numAttrs > 0 && shared < half &&
      blocks <= static_cast<std::size_t>(device().multiProcessorCount)) {
    require(
        cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                             cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(half)),
        op);
    how.dynamicSmemBytes = half;
  }
  require(cudaLaunchKernelEx(&how, kernel, static_cast<Parameters>(arguments)...), op);
}

/// Blocks of `threads` for n items with a grid-stride loop: for (i64 i = first(); i < n; i +=
/// stride()).
inline unsigned blocks(i64 n, i64 threads, i64 most = 64 * device().multiProcessorCount) {
  return static_cast<unsigned>(std::clamp<i64>((n + threads - 1) / threads, 1, most));
}
#if PPMA_CUDA
/// Until all kernels before this one have ended and what they wrote is there; then the next one may
/// start where there is room.
__device__ __forceinline__ void wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
__device__ inline i64 first() { return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline i64 stride() { return static_cast<i64>(gridDim.x) * blockDim.x; }
#endif

}  // namespace ppma::inline PPMA_ABI::cuda

#include "ppma/core/names_end.hpp"
