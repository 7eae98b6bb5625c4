#pragma once
#include "ppma/core/names_begin.hpp"
// Causal linear attention with decays along a sequence: what retention (Sun et al., 2023, equations
// 5 and 6) and state space duality (Dao and Gu, 2024, its dual form and its recurrence) compute.
//
//   y_t = sum over s <= t of (q_t . k_s) e^(a_{s+1} + .. + a_t) v_s
//
// Tokens are cut into chunks: within one all pairs are summed, and what was before it comes as one
// d x p matrix, which goes from chunk to chunk (Dao and Gu, 2024, algorithm 1).
//
//   within   ( q k^T * L ) v,  L_ts = e^(c_t - c_s) for s <= t
//   chunk    S = sum over its s of e^(c_last - c_s) k_s v_s^T,  H = e^(c_last) H_before + S
//   before   e^(c_t) q_t^T H_before
//
// with c_t the sum of the log decays since the chunk began.
//
// Legend: B batch, N tokens, G heads, d width of q and k, p width of v, T chunks of Q tokens.

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

/// The sums, (B,N,G,p).
///   q, k       (B,N,G or 1,d)
///   v          (B,N,G,p)
///   log_decay  (B,N,G), each <= 0; the first is of no edge; f32 beside bf16
PPMA_API Tensor decayed_sums(const Tensor& q, const Tensor& k, const Tensor& v,
                             const Tensor& log_decay);

namespace detail {

// N tokens in chunks of about 64, of one length but for the last.
struct Chunks {
  i64 count, length;

  explicit Chunks(i64 tokens, i64 most = 64)
      : count((tokens + most - 1) / most), length((tokens + count - 1) / count) {}
};

PPMA_API Tensor decayed_sums_in(const Chunks& chunks, const Tensor& q, const Tensor& k,
                                const Tensor& v, const Tensor& log_decay);

}  // namespace detail

/// Multiply-accumulates of those sums for a batch, and operations besides: the decays.
inline MixerCost decayed_sums_cost(i64 batch, i64 tokens, i64 heads, i64 d, i64 p) {
  const detail::Chunks chunks(tokens);
  const i64 each = batch * heads * chunks.count * chunks.length;
  const bool one = chunks.count == 1;
  return {each * (chunks.length * (d + p) + (one ? 0 : 2 * d * p)),
          each * (4 * chunks.length + (one ? 0 : 2 * p))};
}

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/tensor/constant.hpp"

namespace ppma::inline PPMA_ABI {

Tensor decayed_sums(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay) {
  return detail::decayed_sums_in(detail::Chunks(v.dim(1)), q, k, v, log_decay);
}

Tensor detail::decayed_sums_in(const Chunks& chunks, const Tensor& q, const Tensor& k,
                               const Tensor& v, const Tensor& log_decay) {
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
  const Tensor scores = matmul(queries, keys, false, true) * beside(v, L);  // (B,T,G,Q,Q)
  Tensor y = permute(matmul(scores, permute(values, {0, 1, 3, 2, 4})), {0, 1, 3, 2, 4});
  if (T > 1) {
    const Tensor total = narrow(since, 2, Q - 1, 1);  // (B,T,1,G,1)
    const Tensor weighed = values * beside(v, exp(total - since));
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
                narrow(y, 1, 1, T - 1) + found * beside(v, exp(narrow(since, 1, 1, T - 1)))},
               1);
  }
  const Tensor all = reshape(y, Shape{batch, T * Q, heads, p});
  return T * Q == n ? all : narrow(all, 1, 0, n);
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
