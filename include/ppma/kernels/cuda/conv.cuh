#pragma once
#include "ppma/core/names_begin.hpp"
// Convolution on the GPU. bf16 goes to cuDNN where that is there (conv_cudnn.cuh), else to our own
// tensor core kernels where they can: of few channels (conv_columns_forward.cuh and its likes), of
// an image's three (conv_image.cuh), of any (conv_tensor.cuh). Else the inputs of some pixels are
// gathered into rows (pixels, taps * channels) and multiplied by the packed weights.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cpu/gemm.hpp"
#include "ppma/kernels/cuda/conv_columns_back.cuh"
#include "ppma/kernels/cuda/conv_columns_dx.cuh"
#include "ppma/kernels/cuda/conv_columns_forward.cuh"
#include "ppma/kernels/cuda/conv_cudnn.cuh"
#include "ppma/kernels/cuda/conv_tensor_back.cuh"
#include "ppma/kernels/cuda/few_rows_run.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// to (pixels, taps, c) of one group: pixel `first` + i of the images from x on sees its taps of
// channels c0 .. c0 + c. A block has one tap of four pixels a row of threads.
template <class T, int V>
__global__ void __launch_bounds__(256)
    gather_taps(ConvMap m, unsigned first, unsigned pixels, int c0, int c, const T* x, T* to) {
  const int tap = static_cast<int>(blockIdx.y), packs = c / V;
  const unsigned p0 = blockIdx.x * blockDim.y * 4 + threadIdx.y;
  const T* from[4];
  bool inside[4];
#pragma unroll
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned p = first + p0 + i * blockDim.y, row = p / static_cast<unsigned>(m.ow);
    const int ox = static_cast<int>(p % static_cast<unsigned>(m.ow)),
              oy = static_cast<int>(row % static_cast<unsigned>(m.oh));
    const int iy = oy * static_cast<int>(m.stride) + static_cast<int>(m.y0) +
                   tap / static_cast<int>(m.tw),
              ix = ox * static_cast<int>(m.stride) + static_cast<int>(m.x0) +
                   tap % static_cast<int>(m.tw);
    inside[i] = iy >= 0 && iy < m.h && ix >= 0 && ix < m.w && p0 + i * blockDim.y < pixels;
    from[i] = x + ((row / static_cast<unsigned>(m.oh) * m.h + iy) * m.w + ix) * m.ci + c0;
  }
  const int threads = static_cast<int>(blockDim.x);
  for (int pack = static_cast<int>(threadIdx.x); pack < packs; pack += threads) {
    RawElements<T, V> value[4] = {};
#pragma unroll
    for (int i = 0; i < 4; ++i)
      if (inside[i]) value[i] = *reinterpret_cast<const RawElements<T, V>*>(from[i] + pack * V);
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
      const i64 p = p0 + i * blockDim.y;
      if (p < pixels)
        *reinterpret_cast<RawElements<T, V>*>(to + (p * gridDim.y + tap) * c + pack * V) = value[i];
    }
  }
}

// The same element by element, for a few channels (an image's three); rows are `width` long, zeros
// behind the taps.
template <class T>
__global__ void __launch_bounds__(256)
    gather_elements(ConvMap m, i64 p0, i64 pixels, int c0, int c, int width, const T* x, T* to) {
  const int tw = static_cast<int>(m.tw), k = static_cast<int>(m.th) * tw * c;
  for (i64 at = cuda::first(); at < pixels * width; at += cuda::stride()) {
    const int inner = static_cast<int>(at % width), tap = inner / c;
    const i64 p = p0 + at / width, iy = p / m.ow % m.oh * m.stride + m.y0 + tap / tw,
              ix = p % m.ow * m.stride + m.x0 + tap % tw;
    const bool inside = inner < k && iy >= 0 && iy < m.h && ix >= 0 && ix < m.w;
    to[at] =
        inside ? x[((p / (m.ow * m.oh) * m.h + iy) * m.w + ix) * m.ci + c0 + inner % c] : T(0.0f);
  }
}

// packed (groups, width, n): weight of tap t, input channel i and output channel j of a group in
// row t*c + i; zeros behind. A thread has all taps of two channels.
template <class T>
__global__ void __launch_bounds__(256) pack_taps(ConvMap m, ConvWeights<T> weights, unsigned c,
                                                 unsigned n, unsigned width, T* packed) {
  const unsigned taps = static_cast<unsigned>(m.th * m.tw), tw = static_cast<unsigned>(m.tw),
                 rest = width - taps * c, all = static_cast<unsigned>(m.groups) * n * (c + rest);
  for (unsigned at = static_cast<unsigned>(cuda::first()); at < all;
       at += static_cast<unsigned>(cuda::stride())) {
    const unsigned j = at % n, i = at / n % (c + rest);
    const i64 g = at / n / (c + rest);
    T* const to = packed + g * width * n + j;
    if (i >= c) {
      to[static_cast<i64>(taps * c + i - c) * n] = T(0.0f);
      continue;
    }
    const T* const from = weights.w + g * weights.group_step + j * weights.n_step +
                          i * weights.c_step + weights.ky * weights.kw + weights.kx;
    for (unsigned t = 0; t < taps; ++t)
      to[static_cast<i64>(t * c + i) * n] =
          from[t / tw * weights.ky_step * weights.kw + t % tw * weights.kx_step];
  }
}

// Dense rows (pixels, n) to their places in the output.
template <class T>
__global__ void scatter_pixels(ConvMap m, i64 p0, i64 pixels, i64 n, const T* from, T* out) {
  for (i64 at = cuda::first(); at < pixels * n; at += cuda::stride()) {
    const i64 p = p0 + at / n;
    out[p / (m.ow * m.oh) * m.out_batch + p / m.ow % m.oh * m.out_row + p % m.ow * m.out_col +
        at % n] = from[at];
  }
}

// dw (CO, c, taps) of one group from sums (taps, c, n).
template <class A, class R>
__global__ void unpack_taps(i64 taps, i64 c, i64 n, const A* sums, R* dw) {
  for (i64 at = cuda::first(); at < n * c * taps; at += cuda::stride()) {
    const i64 t = at % taps, i = at / taps % c, j = at / (taps * c);
    dw[at] = R(sums[(t * c + i) * n + j]);
  }
}

// Elements of a gathered row: whole packs, so that the product may read them 16 bytes at once.
template <class T>
i64 row_width(const ConvMap& m) {
  const i64 k = m.th * m.tw * (m.ci / m.groups), pack = pack_width<T>;
  return (k + pack - 1) / pack * pack;
}

template <class T>
void gather(const ConvMap& m, i64 p0, i64 pixels, i64 group, const T* x, T* to) {
  constexpr int V = pack_width<T>;
  const int c = static_cast<int>(m.ci / m.groups), c0 = static_cast<int>(group) * c;
  const i64 width = row_width<T>(m), n = pixels * width;
  if (c % V == 0 && c0 % V == 0 && m.ci % V == 0) {
    const i64 image = p0 / (m.oh * m.ow);
    const unsigned across = static_cast<unsigned>(std::min(c / V, 256)), down = 256 / across;
    const dim3 grid(static_cast<unsigned>((pixels + 4 * down - 1) / (4 * down)),
                    static_cast<unsigned>(m.th * m.tw));
    gather_taps<T, V><<<grid, dim3(across, down), 0, cuda::stream()>>>(
        m, static_cast<unsigned>(p0 - image * m.oh * m.ow), static_cast<unsigned>(pixels), c0, c,
        x + image * m.h * m.w * m.ci, to);
  } else
    gather_elements<<<cuda::blocks(n, 256), 256, 0, cuda::stream()>>>(
        m, p0, pixels, c0, c, static_cast<int>(width), x, to);
  cuda::launched("conv2d");
}

// Output pixels at once: gathered rows of 24 MB stay in L2, but a product of fewer than 8192 leaves
// much of the GPU without work (3 x 3 over 2048 channels to 512 on an H100: 17.7 ms in pieces of
// 681 pixels, 12.2 in pieces of 8192; the gradient of its weights 26.0 and 13.1). Never more than
// 320 MB.
template <class T>
i64 pixels_at_once(const ConvMap& m, i64 k) {
  const i64 all = m.batch * m.oh * m.ow, row = k * static_cast<i64>(sizeof(T));
  const i64 most =
                std::max<i64>(1, std::clamp<i64>(8192 * row, i64{24} << 20, i64{320} << 20) / row),
            pieces = (all + most - 1) / most;
  return (all + pieces - 1) / std::max<i64>(1, pieces);
}

// Nothing to gather: a 1x1 convolution of all pixels.
inline bool is_matrix(const ConvMap& m) {
  return m.groups == 1 && m.th == 1 && m.tw == 1 && m.stride == 1 && m.y0 == 0 && m.x0 == 0 &&
         m.oh == m.h && m.ow == m.w;
}

template <class T>
void convolve_gathered(Cuda on, const ConvMap& m, const T* x, const ConvWeights<T>& weights,
                       const T* bias, T* out) {
  const i64 c = m.ci / m.groups, n = m.co / m.groups, all = m.batch * m.oh * m.ow;
  const bool dense = m.out_row == m.ow * m.out_col && m.out_batch == m.oh * m.out_row,
             plain = is_matrix(m);
  const i64 k = plain ? c : row_width<T>(m), once = plain ? all : pixels_at_once<T>(m, k);
  // Weights whose taps are neighbours are the product's factor as they lie.
  const bool packs = m.groups != 1 || !weights.by_taps(m.tw, c) || weights.n_step != k;
  const Workspace<T> packed(packs ? m.groups * k * n : 1, Device::cuda),
      rows(plain ? 1 : once * k, Device::cuda);
  const Workspace<T> results(dense ? 1 : once * n, Device::cuda);
  if (packs) {
    pack_taps<<<cuda::blocks(m.co * c, 256), 256, 0, cuda::stream()>>>(
        m, weights, static_cast<unsigned>(c), static_cast<unsigned>(n), static_cast<unsigned>(k),
        packed.data());
    cuda::launched("conv2d");
  }
  for (i64 p0 = 0; p0 < all; p0 += once)
    for (i64 group = 0; group < m.groups; ++group) {
      const i64 pixels = std::min(once, all - p0);
      if (!plain) gather(m, p0, pixels, group, x, rows.data());
      Gemm<T> g;
      g.m = pixels, g.n = n, g.k = k;
      g.a = plain ? x + p0 * k : rows.data(), g.lda = k;
      g.b = packs ? packed.data() + group * k * n : weights.w, g.ldb = packs ? n : k;
      g.tb = !packs;
      g.c = dense ? out + p0 * m.out_col + group * n : results.data(),
      g.ldc = dense ? m.out_col : n;
      g.bias = bias ? bias + group * n : nullptr;
      gemm(on, g);
      if (dense) continue;
      scatter_pixels<<<cuda::blocks(pixels * n, 256), 256, 0, cuda::stream()>>>(
          m, p0, pixels, n, results.data(), out + group * n);
      cuda::launched("conv2d");
    }
}

template <class T, class R>
void convolve_dw_gathered(Cuda on, const ConvMap& m, const T* x, const T* dy, R* dw) {
  using A = acc_t<T>;
  const i64 c = m.ci / m.groups, n = m.co / m.groups, taps = m.th * m.tw, k = taps * c,
            all = m.batch * m.oh * m.ow;
  const bool plain = is_matrix(m);
  const i64 width = plain ? k : row_width<T>(m), once = plain ? all : pixels_at_once<T>(m, width);
  const Workspace<T> rows(plain ? 1 : once * width, Device::cuda);
  const Workspace<A> sums(m.groups * k * n, Device::cuda);
  for (i64 p0 = 0; p0 < all; p0 += once)
    for (i64 group = 0; group < m.groups; ++group) {
      const i64 pixels = std::min(once, all - p0);
      if (!plain) gather(m, p0, pixels, group, x, rows.data());
      Gemm<T, A> g;
      g.m = k, g.n = n, g.k = pixels;
      g.a = plain ? x + p0 * k : rows.data(), g.lda = width, g.ta = true;
      g.b = dy + p0 * m.co + group * n, g.ldb = m.co;
      g.c = sums.data() + group * k * n, g.ldc = n;
      g.accumulate = p0 > 0;
      gemm(on, g);
    }
  for (i64 group = 0; group < m.groups; ++group)
    unpack_taps<<<cuda::blocks(n * k, 256), 256, 0, cuda::stream()>>>(
        taps, c, n, static_cast<const A*>(sums.data() + group * k * n), dw + group * n * k);
  cuda::launched("conv2d");
}

/// Whether few pixels with long sums are gathered, though few_rows.cuh could take them: PPMA-T's
/// inference of eight images, whose second merging this is (14 x 14 pixels of 3 x 3 x 128 to 256
/// channels), takes 0.696 ms this way and 0.707 that way (an H200). Weights are packed, as there.
inline bool gathers_few(const ConvMap& m, const ConvWeights<bf16>& w) {
  const i64 pixels = m.batch * m.oh * m.ow, k = m.th * m.tw * m.ci, work = pixels * m.co * k;
  return m.groups == 1 && w.by_taps(m.tw, m.ci) && w.n_step == k && k > 1024 &&
         work > few_rows::most_work && work <= few_rows::most_conv_work(pixels, m.co, k);
}

}  // namespace detail

/// Whether convolve_planes takes this map, of images (batch, ci, h, w).
inline bool takes_planes(Cuda, const ConvMap& m) { return detail::conv_columns::takes_image(m); }
/// The convolution of such images.
inline void convolve_planes(Cuda, const ConvMap& m, const bf16* x, const ConvWeights<bf16>& weights,
                            const bf16* bias, bf16* out) {
  detail::conv_columns::run_image(m, true, x, weights, bias, out, false);
}

/// Whether convolve_gelu takes this map, of channels-last images or of (batch, ci, h, w).
inline bool fuses_gelu(Cuda, const ConvMap& m, bool planes) {
  return planes ? detail::conv_columns::takes_image(m) : detail::takes_tensor(m);
}
/// GELU of the convolution, in its own pass.
inline void convolve_gelu(Cuda, const ConvMap& m, bool planes, const bf16* x,
                          const ConvWeights<bf16>& weights, const bf16* bias, bf16* out) {
  if (!planes && detail::few_rows::run<detail::FastGelu>(m, x, weights, bias, out)) return;
  if (!detail::conv_columns::run_image(m, planes, x, weights, bias, out, true) &&
      !detail::conv_columns::run(m, x, weights, bias, out, true))
    detail::convolve_tensor(m, x, weights, bias, out, true);
}

template <class T>
void convolve(Cuda on, const ConvMap& m, const T* x, const ConvWeights<T>& weights, const T* bias,
              T* out) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (detail::gathers_few(m, weights))
      return detail::convolve_gathered(on, m, x, weights, bias, out);
    if (detail::few_rows::run<detail::AsItIs>(m, x, weights, bias, out)) return;
#if PPMA_CUDNN
    if (detail::cudnn_takes(m, x, bias, out) && detail::cudnn_pays(m) &&
        detail::convolve_cudnn(m, x, weights, bias, out))
      return;
#endif
    if (detail::conv_columns::run(m, x, weights, bias, out, false) ||
        detail::conv_columns::run_image(m, false, x, weights, bias, out, false))
      return;
    if (detail::takes_tensor(m)) return detail::convolve_tensor(m, x, weights, bias, out);
  }
  detail::convolve_gathered(on, m, x, weights, bias, out);
}

/// The gradient of the input of m with weights w (co,ci,3,3), all pixels at once. False: it is to
/// be composed of convolutions.
inline bool convolve_dx(Cuda, const ConvMap& m, const bf16* w, const bf16* dy, bf16* dx) {
  return detail::conv_columns::run_dx(m, w, dy, dx);
}

/// dw may be wider than x.
template <class T, class R>
void convolve_dw(Cuda on, const ConvMap& m, const T* x, const T* dy, R* dw) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (detail::conv_columns::run_back(m, x, dy, dw)) return;
    if (detail::takes_tensor(m)) return detail::convolve_dw_tensor(m, x, dy, dw);
  }
  detail::convolve_dw_gathered(on, m, x, dy, dw);
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
