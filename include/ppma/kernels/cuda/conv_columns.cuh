#pragma once
#include "ppma/core/names_begin.hpp"
// What kernels share that convolve 3 x 3 with their weights in registers (conv_columns_forward.cuh,
// conv_columns_dx.cuh, conv_image.cuh): columns of 8 pixels, whose rows a warp walks down, two at a
// time.
//
// Weights are the left factor of the product, pixels the right one, of which a lane has two
// neighbouring registers. A sum over channels may be in any order, so these are four neighbouring
// channels: a lane reads eight of a pixel at once for two steps of the product, and of the weights
// likewise. Likewise for the output: a lane has 2 T neighbouring channels of its pixels.

#include <algorithm>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cpu/conv_map.hpp"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns {

/// A convolution with padding 1; `columns` of 8 output pixels in all images, whose rows are cut in
/// `pieces` of `rows`.
struct Map {
  int h, w, oh, ow, n, across, columns, pieces, rows, tasks;
};

/// Words of two channels that four lanes share a pixel's CI in.
template <int CI>
inline constexpr int words = CI / 8;
/// Steps of the product over CI channels.
template <int CI>
inline constexpr int steps = CI / 16;

// to (n, 9, ci): the weights in the order that load_weights reads.
template <class T>
__global__ void order_by_taps(int n, int ci, ConvWeights<T> weights, T* to) {
  for (int at = static_cast<int>(cuda::first()); at < n * 9 * ci;
       at += static_cast<int>(cuda::stride())) {
    const int c = at % ci, tap = at / ci % 9, j = at / ci / 9;
    to[at] = weights.w[j * weights.n_step + c * weights.c_step +
                       (weights.ky + tap / 3 * weights.ky_step) * weights.kw + weights.kx +
                       tap % 3 * weights.kx_step];
  }
}

// Weights of nine taps and T times 16 output channels: the left factors of all products.
template <int CI, int T>
using LeftFactors = unsigned[9][T][steps<CI>][4];

/// Those of CI of a pixel's `channels` input channels and of a slice of 16 T output channels; w (n,
/// 9, channels), from the first of the CI on. Lane q of four has eight of each 32 channels, and
/// four of 16 that are left.
template <int CI, int T>
__device__ __forceinline__ void load_weights(LeftFactors<CI, T>& weight, const bf16* w,
                                             int channels, int slice) {
  const int lane = static_cast<int>(threadIdx.x) % 32, q = lane % 4;
#pragma unroll
  for (int row = 0; row < 2 * T; ++row) {
    const int t = row / 2, i = row % 2;
    const bf16* const from =
        w + static_cast<i64>((slice * 8 + lane / 4) * 2 * T + row) * 9 * channels + q * 8;
#pragma unroll
    for (int tap = 0; tap < 9; ++tap) {
#pragma unroll
      for (int s = 0; s + 1 < steps<CI>; s += 2) {
        const uint4 v = *reinterpret_cast<const uint4*>(from + tap * channels + s * 16);
        unsigned(&first)[4] = weight[tap][t][s], (&second)[4] = weight[tap][t][s + 1];
        first[i] = v.x, first[2 + i] = v.y, second[i] = v.z, second[2 + i] = v.w;
      }
      if constexpr (steps<CI> % 2 == 1) {
        const uint2 v =
            *reinterpret_cast<const uint2*>(from + tap * channels + CI / 32 * 32 - q * 4);
        weight[tap][t][steps<CI> - 1][i] = v.x, weight[tap][t][steps<CI> - 1][2 + i] = v.y;
      }
    }
  }
}

// f(0), f(1) ... as constants
template <int n, class G, int i = 0>
__device__ __forceinline__ void each(G&& g) {
  if constexpr (i < n) g(std::integral_constant<int, i>{}), each<n, G, i + 1>(static_cast<G&&>(g));
}

// The sums of two columns' pixels: T times 16 channels x 8 pixels each.
template <int T>
using Sums = float[T][2][4];
template <int T>
__device__ __forceinline__ void clear(float (&acc)[T][2][4]) {
#pragma unroll
  for (int i = 0; i < T * 8; ++i) acc[i / 8][i / 4 % 2][i % 4] = 0;
}
template <int T>
__device__ __forceinline__ void copy(float (&to)[T][2][4], const float (&from)[T][2][4]) {
#pragma unroll
  for (int i = 0; i < T * 8; ++i) to[i / 8][i / 4 % 2][i % 4] = from[i / 8][i / 4 % 2][i % 4];
}
/// The columns of images (images, h, w) under a stride, cut so that none of `walkers` has much more
/// than the others.
inline Map map_of(i64 images, i64 h, i64 w, i64 n, i64 stride, i64 walkers) {
  Map m{};
  m.h = static_cast<int>(h), m.w = static_cast<int>(w), m.n = static_cast<int>(n);
  m.oh = static_cast<int>((h - 1) / stride + 1), m.ow = static_cast<int>((w - 1) / stride + 1);
  m.across = (m.ow + 7) / 8, m.columns = static_cast<int>(images) * m.across;
  const i64 pairs = (m.columns + 1) / 2;
  i64 least = 0;
  for (int pieces = 1; pieces <= std::max(1, m.oh / 4); ++pieces) {
    const int rows = (m.oh + pieces - 1) / pieces, filled = (m.oh + rows - 1) / rows;
    const i64 tasks = pairs * filled;
    // what a piece begins and ends with is worth about 1.5 rows
    const i64 cost = (tasks + walkers - 1) / walkers * (2 * rows + 3);
    if (pieces > 1 && cost >= least) continue;
    least = cost, m.pieces = filled, m.rows = rows, m.tasks = static_cast<int>(tasks);
  }
  return m;
}

/// Whether it is a 3 x 3 convolution with padding 1, stride 1 or 2, and a dense output.
inline bool fits(const ConvMap& m) {
  return m.groups == 1 && m.th == 3 && m.tw == 3 && m.y0 == -1 && m.x0 == -1 && m.stride <= 2 &&
         m.oh == (m.h - 1) / m.stride + 1 && m.ow == (m.w - 1) / m.stride + 1 &&
         m.out_col == m.co && m.out_row == m.ow * m.co && m.out_batch == m.oh * m.out_row &&
         m.batch * m.h * m.w < (i64{1} << 30) && m.w * m.ci < (i64{1} << 30);
}
/// How many blocks there are for `per` on each multiprocessor.
inline unsigned grid(int per) {
  return static_cast<unsigned>(cuda::device().multiProcessorCount * per);
}

/// The weights (n, 9, ci) of a map as these kernels read them: where they lie, or a copy.
class ByTaps {
 public:
  ByTaps(i64 n, i64 ci, const ConvWeights<bf16>& weights)
      : there_(weights.by_taps(3, ci) && weights.n_step == 9 * ci &&
               reinterpret_cast<std::uintptr_t>(weights.w) % 16 == 0),
        copy_(there_ ? 0 : n * 9 * ci, Device::cuda),
        first_(there_ ? weights.w : copy_.data()) {
    if (there_) return;
    order_by_taps<<<cuda::blocks(n * 9 * ci, 256), 256, 0, cuda::stream()>>>(
        static_cast<int>(n), static_cast<int>(ci), weights, copy_.data());
    cuda::launched("conv2d");
  }
  const bf16* data() const { return first_; }

 private:
  bool there_;
  Workspace<bf16> copy_;
  const bf16* first_;
};

}  // namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns

#include "ppma/core/names_end.hpp"
