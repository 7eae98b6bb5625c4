#pragma once
#include "ppma/core/names_begin.hpp"
// The checks that all attentions share.

#include "ppma/kernels/args.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI::detail {

// What every attention asks of its arguments; returns their sizes.
PPMA_API kernels::AttentionShape check_attention(const char* op, const Tensor& q, const Tensor& k,
                                                 const Tensor& v, i64 heads,
                                                 const Tensor& log_alpha, const Tensor& log_beta,
                                                 bool masked);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include "ppma/kernels/cpu/head.hpp"

namespace ppma::inline PPMA_ABI::detail {

kernels::AttentionShape check_attention(const char* op, const Tensor& q, const Tensor& k,
                                        const Tensor& v, i64 heads, const Tensor& log_alpha,
                                        const Tensor& log_beta, bool masked) {
  check(q.defined() && q.rank() == 4, op, ": q must be (B,H,W,C), got ", q.shape());
  check(k.shape() == q.shape() && v.shape() == q.shape(), op,
        ": q, k and v must have one shape, got ", q.shape(), ", ", k.shape(), " and ", v.shape());
  check(k.dtype() == q.dtype() && v.dtype() == q.dtype(), op,
        ": q, k and v must have one dtype, got ", q.dtype(), ", ", k.dtype(), " and ", v.dtype());
  check(heads > 0 && q.dim(3) % heads == 0, op, ": ", q.dim(3), " channels do not divide into ",
        heads, " heads");
  check(q.numel() > 0, op, ": q is empty, shape ", q.shape());
  if (masked) {
    const Shape grid{q.dim(0), heads, q.dim(1), q.dim(2)};
    check(log_alpha.defined() && log_beta.defined(), op,
          ": a masked attention needs log_alpha and log_beta, ", grid);
    check(log_alpha.shape() == grid && log_beta.shape() == grid, op,
          ": log_alpha and log_beta must be (B,G,H,W) = ", grid, ", got ", log_alpha.shape(),
          " and ", log_beta.shape());
    const DType wide = accumulator_dtype(q.dtype());  // of sums and exponents
    check(log_alpha.dtype() == wide && log_beta.dtype() == wide, op, ": the log decays are ",
          log_alpha.dtype(), " and ", log_beta.dtype(), ", q is ", q.dtype());
  }
  return {q.dim(0), q.dim(1), q.dim(2), heads, q.dim(3) / heads};
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
