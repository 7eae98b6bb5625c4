#pragma once
#include "ppma/core/names_begin.hpp"
// Sums over blocks that run side by side and read one another's shared memory, from sm_90 on: what
// the blocks of a kernel have in registers in the end need not go through memory for each of them.
// On older GPUs each block is alone.

#include "ppma/kernels/cuda/copy_async.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// Blocks of a cluster; which one this is; a barrier for all.
#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ int cluster_blocks() {
  unsigned n;
  asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(n));
  return static_cast<int>(n);
}
__device__ __forceinline__ int cluster_rank() {
  unsigned n;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(n));
  return static_cast<int>(n);
}
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.aligned;\nbarrier.cluster.wait.aligned;" ::: "memory");
}
/// What block `rank` has at this block's address p.
__device__ __forceinline__ float4 cluster_load(const float* p, int rank) {
  unsigned there;
  float4 v;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(shared_address(p)), "r"(rank));
  asm volatile("ld.shared::cluster.v4.f32 {%0,%1,%2,%3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
               : "r"(there)
               : "memory");
  return v;
}
#else
__device__ __forceinline__ int cluster_blocks() { return 1; }
__device__ __forceinline__ int cluster_rank() { return 0; }
__device__ __forceinline__ void cluster_sync() { __syncthreads(); }
__device__ __forceinline__ float4 cluster_load(const float* p, int) {
  return *reinterpret_cast<const float4*>(p);
}
#endif

/// The n floats (a multiple of 4) that each block of a cluster has at `values`, shared memory of
/// its own, added block by block: put(i, sum) for the four from i on, each i in one of the blocks.
template <int threads, class F>
__device__ __forceinline__ void sum_cluster(const float* values, int n, F put) {
  const int blocks = cluster_blocks(), thread = static_cast<int>(threadIdx.x);
  cluster_sync();
  for (int i = (cluster_rank() * threads + thread) * 4; i < n; i += blocks * threads * 4) {
    float4 sum = cluster_load(values + i, 0);
#pragma unroll 4
    for (int b = 1; b < blocks; ++b) {
      const float4 v = cluster_load(values + i, b);
      sum.x += v.x, sum.y += v.y, sum.z += v.z, sum.w += v.w;
    }
    put(i, sum);
  }
  cluster_sync();  // memory that others read does not go before
}

/// A launch in clusters of `blocks` blocks, neighbours in y.
struct ClusterLaunch {
  cudaLaunchConfig_t how{};
  cudaLaunchAttribute cluster{};

  ClusterLaunch(dim3 grid, int threads, int shared, int blocks) {
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {1, static_cast<unsigned>(blocks), 1};
    how.gridDim = grid, how.blockDim = dim3(static_cast<unsigned>(threads));
    how.dynamicSmemBytes = static_cast<std::size_t>(shared);
    how.stream = cuda::stream();
    how.attrs = &cluster, how.numAttrs = blocks > 1 ? 1 : 0;
  }
  ClusterLaunch(const ClusterLaunch&) = delete;
  ClusterLaunch& operator=(const ClusterLaunch&) = delete;
};
/// Blocks of a cluster: `most`, where GPUs have clusters.
inline int cluster_of(int most) { return cuda::device().major >= 9 ? most : 1; }
/// Blocks that run at once, in whole clusters of `blocks`; `alone`: a multiprocessor's.
template <class Kernel>
i64 clustered_at_once(Kernel kernel, int threads, int shared, int blocks, i64 alone) {
  if (blocks == 1) return cuda::device().multiProcessorCount * alone;
  const ClusterLaunch like(dim3(1, static_cast<unsigned>(blocks)), threads, shared, blocks);
  int clusters = 0;
  cuda::require(cudaOccupancyMaxActiveClusters(&clusters, kernel, &like.how), "clusters of blocks");
  return i64{clusters} * blocks;
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
