#pragma once
#include "ppma/core/names_begin.hpp"
// The weights of tensor_short.cuh, 16 queries with all keys of a line: powers of the masked scores
// as they are. Products start from the queries' share of the mask (and, where the weights' sums are
// known, their logarithms), so that a weight costs one sum and one power. Where a sum of weights
// leaves a range of 2^-90 to 2^90, or a path may be closed, they are made again, less each row's
// largest score.

#include "ppma/kernels/cuda/criss_cross/short_products.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// What a warp works with: its head's columns of the tiles, and its sums.
struct Own {
  // addresses of tiles; those of the pass's results are where what is not read any more was
  unsigned queries, keys, x0, g0, x1, g1;
  float *sums, *log_sums;  // of decays, times log2_e; log2 of the weights' sums, later dc
  float* log_sums_to;      // where those go, null if nowhere
  int step, length;        // from position to position there; of the line
  bool walls;              // a path may be closed
};

/// The sums of decays of the queries 16 tile + lane / 4 and eight further on. Queries behind the
/// line's end, which are 0, have the last one's: what comes of them is 0 or not kept.
template <int tile>
__device__ __forceinline__ Two sums_of_queries(const Own& own) {
  const int row = 16 * tile + lane_index() / 4, last = own.length - 1;
  return {own.sums[::min(row, last)], own.sums[::min(row + 8, last)]};
}
/// t = queries keys^T of the queries 16 tile to 16 tile + 15, from start(n, e) on.
template <int D, int NT, int tile, class Start>
__device__ __forceinline__ void scores_from(float (&t)[NT][4], const Own& own, const Place<D>& in,
                                            const Start& start) {
  unsigned query[D / 16][4];
  load_rows<D>(query, own.queries + 16 * tile * short_row<D>, in.left);
#pragma unroll
  for (int n = 0; n < NT; n += 2) multiply_rows<D, NT>(t, n, query, own.keys, in.right, start);
}
/// t = 2^(log2_e scores - |c - sums| - logs), of the first `rows` queries; 0 of the others. Sums of
/// decays fall along a line, so that the sign of a difference is known but in an 8 x 8 on the
/// diagonal.
template <int D, int NT, int tile, int rows>
__device__ __forceinline__ void powers(float (&t)[NT][4], const Own& own, const Place<D>& in,
                                       Two logs) {
  const Two c = sums_of_queries<tile>(own), plain{-ln_2 * logs.upper, -ln_2 * logs.lower},
            before{::fmaf(ln_2, c.upper, plain.upper), ::fmaf(ln_2, c.lower, plain.lower)},
            behind{::fmaf(-ln_2, c.upper, plain.upper), ::fmaf(-ln_2, c.lower, plain.lower)};
  scores_from<D, NT, tile>(t, own, in, [&](int n, int e) {
    const Two& x = n < 2 * tile ? before : n > 2 * tile + 1 ? behind : plain;
    return e < 2 ? x.upper : x.lower;
  });
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    const float2 key = *reinterpret_cast<const float2*>(own.sums + n * 8 + lane_index() % 4 * 2);
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (e / 2 == 1 && rows == 8) {
        t[n][e] = 0;
        continue;
      }
      const int eight = 2 * tile + e / 2;  // the query's
      const float k = e % 2 == 0 ? key.x : key.y, q = e < 2 ? c.upper : c.lower;
      const float mask = n < 2 * tile       ? -k
                         : n > 2 * tile + 1 ? k
                         : n == eight       ? -::fabsf(q - k)
                         : n < eight        ? q - k
                                            : k - q;
      t[n][e] = exp2_fast(::fmaf(t[n][e], log2_e, mask));
    }
  }
}
/// Scores and their mask in natural logarithms; -infinity for a closed path.
template <int D, int NT, int tile>
__device__ __forceinline__ void closing_scores(float (&t)[NT][4], const Own& own,
                                               const Place<D>& in) {
  const Two c = sums_of_queries<tile>(own);
  const volatile float* const sums = own.sums + lane_index() % 4 * 2;  // loaded here
  scores_from<D, NT, tile>(t, own, in, [&](int n, int e) {
    const float far = ::fabsf((e < 2 ? c.upper : c.lower) - sums[n * 8 + e % 2]);
    return far >= closed ? negative_infinity<float>() : -ln_2 * far;
  });
}

/// Of 16 queries: log2 of their weights' sums, and what is left to multiply the weights by.
struct Sums {
  Two logs, factor;
};

/// The sums of rows of t, of the first `rows`; 1 of the others. Not of rounded numbers, as the
/// weights are rounded after they have been divided.
template <int NT, int rows>
__device__ __forceinline__ Two sums_of_rows(const float (&t)[NT][4]) {
  float z[4] = {t[0][0], t[0][1], t[0][2], t[0][3]};
#pragma unroll
  for (int n = 1; n < NT; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) z[e] += t[n][e];
  return {over_quad(z[0] + z[1]), rows == 16 ? over_quad(z[2] + z[3]) : 1.f};
}
/// t: the weights of the queries 16 tile to 16 tile + 15. known: own.log_sums are those of the
/// weights' sums; else t is left to be multiplied by `factor`.
template <int D, int NT, int tile, int rows, bool known>
__device__ __forceinline__ Sums weights_of(float (&t)[NT][4], const Own& own, const Place<D>& in) {
  Sums of{{0, 0}, {1, 1}};
  if constexpr (known) {
    const int row = 16 * tile + lane_index() / 4;
    of.logs = {own.log_sums[row], own.log_sums[row + 8]};
    if (!own.walls) {
      powers<D, NT, tile, rows>(t, own, in, of.logs);
    } else {
      closing_scores<D, NT, tile>(t, own, in);
      exponentials<NT>(t, {ln_2 * of.logs.upper, ln_2 * of.logs.lower});
    }
  } else {
    powers<D, NT, tile, rows>(t, own, in, {0, 0});
    Two z = sums_of_rows<NT, rows>(t);
    const bool ordinary =
        ::fminf(z.upper, z.lower) > 1 / sum_limit && ::fmaxf(z.upper, z.lower) < sum_limit;
    if (__any_sync(~0u, !ordinary || own.walls)) {
      Two most{nowhere, nowhere};
      closing_scores<D, NT, tile>(t, own, in);
      softmax_step<NT>(t, most);
      z = sums_of_rows<NT, rows>(t);
      of.logs = {most.upper * log2_e, most.lower * log2_e};
    }
    of.logs = {of.logs.upper + log2_fast(z.upper), of.logs.lower + log2_fast(z.lower)};
    of.factor = {reciprocal(z.upper), reciprocal(z.lower)};
  }
  return of;
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
