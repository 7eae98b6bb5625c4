#pragma once
#include "ppma/core/names_begin.hpp"
// The CPU kernel of criss_cross_attention(), forward and backward, head by head. The mask of one
// line at a time is what its scores are added to.
//
// Legend: H x W grid, N = H W tokens, d head width (dp in whole vectors), PH_i the W x W
// probabilities of row i, PV_l the H x H probabilities of column l. Products that share a matrix
// run as one: [x | y] are 2 dp columns side by side.
//
//   forward   rows     PH_i;  U1_i = PH_i v_i
//             columns  PV_l;  [O1 | U2]_l = PV_l [U1 | v]_l
//             rows     O2_i = PH_i U2_i
//   backward  rows     PH_i;  U1_i = PH_i v_i;  dU2_i = PH_i^T g_i
//                      (g: upstream gradient)
//             columns  PV_l;  U2_l = PV_l v_l;  [dU1 | dv]_l += PV_l^T [g | dU2]_l;
//                      dPV_l = [g | dU2]_l [U1 | v]_l^T
//             rows     dv_i += PH_i^T dU1_i;  dPH_i = [dU1 | g]_i [v | U2]_i^T
//             each dP gives dS = P (dP - <P, dP>), and that dq = dS k, dk = dS^T q and the decays'
//             gradients.
//
// The row probabilities are needed twice; they are kept while they fit (`keep_limit`), else
// computed again.

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/criss_cross/line.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/kernels/cpu/head.hpp"
#include "ppma/kernels/cpu/simd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH::criss_cross {

inline constexpr i64 keep_limit = i64{1} << 19;  // elements of PH in one head: 2 MiB of f32

// The log decays of the columns, column by column: (W,H) from (H,W).
template <class T>
void turn(i64 h, i64 wd, const T* from, T* to) {
  for (i64 i = 0; i < h; ++i)
    for (i64 j = 0; j < wd; ++j) to[j * h + i] = from[i * wd + j];
}

template <class T>
void copy_scaled(i64 n, i64 d, const T* from, i64 from_stride, T scale, T* to, i64 to_stride) {
  for (i64 u = 0; u < n; ++u)
    for (i64 c = 0; c < d; ++c) to[u * to_stride + c] = scale * from[u * from_stride + c];
}

template <class T>
void forward(Order order, const AttentionArgs<T>& in, T* y) {
  const AttentionShape x = in.shape;
  const i64 h = x.height, wd = x.width, n = x.tokens(), d = x.head_width, channels = x.channels(),
            dp = round_to_lanes<T>(d), pair = 2 * dp;
  const bool masked = in.masked();
  // O1, O2 wanted
  const bool first = order != Order::columns_first, second = order != Order::rows_first;
  parallel_for(x.batch * x.heads, x.grain(h + wd), [&](i64 begin, i64 end) {
    Line<T> row(masked, wd, d, in.row_orders != nullptr),
        column(masked, h, d, in.column_orders != nullptr);
    const i64 kept = first && second && n * row.lds <= keep_limit ? h : 0;
    const Workspace<T> ph(kept * wd * row.lds);
    // Column by column, so that a column's tokens are neighbours: in q, k and v they are a row
    // apart, often a multiple of 4 KiB, and push each other out of the caches.
    const ZeroedWorkspace<T> queries(n * d), keys(n * d), uv(n * pair), log_beta(masked ? n : 0);
    const ZeroedWorkspace<T> v_row(wd * dp), u_row(wd * dp), mixed(h * pair), u2(n * dp);
    for (i64 which = begin; which < end; ++which) {
      const AttentionArgs<T> here = in.head(which);
      T* const y_here = y + x.first_of(which);
      if (masked) turn(h, wd, here.log_beta, log_beta.data());
      for (i64 i = 0; i < h; ++i) {
        const i64 at = i * wd * channels;
        // The mean of both orders: half of v into both.
        copy_scaled(wd, d, here.v + at, channels, first && second ? T(0.5) : T(1), v_row.data(),
                    dp);
        if (first) {
          row.take_row(here, i);
          row.attend(v_row.data(), dp, d, u_row.data(), dp, false,
                     kept ? ph.data() + i * wd * row.lds : nullptr);
        }
        for (i64 l = 0; l < wd; ++l) {
          const i64 u = l * h + i;
          std::copy_n(here.q + at + l * channels, d, queries.data() + u * d);
          std::copy_n(here.k + at + l * channels, d, keys.data() + u * d);
          std::copy_n(u_row.data() + l * dp, dp, uv.data() + u * pair);
          std::copy_n(v_row.data() + l * dp, dp, uv.data() + u * pair + dp);
        }
      }
      for (i64 l = 0; l < wd; ++l) {
        const i64 at = l * h;
        column.visit_in(in.column_orders ? in.column_orders + at : nullptr);
        column.take(queries.data() + at * d, keys.data() + at * d, d,
                    masked ? log_beta.data() + at : nullptr);
        column.attend(uv.data() + at * pair, pair, pair, mixed.data(), pair, false, nullptr);
        for (i64 i = 0; i < h; ++i) {
          const i64 u = i * wd + l;
          if (first) std::copy_n(mixed.data() + i * pair, d, y_here + u * channels);
          if (second) std::copy_n(mixed.data() + i * pair + dp, dp, u2.data() + u * dp);
        }
      }
      if (second)
        for (i64 i = 0; i < h; ++i) {
          T* const y_row = y_here + i * wd * channels;
          const T* const u2_row = u2.data() + i * wd * dp;
          if (kept) {
            multiply_small(wd, d, wd, ph.data() + i * wd * row.lds, row.lds, i64{1}, u2_row, dp,
                           y_row, channels, first);
          } else {
            row.take_row(here, i);
            row.attend(u2_row, dp, d, y_row, channels, first, nullptr);
          }
        }
    }
  });
}

// Backward of one head in its three passes. Arrays named in pairs have 2 dp columns a token; a half
// that an order does not need stays 0.
template <class T>
struct Backward {
  const AttentionShape x;
  const i64 h = x.height, wd = x.width, n = x.tokens(), d = x.head_width, channels = x.channels(),
            dp = round_to_lanes<T>(d), pair = 2 * dp;
  const bool masked, first, second;  // O1, O2 wanted
  Line<T> row, column;
  const bool keep = n * row.lds <= keep_limit;
  Workspace<T> ph{keep ? n * row.lds : 0};
  ZeroedWorkspace<T> u1_v{n * pair}, g_du2{n * pair}, v_u2{n * pair}, du1_g{n * pair};
  ZeroedWorkspace<T> keys{n * dp}, queries{n * dp}, dqueries{n * dp}, dkeys{n * dp},
      dvalues{n * dp}, mixed{h * pair}, of_columns{n};
  ZeroedWorkspace<T> dca{n + lanes<T>}, dcb{n + lanes<T>};  // of running sums; dcb is (W,H)
  ZeroedWorkspace<T> right{pair * transposed_stride<T>(std::max(h, wd))},
      dprobs{std::max(h, wd) * round_to_lanes<T>(std::max(h, wd))};

  PPMA_ONCE Backward(const AttentionArgs<T>& in, Order order)
      : x(in.shape),
        masked(in.masked()),
        first(order != Order::columns_first),
        second(order != Order::rows_first),
        row(masked, wd, d, in.row_orders != nullptr),
        column(masked, h, d, in.column_orders != nullptr) {}

  void load(const AttentionArgs<T>& here, const T* dy) {
    const T weight = first && second ? T(0.5) : T(1);
    copy_scaled(n, d, here.v, channels, T(1), u1_v.data() + dp, pair);
    copy_scaled(n, d, here.v, channels, T(1), v_u2.data(), pair);
    if (first) copy_scaled(n, d, dy, channels, weight, g_du2.data(), pair);
    if (second) copy_scaled(n, d, dy, channels, weight, du1_g.data() + dp, pair);
    copy_padded(n, d, here.k, channels, keys.data());
    copy_padded(n, d, here.q, channels, queries.data());
    for (const auto* sum : {&dqueries, &dkeys, &dvalues}) std::fill_n(sum->data(), n * dp, T(0));
    for (const auto* sum : {&dca, &dcb}) std::fill_n(sum->data(), n, T(0));
    if (masked) turn(h, wd, here.log_beta, of_columns.data());
  }

  // PH_i, made now or kept from the first pass over the rows.
  T* row_probabilities(const AttentionArgs<T>& here, i64 i, bool again) {
    T* const p = keep ? ph.data() + i * wd * row.lds : row.p.data();
    if (!(again && keep)) {
      row.take_row(here, i);
      row.probabilities(0, wd, p);
    }
    return p;
  }

  // The gradient of one line's probabilities p, left right^T over 2 dp columns, sent on to q, k and
  // the running sums c. Token t of the line is number from + t * step of the head.
  void line_backward(Line<T>& line, const T* p, const T* left, const T* right_rows, i64 from,
                     i64 step, T* dc) {
    T* const g = dprobs.data();
    copy_transposed(line.n, pair, right_rows + from * pair, step * pair, right.data(), line.ldk);
    multiply_small(line.n, line.n, pair, left + from * pair, step * pair, i64{1}, right.data(),
                   line.ldk, g, line.lds, false);
    line.softmax_backward(p, g, dc);
    multiply_small(line.n, d, line.n, g, line.lds, i64{1}, keys.data() + from * dp, step * dp,
                   dqueries.data() + from * dp, step * dp, true);
    multiply_small(line.n, d, line.n, g, i64{1}, line.lds, queries.data() + from * dp, step * dp,
                   dkeys.data() + from * dp, step * dp, true);
  }

  // U1_i = PH_i v_i;  dU2_i = PH_i^T g_i
  void rows_forward(const AttentionArgs<T>& here) {
    for (i64 i = 0; i < h; ++i) {
      const i64 from = i * wd;
      const T* const p = row_probabilities(here, i, false);
      if (first)
        multiply_small(wd, d, wd, p, row.lds, i64{1}, v_u2.data() + from * pair, pair,
                       u1_v.data() + from * pair, pair, false);
      if (second)
        multiply_small(wd, d, wd, p, i64{1}, row.lds, du1_g.data() + from * pair + dp, pair,
                       g_du2.data() + from * pair + dp, pair, false);
    }
  }

  // U2_l = PV_l v_l;  [dU1 | dv]_l += PV_l^T [g | dU2]_l;  dPV_l = [g | dU2]_l [U1 | v]_l^T
  void columns(const AttentionArgs<T>& here) {
    for (i64 l = 0; l < wd; ++l) {
      T* const p = column.p.data();
      column.visit_in(here.column_orders ? here.column_orders + l * h : nullptr);
      column.take(here.q + l * channels, here.k + l * channels, wd * channels,
                  masked ? of_columns.data() + l * h : nullptr);
      column.probabilities(0, h, p);
      if (second)
        multiply_small(h, d, h, p, column.lds, i64{1}, v_u2.data() + l * pair, wd * pair,
                       v_u2.data() + l * pair + dp, wd * pair, false);
      multiply_small(h, pair, h, p, i64{1}, column.lds, g_du2.data() + l * pair, wd * pair,
                     mixed.data(), pair, false);
      for (i64 i = 0; i < h; ++i) {
        const i64 u = i * wd + l;
        for (i64 c = 0; c < dp; ++c) {
          du1_g.data()[u * pair + c] = mixed.data()[i * pair + c];
          dvalues.data()[u * dp + c] += mixed.data()[i * pair + dp + c];
        }
      }
      line_backward(column, p, g_du2.data(), u1_v.data(), l, wd, dcb.data() + l * h);
    }
  }

  // dv_i += PH_i^T dU1_i;  dPH_i = [dU1 | g]_i [v | U2]_i^T
  void rows_backward(const AttentionArgs<T>& here) {
    for (i64 i = 0; i < h; ++i) {
      const i64 from = i * wd;
      const T* const p = row_probabilities(here, i, true);
      multiply_small(wd, d, wd, p, i64{1}, row.lds, du1_g.data() + from * pair, pair,
                     dvalues.data() + from * dp, dp, true);
      row.visit_in(here.row_orders ? here.row_orders + from : nullptr);
      line_backward(row, p, du1_g.data(), v_u2.data(), from, 1, dca.data() + from);
    }
  }

  void finish(const AttentionArgs<T>& here, const AttentionGradients<T>& to) {
    for (i64 u = 0; u < n; ++u) {
      std::copy_n(dqueries.data() + u * dp, d, to.dq + u * channels);
      std::copy_n(dkeys.data() + u * dp, d, to.dk + u * channels);
      std::copy_n(dvalues.data() + u * dp, d, to.dv + u * channels);
    }
    if (!masked) return;
    for (i64 i = 0; i < h; ++i)
      line_sums_to_decays(wd, i64{1}, here.row_orders ? here.row_orders + i * wd : nullptr,
                          here.log_alpha + i * wd, dca.data() + i * wd, to.dlog_alpha + i * wd);
    for (i64 l = 0; l < wd; ++l)
      line_sums_to_decays(h, wd, here.column_orders ? here.column_orders + l * h : nullptr,
                          here.log_beta + l, dcb.data() + l * h, to.dlog_beta + l);
  }
};

template <class T>
void backward(Order order, const AttentionArgs<T>& in, const T* dy,
              const AttentionGradients<T>& d) {
  const AttentionShape x = in.shape;
  parallel_for(x.batch * x.heads, x.grain(x.height + x.width), [&](i64 begin, i64 end) {
    Backward<T> head(in, order);
    for (i64 which = begin; which < end; ++which) {
      const AttentionArgs<T> here = in.head(which);
      head.load(here, dy + x.first_of(which));
      head.rows_forward(here);
      head.columns(here);
      head.rows_backward(here);
      head.finish(here, d.head(x, which));
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH::criss_cross

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

template <class T>
void criss_cross_attention(Cpu, Order order, const AttentionArgs<T>& in, T* y) {
  criss_cross::forward(order, in, y);
}
template <class T>
void criss_cross_attention_backward(Cpu, Order order, const AttentionArgs<T>& in, const T* dy,
                                    const AttentionGradients<T>& d) {
  criss_cross::backward(order, in, dy, d);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/criss_cross/attention.cuh"
#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_CRISS_CROSS_BACKWARD)
#include "ppma/kernels/cuda/criss_cross/attention_backward.cuh"
#else  // its kernels take nvcc as long as all others here: a source of its own
namespace ppma::inline PPMA_ABI::kernels {
template <class T>
void criss_cross_attention_backward(Cuda, Order order, const AttentionArgs<T>& in, const T* dy,
                                    const AttentionGradients<T>& d);
}
#endif
#endif

#include "ppma/core/names_end.hpp"
