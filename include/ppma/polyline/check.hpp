#pragma once
#include "ppma/core/names_begin.hpp"
// The checks that all attentions share.

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI::detail {

// What every attention asks of its arguments; returns their sizes.
PPMA_API kernels::AttentionShape check_attention(const char* op, const Tensor& q, const Tensor& k,
                                                 const Tensor& v, i64 heads,
                                                 const Tensor& log_decays, bool masked);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include "ppma/kernels/cpu/head.hpp"

namespace ppma::inline PPMA_ABI::detail {

kernels::AttentionShape check_attention(const char* op, const Tensor& q, const Tensor& k,
                                        const Tensor& v, i64 heads, const Tensor& log_decays,
                                        bool masked) {
  check(q.defined() && q.rank() == 4, op, ": q must be (B,H,W,C), got ", q.shape());
  check(k.shape() == q.shape() && v.shape() == q.shape(), op,
        ": q, k and v must have one shape, got ", q.shape(), ", ", k.shape(), " and ", v.shape());
  check(k.dtype() == q.dtype() && v.dtype() == q.dtype(), op,
        ": q, k and v must have one dtype, got ", q.dtype(), ", ", k.dtype(), " and ", v.dtype());
  check(heads > 0 && q.dim(3) % heads == 0, op, ": ", q.dim(3), " channels do not divide into ",
        heads, " heads");
  check(q.numel() > 0, op, ": q is empty, shape ", q.shape());
  if (masked) {
    const Shape want{2, q.dim(0), heads, q.dim(1), q.dim(2)}, shared = [&] {
      Shape s = want;
      s.set(0, 1);
      return s;
    }();
    check(log_decays.defined(), op, ": a masked attention needs log_decays, ", want);
    check(log_decays.shape() == want || log_decays.shape() == shared, op,
          ": log_decays must be (2,B,G,H,W) = ", want, ", or ", shared, " where alpha = beta, got ",
          log_decays.shape());
    const DType wide = accumulator_dtype(q.dtype());  // of sums and exponents
    check(log_decays.dtype() == wide, op, ": log_decays is ", log_decays.dtype(), ", q is ",
          q.dtype(), "; needed is ", wide);
  }
  return {q.dim(0), q.dim(1), q.dim(2), heads, q.dim(3) / heads};
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
