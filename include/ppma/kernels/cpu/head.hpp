#pragma once
#include "ppma/core/names_begin.hpp"
// One attention head copied out of a (B,H,W,C) tensor, for the fused attentions: the layouts that
// their small products need. Legend: n tokens of the head (all of them, a row or a column), d head
// width, w lanes of a vector.

#include <algorithm>
#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/core/config.hpp"
#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cpu/simd.hpp"
#include "ppma/kernels/cpu/transpose.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

template <class T>
constexpr i64 round_to_lanes(i64 n) {
  return (n + lanes<T> - 1) / lanes<T> * lanes<T>;
}

/// Distance between the rows of a transposed head (d, n): whole vector pairs, and an odd number of
/// vectors, since rows at a multiple of 4 KiB would fall into the same few sets of the cache.
template <class T>
constexpr i64 transposed_stride(i64 n) {
  return (n + 2 * lanes<T> - 1) / (2 * lanes<T>)*(2 * lanes<T>)+lanes<T>;
}

/// to (d, n; rows `ld` apart) = transpose of from (n, d; rows `stride` apart).
template <class T>
void copy_transposed(i64 n, i64 d, const T* from, i64 stride, T* to, i64 ld) {
  constexpr i64 w = lanes<T>;
  const i64 tokens = n / w * w, channels = d / w * w;  // in whole blocks
  for (i64 t = 0; t < tokens; t += w)
    for (i64 c = 0; c < channels; c += w) {
      Vec<T> block[static_cast<std::size_t>(w)];
      for (i64 i = 0; i < w; ++i) block[i] = load(from + (t + i) * stride + c);
      transpose_block<T>(block);
      for (i64 i = 0; i < w; ++i) store(to + (c + i) * ld + t, block[i]);
    }
  for (i64 t = 0; t < n; ++t)
    for (i64 c = t < tokens ? channels : 0; c < d; ++c) to[c * ld + t] = from[t * stride + c];
}

/// to (n, d; rows d rounded to lanes apart, padding 0) = from (n, d; rows `stride` apart).
template <class T>
void copy_padded(i64 n, i64 d, const T* from, i64 stride, T* to) {
  const i64 ld = round_to_lanes<T>(d);
  for (i64 t = 0; t < n; ++t) {
    std::copy_n(from + t * stride, d, to + t * ld);
    std::fill_n(to + t * ld + d, ld - d, T(0));
  }
}

/// A sum of exponentials below this one has lost digits: its softmax is done again.
template <class T>
inline constexpr T smallest_sum = std::is_same_v<T, float> ? T(1e-30) : T(1e-280);

/// A zeroed workspace, so that padding that is read but never used holds finite numbers.
template <class T>
class ZeroedWorkspace : public Workspace<T> {
 public:
  PPMA_ONCE explicit ZeroedWorkspace(i64 n) : Workspace<T>(n) {
    std::fill_n(this->data(), n, T(0));
  }
};

/// Sends the gradients t[l] of the log masks -|c[j] - c[l]|, l < n, to the ends of each difference;
/// c are the running sums of the log decays. c falls along its line, so the term is c[j] - c[l] for
/// l < j and c[l] - c[j] for l > j. t and dc must be readable to a whole number of vectors.
template <class T>
void scatter_line(i64 n, i64 j, const T* t, T* dc) {
  constexpr i64 w = lanes<T>;
  Vec<T> total{};
  for (i64 l = 0; l < n; l += w) {
    const Vec<T> x = keep_first<T>(load(t + l), n - l), before = keep_first<T>(x, j - l),
                 up_to = keep_first<T>(x, j + 1 - l);
    const Vec<T> signed_x = x - up_to - before;  // -x before j, 0 at j, +x behind
    store(dc + l, load(dc + l) + signed_x);
    total += signed_x;
  }
  dc[j] -= lane_sum<T>(total);
}

/// The same of a line whose tokens are visited in another order than they lie: `ranks` says when
/// each is, and is readable to a whole number of vectors.
template <class T>
void scatter_line(i64 n, i64 j, const T* ranks, const T* t, T* dc) {
  constexpr i64 w = lanes<T>;
  const Vec<T> here = splat(ranks[j]);
  Vec<T> total{};
  for (i64 l = 0; l < n; l += w) {
    const Vec<T> x = keep_first<T>(load(t + l), n - l), rank = load(ranks + l),
                 signed_x = rank > here   ? x
                            : rank < here ? -x
                                          : Vec<T>{};
    store(dc + l, load(dc + l) + signed_x);
    total += signed_x;
  }
  dc[j] -= lane_sum<T>(total);
}

/// v with 0 in its first n lanes.
template <class T>
PPMA_INLINE Vec<T> drop_first(Vec<T> v, i64 n) {
  VecBits<T> lane;
  using Lane = std::remove_reference_t<decltype(lane[0])>;
  PPMA_UNROLL
  for (i64 i = 0; i < lanes<T>; ++i) lane[i] = static_cast<Lane>(i);
  return lane < static_cast<Lane>(n) ? Vec<T>{} : v;
}

/// Calls f(t, log mask between `from` and t) for the n tokens of a line, whose log decays are
/// `step` apart: first `from` itself with 0, then walking away from it. Sums only grow, so that no
/// closed edge (-1e9, -infinity) takes away what lies behind it, as the difference of two running
/// sums would. The first log decay of the line is not read.
template <class T, class F>
void outward(i64 n, i64 from, const T* log_decay, i64 step, F f) {
  f(from, T(0));
  T sum = 0;
  for (i64 t = from + 1; t < n; ++t) f(t, sum += log_decay[t * step]);
  sum = 0;
  for (i64 t = from; t > 0; --t) f(t - 1, sum += log_decay[t * step]);
}

/// Whether nothing at all passes an edge: its gradient is then exactly 0, also where rounding left
/// something.
template <class T>
PPMA_HD PPMA_INLINE bool is_closed(T log_decay) {
  return log_decay <= T(-1e30);
}

/// From the gradient dc of running sums to that of the log decays that were summed: a reverse
/// running sum along each of `lines` lines of n elements `step` apart. The first element of a line
/// belongs to no edge: exactly 0, as is the gradient of a closed edge.
template <class T>
void sums_to_decays(i64 line_count, i64 n, i64 line_step, i64 step, const T* log_decay, const T* dc,
                    T* dlog) {
  for (i64 line = 0; line < line_count; ++line) {
    T sum = 0;
    for (i64 t = n - 1; t > 0; --t) {
      const i64 at = line * line_step + t * step;
      sum += dc[at];
      dlog[at] = is_closed(log_decay[at]) ? T(0) : sum;
    }
    dlog[line * line_step] = T(0);
  }
}

/// The same of one line of n elements that are visited in `order` (null: as they lie); log_decay,
/// dc and dlog by place.
template <class T>
void line_sums_to_decays(i64 n, i64 step, const i64* order, const T* log_decay, const T* dc,
                         T* dlog) {
  T sum = 0;
  for (i64 t = n - 1; t >= 0; --t) {
    const i64 place = order != nullptr ? order[t] : t;
    sum += dc[place];
    dlog[place * step] = t == 0 || is_closed(log_decay[place * step]) ? T(0) : sum;
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
