#pragma once
#include "ppma/core/names_begin.hpp"
// Two numbers in bf16 in a register, as factors of products on tensor cores have them.

#include "ppma/kernels/cuda/whole/pieces.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

__device__ __forceinline__ const __nv_bfloat162& as_bf16(const unsigned& pair) {
  return reinterpret_cast<const __nv_bfloat162&>(pair);
}
__device__ __forceinline__ unsigned as_bits(const __nv_bfloat162& pair) {
  return reinterpret_cast<const unsigned&>(pair);
}
__device__ __forceinline__ void set(unsigned& pair, float low, float high) {
  pair = detail::rounded_pair(low, high);
}
/// In float, for gradients.
__device__ __forceinline__ float2 times(float2 x, float2 y) { return {x.x * y.x, x.y * y.y}; }
/// Of two pairs in bf16: products, sums, and x y + z with one rounding.
__device__ __forceinline__ unsigned times(unsigned x, unsigned y) {
  return as_bits(__hmul2(as_bf16(x), as_bf16(y)));
}
__device__ __forceinline__ unsigned plus(unsigned x, unsigned y) {
  return as_bits(__hadd2(as_bf16(x), as_bf16(y)));
}
__device__ __forceinline__ unsigned times_plus(unsigned x, unsigned y, unsigned z) {
  return as_bits(__hfma2(as_bf16(x), as_bf16(y), as_bf16(z)));
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
