#pragma once
#include "ppma/core/names_begin.hpp"
// Gradients of the weights of 3 x 3 convolutions of few channels, and of conv_image.cuh.
//
// A warp sums over the pixels of two columns of 8, row by row: the sum's index is the pixel, so a
// lane takes neighbouring channels of two neighbouring pixels and exchanges their halves. It keeps
// the sums of three taps, 32 input and 32 output channels in registers, for its rows of all images.
// Other warps have the other taps and channels of the same pixels, and find them in L1; no shared
// memory is used. Each walker writes sums of its own; they are added in order.

#include "ppma/kernels/cuda/conv_image.cuh"
#include "ppma/kernels/cuda/conv_tensor_back.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns {

// Of two pixels' words, two channels each: the pair of the lower, or of the upper, channels.
__device__ __forceinline__ unsigned lower_halves(unsigned a, unsigned b) {
  return __byte_perm(a, b, 0x5410);
}
__device__ __forceinline__ unsigned upper_halves(unsigned a, unsigned b) {
  return __byte_perm(a, b, 0x7632);
}
template <int words>
__device__ __forceinline__ void load_words(unsigned (&v)[words], const bf16* p, bool there) {
#pragma unroll
  for (int i = 0; i < words; ++i) v[i] = 0;
  if (!there) return;
  if constexpr (words == 2) {
    const uint2 two = *reinterpret_cast<const uint2*>(p);
    v[0] = two.x, v[1] = two.y;
  } else {
    v[0] = *reinterpret_cast<const unsigned*>(p);
  }
}

// The pixels 2 (lane % 4) and the next of two columns of the output's gradient: W words of channels
// each.
template <int W>
struct Gradients {
  const bf16* from[2];
  bool there[2][2];
  unsigned of[2][2][W];

  __device__ __forceinline__ void begin(const Map& m, int task, const bf16* dy, int row,
                                        int channel) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int index = task / m.pieces * 2 + i, column = ::min(index, m.columns - 1),
                px = column % m.across * 8 + static_cast<int>(threadIdx.x) % 4 * 2;
      from[i] =
          dy + ((static_cast<i64>(column / m.across) * m.oh + row) * m.ow + px) * m.n + channel;
#pragma unroll
      for (int k = 0; k < 2; ++k) there[i][k] = index < m.columns && px + k < m.ow;
    }
  }
  __device__ __forceinline__ void load(const Map& m) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int k = 0; k < 2; ++k) load_words<W>(of[i][k], from[i] + k * m.n, there[i][k]);
      from[i] += m.ow * m.n;
    }
  }
  // As the right factors of the products: tile 2 w + e has channel 2 w + e of each lane's.
  __device__ __forceinline__ void factors(unsigned (&b)[2 * W][2]) const {
#pragma unroll
    for (int w = 0; w < W; ++w)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        b[2 * w][i] = lower_halves(of[i][0][w], of[i][1][w]),
              b[2 * w + 1][i] = upper_halves(of[i][0][w], of[i][1][w]);
  }
};

// Row `row` of partial (rows, n) from the sums of a lane, c[tile][half * 2 + column].
template <int W>
__device__ __forceinline__ void put_sums(const float (&c)[2 * W][4], int half, float* to) {
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    float v[2 * W];
#pragma unroll
    for (int t = 0; t < 2 * W; ++t) v[t] = c[t][2 * half + e];
    store_pack<2 * W>(to + e * 2 * W, v);
  }
}

// The rows of a task whose tap ky lies in the image.
__device__ __forceinline__ int2 rows_of(const Map& m, int task, int ky, int stride) {
  const int r0 = task % m.pieces * m.rows, r1 = ::min(m.oh, r0 + m.rows);
  return {r0 + (r0 * stride + ky < 1), r1 - ((r1 - 1) * stride + ky - 1 >= m.h)};
}

// partial (walkers, 9 CI, n): sums over the pixels of a walker
template <int CI, int S>
__global__ void __launch_bounds__(384, 1)
    convolve_back(Map m, const bf16* x, const bf16* dy, float* partial) {
  constexpr int seen = S + 3;  // pixels of x that two neighbouring ones of dy see
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, q = lane % 4,
            warp = static_cast<int>(threadIdx.x) / 32, units = CI / 32 * 3 * (m.n / 32),
            here = ::min(units, 12), unit = static_cast<int>(blockIdx.y) * 12 + warp % here;
  if (warp >= 12 / here * here || unit >= units) return;
  const int walker = static_cast<int>(blockIdx.x) * (12 / here) + warp / here,
            walkers = static_cast<int>(gridDim.x) * (12 / here);
  const int ky = unit % 3, c0 = unit / 3 % (CI / 32) * 32, n0 = unit / 3 / (CI / 32) * 32;
  float acc[3][2][4][4] = {};
  for (int task = walker; task < m.tasks; task += walkers) {
    const int2 rows = rows_of(m, task, ky, S);
    if (rows.x >= rows.y) continue;
    Gradients<2> right;
    right.begin(m, task, dy, rows.x, n0 + g * 4);
    const bf16* from[2];
    bool inside[2][seen];
    unsigned left[2][seen][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = ::min(task / m.pieces * 2 + i, m.columns - 1),
                px = (column % m.across * 8 + q * 2) * S - 1;
      from[i] =
          x + ((static_cast<i64>(column / m.across) * m.h + rows.x * S + ky - 1) * m.w + px) * CI +
          c0 + g * 4;
#pragma unroll
      for (int k = 0; k < seen; ++k) inside[i][k] = px + k >= 0 && px + k < m.w;
    }
    const auto load = [&] {
      right.load(m);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int k = 0; k < seen; ++k) load_words<2>(left[i][k], from[i] + k * CI, inside[i][k]);
        from[i] += S * m.w * CI;
      }
    };
    load();
    for (int r = rows.x; r < rows.y; ++r) {
      unsigned b[4][2], a[3][2][4];
      right.factors(b);
#pragma unroll
      for (int kx = 0; kx < 3; ++kx)
#pragma unroll
        for (int w = 0; w < 2; ++w)
#pragma unroll
          for (int i = 0; i < 2; ++i)
            a[kx][w][2 * i] = lower_halves(left[i][kx][w], left[i][kx + S][w]),
                         a[kx][w][2 * i + 1] = upper_halves(left[i][kx][w], left[i][kx + S][w]);
      if (r + 1 < rows.y) load();
#pragma unroll
      for (int kx = 0; kx < 3; ++kx)
#pragma unroll
        for (int w = 0; w < 2; ++w)
#pragma unroll
          for (int t = 0; t < 4; ++t) multiply(acc[kx][w][t], a[kx][w], b[t][0], b[t][1]);
    }
  }
#pragma unroll
  for (int kx = 0; kx < 3; ++kx)
#pragma unroll
    for (int w = 0; w < 2; ++w)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = (ky * 3 + kx) * CI + c0 + g * 4 + 2 * w + half;
        put_sums<2>(acc[kx][w], half,
                    partial + (static_cast<i64>(walker) * 9 * CI + row) * m.n + n0 + q * 8);
      }
}

// The same of channels-last images with three channels, stride 2: partial (walkers, 27, n). A lane
// has W words of output channels.
template <int W>
__global__ void __launch_bounds__(256, 3)
    convolve_image_back(Map m, const bf16* x, const bf16* dy, float* partial) {
  using Pairs = ImagePairs<false>;
  const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4, q = lane % 4,
            slices = m.n / (16 * W),
            warp = static_cast<int>(blockIdx.x) * 8 + static_cast<int>(threadIdx.x) / 32,
            walker = warp / slices, walkers = static_cast<int>(gridDim.x) * 8 / slices,
            n0 = warp % slices * 16 * W;
  if (walker >= walkers) return;
  float acc[2][2 * W][4] = {};
  for (int task = walker; task < m.tasks; task += walkers) {
    const int r0 = task % m.pieces * m.rows, r1 = ::min(m.oh, r0 + m.rows);
    Gradients<W> right;
    right.begin(m, task, dy, r0, n0 + g * 2 * W);
    const bf16* from[2];
    bool edge[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = ::min(task / m.pieces * 2 + i, m.columns - 1),
                px = column % m.across * 8 + q * 2;
      edge[i] = px == 0;
      from[i] = x + (static_cast<i64>(column / m.across) * m.h * m.w +
                     static_cast<i64>(2 * r0 - 1) * m.w + 2 * px) *
                        3;
    }
    unsigned left[2][2][2];  // word j of pixel k of column i
    const auto load = [&](int r) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        // pair 8 j + g of the sixteen
        const int of = (8 * j + g) / 4, at = g % 4, y = 2 * r - 1 + Pairs::row(of, at);
        const bool row = Pairs::there(of, at) && y >= 0 && y < m.h;
#pragma unroll
        for (int i = 0; i < 2; ++i)
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            left[i][k][j] = 0;
            if (row && right.there[i][k] && !(k == 0 && edge[i] && Pairs::left(of, at)))
              left[i][k][j] =
                  *reinterpret_cast<const unsigned*>(from[i] + 6 * k + Pairs::offset(m, of, at));
          }
      }
      from[0] += 6 * m.w, from[1] += 6 * m.w;
      right.load(m);
    };
    load(r0);
    for (int r = r0; r < r1; ++r) {
      unsigned b[2 * W][2], a[2][4];
      right.factors(b);
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i)
          a[j][2 * i] = lower_halves(left[i][0][j], left[i][1][j]),
                   a[j][2 * i + 1] = upper_halves(left[i][0][j], left[i][1][j]);
      if (r + 1 < r1) load(r + 1);
#pragma unroll
      for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int t = 0; t < 2 * W; ++t) multiply(acc[j][t], a[j], b[t][0], b[t][1]);
    }
  }
#pragma unroll
  for (int j = 0; j < 2; ++j)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int of = (8 * j + g) / 4, at = g % 4;
      if (!Pairs::there(of, at) || (Pairs::half(of, at) && half == 0)) continue;
      const int row = Pairs::row(of, at) * 9 + 2 * Pairs::place(of, at) - 1 + half;
      put_sums<W>(acc[j], half,
                  partial + (static_cast<i64>(walker) * 27 + row) * m.n + n0 + q * 4 * W);
    }
}

/// dw (n, c, 3, 3). False: none of these kernels takes it.
template <class R>
bool run_back(const ConvMap& m, const bf16* x, const bf16* dy, R* dw) {
  if (!fits(m) || m.co % 16 != 0) return false;
  TensorConv t = tensor_conv(m);
  t.ci = static_cast<int>(m.ci), t.width = 9 * t.ci;
  if (takes_image(m)) {
    const int words = m.co % 32 == 0 ? 2 : 1;
    const i64 walkers = i64{grid(3)} * 8 / (m.co / (16 * words));
    const Map map = map_of(m.batch, m.h, m.w, m.co, 2, walkers);
    const Workspace<float> partial(walkers * t.width * m.co, Device::cuda);
    const auto kernel = words == 2 ? convolve_image_back<2> : convolve_image_back<1>;
    kernel<<<grid(3), 256, 0, cuda::stream()>>>(map, x, dy, partial.data());
    cuda::launched("conv2d");
    add_splits(t, static_cast<int>(walkers), t.ci, partial.data(), dw);
    return true;
  }
  const auto with = [&](auto channels, auto stride) {
    constexpr int CI = decltype(channels)::value, S = decltype(stride)::value;
    if (m.ci != CI || m.stride != S || m.co % 32 != 0) return false;
    const i64 units = CI / 32 * 3 * (m.co / 32), groups = (units + 11) / 12,
              across = std::max<i64>(1, grid(1) / groups),
              walkers = across * (12 / std::min<i64>(units, 12));
    const Map map = map_of(m.batch, m.h, m.w, m.co, S, walkers);
    const Workspace<float> partial(walkers * t.width * m.co, Device::cuda);
    convolve_back<CI, S><<<dim3(static_cast<unsigned>(across), static_cast<unsigned>(groups)), 384,
                           0, cuda::stream()>>>(map, x, dy, partial.data());
    cuda::launched("conv2d");
    add_splits(t, static_cast<int>(walkers), CI, partial.data(), dw);
    return true;
  };
  using std::integral_constant;
  return with(integral_constant<int, 32>{}, integral_constant<int, 1>{}) ||
         with(integral_constant<int, 32>{}, integral_constant<int, 2>{}) ||
         with(integral_constant<int, 64>{}, integral_constant<int, 1>{});
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns

#include "ppma/core/names_end.hpp"
