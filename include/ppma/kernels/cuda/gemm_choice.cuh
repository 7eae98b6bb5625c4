#pragma once
#include "ppma/core/names_begin.hpp"
// Of several kernels for one product, the fastest among those whose results have the same bits as
// the first one's: which is chosen changes the time, never a result.

#include <array>

#include "ppma/core/buffer.hpp"
#include "ppma/core/cuda.cuh"
#include "ppma/core/device.hpp"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// Adds up mixed bits of n elements and their places: whole numbers, so that order is of no matter.
template <class Bits>
__global__ void hash_bits(i64 n, const Bits* x, unsigned long long* sum) {
  unsigned long long mine = 0;
  for (i64 i = cuda::first(); i < n; i += cuda::stride()) {
    auto h = static_cast<unsigned long long>(i) * 0x9e3779b97f4a7c15ull + x[i] + 1;
    h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9ull, h = (h ^ h >> 27) * 0x94d049bb133111ebull;
    mine += h ^ h >> 31;
  }
  for (int o = 16; o > 0; o /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, o);
  if (threadIdx.x % 32 == 0) atomicAdd(sum, mine);
}

inline constexpr int most_candidates = 8;

/// run(i) launches candidate i, 0 <= i < count <= most_candidates, and says whether it could; it
/// writes `results`, n elements. The stream is not being captured. Waits for the GPU.
template <class Run>
int fastest_of_equals(int count, i64 n, const bf16* results, Run&& run) {
  const cudaStream_t stream = cuda::stream();
  const Workspace<u64> sums(count, Device::cuda);
  cuda::require(cudaMemsetAsync(sums.data(), 0, static_cast<std::size_t>(count) * 8, stream),
                "gemm");
  std::array<float, most_candidates> times;  // negative: could not run
  times.fill(-1);
  cudaEvent_t begin = nullptr, end = nullptr;
  cuda::require(cudaEventCreate(&begin), "gemm");
  cuda::require(cudaEventCreate(&end), "gemm");
  for (int i = 0; i < count; ++i) {
    if (!run(i)) continue;
    hash_bits<<<cuda::blocks(n, 256, 8 * cuda::device().multiProcessorCount), 256, 0, stream>>>(
        n, reinterpret_cast<const unsigned short*>(results),
        reinterpret_cast<unsigned long long*>(sums.data() + i));
    constexpr int times_run = 5;
    cuda::require(cudaEventRecord(begin, stream), "gemm");
    for (int k = 0; k < times_run; ++k) run(i);
    cuda::require(cudaEventRecord(end, stream), "gemm");
    cuda::require(cudaEventSynchronize(end), "gemm");
    cuda::require(cudaEventElapsedTime(&times[static_cast<std::size_t>(i)], begin, end), "gemm");
  }
  cudaEventDestroy(begin), cudaEventDestroy(end);
  std::array<u64, most_candidates> hashes{};
  cuda::require(cudaMemcpyAsync(hashes.data(), sums.data(), static_cast<std::size_t>(count) * 8,
                                cudaMemcpyDeviceToHost, stream),
                "gemm");
  cuda::require(cudaStreamSynchronize(stream), "gemm");
  std::size_t best = 0;
  for (std::size_t i = 1; i < static_cast<std::size_t>(count); ++i)
    if (times[i] >= 0 && hashes[i] == hashes[0] && times[i] < 0.97f * times[best]) best = i;
  return static_cast<int>(best);
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
