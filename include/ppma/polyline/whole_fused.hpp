#pragma once
#include "ppma/core/names_begin.hpp"
// Whole attention in one kernel with what stands beside it in a block: on small maps on a GPU a
// launch costs more than its work. Elsewhere the operations stand alone (polyline/fused.hpp).

#include "ppma/polyline/fused.hpp"

namespace ppma::inline PPMA_ABI {

/// whole_attention() + conv(v), the depthwise convolution with w (C,1,5,5) and b (C), where that is
/// one kernel: of masked maps of at most 16 x 16 on a GPU in bf16, of which nothing is recorded.
/// Undefined elsewhere.
PPMA_API Tensor whole_attention_local(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                      const Tensor& log_decays, Paths paths, const Tensor& w,
                                      const Tensor& b);

/// Whether whole_attention_turned() takes tokens like x (B,H,W,C): of masked maps of at most 16 x
/// 16 on a GPU in bf16.
PPMA_API bool turns_in_whole_attention(const Tensor& x, i64 heads, Paths paths);

/// whole_attention() of what rotary(q, k, angle, heads, k_scale) gives, in one kernel; angle (d).
/// Not differentiable.
/// Errors: tokens that turns_in_whole_attention() does not take, an angle that is not (d) beside
/// them in f32, arguments of which something is recorded.
PPMA_API Tensor whole_attention_turned(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                       const Tensor& log_decays, Paths paths, const Tensor& angle,
                                       double k_scale);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_WHOLE)

#include "ppma/ops/rotary.hpp"

namespace ppma::inline PPMA_ABI {

Tensor whole_attention_local([[maybe_unused]] const Tensor& q, [[maybe_unused]] const Tensor& k,
                             [[maybe_unused]] const Tensor& v, [[maybe_unused]] i64 heads,
                             [[maybe_unused]] const Tensor& log_decays,
                             [[maybe_unused]] Paths paths, [[maybe_unused]] const Tensor& w,
                             [[maybe_unused]] const Tensor& b) {
#if PPMA_CUDA
  const auto parameter = [](const Tensor& t, const Shape& shape) {
    return t.defined() && t.device() == Device::cuda && t.dtype() == DType::f32 &&
           t.shape() == shape;
  };
  if (v.defined() && v.rank() == 4 && v.device() == Device::cuda && v.dtype() == DType::bf16 &&
      parameter(w, {v.dim(3), 1, 5, 5}) && parameter(b, {v.dim(3)})) {
    const detail::AttentionInputs in("whole_attention_local", q, k, v, heads, log_decays,
                                     paths != Paths::none);
    if (kernels::adds_local(paths, in.shape) && !is_recorded(in.tensors()) && !needs_grad({w, b})) {
      Tensor y = Tensor::empty(q.shape(), q.dtype(), q.device());
      kernels::whole_attention(Cuda{}, paths, in.args<bf16>(), y.data<bf16>(),
                               static_cast<bf16*>(nullptr), nullptr,
                               {w.data<float>(), b.data<float>()});
      return y;
    }
  }
#endif
  return Tensor();
}

bool turns_in_whole_attention([[maybe_unused]] const Tensor& x, [[maybe_unused]] i64 heads,
                              [[maybe_unused]] Paths paths) {
#if PPMA_CUDA
  return x.defined() && x.rank() == 4 && x.device() == Device::cuda && x.dtype() == DType::bf16 &&
         heads > 0 && x.dim(3) % heads == 0 &&
         kernels::turns_tokens(paths, {x.dim(0), x.dim(1), x.dim(2), heads, x.dim(3) / heads});
#else
  return false;
#endif
}

Tensor whole_attention_turned(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                              const Tensor& log_decays, Paths paths, const Tensor& angle,
                              [[maybe_unused]] double k_scale) {
  const char* const op = "whole_attention_turned";
  const detail::AttentionInputs in(op, q, k, v, heads, log_decays, paths != Paths::none);
  check(turns_in_whole_attention(q, heads, paths), op,
        ": takes masked maps of at most 16 x 16 on a GPU in bf16, got ", q.shape(), " ", q.dtype(),
        "; use rotary() and whole_attention()");
  check(angle.defined() && angle.shape() == Shape{in.shape.head_width} &&
            angle.dtype() == DType::f32 && angle.device() == q.device(),
        op, ": angle must be (", in.shape.head_width, ") in f32 on the GPU");
  check(!is_recorded(in.tensors()), op,
        ": has no gradient; use rotary() and whole_attention(), or NoGrad");
  Tensor y = Tensor::empty(q.shape(), q.dtype(), q.device());
#if PPMA_CUDA
  const detail::RotaryTables tables = detail::rotary_tables(angle, in.shape.tokens());
  kernels::whole_attention(
      Cuda{}, paths, in.args<bf16>(), y.data<bf16>(), static_cast<bf16*>(nullptr), nullptr, {},
      {tables.cosine.data<float>(), tables.sine.data<float>(), static_cast<float>(k_scale)});
#endif
  return y;
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
