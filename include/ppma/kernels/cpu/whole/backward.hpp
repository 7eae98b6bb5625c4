#pragma once
#include "ppma/core/names_begin.hpp"
// Whole attention's gradients (the words are attention.hpp's). Backward recomputes the
// probabilities and accumulates, query by query in a fixed order within one head:
//   dP = dY V^T;  dS_r = c_r p_r (dP - <p_r, dP>/z_r);  dQ = dS K;  dK += dS^T Q;  dV += P^T dY
//   dM = dS_1 for L, dS_2 for Lt; with a, b the running sums of log alpha along rows and of log
//   beta along columns, which fall along their lines, the sign of a[r,j] - a[r,l] is that of l - j,
//   and each -|difference| sends +-dS to its ends.

#include <algorithm>

#include "ppma/kernels/cpu/whole/probabilities.hpp"

namespace ppma::inline PPMA_ABI {

namespace kernels PPMA_WIDTH::whole {

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

#include "ppma/core/names_end.hpp"
