#pragma once
#include "ppma/core/names_begin.hpp"
// What the tasks of small_backward.cuh need of all queries, and what they leave for the decays'
// gradients (the words are small.cuh's).

#include "ppma/kernels/cuda/whole/small_tables.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// What backward needs of all queries of a map in shared memory, and where the tasks leave sums.
template <int D, int WT>
struct SmallStats {
  using Map = Small<D, WT, 4>;  // q, k, v, dy
  Twin *along, *across;         // tables for the keys: with the factors of the queries that pass by
  float4* of_pair;  // of two queries x, y: -m2 (x, y, x, y), then log (x, y), m2 - m1 (x, y)
  float2* factors;  // of every query: least log2 of both sums less that of the first; second
  float2* sums;     // what a and b get of a cell as a query's; behind them, as a key's

  __device__ __forceinline__ explicit SmallStats(const Map& map)
      : along(reinterpret_cast<Twin*>(map.rest())) {
    across = along + map.groups * WT * 32;
    of_pair = reinterpret_cast<float4*>(across + map.groups * Map::lines_a_group * map.groups * 4);
    factors = reinterpret_cast<float2*>(of_pair + map.rows), sums = factors + map.rows;
  }
  static int bytes(const Lines& g) { return Map::bytes(g, 2) + Map::groups_of(g) * 16 * 40; }

  /// m1, m2: sum p dP of both softmaxes, which is dy times the average of each:
  /// y = share1 y1 + share2 y2; y1 null: y is the one that counts. Returns whether forward took the
  /// logarithms of some query.
  __device__ __forceinline__ bool fill(const Map& map, const Lines& g, const bf16* y,
                                       const bf16* y1, const bf16* dy, const float2* log_sums,
                                       float share1, float share2) const {
    bool logs = false;
    const float log_share1 = ::log2f(share1), log_share2 = ::log2f(share2), part2 = 1 / share2;
    // of D / 8 lanes each has eight channels of a query
#pragma unroll 2
    for (int e = static_cast<int>(threadIdx.x); e < map.rows * Map::pieces;
         e += static_cast<int>(blockDim.x)) {
      const int cell = e / Map::pieces, c = e % Map::pieces * 8, l = cell / Map::padded,
                at = cell % Map::padded, token = l * map.length + at;
      const bool there = l < map.lines && at < map.length;
      float whole = 0, one = 0;
      if (there && c < g.head_width) {
        const int from = token * static_cast<int>(g.channels) + c;
        float o[8], d[8], o1[8] = {};
        load_pack<8>(y + from, o);
        load_pack<8>(dy + from, d);
        if (y1 != nullptr) load_pack<8>(y1 + from, o1);
#pragma unroll
        for (int i = 0; i < 8; ++i) whole += o[i] * d[i], one += o1[i] * d[i];
      }
#pragma unroll
      for (int step = 1; step < Map::pieces; step *= 2)
        whole += __shfl_xor_sync(0xffffffffu, whole, step),
            one += __shfl_xor_sync(0xffffffffu, one, step);
      if (c > 0) continue;
      float log1 = far, log2 = far, m1 = 0, m2 = 0;
      if (there) {
        const float2 log = log_sums[token];
        logs |= (__float_as_int(log.x) & 1) != 0;
        if (share1 > 0) log1 = log.x - log_share1, m1 = y1 != nullptr ? one : whole;
        if (share2 > 0)
          log2 = log.y - log_share2, m2 = y1 != nullptr ? (whole - share1 * one) * part2 : whole;
      }
      const float least = ::fminf(log1, log2);
      float* const to = reinterpret_cast<float*>(of_pair + cell / 2 * 2) + cell % 2;
      to[0] = to[2] = -m2, to[4] = least, to[6] = m2 - m1;
      factors[cell] = {exp2_fast(least - log1), exp2_fast(least - log2)};
    }
    return logs;
  }
  /// The tables of the map and those for the keys; for the block.
  __device__ __forceinline__ void fill_tables(const Map& map) const {
    const auto weighted = [&](Decays decays, int cell, auto of) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int e = 0; e < 2; ++e) decays.of[half][e] *= of(factors[cell + 8 * half + e]);
      return decays.rounded();
    };
    each_along(map, [&](int at, const Decays& decays, int cell) {
      map.along[at] = decays.rounded();
      along[at] = weighted(decays, cell, [](const float2& factor) { return factor.x; });
    });
    each_across(map, 0, map.groups, [&](int at, const Decays& decays, int cell) {
      map.across[at] = decays.rounded();
      across[at] = weighted(decays, cell, [](const float2& factor) { return factor.y; });
    });
  }
};

/// What a and b get of a group's cells, from T, U and what the column path gives b at the owner.
template <int D, int WT>
__device__ __forceinline__ void decay_sums_of(const Small<D, WT, 4>& map, int group,
                                              const float (&along)[WT][4],
                                              const float (&across)[WT][4], const float (&own_b)[4],
                                              float2* to) {
  float own_a[2] = {};
  float2 others[2];
#pragma unroll
  for (int w = 0; w < WT; ++w)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int l = 8 * w + map.lane % 4 * 2 + e;
      float a[2], b[2];
      // a falls along a line, so the sign of -(a[i,j] - a[i,l]) is that of j - l
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        a[r] = static_cast<float>((map.column(r) > l) - (map.column(r) < l)) * along[w][2 * r + e],
        b[r] = across[w][2 * r + e] - along[w][2 * r + e];
        own_a[r] += a[r];
      }
      if (WT == 2) a[0] += a[1], b[0] += b[1];  // one line
#pragma unroll
      for (int r = 0; r < 2 / WT; ++r) {
#pragma unroll
        for (int step = 4; step < 32; step *= 2)
          a[r] += __shfl_xor_sync(0xffffffffu, a[r], step),
              b[r] += __shfl_xor_sync(0xffffffffu, b[r], step);
        // Now all lanes of a column l have it: the lane whose row is that column takes it.
        const int from = map.lane / 4 / 2;
        const float2 taken{__shfl_sync(0xffffffffu, -a[r], from),
                           __shfl_sync(0xffffffffu, b[r], from)};
        if (map.lane / 4 % 2 == e) others[WT == 2 ? w : r] = taken;
      }
    }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2)
      own_a[r] += __shfl_xor_sync(0xffffffffu, own_a[r], step);
    if (map.lane % 4 == 0)
      to[16 * group + 8 * r + map.lane / 4] = {own_a[r] + others[r].x, own_b[2 * r] + others[r].y};
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
