#pragma once
#include "ppma/core/names_begin.hpp"
// Weights that a block of map.cuh keeps for its third pass, which mixes as the first does: left
// factors of products as they are, in memory, where only the lanes that wrote them read them. A map
// of 28 x 28 tokens has 57 KB, which the L2 cache holds for every block at once.

#include "ppma/kernels/cuda/criss_cross/map_parts.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Whether weights are kept. Those of a map of 56 x 56 take longer to read than to make again, also
/// if they are made from logarithms of their sums, which needs no sums then.
template <int NT, bool both>
inline constexpr bool keeps = NT == 4 && both;
/// Packs of a line, and of the longest map's.
template <int NT>
inline constexpr int kept_line = 32 * NT* NT / 4;
template <int NT>
inline constexpr int kept_map = 8 * NT* kept_line<NT>;

/// A line's weights, for each group of 16 queries.
template <int NT>
using LineWeights = Left<NT>[NT / 2];

template <int NT>
__device__ __forceinline__ void keep_weights(uint4* kept, int line, int group, int lane,
                                             const Left<NT>& p) {
#pragma unroll
  for (int i = 0; i < NT / 2; ++i)
    __stcg(kept + line * kept_line<NT> + (group * (NT / 2) + i) * 32 + lane,
           make_uint4(p[i][0], p[i][1], p[i][2], p[i][3]));
}
template <int NT>
__device__ __forceinline__ void read_weights(LineWeights<NT>& p, const uint4* kept, int line,
                                             int lane) {
#pragma unroll
  for (int group = 0; group < NT / 2; ++group)
#pragma unroll
    for (int i = 0; i < NT / 2; ++i) {
      const uint4 x = __ldcg(kept + line * kept_line<NT> + (group * (NT / 2) + i) * 32 + lane);
      p[group][i][0] = x.x, p[group][i][1] = x.y, p[group][i][2] = x.z, p[group][i][3] = x.w;
    }
}

/// A pass with the weights that the warp has kept: store(line, first position, P x), scaled, for
/// every 16 queries. ready() waits for the map, meanwhile the first weights come; true: they have
/// been made again. taken(): the warp has read its first line of the map.
template <bool rows, int warps, int D, int NT, class Ready, class Taken, class Store>
__device__ __forceinline__ void mix_kept(const Grid& g, int warp, int lane, const Map<D>& x,
                                         float scale, const uint4* kept, const Ready& ready,
                                         const Taken& taken, const Store& store) {
  const Way<rows> way(g);
  const auto turned = [](unsigned(&r)[4], unsigned at) { detail::load_turned(r, at); };
  LineWeights<NT> next;
  read_weights<NT>(next, kept, warp, lane);
  if (ready()) read_weights<NT>(next, kept, warp, lane);
#pragma unroll 1
  for (int line = warp; line < way.count; line += warps) {
    LineWeights<NT> p;
#pragma unroll
    for (int i = 0; i < NT / 2; ++i)
#pragma unroll
      for (int j = 0; j < NT / 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) p[i][j][e] = next[i][j][e];
    if (line + warps < way.count) read_weights<NT>(next, kept, line + warps, lane);
    Right<D, NT> right;
    load_line<rows, D, NT>(right, x, line, way.length, lane % 16, lane / 16, turned);
    if (line == warp) {
      __syncwarp();
      taken();
    }
#pragma unroll
    for (int i = 0; i < NT / 2; ++i) {
      float z[4] = {}, out[D / 8][4];
      add_sums<NT>(z, p[i]);
      mix<D, NT>(out, p[i], right);
      scale_rows(out, {reciprocal(z[0]) * scale, reciprocal(z[2]) * scale});
      store(line, 16 * i, out);
    }
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
