#pragma once
#include "ppma/core/names_begin.hpp"
// Mamba2's 1-D structured masked attention (Dao and Gu, "Transformers are SSMs", 2024; algorithm
// 2.4 and 1.6), in three forms of one result. The polyline mask is its mask made symmetric and laid
// along the rows and columns of a grid.
//
//   quadratic   Y = ( (C B^T) * L1D ) X            L1D[i,j] = a_{j+1} ... a_i for i >= j, else 0
//   scan        h_t = a_t h_{t-1} + b_t x_t^T,   y_t = c_t^T h_t            (the recurrence)
//   chunked     inside a block of Q tokens the formula, between blocks one state S; cs: running
//               sums of ln a in a block
//               y = [ (C B^T) * exp(cs_i - cs_j), i >= j ] x + exp(cs_i) C_i S
//               S <- exp(cs_last) S + sum_i exp(cs_last - cs_i) b_i x_i^T
//               (cs_last - cs_i summed from behind)
//
// (In Mamba2 itself x is first multiplied by its step dt, and a = exp(-A dt).)
// Legend: ... any batch axes, n tokens, s state width, p value width. c, b (...,n,s), x (...,n,p),
// log_decay (...,n).

#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI {
namespace detail {

// Along an axis: x with 0 in its first place.
PPMA_API Tensor without_first(const Tensor& x, int axis);

// For each place the sum of all behind it. Not as a difference of running sums, which a closed edge
// would make worthless.
PPMA_API Tensor sums_behind(const Tensor& x, int axis);

// e^log_weight x, where x has `behind` axes more, which share a weight.
PPMA_API Tensor weighed(const Tensor& log_weight, const Tensor& x, int behind = 1);

}  // namespace detail

/// L1D (...,n,n) of log decays (...,n): lower triangular. Differentiable.
PPMA_API Tensor causal_mask(const Tensor& log_decay);

/// Causal structured masked attention.
///   c, b (...,n,s): what reads and what writes the state (queries and keys);  x (...,n,p): values
///   log_decay (...,n), each <= 0: ln of the decay between a token and the one before it; the
///   first is never used, -infinity closes the edge
///   chunk: tokens of a block of the chunked form
///   returns (...,n,p). Differentiable in all four. Time n^2 (quadratic), n s p (scan),
///   n (chunk + s p) (chunked); memory with gradients n^2, n s p, n (chunk + s p / chunk).
PPMA_API Tensor structured_attention(const Tensor& c, const Tensor& b, const Tensor& x,
                                     const Tensor& log_decay, LinearForm form = LinearForm::chunked,
                                     i64 chunk = 64);

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_POLYLINE_MASK)

#include <algorithm>
#include <vector>

#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/matmul.hpp"
#include "ppma/ops/scan.hpp"
#include "ppma/polyline/line_mask.hpp"

namespace ppma::inline PPMA_ABI {

Tensor causal_mask(const Tensor& log_decay) {
  const Tensor symmetric = exp(sequence_log_mask(log_decay));
  const i64 n = log_decay.dim(-1);
  std::vector<double> lower(static_cast<std::size_t>(n * n), 0.0);
  for (i64 i = 0; i < n; ++i)
    for (i64 j = 0; j <= i; ++j) lower[static_cast<std::size_t>(i * n + j)] = 1;
  return symmetric *
         cast(Tensor::from<double>(lower, {n, n}), log_decay.dtype()).to(log_decay.device());
}

namespace detail {

inline Tensor one_zero(const Tensor& x, int axis) {
  Shape s = x.shape();
  s.set(axis, 1);
  return Tensor::zeros(s, x.dtype(), x.device());
}

Tensor without_first(const Tensor& x, int axis) {
  if (x.dim(axis) == 1) return one_zero(x, axis);
  return concat({one_zero(x, axis), narrow(x, axis, 1, x.dim(axis) - 1)}, axis);
}

Tensor sums_behind(const Tensor& x, int axis) {
  if (x.dim(axis) == 1) return one_zero(x, axis);
  return concat({cumsum(narrow(x, axis, 1, x.dim(axis) - 1), axis, true), one_zero(x, axis)}, axis);
}

Tensor weighed(const Tensor& log_weight, const Tensor& x, int behind) {
  Shape s = log_weight.shape();
  for (int a = 0; a < behind; ++a) s.push_back(1);
  return reshape(exp(log_weight), s) * x;
}

inline Tensor structured_quadratic(const Tensor& c, const Tensor& b, const Tensor& x,
                                   const Tensor& log_decay) {
  return matmul(matmul(c, b, false, true) * causal_mask(log_decay), x);
}

inline Tensor structured_recurrent(const Tensor& c, const Tensor& b, const Tensor& x,
                                   const Tensor& log_decay) {
  const auto widened = [](Shape s, std::initializer_list<i64> more) {
    for (const i64 n : more) s.push_back(n);
    return s;
  };
  const i64 s = b.dim(-1), p = x.dim(-1);
  // (...,n)
  const Shape& tokens = log_decay.shape();
  const Tensor update =
      // b_t x_t^T (...,n,s,p)
      reshape(b, widened(tokens, {s, 1})) * reshape(x, widened(tokens, {1, p}));
  const Tensor state = decay_scan(update, reshape(log_decay, widened(tokens, {1, 1})),
                                  tokens.rank() - 1, ScanDirection::forward);
  // c_t^T h_t
  return reshape(matmul(reshape(c, widened(tokens, {1, s})), state), widened(tokens, {p}));
}

inline Tensor structured_chunked(const Tensor& c, const Tensor& b, const Tensor& x,
                                 const Tensor& log_decay, i64 chunk) {
  const int axis = log_decay.rank() - 1;
  const i64 n = log_decay.dim(axis);
  std::vector<Tensor> parts;
  Tensor state;  // (...,s,p)
  for (i64 first = 0; first < n; first += chunk) {
    const i64 q = std::min(chunk, n - first);
    const auto block = [&](const Tensor& t) { return narrow(t, axis, first, q); };
    const Tensor ci = block(c), bi = block(b), xi = block(x), log_a = block(log_decay);
    const Tensor cs = cumsum(log_a, axis), last = narrow(cs, axis, q - 1, 1);  // (...,Q), (...,1)
    Tensor y = structured_quadratic(ci, bi, xi, log_a);                        // (...,Q,p)
    if (state.defined()) y = y + weighed(cs, matmul(ci, state));
    parts.push_back(y);
    if (first + q == n) break;
    // (...,s,p)
    const Tensor update = matmul(bi, weighed(sums_behind(log_a, axis), xi), true, false);
    state = state.defined() ? weighed(last, state) + update : update;
  }
  return concat(parts, axis);
}

}  // namespace detail

Tensor structured_attention(const Tensor& c, const Tensor& b, const Tensor& x,
                            const Tensor& log_decay, LinearForm form, i64 chunk) {
  check(c.defined() && b.defined() && x.defined() && log_decay.defined(),
        "structured_attention: an argument is undefined");
  const auto tokens = [](const Tensor& t) {
    Shape s;
    for (int a = 0; a + 1 < t.rank(); ++a) s.push_back(t.dim(a));
    return s;
  };
  check(log_decay.rank() >= 1 && log_decay.numel() > 0,
        "structured_attention: log_decay must be (...,n), got ", log_decay.shape());
  check(
      c.rank() == log_decay.rank() + 1 && c.shape() == b.shape() && tokens(c) == log_decay.shape(),
      "structured_attention: c and b must both be (...,n,s) with log_decay (...,n), got ",
      c.shape(), ", ", b.shape(), " and ", log_decay.shape());
  check(x.rank() == c.rank() && tokens(x) == log_decay.shape(),
        "structured_attention: x must be (...,n,p) with log_decay (...,n), got ", x.shape(),
        " and ", log_decay.shape());
  check(chunk >= 1, "structured_attention: chunk must be at least 1, got ", chunk);
  switch (form) {
    case LinearForm::quadratic:
      return detail::structured_quadratic(c, b, x, log_decay);
    case LinearForm::scan:
      return detail::structured_recurrent(c, b, x, log_decay);
    case LinearForm::chunked:
      return detail::structured_chunked(c, b, x, log_decay, chunk);
  }
  fail("structured_attention: unknown form");
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
