#pragma once
#include "ppma/core/names_begin.hpp"
// A pass of map.cuh: a warp's lines, one after the other. The line's keys and the vectors that it
// mixes lie in registers; its queries are worked on 16 at a time. Where registers are left, the
// scores of the next 16 are products while the exponentials of these are taken.

#include "ppma/kernels/cuda/criss_cross/map_kept.cuh"
#include "ppma/kernels/cuda/criss_cross/map_parts.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// Groups of 16 queries of a line of at most 8 NT tokens that are asked for at once: half of them.
template <int NT>
inline constexpr int map_part = (NT + 1) / 4;
/// Whether scores are made ahead, and the keys' sums of log decays stay in registers.
template <int NT>
inline constexpr bool made_ahead = NT == 7;

enum class Pass { first, second, third };

/// A pass over the lines of one way: store(line, first position, P x0, P x1) for every 16 queries;
/// P x0 is scaled, and P x1 is made by the second of three passes (`both`) alone. The warp's first
/// line has been asked for; after(): what follows the last. Of the first pass x0 is v. Returns the
/// largest sum of weights or inverse of one.
template <Pass pass, bool rows, bool both, bool largest, int warps, int D, int NT, bool stay,
          class After, class Store>
__device__ __forceinline__ float mix_lines(const Grid& g, const Head& h, Warp<D, NT, stay>& w,
                                           const Map<D>& x0, const Map<D>& x1, float scale,
                                           [[maybe_unused]] uint4* kept, const After& after,
                                           const Store& store) {
  constexpr int part = map_part<NT>, groups = (NT + 1) / 2;
  static_assert(groups == 2 * part,
                "a line's queries are asked for in two parts");  // see run_map()
  constexpr bool two = both && pass == Pass::second, ahead = made_ahead<NT>;
  constexpr int packs1 = two ? D / 8 : 1;  // of x1
  const Way<rows> way(g);
  const auto straight = [](unsigned(&x)[4], unsigned at) { detail::load_matrices(x, at); };
  const auto turned = [](unsigned(&x)[4], unsigned at) { detail::load_turned(x, at); };
  int lane = w.lane;
  float most = 0;
  // The line that is asked for, and how far it is to the next; made anew where registers are short.
  Source next = way.source(g, h, w.index);
  const Source skip = way.source(g, h, warps);
  for (int line = w.index; line < way.count; line += warps) {
    detail::copies_done<stay ? 0 : 2>();  // keys; sum_line() makes the warp wait for all its lanes
    if (sum_line<NT>(w.sums, w.decay, way.length, lane) && !largest)
      most = positive_infinity<float>();
    // Registers are short where all stays on chip: what hangs on the lane is to be worked out again
    // for each line, and not to wait in memory.
    if constexpr (stay) asm volatile("" : "+r"(lane));
    Right<D, NT> key, right0, right1;
    load_line<rows || !stay, D, NT>(key, w.keys, stay ? line : 0, way.length,
                                    lane / 16 * 8 + lane % 8, lane / 8 % 2, straight);
    load_line<rows, D, NT>(right0, x0, line, way.length, lane % 16, lane / 16, turned);
    if constexpr (two)
      load_line<rows, D, NT>(right1, x1, line, way.length, lane % 16, lane / 16, turned);
    __syncwarp();
    const bool more = line + warps < way.count;
    if constexpr (stay)
      next = way.source(g, h, line + warps);
    else
      next.line += warps, next.at += skip.at, next.decay_at += skip.decay_at;
    if (!more) next = after();
    w.template ask_keys<rows>(h, next, pass == Pass::first && more, x0);
    if constexpr (!stay) {
      detail::copies_done<1>();  // queries
      __syncwarp();
    }
    const auto sums_of_keys = [&](float2(&sums)[NT]) {
#pragma unroll
      for (int i = 0; i < NT; ++i)
        sums[i] = *reinterpret_cast<const float2*>(w.sums + 8 * i + lane % 4 * 2);
    };
    float2 sums[NT];
    if constexpr (ahead) sums_of_keys(sums);
    const int token = lane % 16;
    unsigned query_at[D / 16];
#pragma unroll
    for (int i = 0; i < D / 16; ++i)
      query_at[i] = w.template pack<rows>(w.queries, line, token, 2 * i + lane / 16);
    const unsigned eight = w.queries.template eight < rows || !stay > ();
    float scores[ahead ? 2 : 1][NT][4];
    Two query_sums[ahead ? 2 : 1];
    const auto make_scores = [&](auto index) {
      constexpr int m = decltype(index)::value, slot = ahead ? m % 2 : 0;
      const Two c{w.sums[place_of<NT, 2 * m>(way.length, lane)],
                  w.sums[place_of<NT, 2 * m + 1>(way.length, lane)]};
      query_sums[slot] = c;
      unsigned query[D / 16][4];
#pragma unroll
      for (int i = 0; i < D / 16; ++i)
        detail::load_matrices(
            query[i],
            16 * (m + 1) < 8 * NT - 7
                ? query_at[i] + static_cast<unsigned>(2 * m) * eight
                : w.template pack<rows>(w.queries, line, ::min(16 * m + token, way.length - 1),
                                        2 * i + lane / 16));
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        float(&t)[4] = scores[slot][n];
        start_scores<NT, m>(t, n, {c.upper * ln_2, c.lower * ln_2});
#pragma unroll
        for (int i = 0; i < D / 16; ++i)
          detail::multiply(t, query[i], key[n / 2][i][n % 2 * 2], key[n / 2][i][n % 2 * 2 + 1]);
      }
      if constexpr (m % part == part - 1) w.template ask_queries<rows, m - part + 1, part>(h, next);
    };
    if constexpr (ahead) make_scores(std::integral_constant<int, 0>{});
    each_group<NT>([&](auto index) {
      constexpr int m = decltype(index)::value, slot = ahead ? m % 2 : 0;
      if constexpr (!ahead)
        make_scores(index);
      else if constexpr (m + 1 < groups)
        make_scores(std::integral_constant<int, m + 1>{});
      if constexpr (!ahead) sums_of_keys(sums);
      float(&t)[NT][4] = scores[slot];
      weights<NT, 2 * m, largest>(t, sums, query_sums[slot].upper);
      weights<NT, 2 * m + 1, largest>(t, sums, query_sums[slot].lower);
      Left<NT> p;
      round_left<NT>(p, t);
      if constexpr (pass == Pass::first && keeps<NT, both>)
        keep_weights<NT>(kept, line, m, lane, p);
      float z[4] = {}, out0[D / 8][4], out1[packs1][4];
      add_sums<NT>(z, p);
      mix<D, NT>(out0, p, right0);
      if constexpr (two) mix<D, NT>(out1, p, right1);
      const Two f{reciprocal(z[0]), reciprocal(z[2])};
      most = ::fmaxf(most, ::fmaxf(z[0], f.upper));
      if constexpr (2 * m + 1 < NT) most = ::fmaxf(most, ::fmaxf(z[2], f.lower));
      scale_rows(out0, {f.upper * scale, f.lower * scale});
      if constexpr (two) scale_rows(out1, f);
      store(line, 16 * m, out0, out1);
    });
  }
  return most;
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
