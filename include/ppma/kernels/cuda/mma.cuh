#pragma once
#include "ppma/core/names_begin.hpp"
// What a warp needs to multiply bf16 matrices on the tensor cores: mma.sync m16n8k16, from sm_80
// on.
//
// Lane l holds of a 16 x 8 result c the elements (l/4, 2(l%4) + {0,1}) in c[0], c[1] and those
// eight rows below in c[2], c[3]. Two neighbouring results, rounded, are the left factor (16 x 16)
// of the next product: as_left().

#include <cuda_bf16.h>

#include <type_traits>

#include "ppma/kernels/cuda/copy_async.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// Four 8 x 8 matrices of shared memory; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const bf16* p) {
  load_matrices(r, shared_address(p));
}
/// The same, each matrix transposed.
__device__ __forceinline__ void load_turned(unsigned (&r)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_turned(unsigned (&r)[4], const bf16* p) {
  load_turned(r, shared_address(p));
}
/// c (16,8) += a (16,16) b (16,8)
__device__ __forceinline__ void multiply(float (&c)[4], const unsigned (&a)[4], unsigned b0,
                                         unsigned b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// d = c + a b
__device__ __forceinline__ void multiply(float (&d)[4], const unsigned (&a)[4], unsigned b0,
                                         unsigned b1, const float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%10,%11,%12,%13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]),
        "f"(c[2]), "f"(c[3]));
}
/// An 8 x 8 matrix, of which each lane has two elements of a row, transposed.
__device__ __forceinline__ unsigned transposed(unsigned x) {
  unsigned y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
/// Two numbers, rounded to bf16, the first in the lower half.
__device__ __forceinline__ unsigned rounded_pair(float low, float high) {
  const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const unsigned&>(two);
}
/// Results of the columns 0..7 and 8..15 as the left factor of a product over these 16 columns.
__device__ __forceinline__ void as_left(unsigned (&a)[4], const float (&c0)[4],
                                        const float (&c1)[4]) {
  a[0] = rounded_pair(c0[0], c0[1]), a[1] = rounded_pair(c0[2], c0[3]);
  a[2] = rounded_pair(c1[0], c1[1]), a[3] = rounded_pair(c1[2], c1[3]);
}
/// 2^x, to 2 units in the last place; 0 for large negative x.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/// Calls f with a head's width, of up to 64, as a constant that tiles of products have: rounded up
/// to `least` (16 or 32), 32 or 64.
template <int least, class F>
void with_tile_width(i64 width, F&& f) {
  if (width <= least)
    f(std::integral_constant<int, least>{});
  else if (width <= 32)
    f(std::integral_constant<int, 32>{});
  else
    f(std::integral_constant<int, 64>{});
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
