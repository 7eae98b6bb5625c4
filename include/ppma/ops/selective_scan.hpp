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

/// y (B,H,W,E), differentiable in all five; f32 or f64. On the CPU the states of E S numbers a
/// token are not written; on a GPU composed of decay_scan(), which writes them.
///   u, dt  (B,H,W,E), dt >= 0
///   a      (E,S), below 0
///   b, c   (B,H,W,S)
PPMA_API Tensor selective_scan(const Tensor& u, const Tensor& dt, const Tensor& a, const Tensor& b,
                               const Tensor& c);

/// The same op by op, anywhere.
PPMA_API Tensor selective_scan_composed(const Tensor& u, const Tensor& dt, const Tensor& a,
                                        const Tensor& b, const Tensor& c);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_ROWS)

#include <type_traits>
#include <vector>

#include "ppma/kernels/cpu/selective_scan.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline kernels::SelectiveShape check_selective(const Tensor& u, const Tensor& dt, const Tensor& a,
                                               const Tensor& b, const Tensor& c) {
  check(u.defined() && dt.defined() && a.defined() && b.defined() && c.defined(),
        "selective_scan: an argument is undefined");
  check(u.rank() == 4 && u.numel() > 0 && dt.shape() == u.shape(),
        "selective_scan: u and dt must be (B,H,W,E), got ", u.shape(), " and ", dt.shape());
  check(a.rank() == 2 && a.dim(0) == u.dim(3) && a.dim(1) > 0, "selective_scan: a must be (",
        u.dim(3), ",S), got ", a.shape());
  const Shape by_token{u.dim(0), u.dim(1), u.dim(2), a.dim(1)};
  check(b.shape() == by_token && c.shape() == by_token, "selective_scan: b and c must be ",
        by_token, ", got ", b.shape(), " and ", c.shape());
  check(u.dtype() == DType::f32 || u.dtype() == DType::f64, "selective_scan: u is ", u.dtype(),
        "; it must be f32 or f64, convert it with cast");
  for (const Tensor* t : {&dt, &a, &b, &c})
    check(t->dtype() == u.dtype() && t->device() == u.device(),
          "selective_scan: all arguments must have u's dtype and device, ", u.dtype(), " on ",
          u.device(), "; one is ", t->dtype(), " on ", t->device());
  return {u.dim(0), u.dim(1), u.dim(2), u.dim(3), a.dim(1)};
}

// f(T()) of an f32 or f64 tensor on the CPU.
template <class F>
void visit_selective(const Tensor& u, F f) {
  visit_cpu(u.device(), u.dtype(), "selective_scan", [&](auto, auto t) {
    if constexpr (std::is_same_v<decltype(t), float> || std::is_same_v<decltype(t), double>) f(t);
  });
}

}  // namespace detail

Tensor selective_scan(const Tensor& u, const Tensor& dt, const Tensor& a, const Tensor& b,
                      const Tensor& c) {
  const kernels::SelectiveShape s = detail::check_selective(u, dt, a, b, c);
  if (u.device() != Device::cpu) return selective_scan_composed(u, dt, a, b, c);
  const auto args = [](auto t, const std::vector<Tensor>& x) {
    using T = decltype(t);
    return kernels::SelectiveArgs<T>{x[0].data<T>(), x[1].data<T>(), x[2].data<T>(), x[3].data<T>(),
                                     x[4].data<T>()};
  };
  const std::vector<Tensor> inputs{u.detach(), dt.detach(), a.detach(), b.detach(), c.detach()};
  Tensor y = Tensor::empty(u.shape(), u.dtype());
  detail::visit_selective(u, [&](auto t) {
    kernels::selective_scan(Cpu{}, s, args(t, inputs), y.data<decltype(t)>());
  });
  return record(y, "selective_scan", {u, dt, a, b, c}, [s, args, inputs](const Tensor& dy) {
    Grads grads;
    detail::visit_selective(dy, [&](auto t) {
      using T = decltype(t);
      const auto room = [&](const Shape& shape) { return Tensor::empty(shape, dy.dtype()); };
      const i64 strips = kernels::detail::SelectiveStrip<T>::strips(s.channels);
      Tensor du = room(dy.shape()), ddt = room(dy.shape()),
             da = room({s.batch, s.channels, s.states});
      const Shape parts{strips, s.batch, s.height, s.width, s.states};
      Tensor db = room(parts), dc = room(parts);
      kernels::selective_scan_backward(
          Cpu{}, s, args(t, inputs), dy.data<T>(),
          kernels::SelectiveGradients<T>{du.data<T>(), ddt.data<T>(), da.data<T>(), db.data<T>(),
                                         dc.data<T>()});
      grads = {du, ddt, sum(da, {0}), sum(db, {0}), sum(dc, {0})};
    });
    return grads;
  });
}

Tensor selective_scan_composed(const Tensor& u, const Tensor& dt, const Tensor& a, const Tensor& b,
                               const Tensor& c) {
  const kernels::SelectiveShape s = detail::check_selective(u, dt, a, b, c);
  const Shape by_channel{s.batch, s.height, s.width, s.channels, 1},
      by_state{s.batch, s.height, s.width, 1, s.states};
  const Tensor decay = reshape(dt, by_channel) * a;  // (B,H,W,E,S)
  Tensor h = decay_scan(reshape(dt * u, by_channel) * reshape(b, by_state), decay, 2,
                        ScanDirection::forward);
  if (s.height > 1) h = decay_scan(h, decay, 1, ScanDirection::forward);
  return sum(h * reshape(c, by_state), {-1});
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
