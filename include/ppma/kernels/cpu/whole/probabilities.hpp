#pragma once
#include "ppma/core/names_begin.hpp"
// The probabilities of a head's queries along the polyline paths, by the two small tables that the
// mask factors into (the words are attention.hpp's).

#include <algorithm>
#include <limits>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/kernels/cpu/head.hpp"

namespace ppma::inline PPMA_ABI {

namespace kernels PPMA_WIDTH::whole {

constexpr bool uses_v2h(Paths p) { return p == Paths::v2h || p == Paths::both; }
constexpr bool uses_h2v(Paths p) { return p == Paths::h2v || p == Paths::both; }

// Everything of one head that its queries share, whatever the paths, and the scratch rows of one
// block of queries.
template <class T>
struct Tables {
  static constexpr i64 w = lanes<T>;

  bool masked;
  i64 h, wd, n, d;       // grid, tokens, head width
  i64 wp, dp, ldk, lds;  // width and head width in whole vectors; strides of K^T and of a score row
  i64 block;             // most queries in a block
  ZeroedWorkspace<T> kt, alpha, beta, e_table, f_table, left, right, s, p1, p2;
  const T* q = nullptr;  // (n, d) rows `stride` apart
  i64 stride;

  PPMA_ONCE Tables(const AttentionShape& x, Paths paths)
      : masked(paths != Paths::none),
        h(x.height),
        wd(x.width),
        n(h * wd),
        d(x.head_width),
        wp(round_to_lanes<T>(wd)),
        dp(round_to_lanes<T>(d)),
        ldk(transposed_stride<T>(n)),
        lds(round_to_lanes<T>(n) + w),
        block(block_width(wd)),
        kt(d * ldk),
        alpha(masked ? n : 0),
        beta(masked ? n + w : 0),
        e_table(masked ? block * h * wp : 0),
        f_table(masked ? h * wp : 0),
        left(masked ? wp : 0),
        right(masked ? wp : 0),
        s(block * lds),
        p1(lds),
        p2(paths == Paths::both ? lds : 0),
        stride(x.channels()) {
    for (i64 c = 0; c < block; ++c) end_scores(c);
  }

  // exp of what stands behind the last score must be 0.
  void end_scores(i64 c) { std::fill_n(s.data() + c * lds + n, lds - n, T(-1e30)); }

  // Columns are cut into equal blocks of at most a register tile's rows.
  static i64 block_width(i64 width) {
    const i64 blocks = (width + detail::tile_rows - 1) / detail::tile_rows;
    return (width + blocks - 1) / blocks;
  }

  // Takes the arguments of one head.
  void load(const AttentionArgs<T>& here) {
    q = here.q;
    copy_transposed(n, d, here.k, stride, kt.data(), ldk);
    if (masked) {
      std::copy_n(here.log_alpha, n, alpha.data());
      std::copy_n(here.log_beta, n, beta.data());
    }
  }

  // E_j[k,l] = A(k; j,l) for the columns j0..j0+count, 0 in the padding of each line. The sums from
  // l to column j are those to its neighbour and one step more: l left of j from column to column,
  // then l right of it, coming back. (Not inlined, as the others below: the loops over scores need
  // all registers.)
  PPMA_ONCE void fill_column_tables(i64 j0, i64 count) {
    if (!masked) return;
    const i64 last = j0 + count - 1;
    for (i64 k = 0; k < h; ++k) {
      const T* const line = alpha.data() + k * wd;
      T sum = 0;
      for (i64 l = j0; l > 0; --l) left.data()[l - 1] = sum += line[l];
      sum = 0;
      for (i64 l = last + 1; l < wd; ++l) right.data()[l] = sum += line[l];
      for (i64 l = 0; l < wd; l += w) {
        T* const to = e_table.data() + k * wp + l;
        Vec<T> from_left = keep_first<T>(ppma::load(left.data() + l), j0 - l),
               from_right = drop_first<T>(ppma::load(right.data() + l), last + 1 - l);
        for (i64 j = j0; j <= last; ++j) {
          if (j > j0) from_left += keep_first<T>(splat(line[j]), j - l);
          store(to + (j - j0) * h * wp, from_left);
        }
        for (i64 j = last; j >= j0; --j) {
          if (j < last) from_right += drop_first<T>(splat(line[j + 1]), j + 1 - l);
          T* const here = to + (j - j0) * h * wp;
          store(here, keep_first<T>(exp_of<Vec<T>>(ppma::load(here) + from_right), wd - l));
        }
      }
    }
  }

  // F_i[k,l] = B(l; i,k), 0 in the padding of each line.
  PPMA_ONCE void fill_row_table(i64 i) {
    if (!masked) return;
    for (i64 l = 0; l < wd; l += w) {
      const T* const log_beta = beta.data() + l;
      const auto put = [&](i64 k, Vec<T> sum) {
        store(f_table.data() + k * wp + l, keep_first<T>(exp_of(sum), wd - l));
      };
      Vec<T> sum{};
      put(i, sum);
      for (i64 k = i + 1; k < h; ++k) put(k, sum += ppma::load(log_beta + k * wd));
      sum = Vec<T>{};
      for (i64 k = i; k > 0; --k) put(k - 1, sum += ppma::load(log_beta + k * wd));
    }
  }

  // One path of one query with the mask added to the scores before their maximum is taken.
  PPMA_ONCE T safe_probabilities(i64 i, i64 j, const T* sc, T* p, bool v2h) {
    T top = std::numeric_limits<T>::lowest(), sum = 0;
    const auto put = [&](i64 k, i64 l, T mask) {
      p[k * wd + l] = sc[k * wd + l] + mask;
      top = std::max(top, p[k * wd + l]);
    };
    if (v2h)
      outward(wd, j, alpha.data() + i * wd, 1, [&](i64 l, T along) {
        outward(h, i, beta.data() + l, wd, [&](i64 k, T across) { put(k, l, along + across); });
      });
    else
      outward(h, i, beta.data() + j, wd, [&](i64 k, T across) {
        outward(wd, j, alpha.data() + k * wd, 1,
                [&](i64 l, T along) { put(k, l, along + across); });
      });
    for (i64 u = 0; u < n; ++u) sum += p[u] = exp_of(p[u] - top);
    return sum;
  }
};

// The probabilities of a head's queries along these paths.
template <class T, Paths paths>
struct Head : Tables<T> {
  static constexpr bool one = uses_v2h(paths), two = uses_h2v(paths), masked = one || two;
  using Tables<T>::w, Tables<T>::h, Tables<T>::wd, Tables<T>::n, Tables<T>::wp, Tables<T>::lds,
      Tables<T>::s, Tables<T>::p1, Tables<T>::p2, Tables<T>::e_table, Tables<T>::f_table;

  explicit Head(const AttentionShape& x) : Tables<T>(x, paths) {}

  // Unnormalised probabilities of query (i, j0+c) in p1 (and p2), their sums in z1 (and z2). The
  // tables must be filled. p1, p2, the query's scores and tables are five rows of N numbers: at
  // N = 1024 they still lie in the first cache.
  // Lines of W scores are read in whole vectors: what reaches into the next line meets a 0 of the
  // tables, and the next line's own values are stored over it.
  void probabilities(i64 i, i64 j0, i64 c, T& z1, T& z2) {
    const T* const sc = s.data() + c * lds;
    T *const q1 = p1.data(), *const q2 = p2.data();
    const i64 j = j0 + c;
    Vec<T> top = splat(sc[0]);
    for (i64 u = 0; u < n; u += w) top = max_of(top, ppma::load(sc + u));
    const T m = lane_max<T>(top);
    Vec<T> sum1{}, sum2{};
    if constexpr (!masked) {
      for (i64 u = 0; u < n; u += w) {
        const Vec<T> e = exp_below_zero<Vec<T>>(ppma::load(sc + u) - m);
        store(q1 + u, e);
        sum1 += e;
      }
    } else {
      const T *const e_j = e_table.data() + c * h * wp, *const e_ji = e_j + i * wp;
      for (i64 k = 0; k < h; ++k) {
        const T* const f = f_table.data() + k * wp;
        const T f_kj = f[j];
        for (i64 l = 0; l < wd; l += w) {
          const Vec<T> e = exp_below_zero<Vec<T>>(ppma::load(sc + k * wd + l) - m);
          if constexpr (one) {
            const Vec<T> p = e * ppma::load(f + l) * ppma::load(e_ji + l);
            store(q1 + k * wd + l, p);
            sum1 += p;
          }
          if constexpr (two) {
            const Vec<T> p = e * ppma::load(e_j + k * wp + l) * f_kj;
            store((one ? q2 : q1) + k * wd + l, p);
            (one ? sum2 : sum1) += p;
          }
        }
      }
    }
    z1 = lane_sum<T>(sum1), z2 = lane_sum<T>(sum2);
    if constexpr (masked) {
      if (!(z1 >= smallest_sum<T>)) z1 = this->safe_probabilities(i, j, sc, q1, one);
      if (one && two && !(z2 >= smallest_sum<T>))
        z2 = this->safe_probabilities(i, j, sc, q2, false);
    }
  }
};

}  // namespace kernels PPMA_WIDTH::whole
}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
