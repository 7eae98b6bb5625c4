#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA: polyline path masked linear attention (the paper's Theorem 3; algorithm 2.3), in three
// forms of one result:
//
//   Y = ( (Q K^T) * L2D ) V   no softmax, no normaliser; L2D = L + L^T, or one of the two paths
//
//   quadratic  the formula: N x N arrays
//   scan       T_u = k_u v_u^T, apply the mask to T by column and row scans, y_u = q_u^T (L T)_u:
//              O(N d^2) time, O(N d) memory; in bf16 on a GPU kernels/cuda/linear/tensor.cuh
//   chunked    blocks of R rows: the formula inside a block; what comes from above and from below
//              arrives as one d x d state a column, the sum of k v^T over all keys there, decayed
//              to the block's border. More of the work is products of matrices; backward
//              recomputes a block at a time, and what is kept are the states, N d^2 / R numbers.
//
// Legend: B batch, G heads, H W grid, N = H W, d head width, R rows of a block.
// Q and K may be feature maps phi(q), phi(k); normalise rows by attending to ones, if you want to.

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {

/// Polyline path masked linear attention, differentiable in all tensors, in every form.
///   q, k, v     (B,H,W,C)
///   log_decays  (2,B,G,H,W), each <= 0 (polyline/types.hpp)
///   paths       v2h (mask L), h2v (L^T) or both (L + L^T); without a mask use log decays of 0
///   block_rows  rows of a block of the chunked form
///   returns     (B,H,W,C)
PPMA_API Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                                 const Tensor& log_decays, Paths paths = Paths::both,
                                 LinearForm form = LinearForm::scan, i64 block_rows = 4);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_LINEAR)

#include <algorithm>
#include <vector>

#include "ppma/kernels/cpu/linear/attention.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/check.hpp"
#include "ppma/polyline/mask.hpp"
#include "ppma/polyline/structured.hpp"
#include "ppma/tensor/recompute.hpp"

namespace ppma::inline PPMA_ABI {
namespace detail {

// The formula in a block: q, k, v (B,G,R,W,d), log_decays (2,B,G,R,W).
inline Tensor linear_in_block(const Tensor& q, const Tensor& k, const Tensor& v,
                              const Tensor& log_decays, Paths paths) {
  const Shape s = q.shape(), tokens{s[0], s[1], s[2] * s[3], s[4]};
  const Tensor scores = matmul(reshape(q, tokens), reshape(k, tokens), false, true);
  return reshape(matmul(scores * polyline_mask(log_decays, paths), reshape(v, tokens)), s);
}

// Log decays between the rows of a block and the rows i0 - 1 above and i1 below it; [0] is the way
// down, [1] the way up. `next` (B,G,1,W) is ln beta of row i1, any number where there is none.
struct Borders {
  Tensor from;    // (2,B,G,R,W): from row i0 - 1, from row i1
  Tensor to;      // (2,B,G,R,W): to the block's last row, to its first
  Tensor across;  // (2,B,G,W): from row i0 - 1 to the last row, from row i1 to the first

  Borders(const Tensor& log_beta, const Tensor& next) {
    const Tensor down = cumsum(log_beta, 2), behind = sums_behind(log_beta, 2), up = behind + next;
    from = stack({down, up});
    to = stack({behind, cumsum(without_first(log_beta, 2), 2)});
    across = stack({select(down, 2, log_beta.dim(2) - 1), select(up, 2, 0)});
  }
};

// Sums of e^to k v^T over the rows of a block, one d x d matrix a column and way, (2,B,G,W,d,d);
// H2V sees them through a row scan.
inline Tensor block_sums(const Tensor& k, const Tensor& v, const Tensor& log_alpha,
                         const Tensor& to, Paths path) {
  if (path == Paths::v2h)
    return matmul(transpose(weighed(to, k), 3, 4), transpose(v, 2, 3), true, false);
  const Shape s = k.shape(), edges{s[0], s[1], s[2], s[3], 1, 1};
  const Tensor t = reshape(k, {s[0], s[1], s[2], s[3], s[4], i64{1}}) *
                   reshape(v, {s[0], s[1], s[2], s[3], i64{1}, s[4]});
  return sum(weighed(to, decay_scan(t, reshape(log_alpha, edges), 3), 2), {3});
}

// What queries q (B,G,R,W,d) read from the states above and below their block: V2H those of all
// columns, by a scan of their row, H2V that of their own column.
inline Tensor read_states(const Tensor& q, const Tensor& above, const Tensor& below,
                          const Tensor& log_alpha, const Tensor& from, Paths path) {
  const Shape s = q.shape(), row{s[0], s[1], 1, s[3], s[4], s[4]};
  Tensor x = weighed(select(from, 0, 0), reshape(above, row), 2) +
             weighed(select(from, 0, 1), reshape(below, row), 2);  // (B,G,R,W,d,d)
  if (path == Paths::v2h) x = decay_scan(x, reshape(log_alpha, {s[0], s[1], s[2], s[3], 1, 1}), 3);
  return reshape(matmul(reshape(q, {s[0], s[1], s[2], s[3], i64{1}, s[4]}), x), s);
}

// One path in chunked form; q, k, v (B,G,H,W,d).
inline Tensor linear_chunked(const Tensor& q, const Tensor& k, const Tensor& v,
                             const Tensor& log_decays, Paths path, i64 block_rows) {
  using Many = std::vector<Tensor>;
  const i64 height = q.dim(2), count = (height + block_rows - 1) / block_rows;
  const auto rows_of = [=](const Tensor& t, i64 c, int axis) {
    return narrow(t, axis, c * block_rows, std::min(block_rows, height - c * block_rows));
  };
  // The first ln beta belongs to no edge and may be anything, also NaN.
  const Tensor log_alpha = log_alpha_of(log_decays),
               log_beta = without_first(log_beta_of(log_decays), 2);
  const Tensor none = Tensor::zeros({q.dim(0), q.dim(1), q.dim(3), q.dim(4), q.dim(4)}, q.dtype(),
                                    q.device());  // (B,G,W,d,d)
  Many above{none}, below{none}, sums, parts;     // below: from the last block up
  std::vector<Borders> borders;
  for (i64 c = 0; c < count; ++c) {
    const i64 next = c + 1 < count ? (c + 1) * block_rows : 0;
    borders.emplace_back(rows_of(log_beta, c, 2), narrow(log_beta, 2, next, 1));
    sums.push_back(recomputed(
        [path](const Many& in) { return block_sums(in[0], in[1], in[2], in[3], path); },
        {rows_of(k, c, 2), rows_of(v, c, 2), rows_of(log_alpha, c, 2), borders.back().to}));
  }
  const auto state = [&](i64 c, const Tensor& before, i64 way) {  // of the next block on the way
    const std::size_t b = static_cast<std::size_t>(c);
    return weighed(select(borders[b].across, 0, way), before, 2) + select(sums[b], 0, way);
  };
  for (i64 c = 0; c + 1 < count; ++c) above.push_back(state(c, above.back(), 0));
  for (i64 c = count - 1; c > 0; --c) below.push_back(state(c, below.back(), 1));
  for (i64 c = 0; c < count; ++c) {
    const std::size_t b = static_cast<std::size_t>(c), from_below = below.size() - 1 - b;
    parts.push_back(recomputed(
        [path](const Many& in) {
          return linear_in_block(in[0], in[1], in[2], in[3], path) +
                 read_states(in[0], in[4], in[5], log_alpha_of(in[3]), in[6], path);
        },
        {rows_of(q, c, 2), rows_of(k, c, 2), rows_of(v, c, 2), rows_of(log_decays, c, 3), above[b],
         below[from_below], borders[b].from}));
  }
  return concat(parts, 2);  // (B,G,H,W,d)
}

}  // namespace detail

Tensor linear_attention(const Tensor& q, const Tensor& k, const Tensor& v, i64 heads,
                        const Tensor& log_decays, Paths paths, LinearForm form, i64 block_rows) {
  const detail::AttentionInputs in("linear_attention", q, k, v, heads, log_decays, true);
  check(paths != Paths::none,
        "linear_attention: paths is none; without a mask use log decays of 0");
  check(block_rows >= 1, "linear_attention: block_rows must be at least 1, got ", block_rows);
  if (form == LinearForm::scan)
    return detail::attention_by(
        "linear_attention", in,
        [paths](auto on, const auto& args, auto* y) {
          kernels::linear_attention(on, paths, args, y);
        },
        [paths](auto on, const auto& args, const auto* dy, const auto& d) {
          kernels::linear_attention_backward(on, paths, args, dy, d);
        });
  // bf16 beside f32 decays: products of both are f32.
  const auto by_head = [&](const Tensor& t) {
    return detail::split_heads(cast(t, log_decays.dtype()), heads);
  };
  const Tensor qs = by_head(q), ks = by_head(k), vs = by_head(v);
  Tensor y;
  if (form == LinearForm::quadratic || block_rows >= q.dim(1)) {
    y = detail::linear_in_block(qs, ks, vs, log_decays, paths);
  } else {
    for (const Paths path : {Paths::v2h, Paths::h2v}) {
      if (paths != path && paths != Paths::both) continue;
      const Tensor one = detail::linear_chunked(qs, ks, vs, log_decays, path, block_rows);
      y = y.defined() ? y + one : one;
    }
  }
  return cast(detail::merge_heads(y), q.dtype());
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
