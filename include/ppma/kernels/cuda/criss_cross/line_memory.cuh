#pragma once
#include "ppma/core/names_begin.hpp"
// Where a line (a row or a column) of criss-cross attention lies in memory, and how a block gets
// its vectors and the sums of its decays (lines.cuh).

#include <algorithm>

#include "ppma/kernels/cuda/decay_sums.cuh"
#include "ppma/kernels/cuda/lanes.cuh"
#include "ppma/kernels/cuda/mma.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

inline constexpr float nowhere = -1e30f;

/// Heads of a block, at most: whole cache lines (64 channels), two where lines are short.
template <int D, int NT>
inline constexpr int most_group = NT >= 7 ? 64 / D : std::min(4, 128 / D);

/// One way of cutting a grid into lines, and a line's heads into groups of one block each. Where
/// the tokens of a line are visited in an order (count, length), a position is a visit, and so the
/// line lies in shared memory; else it is a place.
struct Lines {
  int count, length, step, line_step, tokens;  // token = line * line_step + place * step
  int heads, d, channels;
  // heads of a block (a power of two, at most its warps), blocks of a line, positions in shared
  // memory
  int group, groups, padded;
  int pack_shift;  // log2 of the 16-byte packs in a row of a tile
  const int* order;

  // Positions of a tile and elements between them (not a multiple of all banks); for short lines
  // (NT < 8) these are constants, which spares most of the arithmetic of addresses.
  template <int NT>
  PPMA_HD int rows() const {
    return NT < 8 ? (NT + 1) / 2 * 16 : padded;
  }
  template <int D, int NT>
  PPMA_HD int stride() const {
    return (NT < 8 ? most_group<D, NT> : group) * D + 8;
  }
};

// Where a line and heads of it begin: in (B,N,C), and in (B,G,N).
struct Spot {
  i64 at, plane;
  int row_step, heads;
  const int* order;

  __device__ explicit Spot(const Lines& s)
      : Spot(s, static_cast<int>(blockIdx.x) / s.count, static_cast<int>(blockIdx.x) % s.count,
             static_cast<int>(blockIdx.y) * s.group) {}
  __device__ Spot(const Lines& s, int image, int line, int first) {
    heads = ::min(s.group, s.heads - first);
    at = (static_cast<i64>(image) * s.tokens + line * s.line_step) * s.channels + first * s.d;
    plane = (static_cast<i64>(image) * s.heads + first) * s.tokens + line * s.line_step;
    row_step = s.step * s.channels;
    order = s.order == nullptr ? nullptr : s.order + line * s.length;
  }
  __device__ __forceinline__ int place(int position) const {
    return order == nullptr ? position : order[position];
  }
};

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % 32); }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x / 32); }

// The line's vectors of `n` tensors into tiles behind each other, head by head D wide, in the
// background; zeros where there is nothing. A thread copies the same 16 bytes of many rows.
template <int D, int NT, int n>
__device__ __forceinline__ void fetch(bf16* tiles, const Lines& s, const Spot& here,
                                      const bf16* const (&from)[n]) {
  const unsigned thread = threadIdx.x, pack = thread & ((1u << s.pack_shift) - 1),
                 head = pack / (D / 8), c = pack % (D / 8) * 8;
  const int first = static_cast<int>(thread >> s.pack_shift),
            rows = static_cast<int>(blockDim.x >> s.pack_shift), stride = s.stride<D, NT>(),
            padded = s.rows<NT>();
  const int tile = padded * stride,
            width = static_cast<int>(c) < s.d && static_cast<int>(head) < here.heads
                        ? s.d - static_cast<int>(c)
                        : 0;
  const i64 at = here.at + static_cast<int>(head) * s.d + static_cast<int>(c);
  bf16* to = tiles + first * stride + pack * 8;
  if (s.d % 8 == 0) {
#pragma unroll 2
    for (int row = first; row < padded; row += rows, to += rows * stride) {
      const bool there = row < s.length && width > 0;
      const int offset = there ? here.place(row) * here.row_step : 0;
#pragma unroll
      for (int t = 0; t < n; ++t) {
        if (there)
          detail::copy_async_once(to + t * tile, from[t] + at + offset);
        else
          *reinterpret_cast<uint4*>(to + t * tile) = make_uint4(0, 0, 0, 0);
      }
    }
  } else {
#pragma unroll 1
    for (int row = first; row < padded; row += rows, to += rows * stride) {
      const int offset = row < s.length ? here.place(row) * here.row_step : 0;
#pragma unroll 1
      for (int t = 0; t < n; ++t)
        for (int e = 0; e < 8; ++e)
          to[t * tile + e] = row < s.length && e < width ? from[t][at + offset + e] : bf16(0.0f);
    }
  }
}
// Asks for what write_rows() will add, so that it comes from the L2 cache.
template <int D>
__device__ __forceinline__ void ask_for(const bf16* plus, const Lines& s, const Spot& here) {
  if (!plus) return;
  const int per_row = (here.heads * s.d + 63) / 64;  // 128 bytes each
  for (int i = static_cast<int>(threadIdx.x); i < s.length * per_row;
       i += static_cast<int>(blockDim.x))
    asm volatile("prefetch.global.L2 [%0];" ::"l"(plus + here.at + i / per_row * here.row_step +
                                                  i % per_row * 64));
}

// sums[head][position] = `unit` times the log decays' sum from the line's beginning; a warp a head,
// a lane two neighbouring positions.
template <int NT>
__device__ __forceinline__ void sum_decays(float* sums, const float* log_decay, const Lines& s,
                                           const Spot& here, float unit = 1) {
  const int lane = lane_index(), head = warp_index(), padded = s.rows<NT>();
  if (head >= here.heads) return;
  const float* const from =
      log_decay ? log_decay + here.plane + static_cast<i64>(head) * s.tokens : nullptr;
  float before = 0;
  // the same number of rounds for all lanes
  for (int p = 2 * lane; p < padded + 2 * lane; p += 64) {
    // Both are asked for before either is looked at.
    const float log_first = from && p > 0 && p < s.length ? from[here.place(p) * s.step] : 0.0f;
    const float log_second = from && p + 1 < s.length ? from[here.place(p + 1) * s.step] : 0.0f;
    const float first = polyline_gpu::counted(log_first, polyline_gpu::limit_bf16);
    const float second = polyline_gpu::counted(log_second, polyline_gpu::limit_bf16);
    const float up_to = detail::running_sum(first + second, lane);
    const float left = __shfl_up_sync(~0u, up_to, 1),
                sum = before + (lane > 0 ? left : 0.0f) + first;
    before += __shfl_sync(~0u, up_to, 31);
    if (p < padded)
      *reinterpret_cast<float2*>(sums + head * padded + p) = {
          p < s.length ? sum * unit : nowhere, p + 1 < s.length ? (sum + second) * unit : nowhere};
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
