#pragma once
#include "ppma/core/names_begin.hpp"
// The first convolution of a network: 3 x 3 with stride 2 of bf16 images with three channels, as
// they come, (B,3,H,W), or channels last.
//
// A warp makes 8 NT output channels of two columns of 8 pixels, row by row, as those of
// conv_columns.cuh do. Four lanes share a pixel: each loads a few of the pairs of neighbouring
// elements that the 27 taps lie in, and the sum is taken over these in the order that they come in.
//
// Floor: the bytes, of which the output has most; GELU takes as long.

#include "ppma/kernels/cuda/conv_columns.cuh"
#include "ppma/kernels/cuda/fast_gelu.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns {

/// How lane q of four sees its pixel's taps: pair j begins `offset` elements behind the first
/// channel of the middle tap of the row above, and lies in row ky.
template <bool planes>
struct ImagePairs {
  static constexpr int count = planes ? 6 : 4;
  // Of channels last: five pairs a row, the first one element early; of planes: taps 1 and 2, then
  // 0 with the element before it.
  static __device__ __forceinline__ int row(int q, int j) {
    return planes ? j / 2 : (4 * q + j) / 5;
  }
  static __device__ __forceinline__ int place(int q, int j) {
    return planes ? j % 2 : (4 * q + j) % 5;
  }
  static __device__ __forceinline__ bool there(int q, int j) {
    return planes ? q < 3 : 4 * q + j < 15;
  }
  /// Whether it has anything of the left tap.
  static __device__ __forceinline__ bool left(int q, int j) {
    return planes ? place(q, j) == 1 : place(q, j) < 2;
  }
  /// Whether its first element is none of a tap.
  static __device__ __forceinline__ bool half(int q, int j) {
    return place(q, j) == (planes ? 1 : 0);
  }
  static __device__ __forceinline__ int offset(const Map& m, int q, int j) {
    return planes ? (q * m.h + row(q, j)) * m.w - 2 * place(q, j)
                  : row(q, j) * m.w * 3 + 2 * place(q, j) - 4;
  }
  /// The weight of element e of the pair.
  static __device__ __forceinline__ float weight(const ConvWeights<bf16>& w, int n, int q, int j,
                                                 int e) {
    const int at = 2 * place(q, j) - 1 + e, kx = planes ? (place(q, j) == 0 ? 1 + e : 0) : at / 3,
              c = planes ? q : at % 3;
    if (!there(q, j) || (half(q, j) && e == 0)) return 0;
    return static_cast<float>(w.w[n * w.n_step + c * w.c_step +
                                  (w.ky + row(q, j) * w.ky_step) * w.kw + w.kx + kx * w.kx_step]);
  }
};

// The output channel of column j of tile t, in a warp's 8 NT.
template <int NT>
__device__ constexpr int output_of(int t, int j) {
  return j / 2 * 2 * NT + 2 * t + j % 2;
}
// F(sums + shift) of a lane's two pixels to where they belong, where they are; and a row on.
template <int NT, class F>
__device__ __forceinline__ void put(const float (&acc)[NT][4], const float (&shift)[2 * NT],
                                    const bool (&there)[2], bf16* (&to)[2], int row) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (there[i]) {
      float v[2 * NT];
#pragma unroll
      for (int c = 0; c < 2 * NT; ++c) v[c] = F::value(acc[c / 2][2 * i + c % 2] + shift[c]);
      store_pack<2 * NT>(to[i], v);
    }
    to[i] += row;
  }
}

// out (images, oh, ow, n) = F(x * w + bias); rows of an even number of pixels
template <bool planes, int NT, int blocks, class F>
__global__ void __launch_bounds__(256, blocks)
    convolve_image(Map m, const bf16* x, ConvWeights<bf16> weights, const bf16* bias, bf16* out) {
  using Pairs = ImagePairs<planes>;
  constexpr int count = Pairs::count;
  cuda::wait();
  const int lane = static_cast<int>(threadIdx.x) % 32, q = lane % 4, slices = m.n / (8 * NT);
  const int warp = static_cast<int>(blockIdx.x) * 8 + static_cast<int>(threadIdx.x) / 32,
            slice = warp % slices, walkers = static_cast<int>(gridDim.x) * 8 / slices;
  if (warp / slices >= walkers) return;
  unsigned weight[NT][count];
#pragma unroll
  for (int t = 0; t < NT; ++t)
#pragma unroll
    for (int j = 0; j < count; ++j) {
      const int n = slice * 8 * NT + output_of<NT>(t, lane / 4);
      weight[t][j] =
          rounded_pair(Pairs::weight(weights, n, q, j, 0), Pairs::weight(weights, n, q, j, 1));
    }
  const int channel = slice * 8 * NT + q * 2 * NT;
  float shift[2 * NT];
#pragma unroll
  for (int i = 0; i < 2 * NT; ++i) shift[i] = bias ? static_cast<float>(bias[channel + i]) : 0;

  constexpr int pixel = planes ? 1 : 3;  // elements
  for (int task = warp / slices; task < m.tasks; task += walkers) {
    const int piece = task % m.pieces, r0 = piece * m.rows, r1 = ::min(m.oh, r0 + m.rows);
    const bf16* from[2];
    bf16* to[2];
    bool left[2], there[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = ::min(task / m.pieces * 2 + i, m.columns - 1), image = column / m.across,
                ox = column % m.across * 8 + lane / 4, px = ::min(ox, m.ow - 1);
      there[i] = ox < m.ow && task / m.pieces * 2 + i < m.columns;
      left[i] = px > 0;
      from[i] = x + static_cast<i64>(image) * 3 * m.h * m.w +
                (static_cast<i64>(2 * r0 - 1) * m.w + 2 * px) * pixel;
      to[i] = out + ((static_cast<i64>(image) * m.oh + r0) * m.ow + px) * m.n + channel;
    }
    // The pairs of output row r.
    const auto load = [&](int r, unsigned(&pair)[2][count]) {
#pragma unroll
      for (int j = 0; j < count; ++j) {
        const int y = 2 * r - 1 + Pairs::row(q, j);
        const bool row = Pairs::there(q, j) && y >= 0 && y < m.h;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          unsigned v = 0;
          if (row && (left[i] || !Pairs::left(q, j)))
            v = *reinterpret_cast<const unsigned*>(from[i] + Pairs::offset(m, q, j));
          pair[i][j] = Pairs::half(q, j) ? v & 0xffff0000u : v;
        }
      }
      from[0] += 2 * m.w * pixel, from[1] += 2 * m.w * pixel;
    };
    unsigned pair[2][count];
    load(r0, pair);
    for (int r = r0; r < r1; ++r) {
      unsigned next[2][count];
      load(r + 1, next);
      float acc[NT][4] = {};
#pragma unroll
      for (int j = 0; j < count; j += 2) {
        const unsigned a[4] = {pair[0][j], pair[1][j], pair[0][j + 1], pair[1][j + 1]};
#pragma unroll
        for (int t = 0; t < NT; ++t) multiply(acc[t], a, weight[t][j], weight[t][j + 1]);
      }
      put<NT, F>(acc, shift, there, to, m.ow * m.n);
#pragma unroll
      for (int j = 0; j < count; ++j) pair[0][j] = next[0][j], pair[1][j] = next[1][j];
    }
  }
}

inline bool takes_image(const ConvMap& m) {
  return fits(m) && m.ci == 3 && m.stride == 2 && m.w % 2 == 0 && m.co % 16 == 0 && m.co <= 512;
}

/// The convolution of channels-last images, or of `planes`, with GELU behind it or not. False: no
/// kernel takes it.
inline bool run_image(const ConvMap& m, bool planes, const bf16* x,
                      const ConvWeights<bf16>& weights, const bf16* bias, bf16* out, bool gelu) {
  if (!takes_image(m)) return false;
  const auto launch = [&](auto order, auto tiles, auto f) {
    constexpr int NT = decltype(tiles)::value, per = NT == 4 ? 2 : 4;
    const Map map = map_of(m.batch, m.h, m.w, m.co, 2, i64{grid(per)} * 8 / (m.co / (8 * NT)));
    cuda::launch("conv2d", convolve_image<decltype(order)::value, NT, per, decltype(f)>, grid(per),
                 256, 0, map, x, weights, bias, out);
  };
  const auto with_tiles = [&](auto order, auto f) {
    if (m.co % 32 == 0)
      launch(order, std::integral_constant<int, 4>{}, f);
    else
      launch(order, std::integral_constant<int, 2>{}, f);
  };
  const auto with_order = [&](auto f) {
    planes ? with_tiles(std::true_type{}, f) : with_tiles(std::false_type{}, f);
  };
  gelu ? with_order(FastGelu{}) : with_order(AsItIs{});
  return true;
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns

#include "ppma/core/names_end.hpp"
