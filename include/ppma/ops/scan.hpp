#pragma once
#include "ppma/core/names_begin.hpp"
// Scans along one axis: cumulative sums, and the decaying sums that apply a 1-D structured mask in
// O(n).
//
//   f_0 = x_0           f_t = x_t + d_t f_{t-1}           forward
//   g_{n-1} = x_{n-1}   g_t = x_t + d_{t+1} g_{t+1}       backward
//   y_t = f_t + g_t - x_t                             symmetric: y = M x,
//                                 M_ij = product of d over min(i,j) < t <= max(i,j)
//
// d_t = e^(log_decay_t) belongs to the edge between t-1 and t, so d_0 is never used. Gradient with
// upstream r:
// p_t = r_t + d_{t+1} p_{t+1},  q_t = r_t + d_t q_{t-1}:  dx = p (forward), q (backward),
//         p + q - r (symmetric);
// dd_t = p_t f_{t-1} (forward) + q_{t-1} g_t (backward).
// Source: M is the 1-semiseparable matrix of Dao and Gu, "Transformers are SSMs", 2024, made
// symmetric.

#include "ppma/kernels/args.hpp"
#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// Sums of the elements up to and including each one along `axis`; from each one on if `reverse`.
PPMA_API Tensor cumsum(const Tensor& x, int axis, bool reverse = false);

/// The scan of x along `axis` with decays e^log_decay (see the top of this file). log_decay has x's
/// rank and broadcasts to x, with x's size along `axis`, and is f32 beside a bf16 x; decays of size
/// 1 on the axes behind (a vector per step) cost no copy.
PPMA_API Tensor decay_scan(const Tensor& x, const Tensor& log_decay, int axis,
                           ScanDirection direction = ScanDirection::symmetric);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_ROWS)

#include "ppma/kernels/cpu/scan.hpp"
#include "ppma/ops/elementwise.hpp"
#include "ppma/ops/layout.hpp"

namespace ppma::inline PPMA_ABI {

Tensor cumsum(const Tensor& x, int axis, bool reverse) {
  detail::check_defined("cumsum", x);
  const int a = x.shape().axis(axis, "cumsum");
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.numel() == 0) return y;
  const i64 outer = x.shape().product(0, a), inner = x.shape().product(a + 1, x.rank());
  visit(x.device(), x.dtype(), "cumsum", [&](auto on, auto t) {
    using T = decltype(t);
    kernels::cumsum(on, outer, x.dim(a), inner, reverse, x.data<T>(), y.data<T>());
  });
  return record(y, "cumsum", {x},
                [a, reverse](const Tensor& dy) { return Grads{cumsum(dy, a, !reverse)}; });
}

Tensor decay_scan(const Tensor& x, const Tensor& log_decay, int axis, ScanDirection direction) {
  detail::check_defined("decay_scan", x);
  detail::check_defined("decay_scan", log_decay);
  check(log_decay.dtype() == accumulator_dtype(x.dtype()), "decay_scan: dtypes ", x.dtype(),
        " and ", log_decay.dtype(), " differ; convert one with cast (beside bf16 decays are f32)");
  check(x.device() == log_decay.device(), "decay_scan: one tensor is on the ", x.device(),
        ", the other on the ", log_decay.device());
  const int a = x.shape().axis(axis, "decay_scan"), rank = x.rank();
  check(log_decay.rank() == rank &&
            broadcast(x.shape(), log_decay.shape(), "decay_scan") == x.shape() &&
            log_decay.dim(a) == x.dim(a),
        "decay_scan: log_decay is ", log_decay.shape(), ", x is ", x.shape(),
        "; log_decay must have x's rank, x's size ", "along axis ", axis,
        ", and x's size or 1 elsewhere");
  // (outer, n, decays, width): up to `split` the decays have x's sizes, behind it 1.
  int split = rank;
  while (split > a + 1 && log_decay.dim(split - 1) == 1) --split;
  for (int k = 0; k < split; ++k) {
    if (log_decay.dim(k) == x.dim(k)) continue;
    Shape shape = x.shape();
    for (int s = split; s < rank; ++s) shape.set(s, 1);
    return decay_scan(x, broadcast_to(log_decay, shape), a, direction);
  }
  const kernels::ScanShape s{x.shape().product(0, a), x.dim(a), x.shape().product(a + 1, split),
                             x.shape().product(split, rank)};
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  if (x.numel() == 0) return y;
  const auto run = [s, n = log_decay.numel()](ScanDirection way, const Tensor& in,
                                              const Tensor& log_d, Tensor& out) {
    visit(in.device(), in.dtype(), "decay_scan", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      const Workspace<A> d(n, on.device);
      kernels::map(on, n, log_d.data<A>(), d.data(), kernels::ExpOf{});
      kernels::decay_scan(on, s, way, in.data<T>(), d.data(), out.data<T>());
    });
  };
  run(direction, x, log_decay, y);
  const bool needs_x = x.requires_grad(), needs_decay = log_decay.requires_grad();
  const Tensor kept_x = needs_decay ? x.detach() : Tensor();
  return record(y, "decay_scan", {x, log_decay}, [=, log_d = log_decay.detach()](const Tensor& dy) {
    Tensor dx, dlog;
    if (needs_x) {  // the transposed mask: forward and backward change places
      dx = Tensor::empty(dy.shape(), dy.dtype(), dy.device());
      run(direction == ScanDirection::forward    ? ScanDirection::backward
          : direction == ScanDirection::backward ? ScanDirection::forward
                                                 : ScanDirection::symmetric,
          dy, log_d, dx);
    }
    if (needs_decay) {
      dlog = Tensor::empty(log_d.shape(), log_d.dtype(), dy.device());
      visit(dy.device(), dy.dtype(), "decay_scan", [&](auto on, auto t) {
        using T = decltype(t);
        using A = acc_t<T>;
        const Workspace<A> d(log_d.numel(), on.device);
        kernels::map(on, log_d.numel(), log_d.data<A>(), d.data(), kernels::ExpOf{});
        kernels::decay_scan_log_gradient(on, s, direction, kept_x.data<T>(), d.data(), dy.data<T>(),
                                         dlog.data<A>());
      });
    }
    return Grads{dx, dlog};
  });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
