#pragma once
#include "ppma/core/names_begin.hpp"
// Attention in shifted windows: Liu et al., "Swin Transformer", 2021, equations 3 and 4.
//
//   y = softmax( q k^T / sqrt(d) + B ) v   among the tokens of a window of 7 x 7
//
// B is learnt: one number a head for each of the 13 x 13 relative positions. Every other block of a
// stage moves its windows by 3 rows and columns; what the border cuts off wraps around and is
// masked, and so is what a grid lacks to whole windows. A smaller grid is one window, unmoved.

#include "ppma/mixers/mixer.hpp"

namespace ppma::inline PPMA_ABI {

struct WindowAttention {
  static constexpr i64 side = 7, places = 2 * side - 1;

  i64 heads;
  bool moved;         // whether this block's windows are
  Linear qkv;         // C -> 3 C
  Tensor bias_table;  // (13 * 13,G)
  Linear proj;

  PPMA_API WindowAttention(const MixerConfig& c, Rng& rng);
  /// x (B,H,W,C) -> (B,H,W,C)
  PPMA_API Tensor forward(const Tensor& x) const;
  /// Both products of every window, those that are filled up among them, and the softmaxes.
  PPMA_API MixerCost cost(const Shape& x) const;
  template <class V>
  void fields(V& v) {
    v.child("qkv", qkv), v.parameter("bias_table", bias_table), v.child("proj", proj);
  }
};

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_MIXERS)

#include <algorithm>
#include <cmath>
#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/softmax.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// How windows lie on one axis of a grid.
struct Windowing {
  i64 size, side, count, shift;

  Windowing(i64 n, bool moved)
      : size(n),
        side(std::min(n, WindowAttention::side)),
        count((n + side - 1) / side),
        shift(moved && count > 1 ? side / 2 : 0) {}
  // x filled up to whole windows and moved back by `shift`.
  Tensor arranged(const Tensor& x, int axis) const {
    Shape rest = x.shape();
    rest.set(axis, count * side - size);
    const Tensor full =
        rest[axis] == 0 ? x : concat({x, Tensor::zeros(rest, x.dtype(), x.device())}, axis);
    return shift == 0 ? full
                      : concat({narrow(full, axis, shift, count * side - shift),
                                narrow(full, axis, 0, shift)},
                               axis);
  }
  Tensor taken_back(const Tensor& x, int axis) const {
    const Tensor full = shift == 0 ? x
                                   : concat({narrow(x, axis, count * side - shift, shift),
                                             narrow(x, axis, 0, count * side - shift)},
                                            axis);
    return narrow(full, axis, 0, size);
  }
  // To which part of the grid the token at `place` of the moved windows belongs: the filling is
  // one, and what wrapped around another.
  i64 part(i64 place) const {
    const i64 from = (place + shift) % (count * side);
    return from >= size ? 2 : place + shift >= count * side ? 1 : 0;
  }
};

}  // namespace detail

WindowAttention::WindowAttention(const MixerConfig& c, Rng& rng)
    : heads(c.heads),
      moved(c.block % 2 == 1),
      qkv(c.channels, 3 * c.channels, rng),
      bias_table(parameter(truncated_normal({places * places, c.heads}, rng))),
      proj(c.channels, c.channels, rng) {}

Tensor WindowAttention::forward(const Tensor& x) const {
  const detail::Windowing rows(x.dim(1), moved), columns(x.dim(2), moved);
  const i64 batch = x.dim(0), C = x.dim(3), d = C / heads, n = rows.side * columns.side,
            count = rows.count * columns.count;
  // numbers of the tokens of windows: relative positions, and which may see each other
  std::vector<double> place(static_cast<std::size_t>(n * n * places * places), 0),
      mask(static_cast<std::size_t>(count * n * n), 0);
  const auto row = [&](i64 u) { return u / columns.side; };
  const auto column = [&](i64 u) { return u % columns.side; };
  for (i64 u = 0; u < n; ++u)
    for (i64 w = 0; w < n; ++w) {
      const i64 relative = (row(u) - row(w) + side - 1) * places + column(u) - column(w) + side - 1;
      place[static_cast<std::size_t>((u * n + w) * places * places + relative)] = 1;
      for (i64 k = 0; k < count; ++k) {
        const i64 top = k / columns.count * rows.side, left = k % columns.count * columns.side;
        const bool together = rows.part(top + row(u)) == rows.part(top + row(w)) &&
                              columns.part(left + column(u)) == columns.part(left + column(w));
        mask[static_cast<std::size_t>((k * n + u) * n + w)] = together ? 0 : -1e9;
      }
    }
  const auto constant = [&](const std::vector<double>& values, const Shape& shape) {
    return cast(Tensor::from<double>(values, shape), x.dtype()).to(x.device());
  };
  const Tensor by_pair = matmul(constant(place, {n * n, places * places}), bias_table);
  const Tensor bias = reshape(transpose(by_pair, 0, 1), Shape{heads, n, n});
  const Tensor t = columns.arranged(rows.arranged(qkv.forward(x), 1), 2);  // (B,H',W',3C)
  const Tensor by_window = permute(  // (B count,rows,columns of a window,3 G,d) in that order
      reshape(t, Shape{batch, rows.count, rows.side, columns.count, columns.side, 3 * heads, d}),
      {0, 1, 3, 5, 2, 4, 6});
  const Tensor split = reshape(by_window, Shape{batch * count, 3, heads, n, d});
  const Tensor q = scale(select(split, 1, 0), 1 / std::sqrt(static_cast<double>(d)));
  const Tensor scores = matmul(q, select(split, 1, 1), false, true) + bias;  // (B count,G,n,n)
  const Tensor weights =
      softmax(reshape(scores, Shape{batch, count, heads, n, n}) + constant(mask, {count, 1, n, n}));
  const Tensor y = matmul(reshape(weights, scores.shape()), select(split, 1, 2));
  const Tensor grid = reshape(
      permute(
          reshape(y, Shape{batch, rows.count, columns.count, heads, rows.side, columns.side, d}),
          {0, 1, 4, 2, 5, 3, 6}),
      Shape{batch, rows.count * rows.side, columns.count * columns.side, C});
  return proj.forward(rows.taken_back(columns.taken_back(grid, 2), 1));
}

MixerCost WindowAttention::cost(const Shape& x) const {
  const detail::Windowing rows(x[1], moved), columns(x[2], moved);
  const i64 n = rows.side * columns.side, pairs = x[0] * rows.count * columns.count * n * n;
  return {2 * pairs * x[3], pairs * heads * 7};  // softmax 5, bias, mask
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
