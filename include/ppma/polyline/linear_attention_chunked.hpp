#pragma once
#include "ppma/core/names_begin.hpp"
// The chunked form of PPMLA: blocks of R rows of the grid. Inside a block the formula ((Q K^T) * L)
// V; what comes from above and from below arrives as one d x d state a column, the sum of k v^T
// over all keys there, decayed to the block's border.
//
//   V2H  a query reads the states of all columns of its row: decayed down to its row, then a row
//        scan
//   H2V  keys reach the columns by a row scan first; a query reads the state of its own column
//
// Written with the library's operations. Backward recomputes a block at a time: what is kept are
// the states, W d^2 numbers a block, so N d^2 / R in all. Legend: B batch, G heads, H W grid, d
// head width, R rows of a block.

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI::detail {

PPMA_API Tensor sums_behind(const Tensor& x, int axis);

// One path in chunked form; q, k, v (B,G,H,W,d), log_decays (2,B,G,H,W).
PPMA_API Tensor linear_attention_chunked(const Tensor& q, const Tensor& k, const Tensor& v,
                                         const Tensor& log_decays, Paths path, i64 block_rows);

}  // namespace ppma::inline PPMA_ABI::detail

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE)

#include <algorithm>
#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/reduce.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/attention.hpp"
#include "ppma/polyline/recompute.hpp"

namespace ppma::inline PPMA_ABI::detail {

// Along an axis: x with 0 in its first place; and for each place the sum of all behind it. Not as a
// difference of running sums, which a closed edge would make worthless.
inline Tensor one_zero(const Tensor& x, int axis) {
  Shape s = x.shape();
  s.set(axis, 1);
  return Tensor::zeros(s, x.dtype(), x.device());
}

inline Tensor without_first(const Tensor& x, int axis) {
  if (x.dim(axis) == 1) return one_zero(x, axis);
  return concat({one_zero(x, axis), narrow(x, axis, 1, x.dim(axis) - 1)}, axis);
}

Tensor sums_behind(const Tensor& x, int axis) {
  if (x.dim(axis) == 1) return one_zero(x, axis);
  return concat({cumsum(narrow(x, axis, 1, x.dim(axis) - 1), axis, true), one_zero(x, axis)}, axis);
}

// A block of rows i0..i1-1 in the chunked form, (B,G,R,W,.) each, and where its decays lead.
struct RowBlock {
  Tensor k, v;                    // (B,G,R,W,d)
  Tensor log_alpha;               // (B,G,R,W)
  Tensor from_above, to_below;    // log decay from row i0-1 to row i; from row i to row i1-1
  Tensor from_below, to_above;    // log decay from row i1 to row i; from row i to row i0
  Tensor across_down, across_up;  // (B,G,W): from row i0-1 to i1-1; from row i1 to i0

  // log_beta_next (B,G,1,W): of row i1, the edge to the block below (any number where there is
  // none).
  RowBlock(const Tensor& k_, const Tensor& v_, const Tensor& log_decays,
           const Tensor& log_beta_next)
      : k(k_), v(v_), log_alpha(log_alpha_of(log_decays)) {
    const Tensor log_beta = log_beta_of(log_decays);
    const i64 rows = log_beta.dim(2);
    from_above = cumsum(log_beta, 2);
    to_below = sums_behind(log_beta, 2);
    from_below = to_below + log_beta_next;
    to_above = cumsum(without_first(log_beta, 2), 2);
    across_down = select(narrow(from_above, 2, rows - 1, 1), 2, 0);
    across_up = select(narrow(from_below, 2, 0, 1), 2, 0);
  }

  static Tensor weigh(const Tensor& log_weight, const Tensor& x) {  // by token
    Shape s = log_weight.shape();
    while (s.rank() < x.rank()) s.push_back(1);
    return reshape(exp(log_weight), s) * x;
  }
  // Sum over the block's rows of e^log_weight k v^T, one d x d matrix a column, (B,G,W,d,d); H2V
  // sees them through a row scan.
  Tensor collect(const Tensor& log_weight, Paths path) const {
    if (path == Paths::v2h)
      return matmul(transpose(weigh(log_weight, k), 2, 3), transpose(v, 2, 3), true, false);
    const Shape s = k.shape();
    const Tensor t = reshape(k, {s[0], s[1], s[2], s[3], s[4], i64{1}}) *
                     reshape(v, {s[0], s[1], s[2], s[3], i64{1}, s[4]});
    const Shape decay{s[0], s[1], s[2], s[3], 1, 1};
    return sum(weigh(log_weight, decay_scan(t, reshape(log_alpha, decay), 3)), {2});
  }
  // State of the next block below (or above) from this one's.
  Tensor next(const Tensor& state, bool down, Paths path) const {
    return weigh(down ? across_down : across_up, state) + collect(down ? to_below : to_above, path);
  }
  // What queries q (B,G,R,W,d) of this block read from the states above and below it, (B,G,R,W,d).
  Tensor read(const Tensor& q, const Tensor& above, const Tensor& below, Paths path) const {
    const Shape s = q.shape();
    const Shape one_row{s[0], s[1], 1, s[3], s[4], s[4]};
    Shape decay{s[0], s[1], s[2], s[3], 1, 1};
    const auto spread = [&](const Tensor& log_weight, const Tensor& state) {
      // (B,G,R,W,d,d)
      return reshape(exp(log_weight), decay) * reshape(state, one_row);
    };
    Tensor x = spread(from_above, above) + spread(from_below, below);
    if (path == Paths::v2h) x = decay_scan(x, reshape(log_alpha, decay), 3);
    return reshape(matmul(reshape(q, {s[0], s[1], s[2], s[3], i64{1}, s[4]}), x), s);
  }
};

Tensor linear_attention_chunked(const Tensor& q, const Tensor& k, const Tensor& v,
                                const Tensor& log_decays, Paths path, i64 block_rows) {
  const i64 height = q.dim(2), blocks = (height + block_rows - 1) / block_rows;
  const auto inside = [path](const Tensor& q_, const Tensor& k_, const Tensor& v_,
                             const Tensor& decays) {
    const Shape s = q_.shape(), tokens{s[0], s[1], s[2] * s[3], s[4]};
    const Tensor scores = matmul(reshape(q_, tokens), reshape(k_, tokens), false, true);
    return reshape(matmul(scores * polyline_mask(decays, path), reshape(v_, tokens)), s);
  };
  if (blocks == 1) return inside(q, k, v, log_decays);
  // The first log beta belongs to no edge and may be anything, also NaN.
  const Tensor log_beta = without_first(log_beta_of(log_decays), 2),
               decays = join_decays(log_alpha_of(log_decays), log_beta);
  const auto rows_of = [=](const Tensor& t, i64 block, int axis = 2) {
    return narrow(t, axis, block * block_rows, std::min(block_rows, height - block * block_rows));
  };
  const auto next_edge = [&](i64 block) {  // log beta of the row below the block
    return narrow(log_beta, 2, block + 1 < blocks ? (block + 1) * block_rows : 0, 1);
  };
  const auto arguments = [&](i64 block) {
    return std::vector<Tensor>{rows_of(k, block), rows_of(v, block), rows_of(decays, block, 3),
                               next_edge(block)};
  };
  const auto block_of = [](const std::vector<Tensor>& in) {
    return RowBlock(in[0], in[1], in[2], in[3]);
  };

  // States above (below) each block: sums of k v^T over all keys there, decayed to the block's
  // border.
  const std::size_t count = static_cast<std::size_t>(blocks);
  std::vector<Tensor> above(count), below(count);
  // (B,G,W,d,d)
  const Shape state{q.dim(0), q.dim(1), q.dim(3), q.dim(4), q.dim(4)};
  above[0] = below[count - 1] = Tensor::zeros(state, q.dtype(), q.device());
  const auto step = [&](const Tensor& from, i64 block, bool down) {
    std::vector<Tensor> in = arguments(block);
    in.push_back(from);
    return recomputed(
        [=](const std::vector<Tensor>& a) { return block_of(a).next(a[4], down, path); }, in);
  };
  for (i64 c = 0; c + 1 < blocks; ++c)
    above[static_cast<std::size_t>(c + 1)] = step(above[static_cast<std::size_t>(c)], c, true);
  for (i64 c = blocks - 1; c > 0; --c)
    below[static_cast<std::size_t>(c - 1)] = step(below[static_cast<std::size_t>(c)], c, false);

  std::vector<Tensor> parts;
  for (std::size_t c = 0; c < count; ++c) {
    std::vector<Tensor> in = arguments(static_cast<i64>(c));
    in.insert(in.end(), {rows_of(q, static_cast<i64>(c)), above[c], below[c]});
    parts.push_back(recomputed(
        [=](const std::vector<Tensor>& a) {
          return inside(a[4], a[0], a[1], a[2]) + block_of(a).read(a[4], a[5], a[6], path);
        },
        in));
  }
  // (B,G,H,W,d)
  return concat(parts, 2);
}

}  // namespace ppma::inline PPMA_ABI::detail

#endif  // definitions

#include "ppma/core/names_end.hpp"
