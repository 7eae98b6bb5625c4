#pragma once
#include "ppma/core/names_begin.hpp"
// Causal linear attention with decays along a sequence: what retention (Sun et al., 2023, equations
// 5 and 6) and state space duality (Dao and Gu, 2024, its dual form and its recurrence) compute.
//
//   y_t = sum over s <= t of (q_t . k_s) e^(a_{s+1} + .. + a_t) v_s
//
// Composed, tokens are cut into chunks: within one all pairs are summed, and what was before it
// comes as one d x p matrix, which goes from chunk to chunk (Dao and Gu, 2024, algorithm 1).
//
//   within   ( q k^T * L ) v,  L_ts = e^(c_t - c_s) for s <= t
//   chunk    S = sum over its s of e^(c_last - c_s) k_s v_s^T,  H = e^(c_last) H_before + S
//   before   e^(c_t) q_t^T H_before
//
// with c_t the sum of the log decays since the chunk began. Kernels do the same
// (kernels/cpu/decayed_sums.hpp, kernels/cuda/decayed_sums.cuh): nothing of the size of the pairs
// is written.
//
// Legend: B batch, N tokens, G heads, d width of q and k, p width of v, T chunks of Q tokens.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

/// The sums, (B,N,G,p), differentiable in all; f32, f64, and on a GPU bf16, log_decay then f32.
/// On a GPU widths are multiples of 8, in bf16 up to 64, in f32 up to 32; others, and f64, are
/// composed there.
///   q, k       (B,N,G or 1,d), both alike
///   v          (B,N,G,p)
///   log_decay  (B,N,G), each <= 0 and finite; the first is of no edge
PPMA_API Tensor decayed_sums(const Tensor& q, const Tensor& k, const Tensor& v,
                             const Tensor& log_decay);

/// The same op by op, anywhere, in chunks of up to `longest` tokens.
PPMA_API Tensor decayed_sums_composed(const Tensor& q, const Tensor& k, const Tensor& v,
                                      const Tensor& log_decay, i64 longest = 64);

namespace detail {

// N tokens in chunks of about 64, of one length but for the last.
struct Chunks {
  i64 count, length;

  explicit Chunks(i64 tokens, i64 most = 64)
      : count((tokens + most - 1) / most), length((tokens + count - 1) / count) {}
};

}  // namespace detail
}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_DECAYED)

#include <vector>

#include "ppma/kernels/cpu/decayed_sums.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/tensor/autograd.hpp"
#include "ppma/tensor/constant.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

inline void check_decayed(const Tensor& q, const Tensor& k, const Tensor& v,
                          const Tensor& log_decay) {
  check(q.defined() && k.defined() && v.defined() && log_decay.defined(),
        "decayed_sums: an argument is undefined");
  check(v.rank() == 4 && v.numel() > 0, "decayed_sums: v must be (B,N,G,p), got ", v.shape());
  const Shape by_head{v.dim(0), v.dim(1), v.dim(2)};
  check(q.rank() == 4 && q.numel() > 0 && q.dim(0) == v.dim(0) && q.dim(1) == v.dim(1) &&
            (q.dim(2) == v.dim(2) || q.dim(2) == 1) && k.shape() == q.shape(),
        "decayed_sums: q and k must both be (", v.dim(0), ", ", v.dim(1), ", ", v.dim(2),
        " or 1, d) beside v ", v.shape(), ", got ", q.shape(), " and ", k.shape());
  check(log_decay.shape() == by_head, "decayed_sums: log_decay must be ", by_head, ", got ",
        log_decay.shape());
  check(is_floating(v.dtype()), "decayed_sums: v is ", v.dtype(),
        "; it must be f32 or f64 (on a GPU also bf16), convert it with cast");
  for (const Tensor* t : {&q, &k, &log_decay}) {
    const DType dtype = t == &log_decay ? accumulator_dtype(v.dtype()) : v.dtype();
    check(t->dtype() == dtype && t->device() == v.device(), "decayed_sums: ",
          t == &q   ? "q"
          : t == &k ? "k"
                    : "log_decay",
          " is ", t->dtype(), " on ", t->device(), "; beside v it must be ", dtype, " on ",
          v.device());
  }
}

}  // namespace detail

Tensor decayed_sums(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay) {
  detail::check_decayed(q, k, v, log_decay);
  const kernels::DecayedShape s{v.dim(0), v.dim(1), v.dim(2),
                                q.dim(3), v.dim(3), q.dim(2) != v.dim(2)};
  const std::vector<Tensor> in{q.detach(), k.detach(), v.detach(), log_decay.detach()};
  const auto args = [in](auto t) {
    using T = decltype(t);
    return kernels::DecayedArgs<T>{in[0].data<T>(), in[1].data<T>(), in[2].data<T>(),
                                   in[3].data<acc_t<T>>()};
  };
  Tensor y, kept;
  visit(v.device(), v.dtype(), "decayed_sums", [&](auto on, auto t) {
    using T = decltype(t);
    if (!kernels::decayed_sums_fit<T>(on, s)) return;
    y = Tensor::empty(v.shape(), v.dtype(), v.device());
    const Shape numbers{kernels::decayed_sums_kept<T>(on, s)};
    if (needs_grad({q, k, v, log_decay})) kept = Tensor::empty(numbers, v.dtype(), v.device());
    kernels::decayed_sums(on, s, args(t), y.data<T>(), kept.defined() ? kept.data<T>() : nullptr);
  });
  if (!y.defined()) return decayed_sums_composed(q, k, v, log_decay);
  const bool of_decays = needs_grad({log_decay});  // those of retention are fixed
  return record(y, "decayed_sums", {q, k, v, log_decay}, [=](const Tensor& dy) {
    Grads grads;
    visit(dy.device(), dy.dtype(), "decayed_sums", [&](auto on, auto t) {
      using T = decltype(t);
      const auto room = [&](const Shape& shape, DType dtype) {
        return Tensor::empty(shape, dtype, dy.device());
      };
      const Shape keys{s.batch, s.tokens, kernels::decayed_sums_parts(on, s), s.d};
      Tensor dq = room(keys, dy.dtype()), dk = room(keys, dy.dtype()),
             dv = room(dy.shape(), dy.dtype()), da;
      if (of_decays) da = room({s.batch, s.tokens, s.heads}, accumulator_dtype(dy.dtype()));
      kernels::decayed_sums_backward<T>(
          on, s, args(t), kept.data<T>(), dy.data<T>(),
          {dq.data<T>(), dk.data<T>(), dv.data<T>(), of_decays ? da.data<acc_t<T>>() : nullptr});
      if (s.shared && keys[2] > 1) dq = sum(dq, {2}, true), dk = sum(dk, {2}, true);
      grads = {dq, dk, dv, da};
    });
    return grads;
  });
}

Tensor decayed_sums_composed(const Tensor& q, const Tensor& k, const Tensor& v,
                             const Tensor& log_decay, i64 longest) {
  detail::check_decayed(q, k, v, log_decay);
  check(longest > 0, "decayed_sums: chunks of ", longest, " tokens; there must be one at least");
  const detail::Chunks chunks(v.dim(1), longest);
  const auto as_tokens = [&](const Tensor& t) { return cast(t, v.dtype()); };
  const i64 batch = v.dim(0), n = v.dim(1), heads = v.dim(2), d = q.dim(3), p = v.dim(3),
            T = chunks.count, Q = chunks.length;
  const bool shared = q.dim(2) == 1;                             // q and k, by all heads
  const auto cut = [&](const Tensor& x, i64 parts, i64 width) {  // (B,T,Q,parts,width)
    const Tensor rows = reshape(x, Shape{batch, n, parts * width});
    const Tensor rest = Tensor::zeros({batch, T * Q - n, parts * width}, x.dtype(), x.device());
    return reshape(T * Q == n ? rows : concat({rows, rest}, 1), Shape{batch, T, Q, parts, width});
  };
  // between (B,T,Q,G,.) and (B,T,G,Q,.); one head's are the same
  const auto turned = [](const Tensor& x) {
    return x.dim(3) == 1 ? reshape(x, Shape{x.dim(0), x.dim(1), 1, x.dim(2), x.dim(4)})
                         : permute(x, {0, 1, 3, 2, 4});
  };
  const Tensor values = cut(v, heads, p), queries = turned(cut(q, q.dim(2), d)),
               keys = turned(cut(k, k.dim(2), d));
  const Tensor since = cumsum(cut(log_decay, heads, 1), 2);  // (B,T,Q,G,1)
  const Tensor by_head = permute(since, {0, 1, 3, 2, 4});    // (B,T,G,Q,1)
  const Tensor later = kept_constant("what no token sees", {Q, Q}, since.dtype(), v.device(), [&] {
    std::vector<double> far(static_cast<std::size_t>(Q * Q), 0);
    for (i64 t = 0; t < Q; ++t)
      for (i64 s = t + 1; s < Q; ++s) far[static_cast<std::size_t>(t * Q + s)] = -1e30;
    return far;
  });
  const Tensor L = exp(by_head - reshape(by_head, Shape{batch, T, heads, 1, Q}) + later);
  const Tensor scores = matmul(queries, keys, false, true) * as_tokens(L);  // (B,T,G,Q,Q)
  Tensor y = permute(matmul(scores, permute(values, {0, 1, 3, 2, 4})), {0, 1, 3, 2, 4});
  if (T > 1) {
    const Tensor total = narrow(since, 2, Q - 1, 1);  // (B,T,1,G,1)
    const Tensor weighed = values * as_tokens(exp(total - since));
    // (B,T,d,G p) of shared keys, one product for all heads; else (B,T,G,d,p)
    const i64 columns = heads * p;
    const Tensor states =
        shared ? reshape(matmul(reshape(keys, Shape{batch, T, Q, d}),
                                reshape(weighed, Shape{batch, T, Q, columns}), true, false),
                         Shape{batch, T, d, heads, p})
               : matmul(keys, permute(weighed, {0, 1, 3, 2, 4}), true, false);
    const Tensor decays = shared ? broadcast_to(total, {batch, T, d, heads, 1})
                                 : reshape(total, Shape{batch, T, heads, 1, 1});
    const Tensor before =  // of the chunks behind the first
        narrow(decay_scan(states, decays, 1, ScanDirection::forward), 1, 0, T - 1);
    const Tensor asked = narrow(queries, 1, 1, T - 1);
    const Tensor found = shared ? reshape(matmul(reshape(asked, Shape{batch, T - 1, Q, d}),
                                                 reshape(before, Shape{batch, T - 1, d, columns})),
                                          Shape{batch, T - 1, Q, heads, p})
                                : permute(matmul(asked, before), {0, 1, 3, 2, 4});
    y = concat({narrow(y, 1, 0, 1),
                narrow(y, 1, 1, T - 1) + found * as_tokens(exp(narrow(since, 1, 1, T - 1)))},
               1);
  }
  const Tensor all = reshape(y, Shape{batch, T * Q, heads, p});
  return T * Q == n ? all : narrow(all, 1, 0, n);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
