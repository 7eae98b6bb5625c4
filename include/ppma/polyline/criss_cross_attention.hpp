#pragma once
#include "ppma/core/names_begin.hpp"
// Criss-cross polyline path masked attention (PPMCCA), fused: values and gradients of the composed
// form in polyline/attention.hpp, without stored masks. How: kernels/cpu/criss_cross/attention.hpp.
//
//   PH_i = rowsoftmax_l( q[i,j].k[i,l] - |a[i,j]-a[i,l]| )      for every row i
//         (1-D alpha mask)
//   PV_l = rowsoftmax_k( q[i,l].k[k,l] - |b[i,l]-b[k,l]| )      for every column l
//         (1-D beta mask)
//   O1 = rows first, then columns;  O2 = columns first, then rows;  Y = (O1 + O2) / 2
//         (spec 2.2, variant `code`)

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// Fused criss-cross attention; the composed twin is criss_cross_attention_composed().
///   q, k, v     (B,H,W,C), k already scaled, rotary applied; head g owns channels
///               [g C/G, (g+1) C/G)
///   log_decays  (2,B,G,H,W), each <= 0: of the edge to the left and above; undefined: no mask.
///               Closed edges (-infinity): as whole_attention()
///   returns     (B,H,W,C)
PPMA_API Tensor criss_cross_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                      const Tensor& log_decays, Order order = Order::both);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include "ppma/kernels/cpu/criss_cross/attention.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor criss_cross_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                             const Tensor& log_decays, Order order) {
  const auto x = detail::check_attention("criss_cross_attention", q, k, v, heads, log_decays,
                                         log_decays.defined());
  Tensor y = Tensor::empty(q.shape(), q.dtype(), q.device());
  visit(q.device(), q.dtype(), "criss_cross_attention", [&](auto on, auto t) {
    using T = decltype(t);
    const auto log = detail::decay_pointers<acc_t<T>>(log_decays);
    kernels::criss_cross_attention(on, x, order, q.data<T>(), k.data<T>(), v.data<T>(), log.alpha,
                                   log.beta, y.data<T>());
  });
  return record(
      y, "criss_cross_attention", {q, k, v, log_decays},
      [x, q = q.detach(), k = k.detach(), v = v.detach(), decays = log_decays.detach(),
       order](const Tensor& dy) {
        const auto like = [](const Tensor& t) {
          return Tensor::empty(t.shape(), t.dtype(), t.device());
        };
        Tensor dq = like(q), dk = like(k), dv = like(v), ddecays = detail::decay_gradient(decays);
        visit(q.device(), q.dtype(), "criss_cross_attention", [&](auto on, auto t) {
          using T = decltype(t);
          const auto log = detail::decay_pointers<acc_t<T>>(decays);
          const auto dlog = detail::decay_pointers<acc_t<T>>(ddecays);
          kernels::criss_cross_attention_backward(
              on, x, order, q.data<T>(), k.data<T>(), v.data<T>(), log.alpha, log.beta,
              dy.data<T>(), dq.data<T>(), dk.data<T>(), dv.data<T>(), dlog.alpha, dlog.beta);
        });
        return Grads{dq, dk, dv, ddecays};
      });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
