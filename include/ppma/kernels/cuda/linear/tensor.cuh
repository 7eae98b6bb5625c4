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

/// Transposed: an 8 x 8 matrix of which each lane holds two elements of a row.
__device__ __forceinline__ unsigned transposed(unsigned x) {
  unsigned y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
/// The diagonal of c (16,16), of which a row's four lanes have its element or zero; h: 8 rows.
__device__ __forceinline__ float diagonal(const float (&c)[2][4], int h) {
  const int lane = lane_index();
  return lane % 4 != lane / 8 ? 0.f : lane / 4 % 2 == 0 ? c[h][2 * h] : c[h][2 * h + 1];
}

/// Of a warp's line, what queries before and behind its chunk are to the places in it: left
/// factors, of a lane each.
template <int D>
using QueryStates = uint4[2][part_of<D> / 16][D / 16][32];

/// A warp a chunk of a line, its 16 M queries. Grid (groups of lines x chunks x parts, planes,
/// passes).
template <int D, bool gradients>
__global__ void __launch_bounds__(mix_warps * 32)
    mix(Grid g, const __grid_constant__ Passes passes, const float* sums) {
  constexpr int R = part_of<D>, parts = D / R, M = query_tiles<D>, chunk = query_block<D>;
  constexpr int P = stage_places<D>, threads = 32 / P;
  extern __shared__ __align__(16) unsigned char shared[];
  Stage<D>* const stages = reinterpret_cast<Stage<D>*>(shared);
  [[maybe_unused]] __shared__ __align__(16) float lane_sums[gradients ? mix_warps : 1][P][32];
  cuda::wait();
  const Pass pass = passes.pass[blockIdx.z];
  const Lines s = g.lines(pass.turned);
  const int groups = (s.count + mix_warps - 1) / mix_warps;
  const int chunks = (s.length + chunk - 1) / chunk;
  const int group = static_cast<int>(blockIdx.x) % groups,
            rest = static_cast<int>(blockIdx.x) / groups;
  const int at = rest % chunks, part = rest / chunks;
  if (part >= parts) return;  // turned, there may be fewer
  const int lane = lane_index();
  const int line = group * mix_warps + warp_index(), block = group * mix_warps / block_lines,
            first_line = block * block_lines, last_line = ::min(first_line + 15, s.count - 1);
  const int first = at * chunk, last = ::min(first + chunk, s.length) - 1;
  const bool active = line < s.count;
  const i64 plane = blockIdx.y, head = g.first_of(plane);
  const float* const along = sums + (pass.turned ? g.all() : 0) + plane * g.tokens();
  const bool bordered = pass.states != nullptr;
  const Fetch<D> fetch(g, s, pass, plane, block, part, last + 1, sums);
  fetch(stages[0], first);
  fetch(stages[1], first + P);

  // Queries: lane's rows are lane / 4 + 8 h of each 16.
  const int row0 = first + lane / 4;
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
      const i64 from = head + static_cast<i64>(token) * g.channels();
      own[m][h] = there ? along[token] : -1e30f;
      const auto pair = [&](const bf16* tokens, int c) {
        return there && c < g.d ? *reinterpret_cast<const unsigned*>(tokens + from + c) : 0u;
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
  [[maybe_unused]] float* const dsums =
      gradients
          ? pass.dsums + part * passes.layer_step + (pass.turned ? g.all() : 0) + plane * g.tokens()
          : nullptr;
  // The queries' results from z, which is Z^T at `place`, `there` of the line's sums, as right
  // factors: pieces [row of w][column of x]. The sum over queries for the gradient at that place.
  const auto query = [&](const unsigned(&z)[R / 8][D / 8], float there, int place) {
    float column_sum = 0;
#pragma unroll
    for (int pair = 0; pair < M; pair += 2) {
      if (first + 16 * pair >= s.length) break;
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
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int j = row0 + 16 * m + 8 * h;
            const float dot = diagonal(square, h);
            const float d = j == place ? 0.f : f[h] * (j > place ? dot : -dot);
            row_sums[m][h] += d, column_sum -= d;
          }
        }
      }
    }
    return column_sum;
  };

  // Places of other chunks.
  [[maybe_unused]] uint4(*const of_queries)[R / 16][D / 16][32] =
      reinterpret_cast<QueryStates<D>*>(shared + 3 * sizeof(Stage<D>))[warp_index()];
  [[maybe_unused]] float ends[2] = {}, passing = 0;
  // This lane's part of the sum over queries of one side's chunks of their dots with z.
  [[maybe_unused]] const auto dots = [&](int which, const unsigned(&z)[R / 8][D / 8]) {
    float square[2][4] = {};
#pragma unroll
    for (int u = 0; u < R / 16; ++u)
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        const uint4 q = of_queries[which][u][i][lane];
        const unsigned left[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int h = 0; h < 2; ++h)
          multiply(square[h], left, z[2 * u + h][2 * i], z[2 * u + h][2 * i + 1]);
      }
    return diagonal(square, 0) + diagonal(square, 1);
  };
  if (active && chunks > 1) {
    if constexpr (gradients) {
#pragma unroll
      for (int which = 0; which < 2; ++which) {
        if (which == 0 ? at == 0 : at + 1 == chunks) continue;
        ends[which] = along[s.token(line, which == 0 ? first : last)];
        const int borders = (s.length + block_lines - 1) / block_lines,
                  c = which == 0 ? first / block_lines : last / block_lines;
        const bf16* const from = pass.queries +
                                 (((plane * borders + c) * s.count + line) * 2 + which) * (D * D) +
                                 lane * 2;
#pragma unroll
        for (int u = 0; u < R / 16; ++u)
#pragma unroll
          for (int i = 0; i < D / 16; ++i) {
            const auto piece = [&](int row, int column) {
              return *reinterpret_cast<const unsigned*>(
                  from + ((part * (R / 8) + 2 * u + row) * (D / 8) + 2 * i + column) * 64);
            };
            of_queries[which][u][i][lane] = {piece(0, 0), piece(1, 0), piece(0, 1), piece(1, 1)};
          }
      }
    }
#pragma unroll
    for (int which = 0; which < 2; ++which) {
      const int begin = which == 0 ? 0 : at + 1, end = which == 0 ? at : chunks;
      if (begin == end) continue;
      const float border = along[s.token(line, which == 0 ? first : last)];
      float sum[R / 8][D / 8][2] = {};
      for (int c = begin; c < end; ++c) {
        const int edge = which == 0 ? c * chunk + chunk - 1 : c * chunk;  // next to this chunk
        const float f = decay_between(border, along[s.token(line, edge)]);
        const bf16* const from = pass.chunks +
                                 (((plane * s.count + line) * chunks + c) * 2 + which) * (D * D) +
                                 lane * 2;
#pragma unroll
        for (int t = 0; t < R / 8; ++t)
#pragma unroll
          for (int v = 0; v < D / 8; ++v) {
            const int row = part * (R / 8) + t;
            const unsigned two = *reinterpret_cast<const unsigned*>(
                from + (pass.exchanged ? v * (D / 8) + row : row * (D / 8) + v) * 64);
            sum[t][v][0] += f * __uint_as_float(two << 16);
            sum[t][v][1] += f * __uint_as_float(two & 0xffff0000u);
          }
      }
      unsigned z[R / 8][D / 8];
#pragma unroll
      for (int t = 0; t < R / 8; ++t)
#pragma unroll
        for (int v = 0; v < D / 8; ++v) {
          z[t][v] = detail::rounded_pair(sum[t][v][0], sum[t][v][1]);
          if (pass.exchanged) z[t][v] = transposed(z[t][v]);
        }
      [[maybe_unused]] const float far = query(z, border, which == 0 ? -1 : s.length);
      if constexpr (gradients) {
        if (which == 1) passing += far;
        if (at > 0 && at + 1 < chunks)
          passing += decay_between(ends[0], ends[1]) * dots(1 - which, z);
      }
    }
  }

  float ahead = 0;  // of the next 32 places, a lane each
  for (int first_place = first, stage = 0; first_place <= last;
       first_place += P, stage = stage == 2 ? 0 : stage + 1) {
    if (first_place % 32 == 0 && active)
      ahead = along[s.token(line, ::min(first_place + lane, s.length - 1))];
    detail::copies_done<1>();
    __syncthreads();
    fetch(stages[stage == 0 ? 2 : stage - 1], first_place + 2 * P);
    const Stage<D>& here = stages[stage];
    const int count = active ? ::min(P, last + 1 - first_place) : 0;
#pragma unroll 1
    for (int n = 0; n < count; ++n) {
      const int place = first_place + n;
      const float* const line_sums = here.sums[n];
      unsigned z[R / 8][D / 8];
      {
        const float mine = line_sums[line - first_line];
        const float2 near = *reinterpret_cast<const float2*>(line_sums + lane % 4 * 2),
                     far = *reinterpret_cast<const float2*>(line_sums + 8 + lane % 4 * 2);
        const float weight[4] = {decay_between(mine, near.x), decay_between(mine, near.y),
                                 decay_between(mine, far.x), decay_between(mine, far.y)};
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
            const float f = decay_between(mine, line_sums[which == 0 ? 0 : last_line - first_line]);
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
      [[maybe_unused]] float column_sum = query(z, there, place);
      if constexpr (gradients) {
#pragma unroll
        for (int which = 0; which < 2; ++which) {  // queries of other chunks
          if (which == 0 ? at == 0 : at + 1 == chunks) continue;
          const float d = decay_between(ends[which], there) * dots(which, z);
          column_sum += which == 0 ? d : -d;
          if (which == 1) passing += d;
        }
        lane_sums[warp_index()][n][lane] = column_sum;
      }
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
  if constexpr (gradients) {
    __syncwarp();
    if (chunks > 1) {
#pragma unroll
      for (int far = 16; far > 0; far /= 2) passing += __shfl_xor_sync(~0u, passing, far);
      if (lane == 0)
        pass.passing[part * passes.passing_step + (plane * s.count + line) * chunks + at] = passing;
    }
  }
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
