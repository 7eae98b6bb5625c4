#pragma once
#include "ppma/core/names_begin.hpp"
// The CPU kernel of whole_attention(): polyline path masked attention (PPMVA) in one pass,
// forward and backward; no N x N array is ever made.
//
//   Y = ( 1/2 rowsoftmax(S + M) + 1/2 rowsoftmax(S + M^T) ) V,   S = Q K^T,   M = log L
//         (algorithm 2.1: variant `code`)
//
//   L [(i,j),(k,l)] = A(i; j,l) * B(l; i,k)
//         V2H: along the key's column, then along the query's row
//   Lt[(i,j),(k,l)] = A(k; j,l) * B(j; i,k)
//         H2V: along the key's row, then along the query's column
//   A(r; j,l) = exp(sum of log alpha over row r's edges between columns j and l),
//         B(c; i,k) likewise of log beta
//
// (i,j) is the query, (k,l) the key. The sums are made by walking away from j and from i, never as
// a difference of two running sums: behind a closed edge (-1e9, or -infinity) those have lost
// everything.
//
// How the mask becomes cheap. Both softmaxes share one exponential a score, e = exp(s - max s):
//   p1 = e * A(i; j,l) * B(l; i,k)        p2 = e * A(k; j,l) * B(j; i,k)
// and every factor is an entry of one of two small tables, shared by many queries:
//   column table  E_j[k,l] = A(k; j,l)    for the queries of column j      (N entries)
//   row table     F_i[k,l] = B(l; i,k)    for the queries of row i         (N entries)
//   p1 = e * E_j[i,l] * F_i[k,l]          p2 = e * E_j[k,l] * F_i[k,j]
// The work goes by blocks of up to twelve neighbouring columns; for each image row the block's
// queries are one small matrix product with all keys. Scratch: some dozens of rows of N numbers a
// thread, whatever H and W are.
//
// The raw maximum bounds e <= 1, but a row that the mask silences nearly everywhere may underflow:
// if a sum falls below `smallest_sum`, that query is done again with each path's own masked
// maximum.
//
// Backward recomputes the probabilities and accumulates, query by query in a fixed order within one
// head:
//   dP = dY V^T;  dS_r = c_r p_r (dP - <p_r, dP>/z_r);  dQ = dS K;  dK += dS^T Q;  dV += P^T dY
//   dM = dS_1 for L, dS_2 for Lt; with a, b the running sums of log alpha along rows and of log
//   beta along columns, which
//   fall along their lines, the sign of a[r,j] - a[r,l] is that of l - j, and each -|difference|
//   sends +-dS to its ends.

#include <cmath>
#include <limits>
#include <type_traits>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/kernels/cpu/head.hpp"
#include "ppma/kernels/cpu/simd.hpp"

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

template <class T, Paths paths>
void forward(const AttentionArgs<T>& in, T* y) {
  using H = Head<T, paths>;
  const AttentionShape x = in.shape;
  const i64 n = x.tokens(), d = x.head_width, channels = x.channels();
  const i64 block = H::block_width(x.width), blocks = (x.width + block - 1) / block;
  // A task is one block of columns of one head; neighbours share the head's copies.
  parallel_for(x.batch * x.heads * blocks, x.grain(n) * blocks, [&](i64 begin, i64 end) {
    H head(x);
    const ZeroedWorkspace<T> values(n * head.dp);
    i64 loaded = -1;
    for (i64 task = begin; task < end; ++task) {
      const i64 which = task / blocks;
      const AttentionArgs<T> here = in.head(which);
      T* const y_here = y + x.first_of(which);
      if (which != loaded) {
        head.load(here);
        copy_padded(n, d, here.v, channels, values.data());
        loaded = which;
      }
      const i64 j0 = task % blocks * block, count = std::min(block, x.width - j0);
      if (count <= 0) continue;
      head.fill_column_tables(j0, count);
      for (i64 i = 0; i < x.height; ++i) {
        head.fill_row_table(i);
        const i64 first = (i * x.width + j0) * channels;
        multiply_small(count, n, d, here.q + first, channels, i64{1}, head.kt.data(), head.ldk,
                       head.s.data(), head.lds, false);
        for (i64 c = 0; c < count; ++c) {
          T z1, z2;
          head.probabilities(i, j0, c, z1, z2);
          const T *const p1 = head.p1.data(), *const p2 = head.p2.data();
          T* const p = head.s.data() + c * head.lds;  // over the scores
          if constexpr (H::one && H::two) {
            const T c1 = T(0.5) / z1, c2 = T(0.5) / z2;
            for (i64 u = 0; u < n; u += lanes<T>)
              store(p + u, load(p1 + u) * c1 + load(p2 + u) * c2);
          } else {
            const T c1 = T(1) / z1;
            for (i64 u = 0; u < n; u += lanes<T>) store(p + u, load(p1 + u) * c1);
          }
          head.end_scores(c);
        }
        multiply_small(count, d, n, head.s.data(), head.lds, i64{1}, values.data(), head.dp,
                       y_here + first, channels, false);
      }
    }
  });
}

// Sends the gradient of -|b[i,l] - b[k,l]| for all k and l (t, lines `ldt` apart) to the ends of
// each column.
template <class T>
void scatter_rows(i64 height, i64 width, i64 ldt, i64 i, const T* t, T* db) {
  T* const here = db + i * width;
  for (i64 k = 0; k < height; ++k) {
    if (k == i) continue;
    const T sign = k < i ? T(1) : T(-1);
    T* const there = db + k * width;
    const T* const line = t + k * ldt;
    for (i64 l = 0; l < width; ++l) here[l] += sign * line[l], there[l] -= sign * line[l];
  }
}

// Backward of one head, block of columns by block of columns. What queries send to keys, values and
// running sums is added up here; a query's own gradient is complete when its block is done.
template <class T, Paths paths>
struct Backward : Head<T, paths> {
  using H = Head<T, paths>;
  using H::w, H::h, H::wd, H::n, H::d, H::wp, H::dp, H::lds, H::block, H::one, H::two, H::stride;

  ZeroedWorkspace<T> vt, keys, dkeys, dvalues;  // V^T; K, dK and dV in whole vectors
  ZeroedWorkspace<T> q_block, dy_block, dp_rows, ds_rows, p_rows;  // of a block of queries
  ZeroedWorkspace<T> da, db, db_columns;  // of running sums; db of V2H by rows, of H2V by columns
  // dM summed over queries: of V2H over those of row i, of H2V over those of column j.
  ZeroedWorkspace<T> row_sums, key_row_sums;
  ZeroedWorkspace<T> line_sums, lane_sums, line;  // scratch of one query

  PPMA_ONCE explicit Backward(const AttentionShape& x)
      : H(x),
        vt(d * this->ldk),
        keys(n * dp),
        dkeys(n * dp),
        dvalues(n * dp),
        q_block(block * dp),
        dy_block(block * dp),
        dp_rows(block * lds),
        ds_rows(block * lds),
        p_rows(block * lds),
        da(n + w),
        db(n),
        db_columns(n + w),
        row_sums(h * wp),
        key_row_sums(block * h * wp),
        line_sums(wp),
        lane_sums(h * w),
        line(h + w) {}

  void load(const AttentionArgs<T>& here) {
    H::load(here);
    copy_transposed(n, d, here.v, stride, vt.data(), this->ldk);
    copy_padded(n, d, here.k, stride, keys.data());
    for (const auto* sum : {&dkeys, &dvalues}) std::fill_n(sum->data(), n * dp, T(0));
    for (const auto* sum : {&da, &db, &db_columns}) std::fill_n(sum->data(), n, T(0));
  }

  // Queries of the columns j0..j0+count; their gradients go to dq.
  void columns(i64 j0, i64 count, const T* queries, const T* dy, T* dq) {
    this->fill_column_tables(j0, count);
    std::fill_n(key_row_sums.data(), count * h * wp, T(0));
    for (i64 i = 0; i < h; ++i) {
      const i64 first = (i * wd + j0) * stride;
      this->fill_row_table(i);
      copy_padded(count, d, queries + first, stride, q_block.data());
      copy_padded(count, d, dy + first, stride, dy_block.data());
      multiply_small(count, n, d, q_block.data(), dp, i64{1}, this->kt.data(), this->ldk,
                     this->s.data(), lds, false);
      multiply_small(count, n, d, dy_block.data(), dp, i64{1}, vt.data(), this->ldk, dp_rows.data(),
                     lds, false);
      if constexpr (one) std::fill_n(row_sums.data(), h * wp, T(0));
      for (i64 c = 0; c < count; ++c) query(i, j0, c);
      if constexpr (one) scatter_rows(h, wd, wp, i, row_sums.data(), db.data());
      multiply_small(count, d, n, ds_rows.data(), lds, i64{1}, keys.data(), dp, dq + first, stride,
                     false);
      multiply_small(n, d, count, ds_rows.data(), i64{1}, lds, q_block.data(), dp, dkeys.data(), dp,
                     true);
      multiply_small(n, d, count, p_rows.data(), i64{1}, lds, dy_block.data(), dp, dvalues.data(),
                     dp, true);
    }
    if constexpr (two)
      for (i64 c = 0; c < count; ++c)
        for (i64 k = 0; k < h; ++k)
          scatter_line(wd, j0 + c, key_row_sums.data() + (c * h + k) * wp, da.data() + k * wd);
  }

  // Query (i, j0+c): P to p_rows, dS to ds_rows, dM to the sums over queries and to its own ends.
  void query(i64 i, i64 j0, i64 c) {
    T z1, z2;
    this->probabilities(i, j0, c, z1, z2);
    const T *const q1 = this->p1.data(), *const q2 = this->p2.data(),
                   *const g = dp_rows.data() + c * lds;
    Vec<T> dot1{}, dot2{};
    for (i64 u = 0; u < n; u += w) {  // padding: p is 0 there, dP finite
      dot1 += ppma::load(q1 + u) * ppma::load(g + u);
      if constexpr (one && two) dot2 += ppma::load(q2 + u) * ppma::load(g + u);
    }
    const T c1 = (one && two ? T(0.5) : T(1)) / z1, c2 = one && two ? T(0.5) / z2 : T(0);
    const T m1 = lane_sum<T>(dot1) / z1, m2 = one && two ? lane_sum<T>(dot2) / z2 : T(0);
    T *const ds = ds_rows.data() + c * lds, *const pr = p_rows.data() + c * lds;
    if constexpr (!H::masked) {
      for (i64 u = 0; u < n; u += w) {
        const Vec<T> p = ppma::load(q1 + u) * c1;
        store(pr + u, p);
        store(ds + u, p * (ppma::load(g + u) - m1));
      }
    } else {
      masked_query(q1, q2, g, c1, c2, m1, m2, key_row_sums.data() + c * h * wp, ds, pr);
      if constexpr (one) scatter_line(wd, j0 + c, line_sums.data(), da.data() + i * wd);
      if constexpr (two) {
        for (i64 k = 0; k < h; ++k)
          line.data()[k] = lane_sum<T>(ppma::load(lane_sums.data() + k * w));
        scatter_line(h, i, line.data(), db_columns.data() + (j0 + c) * h);
      }
    }
  }

  // P and dS of a masked query, line by line of keys, and what its dM adds to the sums.
  PPMA_INLINE void masked_query(const T* q1, const T* q2, const T* dprobs, T c1, T c2, T m1, T m2,
                                T* sums_j, T* ds, T* pr) {
    const i64 height = h, width = wd, ldt = wp;
    T *const g1 = line_sums.data(), *const g2 = lane_sums.data(), *const sums_i = row_sums.data();
    if constexpr (one) std::fill_n(g1, ldt, T(0));
    for (i64 k = 0; k < height; ++k) {
      Vec<T> over_line{};
      for (i64 l = 0; l < width; l += w) {
        const i64 u = k * width + l;
        const Vec<T> g = ppma::load(dprobs + u);
        Vec<T> p{}, ds_u{};
        if constexpr (one) {
          const Vec<T> prob = ppma::load(q1 + u) * c1, ds1 = prob * (g - m1);
          store(g1 + l, ppma::load(g1 + l) + ds1);
          store(sums_i + k * ldt + l, ppma::load(sums_i + k * ldt + l) + ds1);
          p += prob;
          ds_u += ds1;
        }
        if constexpr (two) {
          const Vec<T> prob = one ? ppma::load(q2 + u) * c2 : ppma::load(q1 + u) * c1,
                       ds2 = prob * (g - (one ? m2 : m1));
          store(sums_j + k * ldt + l, ppma::load(sums_j + k * ldt + l) + ds2);
          over_line += width - l >= w ? ds2 : keep_first<T>(ds2, width - l);
          p += prob;
          ds_u += ds2;
        }
        store(pr + u, p);
        store(ds + u, ds_u);
      }
      if constexpr (two) store(g2 + k * w, over_line);
    }
  }

  // What queries have sent, to the head's gradients.
  void finish(const AttentionArgs<T>& here, const AttentionGradients<T>& to) {
    for (i64 u = 0; u < n; ++u) {
      std::copy_n(dkeys.data() + u * dp, d, to.dk + u * stride);
      std::copy_n(dvalues.data() + u * dp, d, to.dv + u * stride);
    }
    if constexpr (H::masked) {
      for (i64 k = 0; k < h; ++k)
        for (i64 l = 0; l < wd; ++l) db.data()[k * wd + l] += db_columns.data()[l * h + k];
      sums_to_decays(h, wd, wd, i64{1}, here.log_alpha, da.data(), to.dlog_alpha);
      sums_to_decays(wd, h, i64{1}, wd, here.log_beta, db.data(), to.dlog_beta);
    }
  }
};

template <class T, Paths paths>
void backward(const AttentionArgs<T>& in, const T* dy, const AttentionGradients<T>& d) {
  const AttentionShape x = in.shape;
  parallel_for(x.batch * x.heads, x.grain(x.tokens()), [&](i64 begin, i64 end) {
    Backward<T, paths> head(x);
    for (i64 which = begin; which < end; ++which) {
      const AttentionArgs<T> here = in.head(which);
      const AttentionGradients<T> to = d.head(x, which);
      head.load(here);
      for (i64 j0 = 0; j0 < x.width; j0 += head.block)
        head.columns(j0, std::min(head.block, x.width - j0), here.q, dy + x.first_of(which), to.dq);
      head.finish(here, to);
    }
  });
}

}  // namespace kernels PPMA_WIDTH::whole
}  // namespace ppma::inline PPMA_ABI

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

// Calls f with the paths as a compile-time constant.
template <class F>
void visit_paths(Paths paths, F&& f) {
  switch (paths) {
    case Paths::none:
      return f(std::integral_constant<Paths, Paths::none>{});
    case Paths::v2h:
      return f(std::integral_constant<Paths, Paths::v2h>{});
    case Paths::h2v:
      return f(std::integral_constant<Paths, Paths::h2v>{});
    case Paths::both:
      return f(std::integral_constant<Paths, Paths::both>{});
  }
}

}  // namespace detail

/// Whether forward leaves anything for backward: y1 (B,H,W,C), the average of the first softmax,
/// and log_sums (B,G,H,W,2), the logs of both normalisers. The CPU computes them again.
template <class T>
bool whole_attention_saves(Cpu, Paths, const AttentionShape&) {
  return false;
}
template <class T>
void whole_attention(Cpu, Paths paths, const AttentionArgs<T>& in, T* y, T*, T*) {
  detail::visit_paths(paths, [&](auto p) { whole::forward<T, decltype(p)::value>(in, y); });
}
template <class T>
void whole_attention_backward(Cpu, Paths paths, const AttentionArgs<T>& in, const WholeKept<T>&,
                              const T* dy, const AttentionGradients<T>& d) {
  detail::visit_paths(paths, [&](auto p) { whole::backward<T, decltype(p)::value>(in, dy, d); });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/whole/attention.cuh"
#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_WHOLE_BACKWARD)
#include "ppma/kernels/cuda/whole/attention_backward.cuh"
#else  // its kernels take nvcc longer than all others here: a source of its own
namespace ppma::inline PPMA_ABI::kernels {
template <class T>
void whole_attention_backward(Cuda, Paths paths, const AttentionArgs<T>& in,
                              const WholeKept<T>& kept, const T* dy,
                              const AttentionGradients<T>& to);
}
#endif
#endif

#include "ppma/core/names_end.hpp"
