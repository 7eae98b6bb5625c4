#pragma once
#include "ppma/core/names_begin.hpp"
// Linear attention under the polyline mask by scans, head by head.

#include <algorithm>

#include "ppma/kernels/cpu/head.hpp"
#include "ppma/kernels/cpu/linear/scan.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

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

  // Copies the arguments of one head in.
  void load(const AttentionArgs<T>& here) {
    linear_scan::edge_decays(x.height, x.width, here.log_alpha, true, alpha.data());
    linear_scan::edge_decays(x.height, x.width, here.log_beta, false, beta.data());
    read(here.q, q.data());
    read(here.k, k.data());
    read(here.v, v.data());
  }
  // Copies one head of a (B,H,W,C) array in.
  void read(const T* from, T* to) const {
    for (i64 c = 0; c < dp; c += lanes<T>) {
      const i64 some = std::min(lanes<T>, x.head_width - c);
      for (i64 u = 0; u < x.tokens(); ++u) {
        const T* const p = from + u * x.channels() + c;
        store(to + c * x.tokens() + u * lanes<T>,
              some == lanes<T> ? ppma::load(p) : load_some(p, some));
      }
    }
  }
  // y of the head = ((q k^T) * mask) v, the sum over the paths.
  void attend(bool v2h, bool h2v, const T* queries, const T* keys, const T* values, T* y) const {
    std::fill_n(sum.data(), numbers, T(0));
    if (v2h) linear_scan::forward_v2h<T>(head, queries, keys, values, sum.data());
    if (h2v) linear_scan::forward_h2v<T>(head, queries, keys, values, sum.data());
    for (i64 c = 0; c < dp; c += lanes<T>)
      for (i64 u = 0; u < x.tokens(); ++u)
        std::copy_n(sum.data() + c * x.tokens() + u * lanes<T>,
                    std::min(lanes<T>, x.head_width - c), y + u * x.channels() + c);
  }
  static i64 grain(const AttentionShape& x) { return x.grain(12 * x.head_width); }
};

template <class T>
void linear_attention(Cpu, Paths paths, const AttentionArgs<T>& in, T* y) {
  const bool v2h = paths != Paths::h2v, h2v = paths != Paths::v2h;
  const AttentionShape x = in.shape;
  parallel_for(x.batch * x.heads, LinearHead<T>::grain(x), [=](i64 begin, i64 end) {
    LinearHead<T> h(x, false);
    for (i64 which = begin; which < end; ++which) {
      h.load(in.head(which));
      h.attend(v2h, h2v, h.q.data(), h.k.data(), h.v.data(), y + x.first_of(which));
    }
  });
}

// Three gradients are linear attentions themselves; with y = ((q k^T) * L) v,
//   dq = ((dy v^T) * L) k,   dk = ((v dy^T) * L^T) q,   dv = ((k q^T) * L^T) dy
// and for the mask L^T, with L.
template <class T>
void linear_attention_backward(Cpu, Paths paths, const AttentionArgs<T>& in, const T* dy,
                               const AttentionGradients<T>& d) {
  const bool v2h = paths != Paths::h2v, h2v = paths != Paths::v2h;
  const AttentionShape x = in.shape;
  parallel_for(x.batch * x.heads, LinearHead<T>::grain(x), [=](i64 begin, i64 end) {
    LinearHead<T> h(x, true);
    const i64 n = x.tokens();
    const Workspace<T> column_sums(n);
    for (i64 which = begin; which < end; ++which) {
      const AttentionArgs<T> here = in.head(which);
      const AttentionGradients<T> to = d.head(x, which);
      h.load(here);
      h.read(dy + x.first_of(which), h.dy.data());
      h.attend(v2h, h2v, h.dy.data(), h.v.data(), h.k.data(), to.dq);
      h.attend(h2v, v2h, h.v.data(), h.dy.data(), h.q.data(), to.dk);
      h.attend(h2v, v2h, h.k.data(), h.q.data(), h.dy.data(), to.dv);
      T *const da = to.dlog_alpha, *const dc = column_sums.data();
      std::fill_n(da, n, T(0));
      std::fill_n(dc, n, T(0));
      if (v2h)
        linear_scan::decay_gradients_v2h<T>(h.head, h.q.data(), h.k.data(), h.v.data(), h.dy.data(),
                                            da, dc);
      // L^T[u,w] = L[w,u]: queries and keys change places, and so do values and upstream gradients.
      if (h2v)
        linear_scan::decay_gradients_v2h<T>(h.head, h.k.data(), h.q.data(), h.dy.data(), h.v.data(),
                                            da, dc);
      sums_to_decays(x.width, x.height, i64{1}, x.width, here.log_beta, dc, to.dlog_beta);
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/linear/attention.cuh"
#endif

#include "ppma/core/names_end.hpp"
