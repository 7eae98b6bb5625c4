#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA in bf16 on the tensor cores: what the rest of a line sees of a chunk of its places (the
// idea of the whole is in tensor.cuh).
//
//   right[i] = sum over l of A_i[last,l] Z[i,l],   left[i] = sum over l of A_i[first,l] Z[i,l]
//
// with l over the chunk, Z over all tokens of its crossings. For a block of 16 lines these are
// products (16 x 16) (16 x D^2): of weights A B, and of 16 tokens' w x^T, or of 16 places' states.
// A block of threads has up to 1024 of the D^2 entries, a warp 64 of them, which it makes in
// registers: entries (a, b) of 16 tokens are the fragments of w's channel a times those of x's b.

#include "ppma/kernels/cuda/linear/stages.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_tensor {

/// What chunks' states are made of, and where they go.
struct ChunkJob {
  const bf16 *x, *w;   // tokens
  const bf16* states;  // at blocks' borders; null where one block has all lines
  bf16* to;            // (planes, lines, chunks, 2) matrices in pieces as `states` has them
  bool turned;
};
struct ChunkJobs {
  ChunkJob job[4];
};

/// Entries of a block, of a warp, and a block's warps.
template <int D>
inline constexpr int chunk_entries = D* D < 1024 ? D* D : 1024;
inline constexpr int warp_entries = 64;
template <int D>
inline constexpr int chunk_warps = chunk_entries<D> / warp_entries;
/// Places that wait in shared memory together.
inline constexpr int group_places = 16;

/// Of 16 places: the tokens of the block's lines, and sums along crossings and lines.
template <int D>
struct alignas(16) ChunkGroup {
  static constexpr int rows = chunk_entries<D> / D;  // of w
  bf16 x[group_places][block_lines * tile_stride<D>],
      w[group_places][block_lines * tile_stride<rows>];
  float across[group_places][block_lines], along[group_places][block_lines];
};
template <int D>
struct alignas(16) ChunkRoom {
  ChunkGroup<D> group[2];
  bf16 states[2][group_places][chunk_entries<D> + 8];
  uint4 weights[group_places][2][32];  // left factors, of a lane each
};

/// Grid (blocks of lines x chunks x parts, planes, jobs).
template <int D>
__global__ void __launch_bounds__(chunk_warps<D> * 32)
    chunk_states(Grid g, const __grid_constant__ ChunkJobs jobs, int chunk, const float* sums) {
  using Group = ChunkGroup<D>;
  constexpr int rows = Group::rows, parts = D / rows, warps = chunk_warps<D>, threads = warps * 32;
  constexpr int entries = chunk_entries<D>, own = warp_entries / D;  // rows of w of a warp
  extern __shared__ __align__(16) unsigned char shared[];
  ChunkRoom<D>& room = *reinterpret_cast<ChunkRoom<D>*>(shared);
  cuda::wait();
  const ChunkJob job = jobs.job[blockIdx.z];
  const Lines s = g.lines(job.turned);
  const int blocks = s.blocks(), chunks = (s.length + chunk - 1) / chunk;
  const int block = static_cast<int>(blockIdx.x) % blocks,
            rest = static_cast<int>(blockIdx.x) / blocks;
  const int at = rest % chunks, part = rest / chunks;
  if (part >= parts) return;  // turned, there may be fewer
  const i64 plane = blockIdx.y;
  const int first_line = block * block_lines, last_line = ::min(first_line + 15, s.count - 1);
  const int first = at * chunk, last = ::min(first + chunk, s.length) - 1;
  const int groups = (last - first) / group_places + 1;
  const int thread = static_cast<int>(threadIdx.x), lane = lane_index(), warp = warp_index();
  const bf16 *const x = job.x + g.first_of(plane), *const w = job.w + g.first_of(plane);
  const float* const across = sums + (job.turned ? 0 : g.all()) + plane * g.tokens();
  const float* const along = sums + (job.turned ? g.all() : 0) + plane * g.tokens();

  const auto fetch_tokens = [&](int n) {
    if (n < groups) {
      Group& to = room.group[n % 2];
      for (int p = warp; p < group_places; p += warps) {
        const int place = first + n * group_places + p;
        if (place > last) break;
        fetch_tile<D>(to.x[p], x, g, s, first_line, place, 0, lane, 32);
        fetch_tile<rows>(to.w[p], w, g, s, first_line, place, part * rows, lane, 32);
      }
      for (int e = thread; e < group_places * block_lines; e += threads) {
        const int p = e / block_lines, line = e % block_lines;
        const int token = s.token(::min(first_line + line, s.count - 1),
                                  ::min(first + n * group_places + p, last));
        copy_async_word(&to.across[p][line], across + token, true);
        copy_async_word(&to.along[p][line], along + token, true);
      }
    }
    detail::copies_issued();
  };
  const auto fetch_states = [&](int n) {
    if (n < groups && job.states != nullptr) {
      const bf16* const from =
          job.states + (plane * blocks + block) * s.length * (2 * D * D) + part * entries;
      constexpr int pieces = entries / 8;
      for (int e = thread; e < 2 * group_places * pieces; e += threads) {
        const int state = e / pieces, c = e % pieces * 8, p = state / 2;
        const int place = first + n * group_places + p;
        detail::copy_async(
            &room.states[state % 2][p][c],
            from + static_cast<i64>(::min(place, last) * 2 + state % 2) * (D * D) + c,
            place <= last);
      }
    }
    detail::copies_issued();
  };
  fetch_tokens(0);
  fetch_states(0);
  float ends[2][2];  // sums of this lane's lines at the chunk's last place, and at its first
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int line = ::min(first_line + lane / 4 + 8 * h, s.count - 1);
    ends[0][h] = along[s.token(line, last)], ends[1][h] = along[s.token(line, first)];
  }
  // Where entries (row n of the warp's, columns from 8 v on) lie in a matrix in pieces.
  const auto entry = [&](int t) {
    const int row = warp * own + t / (D / 8);
    return (row / 8 * (D / 8) + t % (D / 8)) * 64 + row % 8 * 8;
  };
  float z[2][warp_entries / 8][4] = {};
  for (int n = 0; n < groups; ++n) {
    const Group& here = room.group[n % 2];
    detail::copies_done<0>();
    __syncthreads();
    fetch_tokens(n + 1);
#pragma unroll 1
    for (int p = warp; p < group_places; p += warps) {
      float decay[2][4], near[2][2];
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const int i = lane / 4 + 8 * h;
#pragma unroll
        for (int k = 0; k < 4; ++k)
          decay[h][k] =
              decay_between(here.across[p][i], here.across[p][lane % 4 * 2 + k % 2 + k / 2 * 8]);
#pragma unroll
        for (int way = 0; way < 2; ++way)
          near[way][h] = decay_between(ends[way][h], here.along[p][i]);
      }
#pragma unroll
      for (int way = 0; way < 2; ++way) {
        unsigned a[4];
#pragma unroll
        for (int e = 0; e < 4; ++e)
          a[e] = detail::rounded_pair(near[way][e % 2] * decay[e % 2][e / 2 * 2],
                                      near[way][e % 2] * decay[e % 2][e / 2 * 2 + 1]);
        room.weights[p][way][lane] = {a[0], a[1], a[2], a[3]};
      }
    }
    if (job.states != nullptr)
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        const int border = which == 0 ? 0 : last_line - first_line;
        unsigned a[2][4];
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int h = e % 2, i = lane / 4 + 8 * h, p = lane % 4 * 2 + e / 2 * 8;
          float f[2];
#pragma unroll
          for (int k = 0; k < 2; ++k)
            f[k] = decay_between(here.across[p + k][i], here.across[p + k][border]);
#pragma unroll
          for (int way = 0; way < 2; ++way)
            a[way][e] =
                detail::rounded_pair(f[0] * decay_between(ends[way][h], here.along[p][i]),
                                     f[1] * decay_between(ends[way][h], here.along[p + 1][i]));
        }
#pragma unroll
        for (int t = 0; t < warp_entries / 8; t += 2) {
          unsigned b[4];
          load_turned(b, &room.states[which][lane % 16][entry(t) + lane / 16 * 64]);
#pragma unroll
          for (int way = 0; way < 2; ++way) {
            multiply(z[way][t], a[way], b[0], b[1]);
            multiply(z[way][t + 1], a[way], b[2], b[3]);
          }
        }
      }
    __syncthreads();
    fetch_states(n + 1);
    const int count = ::min(group_places, last - first - n * group_places + 1);
#pragma unroll 1
    for (int pair = 0; pair < count; pair += 2) {
      unsigned of_w[4];  // 8 rows of two places
      load_turned(of_w, here.w[::min(pair + lane / 16, count - 1)] + lane % 16 * tile_stride<rows> +
                            warp * own / 8 * 8);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int p = pair + e;
        if (p >= count) break;
        const uint4 r = room.weights[p][0][lane], l = room.weights[p][1][lane];
        const unsigned right[4] = {r.x, r.y, r.z, r.w}, left[4] = {l.x, l.y, l.z, l.w};
        unsigned of_x[D / 16][4];
#pragma unroll
        for (int v = 0; v < D / 16; ++v)
          load_turned(of_x[v], here.x[p] + lane % 16 * tile_stride<D> + v * 16 + lane / 16 * 8);
#pragma unroll
        for (int i = 0; i < own; ++i) {
          const int from = (warp * own + i) % 8 * 4 + lane % 4;
          const unsigned near = __shfl_sync(~0u, of_w[2 * e], from),
                         far = __shfl_sync(~0u, of_w[2 * e + 1], from);
#pragma unroll
          for (int v = 0; v < D / 8; ++v) {
            const unsigned b0 = times(near, of_x[v / 2][v % 2 * 2]),
                           b1 = times(far, of_x[v / 2][v % 2 * 2 + 1]);
            multiply(z[0][i * (D / 8) + v], right, b0, b1);
            multiply(z[1][i * (D / 8) + v], left, b0, b1);
          }
        }
      }
    }
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int line = first_line + lane / 4 + 8 * h;
    if (line >= s.count) break;
#pragma unroll
    for (int way = 0; way < 2; ++way) {
      bf16* const to = job.to + (((plane * s.count + line) * chunks + at) * 2 + way) * (D * D) +
                       part * entries + lane % 4 * 2;
#pragma unroll
      for (int t = 0; t < warp_entries / 8; ++t)
        *reinterpret_cast<unsigned*>(to + entry(t)) =
            detail::rounded_pair(z[way][t][2 * h], z[way][t][2 * h + 1]);
    }
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::linear_tensor

#include "ppma/core/names_end.hpp"
