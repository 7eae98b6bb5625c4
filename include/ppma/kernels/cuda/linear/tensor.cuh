#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA in bf16 on the tensor cores, sums in float (algorithm 2.3).
//
//   y[i,j] = sum over l of A_i[j,l] ( q[i,j]^T Z[i,l] )
//   Z[i,l] = sum over k of B_l[i,k] k[k,l] v[k,l]^T
//
// is V2H, and H2V the same with rows and columns exchanged (turned). Z is linear in the number of
// tokens: what a block of 16 rows sees above and below are two matrices a column (states.cuh), and
// the block's own 16 tokens are one product, 16 deep. (On sequences such a chunked form is Hua et
// al., Transformer quality in linear time, 2022, and Dao & Gu, Transformers are SSMs, 2024.) A warp
// has one row i: it makes Z[i,l] for one column after another, in registers, where a result is the
// right factor of the next product; that is the one with up to 64 queries of the row, which wait in
// registers with their y. A token costs, a path, L d^2 multiply-adds in a line of L tokens, and
// L / 64 times 16 d^2 for Z.
//
// The gradients of q, k and v are three more of its kind, each with the paths of its own:
//   dq = ((dy v^T) * L) k,   dk = ((v dy^T) * L^T) q,   dv = ((k q^T) * L^T) dy
// In the first, D = A_i[j,l] (dy[i,j]^T Z[i,l]^T) q[i,j] is the gradient of ln A_i[j,l], in the
// second that of ln B_l[i,k] in the same way. The dots of 16 queries are the diagonal of a product,
// of dy^T Z^T, rounded to bf16, and q^T. Of D go to the running sums' gradients: its sums over l,
// by lanes, and over j, by warps. What two warps add to one number goes to layers of its own.

#include "ppma/kernels/cuda/linear/stages.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_tensor {

/// Queries of a warp, in tiles of 16: as many as there are registers for.
template <int D>
inline constexpr int query_tiles = D <= 32 ? 4 : 2;
template <int D>
inline constexpr int query_block = 16 * query_tiles<D>;

__device__ __forceinline__ unsigned added(unsigned f, unsigned x, unsigned y) {
  const __nv_bfloat162 z = __hfma2(reinterpret_cast<const __nv_bfloat162&>(f),
                                   reinterpret_cast<const __nv_bfloat162&>(x),
                                   reinterpret_cast<const __nv_bfloat162&>(y));
  return reinterpret_cast<const unsigned&>(z);
}

/// A warp a line, 16 M queries. Grid (groups of lines x blocks of queries x parts, planes, passes).
template <int D, bool gradients>
__global__ void __launch_bounds__(mix_warps * 32)
    mix(Grid g, const __grid_constant__ Passes passes, const float* sums) {
  constexpr int R = part_of<D>, parts = D / R, M = query_tiles<D>;
  constexpr int P = stage_places<D>, threads = 32 / P;
  extern __shared__ __align__(16) unsigned char shared[];
  Stage<D>* const stages = reinterpret_cast<Stage<D>*>(shared);
  [[maybe_unused]] __shared__ __align__(16) float lane_sums[gradients ? mix_warps : 1][P][32];
  cuda::wait();
  const Pass pass = passes.pass[blockIdx.z];
  const Lines s = g.lines(pass.turned);
  const int groups = (s.count + mix_warps - 1) / mix_warps;
  const int tiles = (s.length + 16 * M - 1) / (16 * M);
  const int group = static_cast<int>(blockIdx.x) % groups,
            rest = static_cast<int>(blockIdx.x) / groups;
  const int tile = rest % tiles, part = rest / tiles;
  if (part >= parts) return;  // turned, there may be fewer
  const int lane = lane_index();
  const int line = group * mix_warps + warp_index(), block = group * mix_warps / block_lines,
            first_line = block * block_lines, last_line = ::min(first_line + 15, s.count - 1);
  const bool active = line < s.count;
  const i64 plane = blockIdx.y, head = g.first_of(plane);
  const float* const along = sums + (pass.turned ? g.all() : 0) + plane * g.tokens();
  const bool bordered = pass.states != nullptr;
  const Fetch<D> fetch(g, s, pass, plane, block, part, sums);
  fetch(stages[0], 0);
  fetch(stages[1], P);

  // Queries: lane's rows are lane / 4 + 8 h of each 16.
  const int row0 = tile * 16 * M + lane / 4;
  unsigned p[M][D / 16][4], r[gradients ? M : 1][R / 16][4];
  float own[M][2], y[M][R / 8][4] = {};
  [[maybe_unused]] float row_sums[M][2] = {};
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int j = row0 + 16 * m + 8 * h;
      const bool there = active && j < s.length;
      const int token = there ? s.token(line, j) : 0;
      const i64 at = head + static_cast<i64>(token) * g.channels();
      own[m][h] = there ? along[token] : -1e30f;
      const auto pair = [&](const bf16* from, int c) {
        return there && c < g.d ? *reinterpret_cast<const unsigned*>(from + at + c) : 0u;
      };
#pragma unroll
      for (int i = 0; i < D / 16; ++i)
#pragma unroll
        for (int f = 0; f < 2; ++f)
          p[m][i][h + 2 * f] = pair(pass.p, i * 16 + f * 8 + lane % 4 * 2);
      if constexpr (gradients)
#pragma unroll
        for (int i = 0; i < R / 16; ++i)
#pragma unroll
          for (int f = 0; f < 2; ++f)
            r[m][i][h + 2 * f] = pair(pass.row, part * R + i * 16 + f * 8 + lane % 4 * 2);
    }
  float* const dsums = gradients ? pass.dsums + (rest * passes.layer_step) +
                                       (pass.turned ? g.all() : 0) + plane * g.tokens()
                                 : nullptr;

  float ahead = 0;  // of the next 32 places, a lane each
  for (int first_place = 0, stage = 0; first_place < s.length;
       first_place += P, stage = stage == 2 ? 0 : stage + 1) {
    if (first_place % 32 == 0 && active)
      ahead = along[s.token(line, ::min(first_place + lane, s.length - 1))];
    detail::copies_done<1>();
    __syncthreads();
    fetch(stages[stage == 0 ? 2 : stage - 1], first_place + 2 * P);
    const Stage<D>& here = stages[stage];
    const int count = active ? ::min(P, s.length - first_place) : 0;
#pragma unroll 1
    for (int n = 0; n < count; ++n) {
      const int place = first_place + n;
      const float* const line_sums = here.sums[n];
      // z = Z^T of this line and place, as right factors: pieces [row of w][column of x]
      unsigned z[R / 8][D / 8];
      {
        const float at = line_sums[line - first_line];
        const float2 near = *reinterpret_cast<const float2*>(line_sums + lane % 4 * 2),
                     far = *reinterpret_cast<const float2*>(line_sums + 8 + lane % 4 * 2);
        const float weight[4] = {decay_between(at, near.x), decay_between(at, near.y),
                                 decay_between(at, far.x), decay_between(at, far.y)};
        float sum[R / 16][D / 8][4] = {};
        add_tokens<R, D>(sum, here.x[n], here.w[n], weight);
#pragma unroll
        for (int u = 0; u < R / 16; ++u)
#pragma unroll
          for (int v = 0; v < D / 8; ++v) {
            z[2 * u][v] = detail::rounded_pair(sum[u][v][0], sum[u][v][1]);
            z[2 * u + 1][v] = detail::rounded_pair(sum[u][v][2], sum[u][v][3]);
          }
        if (bordered)
#pragma unroll
          for (int which = 0; which < 2; ++which) {
            const float f = decay_between(at, line_sums[which == 0 ? 0 : last_line - first_line]);
            const unsigned factor = detail::rounded_pair(f, f);
            const bf16* const from = here.states[n][which] + lane * 8;
#pragma unroll
            for (int e = 0; e < R * D / 64; e += 4) {
              unsigned four[4];
              if (pass.exchanged)
                load_turned(four, from + e * 64);
              else
                load_matrices(four, from + e * 64);
#pragma unroll
              for (int i = 0; i < 4; ++i) {
                unsigned& to = z[(e + i) / (D / 8)][(e + i) % (D / 8)];
                to = added(factor, four[i], to);
              }
            }
          }
      }
      const float there = __shfl_sync(~0u, ahead, place % 32);
      [[maybe_unused]] float column_sum = 0;
#pragma unroll
      for (int pair = 0; pair < M; pair += 2) {
        if (tile * 16 * M + 16 * pair >= s.length) break;
#pragma unroll
        for (int m = pair; m < pair + 2; ++m) {
          const float f[2] = {decay_between(own[m][0], there), decay_between(own[m][1], there)};
          [[maybe_unused]] float square[2][4] = {};  // c r^T, 16 x 16
#pragma unroll
          for (int t = 0; t < R / 8; t += 2) {
            float c[2][4] = {};
#pragma unroll
            for (int e = 0; e < 2; ++e)
#pragma unroll
              for (int i = 0; i < D / 16; ++i)
                multiply(c[e], p[m][i], z[t + e][2 * i], z[t + e][2 * i + 1]);
#pragma unroll
            for (int e = 0; e < 2; ++e)
#pragma unroll
              for (int h = 0; h < 2; ++h)
                y[m][t + e][2 * h] += f[h] * c[e][2 * h],
                    y[m][t + e][2 * h + 1] += f[h] * c[e][2 * h + 1];
            if constexpr (gradients) {
              unsigned left[4];
              detail::as_left(left, c[0], c[1]);
              multiply(square[0], left, r[m][t / 2][0], r[m][t / 2][2]);
              multiply(square[1], left, r[m][t / 2][1], r[m][t / 2][3]);
            }
          }
          if constexpr (gradients) {
            // Of a row's four lanes one has its element of the diagonal, the others zero.
            const bool diagonal = lane % 4 == lane / 8;
            float dot[2];
            dot[0] = !diagonal ? 0.f : lane / 4 % 2 == 0 ? square[0][0] : square[0][1];
            dot[1] = !diagonal ? 0.f : lane / 4 % 2 == 0 ? square[1][2] : square[1][3];
#pragma unroll
            for (int h = 0; h < 2; ++h) {
              const int j = row0 + 16 * m + 8 * h;
              const float d = j == place ? 0.f : f[h] * (j > place ? dot[h] : -dot[h]);
              row_sums[m][h] += d, column_sum -= d;
            }
          }
        }
      }
      if constexpr (gradients) lane_sums[warp_index()][n][lane] = column_sum;
    }
    if constexpr (gradients) {  // of the stage's places, a group of lanes each
      __syncwarp();
      const int n = lane / threads;
      float sum = 0;
#pragma unroll
      for (int i = 0; i < P; ++i) sum += lane_sums[warp_index()][n][lane % threads * P + i];
#pragma unroll
      for (int far = threads / 2; far > 0; far /= 2) sum += __shfl_xor_sync(~0u, sum, far);
      if (lane % threads == 0 && n < count) dsums[s.token(line, first_place + n)] = sum;
    }
  }
  if (!active) return;
  if constexpr (gradients) __syncwarp();
#pragma unroll
  for (int m = 0; m < M; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int j = row0 + 16 * m + 8 * h;
      if constexpr (gradients) {
        float sum = row_sums[m][h];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (lane % 4 == 0 && j < s.length) dsums[s.token(line, j)] += sum;
      }
      if (j >= s.length) continue;
      float* const to = pass.y + head + static_cast<i64>(s.token(line, j)) * g.channels();
#pragma unroll
      for (int t = 0; t < R / 8; ++t) {
        const int c = part * R + t * 8 + lane % 4 * 2;
        if (c < g.d) *reinterpret_cast<float2*>(to + c) = {y[m][t][2 * h], y[m][t][2 * h + 1]};
      }
    }
}

}  // namespace ppma::inline PPMA_ABI::kernels::linear_tensor

#include "ppma/core/names_end.hpp"
