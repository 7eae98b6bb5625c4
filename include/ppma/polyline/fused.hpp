#pragma once
#include "ppma/core/names_begin.hpp"
// Polyline path masked attention, fused: values and gradients of the composed forms in
// polyline/attention.hpp (variant `code`), without any N x N array and without stored masks. How:
// kernels/cpu/whole/attention.hpp and kernels/cpu/criss_cross/attention.hpp.
//
//   whole (PPMVA)         Y = ( 1/2 rowsoftmax(Q K^T + M) + 1/2 rowsoftmax(Q K^T + M^T) ) V,
//                         M = log L (algorithm 2.1)
//   criss-cross (PPMCCA)  PH_i = rowsoftmax_l( q[i,j].k[i,l] + log A_i[j,l] )   for every row i
//                         PV_l = rowsoftmax_k( q[i,l].k[k,l] + log B_l[i,k] )   for every column l
//                         O1 = rows first, then columns;  O2 = columns first, then rows;
//                         Y = (O1 + O2) / 2 (algorithm 2.2)
//
// A and B are the 1-D masks that L factors into (polyline/mask.hpp).

#include <vector>

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// Whole attention with the polyline mask; the composed twin is whole_attention_composed().
///   q, k, v     (B,H,W,C), k already scaled, rotary applied
///   log_decays  (2,B,G,H,W), each <= 0 (polyline/types.hpp; log_decay() makes them, join_decays()
///               of two tensors); ignored (may be undefined) for Paths::none, plain softmax
///               attention
///   returns     (B,H,W,C)
/// Paths::both averages the softmaxes of V2H and H2V, v2h or h2v takes one. Memory O(B C N).
///
/// An edge is closed with -infinity, or with any large negative number: what is behind it has no
/// weight, and a token that is closed off on all sides keeps its own value. Decays far below 0 take
/// no digits from others. No score passes -infinity; a finite edge is passed by one that exceeds
/// it. On the GPU a path whose log decays sum to -1e6 or less, in bf16 to -1024 or less, is closed
/// like one of -infinity. The gradient of an edge of -1e30 or less is 0, on the GPU from its limit
/// down. Log decays above 0 are not looked for (they weigh more, not less), NaN gives NaN.
PPMA_API Tensor whole_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                const Tensor& log_decays, Paths paths = Paths::both);

/// Criss-cross attention; the composed twin is criss_cross_attention_composed(). Arguments as
/// whole_attention(); undefined log decays: no mask.
PPMA_API Tensor criss_cross_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                      const Tensor& log_decays, Order order = Order::both);

namespace detail {

// The mean of both orders, of lines whose tokens are visited in orders of their own: rows (H,W),
// columns (W,H), as kernels::AttentionArgs has them.
PPMA_API Tensor criss_cross_in_orders(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                      const Tensor& log_decays, const std::vector<i64>& rows,
                                      const std::vector<i64>& columns);

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_WHOLE)

#include "ppma/kernels/cpu/whole/attention.hpp"
#include "ppma/polyline/check.hpp"

namespace ppma::inline PPMA_ABI {

Tensor whole_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                       const Tensor& log_decays, Paths paths) {
  const detail::AttentionInputs in("whole_attention", q, k, v, heads, log_decays,
                                   paths != Paths::none);
  Tensor y = Tensor::empty(q.shape(), q.dtype(), q.device()), y1, log_sums, kept;
  visit(q.device(), q.dtype(), "whole_attention", [&](auto on, auto t) {
    using T = decltype(t);
    using A = acc_t<T>;
    if (is_recorded(in.tensors()) && kernels::whole_attention_saves<T>(on, paths, in.shape)) {
      kept = y.detach();
      if (paths == Paths::both) y1 = Tensor::empty(q.shape(), q.dtype(), q.device());
      log_sums = Tensor::empty({in.shape.batch, heads, q.dim(1), q.dim(2), 2},
                               accumulator_dtype(q.dtype()), q.device());
    }
    kernels::whole_attention(on, paths, in.args<T>(), y.data<T>(), detail::data_or_null<T>(y1),
                             detail::data_or_null<A>(log_sums));
  });
  return record(y, "whole_attention", in.tensors(),
                [in = in.detached(), paths, kept, y1, log_sums](const Tensor& dy) {
                  detail::AttentionResults d(in);
                  visit(dy.device(), dy.dtype(), "whole_attention", [&](auto on, auto t) {
                    using T = decltype(t);
                    const kernels::WholeKept<T> left{detail::data_or_null<T>(kept),
                                                     detail::data_or_null<T>(y1),
                                                     detail::data_or_null<acc_t<T>>(log_sums)};
                    kernels::whole_attention_backward(on, paths, in.args<T>(), left, dy.data<T>(),
                                                      d.pointers<T>());
                  });
                  return d.tensors();
                });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions of whole attention

// Kernels of both take nvcc longest of all: each in a source of its own.
#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_CRISS_CROSS)

#include "ppma/kernels/cpu/criss_cross/attention.hpp"
#include "ppma/polyline/check.hpp"

namespace ppma::inline PPMA_ABI {

Tensor criss_cross_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                             const Tensor& log_decays, Order order) {
  return detail::attention_by(
      "criss_cross_attention",
      {"criss_cross_attention", q, k, v, heads, log_decays, log_decays.defined()},
      [order](auto on, const auto& args, auto* y) {
        kernels::criss_cross_attention(on, order, args, y);
      },
      [order](auto on, const auto& args, const auto* dy, const auto& d) {
        kernels::criss_cross_attention_backward(on, order, args, dy, d);
      });
}

namespace detail {

Tensor criss_cross_in_orders(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                             const Tensor& log_decays, const std::vector<i64>& rows,
                             const std::vector<i64>& columns) {
  const auto in_orders = [rows, columns](auto args) {
    args.row_orders = rows.data(), args.column_orders = columns.data();
    return args;
  };
  return attention_by(
      "criss_cross_in_orders", {"criss_cross_in_orders", q, k, v, heads, log_decays, true},
      [in_orders](auto on, const auto& args, auto* y) {
        kernels::criss_cross_attention(on, Order::both, in_orders(args), y);
      },
      [in_orders](auto on, const auto& args, const auto* dy, const auto& d) {
        kernels::criss_cross_attention_backward(on, Order::both, in_orders(args), dy, d);
      });
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions of criss-cross attention

#include "ppma/core/names_end.hpp"
