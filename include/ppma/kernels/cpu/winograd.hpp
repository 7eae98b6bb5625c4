#pragma once
#include "ppma/core/names_begin.hpp"
// 3 x 3 convolutions of stride 1 by Winograd's minimal filtering, F(2 x 2, 3 x 3) (Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks", 2016): 16 multiplications a channel pair for
// 2 x 2 output pixels, where the definition takes 36.
//
//   Y = A^T [ (G w G^T) * (B^T d B) ] A      * elementwise, d: the 4 x 4 input pixels of a tile
//
//         1  0 -1  0          1    0    0            1  1  1  0
//   B^T = 0  1  1  0     G = 1/2  1/2  1/2     A^T = 0  1 -1 -1
//         0 -1  1  0         1/2 -1/2  1/2
//         0  1  0 -1          0    0    1
//
// Summed over channels, each of the 16 places is a matrix product (tiles, CI) (CI, CO). A block of
// tiles, transformed, and its products stay in L2; the transformed weights, 16/9 of the plain ones,
// are read once a block. Transforms cost some 100 additions a tile and channel.
//
// The gradient of the weights is the adjoint, with as few multiplications:
//
//   dw = G^T [ sum over tiles of (B^T d B) * (A dy A^T) ] G
//
// Results differ from the definition's by rounding; a NaN or an infinity shows in all four pixels
// of a tile that sees it.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/core/device.hpp"
#include "ppma/core/parallel.hpp"
#include "ppma/kernels/cpu/conv_map.hpp"
#include "ppma/kernels/cpu/gemm.hpp"

namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH {

/// Whether such a convolution is computed so; where weights are transformed each time, only for
/// images of so many pixels.
inline bool suits_winograd(const ConvMap& m) {
  return m.groups == 1 && m.stride == 1 && m.th == 3 && m.tw == 3 && m.ci >= 32 && m.co >= 32;
}
inline constexpr i64 winograd_pixels = 256;

namespace detail {

// Both transforms along one axis.
template <class V>
PPMA_INLINE void transform_input(const V (&d)[4], V (&r)[4]) {
  r[0] = d[0] - d[2], r[1] = d[1] + d[2], r[2] = d[2] - d[1], r[3] = d[1] - d[3];
}
template <class V>
PPMA_INLINE void transform_output(const V (&m)[4], V (&r)[2]) {
  r[0] = m[0] + m[1] + m[2], r[1] = m[1] - m[2] - m[3];
}
template <class V, class T>
PPMA_INLINE void transform_weights(const V (&w)[3], V (&r)[4]) {
  const V ends = (w[0] + w[2]) * T(0.5), middle = w[1] * T(0.5);
  r[0] = w[0], r[1] = ends + middle, r[2] = ends - middle, r[3] = w[2];
}
// The adjoints of the last two.
template <class V>
PPMA_INLINE void adjoint_output(const V (&d)[2], V (&r)[4]) {
  r[0] = d[0], r[1] = d[0] + d[1], r[2] = d[0] - d[1], r[3] = -d[1];
}
template <class V, class T>
PPMA_INLINE void adjoint_weights(const V (&m)[4], V (&r)[3]) {
  const V plus = (m[1] + m[2]) * T(0.5);
  r[0] = m[0] + plus, r[1] = (m[1] - m[2]) * T(0.5), r[2] = plus + m[3];
}

// Where tile `t` of all images lies: image, and its first output pixel.
struct WinogradTile {
  i64 image, y, x;
};
inline WinogradTile winograd_tile(const ConvMap& m, i64 t) {
  const i64 across = (m.ow + 1) / 2, in_image = (m.oh + 1) / 2 * across;
  return {t / in_image, t % in_image / across * 2, t % across * 2};
}
inline i64 winograd_tiles(const ConvMap& m) {
  return m.batch * ((m.oh + 1) / 2) * ((m.ow + 1) / 2);
}
// The 4 x 4 input pixels that it sees; `outside`: CI zeros.
template <class T>
void tile_inputs(const ConvMap& m, const WinogradTile& at, const T* x, const T* outside,
                 const T* (&from)[16]) {
  for (i64 i = 0; i < 16; ++i) {
    const i64 row = at.y + m.y0 + i / 4, col = at.x + m.x0 + i % 4;
    const bool there = row >= 0 && row < m.h && col >= 0 && col < m.w;
    from[i] = there ? x + ((at.image * m.h + row) * m.w + col) * m.ci : outside;
  }
}

// Tiles of a block: as many as fit L2 with their products, but so many that reading the transformed
// weights, from L3, is little beside multiplying them.
template <class T>
i64 winograd_block(const ConvMap& m, i64 tiles) {
  const i64 bytes = 16 * (m.ci + m.co) * static_cast<i64>(sizeof(T)),
            shared = (tiles + threads() - 1) / threads();
  const i64 whole = std::clamp<i64>(((i64{3} << 17) / bytes) / tile_rows, 4, 8) * tile_rows;
  return std::min(whole, (shared + tile_rows - 1) / tile_rows * tile_rows);
}

// B^T d B of a tile whose pixel (i, j) is at from[4 i + j]: place e is written to to[e * next].
template <class T>
void transform_tile(const T* const (&from)[16], i64 channels, T* to, i64 next) {
  constexpr i64 w = lanes<T>;
  for (i64 c = 0; c < channels; c += w) {
    const i64 n = std::min(w, channels - c);
    Vec<T> half[4][4];
    PPMA_UNROLL
    for (std::size_t j = 0; j < 4; ++j) {
      Vec<T> d[4], r[4];
      PPMA_UNROLL
      for (std::size_t i = 0; i < 4; ++i)
        d[i] = n == w ? load(from[4 * i + j] + c) : load_some(from[4 * i + j] + c, n);
      transform_input(d, r);
      PPMA_UNROLL
      for (std::size_t i = 0; i < 4; ++i) half[i][j] = r[i];
    }
    PPMA_UNROLL
    for (std::size_t i = 0; i < 4; ++i) {
      Vec<T> r[4];
      transform_input(half[i], r);
      PPMA_UNROLL
      for (std::size_t j = 0; j < 4; ++j) {
        T* const at = to + static_cast<i64>(4 * i + j) * next + c;
        n == w ? store(at, r[j]) : store_some(at, r[j], n);
      }
    }
  }
}

// A dy A^T of a tile whose gradient at pixel (i, j) is at from[2 i + j], in the same order.
template <class T>
void transform_gradient(const T* const (&from)[4], i64 channels, T* to, i64 next) {
  constexpr i64 w = lanes<T>;
  for (i64 c = 0; c < channels; c += w) {
    const i64 n = std::min(w, channels - c);
    Vec<T> half[4][2];
    PPMA_UNROLL
    for (std::size_t j = 0; j < 2; ++j) {
      Vec<T> d[2], r[4];
      PPMA_UNROLL
      for (std::size_t i = 0; i < 2; ++i)
        d[i] = n == w ? load(from[2 * i + j] + c) : load_some(from[2 * i + j] + c, n);
      adjoint_output(d, r);
      PPMA_UNROLL
      for (std::size_t i = 0; i < 4; ++i) half[i][j] = r[i];
    }
    PPMA_UNROLL
    for (std::size_t i = 0; i < 4; ++i) {
      Vec<T> r[4];
      adjoint_output(half[i], r);
      PPMA_UNROLL
      for (std::size_t j = 0; j < 4; ++j) {
        T* const at = to + static_cast<i64>(4 * i + j) * next + c;
        n == w ? store(at, r[j]) : store_some(at, r[j], n);
      }
    }
  }
}

// A^T m A + bias of a tile: pixel (i, j) is written to to[2 i + j], unless that is null.
template <class T>
void finish_tile(const T* from, i64 next, i64 channels, const T* bias, T* const (&to)[4]) {
  constexpr i64 w = lanes<T>;
  for (i64 c = 0; c < channels; c += w) {
    const i64 n = std::min(w, channels - c);
    const auto get = [n](const T* p) { return n == w ? load(p) : load_some(p, n); };
    Vec<T> half[2][4];
    PPMA_UNROLL
    for (std::size_t j = 0; j < 4; ++j) {
      Vec<T> m[4], r[2];
      PPMA_UNROLL
      for (std::size_t i = 0; i < 4; ++i) m[i] = get(from + static_cast<i64>(4 * i + j) * next + c);
      transform_output(m, r);
      half[0][j] = r[0], half[1][j] = r[1];
    }
    const Vec<T> b = bias ? get(bias + c) : Vec<T>{};
    PPMA_UNROLL
    for (std::size_t i = 0; i < 2; ++i) {
      Vec<T> r[2];
      transform_output(half[i], r);
      PPMA_UNROLL
      for (std::size_t j = 0; j < 2; ++j)
        if (T* const at = to[2 * i + j])
          n == w ? store(at + c, r[j] + b) : store_some(at + c, r[j] + b, n);
    }
  }
}

}  // namespace detail

/// Elements of weights transformed: 16 matrices (CI, CO), packed for products.
template <class T>
i64 winograd_size(const ConvMap& m) {
  return 16 * packed_size<T>(m.ci, m.co);
}

/// G w G^T for each pair of channels. Of the map only channels are looked at.
template <class T>
void pack_winograd(Cpu, const ConvMap& m, const ConvWeights<T>& weights, T* to) {
  constexpr i64 w = detail::panel_width<T>;
  const i64 panels = (m.co + w - 1) / w, size = packed_size<T>(m.ci, m.co);
  parallel_for(panels, std::max<i64>(1, 4096 / m.ci), [&](i64 begin, i64 end) {
    for (i64 q = begin; q < end; ++q)
      for (i64 c = 0; c < m.ci; ++c) {
        alignas(64) T taps[9][static_cast<std::size_t>(w)] = {};
        for (i64 n = 0; n < std::min(w, m.co - q * w); ++n)
          for (i64 t = 0; t < 9; ++t) taps[t][n] = *weights.at(t / 3, t % 3, q * w + n, c);
        const i64 p0 = c / detail::k_block * detail::k_block,
                  k = std::min(detail::k_block, m.ci - p0);  // of the block that gemm_part reads
        T* const line = to + p0 * panels * w + q * w * k + (c - p0) * w;
        for (i64 v = 0; v < w; v += lanes<T>) {
          Vec<T> half[4][3];
          for (std::size_t j = 0; j < 3; ++j) {
            const Vec<T> column[3] = {load(taps[j] + v), load(taps[3 + j] + v),
                                      load(taps[6 + j] + v)};
            Vec<T> r[4];
            detail::transform_weights<Vec<T>, T>(column, r);
            for (std::size_t i = 0; i < 4; ++i) half[i][j] = r[i];
          }
          for (std::size_t i = 0; i < 4; ++i) {
            Vec<T> r[4];
            detail::transform_weights<Vec<T>, T>(half[i], r);
            for (std::size_t j = 0; j < 4; ++j)
              store(line + static_cast<i64>(4 * i + j) * size + v, r[j]);
          }
        }
      }
  });
}

/// The convolution of map `m` with weights that pack_winograd() transformed.
template <class T>
void winograd(const ConvMap& m, const T* x, const T* transformed, const T* bias, T* out) {
  const i64 tiles = detail::winograd_tiles(m), block = detail::winograd_block<T>(m, tiles),
            blocks = (tiles + block - 1) / block;
  const i64 size = packed_size<T>(m.ci, m.co);
  const i64 grain = std::max<i64>(1, (i64{1} << 18) / (block * m.ci * m.co));
  parallel_for(blocks, grain, [&](i64 begin, i64 end) {
    const Workspace<T> inputs(16 * block * m.ci), products(16 * block * m.co), outside(m.ci);
    std::fill_n(outside.data(), m.ci, T(0));
    for (i64 b = begin; b < end; ++b) {
      const i64 first = b * block, count = std::min(block, tiles - first);
      for (i64 t = 0; t < count; ++t) {
        const T* from[16];
        detail::tile_inputs(m, detail::winograd_tile(m, first + t), x, outside.data(), from);
        detail::transform_tile(from, m.ci, inputs.data() + t * m.ci, block * m.ci);
      }
      for (i64 e = 0; e < 16; ++e) {
        Gemm<T> g;
        g.m = count, g.n = m.co, g.k = m.ci;
        g.a = inputs.data() + e * block * m.ci, g.lda = m.ci;
        g.c = products.data() + e * block * m.co, g.ldc = m.co;
        detail::gemm_part(g, 0, count, 0, m.co, transformed + e * size, static_cast<T*>(nullptr));
      }
      for (i64 t = 0; t < count; ++t) {
        const detail::WinogradTile at = detail::winograd_tile(m, first + t);
        T* to[4];
        for (i64 i = 0; i < 4; ++i) {
          const i64 row = at.y + i / 2, col = at.x + i % 2;
          to[i] = row < m.oh && col < m.ow
                      ? out + at.image * m.out_batch + row * m.out_row + col * m.out_col
                      : nullptr;
        }
        detail::finish_tile(products.data() + t * m.co, block * m.co, m.co, bias, to);
      }
    }
  });
}

/// dw (CO, CI, 3, 3) of the convolution of map `m` with out (B,OH,OW,CO) dense.
template <class T>
void winograd_dw(const ConvMap& m, const T* x, const T* dy, T* dw) {
  const i64 tiles = detail::winograd_tiles(m), pair = m.ci * m.co;
  // Tiles at once: 4 Mi elements, so that adding to the sums is little beside multiplying.
  const i64 chunk = std::min(tiles, std::max<i64>(64, (i64{1} << 18) / (m.ci + m.co)));
  const Workspace<T> inputs(16 * chunk * m.ci), gradients(16 * chunk * m.co), sums(16 * pair),
      outside(std::max(m.ci, m.co));
  std::fill_n(outside.data(), std::max(m.ci, m.co), T(0));
  for (i64 first = 0; first < tiles; first += chunk) {
    const i64 count = std::min(chunk, tiles - first);
    const i64 grain = std::max<i64>(1, (1 << 11) / (m.ci + m.co));
    parallel_for(count, grain, [&](i64 begin, i64 end) {
      for (i64 t = begin; t < end; ++t) {
        const detail::WinogradTile at = detail::winograd_tile(m, first + t);
        const T *from[16], *up[4];
        detail::tile_inputs(m, at, x, outside.data(), from);
        for (i64 i = 0; i < 4; ++i) {
          const i64 row = at.y + i / 2, col = at.x + i % 2;
          up[i] = row < m.oh && col < m.ow ? dy + ((at.image * m.oh + row) * m.ow + col) * m.co
                                           : outside.data();
        }
        detail::transform_tile(from, m.ci, inputs.data() + t * m.ci, chunk * m.ci);
        detail::transform_gradient(up, m.co, gradients.data() + t * m.co, chunk * m.co);
      }
    });
    parallel_for(16, std::max<i64>(1, (i64{1} << 21) / (count * pair)), [&](i64 begin, i64 end) {
      for (i64 e = begin; e < end; ++e) {
        Gemm<T> g;
        g.m = m.ci, g.n = m.co, g.k = count;
        g.a = inputs.data() + e * chunk * m.ci, g.lda = m.ci, g.ta = true;
        g.b = gradients.data() + e * chunk * m.co, g.ldb = m.co;
        g.c = sums.data() + e * pair, g.ldc = m.co;
        g.accumulate = first > 0;
        detail::gemm_one(g);
      }
    });
  }
  parallel_for(m.ci, std::max<i64>(1, 4096 / m.co), [&](i64 begin, i64 end) {
    for (i64 i = begin; i < end; ++i)
      for (i64 o = 0; o < m.co; ++o) {
        T half[3][4];
        for (std::size_t k = 0; k < 4; ++k) {
          T place[4], r[3];
          for (std::size_t j = 0; j < 4; ++j)
            place[j] = sums.data()[static_cast<i64>(4 * j + k) * pair + i * m.co + o];
          detail::adjoint_weights<T, T>(place, r);
          for (std::size_t j = 0; j < 3; ++j) half[j][k] = r[j];
        }
        for (std::size_t j = 0; j < 3; ++j) {
          T r[3];
          detail::adjoint_weights<T, T>(half[j], r);
          for (std::size_t k = 0; k < 3; ++k)
            dw[(o * m.ci + i) * 9 + static_cast<i64>(3 * j + k)] = r[k];
        }
      }
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels PPMA_WIDTH

#include "ppma/core/names_end.hpp"
