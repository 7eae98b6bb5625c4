#pragma once
#include "ppma/core/names_begin.hpp"
// What the kernels of decayed sums (kernels/cpu/decayed_sums.hpp) are made of: a chunk of tokens
// that stays in L1, and products of its matrices, which are too small to be packed. All are padded
// with zeros to whole registers, so that a product has no rest.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cpu/functions.hpp"
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

/// Where the gradients go: dq and dk (batch,tokens,parts,d), to be added up over the parts where q
/// and k are shared; dv; and, unless it is null, dlog_decay.
template <class T>
struct DecayedGradients {
  T *dq, *dk, *dv;
  acc_t<T>* dlog_decay;  // (batch,tokens,heads)
};

namespace detail {

// Rows of a tile of a product, whose columns are up to three registers.
template <class T>
inline constexpr i64 decayed_tile = std::min<i64>(PPMA_SIMD_BYTES == 64 ? 8 : 4, lanes<T>);

// A B: A(i,s) = a[i row + s step], s < count, rows of B as far apart as those of the result. Of
// pairs of tokens `earlier` ones alone (s up to the last row of a tile), or `later` ones (from its
// first row).
enum class DecayedPairs { all, earlier, later };
template <class T>
struct DecayedFactors {
  const T* a;
  i64 row, step;
  const T* b;
  i64 count;
  DecayedPairs pairs = DecayedPairs::all;
};

// last + f first + keep base, f a factor of each row. What is null is none: 0, and 1 for f.
template <class T>
struct DecayedProduct {
  DecayedFactors<T> last{};
  DecayedFactors<T> first{};
  const T* f = nullptr;
  const T* base = nullptr;
  T keep = 1;
};

template <class T, std::size_t vectors>
PPMA_INLINE void add_factors(const DecayedFactors<T>& x, i64 i, i64 j, i64 ld,
                             Vec<T> (&sum)[static_cast<std::size_t>(decayed_tile<T>)][vectors]) {
  const i64 s = x.pairs == DecayedPairs::later ? i : 0,
            end = x.pairs == DecayedPairs::earlier ? i + decayed_tile<T> : x.count;
  multiply_tile<T, static_cast<std::size_t>(decayed_tile<T>), vectors>(
      end - s, x.a + i * x.row + s * x.step, x.row, x.step, x.b + s * ld + j, ld, sum);
}

// f(register, its row, where it lies) for those of a tile.
template <class T, std::size_t vectors, class F>
PPMA_INLINE void for_tile(i64 i, i64 j, i64 ld,
                          Vec<T> (&sum)[static_cast<std::size_t>(decayed_tile<T>)][vectors],
                          F&& f) {
  PPMA_UNROLL
  for (i64 r = 0; r < decayed_tile<T>; ++r) {
    PPMA_UNROLL
    for (i64 v = 0; v < static_cast<i64>(vectors); ++v)
      f(sum[r][v], i + r, (i + r) * ld + j + v * lanes<T>);
  }
}

// Columns j .. of decayed_product().
template <class T, std::size_t vectors>
PPMA_ONCE void decayed_columns(i64 m, i64 j, i64 ld, const DecayedProduct<T>& x, T* c) {
  for (i64 i = 0; i < m; i += decayed_tile<T>) {
    Vec<T> sum[static_cast<std::size_t>(decayed_tile<T>)][vectors] = {};
    if (x.first.a) add_factors(x.first, i, j, ld, sum);
    if (x.f) for_tile<T>(i, j, ld, sum, [&](Vec<T>& to, i64 row, i64) { to *= x.f[row]; });
    if (x.base)
      for_tile<T>(i, j, ld, sum,
                  [&](Vec<T>& to, i64, i64 at) { to += x.keep * load(x.base + at); });
    if (x.last.a) add_factors(x.last, i, j, ld, sum);
    for_tile<T>(i, j, ld, sum, [&](Vec<T>& from, i64, i64 at) { store(c + at, from); });
  }
}

// c (m,n), rows ld apart; m whole tiles, n whole registers.
template <class T>
void decayed_product(i64 m, i64 n, i64 ld, const DecayedProduct<T>& x, T* c) {
  constexpr i64 w = lanes<T>;
  for (i64 j = 0; j < n;) {
    const i64 left = (n - j) / w;
    if (left == 1)
      decayed_columns<T, 1>(m, j, ld, x, c), j += w;
    else if (left == 2 || left == 4)
      decayed_columns<T, 2>(m, j, ld, x, c), j += 2 * w;
    else
      decayed_columns<T, 3>(m, j, ld, x, c), j += 3 * w;
  }
}

// Lane i: the sum of x's lanes up to i.
template <class T, int step = 1>
PPMA_INLINE Vec<T> running_sums(Vec<T> x) {
  constexpr int w = static_cast<int>(lanes<T>);
  if constexpr (step < w)
    return running_sums<T, 2 * step>(x + drop_first<T>(ppma::detail::rotate<T, w - step>(x), step));
  else
    return x;
}

// Tokens of a chunk. Few tokens are one: their pairs are less work than a state.
inline i64 decayed_longest(const DecayedShape& s) { return s.tokens <= 64 ? 64 : 32; }
inline i64 decayed_chunks(const DecayedShape& s) {
  return (s.tokens + decayed_longest(s) - 1) / decayed_longest(s);
}

// A chunk of one head, or of several with the same q and k in turn. `longest` rows of d, p or
// `longest` numbers each; dp and pp are d and p in whole registers.
template <class T>
struct DecayedChunk {
  static constexpr i64 w = lanes<T>, tile = decayed_tile<T>;
  static i64 width(i64 n) { return round_to_lanes<T>(n); }

  const DecayedShape& s;
  const i64 d, p, dp, pp, longest, chunks;
  i64 image = 0, token = 0, count = 0, rows = 0;  // where it is; its tokens, and in whole tiles
  const Workspace<T> room;
  T *q, *k, *k_turned, *scores, *v, *W;  // scores: q k^T; W: L * scores
  T *c, *f, *g, *inner, *outer;
  T total = 1;  // e^(c_last)

  explicit DecayedChunk(const DecayedShape& shape)
      : s(shape),
        d(s.d),
        p(s.p),
        dp(width(d)),
        pp(width(p)),
        longest(decayed_longest(s)),
        chunks(decayed_chunks(s)),
        room(longest * (3 * dp + pp + 2 * longest + 4 + longest / w)),
        q(room.data()),
        k(q + longest * dp),
        k_turned(k + longest * dp),
        scores(k_turned + longest * dp),
        v(scores + longest * longest),
        W(v + longest * pp),
        c(W + longest * longest),
        f(c + longest),
        g(f + longest),
        inner(g + longest),
        outer(inner + longest) {}

  void begin(i64 image_, i64 n) {
    image = image_, token = n * longest;
    count = std::min(longest, s.tokens - token);
    rows = (count + tile - 1) / tile * tile;
  }
  // Where it begins in (batch,tokens,parts,n).
  i64 at(i64 parts, i64 part, i64 n) const {
    return ((image * s.tokens + token) * parts + part) * n;
  }
  // Its rows of n numbers of `from` (batch,tokens,parts,n) into `to`, and of `from` into `to`.
  void fetch(const T* from, i64 parts, i64 part, i64 n, T* to) const {
    from += at(parts, part, n);
    const i64 ld = width(n), whole = n / w * w;
    for (i64 t = 0; t < count; ++t, from += parts * n) {
      for (i64 i = 0; i < whole; i += w) store(to + t * ld + i, load(from + i));
      if (whole < n) store(to + t * ld + whole, load_some(from + whole, n - whole));
    }
    std::fill(to + count * ld, to + width(rows) * ld, T(0));
  }
  void give(const T* from, T* to, i64 parts, i64 part, i64 n) const {
    to += at(parts, part, n);
    const i64 ld = width(n), whole = n / w * w;
    for (i64 t = 0; t < count; ++t, to += parts * n) {
      for (i64 i = 0; i < whole; i += w) store(to + i, load(from + t * ld + i));
      if (whole < n) store_some(to + whole, load(from + t * ld + whole), n - whole);
    }
  }
  // a (rows,n) -> (n,longest)
  void turn(const T* a, i64 n, T* to) const {
    copy_transposed(width(rows), width(n), a, width(n), to, longest);
  }
  // a (rows,n) times b (n,longest): of each row up to the register of its own pair.
  void multiply_pairs(const T* a, i64 n, const T* b, T* to) const {
    const i64 ld = width(n);
    for (i64 i = 0; i < rows; i += tile)
      decayed_product<T>(tile, width(i + tile), longest, {{a + i * ld, ld, 1, b, n}},
                         to + i * longest);
  }
  void load_keys(const DecayedArgs<T>& x, i64 head) {
    const i64 parts = s.shared ? 1 : s.heads, part = s.shared ? 0 : head;
    fetch(x.q, parts, part, d, q), fetch(x.k, parts, part, d, k);
    turn(k, d, k_turned);
    multiply_pairs(q, d, k_turned, scores);
  }
  void load_values(const DecayedArgs<T>& x, i64 head) {
    fetch(x.v, s.heads, head, p, v);
    const acc_t<T>* const a = x.log_decay + at(s.heads, head, 1);
    for (i64 t = 0; t < count; ++t) c[t] = a[t * s.heads];
    std::fill(c + count, c + width(rows), T(0));
    T sum = 0;
    for (i64 t = 0; t < rows; t += w) {
      const Vec<T> sums = running_sums<T>(load(c + t)) + sum;
      store(c + t, sums), sum = sums[w - 1];
    }
    total = exp_below_zero(sum);
    for (i64 t = 0; t < rows; t += w) {
      store(f + t, exp_below_zero(load(c + t)));
      store(g + t, exp_below_zero(Vec<T>(sum - load(c + t))));
      // L of a pair in two registers is a product: up to the last token of the earlier register,
      // and from there on. Both are below 1.
      const T middle = c[t + w - 1];
      store(inner + t, exp_below_zero(Vec<T>(middle - load(c + t))));
      for (i64 u = t + w; u < rows; u += w)
        store(outer + t / w * longest + u, exp_below_zero(Vec<T>(load(c + u) - middle)));
    }
  }
  // each(t, j, L) for the pairs of token t with a register of tokens from j on, up to its own;
  // done(j, the sum of what `each` returned) for each j.
  template <class F, class G>
  PPMA_INLINE void for_pairs(F&& each, G&& done) const {
    for (i64 j = 0; j < rows; j += w) {
      const Vec<T> sums = load(c + j), factor = load(inner + j);
      const i64 own = std::min(j + w, rows);
      Vec<T> returned{};
      for (i64 t = j; t < own; ++t) {
        const Vec<T> log = c[t] - sums;  // above 0 of later tokens, which are dropped
        returned +=
            each(t, j, keep_first<T>(exp_below_zero(Vec<T>(log > 0 ? Vec<T>{} : log)), t - j + 1));
      }
      for (i64 t = own; t < rows; ++t)
        returned += each(t, j, Vec<T>(factor * outer[j / w * longest + t]));
      done(j, returned);
    }
  }
  // Rows of a (rows,p) times `by`.
  void scale_values(const T* by, T* a) const {
    for (i64 t = 0; t < rows; ++t)
      for (i64 i = t * pp; i < (t + 1) * pp; i += w) store(a + i, Vec<T>(load(a + i) * by[t]));
  }
};

}  // namespace detail
}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
