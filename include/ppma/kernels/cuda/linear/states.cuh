#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA in bf16 on the tensor cores: what is prepared for it, sums of decays and states (the idea
// of the whole is in tensor.cuh).
//
// Lines are the grid's rows, or its columns (turned). A place of a line, seen through all lines, is
// a crossing: for rows the column. Along a crossing lines are taken in blocks of 16, and what a
// block sees of the tokens before it is one D x D matrix a crossing, decayed to its first line;
// of those behind it another, decayed to its last line:
//
//   before[c,l] = sum over k < first(c) of e^(b[first(c),l] - b[k,l]) x[k,l] w[k,l]^T
//   behind[c,l] = sum over k > last(c) of e^(b[k,l] - b[last(c),l]) x[k,l] w[k,l]^T
//
// with b the running sums of the log decays along the crossing. A warp has one of these in
// registers and walks from block to block: scaled, and a product of 16 more tokens added.

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/decay_sums.cuh"
#include "ppma/kernels/cuda/lanes.cuh"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_tensor {

using detail::exp2_fast;
using detail::load_matrices;
using detail::load_turned;
using detail::multiply;

inline constexpr int block_lines = 16;
inline constexpr float log2_e = 1.44269504088896341f;

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x) % 32; }
__device__ __forceinline__ int warp_index() { return static_cast<int>(threadIdx.x) / 32; }
/// e^-|x - y| of sums in powers of two.
__device__ __forceinline__ float decay_between(float x, float y) {
  return exp2_fast(-::fabsf(x - y));
}
__device__ __forceinline__ unsigned times(unsigned x, unsigned y) {
  const __nv_bfloat162 z = __hmul2(reinterpret_cast<const __nv_bfloat162&>(x),
                                   reinterpret_cast<const __nv_bfloat162&>(y));
  return reinterpret_cast<const unsigned&>(z);
}

/// A grid as lines: token = line * line_step + place * step.
struct Lines {
  int count, length, line_step, step;
  PPMA_HD int blocks() const { return (count + block_lines - 1) / block_lines; }
  __device__ __forceinline__ int token(int line, int place) const {
    return line * line_step + place * step;
  }
};

/// The grid of all heads.
struct Grid {
  int height, width, heads, d;
  i64 planes;  // batch x heads

  explicit Grid(const AttentionShape& x)
      : height(static_cast<int>(x.height)),
        width(static_cast<int>(x.width)),
        heads(static_cast<int>(x.heads)),
        d(static_cast<int>(x.head_width)),
        planes(x.batch * x.heads) {}
  PPMA_HD int tokens() const { return height * width; }
  PPMA_HD int channels() const { return heads * d; }
  PPMA_HD i64 all() const { return planes * tokens(); }
  PPMA_HD Lines lines(bool turned) const {
    return turned ? Lines{width, height, 1, width} : Lines{height, width, width, 1};
  }
  // Where a head begins in tokens (B,H,W,C).
  __device__ __forceinline__ i64 first_of(i64 plane) const {
    return plane / heads * tokens() * channels() + plane % heads * d;
  }
  /// States of all heads, in matrices: (planes, blocks of lines, places, 2).
  PPMA_HD i64 states(bool turned) const {
    const Lines s = lines(turned);
    return planes * s.blocks() * s.length * 2;
  }
};

/// Line e of all: each head has its rows, then its columns.
struct LineOfAll {
  i64 head;
  bool turned;
  int line;

  __device__ __forceinline__ LineOfAll(const Grid& g, i64 e) : head(e / (g.height + g.width)) {
    const int r = static_cast<int>(e % (g.height + g.width));
    turned = r >= g.height, line = turned ? r - g.height : r;
  }
};

/// sums (2, planes, tokens): of log decays along the rows, then along the columns, in powers of
/// two. A warp a line.
template <class A>
__global__ void __launch_bounds__(128)
    line_sums(Grid g, const A* log_alpha, const A* log_beta, A* sums) {
  cuda::wait();
  const i64 lines = g.planes * (g.height + g.width);
  for (i64 e = cuda::first() / 32; e < lines; e += cuda::stride() / 32) {
    const auto [head, turned, line] = LineOfAll(g, e);
    const Lines s = g.lines(turned);
    const i64 plane = head * g.tokens();
    const float* const from = (turned ? log_beta : log_alpha) + plane;
    float* const to = sums + (turned ? g.all() : 0) + plane;
    const int lane = lane_index();
    float before = 0;
    for (int place = lane; place < s.length + lane; place += 32) {
      float sum = 0;
      if (place > 0 && place < s.length)
        sum = log2_e * polyline_gpu::counted(from[s.token(line, place)], polyline_gpu::limit_bf16);
      sum = detail::running_sum(sum, lane) + before;
      before = __shfl_sync(~0u, sum, 31);
      if (place < s.length) to[s.token(line, place)] = sum;
    }
  }
}

/// Rows of a tile in shared memory that no two threads of a load meet in a bank.
template <int D>
inline constexpr int tile_stride = D + 8;

/// Copies the vectors of a block of lines at one place, 16 tokens of D channels from `channel` on,
/// zeros where there are none; `count` threads, this one number `thread`.
template <int D>
__device__ __forceinline__ void fetch_tile(bf16* to, const bf16* from, const Grid& g,
                                           const Lines& s, int first_line, int place, int channel,
                                           int thread, int count) {
#pragma unroll
  for (int e = thread; e < block_lines * D / 8; e += count) {
    const int line = e / (D / 8), c = e % (D / 8) * 8;
    const bool there = first_line + line < s.count && channel + c < g.d;
    const i64 at =
        there ? static_cast<i64>(s.token(first_line + line, place)) * g.channels() + channel + c
              : 0;
    detail::copy_async(to + line * tile_stride<D> + c, from + at, there);
  }
}

/// z (R,D) += w^T x over the tile's 16 tokens, each with its weight: a lane's are those of tokens
/// 2 (lane % 4) + {0, 1}, and 8 further.
template <int R, int D>
__device__ __forceinline__ void add_tokens(float (&z)[R / 16][D / 8][4], const bf16* x,
                                           const bf16* w, const float (&weight)[4]) {
  const int lane = lane_index();
  const unsigned near = detail::rounded_pair(weight[0], weight[1]),
                 far = detail::rounded_pair(weight[2], weight[3]);
  unsigned a[R / 16][4];
#pragma unroll
  for (int u = 0; u < R / 16; ++u) {
    load_turned(a[u], w + (lane / 16 * 8 + lane % 8) * tile_stride<R> + u * 16 + lane / 8 % 2 * 8);
    a[u][0] = times(a[u][0], near), a[u][1] = times(a[u][1], near);
    a[u][2] = times(a[u][2], far), a[u][3] = times(a[u][3], far);
  }
#pragma unroll
  for (int v = 0; v < D / 8; v += 2) {
    unsigned b[4];
    load_turned(b, x + lane % 16 * tile_stride<D> + v * 8 + lane / 16 * 8);
#pragma unroll
    for (int u = 0; u < R / 16; ++u) {
      multiply(z[u][v], a[u], b[0], b[1]);
      multiply(z[u][v + 1], a[u], b[2], b[3]);
    }
  }
}

/// What states are made of, and where they go.
struct StateJob {
  const bf16 *x, *w;  // tokens
  bf16* to;           // states, each (D / 8, D / 8) pieces of 8 x 8, rows w
  bool turned;
};
struct StateJobs {
  StateJob job[4];
};

inline constexpr int state_warps = 4;
/// Rows of a matrix that a warp takes.
template <int D>
inline constexpr int part_of = D < 32 ? D : 32;

/// A warp for each plane, place, direction and part of rows. Grid (.., planes, jobs).
template <int D>
__global__ void __launch_bounds__(state_warps * 32)
    border_states(Grid g, const __grid_constant__ StateJobs jobs, const float* sums) {
  constexpr int R = part_of<D>, parts = D / R;
  __shared__ __align__(16)
      bf16 tiles[state_warps][3][block_lines * (tile_stride<D> + tile_stride<R>)];
  cuda::wait();
  const StateJob job = jobs.job[blockIdx.z];
  const Lines s = g.lines(job.turned);
  const int lane = lane_index(), e = static_cast<int>(blockIdx.x) * state_warps + warp_index();
  const int place = e / (2 * parts), part = e / 2 % parts * R;
  const bool behind = e % 2 == 1;
  if (place >= s.length) return;
  const i64 plane = blockIdx.y;
  const bf16 *const x = job.x + g.first_of(plane), *const w = job.w + g.first_of(plane);
  // Along crossings run the sums of the other kind of lines.
  const float* const sum = sums + (job.turned ? 0 : g.all()) + plane * g.tokens();
  const int blocks = s.blocks(), way = behind ? -1 : 1;
  const auto sum_at = [&](int line) {
    return sum[s.token(::max(::min(line, s.count - 1), 0), place)];
  };
  const auto border = [&](int c) { return sum_at(c * block_lines + (behind ? 15 : 0)); };
  const auto line_of = [&](int c, int i) {
    return c * block_lines + lane % 4 * 2 + i % 2 + i / 2 * 8;
  };
  const auto fetch = [&](int c, int stage) {
    bf16* const tile = tiles[warp_index()][stage];
    if (c >= (behind ? 1 : 0) && c < (behind ? blocks : blocks - 1)) {  // the last is in none
      fetch_tile<D>(tile, x, g, s, c * block_lines, place, 0, lane, 32);
      fetch_tile<R>(tile + block_lines * tile_stride<D>, w, g, s, c * block_lines, place, part,
                    lane, 32);
    }
    detail::copies_issued();
  };
  // A block's tokens are fetched two steps ahead, sums one.
  float z[R / 16][D / 8][4] = {};
  int c = behind ? blocks - 1 : 0;
  fetch(c, 0);
  fetch(c + way, 1);
  float own = border(c), next = border(c + way), of_lines[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) of_lines[i] = sum_at(line_of(c, i));
  for (int n = 0; n < blocks; ++n, c += way) {
    bf16* const to = job.to + (((plane * blocks + c) * s.length + place) * 2 + behind) * D * D +
                     part / 8 * D * 8 + lane * 2;
#pragma unroll
    for (int u = 0; u < R / 16; ++u)
#pragma unroll
      for (int v = 0; v < D / 8; ++v) {
        *reinterpret_cast<unsigned*>(to + (2 * u * (D / 8) + v) * 64) =
            detail::rounded_pair(z[u][v][0], z[u][v][1]);
        *reinterpret_cast<unsigned*>(to + ((2 * u + 1) * (D / 8) + v) * 64) =
            detail::rounded_pair(z[u][v][2], z[u][v][3]);
      }
    if (n + 1 == blocks) return;
    fetch(c + 2 * way, (n + 2) % 3);
    const float factor = decay_between(own, next);
    float weight[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      weight[i] = line_of(c, i) < s.count ? decay_between(next, of_lines[i]) : 0.f;
      of_lines[i] = sum_at(line_of(c + way, i));
    }
    own = next, next = border(c + 2 * way);
#pragma unroll
    for (int u = 0; u < R / 16; ++u)
#pragma unroll
      for (int v = 0; v < D / 8; ++v)
#pragma unroll
        for (int i = 0; i < 4; ++i) z[u][v][i] *= factor;
    detail::copies_done<2>();
    __syncwarp();
    const bf16* const tile = tiles[warp_index()][n % 3];
    add_tokens<R, D>(z, tile, tile + block_lines * tile_stride<D>, weight);
    __syncwarp();
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::linear_tensor

#include "ppma/core/names_end.hpp"
