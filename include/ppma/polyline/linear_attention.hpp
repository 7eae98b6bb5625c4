#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA: polyline path masked linear attention (the paper's Theorem 3; spec 2.3), in three forms of one result:
//
//   Y = ( (Q K^T) * L2D ) V         no softmax, no normaliser; L2D = L + L^T, or one of the two paths
//
//   quadratic  the formula: N x N arrays
//   scan       T_u = k_u v_u^T, apply the mask to T by column and row scans, y_u = q_u^T (L T)_u: O(N d^2) time, O(N d)
//              memory
//   chunked    blocks of rows: the formula inside a block, one d x d state a column between blocks: more of the work
//              is products of matrices. Written with the library's operations; backward recomputes a block at a time.
//
// Legend: B batch, G heads, H W grid, N = H W, d head width, R rows of a block.
// Q and K may be feature maps phi(q), phi(k); normalise rows by attending to ones, if you want to.

#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/linear_attention_chunked.hpp"
#include "ppma/polyline/linear_attention_kernel.hpp"

namespace ppma::inline PPMA_ABI {

/// The forms of linear attention and of structured_attention.hpp: same result, different cost.
enum class LinearForm { quadratic, scan, chunked };

inline std::string to_string(LinearForm f) {
  return f == LinearForm::quadratic ? "quadratic" : f == LinearForm::scan ? "scan" : "chunked";
}

namespace kernels {

// The parts of one head in the layout of linear_scan::Head.
template <class T>
struct LinearHead {
  const AttentionShape& x;
  i64 dp, numbers;
  Workspace<T> alpha, beta, q, k, v, dy, sum;
  linear_scan::Head<T> head;

  LinearHead(const AttentionShape& shape, bool backward)
      : x(shape),
        dp(round_to_lanes<T>(x.head_width)),
        numbers(x.tokens() * dp),
        alpha((x.height + 1) * (x.width + 1)),
        beta((x.height + 1) * (x.width + 1)),
        q(numbers),
        k(numbers),
        v(numbers),
        dy(backward ? numbers : 0),
        sum(numbers),
        head{x.height, x.width, dp, alpha.data(), beta.data()} {}

  i64 at(i64 which) const { return which / x.heads * x.tokens() * x.channels() + which % x.heads * x.head_width; }
  void decays(i64 which, const T* log_alpha, const T* log_beta) {
    linear_scan::edge_decays(x.height, x.width, log_alpha + which * x.tokens(), true, alpha.data());
    linear_scan::edge_decays(x.height, x.width, log_beta + which * x.tokens(), false, beta.data());
  }
  // Copies head `which` (image * heads + head) of a (B,H,W,C) array in.
  void read(i64 which, const T* from, T* to) const {
    for (i64 c = 0; c < dp; c += lanes<T>) {
      const i64 some = std::min(lanes<T>, x.head_width - c);
      for (i64 u = 0; u < x.tokens(); ++u) {
        const T* const p = from + at(which) + u * x.channels() + c;
        store(to + c * x.tokens() + u * lanes<T>, some == lanes<T> ? load(p) : load_some(p, some));
      }
    }
  }
  // y of head `which` = ((q k^T) * mask) v, the sum over the paths.
  void attend(i64 which, bool v2h, bool h2v, const T* queries, const T* keys, const T* values, T* y) const {
    std::fill_n(sum.data(), numbers, T(0));
    if (v2h) linear_scan::forward_v2h<T>(head, queries, keys, values, sum.data());
    if (h2v) linear_scan::forward_h2v<T>(head, queries, keys, values, sum.data());
    for (i64 c = 0; c < dp; c += lanes<T>)
      for (i64 u = 0; u < x.tokens(); ++u)
        std::copy_n(sum.data() + c * x.tokens() + u * lanes<T>, std::min(lanes<T>, x.head_width - c),
                    y + at(which) + u * x.channels() + c);
  }
  static i64 grain(const AttentionShape& x) { return x.grain(12 * x.head_width); }
};

template <class T>
void linear_attention(Cpu, const AttentionShape& x, bool v2h, bool h2v, const T* q, const T* k, const T* v,
                      const T* log_alpha, const T* log_beta, T* y) {
  parallel_for(x.batch * x.heads, LinearHead<T>::grain(x), [=](i64 begin, i64 end) {
    LinearHead<T> h(x, false);
    for (i64 which = begin; which < end; ++which) {
      h.decays(which, log_alpha, log_beta);
      h.read(which, q, h.q.data()), h.read(which, k, h.k.data()), h.read(which, v, h.v.data());
      h.attend(which, v2h, h2v, h.q.data(), h.k.data(), h.v.data(), y);
    }
  });
}

// Three gradients are linear attentions themselves; with y = ((q k^T) * L) v,
//   dq = ((dy v^T) * L) k,   dk = ((v dy^T) * L^T) q,   dv = ((k q^T) * L^T) dy
// and for the mask L^T, with L.
template <class T>
void linear_attention_backward(Cpu, const AttentionShape& x, bool v2h, bool h2v, const T* q, const T* k, const T* v,
                               const T* log_alpha, const T* log_beta, const T* dy, T* dq, T* dk, T* dv, T* dlog_alpha,
                               T* dlog_beta) {
  parallel_for(x.batch * x.heads, LinearHead<T>::grain(x), [=](i64 begin, i64 end) {
    LinearHead<T> h(x, true);
    const i64 n = x.tokens();
    const Workspace<T> column_sums(n);
    for (i64 which = begin; which < end; ++which) {
      h.decays(which, log_alpha, log_beta);
      h.read(which, q, h.q.data()), h.read(which, k, h.k.data()), h.read(which, v, h.v.data()),
          h.read(which, dy, h.dy.data());
      h.attend(which, v2h, h2v, h.dy.data(), h.v.data(), h.k.data(), dq);
      h.attend(which, h2v, v2h, h.v.data(), h.dy.data(), h.q.data(), dk);
      h.attend(which, h2v, v2h, h.k.data(), h.q.data(), h.dy.data(), dv);
      T *const da = dlog_alpha + which * n, *const dc = column_sums.data();
      std::fill_n(da, n, T(0));
      std::fill_n(dc, n, T(0));
      if (v2h) linear_scan::decay_gradients_v2h<T>(h.head, h.q.data(), h.k.data(), h.v.data(), h.dy.data(), da, dc);
      // L^T[u,w] = L[w,u]: queries and keys change places, and so do values and upstream gradients.
      if (h2v) linear_scan::decay_gradients_v2h<T>(h.head, h.k.data(), h.q.data(), h.dy.data(), h.v.data(), da, dc);
      sums_to_decays(x.width, x.height, i64{1}, x.width, log_beta + which * n, dc, dlog_beta + which * n);
    }
  });
}

}  // namespace kernels
}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/polyline/linear_attention_kernel.cuh"
#endif

namespace ppma::inline PPMA_ABI {

namespace detail {

inline Tensor linear_attention_scan(const kernels::AttentionShape& x, const Tensor& q, const Tensor& k, const Tensor& v,
                                    const Tensor& log_alpha, const Tensor& log_beta, Paths paths) {
  const bool v2h = paths != Paths::h2v, h2v = paths != Paths::v2h;
  Tensor y = Tensor::empty(q.shape(), q.dtype(), q.device());
  visit(q.device(), q.dtype(), "linear_attention", [&](auto on, auto t) {
    using T = decltype(t);
    using A = acc_t<T>;
    kernels::linear_attention(on, x, v2h, h2v, q.data<T>(), k.data<T>(), v.data<T>(), log_alpha.data<A>(),
                              log_beta.data<A>(), y.data<T>());
  });
  return record(y, "linear_attention", {q, k, v, log_alpha, log_beta},
                [=, q = q.detach(), k = k.detach(), v = v.detach(), la = log_alpha.detach(),
                 lb = log_beta.detach()](const Tensor& dy) {
                  const auto like = [](const Tensor& t) { return Tensor::empty(t.shape(), t.dtype(), t.device()); };
                  Tensor dq = like(q), dk = like(k), dv = like(v), dla = like(la), dlb = like(lb);
                  visit(q.device(), q.dtype(), "linear_attention", [&](auto on, auto t) {
                    using T = decltype(t);
                    using A = acc_t<T>;
                    kernels::linear_attention_backward(on, x, v2h, h2v, q.data<T>(), k.data<T>(), v.data<T>(),
                                                       la.data<A>(), lb.data<A>(), dy.data<T>(), dq.data<T>(),
                                                       dk.data<T>(), dv.data<T>(), dla.data<A>(), dlb.data<A>());
                  });
                  return Grads{dq, dk, dv, dla, dlb};
                });
}

inline Tensor linear_attention_quadratic(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                         const Tensor& log_alpha, const Tensor& log_beta, Paths paths) {
  const Tensor scores = matmul(head_tokens(q, heads), head_tokens(k, heads), false, true);   // (B,G,N,N)
  const Tensor map = scores * polyline_mask(log_alpha, log_beta, paths);                     // (B,G,N,N)
  return tokens_to_grid(matmul(map, head_tokens(v, heads)), q);
}

}  // namespace detail

/// Polyline path masked linear attention.
///   q, k, v              (B,H,W,C); head g owns channels [g C/G, (g+1) C/G)
///   log_alpha, log_beta  (B,G,H,W), each <= 0; -infinity closes an edge, and the first of every line is not read
///   paths                v2h (mask L), h2v (L^T) or both (L + L^T); without a mask use log decays of 0
///   block_rows           rows of a block of the chunked form
///   returns              (B,H,W,C)
/// Differentiable in all tensors, in every form.
inline Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads, const Tensor& log_alpha,
                               const Tensor& log_beta, Paths paths = Paths::both, LinearForm form = LinearForm::scan,
                               i64 block_rows = 4) {
  const auto x = detail::check_attention("linear_attention", q, k, v, heads, log_alpha, log_beta, true);
  check(paths != Paths::none, "linear_attention: paths is none; without a mask use log decays of 0");
  check(block_rows >= 1, "linear_attention: block_rows must be at least 1, got ", block_rows);
  if (form == LinearForm::scan) return detail::linear_attention_scan(x, q, k, v, log_alpha, log_beta, paths);
  if (q.dtype() != log_alpha.dtype()) {  // bf16 beside f32 decays: products of both are f32
    const auto wide = [&](const Tensor& t) { return cast(t, log_alpha.dtype()); };
    return cast(linear_attention(wide(q), wide(k), wide(v), heads, log_alpha, log_beta, paths, form, block_rows),
                q.dtype());
  }
  if (form == LinearForm::quadratic)
    return detail::linear_attention_quadratic(q, k, v, heads, log_alpha, log_beta, paths);
  const Tensor qs = detail::split_heads(q, heads), ks = detail::split_heads(k, heads),
               vs = detail::split_heads(v, heads);
  std::vector<Tensor> terms;
  for (const Paths path : {Paths::v2h, Paths::h2v})
    if (paths == path || paths == Paths::both)
      terms.push_back(detail::linear_attention_chunked(qs, ks, vs, log_alpha, log_beta, path, block_rows));
  return detail::merge_heads(detail::sum_of(terms));
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
