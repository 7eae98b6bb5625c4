#pragma once
#include "ppma/core/names_begin.hpp"
// Convolution of channels-last images as matrix products that never hold an im2col.
//
// In the (H,W,C) layout the inputs of one output pixel and one kernel row, kw pixels of C channels,
// lie in one piece, and those of the next output pixel start stride*C further on: they are already
// a matrix with overlapping rows. So a register tile of output pixels x output channels walks along
// one such piece per kernel row, over a copy of a few image rows with their zero padding (it stays
// in L2), with weights packed as (panel, tap, C, panel width).
//
// Most 3 x 3 convolutions of stride 1 need fewer multiplications (winograd.hpp), and for weights in
// bf16 there may be AMX (conv_strips.hpp): convolve() hands these on.
//
// The gradient of the input is the same operation on dy, once for each remainder of the pixel's
// position by the stride (each sees a fixed subset of the taps). Legend: B batch, H W input, OH OW
// output, CI CO channels, g groups.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "ppma/core/buffer.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/conv_map.hpp"
#include "ppma/kernels/cpu/conv_strips.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/kernels/cpu/winograd.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

namespace detail {

// Pixels of a register tile: a count that the usual widths 7, 14, 28, 56, 112 are multiples of,
// where registers allow.
inline constexpr i64 pixel_tile = PPMA_SIMD_BYTES == 64 ? 14 : 6;

// Calls f(first, size constant) for tiles that cover [0, n).
template <class F>
PPMA_INLINE void pixel_tiles(i64 n, F&& f) {
  i64 i = 0;
  const auto step = [&](auto size) { f(i, size), i += static_cast<i64>(size()); };
  if constexpr (pixel_tile == 14) {
    while (n - i >= 14 && n - i != 16) step(std::integral_constant<std::size_t, 14>{});
    while (n - i >= 8) step(std::integral_constant<std::size_t, 8>{});
    if (n - i == 7) step(std::integral_constant<std::size_t, 7>{});
  } else {
    while (n - i >= 6) step(std::integral_constant<std::size_t, 6>{});
  }
  if (n - i >= 4) step(std::integral_constant<std::size_t, 4>{});
  if (n - i >= 2) step(std::integral_constant<std::size_t, 2>{});
  if (n - i >= 1) step(std::integral_constant<std::size_t, 1>{});
}

// The taps of a pixel, cut into pieces whose inputs are contiguous: whole kernel rows, or single
// taps where a group is only a part of the channels.
struct Pieces {
  i64 count, length, per_row;  // pieces, elements a piece, pieces a kernel row
};
inline Pieces pieces_of(const ConvMap& m) {
  if (m.groups == 1) return {m.th, m.tw * m.ci, 1};
  return {m.th * m.tw, m.ci / m.groups, m.tw};
}

// A few input rows as the taps see them: `data` is the input itself where no tap falls outside,
// else a padded copy.
template <class T>
struct Band {
  const T* data;
  i64 row;  // elements a row
};
inline i64 band_cols(const ConvMap& m) { return (m.ow - 1) * m.stride + m.tw; }
inline i64 band_rows(const ConvMap& m, i64 out_rows) { return (out_rows - 1) * m.stride + m.th; }
inline bool inside(const ConvMap& m) {
  return m.y0 >= 0 && m.x0 >= 0 && m.y0 + band_rows(m, m.oh) <= m.h && m.x0 + band_cols(m) <= m.w;
}
template <class T>
Band<T> band_of(const ConvMap& m, const T* image, i64 oy, i64 out_rows, T* scratch) {
  const i64 first = oy * m.stride + m.y0;
  if (inside(m)) return {image + (first * m.w + m.x0) * m.ci, m.w * m.ci};
  const i64 row = band_cols(m) * m.ci;
  const i64 left = std::clamp<i64>(-m.x0, 0, band_cols(m)), x = m.x0 + left;
  const i64 middle = std::clamp<i64>(m.w - x, 0, band_cols(m) - left);
  for (i64 r = 0; r < band_rows(m, out_rows); ++r) {
    T* const to = scratch + r * row;
    if (first + r < 0 || first + r >= m.h) {
      std::fill_n(to, row, T(0));
      continue;
    }
    std::fill_n(to, left * m.ci, T(0));
    std::copy_n(image + ((first + r) * m.w + x) * m.ci, middle * m.ci, to + left * m.ci);
    std::fill_n(to + (left + middle) * m.ci, row - (left + middle) * m.ci, T(0));
  }
  return {scratch, row};
}
inline i64 piece_offset(const ConvMap& m, const Pieces& p, i64 piece, i64 band_row, i64 group) {
  return piece / p.per_row * band_row + piece % p.per_row * m.ci + group * (m.ci / m.groups);
}

// acc (pixels, panel width) = sum over `count` pieces, `next` apart, of A(pixel, p) * panel(p, :),
// or += unless `first`.
// A function of its own, so that the compiler has nothing else to keep in registers: inlined, it
// spills.
template <class T, std::size_t pixels>
__attribute__((noinline)) void walk_pieces(i64 count, i64 next, i64 length, const T* a, i64 pixel,
                                           const T* panel, bool first, T* acc) {
  constexpr i64 w = lanes<T>;
  Vec<T> sum[pixels][2] = {};
  for (i64 s = 0; s < count; ++s) {
    multiply_tile<T, pixels, 2>(length, a, pixel, 1, panel, panel_width<T>, sum);
    a += next;
    panel += length * panel_width<T>;
  }
  PPMA_UNROLL
  for (std::size_t i = 0; i < pixels; ++i)
    for (i64 v = 0; v < 2; ++v) {
      T* const to = acc + (static_cast<i64>(i) * 2 + v) * w;
      store(to, first ? sum[i][v] : sum[i][v] + load(to));
    }
}

// out[pixel, 0..cols) = sum over the taps, plus bias, for one tile of pixels of one output row and
// one panel.
template <class T, std::size_t pixels>
void conv_tile(const ConvMap& m, const Pieces& p, const T* a, i64 band_row, const T* panel,
               const T* bias, T* out, i64 cols) {
  constexpr i64 w = lanes<T>;
  alignas(64) T acc[pixels * 2 * static_cast<std::size_t>(w)];
  const i64 pixel = m.stride * m.ci;
  if (m.groups == 1)
    walk_pieces<T, pixels>(p.count, band_row, p.length, a, pixel, panel, true, acc);
  else
    for (i64 ky = 0; ky < m.th; ++ky)
      walk_pieces<T, pixels>(m.tw, m.ci, p.length, a + ky * band_row, pixel,
                             panel + ky * m.tw * p.length * panel_width<T>, ky == 0, acc);
  if (cols == 2 * w) {
    const Vec<T> b0 = bias ? load(bias) : Vec<T>{}, b1 = bias ? load(bias + w) : Vec<T>{};
    for (i64 i = 0; i < static_cast<i64>(pixels); ++i) {
      store(out + i * m.out_col, load(acc + 2 * i * w) + b0);
      store(out + i * m.out_col + w, load(acc + (2 * i + 1) * w) + b1);
    }
    return;
  }
  for (i64 i = 0; i < static_cast<i64>(pixels); ++i)
    for (i64 j = 0; j < cols; ++j)
      out[i * m.out_col + j] = acc[2 * i * w + j] + (bias ? bias[j] : T(0));
}

// The map's tap for each element of the kernel, -1: none.
template <class T>
std::vector<i64> taps_of(const ConvMap& m, const ConvWeights<T>& weights) {
  std::vector<i64> tap(static_cast<std::size_t>(weights.kh * weights.kw), -1);
  for (i64 t = 0; t < m.th * m.tw; ++t)
    tap[static_cast<std::size_t>((weights.ky + t / m.tw * weights.ky_step) * weights.kw +
                                 weights.kx + t % m.tw * weights.kx_step)] = t;
  return tap;
}

// Panel q (counted through all groups) of the packed weights: (tap, channel, panel width),
// zero-padded. `n`: output channels a group.
template <class T>
void conv_pack(const ConvMap& m, const ConvWeights<T>& weights, const i64* tap_of, i64 n, i64 q,
               T* to) {
  constexpr i64 w = panel_width<T>;
  const i64 panels = (n + w - 1) / w, c = m.ci / m.groups, all_taps = weights.kh * weights.kw;
  const i64 n0 = q % panels * w, rows = std::min(w, n - n0);
  const T* const from = weights.w + q / panels * weights.group_step + n0 * weights.n_step;
  if (weights.c_step == all_taps) {  // one piece behind each output channel
    i64 i = 0, t = -1;               // of element u, which comes in order
    pack_rows(from, weights.n_step, rows, c * all_taps, to, [&](i64 u) {
      if (u == 0) i = 0, t = -1;
      if (++t == all_taps) t = 0, ++i;
      return tap_of[t] < 0 ? -1 : tap_of[t] * c + i;
    });
    return;
  }
  if (rows < w) std::fill_n(to, m.th * m.tw * c * w, T(0));
  for (i64 i = 0; i < c; ++i)
    for (i64 t = 0; t < all_taps; ++t) {
      if (tap_of[t] < 0) continue;
      const T* const f = from + i * weights.c_step + t;
      T* const line = to + (tap_of[t] * c + i) * w;
      for (i64 j = 0; j < rows; ++j) line[j] = f[j * weights.n_step];
    }
}

// Output rows at once, so that their input rows take about a quarter of L2.
inline i64 conv_rows(const ConvMap& m, i64 element_bytes) {
  const i64 row_bytes = band_cols(m) * m.ci * m.stride * element_bytes;
  return std::clamp<i64>((i64{1} << 18) / std::max<i64>(1, row_bytes), 1, m.oh);
}

// Units that are worth a thread when `units` share the multiplications of a convolution with k
// terms a group's sum.
inline i64 conv_grain(const ConvMap& m, i64 k, i64 units) {
  const i64 all = std::max<i64>(1, m.batch * m.oh * m.ow * m.co * k);
  return std::max<i64>(1, (i64{1} << 20) * units / all);
}

}  // namespace detail

/// Elements of a convolution's weights packed.
template <class T>
i64 packed_conv_size(const ConvMap& m) {
  constexpr i64 w = detail::panel_width<T>;
  return m.groups * ((m.co / m.groups + w - 1) / w) * m.th * m.tw * (m.ci / m.groups) * w;
}

/// ConvWeights::packed of map `m`: panel after panel (tap, channel, panel width). Of the map only
/// taps, channels and groups are looked at.
template <class T>
void pack_conv(Cpu, const ConvMap& m, const ConvWeights<T>& weights, T* to) {
  constexpr i64 w = detail::panel_width<T>;
  const i64 n = m.co / m.groups, panels = (n + w - 1) / w, k = m.th * m.tw * (m.ci / m.groups);
  const std::vector<i64> taps = detail::taps_of(m, weights);
  parallel_for(m.groups * panels, std::max<i64>(1, 65536 / (k * w)), [&](i64 begin, i64 end) {
    for (i64 q = begin; q < end; ++q)
      detail::conv_pack(m, weights, taps.data(), n, q, to + q * k * w);
  });
}

/// The convolution of map `m`: out = sum of taps + bias (CO, or null).
template <class T>
void convolve(Cpu, const ConvMap& m, const T* x, const ConvWeights<T>& weights, const T* bias,
              T* out) {
  constexpr i64 w = detail::panel_width<T>;
  if (weights.transformed) return winograd(m, x, weights.transformed, bias, out);
  if (!weights.packed && !weights.strips && suits_winograd(m) && m.oh * m.ow >= winograd_pixels) {
    const Workspace<T> transformed(winograd_size<T>(m));
    pack_winograd(Cpu{}, m, weights, transformed.data());
    return winograd(m, x, transformed.data(), bias, out);
  }
  if constexpr (std::is_same_v<T, float>)
    if (weights.strips && m.groups == 1 && multiplies_bf16())
      return detail::convolve_strips<detail::AmxTiles>(m, x, weights.strips, bias, out);
  const detail::Pieces p = detail::pieces_of(m);
  const i64 n = m.co / m.groups, panels = (n + w - 1) / w, k = p.count * p.length;

  // Work is split by output rows; also by panels where the weights are large.
  const i64 even = (m.batch * m.oh + 4 * threads() - 1) / (4 * threads());
  const i64 rows = std::max<i64>(1, std::min(detail::conv_rows(m, sizeof(T)), even));
  const bool by_panel = m.groups * panels * k * w * static_cast<i64>(sizeof(T)) > (i64{1} << 19);
  const i64 block_rows = by_panel ? detail::conv_rows(m, sizeof(T)) : rows;
  const i64 blocks = (m.oh + block_rows - 1) / block_rows;
  const i64 splits = by_panel ? std::min<i64>(m.groups * panels, 2 * threads()) : 1;
  // Large weights that meet few pixels are packed panel by panel when their turn comes, and stay in
  // cache; others once. Weights in bf16 are made f32 so.
  const bool plain = weights.packed == nullptr && weights.strips == nullptr;
  const bool pack_late = (by_panel && m.batch * blocks <= 2 && plain) || weights.strips != nullptr;
  const bool pack_now = !pack_late && plain;
  const std::vector<i64> taps =
      pack_late && plain ? detail::taps_of(m, weights) : std::vector<i64>{};
  const Workspace<T> packed_weights(pack_now ? m.groups * panels * k * w : 1);
  if (pack_now) pack_conv(Cpu{}, m, weights, packed_weights.data());
  const T* const packed = pack_now ? packed_weights.data() : weights.packed;
  const i64 units = m.batch * blocks * splits;
  parallel_for(units, detail::conv_grain(m, k, units), [&](i64 begin, i64 end) {
    const Workspace<T> scratch(
        detail::inside(m) ? 1 : detail::band_rows(m, block_rows) * detail::band_cols(m) * m.ci);
    const Workspace<T> late(pack_late ? k * w : 1);
    for (i64 unit = begin; unit < end; ++unit) {
      const i64 split = unit / (m.batch * blocks), image = unit % (m.batch * blocks) / blocks;
      const i64 oy0 = unit % blocks * block_rows, oy1 = std::min(m.oh, oy0 + block_rows);
      const detail::Band<T> band =
          detail::band_of(m, x + image * m.h * m.w * m.ci, oy0, oy1 - oy0, scratch.data());
      for (i64 q = m.groups * panels * split / splits; q < m.groups * panels * (split + 1) / splits;
           ++q) {
        const i64 group = q / panels, c0 = q % panels * w, cols = std::min(w, n - c0);
        if (pack_late && plain) detail::conv_pack(m, weights, taps.data(), n, q, late.data());
        if constexpr (std::is_same_v<T, float>)
          if (weights.strips)
            unpack_panel(weights.strips + group * strips_size(k, n), k, 0, k, c0, late.data());
        const T* const panel = pack_late ? late.data() : packed + q * k * w;
        for (i64 oy = oy0; oy < oy1; ++oy) {
          const T* const a =
              band.data + (oy - oy0) * m.stride * band.row + group * (m.ci / m.groups);
          T* const o = out + image * m.out_batch + oy * m.out_row + group * n + c0;
          detail::pixel_tiles(m.ow, [&](i64 ox, auto size) {
            detail::conv_tile<T, size()>(m, p, a + ox * m.stride * m.ci, band.row, panel,
                                         bias ? bias + group * n + c0 : nullptr, o + ox * m.out_col,
                                         cols);
          });
        }
      }
    }
  });
}

/// dw (CO, CI/g, th, tw) of the map's convolution with out (B,OH,OW,CO) dense: sum over pixels of
/// dy times input.
template <class T>
void convolve_dw(Cpu, const ConvMap& m, const T* x, const T* dy, T* dw) {
  if (suits_winograd(m) && m.oh * m.ow >= winograd_pixels) return winograd_dw(m, x, dy, dw);
  constexpr i64 w = detail::panel_width<T>;
  const detail::Pieces p = detail::pieces_of(m);
  const i64 n = m.co / m.groups, panels = (n + w - 1) / w, k = p.count * p.length;
  const i64 size = m.groups * panels * k * w;  // of one partial sum: (group, panel, k, panel width)
  const i64 rows = std::max<i64>(1, std::min(detail::conv_rows(m, sizeof(T)), (m.oh + 3) / 4));
  const i64 blocks = (m.oh + rows - 1) / rows, all = m.batch * blocks;
  // Partial sums over fixed groups of row blocks, as many as stay in cache together; panels are
  // split where there are few.
  const i64 partials = std::clamp<i64>((i64{1} << 18) / size, 1, std::min<i64>(all, 16));
  const i64 splits = std::clamp<i64>(16 / partials, 1, m.groups * panels);
  const Workspace<T> sums(partials * size);
  T* const partial = sums.data();
  parallel_for(
      partials * splits, detail::conv_grain(m, k, partials * splits), [&](i64 begin, i64 end) {
        const Workspace<T> scratch(
            detail::inside(m) ? 1 : detail::band_rows(m, rows) * detail::band_cols(m) * m.ci);
        const Workspace<T> narrow(n % w == 0 ? 1
                                             : rows * m.ow * w);  // dy of a panel that is not full
        for (i64 unit = begin; unit < end; ++unit) {
          const i64 part = unit / splits, split = unit % splits;
          const i64 q0 = m.groups * panels * split / splits,
                    q1 = m.groups * panels * (split + 1) / splits;
          T* const to = partial + part * size;
          std::fill_n(to + q0 * k * w, (q1 - q0) * k * w, T(0));
          for (i64 block = all * part / partials; block < all * (part + 1) / partials; ++block) {
            const i64 image = block / blocks, oy0 = block % blocks * rows,
                      count = std::min(m.oh - oy0, rows);
            const detail::Band<T> band =
                detail::band_of(m, x + image * m.h * m.w * m.ci, oy0, count, scratch.data());
            const T* const dy0 = dy + (image * m.oh + oy0) * m.ow * m.co;
            for (i64 q = q0; q < q1; ++q) {
              const i64 group = q / panels, c0 = q % panels * w, cols = std::min(w, n - c0);
              const T* b = dy0 + group * n + c0;
              i64 ldb = m.co;
              if (cols < w) {
                for (i64 i = 0; i < count * m.ow; ++i)
                  for (i64 j = 0; j < w; ++j)
                    narrow.data()[i * w + j] = j < cols ? b[i * ldb + j] : T(0);
                b = narrow.data(), ldb = w;
              }
              for (i64 s = 0; s < p.count; ++s) {
                const T* const a = band.data + detail::piece_offset(m, p, s, band.row, group);
                detail::pixel_tiles(p.length, [&](i64 i, auto tile) {
                  constexpr std::size_t tile_size = tile();
                  Vec<T> acc[tile_size][2] = {};
                  for (i64 r = 0; r < count; ++r)
                    detail::multiply_tile<T, tile_size, 2>(m.ow, a + r * m.stride * band.row + i, 1,
                                                           m.stride * m.ci, b + r * m.ow * ldb, ldb,
                                                           acc);
                  T* const c = to + ((q * k) + s * p.length + i) * w;
                  PPMA_UNROLL
                  for (std::size_t j = 0; j < tile_size; ++j) {
                    T* const line = c + static_cast<i64>(j) * w;
                    store(line, load(line) + acc[j][0]);
                    store(line + w / 2, load(line + w / 2) + acc[j][1]);
                  }
                });
              }
            }
          }
        }
      });
  parallel_for(size, 1 << 14, [=](i64 begin, i64 end) {
    for (i64 part = 1; part < partials; ++part)
      for (i64 i = begin; i < end; ++i) partial[i] += partial[part * size + i];
  });
  const i64 taps = m.th * m.tw, c = m.ci / m.groups;
  parallel_for(m.co, std::max<i64>(1, 16384 / (c * taps)), [=](i64 begin, i64 end) {
    for (i64 o = begin; o < end; ++o) {
      const T* const from = partial + ((o / n * panels + o % n / w) * k) * w + o % n % w;
      for (i64 i = 0; i < c; ++i)
        for (i64 t = 0; t < taps; ++t) dw[(o * c + i) * taps + t] = from[(t * c + i) * w];
    }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#if PPMA_CUDA
#include "ppma/kernels/cuda/conv.cuh"
#endif

#include "ppma/core/names_end.hpp"
