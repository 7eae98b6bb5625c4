#pragma once
#include "ppma/core/names_begin.hpp"
// Copies to shared memory that run while a block computes.

#include "ppma/core/cuda.cuh"
#include "ppma/core/dtype.hpp"

namespace ppma::inline PPMA_ABI::kernels::detail {

__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
/// 16 bytes to shared memory, in the background; zeros where not `there`.
__device__ __forceinline__ void copy_async(bf16* to, const bf16* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(there ? 16 : 0));
}
/// 16 bytes that no other block reads soon: past the L1 cache, which shared memory leaves little
/// of.
__device__ __forceinline__ void copy_async_once(unsigned address, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from));
}
__device__ __forceinline__ void copy_async_once(bf16* to, const bf16* from) {
  copy_async_once(shared_address(to), from);
}
__device__ __forceinline__ void copy_async_once(bf16* to, const bf16* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(there ? 16 : 0));
}
__device__ __forceinline__ void copy_async(float* to, const float* from, bool there) {
  copy_async(reinterpret_cast<bf16*>(to), reinterpret_cast<const bf16*>(from), there);
}
/// One number, likewise.
__device__ __forceinline__ void copy_async_one(float* to, const float* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(there ? 4 : 0));
}
__device__ __forceinline__ void copy_async_one(double* to, const double* from, bool there) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(there ? 8 : 0));
}
__device__ __forceinline__ void copies_issued() { asm volatile("cp.async.commit_group;"); }
template <int left>
__device__ __forceinline__ void copies_done() {
  asm volatile("cp.async.wait_group %0;" ::"n"(left) : "memory");
}

/// Lets a kernel of `op` have `bytes` of shared memory.
template <class Kernel>
void allow_shared(Kernel kernel, int bytes, const char* op) {
  cuda::require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
                op);
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
