#pragma once
#include "ppma/core/names_begin.hpp"
// The selective scan of Mamba (Gu and Dao, 2023, algorithm 2) along the rows of a grid and then
// down its columns (Zhang et al., 2DMamba, 2025); a sequence is a grid of one row.
//
//   g_ij = e^(dt_ij A) g_i,j-1 + dt_ij B_ij u_ij     along row i, of each channel and state
//   h_ij = e^(dt_ij A) h_i-1,j + g_ij                down column j
//   y_ij = C_ij . h_ij
//
// Legend: E channels, S states a channel.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// In which order the tokens of a grid are scanned: along the rows and then down the columns; or as
/// one sequence, row by row or column by column, from the first token or back from the last.
enum class TokenOrder { grid, rows, columns, rows_back, columns_back };

/// What dt holds: the step sizes, or numbers of which they are ln(1 + e^dt).
enum class StepSizes { given, softplus };

/// y (B,H,W,E), differentiable in all; f32, f64, and on a GPU bf16, a and d then f32. States of E S
/// numbers a token are not written, but for the backward pass of a grid on a GPU. There S is up to
/// 16, and a grid's rows are up to 128 tokens wide (S <= 8: 256, S <= 4: 512); others are composed
/// of decay_scan(), which writes them.
///   u, dt  (B,H,W,E), step sizes >= 0
///   a      (E,S), below 0
///   b, c   (B,H,W,S)
///   d      (E): y + d u; or undefined
///   add    (B,H,W,E): y + add; or undefined
PPMA_API Tensor selective_scan(const Tensor& u, const Tensor& dt, const Tensor& a, const Tensor& b,
                               const Tensor& c, TokenOrder order = TokenOrder::grid,
                               const Tensor& d = Tensor(), const Tensor& add = Tensor(),
                               StepSizes steps = StepSizes::given);

/// The same op by op, anywhere.
PPMA_API Tensor selective_scan_composed(const Tensor& u, const Tensor& dt, const Tensor& a,
                                        const Tensor& b, const Tensor& c,
                                        TokenOrder order = TokenOrder::grid,
                                        const Tensor& d = Tensor(), const Tensor& add = Tensor(),
                                        StepSizes steps = StepSizes::given);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_SELECTIVE)

#include <vector>

#include "ppma/kernels/cpu/selective_scan.hpp"
#include "ppma/ops/activation.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline kernels::SelectiveShape check_selective(const Tensor& u, const Tensor& dt, const Tensor& a,
                                               const Tensor& b, const Tensor& c, TokenOrder order,
                                               const Tensor& d, const Tensor& add) {
  check(u.defined() && dt.defined() && a.defined() && b.defined() && c.defined(),
        "selective_scan: an argument is undefined");
  check(u.rank() == 4 && u.numel() > 0 && dt.shape() == u.shape(),
        "selective_scan: u and dt must be (B,H,W,E), got ", u.shape(), " and ", dt.shape());
  check(a.rank() == 2 && a.dim(0) == u.dim(3) && a.dim(1) > 0, "selective_scan: a must be (",
        u.dim(3), ",S), got ", a.shape());
  const Shape by_token{u.dim(0), u.dim(1), u.dim(2), a.dim(1)};
  check(b.shape() == by_token && c.shape() == by_token, "selective_scan: b and c must be ",
        by_token, ", got ", b.shape(), " and ", c.shape());
  check(is_floating(u.dtype()), "selective_scan: u is ", u.dtype(),
        "; it must be f32 or f64 (on a GPU also bf16), convert it with cast");
  check(!d.defined() || d.shape() == Shape{u.dim(3)}, "selective_scan: d must be (", u.dim(3),
        "), got ", d.defined() ? d.shape() : Shape{});
  check(!add.defined() || add.shape() == u.shape(), "selective_scan: add must be ", u.shape(),
        ", got ", add.defined() ? add.shape() : Shape{});
  for (const Tensor* t : {&dt, &a, &b, &c, &d, &add}) {
    if (!t->defined()) continue;
    const DType dtype = t == &a || t == &d ? accumulator_dtype(u.dtype()) : u.dtype();
    check(t->dtype() == dtype && t->device() == u.device(), "selective_scan: ",
          t == &a   ? "a"
          : t == &d ? "d"
                    : "an argument",
          " is ", t->dtype(), " on ", t->device(), "; beside u it must be ", dtype, " on ",
          u.device());
  }
  const i64 height = u.dim(1), width = u.dim(2), n = height * width;
  const bool columns = order == TokenOrder::columns || order == TokenOrder::columns_back,
             back = order == TokenOrder::rows_back || order == TokenOrder::columns_back,
             grid = order == TokenOrder::grid;
  kernels::SelectiveWalk walk{0, n, 1, 0};
  if (columns) walk = {0, height, width, 1};
  if (back) walk = {n - 1, walk.line, -walk.step, -walk.line_step};
  return {u.dim(0), grid ? height : 1, grid ? width : n, u.dim(3), a.dim(1), walk};
}

struct SelectiveInputs {
  std::vector<Tensor> all;  // u, dt, a, b, c, d, without history; add in forward
  StepSizes steps;
  template <class T>
  kernels::SelectiveArgs<T> args(T) const {
    return {all[0].data<T>(),
            all[1].data<T>(),
            all[3].data<T>(),
            all[4].data<T>(),
            all[2].data<acc_t<T>>(),
            all[5].defined() ? all[5].data<acc_t<T>>() : nullptr,
            all.size() > 6 && all[6].defined() ? all[6].data<T>() : nullptr,
            steps == StepSizes::softplus};
  }
};

// x (B,H,W,...) as one sequence (B,1,N,...) in an order, and back as it was.
inline Tensor in_order(Tensor x, TokenOrder order) {
  if (order == TokenOrder::columns || order == TokenOrder::columns_back) x = transpose(x, 1, 2);
  x = reshape(x, {x.dim(0), 1, i64{-1}, x.dim(3)});
  return order == TokenOrder::rows || order == TokenOrder::columns ? x : flip(x, 2);
}
inline Tensor out_of_order(Tensor x, const Shape& shape, TokenOrder order) {
  if (order != TokenOrder::rows && order != TokenOrder::columns) x = flip(x, 2);
  if (order == TokenOrder::rows || order == TokenOrder::rows_back) return reshape(x, shape);
  return transpose(reshape(x, Shape{shape[0], shape[2], shape[1], shape[3]}), 1, 2);
}

}  // namespace detail

Tensor selective_scan(const Tensor& u, const Tensor& dt, const Tensor& a, const Tensor& b,
                      const Tensor& c, TokenOrder order, const Tensor& d, const Tensor& add,
                      StepSizes steps) {
  const kernels::SelectiveShape s = detail::check_selective(u, dt, a, b, c, order, d, add);
  detail::SelectiveInputs inputs{
      {u.detach(), dt.detach(), a.detach(), b.detach(), c.detach(), d.detach(), add.detach()},
      steps};
  i64 states = s.states;
  visit_device(u.device(), "selective_scan",
               [&](auto on) { states = kernels::selective_scan_states(on, s.states); });
  if (states > s.states) {  // more that stay 0
    const auto filled = [&](const Tensor& t) {
      Shape rest = t.shape();
      rest.set(t.rank() - 1, states - s.states);
      return concat({t, Tensor::zeros(rest, t.dtype(), t.device())}, -1);
    };
    return selective_scan(u, dt, filled(a), filled(b), filled(c), order, d, add, steps);
  }
  Tensor y, kept;
  visit(u.device(), u.dtype(), "selective_scan", [&](auto on, auto t) {
    using T = decltype(t);
    if (!kernels::selective_scan_fits<T>(on, s)) return;
    y = Tensor::empty(u.shape(), u.dtype(), u.device());
    const Shape numbers{kernels::selective_scan_kept<T>(on, s)};
    if (needs_grad({u, dt, a, b, c, d, add})) kept = Tensor::empty(numbers, a.dtype(), u.device());
    kernels::selective_scan(on, s, inputs.args(t), y.data<T>(),
                            kept.defined() ? kept.data<acc_t<T>>() : nullptr);
  });
  if (!y.defined()) return selective_scan_composed(u, dt, a, b, c, order, d, add, steps);
  inputs.all.pop_back();
  return record(y, "selective_scan", {u, dt, a, b, c, d, add}, [s, inputs, kept](const Tensor& dy) {
    Grads grads;
    visit(dy.device(), dy.dtype(), "selective_scan", [&](auto on, auto t) {
      using T = decltype(t);
      using A = acc_t<T>;
      const auto room = [&](const Shape& shape, DType dtype) {
        return Tensor::empty(shape, dtype, dy.device());
      };
      const DType wide = accumulator_dtype(dy.dtype());
      const i64 parts = kernels::selective_scan_parts<T>(on, s);
      const Shape of_states{parts, dy.dim(0), dy.dim(1), dy.dim(2), s.states};
      Tensor du = gradient_so_far(0);
      const bool adds = du.defined();  // the scans of one u in other orders
      if (!adds) du = room(dy.shape(), dy.dtype());
      Tensor ddt = room(dy.shape(), dy.dtype()), da = room({s.batch, s.channels, s.states}, wide),
             db = room(of_states, wide), dc = room(of_states, wide),
             dd = room({s.batch, s.channels}, wide);
      const kernels::SelectiveGradients<T> to{du.data<T>(), ddt.data<T>(), da.data<A>(),
                                              db.data<A>(), dc.data<A>(),  dd.data<A>(),
                                              adds};
      kernels::selective_scan_backward(on, s, inputs.args(t), kept.data<acc_t<T>>(), dy.data<T>(),
                                       to);
      grads = {du,
               ddt,
               sum(da, {0}),
               cast(sum(db, {0}), dy.dtype()),
               cast(sum(dc, {0}), dy.dtype()),
               inputs.all[5].defined() ? sum(dd, {0}) : Tensor(),
               dy};
    });
    return grads;
  });
}

Tensor selective_scan_composed(const Tensor& u, const Tensor& dt, const Tensor& a, const Tensor& b,
                               const Tensor& c, TokenOrder order, const Tensor& d,
                               const Tensor& add, StepSizes steps) {
  const kernels::SelectiveShape s = detail::check_selective(u, dt, a, b, c, order, d, add);
  if (steps == StepSizes::softplus)
    return selective_scan_composed(u, softplus(dt), a, b, c, order, d, add);
  if (add.defined()) return selective_scan_composed(u, dt, a, b, c, order, d) + add;
  const auto wide = [&](const Tensor& t) { return cast(t, a.dtype()); };
  if (d.defined())
    return cast(wide(selective_scan_composed(u, dt, a, b, c, order)) + wide(u) * d, u.dtype());
  if (order != TokenOrder::grid) {
    const auto line = [&](const Tensor& t) { return detail::in_order(t, order); };
    return detail::out_of_order(selective_scan_composed(line(u), line(dt), a, line(b), line(c)),
                                u.shape(), order);
  }
  const Shape by_channel{s.batch, s.height, s.width, s.channels, 1},
      by_state{s.batch, s.height, s.width, 1, s.states};
  const Tensor decay = reshape(wide(dt), by_channel) * a;  // (B,H,W,E,S)
  Tensor h = decay_scan(reshape(wide(dt) * wide(u), by_channel) * reshape(wide(b), by_state), decay,
                        2, ScanDirection::forward);
  if (s.height > 1) h = decay_scan(h, decay, 1, ScanDirection::forward);
  return cast(sum(h * reshape(wide(c), by_state), {-1}), u.dtype());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
