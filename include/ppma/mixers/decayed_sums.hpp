#pragma once
#include "ppma/core/names_begin.hpp"
// Causal linear attention with decays along a sequence: what retention (Sun et al., 2023, equations
// 5 and 6) and state space duality (Dao and Gu, 2024, its dual form and its recurrence) compute.
//
//   y_t = sum over s <= t of (q_t . k_s) e^(a_{s+1} + .. + a_t) v_s
//
//   all pairs   ( q k^T * L ) v   N x N scores a head
//   recurrence  S_t = e^(a_t) S_{t-1} + k_t v_t^T,  y_t = q_t^T S_t   one d x p matrix a token
//
// Both are the same; the one that holds fewer numbers is taken.
// Legend: B batch, N tokens, G heads, d width of q and k, p width of v.

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

/// The sums, (B,N,G,p).
///   q, k       (B,N,G or 1,d)
///   v          (B,N,G,p)
///   log_decay  (B,N,G), each <= 0; the first is of no edge
PPMA_API Tensor decayed_sums(const Tensor& q, const Tensor& k, const Tensor& v,
                             const Tensor& log_decay);

namespace detail {

// Whether N tokens are summed by the recurrence.
inline bool sums_by_recurrence(i64 tokens, i64 d, i64 p) { return d * p < tokens; }

PPMA_API Tensor decayed_sums_of_pairs(const Tensor& q, const Tensor& k, const Tensor& v,
                                      const Tensor& log_decay);
PPMA_API Tensor decayed_sums_by_recurrence(const Tensor& q, const Tensor& k, const Tensor& v,
                                           const Tensor& log_decay);

}  // namespace detail

/// Multiply-accumulates of those sums for a batch, and operations besides: the decays.
inline MixerCost decayed_sums_cost(i64 batch, i64 tokens, i64 heads, i64 d, i64 p) {
  const i64 each = batch * heads * tokens;
  if (detail::sums_by_recurrence(tokens, d, p)) return {3 * each * d * p, each};
  return {each * tokens * (d + p), 4 * each * tokens};
}

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/scan.hpp"

namespace ppma::inline PPMA_ABI {

Tensor decayed_sums(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& log_decay) {
  return detail::sums_by_recurrence(v.dim(1), q.dim(3), v.dim(3))
             ? detail::decayed_sums_by_recurrence(q, k, v, log_decay)
             : detail::decayed_sums_of_pairs(q, k, v, log_decay);
}

Tensor detail::decayed_sums_of_pairs(const Tensor& q, const Tensor& k, const Tensor& v,
                                     const Tensor& log_decay) {
  const i64 batch = v.dim(0), n = v.dim(1), heads = v.dim(2);
  const auto by_head = [](const Tensor& t) { return permute(t, {0, 2, 1, 3}); };
  std::vector<double> later(static_cast<std::size_t>(n * n), 0);  // what no token sees
  for (i64 t = 0; t < n; ++t)
    for (i64 s = t + 1; s < n; ++s) later[static_cast<std::size_t>(t * n + s)] = -1e30;
  const Tensor ahead = cast(Tensor::from<double>(later, {n, n}), v.dtype()).to(v.device());
  const Tensor sums = permute(cumsum(log_decay, 1), {0, 2, 1});  // (B,G,N)
  const Tensor L = exp(minimum(
      reshape(sums, Shape{batch, heads, n, 1}) - reshape(sums, Shape{batch, heads, 1, n}) + ahead,
      Tensor::zeros({1}, v.dtype(), v.device())));
  const Tensor scores = matmul(by_head(q), by_head(k), false, true) * L;  // (B,G,N,N)
  return by_head(matmul(scores, by_head(v)));
}

Tensor detail::decayed_sums_by_recurrence(const Tensor& q, const Tensor& k, const Tensor& v,
                                          const Tensor& log_decay) {
  const i64 batch = v.dim(0), n = v.dim(1), heads = v.dim(2), d = q.dim(3), p = v.dim(3);
  const Tensor products =
      reshape(k, Shape{batch, n, k.dim(2), d, 1}) * reshape(v, Shape{batch, n, heads, 1, p});
  const Tensor states = decay_scan(products, reshape(log_decay, Shape{batch, n, heads, 1, 1}), 1,
                                   ScanDirection::forward);  // (B,N,G,d,p)
  return reshape(matmul(reshape(q, Shape{batch, n, q.dim(2), 1, d}), states), v.shape());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
