#pragma once
#include "ppma/core/names_begin.hpp"
// Decayed sums (ops/decayed_sums.hpp) in chunks of 32 tokens (Dao and Gu, "Transformers are SSMs",
// 2024, section 6), which stay in L1. With c the running sums of the log decays in a chunk,
// f = e^c, g = e^(c_last - c), and H the matrix (d,p) that it is handed by those before it,
//
//   y = f (q H) + W v      W = L * (q k^T),  L_ts = e^(c_t - c_s) for s <= t
//   H for the next one: e^(c_last) H + k^T (g v)
//
// and back from the last chunk to the first, with A = L * (dy v^T) and G the gradient of what a
// chunk hands on,
//
//   dq = f (dy H^T) + A k     dk = g (v G^T) + A^T q     dv = g (k G) + W^T dy
//   G for the one before: e^(c_last) G + q^T (f dy)
//
// A log decay lies between all pairs of a token from it on and one before it. With M = A * (q k^T)
// off its diagonal, its gradient is a sum of what these pairs are, apart by where they lie, so that
// nothing large is subtracted: both in the chunk (sums of M's rows less those of its columns), the
// earlier before the chunk (q . f (dy H^T)), the later behind it (k . g (v G^T)), or both
// (e^(c_last) <H, G>).
//
// Heads with the same q and k are taken together: they have one q k^T, and of the sum of their A
// one product for dq and one for dk.
// Floor, multiply-adds of a token and head in chunks of Q: Q (d + p) / 2 + 2 d p, backward
// Q (3 d + 2 p) / 2 + 4 d p; a head's share of Q d where q and k are shared.

#include <algorithm>

#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/decayed_parts.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

// Heads begin .. end of an image. states: a matrix H for each head in turn, or, to be kept, as
// decayed_sums_kept() counts them.
template <class T>
void decayed_heads(DecayedChunk<T>& h, const DecayedArgs<T>& x, i64 image, i64 begin, i64 end, T* y,
                   T* states, bool keep) {
  const i64 Q = h.longest, dp = h.dp, pp = h.pp, state = dp * pp;
  const Workspace<T> room(Q * pp);
  T* const sums = room.data();
  for (i64 n = 0; n < h.chunks; ++n) {
    h.begin(image, n);
    for (i64 head = begin; head < end; ++head) {
      if (!h.s.shared || head == begin) h.load_keys(x, head);
      h.load_values(x, head);
      h.for_pairs(
          [&](i64 t, i64 j, Vec<T> L) {
            store(h.W + t * Q + j, Vec<T>(load(h.scores + t * Q + j) * L));
            return L;
          },
          [](i64, Vec<T>) {});
      T* const next =
          states + (keep ? (image * h.s.heads + head) * (h.chunks - 1) + n : head - begin) * state;
      const T* const H = n == 0 ? nullptr : keep ? next - state : next;
      DecayedProduct<T> of_y{{h.W, Q, 1, h.v, h.rows, DecayedPairs::earlier}};
      if (H) of_y.first = {h.q, dp, 1, H, h.d}, of_y.f = h.f;
      decayed_product(h.rows, pp, pp, of_y, sums);
      h.give(sums, y, h.s.heads, head, h.p);
      if (n + 1 == h.chunks) continue;
      h.scale_values(h.g, h.v);
      decayed_product<T>(dp, pp, pp, {{h.k, 1, dp, h.v, h.count}, {}, nullptr, H, h.total}, next);
    }
  }
}

// The way back of heads begin .. end of an image.
template <class T>
struct DecayedBack {
  static constexpr i64 w = lanes<T>;

  DecayedChunk<T>& h;
  const DecayedGradients<T>& to;
  const i64 Q, d, p, dp, pp, state;
  const Workspace<T> room;
  // of q and k of a chunk, and a head's share; dy, dv and v^T; dy v^T, and A of all heads so far
  T *dq, *dk, *share, *dy, *dv, *v_turned, *products, *A;
  // what the gradients of the log decays are sums of: of rows lane by lane (longest,w), of columns,
  // and of pairs with tokens behind the chunk
  T *rows, *columns, *behind;
  T *turned, *G;  // H^T or G^T; G of each head

  DecayedBack(DecayedChunk<T>& chunk, const DecayedGradients<T>& gradients, i64 heads)
      : h(chunk),
        to(gradients),
        Q(h.longest),
        d(h.d),
        p(h.p),
        dp(h.dp),
        pp(h.pp),
        state(dp * pp),
        room(Q * (3 * dp + 3 * pp + 2 * Q + w + 2) + state * (heads + 1)),
        dq(room.data()),
        dk(dq + Q * dp),
        share(dk + Q * dp),
        dy(share + Q * dp),
        dv(dy + Q * pp),
        v_turned(dv + Q * pp),
        products(v_turned + Q * pp),
        A(products + Q * Q),
        rows(A + Q * Q),
        columns(rows + Q * w),
        behind(columns + Q),
        turned(behind + Q),
        G(turned + state) {}

  // W and A; `add`: to the A of heads before.
  void load_pairs(bool add) const {
    h.turn(h.v, p, v_turned);
    h.multiply_pairs(dy, p, v_turned, products);
    const bool decays = to.dlog_decay != nullptr;
    if (decays) std::fill_n(rows, Q * w, T(0)), std::fill_n(behind, Q, T(0));
    h.for_pairs(
        [&](i64 t, i64 j, Vec<T> L) {
          const i64 at = t * Q + j;
          const Vec<T> product = load(products + at), W = load(h.scores + at) * L;
          store(h.W + at, W);
          store(A + at, Vec<T>(add ? load(A + at) + product * L : product * L));
          const Vec<T> m = keep_first<T>(Vec<T>(product * W), t - j);
          if (decays) store(rows + t * w, Vec<T>(load(rows + t * w) + m));
          return m;
        },
        [&](i64 j, Vec<T> sum) { store(columns + j, sum); });
  }
  // sum += f (a state^T), and each(t, row of b * row of what was added, lane by lane)
  template <class F>
  void add_share(const T* a, const T* matrix, const T* f, const T* b, T* sum, F&& each) const {
    copy_transposed(dp, pp, matrix, pp, turned, dp);
    decayed_product<T>(h.rows, dp, dp, {{}, {a, pp, 1, turned, p}, f}, share);
    for (i64 t = 0; t < h.rows; ++t) {
      Vec<T> line{};
      for (i64 i = t * dp; i < (t + 1) * dp; i += w) {
        const Vec<T> more = load(share + i);
        store(sum + i, Vec<T>(load(sum + i) + more)), line += load(b + i) * more;
      }
      each(t, line);
    }
  }
  void decays(i64 head, const T* H, const T* of_H) const {
    const i64 heads = h.s.heads;
    T from = 0, upto = 0;
    if (H && of_H) {
      Vec<T> sum{};
      for (i64 i = 0; i < state; i += w) sum += load(H + i) * load(of_H + i);
      from = h.total * lane_sum<T>(sum);
    }
    acc_t<T>* const da = to.dlog_decay + h.at(heads, head, 1);
    for (i64 t = h.count - 1; t >= 0; --t)
      da[t * heads] = from += lane_sum<T>(load(rows + t * w)) - columns[t];
    for (i64 t = 0; t < h.count; ++t) da[t * heads] += upto, upto += behind[t];
    if (!H) da[0] = 0;  // of no edge
  }
  // The chunk's gradients of one head: `first` and `last` of those with its q and k, which have
  // part `part` of `parts` in dq and dk. H: null, or what it was handed. of_H: G, or not yet set.
  void head(i64 head, bool first, bool last, i64 parts, i64 part, const T* H, T* of_H,
            bool hands_on) const {
    load_pairs(!first);
    DecayedProduct<T> of_v{{h.W, 1, Q, dy, h.rows, DecayedPairs::later}};
    if (hands_on) of_v.first = {h.k, dp, 1, of_H, d}, of_v.f = h.g;
    decayed_product(h.rows, pp, pp, of_v, dv);
    h.give(dv, to.dv, h.s.heads, head, p);
    if (first) std::fill_n(dq, 2 * Q * dp, T(0));
    if (hands_on)
      add_share(h.v, of_H, h.g, h.k, dk,
                [&](i64 t, Vec<T> line) { behind[t] = lane_sum<T>(line); });
    if (H)
      add_share(dy, H, h.f, h.q, dq, [&](i64 t, Vec<T> line) {
        store(rows + t * w, Vec<T>(load(rows + t * w) + line));
      });
    if (last) {
      decayed_product<T>(h.rows, dp, dp,
                         {{A, Q, 1, h.k, h.rows, DecayedPairs::earlier}, {}, nullptr, dq}, dq);
      decayed_product<T>(h.rows, dp, dp,
                         {{A, 1, Q, h.q, h.rows, DecayedPairs::later}, {}, nullptr, dk}, dk);
      h.give(dq, to.dq, parts, part, d), h.give(dk, to.dk, parts, part, d);
    }
    if (to.dlog_decay) decays(head, H, hands_on ? of_H : nullptr);
    if (!H) return;
    h.scale_values(h.f, dy);
    decayed_product<T>(dp, pp, pp,
                       {{h.q, 1, dp, dy, h.count}, {}, nullptr, hands_on ? of_H : nullptr, h.total},
                       of_H);
  }
};

// f(chunk, image, begin, end, i): group i of `groups` of an image's heads is begin .. end.
template <class T, class F>
void for_decayed_heads(const DecayedShape& s, i64 groups, F&& f) {
  const i64 work = s.tokens * s.heads / groups * (s.d * s.p + 16 * (s.d + s.p));
  parallel_for(s.batch * groups, 1 + (i64{1} << 18) / (work + 1), [&](i64 begin, i64 end) {
    DecayedChunk<T> chunk(s);
    for (i64 which = begin; which < end; ++which) {
      const i64 i = which % groups;
      f(chunk, which / groups, i * s.heads / groups, (i + 1) * s.heads / groups, i);
    }
  });
}
// As few groups as give all threads work: the heads of a chunk lie beside each other.
inline i64 decayed_groups(const DecayedShape& s) {
  return threads() == 1 ? 1 : std::min(s.heads, (2 * threads() + s.batch - 1) / s.batch);
}

}  // namespace detail

/// Whether there are kernels for a shape.
template <class T>
bool decayed_sums_fit(Cpu, const DecayedShape&) {
  return true;
}
/// How many numbers forward keeps for backward: H of all chunks but the first,
/// (batch,heads,chunks - 1,d,p) with d and p in whole registers.
template <class T>
i64 decayed_sums_kept(Cpu, const DecayedShape& s) {
  return s.batch * s.heads * (detail::decayed_chunks(s) - 1) * round_to_lanes<T>(s.d) *
         round_to_lanes<T>(s.p);
}
/// In how many parts the gradients of q and k come. Of shared ones four heads make a part, on any
/// number of threads, so that sums are the same.
inline i64 decayed_sums_parts(Cpu, const DecayedShape& s) {
  return s.shared ? (s.heads + 3) / 4 : s.heads;
}

/// y (batch,tokens,heads,p); kept: null, or decayed_sums_kept() numbers.
template <class T>
void decayed_sums(Cpu, const DecayedShape& s, const DecayedArgs<T>& x, T* y, T* kept) {
  detail::for_decayed_heads<T>(
      s, detail::decayed_groups(s),
      [&](detail::DecayedChunk<T>& chunk, i64 image, i64 begin, i64 end, i64) {
        const Workspace<T> scratch(kept ? 0 : (end - begin) * chunk.dp * chunk.pp);
        detail::decayed_heads(chunk, x, image, begin, end, y, kept ? kept : scratch.data(),
                              kept != nullptr);
      });
}

/// All gradients of decayed_sums(), from dy of y's shape.
template <class T>
void decayed_sums_backward(Cpu on, const DecayedShape& s, const DecayedArgs<T>& x, const T* kept,
                           const T* dy, const DecayedGradients<T>& to) {
  const i64 parts = decayed_sums_parts(on, s);
  detail::for_decayed_heads<T>(
      s, s.shared ? parts : detail::decayed_groups(s),
      [&](detail::DecayedChunk<T>& chunk, i64 image, i64 begin, i64 end, i64 group) {
        const detail::DecayedBack<T> back(chunk, to, end - begin);
        for (i64 n = chunk.chunks - 1; n >= 0; --n) {
          chunk.begin(image, n);
          for (i64 head = begin; head < end; ++head) {
            const bool first = !s.shared || head == begin, last = !s.shared || head + 1 == end;
            if (first) chunk.load_keys(x, head);
            chunk.load_values(x, head);
            chunk.fetch(dy, s.heads, head, s.p, back.dy);
            const T* const H =
                n == 0
                    ? nullptr
                    : kept + ((image * s.heads + head) * (chunk.chunks - 1) + n - 1) * back.state;
            back.head(head, first, last, parts, s.shared ? group : head, H,
                      back.G + (head - begin) * back.state, n + 1 < chunk.chunks);
          }
        }
      });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/decayed_sums_backward.cuh"
#endif

#include "ppma/core/names_end.hpp"
