#pragma once
#include "ppma/core/names_begin.hpp"
// Log decays of tokens in one pass, and their gradients; formulas: polyline/decay.hpp.

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/core/float_bits.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/functions.hpp"
#include "ppma/kernels/cpu/softmax.hpp"
#include "ppma/kernels/cpu/transpose.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

// Whether A and 1 / A are in the range of T (or NaN). Where one is not, the formulas above meet 0
// times infinity.
template <class T>
PPMA_HD PPMA_INLINE bool ordinary_decay(T a) {
  return !is_inf(a) && !is_inf(T(1) / a);
}
// (4) for any A = e^a_log, with t = z + b and s = softplus(t).
template <class T>
PPMA_HD PPMA_INLINE T any_log_decay(T a_log, T a, T t, T s) {
  // s = e^t to the last digit from here down
  constexpr T deep = std::is_same_v<T, float> ? -16 : -37;
  if (is_nan(t) || is_nan(a)) return t + a;
  if (is_inf(a)) return t < deep ? -std::exp(a_log + t) : negative_infinity<T>();
  return a > 0 || !is_inf(s) ? -a * s : T(0);
}
// dz for an A that is not ordinary, from y = ln decay and u: A sigmoid(t) = A s = -y where A is so
// large that s is small or y infinite, and 0 where A is so small.
template <class T>
PPMA_HD PPMA_INLINE T extreme_slope(T a, T y, T u) {
  return is_inf(a) && u != 0 ? y * u : T(0);
}
// A term of dA_log.
template <class T>
PPMA_HD PPMA_INLINE T decay_term(T y, T u) {
  return u == 0 && is_inf(y) ? T(0) : u * y;
}

// z (rows, heads, block) of `count` tokens at x, (1) and the "+ b" of (2). A lane is a token: a
// square of tokens by channels is turned in registers, so that the sum over channels needs no sums
// across lanes.
template <class T>
void decay_scores(const DecayShape& s, i64 count, const T* x, const T* w, const T* b, T* z) {
  constexpr i64 square = lanes<T>;
  static_assert(DecayShape::block % square == 0);
  for (i64 g = 0; g < s.heads; ++g)
    for (i64 t = 0; t < count; t += square) {
      Vec<T> z0 = splat(b[g]), z1 = z0;
      const i64 tokens = std::min(square, count - t);
      for (i64 c = 0; c < s.width; c += square) {
        const T* const from = x + t * s.channels() + g * s.width + c;
        const i64 n = std::min(square, s.width - c);
        Vec<T> row[static_cast<std::size_t>(square)];
        PPMA_UNROLL
        for (i64 i = 0; i < square; ++i)
          row[i] = i >= tokens   ? Vec<T>{}
                   : n == square ? load(from + i * s.channels())
                                 : load_some(from + i * s.channels(), n);
        kernels::transpose_block<T>(row);
        const T *w0 = w + c, *w1 = w + (s.rows - 1) * s.width + c;
        PPMA_UNROLL
        for (i64 i = 0; i < square; ++i)
          if (i < n) z0 += w0[i] * row[i], z1 += w1[i] * row[i];
      }
      store(z + g * s.block + t, z0);
      if (s.rows == 2) store(z + (s.heads + g) * s.block + t, z1);
    }
}

// sigmoid(t) from s = softplus(t): 1 - e^-s; a series where s is so small that the difference would
// cancel.
template <class T>
PPMA_INLINE Vec<T> sigmoid_from_softplus(Vec<T> s) {
  // the next one is below the last digit for s < 1/4
  constexpr i64 terms = std::is_same_v<T, float> ? 6 : 12;
  Vec<T> series{};
  // s - s^2/2 + s^3/6 - ...
  for (i64 k = terms; k > 0; --k) series = (T(1) - series) * s * (T(1) / static_cast<T>(k));
  const Vec<T> difference = T(1) - exp_of(-s);
  return s < T(0.25) ? series : difference;
}

// Steps (1) of backward for one vector of channels of one head: dx, and the sums for dw in
// registers.
template <class T, bool two>
void decay_channels(i64 count, i64 stride, i64 n, const T* dz0, const T* dz1, const T* x,
                    const T* w0, const T* w1, T* dx, T* dw0, T* dw1) {
  const auto read = [n](const T* p) { return n == lanes<T> ? load(p) : load_some(p, n); };
  const auto write = [n](T* p, Vec<T> v) {
    n == lanes<T> ? store<T>(p, v) : store_some<T>(p, v, n);
  };
  const Vec<T> weight0 = read(w0), weight1 = two ? read(w1) : Vec<T>{};
  Vec<T> sum0{}, sum1{};
  for (i64 t = 0; t < count; ++t) {
    const Vec<T> v = read(x + t * stride);
    Vec<T> g = dz0[t] * weight0;
    sum0 += dz0[t] * v;
    if constexpr (two) {
      g += dz1[t] * weight1;
      sum1 += dz1[t] * v;
    }
    write(dx + t * stride, g);
  }
  write(dw0, read(dw0) + sum0);
  if constexpr (two) write(dw1, read(dw1) + sum1);
}

}  // namespace detail

/// y (rows,B,G,N) = log decays of x (B,N,C).
template <class T>
void log_decay(Cpu, const DecayShape& s, const T* x, const T* w, const T* b, const T* a_log, T* y) {
  parallel_for(s.batch * s.blocks(), 4, [=](i64 begin, i64 end) {
    const Workspace<T> scores(s.rows * s.heads * s.block);
    T* const z = scores.data();
    for (i64 unit = begin; unit < end; ++unit) {
      const i64 image = unit / s.blocks(), first = unit % s.blocks() * s.block,
                count = std::min(s.block, s.tokens - first);
      detail::decay_scores(s, count, x + (image * s.tokens + first) * s.channels(), w, b, z);
      for (i64 r = 0; r < s.rows; ++r)
        for (i64 g = 0; g < s.heads; ++g) {
          const T a = std::exp(a_log[g]);
          const T* const t = z + (r * s.heads + g) * s.block;
          T* const to = y + ((r * s.batch + image) * s.heads + g) * s.tokens + first;
          if (detail::ordinary_decay(a))
            row_map(count, t, to, [a](Vec<T> v) { return softplus_of(v) * -a; });
          else
            for (i64 i = 0; i < count; ++i)
              to[i] = detail::any_log_decay(a_log[g], a, t[i], softplus_of(t[i]));
        }
    }
  });
}

/// Gradients from dy (rows,B,G,N) and y. Sums over tokens go block by block, so they do not depend
/// on the threads.
template <class T>
void log_decay_backward(Cpu on, const DecayShape& s, const T* x, const T* w, const T* a_log,
                        const T* y, const T* dy, T* dx, T* dw, T* db, T* da_log) {
  const i64 sums = s.rows * s.width + 2 * s.heads;  // of one block: dw (rows,d), db (G), dA_log (G)
  const Workspace<T> partial(s.batch * s.blocks() * sums);
  parallel_for(s.batch * s.blocks(), 4, [=, all = partial.data()](i64 begin, i64 end) {
    const Workspace<T> scores(s.rows * s.heads * s.block);
    T* const z = scores.data();
    for (i64 unit = begin; unit < end; ++unit) {
      const i64 image = unit / s.blocks(), first = unit % s.blocks() * s.block,
                count = std::min(s.block, s.tokens - first);
      const i64 at = (image * s.tokens + first) * s.channels();
      T* const sum = all + unit * sums;
      std::fill_n(sum, sums, T(0));
      for (i64 r = 0; r < s.rows; ++r)
        for (i64 g = 0; g < s.heads; ++g) {
          const T a = std::exp(a_log[g]), softplus_of_log = T(-1) / a;
          const i64 line = ((r * s.batch + image) * s.heads + g) * s.tokens + first;
          T* const dz = z + (r * s.heads + g) * s.block;
          // ln decay = -A softplus(z + b):  dz = -A sigmoid(z + b) u,  dA_log = sum u ln decay
          if (detail::ordinary_decay(a))
            row_map(count, y + line, dy + line, dz, [=](Vec<T> v, Vec<T> u) {
              return detail::sigmoid_from_softplus<T>(v * softplus_of_log) * u * -a;
            });
          else
            for (i64 i = 0; i < count; ++i)
              dz[i] = detail::extreme_slope(a, y[line + i], dy[line + i]);
          sum[s.rows * s.width + g] += sum_contiguous(dz, count);
          T da = row_dot(count, dy + line, y + line);
          if (is_nan(da)) {  // perhaps of closed edges
            da = 0;
            for (i64 i = 0; i < count; ++i) da += detail::decay_term(y[line + i], dy[line + i]);
          }
          sum[s.rows * s.width + s.heads + g] += da;
        }
      // z[r] = w[r] . x_head:  dx_head = sum_r dz[r] w[r],  dw[r] = sum dz[r] x_head
      for (i64 g = 0; g < s.heads; ++g)
        for (i64 c = 0; c < s.width; c += lanes<T>) {
          const i64 n = std::min(lanes<T>, s.width - c), here = at + g * s.width + c;
          const T *dz0 = z + g * s.block, *dz1 = z + (s.heads + g) * s.block;
          if (s.rows == 2)
            detail::decay_channels<T, true>(count, s.channels(), n, dz0, dz1, x + here, w + c,
                                            w + s.width + c, dx + here, sum + c, sum + s.width + c);
          else
            detail::decay_channels<T, false>(count, s.channels(), n, dz0, dz0, x + here, w + c,
                                             w + c, dx + here, sum + c, sum + c);
        }
    }
  });
  const Workspace<T> total(sums);
  sum_rows(on, s.batch * s.blocks(), sums, partial.data(), total.data());
  std::copy_n(total.data(), s.rows * s.width, dw);
  std::copy_n(total.data() + s.rows * s.width, s.heads, db);
  std::copy_n(total.data() + s.rows * s.width + s.heads, s.heads, da_log);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/decay_backward.cuh"
#endif

#include "ppma/core/names_end.hpp"
