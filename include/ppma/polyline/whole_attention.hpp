#pragma once
#include "ppma/core/names_begin.hpp"
// Whole polyline path masked attention (PPMVA), fused: values and gradients of the composed form in
// polyline/attention.hpp, without any N x N array. How: kernels/cpu/whole/attention.hpp.
//
//   Y = ( 1/2 rowsoftmax(Q K^T + M) + 1/2 rowsoftmax(Q K^T + M^T) ) V,   M = log L
//         (spec: variant `code`)

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// Fused whole attention with the polyline mask (spec variant `code`); the composed twin is
/// whole_attention_composed() in polyline/attention.hpp.
///   q, k, v     (B,H,W,C), k already scaled, rotary applied; head g owns channels
///               [g C/G, (g+1) C/G)
///   log_decays  (2,B,G,H,W), each <= 0: of the edge to the left and above (polyline/types.hpp;
///               log_decay() makes them, join_decays() of two tensors); ignored (may be undefined)
///               for Paths::none, which is plain softmax attention
///   returns     (B,H,W,C)
/// Paths::both averages the softmaxes of V2H and H2V, v2h or h2v takes one. Memory O(B C N).
///
/// An edge is closed with -infinity, or with any large negative number: what is behind it has no
/// weight, and a token that is closed off on all sides keeps its own value. Decays far below 0 take
/// no digits from others. No score passes
/// -infinity; a finite edge is passed by one that exceeds it. On the GPU a path whose log decays
/// sum to -1e6 or less, in bf16 to -1024 or less, is closed like one of -infinity. The gradient of an
/// edge of -1e30 or less is 0, on the GPU from its limit down. What stands at the first of every
/// line is not read. Log decays above 0 are not looked for (they weigh more, not less), NaN gives
/// NaN.
PPMA_API Tensor whole_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                const Tensor& log_decays, Paths paths = Paths::both);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include <vector>

#include "ppma/kernels/cpu/whole/attention.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

template <class T>
T* data_or_null(Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

template <class T>
const T* data_or_null(const Tensor& t) {
  return t.defined() ? t.data<T>() : nullptr;
}

}  // namespace detail

Tensor whole_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                       const Tensor& log_decays, Paths paths) {
  const bool masked = paths != Paths::none;
  const auto x = detail::check_attention("whole_attention", q, k, v, heads, log_decays, masked);
  const std::vector<Tensor> inputs{q, k, v, masked ? log_decays : Tensor()};
  const Tensor decays = inputs[3].detach();
  Tensor y = Tensor::empty(q.shape(), q.dtype(), q.device()), y1, log_sums;
  visit(q.device(), q.dtype(), "whole_attention", [&](auto on, auto t) {
    using T = decltype(t);
    using A = acc_t<T>;
    if (is_recorded(inputs) && kernels::whole_attention_saves<T>(on, paths, x)) {
      if (paths == Paths::both) y1 = Tensor::empty(q.shape(), q.dtype(), q.device());
      log_sums = Tensor::empty({x.batch, x.heads, x.height, x.width, 2},
                               accumulator_dtype(q.dtype()), q.device());
    }
    const auto log = detail::decay_pointers<A>(decays);
    kernels::whole_attention(on, paths, x, q.data<T>(), k.data<T>(), v.data<T>(), log.alpha,
                             log.beta, y.data<T>(), detail::data_or_null<T>(y1),
                             detail::data_or_null<A>(log_sums));
  });
  return record(
      y, "whole_attention", inputs,
      [x, q = q.detach(), k = k.detach(), v = v.detach(), decays, paths,
       kept = log_sums.defined() ? y.detach() : Tensor(), y1, log_sums](const Tensor& dy) {
        Tensor dq = Tensor::empty(q.shape(), q.dtype(), q.device()),
               dk = Tensor::empty(q.shape(), q.dtype(), q.device());
        Tensor dv = Tensor::empty(q.shape(), q.dtype(), q.device()),
               ddecays = detail::decay_gradient(decays);
        visit(q.device(), q.dtype(), "whole_attention", [&](auto on, auto t) {
          using T = decltype(t);
          using A = acc_t<T>;
          const auto log = detail::decay_pointers<A>(decays);
          const auto dlog = detail::decay_pointers<A>(ddecays);
          kernels::whole_attention_backward(
              on, paths, x, q.data<T>(), k.data<T>(), v.data<T>(), log.alpha, log.beta,
              detail::data_or_null<T>(kept), detail::data_or_null<T>(y1),
              detail::data_or_null<A>(log_sums), dy.data<T>(), dq.data<T>(), dk.data<T>(),
              dv.data<T>(), dlog.alpha, dlog.beta);
        });
        return Grads{dq, dk, dv, ddecays};
      });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
