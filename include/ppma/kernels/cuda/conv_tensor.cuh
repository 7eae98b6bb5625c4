#pragma once
#include "ppma/core/names_begin.hpp"
// Convolution of bf16 images on the tensor cores, without a copy of the gathered inputs; the
// gradient of its weights: conv_tensor_back.cuh.
//
// A block makes 128 output pixels x up to 128 channels. Along the sum over taps and channels it
// walks in steps of 32: eight channels of one tap lie together in memory and are copied at once,
// straight from where the tap sees them (zeros outside), three steps ahead of the products.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/fast_gelu.cuh"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

/// A ConvMap of one group in 32 bits; ci a multiple of 8, `width` = taps * ci rounded up to 32.
struct TensorConv {
  int pixels, h, w, ci, oh, ow, n, stride, y0, x0, tw, taps, width;
  i64 out_batch, out_row, out_col;
};

inline constexpr int conv_rows_tile = 128, conv_step = 32, conv_stages = 3;
template <int BN>
constexpr int forward_stage = conv_rows_tile*(conv_step + 8) + conv_step*(BN + 8);  // elements

// Where eight channels of the gathered row begin: rows and columns below the pixel's first tap, and
// the offset.
struct Tap {
  int row, col, offset;
};
__device__ __forceinline__ Tap tap_of(const TensorConv& m, int k) {
  const int tap = k / m.ci;
  if (tap >= m.taps) return {1 << 24, 0, 0};  // behind the last: outside of any image
  const int row = tap / m.tw, col = tap % m.tw;
  return {row, col, (row * m.w + col) * m.ci + k % m.ci};
}

// out (pixels, n) = F(gathered (pixels, width) packed (width, n) + bias)
template <int BN, class F>
__global__ void __launch_bounds__(256)
    conv_forward(TensorConv m, const bf16* x, const bf16* packed, const bf16* bias, bf16* out) {
  extern __shared__ __align__(16) unsigned char memory[];
  bf16* const tiles = reinterpret_cast<bf16*>(memory);
  Tap* const table = reinterpret_cast<Tap*>(tiles + conv_stages * forward_stage<BN>);
  constexpr int SA = conv_step + 8, SB = BN + 8, tiles_n = BN / 16;  // 8-wide tiles a warp
  const int tid = static_cast<int>(threadIdx.x), lane = tid % 32, warp = tid / 32;
  const int n0 = static_cast<int>(blockIdx.y) * BN, steps = m.width / conv_step;
  for (int i = tid; i < m.width / 8; i += 256) table[i] = tap_of(m, i * 8);

  // This thread copies one pack of rows tid / 4 and tid / 4 + 64.
  const bf16* from[2];
  int iy[2], ix[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int p = static_cast<int>(blockIdx.x) * conv_rows_tile + tid / 4 + 64 * i;
    const int ox = p % m.ow, oy = p / m.ow % m.oh, image = p / (m.ow * m.oh);
    iy[i] = p < m.pixels ? oy * m.stride + m.y0 : -(1 << 25), ix[i] = ox * m.stride + m.x0;
    from[i] = x + (static_cast<i64>(image) * m.h * m.w +
                   (static_cast<i64>(oy) * m.stride + m.y0) * m.w + ix[i]) *
                      m.ci;
  }
  __syncthreads();
  const auto fetch = [&](int step) {
    if (step < steps) {
      bf16* const a = tiles + step % conv_stages * forward_stage<BN>;
      bf16* const b = a + conv_rows_tile * SA;
      const Tap tap = table[step * 4 + tid % 4];
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int y = iy[i] + tap.row, z = ix[i] + tap.col;
        const bool there = y >= 0 && y < m.h && z >= 0 && z < m.w;
        copy_async(a + (tid / 4 + 64 * i) * SA + tid % 4 * 8, there ? from[i] + tap.offset : x,
                   there);
      }
      for (int i = tid; i < conv_step * BN / 8; i += 256) {
        const int row = i / (BN / 8), col = i % (BN / 8) * 8;
        const bool there = n0 + col < m.n;
        copy_async(
            b + row * SB + col,
            there ? packed + static_cast<i64>(step * conv_step + row) * m.n + n0 + col : packed,
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
    const bf16* const a = tiles + step % conv_stages * forward_stage<BN>;
    const bf16* const b = a + conv_rows_tile * SA;
#pragma unroll
    for (int k = 0; k < conv_step; k += 16) {
      unsigned fa[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i)
        load_matrices(fa[i], a + (warp_m + i * 16 + lane % 16) * SA + k + lane / 16 * 8);
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
  __syncthreads();
  // Through shared memory, so that whole packs are written.
  bf16* const c = tiles;
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < tiles_n; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = warp_m + i * 16 + lane / 4 + half * 8, col = warp_n + j * 8 + lane % 4 * 2;
        float v[2] = {acc[i][j][2 * half], acc[i][j][2 * half + 1]};
        if (bias && n0 + col < m.n) {
          float plus[2];
          load_pack<2>(bias + n0 + col, plus);
          v[0] += plus[0], v[1] += plus[1];
        }
        v[0] = F::value(v[0]), v[1] = F::value(v[1]);
        store_pack<2>(c + row * SB + col, v);
      }
  __syncthreads();
  for (int i = tid; i < conv_rows_tile * BN / 8; i += 256) {
    const int row = i / (BN / 8), col = i % (BN / 8) * 8,
              p = static_cast<int>(blockIdx.x) * conv_rows_tile + row;
    if (p >= m.pixels || n0 + col >= m.n) continue;
    bf16* const to = out + p / (m.ow * m.oh) * m.out_batch + p / m.ow % m.oh * m.out_row +
                     p % m.ow * m.out_col + n0 + col;
    *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(c + row * SB + col);
  }
}

// x (pixels, c) to (pixels, 8): zeros behind the channels.
template <class T>
__global__ void pad_channels(i64 pixels, int c, const T* x, T* padded) {
  for (i64 p = cuda::first(); p < pixels; p += cuda::stride()) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] = i < c ? static_cast<float>(x[p * c + i]) : 0.0f;
    store_pack<8>(padded + p * 8, v);
  }
}

template <class T>
__global__ void pack_channels(TensorConv m, ConvWeights<T> weights, int c, T* packed) {
  for (int at = static_cast<int>(cuda::first()); at < m.width * m.n;
       at += static_cast<int>(cuda::stride())) {
    const int j = at % m.n, row = at / m.n, i = row % m.ci, t = row / m.ci;
    const i64 ky = weights.ky + t / m.tw * weights.ky_step,
              kx = weights.kx + t % m.tw * weights.kx_step;
    packed[at] = t < m.taps && i < c
                     ? weights.w[j * weights.n_step + i * weights.c_step + ky * weights.kw + kx]
                     : T(0.0f);
  }
}

/// Whether the tensor cores take this map: one group, whole packs of output channels, few or whole
/// packs of inputs. Long sums of few pixels are faster gathered, where cuBLASLt splits them.
inline bool takes_tensor(const ConvMap& m) {
  return m.groups == 1 && m.co % 8 == 0 && m.out_col % 8 == 0 && m.out_row % 8 == 0 &&
         m.out_batch % 8 == 0 && (m.ci % 8 == 0 || m.ci < 8) && m.th * m.tw * m.ci <= 2048 &&
         m.batch * m.h * m.w < (i64{1} << 30) && m.batch * m.oh * m.ow < (i64{1} << 30) &&
         m.w * m.h * m.ci < (i64{1} << 30);
}
inline TensorConv tensor_conv(const ConvMap& m) {
  TensorConv t{};
  t.pixels = static_cast<int>(m.batch * m.oh * m.ow), t.h = static_cast<int>(m.h),
  t.w = static_cast<int>(m.w);
  t.ci = static_cast<int>(m.ci < 8 ? 8 : m.ci), t.oh = static_cast<int>(m.oh),
  t.ow = static_cast<int>(m.ow), t.n = static_cast<int>(m.co);
  t.stride = static_cast<int>(m.stride), t.y0 = static_cast<int>(m.y0),
  t.x0 = static_cast<int>(m.x0), t.tw = static_cast<int>(m.tw);
  t.taps = static_cast<int>(m.th * m.tw),
  t.width = (t.taps * t.ci + conv_step - 1) / conv_step * conv_step;
  t.out_batch = m.out_batch, t.out_row = m.out_row, t.out_col = m.out_col;
  return t;
}
template <class F>
void with_tile(int n, F&& f) {
  if (n <= 32)
    f(std::integral_constant<int, 32>{});
  else if (n <= 64)
    f(std::integral_constant<int, 64>{});
  else
    f(std::integral_constant<int, 128>{});
}
// The input with at least 8 channels: x itself, or a padded copy in `storage`.
inline const bf16* whole_packs(const ConvMap& m, const bf16* x, bf16* storage) {
  if (m.ci >= 8) return x;
  const i64 pixels = m.batch * m.h * m.w;
  pad_channels<<<cuda::blocks(pixels, 256), 256, 0, cuda::stream()>>>(
      pixels, static_cast<int>(m.ci), x, storage);
  cuda::launched("conv2d");
  return storage;
}

inline void convolve_tensor(const ConvMap& m, const bf16* x, const ConvWeights<bf16>& weights,
                            const bf16* bias, bf16* out, bool gelu = false) {
  const TensorConv t = tensor_conv(m);
  const Workspace<bf16> packed(static_cast<i64>(t.width) * t.n, Device::cuda),
      padded(m.ci < 8 ? m.batch * m.h * m.w * 8 : 1, Device::cuda);
  const bf16* const from = whole_packs(m, x, padded.data());
  pack_channels<<<cuda::blocks(static_cast<i64>(t.width) * t.n, 256), 256, 0, cuda::stream()>>>(
      t, weights, static_cast<int>(m.ci), packed.data());
  cuda::launched("conv2d");
  with_tile(t.n, [&](auto tile) {
    constexpr int BN = decltype(tile)::value;
    const int bytes =
        conv_stages * forward_stage<BN> * 2 + t.width / 8 * static_cast<int>(sizeof(Tap));
    const auto kernel = gelu ? conv_forward<BN, FastGelu> : conv_forward<BN, AsItIs>;
    allow_shared(kernel, bytes, "conv2d");
    const dim3 grid(static_cast<unsigned>((t.pixels + conv_rows_tile - 1) / conv_rows_tile),
                    static_cast<unsigned>((t.n + BN - 1) / BN));
    kernel<<<grid, 256, static_cast<std::size_t>(bytes), cuda::stream()>>>(t, from, packed.data(),
                                                                           bias, out);
  });
  cuda::launched("conv2d");
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
