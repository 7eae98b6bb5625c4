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
#include "ppma/tensor/constant.hpp"

namespace ppma::inline PPMA_ABI {

namespace detail {

// How windows lie on one axis of a grid.
struct Windowing {
  i64 size;
  bool moved;
  i64 side = std::min(size, WindowAttention::side), count = (size + side - 1) / side;
  i64 shift = moved && count > 1 ? side / 2 : 0;

  // x with its first n along the axis put behind the others
  static Tensor rolled(const Tensor& x, int axis, i64 n) {
    return n == 0 ? x : concat({narrow(x, axis, n, x.dim(axis) - n), narrow(x, axis, 0, n)}, axis);
  }
  // x filled up to whole windows and moved back by `shift`.
  Tensor arranged(const Tensor& x, int axis) const {
    Shape rest = x.shape();
    rest.set(axis, count * side - size);
    const Tensor filling = Tensor::zeros(rest, x.dtype(), x.device());
    return rolled(rest[axis] == 0 ? x : concat({x, filling}, axis), axis, shift);
  }
  Tensor taken_back(const Tensor& x, int axis) const {
    return narrow(rolled(x, axis, shift == 0 ? 0 : count * side - shift), axis, 0, size);
  }
  // The part of the grid of a token of the moved windows: the filling is one, what wrapped another.
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
  const detail::Windowing rows{x.dim(1), moved}, columns{x.dim(2), moved};
  const i64 batch = x.dim(0), C = x.dim(3), d = C / heads, n = rows.side * columns.side,
            count = rows.count * columns.count;
  const auto row = [&](i64 u) { return u / columns.side; };
  const auto column = [&](i64 u) { return u % columns.side; };
  const auto constant = [&](const auto& key, const Shape& shape, const auto& f) {
    return kept_constant(str("window ", key), shape, bias_table.dtype(), x.device(), [&] {
      std::vector<double> values;
      const i64 last = shape[-1], middle = shape[-2];
      for (i64 e = 0; e < shape.numel(); ++e)
        values.push_back(f(e / last / middle, e / last % middle, e % last));
      return values;
    });
  };
  // the relative position of two tokens of a window, as rows that pick it from the table
  const Tensor place =
      constant(str("places ", columns.side), {n, n, places * places}, [&](i64 u, i64 w, i64 at) {
        const i64 down = row(u) - row(w) + side - 1, right = column(u) - column(w) + side - 1;
        return at == down * places + right ? 1.0 : 0.0;
      });
  // which tokens of which window may see each other: those of one part of the grid
  const auto part = [&](i64 k, i64 u) {
    return 3 * rows.part(k / columns.count * rows.side + row(u)) +
           columns.part(k % columns.count * columns.side + column(u));
  };
  const Tensor mask =
      constant(str("mask ", x.dim(1), " ", x.dim(2), " ", moved), {count, 1, n, n},
               [&](i64 k, i64 u, i64 w) { return part(k, u) == part(k, w) ? 0.0 : -1e9; });
  const Tensor by_pair = matmul(reshape(place, Shape{n * n, places * places}), bias_table);
  const Tensor bias = detail::beside(x, reshape(transpose(by_pair, 0, 1), Shape{heads, n, n}));
  const Tensor t = columns.arranged(rows.arranged(qkv.forward(x), 1), 2);  // (B,H',W',3C)
  const Tensor places_apart =
      reshape(t, Shape{batch, rows.count, rows.side, columns.count, columns.side, 3 * heads, d});
  const Tensor split =
      reshape(permute(places_apart, {0, 1, 3, 5, 2, 4, 6}), Shape{batch * count, 3, heads, n, d});
  const Tensor q = scale(select(split, 1, 0), 1 / std::sqrt(static_cast<double>(d)));
  const Tensor scores = matmul(q, select(split, 1, 1), false, true) + bias;  // (B count,G,n,n)
  const Tensor weights =
      softmax(reshape(scores, Shape{batch, count, heads, n, n}) + detail::beside(x, mask));
  const Tensor y = matmul(reshape(weights, scores.shape()), select(split, 1, 2));
  const Tensor by_window =
      reshape(y, Shape{batch, rows.count, columns.count, heads, rows.side, columns.side, d});
  const Tensor grid =
      reshape(permute(by_window, {0, 1, 4, 2, 5, 3, 6}),
              Shape{batch, rows.count * rows.side, columns.count * columns.side, C});
  return proj.forward(rows.taken_back(columns.taken_back(grid, 2), 1));
}

MixerCost WindowAttention::cost(const Shape& x) const {
  const detail::Windowing rows{x[1], moved}, columns{x[2], moved};
  const i64 n = rows.side * columns.side, pairs = x[0] * rows.count * columns.count * n * n;
  return {2 * pairs * x[3], pairs * heads * 7};  // softmax 5, bias, mask
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
