#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA: polyline path masked linear attention (the paper's Theorem 3; spec 2.3), in three forms of
// one result:
//
//   Y = ( (Q K^T) * L2D ) V         no softmax, no normaliser; L2D = L + L^T, or one of the two
//                                   paths
//
//   quadratic  the formula: N x N arrays
//   scan       T_u = k_u v_u^T, apply the mask to T by column and row scans, y_u = q_u^T (L T)_u:
//              O(N d^2) time, O(N d) memory
//   chunked    blocks of rows: the formula inside a block, one d x d state a column between blocks:
//              more of the work is products of matrices. Written with the library's operations;
//              backward recomputes a block at a time.
//
// Legend: B batch, G heads, H W grid, N = H W, d head width, R rows of a block.
// Q and K may be feature maps phi(q), phi(k); normalise rows by attending to ones, if you want to.

#include <string>

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// The forms of linear attention and of structured_attention.hpp: same result, different cost.
enum class LinearForm { quadratic, scan, chunked };

PPMA_API std::string to_string(LinearForm f);

/// Polyline path masked linear attention.
///   q, k, v     (B,H,W,C); head g owns channels [g C/G, (g+1) C/G)
///   log_decays  (2,B,G,H,W), each <= 0; -infinity closes an edge, and the first of every line is
///               not read
///   paths       v2h (mask L), h2v (L^T) or both (L + L^T); without a mask use log decays of 0
///   block_rows  rows of a block of the chunked form
///   returns     (B,H,W,C)
/// Differentiable in all tensors, in every form.
PPMA_API Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                 const Tensor& log_decays, Paths paths = Paths::both,
                                 LinearForm form = LinearForm::scan, i64 block_rows = 4);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include <vector>

#include "ppma/kernels/cpu/linear/attention.hpp"
#include "ppma/kernels/cpu/linear/scan.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/polyline/linear_attention_chunked.hpp"
#include "ppma/tensor/autograd.hpp"

namespace ppma::inline PPMA_ABI {

std::string to_string(LinearForm f) {
  return f == LinearForm::quadratic ? "quadratic" : f == LinearForm::scan ? "scan" : "chunked";
}

namespace detail {

inline Tensor linear_attention_scan(const kernels::AttentionShape& x, const Tensor& q,
                                    const Tensor& k, const Tensor& v, const Tensor& log_decays,
                                    Paths paths) {
  const bool v2h = paths != Paths::h2v, h2v = paths != Paths::v2h;
  Tensor y = Tensor::empty(q.shape(), q.dtype(), q.device());
  visit(q.device(), q.dtype(), "linear_attention", [&](auto on, auto t) {
    using T = decltype(t);
    using A = acc_t<T>;
    const auto log = decay_pointers<A>(log_decays);
    kernels::linear_attention(on, x, v2h, h2v, q.data<T>(), k.data<T>(), v.data<T>(), log.alpha,
                              log.beta, y.data<T>());
  });
  return record(y, "linear_attention", {q, k, v, log_decays},
                [x, v2h, h2v, q = q.detach(), k = k.detach(), v = v.detach(),
                 decays = log_decays.detach()](const Tensor& dy) {
                  const auto like = [](const Tensor& t) {
                    return Tensor::empty(t.shape(), t.dtype(), t.device());
                  };
                  Tensor dq = like(q), dk = like(k), dv = like(v), ddecays = decay_gradient(decays);
                  visit(q.device(), q.dtype(), "linear_attention", [&](auto on, auto t) {
                    using T = decltype(t);
                    using A = acc_t<T>;
                    const auto log = decay_pointers<A>(decays);
                    const auto dlog = decay_pointers<A>(ddecays);
                    kernels::linear_attention_backward(on, x, v2h, h2v, q.data<T>(), k.data<T>(),
                                                       v.data<T>(), log.alpha, log.beta,
                                                       dy.data<T>(), dq.data<T>(), dk.data<T>(),
                                                       dv.data<T>(), dlog.alpha, dlog.beta);
                  });
                  return Grads{dq, dk, dv, ddecays};
                });
}

inline Tensor linear_attention_quadratic(const Tensor& q, const Tensor& k, const Tensor& v,
                                         i64 heads, const Tensor& log_decays, Paths paths) {
  // (B,G,N,N)
  const Tensor scores = matmul(head_tokens(q, heads), head_tokens(k, heads), false, true);
  // (B,G,N,N)
  const Tensor map = scores * polyline_mask(log_decays, paths);
  return tokens_to_grid(matmul(map, head_tokens(v, heads)), q);
}

}  // namespace detail

Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                        const Tensor& log_decays, Paths paths, LinearForm form, i64 block_rows) {
  const auto x = detail::check_attention("linear_attention", q, k, v, heads, log_decays, true);
  check(paths != Paths::none,
        "linear_attention: paths is none; without a mask use log decays of 0");
  check(block_rows >= 1, "linear_attention: block_rows must be at least 1, got ", block_rows);
  if (form == LinearForm::scan) return detail::linear_attention_scan(x, q, k, v, log_decays, paths);
  if (q.dtype() != log_decays.dtype()) {  // bf16 beside f32 decays: products of both are f32
    const auto wide = [&](const Tensor& t) { return cast(t, log_decays.dtype()); };
    return cast(
        linear_attention(wide(q), wide(k), wide(v), heads, log_decays, paths, form, block_rows),
        q.dtype());
  }
  if (form == LinearForm::quadratic)
    return detail::linear_attention_quadratic(q, k, v, heads, log_decays, paths);
  const Tensor qs = detail::split_heads(q, heads), ks = detail::split_heads(k, heads),
               vs = detail::split_heads(v, heads);
  std::vector<Tensor> terms;
  for (const Paths path : {Paths::v2h, Paths::h2v})
    if (paths == path || paths == Paths::both)
      terms.push_back(detail::linear_attention_chunked(qs, ks, vs, log_decays, path, block_rows));
  return detail::merge_heads(detail::sum_of(terms));
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
