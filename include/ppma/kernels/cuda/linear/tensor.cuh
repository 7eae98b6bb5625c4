#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA in bf16 on the tensor cores, sums in float (algorithm 2.3).
//
//   y[i,j] = sum over l of A_i[j,l] ( q[i,j]^T Z[i,l] )
//   Z[i,l] = sum over k of B_l[i,k] k[k,l] v[k,l]^T
//
// is V2H, and H2V the same with rows and columns exchanged (turned). Z is linear in the number of
// tokens: what a block of 16 rows sees above and below are two matrices a column (states.cuh), and
// the block's own 16 tokens are one product, 16 deep. The sum over l is linear as well: what a
// chunk of columns sees left and right are two matrices a row (chunks.cuh). (On sequences
// such a chunked form is Hua et al., Transformer quality in linear time, 2022, and Dao & Gu,
// Transformers are SSMs, 2024.) A warp has the queries of one chunk of a row i, with their y in
// registers (queries.cuh): it makes Z[i,l] for one of its columns after another, in registers,
// where a result is the right factor of the product with the queries. A token costs, a path,
// (C + 16) d^2 multiply-adds in chunks of C, and 36 d^2 for the chunks' states. A line of up to 64
// places is one chunk, a longer one is taken in chunks of 32 (with heads wider than 32: always).
//
// The gradients of q, k and v are three more of its kind, each with the paths of its own:
//   dq = ((dy v^T) * L) k,   dk = ((v dy^T) * L^T) q,   dv = ((k q^T) * L^T) dy
// In the first, D = A_i[j,l] (dy[i,j]^T Z[i,l]^T) q[i,j] is the gradient of ln A_i[j,l], in the
// second that of ln B_l[i,k] in the same way. The dots of 16 queries are the diagonal of a product,
// of dy^T Z^T, rounded to bf16, and q^T. Of D go to the running sums' gradients: its sums over l,
// by lanes, and over j, by warps. With l in another chunk its sums over l are a product with what
// is seen of that, and its sums over j, for one l, the dot of Z[i,l] with what the queries of other
// chunks are, which as a state of tokens dy, q along the row is there already: one of the other
// kind of lines. A log decay's gradient is the sum of D over pairs j, l on two sides of it: inside
// the chunk from running sums, and `passing` is what goes over its last column. What two warps add
// to one number goes to layers of its own.

#include "ppma/kernels/cuda/linear/queries.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_tensor {

/// A warp a chunk of a line; if not `chunked`, a line is one chunk. Grid (groups of lines x chunks
/// x parts, planes, passes).
template <int D, bool gradients, bool chunked>
__global__ void __launch_bounds__(mix_warps * 32, !gradients && D <= (chunked ? 32 : 16) ? 2 : 1)
    mix(Grid g, const __grid_constant__ Passes passes, const float* sums) {
  constexpr int R = part_of<D>, parts = D / R, M = query_tiles<D, chunked>, chunk = 16 * M;
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
  Queries<D, M, gradients> queries(g, s, pass, along, head, part, active, line, first);
  [[maybe_unused]] float* const dsums =
      gradients
          ? pass.dsums + part * passes.layer_step + (pass.turned ? g.all() : 0) + plane * g.tokens()
          : nullptr;

  [[maybe_unused]] OtherQueries<D>& others =
      reinterpret_cast<OtherQueries<D>*>(shared + 3 * sizeof(Stage<D>))[warp_index()];
  [[maybe_unused]] float ends[2] = {}, passing = 0;
  const bool sides[2] = {chunked && active && at > 0, chunked && active && at + 1 < chunks};
#pragma unroll
  for (int side = 0; side < 2; ++side)
    if (sides[side]) {
      const int place = side == 0 ? first : last;
      ends[side] = along[s.token(line, place)];
      if constexpr (gradients) others.fetch(pass, s, plane, line, place, side, part);
    }
#pragma unroll
  for (int side = 0; side < 2; ++side)
    if (sides[side]) {
      Place<D> z;
      passed<D>(z, pass, chunk, s, plane, line, side == 0 ? first : last, side, part, along,
                ends[side]);
      [[maybe_unused]] const float d = queries.add(z, ends[side], side == 0 ? -1 : s.length);
      if constexpr (gradients) {
        if (side == 1) passing += d;
        if (sides[1 - side]) passing += decay_between(ends[0], ends[1]) * others.dots(1 - side, z);
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
      Place<D> z;
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
      [[maybe_unused]] float of_place = queries.add(z, there, place);
      if constexpr (gradients) {
#pragma unroll
        for (int side = 0; side < 2; ++side) {
          if (!sides[side]) continue;
          const float d = decay_between(ends[side], there) * others.dots(side, z);
          of_place += side == 0 ? d : -d;
          if (side == 1) passing += d;
        }
        lane_sums[warp_index()][n][lane] = of_place;
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
    if (chunked) {
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
      const int j = queries.row0 + 16 * m + 8 * h;
      if constexpr (gradients) {
        float sum = queries.sums[m][h];
        sum += __shfl_xor_sync(~0u, sum, 1);
        sum += __shfl_xor_sync(~0u, sum, 2);
        if (lane % 4 == 0 && j < s.length) dsums[s.token(line, j)] += sum;
      }
      if (j >= s.length) continue;
      float* const to = pass.y + head + static_cast<i64>(s.token(line, j)) * g.channels();
#pragma unroll
      for (int t = 0; t < R / 8; ++t) {
        const int c = part * R + t * 8 + lane % 4 * 2;
        const float(&y)[4] = queries.y[m][t];
        if (c < g.d) *reinterpret_cast<float2*>(to + c) = {y[2 * h], y[2 * h + 1]};
      }
    }
}

}  // namespace ppma::inline PPMA_ABI::kernels::linear_tensor

#include "ppma/core/names_end.hpp"
