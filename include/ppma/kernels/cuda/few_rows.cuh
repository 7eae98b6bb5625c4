#pragma once
#include "ppma/core/names_begin.hpp"
// Products of few rows in bf16: y = F(rows w^T + bias) + add, where a launch takes longer than the
// work. The rows are a matrix's; those of one normalised, for up to three products, of which two
// are turned (rotary positions), with the log decays beside them; or what the taps of a convolution
// see, so that it is one launch as well.
//
// A block has all of the sum over k in shared memory for its tile of the results, and its warps
// share out the sum: their parts are added in a fixed order. Tiles are small enough that the GPU is
// filled: a row is read (and normalised) by every block in its line of tiles. Its slice of the
// weights a block fetches before the kernel ahead is done (cuda::launch()), where they are not that
// one's work.
//
// Floor: a launch behind another (1 us), a trip to memory, k / 16 steps shared by the warps and the
// trip back.

#include "ppma/kernels/cuda/few_rows_parts.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail::few_rows {

// What a row's normalised tokens give besides: after(row, v) of every pack.
template <class T, int C, class After>
__device__ __forceinline__ void decays_alone(const Product& p, int row0, const After& after) {
  const Norm<T, C> norm(p);
  typename After::Pack packs[Norm<T, C>::packs];
#pragma unroll
  for (int j = 0; j < Norm<T, C>::packs; ++j) packs[j] = after.pack_of(norm.channel(j), true);
  cuda::wait();
  norm.each(p, row0, [&](int r, int j, const float(&v)[8]) {
    after.of_pack(packs[j], row0 + r, r < T::MT && row0 + r < p.rows, v);
  });
}

/// Grid: lines of tiles; tiles of all parts, and blocks that do no more than call `after` as
/// layer_norm_rows does, where C (of a norm; else 0) and After say so.
template <class T, Rows rows, int C, bool turns, class F, class After>
__global__ void __launch_bounds__(T::threads, T::blocks) multiply_rows(Product p, After after) {
  constexpr int MT = T::MT, NT = T::NT;
  extern __shared__ __align__(16) unsigned char memory[];
  const int tid = static_cast<int>(threadIdx.x), lane = tid % 32, warp = tid / 32, stride = p.k + 8,
            packs = p.k / 8, row0 = static_cast<int>(blockIdx.x) * MT,
            first = static_cast<int>(blockIdx.y) * NT, part = first / p.n,
            col0 = first - part * p.n;
  bf16 *const a = reinterpret_cast<bf16*>(memory), *const w = a + MT * stride;
  if constexpr (!std::is_same_v<After, NothingMore>)
    if (part == p.parts) return decays_alone<T, C>(p, row0, after);
  if (!p.lasting) cuda::wait();
  each_pack<T::threads>(NT, packs, [&](int r, int pack) {
    const bool there = col0 + r < p.n;
    copy_async(w + r * stride + pack * 8,
               p.part[part].w + (there ? static_cast<i64>(col0 + r) * p.k + pack * 8 : 0), there);
  });
  copies_issued();

  // A thread's results are four neighbours of a row, T::each times.
  const auto row_of = [&](int i) { return (tid + i * T::threads) / T::across; };
  const auto col_of = [&](int i) { return (tid + i * T::threads) % T::across * 4; };
  uint2 bias[T::each] = {}, add[T::each] = {};
  float co[T::each][2], si[T::each][2];
#pragma unroll
  for (int i = 0; i < T::each; ++i) {
    const int r = row_of(i), col = col0 + col_of(i);
    if (r < MT && col < p.n && p.part[part].bias)
      bias[i] = *reinterpret_cast<const uint2*>(p.part[part].bias + col);
    if constexpr (turns)
      if (part < 2 && r < MT && row0 + r < p.rows) {
        const int from = (row0 + r) % p.tokens * p.d + col % p.d;
        const float4 c = *reinterpret_cast<const float4*>(p.cosine + from),
                     s = *reinterpret_cast<const float4*>(p.sine + from);
        const float by = part == 1 ? p.scale : 1.f;
        co[i][0] = c.x * by, co[i][1] = c.z * by, si[i][0] = s.y * by, si[i][1] = s.w * by;
      }
  }

  if constexpr (rows == Rows::taps) {
    // Of every row its pixel: first line and column, offset; of every pack its tap, likewise.
    const Taps t = p.taps;
    int4* const pixels = reinterpret_cast<int4*>(w + NT * stride);
    int2* const table = reinterpret_cast<int2*>(pixels + MT);
    for (int r = tid; r < MT; r += T::threads) {
      const int at = row0 + r, y = at / t.ow % t.oh * t.stride + t.y0,
                x = at % t.ow * t.stride + t.x0;
      pixels[r] = {at < p.rows ? y : -(1 << 24), x,
                   ((at / (t.ow * t.oh) * t.h + y) * t.w + x) * t.ci, 0};
    }
    for (int pack = tid; pack < packs; pack += T::threads) {
      const int tap = pack * 8 / t.ci, y = tap / t.tw, x = tap % t.tw;
      table[pack] = {y << 16 | x, (y * t.w + x) * t.ci + pack * 8 % t.ci};
    }
    __syncthreads();
    cuda::wait();
    each_pack<T::threads>(MT, packs, [&](int r, int pack) {
      const int2 tap = table[pack];
      const int4 pixel = pixels[r];
      const int y = pixel.x + (tap.x >> 16), x = pixel.y + (tap.x & 0xffff);
      const bool there = y >= 0 && y < t.h && x >= 0 && x < t.w;
      copy_async(a + r * stride + pack * 8, there ? p.x + (pixel.z + tap.y) : p.x, there);
    });
  }
  if constexpr (rows == Rows::normed) {
    const Norm<T, C> norm(p);
    cuda::wait();
    norm.each(p, row0, [&](int r, int j, const float(&v)[8]) {
      if (r < MT) store_pack<8>(a + r * stride + norm.channel(j), v);
    });
  }
  if constexpr (rows == Rows::plain) {
    cuda::wait();
    each_pack<T::threads>(MT, packs, [&](int r, int pack) {
      const bool some = row0 + r < p.rows;
      copy_async(a + r * stride + pack * 8,
                 some ? p.x + static_cast<i64>(row0 + r) * p.k + pack * 8 : p.x, some);
    });
  }
  copies_issued();
  const auto place = [&](int i) {
    return static_cast<i64>(row0 + row_of(i)) * p.pitch + col0 + col_of(i);
  };
  const auto there = [&](int i) {
    return row_of(i) < MT && row0 + row_of(i) < p.rows && col0 + col_of(i) < p.n;
  };
  if (p.add)
#pragma unroll
    for (int i = 0; i < T::each; ++i)
      if (there(i)) add[i] = *reinterpret_cast<const uint2*>(p.add + place(i));
  copies_done<0>();
  __syncthreads();

  constexpr int M = MT / T::WM, N = NT / T::WN;
  const int wk = warp % T::WK, wn = warp / T::WK % T::WN * N, wm = warp / T::WK / T::WN * M;
  float c[M / 16][N / 8][4] = {};
  const bf16 *const from_a = a + (wm + lane % 16) * stride + lane / 16 * 8,
                    *const from_w = w + (wn + lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 8;
#pragma unroll 4
  for (int k = wk * 16; k < p.k; k += T::WK * 16) {
    unsigned left[M / 16][4], right[N / 16][4];
#pragma unroll
    for (int i = 0; i < M / 16; ++i) load_matrices(left[i], from_a + i * 16 * stride + k);
#pragma unroll
    for (int j = 0; j < N / 16; ++j) load_matrices(right[j], from_w + j * 16 * stride + k);
#pragma unroll
    for (int i = 0; i < M / 16; ++i)
#pragma unroll
      for (int j = 0; j < N / 8; ++j)
        multiply(c[i][j], left[i], right[j / 2][j % 2 * 2], right[j / 2][j % 2 * 2 + 1]);
  }
  __syncthreads();
  float* const sums = reinterpret_cast<float*>(memory);  // (WK, MT, pitch)
#pragma unroll
  for (int i = 0; i < M / 16; ++i)
#pragma unroll
    for (int j = 0; j < N / 8; ++j)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int r = wk * MT + wm + i * 16 + h * 8 + lane / 4;
        *reinterpret_cast<float2*>(sums + r * T::pitch + wn + j * 8 + lane % 4 * 2) = {
            c[i][j][2 * h], c[i][j][2 * h + 1]};
      }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < T::each; ++i) {
    const int r = row_of(i);
    if (!there(i)) continue;
    float v[4], plus[4];
    load_pack<4>(reinterpret_cast<const bf16*>(&bias[i]), v);
#pragma unroll
    for (int k = 0; k < T::WK; ++k) {
      const float4 some =
          *reinterpret_cast<const float4*>(sums + (k * MT + r) * T::pitch + col_of(i));
      v[0] += some.x, v[1] += some.y, v[2] += some.z, v[3] += some.w;
    }
    if constexpr (turns)
      if (part < 2)
#pragma unroll
        for (int t = 0; t < 2; ++t) {
          const float even = v[2 * t];
          v[2 * t] = even * co[i][t] - v[2 * t + 1] * si[i][t];
          v[2 * t + 1] = v[2 * t + 1] * co[i][t] + even * si[i][t];
        }
    load_pack<4>(reinterpret_cast<const bf16*>(&add[i]), plus);
#pragma unroll
    for (int e = 0; e < 4; ++e) v[e] = F::value(v[e]) + plus[e];
    store_pack<4>(p.part[part].y + place(i), v);
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail::few_rows

#include "ppma/core/names_end.hpp"
