#pragma once
#include "ppma/core/names_begin.hpp"
// Between the tensors of an attention and its kernels: what all attentions ask of their arguments,
// the pointers that kernels get, and the tape.

#include <vector>

#include "ppma/core/device.hpp"
#include "ppma/polyline/types.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI::detail {

// The arguments of an attention, checked, and their sizes: q, k, v (B,H,W,C) and, where it is
// masked, log decays (2,B,G,H,W) or (1,B,G,H,W); else these are not looked at and undefined here.
struct AttentionInputs {
  kernels::AttentionShape shape;
  Tensor q, k, v, log_decays;

  PPMA_API AttentionInputs(const char* op, const Tensor& q, const Tensor& k, const Tensor& v,
                           i64 heads, const Tensor& log_decays, bool masked);
  std::vector<Tensor> tensors() const { return {q, k, v, log_decays}; }
  // The same without their history: what backward keeps.
  PPMA_API AttentionInputs detached() const;

  template <class T>
  kernels::AttentionArgs<T> args() const {
    using A = acc_t<T>;
    const A* const log = data_or_null<A>(log_decays);
    return {shape,       q.data<T>(), k.data<T>(),
            v.data<T>(), log,         log ? log + beta_offset(log_decays) : nullptr};
  }
};

// What a backward kernel writes. The gradient of log decays is (2,B,G,H,W) also where they are
// shared: the tape sums both halves.
struct AttentionResults {
  Tensor dq, dk, dv, dlog_decays;

  PPMA_API explicit AttentionResults(const AttentionInputs& in);
  std::vector<Tensor> tensors() const { return {dq, dk, dv, dlog_decays}; }

  template <class T>
  kernels::AttentionGradients<T> pointers() {
    using A = acc_t<T>;
    A* const dlog = data_or_null<A>(dlog_decays);
    return {dq.data<T>(), dk.data<T>(), dv.data<T>(), dlog,
            dlog ? dlog + beta_offset(dlog_decays) : nullptr};
  }
};

// An attention of two kernels: forward(on, args, y) with y like q, and
// backward(on, args, dy, gradients).
template <class Forward, class Backward>
Tensor attention_by(const char* op, const AttentionInputs& in, const Forward& forward,
                    const Backward& backward) {
  Tensor y = Tensor::empty(in.q.shape(), in.q.dtype(), in.q.device());
  visit(y.device(), y.dtype(), op,
        [&](auto on, auto t) { forward(on, in.args<decltype(t)>(), y.data<decltype(t)>()); });
  return record(y, op, in.tensors(), [op, in = in.detached(), backward](const Tensor& dy) {
    AttentionResults d(in);
    visit(dy.device(), dy.dtype(), op, [&](auto on, auto t) {
      using T = decltype(t);
      backward(on, in.args<T>(), dy.data<T>(), d.pointers<T>());
    });
    return d.tensors();
  });
}

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

namespace ppma::inline PPMA_ABI::detail {

AttentionInputs::AttentionInputs(const char* op, const Tensor& q_, const Tensor& k_,
                                 const Tensor& v_, i64 heads, const Tensor& log_decays_,
                                 bool masked)
    : shape{}, q(q_), k(k_), v(v_), log_decays(masked ? log_decays_ : Tensor()) {
  check(q.defined() && q.rank() == 4, op, ": q must be (B,H,W,C), got ", q.shape());
  check(k.shape() == q.shape() && v.shape() == q.shape(), op,
        ": q, k and v must have one shape, got ", q.shape(), ", ", k.shape(), " and ", v.shape());
  check(k.dtype() == q.dtype() && v.dtype() == q.dtype(), op,
        ": q, k and v must have one dtype, got ", q.dtype(), ", ", k.dtype(), " and ", v.dtype());
  check(heads > 0 && q.dim(3) % heads == 0, op, ": ", q.dim(3), " channels do not divide into ",
        heads, " heads");
  check(q.numel() > 0, op, ": q is empty, shape ", q.shape());
  shape = {q.dim(0), q.dim(1), q.dim(2), heads, q.dim(3) / heads};
  if (!masked) return;
  const Shape two{2, q.dim(0), heads, q.dim(1), q.dim(2)}, one{1, two[1], heads, two[3], two[4]};
  check(log_decays.defined(), op, ": a masked attention needs log_decays, ", two);
  check(log_decays.shape() == two || log_decays.shape() == one, op,
        ": log_decays must be (2,B,G,H,W) = ", two, ", or ", one, " where alpha = beta, got ",
        log_decays.shape());
  check(log_decays.dtype() == accumulator_dtype(q.dtype()), op, ": log_decays is ",
        log_decays.dtype(), ", q is ", q.dtype(), "; needed is ", accumulator_dtype(q.dtype()));
}

AttentionInputs AttentionInputs::detached() const {
  AttentionInputs same = *this;
  for (Tensor* t : {&same.q, &same.k, &same.v, &same.log_decays}) *t = t->detach();
  return same;
}

AttentionResults::AttentionResults(const AttentionInputs& in) {
  const auto like = [](const Tensor& t, const Shape& shape) {
    return Tensor::empty(shape, t.dtype(), t.device());
  };
  dq = like(in.q, in.q.shape());
  dk = like(in.k, in.k.shape());
  dv = like(in.v, in.v.shape());
  if (!in.log_decays.defined()) return;
  Shape both = in.log_decays.shape();
  both.set(0, 2);
  dlog_decays = like(in.log_decays, both);
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
