#pragma once
#include "ppma/core/names_begin.hpp"
// GELU for results that are rounded to bf16, inside of other kernels.

#include "ppma/core/cuda.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// What a kernel applies on its way: nothing, or GELU.
struct AsItIs {
  static constexpr bool acts = false;
  static __device__ __forceinline__ float value(float x) { return x; }
};
struct FastGelu {
  static constexpr bool acts = true;
  // The normal distribution function: 1/2 + x Q(x^2), |x| <= 4.3; error 5e-5, of x times it 6e-5.
  static __device__ __forceinline__ float phi(float x) {
    const float c = fminf(fmaxf(x, -4.3f), 4.3f), s = c * c;
    float q = 5.3719221e-11f;
    q = fmaf(q, s, -5.2434883e-09f), q = fmaf(q, s, 2.2540634e-07f),
    q = fmaf(q, s, -5.6795534e-06f);
    q = fmaf(q, s, 9.4657946e-05f), q = fmaf(q, s, -1.1211864e-03f), q = fmaf(q, s, 9.8804152e-03f);
    q = fmaf(q, s, -6.6498682e-02f), q = fmaf(q, s, 3.9903083e-01f);
    return fmaf(c, q, 0.5f);
  }
  static __device__ __forceinline__ float value(float x) { return x * phi(x); }
  static __device__ __forceinline__ float slope(float x) {
    return fmaf(x * 0.39894228f, __expf(-0.5f * x * x), phi(x));
  }
  static __device__ __forceinline__ void both(float x, float& value, float& slope) {
    const float below = phi(x);
    value = x * below;
    slope = fmaf(x * 0.39894228f, __expf(-0.5f * x * x), below);
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
