#pragma once
#include "ppma/core/names_begin.hpp"
// The CPU kernel of PPMLA by scans (algorithm 2.3, Theorem 3): y = ((Q K^T) * L) V, L the V2H or
// H2V mask, in time and memory linear in the number of tokens. Legend: H W grid, n = H W tokens, d
// head width.
//
// The mask is applied to the matrices T_u = k_u v_u^T (d x d a token) by column and row scans, and
// y_u = q_u^T (L T)_u.
// No T is stored for all tokens: the rows of the grid are visited downwards, then upwards, with one
// state F_l a column.
//
//   V2H, L = L_H L_V                                       H2V, L^T = L_V L_H
//                                                          z = row scan of T_i
//   down  F_l = beta_i F_l + T_il;  X_l = F_l              F_l = beta_i F_l + z_l;
//                                                          state_l = F_l
//   up    X_l = beta_{i+1} F_l;  F_l = X_l + T_il          state_l = beta_{i+1} F_l;
//                                                          F_l = state_l + z_l
//         state = row scan of X
//         y_il += q_il^T state_l                           y_il += q_il^T state_l
//
// A row scan is f_t = x_t + alpha_t f_{t-1} to the right plus alpha_{t+1} (what came from the
// right) to the left.
// Entries (a, c) of T never meet, except in y = sum over a. So T is cut into blocks of `group` rows
// a by one vector of columns c, and each block makes its way over the whole grid alone, with its
// running sums in registers.

#include <algorithm>

#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/head.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH::linear_scan {

// Rows of T in a block, at most a vector's lanes: with more the running sums would not fit the
// registers.
template <class T>
inline constexpr i64 group = std::min<i64>(lanes<T>, PPMA_SIMD_BYTES == 64 ? 8 : 4);

// One head. Tokens' vectors are cut into pieces of one register, (dp / lanes, n, lanes): a block
// reads along the tokens. Decays have a row and a column of zeros behind the grid.
template <class T>
struct Head {
  i64 height, width, dp;
  const T *alpha, *beta;  // (H+1, W+1)
  // Where component c of the tokens of row i begins; the next token is `lanes` away.
  i64 at(i64 i, i64 c) const {
    return (c / lanes<T> * height + i) * width * lanes<T> + c % lanes<T>;
  }
  const T* alphas(i64 i) const { return alpha + i * (width + 1); }
  // Decay of column l on the way into row i from the row visited before.
  const T* betas(i64 i, bool down) const { return beta + (down ? i : i + 1) * (width + 1); }
};

// Decays of one head, (H+1, W+1): those that belong to no edge are 0, so that nothing enters a line
// from outside.
template <class T>
void edge_decays(i64 height, i64 width, const T* log_decay, bool horizontal, T* decay) {
  std::fill_n(decay, (height + 1) * (width + 1), T(0));
  for (i64 i = horizontal ? 0 : 1; i < height; ++i)
    for (i64 j = horizontal ? 1 : 0; j < width; ++j)
      decay[i * (width + 1) + j] = exp_of(log_decay[i * width + j]);
}

// A block of T in registers, and blocks in memory: `size` numbers each.
template <class T>
inline constexpr i64 size = group<T>* lanes<T>;

template <class T>
struct Block {
  Vec<T> a[static_cast<std::size_t>(group<T>)] = {};
};
template <class T>
PPMA_INLINE Block<T> read(const T* p) {
  Block<T> b;
  PPMA_UNROLL
  for (i64 a = 0; a < group<T>; ++a) b.a[a] = load(p + a * lanes<T>);
  return b;
}
template <class T>
PPMA_INLINE void write(T* p, const Block<T>& b) {
  PPMA_UNROLL
  for (i64 a = 0; a < group<T>; ++a) store<T>(p + a * lanes<T>, b.a[a]);
}
// s v^T
template <class T>
PPMA_INLINE Block<T> outer(const T* s, Vec<T> v) {
  Block<T> b;
  PPMA_UNROLL
  for (i64 a = 0; a < group<T>; ++a) b.a[a] = s[a] * v;
  return b;
}
// x + decay * y
template <class T>
PPMA_INLINE Block<T> plus(const Block<T>& x, T decay, const Block<T>& y) {
  Block<T> b;
  PPMA_UNROLL
  for (i64 a = 0; a < group<T>; ++a) b.a[a] = x.a[a] + decay * y.a[a];
  return b;
}
template <class T>
PPMA_INLINE Block<T> scaled(T decay, const Block<T>& x) {
  Block<T> b;
  PPMA_UNROLL
  for (i64 a = 0; a < group<T>; ++a) b.a[a] = decay * x.a[a];
  return b;
}
// s^T b
template <class T>
PPMA_INLINE Vec<T> times(const T* s, const Block<T>& b) {
  Vec<T> v{};
  PPMA_UNROLL
  for (i64 a = 0; a < group<T>; ++a) v += s[a] * b.a[a];
  return v;
}
// sum over lanes is left to the caller
template <class T>
PPMA_INLINE Vec<T> dot(const Block<T>& x, const Block<T>& y) {
  Vec<T> v{};
  PPMA_UNROLL
  for (i64 a = 0; a < group<T>; ++a) v += x.a[a] * y.a[a];
  return v;
}

// Calls f(first row, first column) for every block of T; for_sweeps then walks the grid's rows down
// and up.
template <class T, class F>
void for_blocks(const Head<T>& x, F f) {
  for (i64 c = 0; c < x.dp; c += lanes<T>)
    for (i64 a = 0; a < x.dp; a += group<T>) f(a, c);
}
template <class T, class F>
void for_sweeps(const Head<T>& x, F row) {
  for (const bool down : {true, false})
    for (i64 r = 0; r < x.height; ++r) row(down ? r : x.height - 1 - r, down, r == 0);
}

/// y (n,d) += ((q k^T) * L) v for one head; q, k, v, y laid out as Head says.
template <class T>
void forward_v2h(const Head<T>& x, const T* q, const T* k, const T* v, T* y) {
  const i64 w = x.width;
  const Workspace<T> room(w * size<T>);
  T* const f = room.data();  // between the two passes over a row it holds X
  for_blocks(x, [&](i64 a, i64 c) {
    for_sweeps(x, [&](i64 i, bool down, bool first) {
      if (first) std::fill_n(f, w * size<T>, T(0));
      const T *const alpha = x.alphas(i), *const beta = x.betas(i, down);
      const T *const qi = q + x.at(i, a), *const ki = k + x.at(i, a), *const vi = v + x.at(i, c);
      T* const yi = y + x.at(i, c);
      const auto own = [&](i64 l) { return outer(ki + l * lanes<T>, load(vi + l * lanes<T>)); };
      const auto answer = [&](i64 l, const Block<T>& state) {
        store<T>(yi + l * lanes<T>, load(yi + l * lanes<T>) + times(qi + l * lanes<T>, state));
      };
      Block<T> right;
      for (i64 l = 0; l < w; ++l) {
        const Block<T> strictly = scaled(beta[l], read(f + l * size<T>));
        const Block<T> in = down ? plus(strictly, T(1), own(l)) : strictly;
        right = plus(in, alpha[l], right);
        write(f + l * size<T>, in);
        answer(l, right);
      }
      Block<T> left;  // X_{l+1} and what came to it from the right
      for (i64 l = w - 1; l >= 0; --l) {
        const Block<T> from_right = scaled(alpha[l + 1], left), in = read(f + l * size<T>);
        left = plus(in, T(1), from_right);
        if (!down) write(f + l * size<T>, plus(in, T(1), own(l)));
        answer(l, from_right);
      }
    });
  });
}

/// y (n,d) += ((q k^T) * L^T) v for one head.
template <class T>
void forward_h2v(const Head<T>& x, const T* q, const T* k, const T* v, T* y) {
  const i64 w = x.width;
  const Workspace<T> room(2 * w * size<T>);
  T *const f = room.data(), *const z = room.data() + w * size<T>;
  for_blocks(x, [&](i64 a, i64 c) {
    for_sweeps(x, [&](i64 i, bool down, bool first) {
      if (first) std::fill_n(f, w * size<T>, T(0));
      const T *const alpha = x.alphas(i), *const beta = x.betas(i, down);
      const T *const qi = q + x.at(i, a), *const ki = k + x.at(i, a), *const vi = v + x.at(i, c);
      T* const yi = y + x.at(i, c);
      Block<T> right;
      for (i64 l = 0; l < w; ++l) {
        right = plus(outer(ki + l * lanes<T>, load(vi + l * lanes<T>)), alpha[l], right);
        write(z + l * size<T>, right);
      }
      Block<T> left;
      for (i64 l = w - 1; l >= 0; --l) {
        const Block<T> from_right = scaled(alpha[l + 1], left);
        left = plus(outer(ki + l * lanes<T>, load(vi + l * lanes<T>)), T(1), from_right);
        const Block<T> row = plus(read(z + l * size<T>), T(1), from_right),
                       old = read(f + l * size<T>);
        const Block<T> now = plus(row, beta[l], old);
        write(f + l * size<T>, now);
        store<T>(
            yi + l * lanes<T>,
            load(yi + l * lanes<T>) + times(qi + l * lanes<T>, down ? now : scaled(beta[l], old)));
      }
    });
  });
}

/// Gradients of the decays of forward_v2h for the upstream gradient dy (n,d): dlog_alpha (n) += d
/// ln alpha, and dc (n) += the gradient of the running sums of ln beta down each column.
///
/// R_u = q_u dy_u^T is the gradient of (L T)_u, dX = row scan of R that of X. In a row (algorithm
/// 1.6), with f, g the scans of X to the right and to the left and s, p those of R:
///   d ln alpha_t = alpha_t ( <p_t, f_{t-1}> + <s_{t-1}, g_t> )
/// Along a column, dc_i is the sum of the gradients of log L over all paths with an end in row i, +
/// where the path goes on upwards from there, - where it goes on downwards. The ends are corners,
/// <dX, X without T_i>, and keys, <T_i, P>:
/// P_l collects the dX of the rows visited before, as F_l collects their T.
template <class T>
void decay_gradients_v2h(const Head<T>& x, const T* q, const T* k, const T* v, const T* dy,
                         T* dlog_alpha, T* dc) {
  const i64 w = x.width;
  const Workspace<T> room(5 * w * size<T>);
  T *const states = room.data(), *const others = states + w * size<T>;  // F and P
  T *const before = others + w * size<T>, *const fs = before + w * size<T>,
           *const ss = fs + w * size<T>;
  for_blocks(x, [&](i64 a, i64 c) {
    for_sweeps(x, [&](i64 i, bool down, bool first) {
      if (first) std::fill_n(states, 2 * w * size<T>, T(0));
      const T *const alpha = x.alphas(i), *const beta = x.betas(i, down);
      const T *const qi = q + x.at(i, a), *const ki = k + x.at(i, a);
      const T *const vi = v + x.at(i, c), *const dyi = dy + x.at(i, c);
      const T sign = down ? T(1) : T(-1);
      Block<T> f, s;
      for (i64 l = 0; l < w; ++l) {
        const Block<T> old = scaled(beta[l], read(states + l * size<T>));
        const Block<T> now = plus(old, T(1), outer(ki + l * lanes<T>, load(vi + l * lanes<T>)));
        f = plus(down ? now : old, alpha[l], f);
        s = plus(outer(qi + l * lanes<T>, load(dyi + l * lanes<T>)), alpha[l], s);
        write(states + l * size<T>, now);
        write(before + l * size<T>, old);
        write(fs + l * size<T>, f);
        write(ss + l * size<T>, s);
      }
      Block<T> g, p;
      for (i64 l = w - 1; l >= 0; --l) {
        const Block<T> r = outer(qi + l * lanes<T>, load(dyi + l * lanes<T>)),
                       old = read(before + l * size<T>);
        const Block<T> from_right = scaled(alpha[l + 1], p);
        g = plus(down ? read(states + l * size<T>) : old, alpha[l + 1], g);
        p = plus(r, T(1), from_right);
        if (l > 0)
          dlog_alpha[i * w + l] += alpha[l] * lane_sum<T>(dot(p, read(fs + (l - 1) * size<T>)) +
                                                          dot(g, read(ss + (l - 1) * size<T>)));
        const Block<T> dx = plus(read(ss + l * size<T>), T(1), from_right);
        const Block<T> far = scaled(beta[l], read(others + l * size<T>));
        const Block<T> t = outer(ki + l * lanes<T>, load(vi + l * lanes<T>));
        dc[i * w + l] += sign * lane_sum<T>(dot(dx, old) + dot(t, far));
        write(others + l * size<T>, plus(far, T(1), dx));
      }
    });
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH::linear_scan

#include "ppma/core/names_end.hpp"
