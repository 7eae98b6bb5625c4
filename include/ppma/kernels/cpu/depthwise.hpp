#pragma once
#include "ppma/core/names_begin.hpp"
// Depthwise convolution, channels last, stride 1, "same" zero padding, odd k:
//
//   y[i, j, c] = bias[c] + add[i, j, c] + sum over ky, kx of x[i + ky - k/2, j + kx - k/2, c]
//   w[ky, kx, c]
//
// A register tile is P neighbouring pixels of one row x one vector of channels: each loaded input
// serves up to k of them. 3x3 and 5x5 have tiles of their own; other k take a plain loop. Channels
// are walked in blocks so narrow that k rows of a block stay in L1. Tiles that reach over the
// image's side check each column; the others do not.

#include <algorithm>
#include <limits>
#include <type_traits>

#include "ppma/core/buffer.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/columns.hpp"
#include "ppma/kernels/cpu/reduce.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Sizes of a depthwise convolution: images (B,H,W,C), kernel k x k.
struct DepthwiseShape {
  i64 batch, h, w, c, k;
};

/// Weights (C,1,k,k) as (k*k, C); `turned` by half a turn, as the gradient of the input needs them.
template <class T>
void depthwise_pack(Cpu, i64 c, i64 k, const T* w, bool turned, T* packed) {
  for (i64 t = 0; t < k * k; ++t)
    for (i64 i = 0; i < c; ++i) packed[t * c + i] = w[i * k * k + (turned ? k * k - 1 - t : t)];
}

namespace detail {

// One tile of pixels x0..x0+P of row y; all pointers are at the tile's first channel, `x`, `add`,
// `out` at the image.
template <class V, i64 K, i64 P, bool edge, class T>
PPMA_INLINE void depthwise_tile(const DepthwiseShape& s, i64 y, i64 x0, const T* x, const T* w,
                                const T* bias, const T* add, T* out) {
  constexpr i64 r = K / 2;
  const i64 at = (y * s.w + x0) * s.c;
  const V b = bias ? get<V>(bias) : V{};
  V acc[static_cast<std::size_t>(P)];
  PPMA_UNROLL
  for (i64 p = 0; p < P; ++p) acc[p] = add ? V(b + get<V>(add + at + p * s.c)) : b;
  const i64 ky0 = std::max<i64>(0, r - y), ky1 = std::min<i64>(K, s.h + r - y);
  for (i64 ky = ky0; ky < ky1; ++ky) {
    const T* const wk = w + ky * K * s.c;
    const T* const row = x + ((y + ky - r) * s.w + x0) * s.c;
    V weight[static_cast<std::size_t>(K)];
    PPMA_UNROLL
    for (i64 kx = 0; kx < K; ++kx) weight[kx] = get<V>(wk + kx * s.c);
    PPMA_UNROLL
    for (i64 j = -r; j < P + r; ++j) {
      if (edge && (x0 + j < 0 || x0 + j >= s.w)) continue;
      const V v = get<V>(row + j * s.c);
      PPMA_UNROLL
      for (i64 kx = 0; kx < K; ++kx)
        if (j + r - kx >= 0 && j + r - kx < P) acc[j + r - kx] += v * weight[kx];
    }
  }
  PPMA_UNROLL
  for (i64 p = 0; p < P; ++p) put(out + at + p * s.c, acc[p]);
}

// Gradient checks are what f64 is for: all its tiles check each column, so there is one of a kind.
template <class T>
inline constexpr bool always_edge = std::is_same_v<T, double>;

// One row of one vector of channels. The last tile moves back to end at the side: it computes some
// pixels twice.
template <class V, i64 K, i64 P, class T>
void depthwise_row(const DepthwiseShape& s, i64 y, const T* x, const T* w, const T* bias,
                   const T* add, T* out) {
  for (i64 j = 0; j < s.w; j += P) {
    const i64 x0 = std::min(j, s.w - P);
    if (always_edge<T> || x0 < K / 2 || x0 + P + K / 2 > s.w)
      depthwise_tile<V, K, P, true>(s, y, x0, x, w, bias, add, out);
    else
      depthwise_tile<V, K, P, always_edge<T>>(s, y, x0, x, w, bias, add, out);
  }
}

template <class T, i64 K, i64 P>
void depthwise_rows(const DepthwiseShape& s, i64 y0, i64 y1, const T* x, const T* w, const T* bias,
                    const T* add, T* out) {
  const auto row = [&](i64 y, i64 c, auto lane, auto pixels) {
    depthwise_row<decltype(lane), K, static_cast<i64>(pixels())>(
        s, y, x + c, w + c, bias ? bias + c : nullptr, add ? add + c : nullptr, out + c);
  };
  using One = std::integral_constant<i64, 1>;
  if (s.c < lanes<T>) {
    for (i64 y = y0; y < y1; ++y)
      for (i64 c = 0; c < s.c; ++c) row(y, c, T{}, One{});
    return;
  }
  const i64 fit = 24576 / (K * s.w * static_cast<i64>(sizeof(T))) / lanes<T> * lanes<T>;
  const i64 block = std::max(fit, lanes<T>);
  for (i64 c0 = 0; c0 < s.c; c0 += block)
    for (i64 y = y0; y < y1; ++y)
      for (i64 c = c0; c < std::min(c0 + block, s.c); c += lanes<T>)
        row(y, std::min(c, s.c - lanes<T>), Vec<T>{}, std::integral_constant<i64, P>{});
}

// Any odd k.
template <class T>
void depthwise_rows_any(const DepthwiseShape& s, i64 y0, i64 y1, const T* x, const T* w,
                        const T* bias, const T* add, T* out) {
  const i64 r = s.k / 2;
  for (i64 y = y0; y < y1; ++y)
    for (i64 j = 0; j < s.w; ++j)
      columns<T>(s.c, [&](i64 c, auto lane) {
        using V = decltype(lane);
        const i64 at = (y * s.w + j) * s.c + c;
        V acc = bias ? get<V>(bias + c) : V{};
        if (add) acc += get<V>(add + at);
        for (i64 ky = std::max<i64>(0, r - y); ky < std::min(s.k, s.h + r - y); ++ky)
          for (i64 kx = std::max<i64>(0, r - j); kx < std::min(s.k, s.w + r - j); ++kx)
            acc += get<V>(x + at + ((ky - r) * s.w + kx - r) * s.c) *
                   get<V>(w + (ky * s.k + kx) * s.c + c);
        put(out + at, acc);
      });
}

// Calls f(constant P) with the number of pixels a tile that wastes least on a row of w.
template <class T, class F>
void with_tile_width(i64 w, F&& f) {
  const auto cost = [w](i64 p) {
    return w < p ? std::numeric_limits<i64>::max() : (w + p - 1) / p * (p + 1);
  };
  if constexpr (std::is_same_v<T, float>) {
    if (cost(8) <= cost(7) && cost(8) <= cost(4) && w >= 8)
      return f(std::integral_constant<i64, 8>{});
    if (cost(7) <= cost(4) && w >= 7) return f(std::integral_constant<i64, 7>{});
  }
  if (w >= 4) return f(std::integral_constant<i64, 4>{});
  f(std::integral_constant<i64, 1>{});
}

// Gradients of weights and bias from P pixels of row y: acc[ky*K + kx] += x dy, acc[K*K] += dy.
// Pixels beyond the side count as dy = 0.
template <class V, i64 K, i64 P, bool edge, class T>
PPMA_INLINE void depthwise_dw_tile(const DepthwiseShape& s, i64 y, i64 x0, const T* x, const T* dy,
                                   V (&acc)[static_cast<std::size_t>(K * K + 1)]) {
  constexpr i64 r = K / 2;
  const T* const at = dy + (y * s.w + x0) * s.c;
  V g[static_cast<std::size_t>(P)];
  PPMA_UNROLL
  for (i64 p = 0; p < P; ++p) {
    g[p] = edge && x0 + p >= s.w ? V{} : get<V>(at + p * s.c);
    acc[K * K] += g[p];
  }
  PPMA_UNROLL
  for (i64 ky = 0; ky < K; ++ky) {
    if (y + ky - r < 0 || y + ky - r >= s.h) continue;
    const T* const row = x + ((y + ky - r) * s.w + x0) * s.c;
    PPMA_UNROLL
    for (i64 j = -r; j < P + r; ++j) {
      if (edge && (x0 + j < 0 || x0 + j >= s.w)) continue;
      const V v = get<V>(row + j * s.c);
      PPMA_UNROLL
      for (i64 kx = 0; kx < K; ++kx)
        if (j + r - kx >= 0 && j + r - kx < P) acc[ky * K + kx] += v * g[j + r - kx];
    }
  }
}

// sums (K*K + 1, C) += the gradients from row y of an image, any odd K.
template <class T>
void depthwise_dw_row_any(const DepthwiseShape& s, i64 y, i64 c0, i64 c1, const T* x, const T* dy,
                          T* sums) {
  const i64 r = s.k / 2;
  for (i64 j = 0; j < s.w; ++j)
    columns<T>(c1 - c0, [&](i64 offset, auto lane) {
      using V = decltype(lane);
      const i64 c = c0 + offset, at = (y * s.w + j) * s.c + c;
      const V g = get<V>(dy + at);
      const auto add = [&](i64 t, V v) {
        put(sums + t * s.c + c, V(get<V>(sums + t * s.c + c) + v));
      };
      add(s.k * s.k, g);
      for (i64 ky = std::max<i64>(0, r - y); ky < std::min(s.k, s.h + r - y); ++ky)
        for (i64 kx = std::max<i64>(0, r - j); kx < std::min(s.k, s.w + r - j); ++kx)
          add(ky * s.k + kx, V(g * get<V>(x + at + ((ky - r) * s.w + kx - r) * s.c)));
    });
}

// The same for K = 3 and 5, whole registers of channels by tiles.
template <class T, i64 K>
PPMA_ONCE void depthwise_dw_row(const DepthwiseShape& s, i64 y, i64 c0, i64 c1, const T* x,
                                const T* dy, T* sums) {
  constexpr i64 P = K == 3 ? 7 : 4;
  using V = Vec<T>;
  i64 c = c0;
  for (; c + lanes<T> <= c1; c += lanes<T>) {
    V acc[static_cast<std::size_t>(K * K + 1)] = {};
    for (i64 x0 = 0; x0 < s.w; x0 += P) {
      if (always_edge<T> || x0 < K / 2 || x0 + P + K / 2 > s.w)
        depthwise_dw_tile<V, K, P, true>(s, y, x0, x + c, dy + c, acc);
      else
        depthwise_dw_tile<V, K, P, always_edge<T>>(s, y, x0, x + c, dy + c, acc);
    }
    PPMA_UNROLL
    for (i64 t = 0; t < K * K + 1; ++t)
      put(sums + t * s.c + c, V(get<V>(sums + t * s.c + c) + acc[t]));
  }
  if (c < c1) depthwise_dw_row_any(s, y, c, c1, x, dy, sums);
}

// Calls f(image, y0, y1) for the rows begin..end of a batch, numbered through, at most `most` rows
// at once.
template <class F>
void image_rows(i64 h, i64 begin, i64 end, i64 most, F&& f) {
  for (i64 row = begin; row < end;) {
    const i64 y0 = row % h, y1 = std::min({h, y0 + most, y0 + end - row});
    f(row / h, y0, y1);
    row += y1 - y0;
  }
}

}  // namespace detail

/// y = depthwise convolution of x with weights w (C,1,k,k), `turned` by half a turn or not, + bias
/// (C) and add (B,H,W,C) where they are not null.
template <class T>
void depthwise(Cpu, const DepthwiseShape& s, const T* x, const T* w, bool turned, const T* bias,
               const T* add, T* y) {
  const Workspace<T> storage(s.c * s.k * s.k);
  T* const packed = storage.data();
  depthwise_pack(Cpu{}, s.c, s.k, w, turned, packed);
  const i64 image = s.h * s.w * s.c;
  parallel_for(
      s.batch * s.h, std::max<i64>(1, (i64{1} << 18) / std::max<i64>(1, s.w * s.c * s.k * s.k)),
      [&](i64 begin, i64 end) {
        detail::image_rows(s.h, begin, end, 16, [&](i64 b, i64 y0, i64 y1) {
          const auto run = [&](auto rows) {
            rows(s, y0, y1, x + b * image, packed, bias, add ? add + b * image : nullptr,
                 y + b * image);
          };
          if (s.k == 3)
            detail::with_tile_width<T>(
                s.w, [&](auto p) { run(detail::depthwise_rows<T, 3, static_cast<i64>(p())>); });
          else if (s.k == 5)
            detail::with_tile_width<T>(
                s.w, [&](auto p) { run(detail::depthwise_rows<T, 5, static_cast<i64>(p())>); });
          else
            run(detail::depthwise_rows_any<T>);
        });
      });
}

/// dw (C,1,k,k) and db (C, or null) from x and dy, by partial sums over at most 32 fixed groups of
/// rows.
template <class T>
void depthwise_dw(Cpu, const DepthwiseShape& s, const T* x, const T* dy, T* dw, T* db) {
  const i64 rows = s.batch * s.h, image = s.h * s.w * s.c, taps = s.k * s.k;
  const i64 parts = std::clamp<i64>(rows / 4, 1, 32), size = (taps + 1) * s.c;
  const Workspace<T> partial((parts + 1) * size);
  T* const p = partial.data();
  const i64 fit = 24576 / ((s.k + 1) * s.w * static_cast<i64>(sizeof(T))) / lanes<T> * lanes<T>;
  const i64 block = std::max(fit, lanes<T>);
  parallel_for(
      parts, std::max<i64>(1, (i64{1} << 18) * parts / std::max<i64>(1, rows * s.w * s.c * taps)),
      [&](i64 begin, i64 end) {
        for (i64 part = begin; part < end; ++part) {
          T* const sums = p + part * size;
          std::fill_n(sums, size, T(0));
          detail::image_rows(s.h, rows * part / parts, rows * (part + 1) / parts, 16,
                             [&](i64 b, i64 y0, i64 y1) {
                               const T *const xb = x + b * image, *const gb = dy + b * image;
                               for (i64 c = 0; c < s.c; c += block)
                                 for (i64 y = y0; y < y1; ++y) {
                                   const i64 end_c = std::min(s.c, c + block);
                                   if (s.k == 3)
                                     detail::depthwise_dw_row<T, 3>(s, y, c, end_c, xb, gb, sums);
                                   else if (s.k == 5)
                                     detail::depthwise_dw_row<T, 5>(s, y, c, end_c, xb, gb, sums);
                                   else
                                     detail::depthwise_dw_row_any(s, y, c, end_c, xb, gb, sums);
                                 }
                             });
        }
      });
  T* const total = p + parts * size;
  sum_rows(Cpu{}, parts, size, p, total);
  for (i64 c = 0; c < s.c; ++c)
    for (i64 t = 0; t < taps; ++t) dw[c * taps + t] = total[t * s.c + c];
  if (db) std::copy_n(total + taps * s.c, s.c, db);
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/depthwise.cuh"
#endif

#include "ppma/core/names_end.hpp"
