#pragma once
#include "ppma/core/names_begin.hpp"
// The tables of a small map's masks, made by its block: running sums of the decays, and all A and
// all B (the words are small.cuh's).

#include "ppma/kernels/cuda/whole/small_map.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// The running sums of a head; half a warp a line or a column.
template <int D, int WT, int N>
__device__ __forceinline__ void scan_sums(const Small<D, WT, N>& map, const float* log_a,
                                          const float* log_b) {
  constexpr int padded = 8 * WT, ahead = 3;  // loads are under way at once
  const int all_lines = map.rows / padded, at = map.lane % 16;
  const int mine = 2 * map.warp + map.lane / 16;
  for (int first = 0; first < all_lines + padded; first += ahead * 2 * map.warps) {
    float sums[ahead];
    bool there[ahead];
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int task = first + i * 2 * map.warps + mine, c = task - all_lines;
      there[i] = c < 0 ? task < map.lines && at < map.length : c < map.length && at < map.lines;
      const float* const from =
          c < 0 ? log_a + (task * map.length + at) : log_b + (at * map.length + c);
      sums[i] = there[i] && at > 0 ? *from : 0.f;
    }
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int task = first + i * 2 * map.warps + mine, c = task - all_lines;
      float sum = polyline_gpu::counted(sums[i], polyline_gpu::limit_bf16);
#pragma unroll
      for (int far_off = 1; far_off < 16; far_off *= 2) {
        const float before = __shfl_up_sync(0xffffffffu, sum, far_off, 16);
        if (at >= far_off) sum += before;
      }
      float* const to = c < 0 ? map.a + (task * padded + at) : map.b + (at * padded + c);
      if (c < 0 ? at < padded : c < padded && at < all_lines) *to = there[i] ? sum * log2_e : far;
    }
  }
}

/// What is left between two of these sums, for both halves and two columns each: 0 where one of the
/// two is padding.
struct Decays {
  float of[2][2];
  __device__ __forceinline__ void set(int half, float2 from, float2 to) {
    of[half][0] = exp2_fast(-::fabsf(from.x - to.x));
    of[half][1] = exp2_fast(-::fabsf(from.y - to.y));
  }
  __device__ __forceinline__ Twin rounded() const {
    return {{detail::rounded_pair(of[0][0], of[0][1]), detail::rounded_pair(of[1][0], of[1][1])}};
  }
};
/// f(where, A_k[j,l], cell (k,l)) for all of `along`, for the block. The cell is that of the first
/// half and column; the second half lies 8 behind.
template <int D, int WT, int N, class F>
__device__ __forceinline__ void each_along(const Small<D, WT, N>& map, F&& f) {
  for (int m = map.warp; m < map.groups; m += map.warps)
#pragma unroll
    for (int r = 0; r < WT; ++r) {
      const int cell = 16 * m + map.lane % 4 * 2;
      Decays decays;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float from = map.a[16 * m + map.column(r) + (WT == 2 ? 0 : 8 * half)];
        decays.set(half, {from, from}, *reinterpret_cast<const float2*>(map.a + cell + 8 * half));
      }
      f((m * WT + r) * 32 + map.lane, decays, cell);
    }
}
/// f(where, B_i[k,l], cell (k,l)), likewise, for all of `across` of the lines i of groups `from` to
/// `to`.
template <int D, int WT, int N, class F>
__device__ __forceinline__ void each_across(const Small<D, WT, N>& map, int from, int to, F&& f) {
  constexpr int lines_a_group = 2 / WT, padded = 8 * WT;
  const int c = map.lane % 4 * 2;
  for (int i = from * lines_a_group + map.warp; i < to * lines_a_group; i += map.warps)
#pragma unroll 2
    for (int m = map.lane / 4; m < map.groups; m += 8) {
      const int cell = 16 * m + c;
      Decays decays;
#pragma unroll
      for (int half = 0; half < 2; ++half)
        decays.set(
            half,
            *reinterpret_cast<const float2*>(map.b + i * padded + c + (WT == 2 ? 8 * half : 0)),
            *reinterpret_cast<const float2*>(map.b + cell + 8 * half));
      f((i * map.groups + m) * 4 + map.lane % 4, decays, cell);
    }
}
/// Both tables, `across` as in each_across(); for the block.
template <int D, int WT, int N>
__device__ __forceinline__ void fill_tables(const Small<D, WT, N>& map, int from, int to) {
  each_along(map, [&](int at, const Decays& decays, int) { map.along[at] = decays.rounded(); });
  each_across(map, from, to,
              [&](int at, const Decays& decays, int) { map.across[at] = decays.rounded(); });
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
