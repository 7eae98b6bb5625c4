#pragma once
#include "ppma/core/names_begin.hpp"
// What a dense product is: on the CPU kernels/cpu/gemm.hpp (ours) and kernels/cpu/gemm_eigen.hpp
// (Eigen's) compute it, on the GPU kernels/cuda/gemm.cuh.

#include "ppma/core/dtype.hpp"

namespace ppma::inline PPMA_ABI::kernels {

/// One product C (+)= op(A) op(B) + bias, or `batch` of them at fixed distances, on raw row-major
/// arrays with leading dimensions, so that heads, rows and columns of a (B,H,W,G,d) tensor are
/// multiplied where they lie. Sizes in elements. R: the result's type, where it differs from the
/// factors' (a weight gradient in f32 from bf16 activations).
template <class T, class R = T>
struct Gemm {
  i64 m = 0, n = 0, k = 0;
  const T* a = nullptr;  // (m,k) with leading dimension lda; stored (k,m) if ta
  i64 lda = 0;
  bool ta = false;
  const T* b = nullptr;  // (k,n) with leading dimension ldb; stored (n,k) if tb
  i64 ldb = 0;
  bool tb = false;
  R* c = nullptr;  // (m,n) with leading dimension ldc
  i64 ldc = 0;
  bool accumulate = false;  // add to C instead of overwriting it
  const T* bias = nullptr;  // (n), added to every row; without `accumulate`
  const R* add = nullptr;   // (m,n) with leading dimension ldc, added; without `accumulate`
  // All of op(B) as pack_factor() lays it out; then b is not read. On the CPU, batch 1.
  const T* packed = nullptr;
  // Or all of it in bf16, in strips (kernels/cpu/strips.hpp): f32 on the CPU, batch 1, without ta
  // and `accumulate`.
  const bf16* strips = nullptr;
  i64 batch = 1, stride_a = 0, stride_b = 0, stride_c = 0;
  // b and the bias are parameters of a network, which kernels just ahead do not write: on a GPU
  // they may be read before those are done (core/cuda.cuh, launch()).
  bool lasting = false;
};

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
