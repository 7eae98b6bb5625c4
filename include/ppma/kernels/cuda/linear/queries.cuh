#pragma once
#include "ppma/core/names_begin.hpp"
// PPMLA in bf16 on the tensor cores: the queries of a warp, a chunk of a line, and what the places
// of the line are to them (the idea of the whole is in tensor.cuh). A place comes as Z^T, a right
// factor in registers: pieces [row of w][column of x].

#include "ppma/kernels/cuda/linear/stages.cuh"

namespace ppma::inline PPMA_ABI::kernels::linear_tensor {

/// Queries of a warp, in tiles of 16: few, where a line is taken in chunks; else as many as there
/// are registers for.
template <int D, bool chunked>
inline constexpr int query_tiles = chunked || D > 32 ? 2 : 4;

template <int D>
using Place = unsigned[part_of<D> / 8][D / 8];

__device__ __forceinline__ unsigned added(unsigned f, unsigned x, unsigned y) {
  const __nv_bfloat162 z = __hfma2(reinterpret_cast<const __nv_bfloat162&>(f),
                                   reinterpret_cast<const __nv_bfloat162&>(x),
                                   reinterpret_cast<const __nv_bfloat162&>(y));
  return reinterpret_cast<const unsigned&>(z);
}
/// Of the diagonal of c (16,16) the element in row lane / 4 + 8 h: one of a row's four lanes has
/// it, the others zero.
__device__ __forceinline__ float diagonal(const float (&c)[2][4], int h) {
  const int lane = lane_index();
  return lane % 4 != lane / 8 ? 0.f : lane / 4 % 2 == 0 ? c[h][2 * h] : c[h][2 * h + 1];
}

/// A warp's 16 M queries p with their results y; r is what D takes. Those of a lane are of the
/// places row0 + 16 m + 8 h.
template <int D, int M, bool gradients>
struct Queries {
  static constexpr int R = part_of<D>;
  int row0, length;
  unsigned p[M][D / 16][4], r[gradients ? M : 1][R / 16][4];
  float own[M][2], y[M][R / 8][4];
  float sums[gradients ? M : 1][2];  // of D over places: before a query less those behind it

  __device__ __forceinline__ Queries(const Grid& g, const Lines& s, const Pass& pass,
                                     const float* along, i64 head, int part, bool active, int line,
                                     int first)
      : row0(first + lane_index() / 4), length(s.length), y{}, sums{} {
    const int lane = lane_index();
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
  }

  /// Adds what z is to the queries, of a place where the line's sum is `there`. Returns this lane's
  /// part of the sum of D over queries before the place, less those behind it.
  __device__ __forceinline__ float add(const Place<D>& z, float there, int place) {
    float of_place = 0;
#pragma unroll
    for (int pair = 0; pair < M; pair += 2) {
      if (row0 - lane_index() / 4 + 16 * pair >= length) break;
#pragma unroll
      for (int m = pair; m < pair + 2; ++m) {
        const float f[2] = {decay_between(own[m][0], there), decay_between(own[m][1], there)};
        if constexpr (!gradients) {  // decays of bf16 queries: then sums stay in y
          const unsigned factor[2] = {detail::rounded_pair(f[0], f[0]),
                                      detail::rounded_pair(f[1], f[1])};
#pragma unroll
          for (int i = 0; i < D / 16; ++i) {
            unsigned decayed[4];
#pragma unroll
            for (int e = 0; e < 4; ++e) decayed[e] = times(p[m][i][e], factor[e % 2]);
#pragma unroll
            for (int t = 0; t < R / 8; ++t)
              multiply(y[m][t], decayed, z[t][2 * i], z[t][2 * i + 1]);
          }
          continue;
        }
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
            sums[m][h] += d, of_place -= d;
          }
        }
      }
    }
    return of_place;
  }
};

/// What all chunks before (side 0) or behind (1) place `own` of a line are to it, where the line's
/// sum is `border`.
template <int D>
__device__ __forceinline__ void passed(Place<D>& z, const Pass& pass, int chunk, const Lines& s,
                                       i64 plane, int line, int own, int side, int part,
                                       const float* along, float border) {
  constexpr int R = part_of<D>;
  float sum[R / 8][D / 8][2] = {};
  const int chunks = (s.length + chunk - 1) / chunk, end = side == 0 ? own / chunk : chunks;
  for (int c = side == 0 ? 0 : own / chunk + 1; c < end; ++c) {
    const int edge = side == 0 ? c * chunk + chunk - 1 : c * chunk;  // the nearest
    const float f = decay_between(border, along[s.token(line, edge)]);
    const bf16* const from = pass.chunks +
                             (((plane * s.count + line) * chunks + c) * 2 + side) * (D * D) +
                             lane_index() * 2;
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
#pragma unroll
  for (int t = 0; t < R / 8; ++t)
#pragma unroll
    for (int v = 0; v < D / 8; ++v) {
      z[t][v] = detail::rounded_pair(sum[t][v][0], sum[t][v][1]);
      if (pass.exchanged) z[t][v] = detail::transposed(z[t][v]);
    }
}

/// Of a line, what the queries of other chunks are to the places of one, before it and behind it:
/// matrices as left factors, a lane's in turn.
template <int D>
struct OtherQueries {
  static constexpr int R = part_of<D>;
  uint4 sides[2][R / 16][D / 16][32];

  __device__ __forceinline__ void fetch(const Pass& pass, const Lines& s, i64 plane, int line,
                                        int place, int side, int part) {
    const int borders = (s.length + block_lines - 1) / block_lines;
    const bf16* const from =
        pass.queries +
        (((plane * borders + place / block_lines) * s.count + line) * 2 + side) * (D * D) +
        lane_index() * 2;
#pragma unroll
    for (int u = 0; u < R / 16; ++u)
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        const auto piece = [&](int row, int column) {
          return *reinterpret_cast<const unsigned*>(
              from + ((part * (R / 8) + 2 * u + row) * (D / 8) + 2 * i + column) * 64);
        };
        sides[side][u][i][lane_index()] = {piece(0, 0), piece(1, 0), piece(0, 1), piece(1, 1)};
      }
  }
  /// This lane's part of the sum of their dots with z.
  __device__ __forceinline__ float dots(int side, const Place<D>& z) const {
    float square[2][4] = {};
#pragma unroll
    for (int u = 0; u < R / 16; ++u)
#pragma unroll
      for (int i = 0; i < D / 16; ++i) {
        const uint4 q = sides[side][u][i][lane_index()];
        const unsigned left[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int h = 0; h < 2; ++h)
          multiply(square[h], left, z[2 * u + h][2 * i], z[2 * u + h][2 * i + 1]);
      }
    return diagonal(square, 0) + diagonal(square, 1);
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::linear_tensor

#include "ppma/core/names_end.hpp"
