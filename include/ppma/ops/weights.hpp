#pragma once
#include "ppma/core/names_begin.hpp"
// Parameters beside activations of a narrower dtype: where activations are bf16, weights may be
// f32; the product takes them rounded, and their gradient has their own dtype. Biases are in the
// accumulator's dtype; where nothing is recorded, also in x's.

#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/ops/converted_weights.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

/// Errors: a dtype of w or b (or undefined) that does not go with x's, or another device.
inline void check_weights(const char* op, const Tensor& x, const Tensor& w, const Tensor& b) {
  const DType wide = accumulator_dtype(x.dtype());
  const bool fits =
      !b.defined() || b.dtype() == wide || (b.dtype() == x.dtype() && !b.requires_grad());
  check((w.dtype() == x.dtype() || w.dtype() == wide) && fits, op, ": x is ", x.dtype(), ", w is ",
        w.dtype(), b.defined() ? str(", b is ", b.dtype()) : "",
        "; x, w and b must have one dtype (beside bf16, w may be and b must be f32)");
  check(w.device() == x.device() && (!b.defined() || b.device() == x.device()), op, ": x is on ",
        x.device(), ", w or b is not; ", "move them with .to()");
}

/// The same for weights packed for inference: in bf16 they are for f32 activations.
inline void check_packed(const char* op, const Tensor& x, const Tensor& elements, const Tensor& b) {
  if (elements.dtype() == DType::bf16 && x.device() == Device::cpu) {
    check(x.dtype() == DType::f32 && (!b.defined() || b.dtype() == DType::f32), op, ": x is ",
          x.dtype(), b.defined() ? str(", b is ", b.dtype()) : "",
          "; beside weights packed in bf16 both must be f32 on the CPU");
    return;
  }
  check_weights(op, x, elements, b);
}

/// w in x's dtype, without history.
inline Tensor converted_weights(const Tensor& w, DType dtype) {
  if (!w.defined() || w.dtype() == dtype) return w.detach();
  if (Tensor found = ConvertedWeights::find(w, dtype); found.defined()) return found;
  Tensor y = Tensor::empty(w.shape(), dtype, w.device());
  visit(w.device(), dtype, "weights", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::convert_weights(on, w.numel(), w.data<acc_t<T>>(), y.data<T>());
  });
  return y;
}

/// dw (k,n) = a^T b for a (m,k), b (m,n), in the dtype `dtype` of the weights.
template <class On, class T>
Tensor weight_gradient(On on, i64 m, i64 k, i64 n, const T* a, const T* b, const Shape& shape,
                       DType dtype) {
  Tensor dw = Tensor::empty(shape, dtype, On::device);
  const auto run = [&](auto* c) {
    kernels::Gemm<T, std::remove_pointer_t<decltype(c)>> g;
    g.m = k, g.n = n, g.k = m;
    g.a = a, g.lda = k, g.ta = true;
    g.b = b, g.ldb = n;
    g.c = c, g.ldc = n;
    kernels::gemm(on, g);
  };
  if (dtype == dtype_of<T>)
    run(dw.data<T>());
  else
    run(dw.data<acc_t<T>>());
  return dw;
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
