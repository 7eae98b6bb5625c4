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

  /// Whether what fill() reads is asked for before anything is waited for: heads of 32 with lines
  /// of 16 take longer so (182 us instead of 178 at 14 x 14, 8 heads, 128 maps).
  static constexpr bool early = WT == 1 || D > 32;
  static constexpr int ahead = early ? 4 : 2;
  /// Up to `ahead` packs of eight channels, as they lie in memory.
  struct Outputs {
    uint4 y[ahead], y1[ahead], dy[ahead];
    float2 log_sums[ahead];
  };
  struct Pack {
    int cell, c, token;
    bool there;
    __device__ __forceinline__ Pack(const Map& map, int e)
        : cell(e / Map::pieces), c(e % Map::pieces * 8) {
      const int l = cell / Map::padded, at = cell % Map::padded;
      token = l * map.length + at, there = l < map.lines && at < map.length;
    }
  };
  /// Of the packs first, first + threads of the block, ...; y, dy and log_sums begin with the head.
  __device__ __forceinline__ Outputs ask(const Map& map, const Lines& g, int first, const bf16* y,
                                         const bf16* y1, const bf16* dy,
                                         const float2* log_sums) const {
    Outputs out{};
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const Pack p(map, first + i * static_cast<int>(blockDim.x));
      if (!p.there) continue;
      if (p.c == 0) out.log_sums[i] = log_sums[p.token];
      if (p.c >= g.head_width) continue;
      const int from = p.token * static_cast<int>(g.channels) + p.c;
      out.y[i] = *reinterpret_cast<const uint4*>(y + from);
      out.dy[i] = *reinterpret_cast<const uint4*>(dy + from);
      if (y1 != nullptr) out.y1[i] = *reinterpret_cast<const uint4*>(y1 + from);
    }
    return out;
  }
  /// m1, m2: sum p dP of both softmaxes, which is dy times the average of each:
  /// y = share1 y1 + share2 y2; y1 null: y is the one that counts. `out` is ask() of this thread's
  /// first packs if `early`. Returns whether forward took the logarithms of some query.
  __device__ __forceinline__ bool fill(const Map& map, const Lines& g, Outputs out, const bf16* y,
                                       const bf16* y1, const bf16* dy, const float2* log_sums,
                                       float share1, float share2) const {
    bool logs = false;
    const float log_share1 = ::log2f(share1), log_share2 = ::log2f(share2), part2 = 1 / share2;
    const int threads = static_cast<int>(blockDim.x);
    // of D / 8 lanes each has eight channels of a query
    for (int first = static_cast<int>(threadIdx.x); first < map.rows * Map::pieces;
         first += ahead * threads) {
      if (!early || first >= ahead * threads) out = ask(map, g, first, y, y1, dy, log_sums);
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        const int e = first + i * threads;
        if (e >= map.rows * Map::pieces) break;  // whole warps
        const Pack p(map, e);
        float whole = 0, one = 0, o[8], d[8], o1[8];
        load_pack<8>(reinterpret_cast<const bf16*>(&out.y[i]), o);
        load_pack<8>(reinterpret_cast<const bf16*>(&out.dy[i]), d);
        load_pack<8>(reinterpret_cast<const bf16*>(&out.y1[i]), o1);
#pragma unroll
        for (int c = 0; c < 8; ++c) whole += o[c] * d[c], one += o1[c] * d[c];
#pragma unroll
        for (int step = 1; step < Map::pieces; step *= 2)
          whole += __shfl_xor_sync(0xffffffffu, whole, step),
              one += __shfl_xor_sync(0xffffffffu, one, step);
        if (p.c > 0) continue;
        float log1 = far, log2 = far, m1 = 0, m2 = 0;
        if (p.there) {
          const float2 log = out.log_sums[i];
          logs |= (__float_as_int(log.x) & 1) != 0;
          if (share1 > 0) log1 = log.x - log_share1, m1 = y1 != nullptr ? one : whole;
          if (share2 > 0)
            log2 = log.y - log_share2, m2 = y1 != nullptr ? (whole - share1 * one) * part2 : whole;
        }
        const float least = ::fminf(log1, log2);
        float* const to = reinterpret_cast<float*>(of_pair + p.cell / 2 * 2) + p.cell % 2;
        to[0] = to[2] = -m2, to[4] = least, to[6] = m2 - m1;
        factors[p.cell] = {exp2_fast(least - log1), exp2_fast(least - log2)};
      }
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
