#pragma once
#include "ppma/core/names_begin.hpp"
// The gradient of a convolution's weights on the tensor cores: conv_tensor.cuh's product, turned.
// A block makes 128 taps and channels x up to 128 output channels, summed over pixels; pixels are
// shared out among blocks whose sums are added in order.

#include <algorithm>

#include "ppma/kernels/cuda/conv_tensor.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

template <int BN>
constexpr int back_stage = conv_step*(conv_rows_tile + 8 + BN + 8);  // elements

// partial (splits, width, n) = gathered^T dy over the split's pixels.
template <int BN>
__global__ void __launch_bounds__(256)
    conv_back(TensorConv m, int per_split, const bf16* x, const bf16* dy, float* partial) {
  extern __shared__ __align__(16) unsigned char memory[];
  bf16* const tiles = reinterpret_cast<bf16*>(memory);
  constexpr int SA = conv_rows_tile + 8, SB = BN + 8, tiles_n = BN / 16;
  const int tid = static_cast<int>(threadIdx.x), lane = tid % 32, warp = tid / 32;
  const int k0 = static_cast<int>(blockIdx.x) * conv_rows_tile,
            n0 = static_cast<int>(blockIdx.y) * BN;
  const int first = static_cast<int>(blockIdx.z) * per_split,
            last = ::min(m.pixels, first + per_split);
  const int steps = ::max(0, (last - first + conv_step - 1) / conv_step);

  // This thread copies eight channels of one tap for pixels tid / 16 and tid / 16 + 16 of each
  // step.
  const Tap tap = tap_of(m, k0 + tid % 16 * 8);
  int ox[2], oy[2], image[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int p = first + tid / 16 + 16 * i;
    ox[i] = p % m.ow, oy[i] = p / m.ow % m.oh, image[i] = p / (m.ow * m.oh);
  }
  const auto fetch = [&](int step) {
    if (step < steps) {
      bf16* const a = tiles + step % conv_stages * back_stage<BN>;
      bf16* const b = a + conv_step * SA;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int p = first + step * conv_step + tid / 16 + 16 * i;
        const int y = oy[i] * m.stride + m.y0, z = ox[i] * m.stride + m.x0;
        const bool there = p < last && y + tap.row >= 0 && y + tap.row < m.h && z + tap.col >= 0 &&
                           z + tap.col < m.w;
        const i64 at = ((static_cast<i64>(image[i]) * m.h + y) * m.w + z) * m.ci + tap.offset;
        copy_async(a + (tid / 16 + 16 * i) * SA + tid % 16 * 8, there ? x + at : x, there);
        for (ox[i] += conv_step; ox[i] >= m.ow; ox[i] -= m.ow)
          if (++oy[i] == m.oh) oy[i] = 0, ++image[i];
      }
      for (int i = tid; i < conv_step * BN / 8; i += 256) {
        const int row = i / (BN / 8), col = i % (BN / 8) * 8, p = first + step * conv_step + row;
        const bool there = p < last && n0 + col < m.n;
        copy_async(b + row * SB + col, there ? dy + static_cast<i64>(p) * m.n + n0 + col : dy,
                   there);
      }
    }
    copies_issued();
  };
  float acc[2][tiles_n][4] = {};
  const int warp_m = warp % 4 * 32, warp_n = warp / 4 * (BN / 2);
#pragma unroll
  for (int s = 0; s < conv_stages - 1; ++s) fetch(s);
  for (int step = 0; step < steps; ++step) {
    copies_done<conv_stages - 2>();
    __syncthreads();
    fetch(step + conv_stages - 1);
    const bf16* const a = tiles + step % conv_stages * back_stage<BN>;
    const bf16* const b = a + conv_step * SA;
#pragma unroll
    for (int k = 0; k < conv_step; k += 16) {
      unsigned fa[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        load_turned(fa[i],
                    a + (k + lane / 16 * 8 + lane % 8) * SA + warp_m + i * 16 + lane / 8 % 2 * 8);
#pragma unroll
      for (int j = 0; j < tiles_n; j += 2) {
        unsigned fb[4];
        load_turned(fb, b + (k + lane % 16) * SB + warp_n + j * 8 + lane / 16 * 8);
#pragma unroll
        for (int i = 0; i < 2; ++i)
          multiply(acc[i][j], fa[i], fb[0], fb[1]), multiply(acc[i][j + 1], fa[i], fb[2], fb[3]);
      }
    }
  }
  copies_done<0>();
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < tiles_n; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = k0 + warp_m + i * 16 + lane / 4 + half * 8,
                  col = n0 + warp_n + j * 8 + lane % 4 * 2;
        if (row >= m.width || col >= m.n) continue;
        float* const to = partial + (static_cast<i64>(blockIdx.z) * m.width + row) * m.n + col;
        *reinterpret_cast<float2*>(to) = make_float2(acc[i][j][2 * half], acc[i][j][2 * half + 1]);
      }
}

// dw (n, c, taps) = sum over splits of partial (splits, width, n); a tap has ci >= c channels in a
// row of partial. Eight threads share an element's splits.
template <class R>
__global__ void __launch_bounds__(256)
    sum_splits(TensorConv m, int splits, int c, const float* partial, R* dw) {
  __shared__ float sums[8][32];
  const i64 size = static_cast<i64>(m.width) * m.n, at = blockIdx.x * i64{32} + threadIdx.x;
  const bool there = at < static_cast<i64>(m.taps) * m.ci * m.n;
  float sum = 0;
  if (there) {
#pragma unroll 8
    for (int s = static_cast<int>(threadIdx.y); s < splits; s += 8) sum += partial[s * size + at];
  }
  sums[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  const int j = static_cast<int>(at % m.n), row = static_cast<int>(at / m.n), i = row % m.ci,
            t = row / m.ci;
  if (threadIdx.y > 0 || !there || i >= c) return;
#pragma unroll
  for (int s = 1; s < 8; ++s) sum += sums[s][threadIdx.x];
  dw[(static_cast<i64>(j) * c + i) * m.taps + t] = R(sum);
}
template <class R>
void add_splits(const TensorConv& m, int splits, int c, const float* partial, R* dw) {
  const i64 elements = static_cast<i64>(m.taps) * m.ci * m.n;
  sum_splits<<<static_cast<unsigned>((elements + 31) / 32), dim3(32, 8), 0, cuda::stream()>>>(
      m, splits, c, partial, dw);
  cuda::launched("conv2d");
}

template <class R>
void convolve_dw_tensor(const ConvMap& m, const bf16* x, const bf16* dy, R* dw) {
  const TensorConv t = tensor_conv(m);
  const Workspace<bf16> padded(m.ci < 8 ? m.batch * m.h * m.w * 8 : 1, Device::cuda);
  const bf16* const from = whole_packs(m, x, padded.data());
  with_tile(t.n, [&](auto tile) {
    constexpr int BN = decltype(tile)::value;
    const int bytes = conv_stages * back_stage<BN> * 2,
              down = (t.width + conv_rows_tile - 1) / conv_rows_tile, across = (t.n + BN - 1) / BN;
    const int most = (t.pixels + 8 * conv_step - 1) / (8 * conv_step);
    int splits =
        std::clamp(4 * cuda::device().multiProcessorCount / (down * across), 1, std::max(1, most));
    const int per_split =
        ((t.pixels + splits - 1) / splits + conv_step - 1) / conv_step * conv_step;
    splits = (t.pixels + per_split - 1) / per_split;
    const Workspace<float> partial(static_cast<i64>(splits) * t.width * t.n, Device::cuda);
    allow_shared(conv_back<BN>, bytes, "conv2d");
    const dim3 grid(static_cast<unsigned>(down), static_cast<unsigned>(across),
                    static_cast<unsigned>(splits));
    conv_back<BN><<<grid, 256, static_cast<std::size_t>(bytes), cuda::stream()>>>(
        t, per_split, from, dy, partial.data());
    cuda::launched("conv2d");
    add_splits(t, splits, static_cast<int>(m.ci), partial.data(), dw);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
