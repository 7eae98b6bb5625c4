#pragma once
#include "ppma/core/names_begin.hpp"
// Whole attention with the masks of two sequences that visit all tokens in orders of their own, on
// the CPU, forward and backward; no N x N array is ever made.
//
//   Y = ( 1/2 rowsoftmax(S + M1) + 1/2 rowsoftmax(S + M2) ) V,   S = Q K^T,
//   M_r[u,w] = -|C_r[u] - C_r[w]|,   C_r the running sums of -log decay in the order of r
//
// Both softmaxes share one exponential a score, as in kernels/cpu/whole/attention.hpp; each mask
// takes one more. The difference of two running sums must not lose what lies behind an edge that is
// closed (-1e9, -infinity), nor digits after many steps:
//   - no step counts more than `farthest`: the exponential of -farthest is 0 already, so that
//     nothing else changes;
//   - the sums are pairs high + low, whose differences are taken apart: high - high rounds as the
//     difference does, not as the sums.
// A query whose sum of exponentials is too small is done again with outward sums and the masked
// maximum.
//
// Backward as there. Which of C_r[u], C_r[w] is larger follows from the visits alone.

#include <array>
#include <cmath>
#include <limits>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/kernels/cpu/head.hpp"

namespace ppma::inline PPMA_ABI {

namespace kernels PPMA_WIDTH::scans {

inline constexpr double farthest = 1e4;

// One sequence of a head.
template <class T>
struct Scan {
  i64 n;
  const i64* order;
  ZeroedWorkspace<T> high, low, ranks, by_visit;  // sums and visits by token; log decays by visit

  PPMA_ONCE Scan(i64 tokens, const i64* visits)
      : n(tokens),
        order(visits),
        high(round_to_lanes<T>(n)),
        low(round_to_lanes<T>(n)),
        ranks(round_to_lanes<T>(n)),
        by_visit(n) {
    for (i64 t = 0; t < n; ++t) ranks.data()[order[t]] = static_cast<T>(t);
  }

  void load(const T* log_decay) {
    double sum = 0;
    for (i64 t = 0; t < n; ++t) {
      const i64 u = order[t];
      by_visit.data()[t] = log_decay[u];
      if (t > 0) sum += std::min(-static_cast<double>(log_decay[u]), farthest);
      high.data()[u] = static_cast<T>(sum);
      low.data()[u] = static_cast<T>(sum - static_cast<double>(high.data()[u]));
    }
  }
  // exp M[u,w] of w and the following keys.
  PPMA_INLINE Vec<T> factor(Vec<T> high_u, Vec<T> low_u, i64 w) const {
    const Vec<T> d = (ppma::load(high.data() + w) - high_u) + (ppma::load(low.data() + w) - low_u);
    return exp_below_zero<Vec<T>>(d < 0 ? d : -d);
  }
  // Probabilities of query u with the mask added to the scores before their maximum is taken.
  PPMA_ONCE T safe_probabilities(i64 u, const T* scores, T* p) const {
    T top = std::numeric_limits<T>::lowest(), sum = 0;
    outward(n, static_cast<i64>(ranks.data()[u]), by_visit.data(), 1, [&](i64 t, T mask) {
      const i64 w = order[t];
      p[w] = scores[w] + mask;
      top = std::max(top, p[w]);
    });
    for (i64 w = 0; w < n; ++w) sum += p[w] = exp_of(p[w] - top);
    return sum;
  }
  // From the gradient of C to that of the log decays; both by token.
  void finish(const T* log_decay, const T* dc, T* dlog) const {
    T sum = 0;
    for (i64 t = n - 1; t >= 0; --t) {
      const i64 u = order[t];
      sum += dc[u];
      dlog[u] = t == 0 || is_closed(log_decay[u]) ? T(0) : sum;
    }
  }
};

// A head: its keys, both sequences, and the scores of a block of neighbouring queries.
template <class T>
struct Head {
  static constexpr i64 w = lanes<T>, block = detail::tile_rows;
  i64 n, d, dp, ldk, lds, stride;
  ZeroedWorkspace<T> kt, s, p1, p2;
  Scan<T> one, two;

  PPMA_ONCE Head(const AttentionShape& x, const i64* orders)
      : n(x.tokens()),
        d(x.head_width),
        dp(round_to_lanes<T>(d)),
        ldk(transposed_stride<T>(n)),
        lds(round_to_lanes<T>(n)),
        stride(x.channels()),
        kt(d * ldk),
        s(block * lds),
        p1(lds),
        p2(lds),
        one(n, orders),
        two(n, orders + n) {}

  void load(const AttentionArgs<T>& here) {
    copy_transposed(n, d, here.k, stride, kt.data(), ldk);
    one.load(here.log_alpha), two.load(here.log_beta);
  }
  // Scores of the queries from `u` on; exp of what stands behind the last one is 0.
  void scores(const T* queries, i64 queries_stride, i64 count) {
    multiply_small(count, n, d, queries, queries_stride, i64{1}, kt.data(), ldk, s.data(), lds,
                   false);
    for (i64 c = 0; c < count; ++c) std::fill_n(s.data() + c * lds + n, lds - n, T(-1e30));
  }
  // Unnormalised probabilities of query u, the c-th of the block, in p1 and p2, and their sums.
  void probabilities(i64 u, i64 c, T& z1, T& z2) {
    const T* const sc = s.data() + c * lds;
    T *const q1 = p1.data(), *const q2 = p2.data();
    Vec<T> top = splat(sc[0]);
    for (i64 k = 0; k < n; k += w) top = max_of(top, ppma::load(sc + k));
    const T m = lane_max<T>(top);
    const Vec<T> h1 = splat(one.high.data()[u]), l1 = splat(one.low.data()[u]),
                 h2 = splat(two.high.data()[u]), l2 = splat(two.low.data()[u]);
    Vec<T> sum1{}, sum2{};
    for (i64 k = 0; k < n; k += w) {
      const Vec<T> e = exp_below_zero<Vec<T>>(ppma::load(sc + k) - m),
                   e1 = e * one.factor(h1, l1, k), e2 = e * two.factor(h2, l2, k);
      store(q1 + k, e1), store(q2 + k, e2);
      sum1 += e1, sum2 += e2;
    }
    z1 = lane_sum<T>(sum1), z2 = lane_sum<T>(sum2);
    if (!(z1 >= smallest_sum<T>)) z1 = one.safe_probabilities(u, sc, q1);
    if (!(z2 >= smallest_sum<T>)) z2 = two.safe_probabilities(u, sc, q2);
  }
};

template <class T>
void forward(const AttentionArgs<T>& in, const i64* orders, T* y) {
  const AttentionShape x = in.shape;
  const i64 n = x.tokens(), d = x.head_width, channels = x.channels(), block = Head<T>::block,
            blocks = (n + block - 1) / block;
  // A task is one block of queries of one head; neighbours share the head's copies.
  parallel_for(x.batch * x.heads * blocks, x.grain(n) * blocks, [&](i64 begin, i64 end) {
    Head<T> head(x, orders);
    const ZeroedWorkspace<T> values(n * head.dp);
    i64 loaded = -1;
    for (i64 task = begin; task < end; ++task) {
      const i64 which = task / blocks, u0 = task % blocks * block, count = std::min(block, n - u0);
      const AttentionArgs<T> here = in.head(which);
      if (which != loaded) {
        head.load(here);
        copy_padded(n, d, here.v, channels, values.data());
        loaded = which;
      }
      head.scores(here.q + u0 * channels, channels, count);
      for (i64 c = 0; c < count; ++c) {
        T z1, z2;
        head.probabilities(u0 + c, c, z1, z2);
        const T c1 = T(0.5) / z1, c2 = T(0.5) / z2;
        T* const p = head.s.data() + c * head.lds;  // over the scores
        for (i64 k = 0; k < n; k += lanes<T>)
          store(p + k, load(head.p1.data() + k) * c1 + load(head.p2.data() + k) * c2);
      }
      multiply_small(count, d, n, head.s.data(), head.lds, i64{1}, values.data(), head.dp,
                     y + x.first_of(which) + u0 * channels, channels, false);
    }
  });
}

// Backward of one head, block of queries by block.
template <class T>
struct Backward : Head<T> {
  using H = Head<T>;
  using H::w, H::n, H::d, H::dp, H::lds, H::block, H::stride;
  ZeroedWorkspace<T> vt, keys, dkeys, dvalues, q_block, dy_block, dprobs, ds, p, dc1, dc2;

  PPMA_ONCE Backward(const AttentionShape& x, const i64* orders)
      : H(x, orders),
        vt(d * this->ldk),
        keys(n * dp),
        dkeys(n * dp),
        dvalues(n * dp),
        q_block(block * dp),
        dy_block(block * dp),
        dprobs(block * lds),
        ds(block * lds),
        p(block * lds),
        dc1(lds),
        dc2(lds) {}

  void run(const AttentionArgs<T>& here, const T* dy, const AttentionGradients<T>& to) {
    this->load(here);
    copy_transposed(n, d, here.v, stride, vt.data(), this->ldk);
    copy_padded(n, d, here.k, stride, keys.data());
    for (const auto* sum : {&dkeys, &dvalues}) std::fill_n(sum->data(), n * dp, T(0));
    for (const auto* sum : {&dc1, &dc2}) std::fill_n(sum->data(), lds, T(0));
    for (i64 u0 = 0; u0 < n; u0 += block) {
      const i64 count = std::min(block, n - u0);
      copy_padded(count, d, here.q + u0 * stride, stride, q_block.data());
      copy_padded(count, d, dy + u0 * stride, stride, dy_block.data());
      this->scores(q_block.data(), dp, count);
      multiply_small(count, n, d, dy_block.data(), dp, i64{1}, vt.data(), this->ldk, dprobs.data(),
                     lds, false);
      for (i64 c = 0; c < count; ++c) query(u0 + c, c);
      multiply_small(count, d, n, ds.data(), lds, i64{1}, keys.data(), dp, to.dq + u0 * stride,
                     stride, false);
      multiply_small(n, d, count, ds.data(), i64{1}, lds, q_block.data(), dp, dkeys.data(), dp,
                     true);
      multiply_small(n, d, count, p.data(), i64{1}, lds, dy_block.data(), dp, dvalues.data(), dp,
                     true);
    }
    for (i64 u = 0; u < n; ++u) {
      std::copy_n(dkeys.data() + u * dp, d, to.dk + u * stride);
      std::copy_n(dvalues.data() + u * dp, d, to.dv + u * stride);
    }
    this->one.finish(here.log_alpha, dc1.data(), to.dlog_alpha);
    this->two.finish(here.log_beta, dc2.data(), to.dlog_beta);
  }

  // Query u, the c-th of the block: P, dS, and what its dM sends to the ends of each difference.
  void query(i64 u, i64 c) {
    T z1, z2;
    this->probabilities(u, c, z1, z2);
    const T *const q1 = this->p1.data(), *const q2 = this->p2.data(),
                   *const g = dprobs.data() + c * lds;
    Vec<T> dot1{}, dot2{};
    for (i64 k = 0; k < n; k += w) {  // padding: p is 0 there, dP finite
      dot1 += ppma::load(q1 + k) * ppma::load(g + k);
      dot2 += ppma::load(q2 + k) * ppma::load(g + k);
    }
    const T c1 = T(0.5) / z1, c2 = T(0.5) / z2, m1 = lane_sum<T>(dot1) / z1,
            m2 = lane_sum<T>(dot2) / z2;
    T *const ds_row = ds.data() + c * lds, *const p_row = p.data() + c * lds;
    const T *const ranks1 = this->one.ranks.data(), *const ranks2 = this->two.ranks.data();
    const Vec<T> r1 = splat(ranks1[u]), r2 = splat(ranks2[u]);
    Vec<T> sum1{}, sum2{};
    const auto send = [](Vec<T> rank, Vec<T> here, Vec<T> dm, T* dc, Vec<T>& sum) {
      // The log decay between them counts where w is visited later: + there, - before.
      const Vec<T> x = rank > here ? dm : rank < here ? -dm : Vec<T>{};
      store(dc, ppma::load(dc) + x);
      sum += x;
    };
    for (i64 k = 0; k < n; k += w) {
      const Vec<T> dp_k = ppma::load(g + k), a = ppma::load(q1 + k) * c1,
                   b = ppma::load(q2 + k) * c2, ds1 = a * (dp_k - m1), ds2 = b * (dp_k - m2);
      store(p_row + k, a + b), store(ds_row + k, ds1 + ds2);
      send(ppma::load(ranks1 + k), r1, ds1, dc1.data() + k, sum1);
      send(ppma::load(ranks2 + k), r2, ds2, dc2.data() + k, sum2);
    }
    dc1.data()[u] -= lane_sum<T>(sum1), dc2.data()[u] -= lane_sum<T>(sum2);
  }
};

template <class T>
void backward(const AttentionArgs<T>& in, const i64* orders, const T* dy,
              const AttentionGradients<T>& d) {
  const AttentionShape x = in.shape;
  parallel_for(x.batch * x.heads, x.grain(x.tokens()), [&](i64 begin, i64 end) {
    Backward<T> head(x, orders);
    for (i64 which = begin; which < end; ++which)
      head.run(in.head(which), dy + x.first_of(which), d.head(x, which));
  });
}

}  // namespace kernels PPMA_WIDTH::scans
}  // namespace ppma::inline PPMA_ABI

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// As whole_attention_saves(), whole_attention() and its backward, with the masks of two sequences:
/// orders (2,N) of the tokens that they visit in turn.
template <class T>
bool scan_attention_saves(Cpu, const AttentionShape&) {
  return false;
}
template <class T>
void scan_attention(Cpu, const AttentionArgs<T>& in, const i64* orders, T* y, T*, T*) {
  scans::forward(in, orders, y);
}
template <class T>
void scan_attention_backward(Cpu, const AttentionArgs<T>& in, const i64* orders,
                             const WholeKept<T>&, const T* dy, const AttentionGradients<T>& d) {
  scans::backward(in, orders, dy, d);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/whole/scans.cuh"
#endif

#include "ppma/core/names_end.hpp"
