#pragma once
#include "ppma/core/names_begin.hpp"
// The gradient of the input of a 3 x 3 convolution with stride 2, all four kinds of pixels at once.
//
// A row of dy gives to three rows of dx: all that it gives to the one between them, and the rest of
// what the one above has from the row before. Of the two pixels of dx under one of dy the left one
// sees that alone, the right one the next as well.

#include "ppma/kernels/cuda/conv_columns.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns {

// The left and the right pixels of a row of dx, under those of two columns of dy.
template <int T>
struct TwoSums {
  Sums<T> of[2];
};

// dx (images, h, w, n) of dy (images, oh, ow, CI) and w (n, 9, CI): m has the output's columns, of
// dy, and n of dx.
template <int CI, int T, int threads, int blocks>
__global__ void __launch_bounds__(threads, blocks)
    convolve_dx(Map m, const bf16* dy, const bf16* w, bf16* dx) {
  constexpr int U = CI / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32, slices = m.n / (16 * T);
  const int warp =
                static_cast<int>(blockIdx.x) * (threads / 32) + static_cast<int>(threadIdx.x) / 32,
            slice = warp % slices, walkers = static_cast<int>(gridDim.x) * (threads / 32) / slices;
  if (warp / slices >= walkers) return;
  LeftFactors<CI, T> weight;
  load_weights<CI, T>(weight, w, CI, slice);
  const int row_in = m.ow * CI, row_out = m.w * m.n;
  for (int task = warp / slices; task < m.tasks; task += walkers) {
    const int r0 = task % m.pieces * m.rows, r1 = ::min(m.oh, r0 + m.rows), y0 = ::max(r0 - 1, 0);
    const bf16* from[2];
    bf16* to[2];
    bool next[2];
    int across[2];  // pixels of dx that this lane has beside `to`, at most 4
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int index = task / m.pieces * 2 + i, column = ::min(index, m.columns - 1),
                image = column / m.across, ox = column % m.across * 8,
                px = ::min(ox + lane / 4, m.ow - 1), left = 2 * ox + lane % 4 * 4;
      next[i] = px + 1 < m.ow;
      across[i] = index < m.columns ? m.w - left : 0;
      from[i] = dy + ((static_cast<i64>(image) * m.oh + y0) * m.ow + px) * CI + lane % 4 * 8;
      to[i] = dx + ((static_cast<i64>(image) * m.h + 2 * r0 - 1) * m.w + left) * m.n +
              (slice * 8 + lane / 4) * 2 * T;
    }
    unsigned pixels[2][U][2][4];  // seen by the left and the right pixels, and by the right alone
    const auto load = [&](auto shift, auto unit, int by) {
      constexpr int s = decltype(shift)::value, u = decltype(unit)::value;
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        uint4 v = {0, 0, 0, 0};
        if (s == 0 || next[i]) v = *reinterpret_cast<const uint4*>(from[i] + by + s * CI + u * 32);
        pixels[s][u][i][0] = v.x, pixels[s][u][i][1] = v.y;
        pixels[s][u][i][2] = v.z, pixels[s][u][i][3] = v.w;
      }
    };
    const auto use = [&](auto shift, auto unit, int ky, TwoSums<T>& acc) {
      constexpr int s = decltype(shift)::value, u = decltype(unit)::value;
      const auto add = [&](int kx, Sums<T>& sums) {
#pragma unroll
        for (int k = 0; k < 2; ++k)
#pragma unroll
          for (int t = 0; t < T; ++t)
#pragma unroll
            for (int i = 0; i < 2; ++i)
              multiply(sums[t][i], weight[ky * 3 + kx][t][2 * u + k], pixels[s][u][i][2 * k],
                       pixels[s][u][i][2 * k + 1]);
      };
      if constexpr (s == 0)
        add(1, acc.of[0]), add(2, acc.of[1]);
      else
        add(0, acc.of[1]);
    };
    const auto each_unit = [&](auto&& f) {
      each<2>([&](auto shift) { each<U>([&](auto unit) { f(shift, unit); }); });
    };
    const auto put = [&](const TwoSums<T>& acc, bool really) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if (!really || e >= across[i]) continue;
          float v[2 * T];
#pragma unroll
          for (int c = 0; c < 2 * T; ++c) v[c] = acc.of[e % 2][c / 2][i][c % 2 * 2 + e / 2];
          store_pack<2 * T>(to[i] + e * m.n, v);
        }
        to[i] += row_out;
      }
    };
    TwoSums<T> above{}, at, below;
    each_unit([&](auto shift, auto unit) { load(shift, unit, 0); });
    if (r0 > 0) {  // the row before gives to that below it
      each_unit(
          [&](auto shift, auto unit) { use(shift, unit, 2, above), load(shift, unit, row_in); });
      from[0] += row_in, from[1] += row_in;
    }
    for (int r = r0; r < r1; ++r) {
      const int by = r + 1 < m.oh ? row_in : 0;
      at = {}, below = {};
      each_unit([&](auto shift, auto unit) {
        use(shift, unit, 0, above), use(shift, unit, 1, at), use(shift, unit, 2, below);
        load(shift, unit, by);
      });
      from[0] += by, from[1] += by;
      put(above, r > 0);
      put(at, true);
      above = below;
    }
    // Behind the last row of dy, the row below has all that it gets.
    if (r1 == m.oh) put(above, 2 * r1 - 1 < m.h);
  }
}

/// dx of the convolution m, of x, from dy and the weights (co,ci,3,3). False: no kernel takes it.
inline bool run_dx(const ConvMap& m, const bf16* w, const bf16* dy, bf16* dx) {
  constexpr int CI = 64, threads = 128, blocks = 2;
  if (!fits(m) || m.stride != 2 || m.co != CI || m.ci % 16 != 0 || m.ci > 512) return false;
  const Map map =
      map_of(m.batch, m.h, m.w, m.ci, 2, i64{grid(blocks)} * (threads / 32) / (m.ci / 16));
  const ByTaps turned(m.ci, CI, {w, 9, m.ci * 9, 0, 3, 3, 0, 1, 0, 1});
  convolve_dx<CI, 1, threads, blocks>
      <<<grid(blocks), threads, 0, cuda::stream()>>>(map, dy, turned.data(), dx);
  cuda::launched("conv2d");
  return true;
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail::conv_columns

#include "ppma/core/names_end.hpp"
