#pragma once
#include "ppma/core/names_begin.hpp"
// Decayed sums (ops/decayed_sums.hpp) head by head, in chunks of up to 32 tokens (Dao and Gu,
// "Transformers are SSMs", 2024, section 6): a chunk's pairs and the matrix H that goes from chunk
// to chunk stay in L1 and L2. With c the running sums of the log decays in a chunk, q' = e^c q and
// k' = e^(c_last - c) k
//
//   y = q' H + (L * q k^T) v,   L_ts = e^(c_t - c_s) for s <= t
//   H for the next one: e^(c_last) H + k'^T v
//
// and back from the last chunk to the first, with A = L * (dy v^T), W = L * (q k^T) and G the
// gradient of what a chunk leaves,
//
//   dq = e^c (dy H^T) + A k     dk = e^(c_last - c) (v G^T) + A^T q     dv = k' G + W^T dy
//   G for the one before: e^(c_last) G + q'^T dy
//
// A log decay lies between all pairs of a token from it on and one before it. With M = A * (q k^T),
// its gradient is a sum of what these pairs are, apart by where they lie, so that nothing large is
// subtracted: both in the chunk (sums of M's rows less those of its columns), the earlier before
// the chunk (q' . (H dy)), the later behind it (v . (k' G)), or both (e^(c_last) <H, G>).

#include <algorithm>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/columns.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/kernels/cpu/head.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Tokens (batch,tokens,heads,width), width d of q and k, p of v; of q and k for each head, or one
/// for all (`shared`).
struct DecayedShape {
  i64 batch, tokens, heads, d, p;
  bool shared;
};

/// What is summed; log_decay (batch,tokens,heads).
template <class T>
struct DecayedArgs {
  const T *q, *k, *v;
  const acc_t<T>* log_decay;
};

/// Where the gradients go, of q and k for each head: (batch,tokens,heads,width).
template <class T>
struct DecayedGradients {
  T *dq, *dk, *dv;
  acc_t<T>* dlog_decay;  // (batch,tokens,heads)
};

namespace detail {

// One head of one image: its tokens, and the scratch of a chunk.
template <class T>
struct DecayedHead {
  static constexpr i64 longest = 32, lds = (longest + lanes<T>) / lanes<T> * lanes<T>;
  using Room = ZeroedWorkspace<T>;

  const DecayedShape& s;
  i64 d, p, dp, pp, rows = 0, ldt = transposed_stride<T>(longest);
  Room q, k, v, k_turned, scores, state, sums;
  T* c;  // running sums of the log decays of the chunk

  DecayedHead(const DecayedShape& shape)
      : s(shape),
        d(s.d),
        p(s.p),
        dp(round_to_lanes<T>(d)),
        pp(round_to_lanes<T>(p)),
        q(longest * dp),
        k(longest * dp),
        v(longest * pp),
        k_turned(d * ldt),
        scores(longest * lds),
        state(d * pp),
        sums(2 * longest),
        c(sums.data()) {}

  i64 chunks() const { return (s.tokens + longest - 1) / longest; }
  // Where token t of head `which` lies in (batch,tokens,heads,width).
  i64 at(i64 which, i64 t, i64 width) const {
    return ((which / s.heads * s.tokens + t) * s.heads + which % s.heads) * width;
  }
  i64 step(i64 width) const { return s.heads * width; }
  T total() const { return c[rows - 1]; }

  // q, k, v and the sums of chunk n.
  void load(const DecayedArgs<T>& x, i64 which, i64 n) {
    const i64 t0 = n * longest;
    rows = std::min(longest, s.tokens - t0);
    const i64 key = s.shared ? (which / s.heads * s.tokens + t0) * d : at(which, t0, d),
              key_step = s.shared ? d : step(d);
    copy_padded(rows, d, x.q + key, key_step, q.data());
    copy_padded(rows, d, x.k + key, key_step, k.data());
    copy_padded(rows, p, x.v + at(which, t0, p), step(p), v.data());
    T sum = 0;
    for (i64 t = 0; t < rows; ++t) c[t] = sum += x.log_decay[at(which, t0 + t, 1)];
  }
  // to = a's rows of n numbers times e^(sign c_t + offset).
  void weigh(i64 n, const T* a, T sign, T offset, T* to) const {
    for (i64 t = 0; t < rows; ++t) {
      const T f = exp_of(sign * c[t] + offset);
      for (i64 i = 0; i < n; ++i) to[t * n + i] = f * a[t * n + i];
    }
  }
  // f(first, count, end) for rows in tiles, whose pairs are those with tokens before `end`.
  template <class F>
  void for_tiles(F&& f) const {
    for (i64 i = 0; i < rows; i += tile_rows) {
      const i64 end = std::min<i64>(i + tile_rows, rows);
      f(i, end - i, end);
    }
  }
  // to (rows,lds) = a b, of each row up to the last pair of its tile.
  void pairs(const T* a, i64 lda, i64 width, const T* b_turned, T* to) const {
    for_tiles([&](i64 i, i64 count, i64 end) {
      multiply_small(count, end, width, a + i * lda, lda, i64{1}, b_turned, ldt, to + i * lds, lds,
                     false);
    });
  }
  // What is behind a token's own pair, up to the end of its tile, is 0.
  void clear_later(T* to) const {
    for_tiles([&](i64 i, i64 count, i64 end) {
      for (i64 t = i; t < i + count; ++t) std::fill(to + t * lds + t + 1, to + t * lds + end, T(0));
    });
  }
  // h (m,n) = e^total h + a^T b over the chunk's tokens.
  void advance(i64 m, i64 n, const T* a, i64 lda, const T* b, i64 ldb, T* h) const {
    const T f = exp_of(total());
    for (i64 i = 0; i < m * ldb; ++i) h[i] *= f;
    multiply_small(m, n, rows, a, i64{1}, lda, b, ldb, h, ldb, true);
  }
};

// How many heads are worth a thread.
inline i64 decayed_grain(const DecayedShape& s) {
  return 1 + (i64{1} << 18) / (s.tokens * (s.d * s.p + 16 * (s.d + s.p)) + 1);
}

template <class T>
void decayed_sums_head(DecayedHead<T>& h, const DecayedArgs<T>& x, i64 which, T* y) {
  T *const S = h.scores.data(), *const state = h.state.data();
  std::fill_n(state, h.d * h.pp, T(0));
  for (i64 n = 0; n < h.chunks(); ++n) {
    h.load(x, which, n);
    copy_transposed(h.rows, h.d, h.k.data(), h.dp, h.k_turned.data(), h.ldt);
    h.pairs(h.q.data(), h.dp, h.d, h.k_turned.data(), S);
    for (i64 t = 0; t < h.rows; ++t)
      columns<T>(t + 1, [&, line = S + t * h.lds](i64 i, auto lane) {
        using V = decltype(lane);
        put(line + i, V(get<V>(line + i) * exp_of(V(h.c[t] - get<V>(h.c + i)))));
      });
    h.clear_later(S);
    T* const to = y + h.at(which, n * h.longest, h.p);
    const i64 step = h.step(h.p);
    if (n > 0) {
      h.weigh(h.dp, h.q.data(), 1, 0, h.q.data());
      multiply_small(h.rows, h.p, h.d, h.q.data(), h.dp, i64{1}, state, h.pp, to, step, false);
    }
    h.for_tiles([&](i64 i, i64 count, i64 end) {
      multiply_small(count, h.p, end, S + i * h.lds, h.lds, i64{1}, h.v.data(), h.pp, to + i * step,
                     step, n > 0);
    });
    if (n + 1 == h.chunks()) break;
    h.weigh(h.dp, h.k.data(), -1, h.total(), h.k.data());
    h.advance(h.d, h.p, h.k.data(), h.dp, h.v.data(), h.pp, state);
  }
}

// What backward needs beside.
template <class T>
struct DecayedBack {
  i64 ld_turned;  // of G^T (p,d)
  ZeroedWorkspace<T> states, g, g_turned, of_d, up, of_p, v_turned, a, sums;

  explicit DecayedBack(const DecayedHead<T>& h)
      : ld_turned(transposed_stride<T>(h.d)),
        states(h.chunks() * h.p * h.dp),
        g(h.d * h.pp),
        g_turned(h.p * ld_turned),
        of_d(h.longest * h.dp),
        up(h.longest * h.pp),
        of_p(h.longest * h.pp),
        v_turned(h.p * h.ldt),
        a(h.longest * h.lds),
        sums(2 * h.lds) {}
};

template <class T>
T decayed_dot(i64 n, const T* a, const T* b) {
  return sum_columns<T>(n, [=](i64 i, auto lane) {
    using V = decltype(lane);
    return V(get<V>(a + i) * get<V>(b + i));
  });
}

template <class T>
void decayed_sums_head_backward(DecayedHead<T>& h, DecayedBack<T>& b, const DecayedArgs<T>& x,
                                i64 which, const T* dy, const DecayedGradients<T>& to) {
  const i64 d = h.d, p = h.p, dp = h.dp, pp = h.pp, lds = h.lds, chunks = h.chunks(),
            d_step = h.step(d), p_step = h.step(p);
  T *const q = h.q.data(), *const k = h.k.data(), *const v = h.v.data(), *const up = b.up.data(),
           *const of_d = b.of_d.data(), *const of_p = b.of_p.data(), *const W = h.scores.data(),
           *const A = b.a.data(), *const g = b.g.data(), *const g_turned = b.g_turned.data(),
           *const states = b.states.data();
  // Of pairs with tokens before the chunk and, of those in it, of which a token is the later less
  // those of which it is the earlier; and of pairs with tokens behind the chunk.
  T *const across = b.sums.data(), *const ahead = across + lds;
  std::fill_n(states, p * dp, T(0));  // H^T of each chunk, (p,d)
  for (i64 n = 0; n + 1 < chunks; ++n) {
    h.load(x, which, n);
    h.weigh(dp, k, -1, h.total(), of_d);
    T* const next = states + (n + 1) * p * dp;
    std::copy_n(next - p * dp, p * dp, next);
    h.advance(p, d, v, pp, of_d, dp, next);
  }
  std::fill_n(g, d * pp, T(0));
  for (i64 n = chunks - 1; n >= 0; --n) {
    h.load(x, which, n);
    const bool first = n == 0, last = n + 1 == chunks;
    const i64 t0 = n * h.longest, rows = h.rows;
    const T* const before = states + n * p * dp;
    T *const dq = to.dq + h.at(which, t0, d), *const dk = to.dk + h.at(which, t0, d),
             *const dv = to.dv + h.at(which, t0, p);
    copy_padded(rows, p, dy + h.at(which, t0, p), p_step, up);
    copy_transposed(rows, d, k, dp, h.k_turned.data(), h.ldt);
    copy_transposed(rows, p, v, pp, b.v_turned.data(), h.ldt);
    h.pairs(q, dp, d, h.k_turned.data(), W);
    h.pairs(up, pp, p, b.v_turned.data(), A);
    std::fill_n(across, 2 * lds, T(0));
    for (i64 t = 0; t < rows; ++t)
      across[t] += sum_columns<T>(t + 1, [&, a = A + t * lds, w = W + t * lds](i64 i, auto lane) {
        using V = decltype(lane);
        const V decay = exp_of(V(h.c[t] - get<V>(h.c + i))), of_k = get<V>(a + i) * decay,
                score = get<V>(w + i), m = of_k * score;
        put(a + i, of_k), put(w + i, V(score * decay));
        put(across + i, V(get<V>(across + i) - m));
        return m;
      });
    h.clear_later(A), h.clear_later(W);

    if (!first) {
      h.weigh(pp, up, 1, 0, of_p);
      multiply_small(rows, d, p, of_p, pp, i64{1}, before, dp, dq, d_step, false);
      for (i64 t = 0; t < rows; ++t) across[t] += decayed_dot(d, q + t * dp, dq + t * d_step);
    }
    T through = 0;
    if (!last) {
      copy_transposed(d, p, g, pp, g_turned, b.ld_turned);
      h.weigh(dp, k, -1, h.total(), of_d), h.weigh(pp, v, -1, h.total(), of_p);
      multiply_small(rows, p, d, of_d, dp, i64{1}, g, pp, dv, p_step, false);
      multiply_small(rows, d, p, of_p, pp, i64{1}, g_turned, b.ld_turned, dk, d_step, false);
      for (i64 t = 0; t < rows; ++t) ahead[t] = decayed_dot(p, v + t * pp, dv + t * p_step);
      for (i64 c = 0; c < p; ++c)
        through += decayed_dot(d, before + c * dp, g_turned + c * b.ld_turned);
      through *= exp_of(h.total());
    }
    h.for_tiles([&](i64 i, i64 count, i64 end) {
      multiply_small(count, d, end, A + i * lds, lds, i64{1}, k, dp, dq + i * d_step, d_step,
                     !first);
      multiply_small(count, d, rows - i, A + i * lds + i, i64{1}, lds, q + i * dp, dp,
                     dk + i * d_step, d_step, !last);
      multiply_small(count, p, rows - i, W + i * lds + i, i64{1}, lds, up + i * pp, pp,
                     dv + i * p_step, p_step, !last);
    });
    acc_t<T>* const da = to.dlog_decay + h.at(which, t0, 1);
    T from = through, upto = 0;
    for (i64 t = rows - 1; t >= 0; --t) da[t * h.s.heads] = from += across[t];
    for (i64 t = 0; t < rows; ++t) da[t * h.s.heads] += upto, upto += ahead[t];
    if (first) break;
    h.weigh(dp, q, 1, 0, of_d);
    h.advance(d, p, of_d, dp, up, pp, g);
  }
  to.dlog_decay[h.at(which, 0, 1)] = 0;  // of no edge
}

}  // namespace detail

/// Whether there are kernels for a shape, and how many numbers forward keeps for backward.
template <class T>
bool decayed_sums_fit(Cpu, const DecayedShape&) {
  return true;
}
template <class T>
i64 decayed_sums_kept(Cpu, const DecayedShape&) {
  return 0;
}

/// y (batch,tokens,heads,p). Nothing is kept.
template <class T>
void decayed_sums(Cpu, const DecayedShape& s, const DecayedArgs<T>& x, T* y, T*) {
  parallel_for(s.batch * s.heads, detail::decayed_grain(s), [=](i64 begin, i64 end) {
    detail::DecayedHead<T> head(s);
    for (i64 which = begin; which < end; ++which) detail::decayed_sums_head(head, x, which, y);
  });
}

/// All gradients.
template <class T>
void decayed_sums_backward(Cpu, const DecayedShape& s, const DecayedArgs<T>& x, const T*,
                           const T* dy, const DecayedGradients<T>& to) {
  parallel_for(s.batch * s.heads, detail::decayed_grain(s), [=](i64 begin, i64 end) {
    detail::DecayedHead<T> head(s);
    detail::DecayedBack<T> back(head);
    for (i64 which = begin; which < end; ++which)
      detail::decayed_sums_head_backward(head, back, x, which, dy, to);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/decayed_sums_backward.cuh"
#endif

#include "ppma/core/names_end.hpp"
