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

#include "ppma/kernels/args.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Fused criss-cross attention; the composed twin is criss_cross_attention_composed().
///   q, k, v              (B,H,W,C), k already scaled, rotary applied; head g owns channels [g C/G,
///                        (g+1) C/G)
///   log_alpha, log_beta  (B,G,H,W), each <= 0: logs of the decays of the edge to the left and
///                        above; both undefined: no mask. Closed edges (-infinity): as
///                        whole_attention()
///   returns              (B,H,W,C)
PPMA_API Tensor criss_cross_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                      const Tensor& log_alpha, const Tensor& log_beta,
                                      Order order = Order::both);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include "ppma/kernels/cpu/criss_cross/attention.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/polyline/types.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

Tensor criss_cross_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                             const Tensor& log_alpha, const Tensor& log_beta, Order order) {
  const bool masked = log_alpha.defined() || log_beta.defined();
  const auto x =
      detail::check_attention("criss_cross_attention", q, k, v, heads, log_alpha, log_beta, masked);
  Tensor y = Tensor::empty(q.shape(), q.dtype(), q.device());
  visit(q.device(), q.dtype(), "criss_cross_attention", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::criss_cross_attention(on, x, order, q.data<T>(), k.data<T>(), v.data<T>(),
                                   masked ? log_alpha.data<acc_t<T>>() : nullptr,
                                   masked ? log_beta.data<acc_t<T>>() : nullptr, y.data<T>());
  });
  return record(y, "criss_cross_attention", {q, k, v, log_alpha, log_beta},
                [x, q = q.detach(), k = k.detach(), v = v.detach(), la = log_alpha.detach(),
                 lb = log_beta.detach(), order, masked](const Tensor& dy) {
                  const auto like = [](const Tensor& t) {
                    return t.defined() ? Tensor::empty(t.shape(), t.dtype(), t.device()) : Tensor();
                  };
                  Tensor dq = like(q), dk = like(k), dv = like(v), dla = like(la), dlb = like(lb);
                  visit(q.device(), q.dtype(), "criss_cross_attention", [&](auto on, auto t) {
                    using T = decltype(t);
                    kernels::criss_cross_attention_backward(
                        on, x, order, q.data<T>(), k.data<T>(), v.data<T>(),
                        masked ? la.data<acc_t<T>>() : nullptr,
                        masked ? lb.data<acc_t<T>>() : nullptr, dy.data<T>(), dq.data<T>(),
                        dk.data<T>(), dv.data<T>(), masked ? dla.data<acc_t<T>>() : nullptr,
                        masked ? dlb.data<acc_t<T>>() : nullptr);
                  });
                  return Grads{dq, dk, dv, dla, dlb};
                });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
