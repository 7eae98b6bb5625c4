#pragma once
#include "ppma/core/names_begin.hpp"
// One pass of tensor_backward.cuh along lines. With g = dL/dy and s = 1/2 for the mean of both
// orders:
//
//   rows first:     T1 = PH v,  dT1 = PV^T g     PV sees the pair (g, T1),  PH the pair (dT1, v)
//   columns first:  T2 = PV v,  dT2 = PH^T g     PH sees the pair (g, T2),  PV the pair (dT2, v)
//   of each pair (G, X) along a line:  dP = G X^T,  dS = P (dP - sum P dP),  dq = s dS k,
//         dk = s dS^T q;   dv = s P^T G
//   mask -|c_j - c_l|: the sums c fall along the line, so dc_j += s sign(j - l) dS, dc_l -= it (j
//   = l cancels);
//   a log decay's gradient is the sum of dc from its token to the end of the line
//
// In a block warps take 16 queries each, then 16 keys each, so that no sum is shared. Many short
// lines have a kernel of their own (tensor_short.cuh).

#include "ppma/kernels/cuda/criss_cross/tensor.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

/// One pass along lines. Null outputs are left out.
struct Backward {
  const bf16 *x0 = nullptr, *g0 = nullptr, *x1 = nullptr, *g1 = nullptr;
  bf16 *mixed = nullptr, *back0 = nullptr, *back1 = nullptr;  // P x0;  P^T g0;  P^T g1
  bf16 *dq = nullptr, *dk = nullptr;
  float* dlog_decay = nullptr;
  float* log_sums = nullptr;  // (B,G,N): see short_backward
  float share = 1;            // s: of dq, dk, the decays, and back0 if it is dv
  bool add = false, back0_is_dv = false, add_back0 = false;
};

inline constexpr int backward_threads = 256;  // at most: a warp has at least one task

// log_decay's gradients from those of the sums c, from the end of the line; of closed edges 0, as c
// (sum_decays()) says; a warp a head, a lane two neighbouring positions.
template <int NT>
__device__ __forceinline__ void sums_to_decays(const float* sums, const float* dsums, float share,
                                               float* dlog_decay, const Lines& s, const Spot& here,
                                               float unit = 1) {
  const int lane = lane_index(), head = warp_index();
  if (head >= here.heads) return;
  const float* const from = dsums + head * s.rows<NT>();
  const float* const c = sums + head * s.rows<NT>();
  float* const to = dlog_decay + here.plane + static_cast<i64>(head) * s.tokens;
  // counted(), rounded
  const auto open = [c, unit](int p) {
    return !(c[p] - c[p - 1] <= -1.03f * polyline_gpu::limit_bf16 * unit);
  };
  float behind = 0;
  for (int p = (s.length - 1) / 64 * 64 + 2 * lane; p >= 0; p -= 64) {
    const float first = p < s.length ? from[p] : 0.0f,
                second = p + 1 < s.length ? from[p + 1] : 0.0f;
    float from_here = first + second;
#pragma unroll
    for (int far = 1; far < 32; far *= 2) {
      const float right = __shfl_down_sync(~0u, from_here, far);
      if (lane + far < 32) from_here += right;
    }
    const float right = __shfl_down_sync(~0u, from_here, 1),
                sum = behind + (lane < 31 ? right : 0.0f) + second;
    behind += __shfl_sync(~0u, from_here, 0);
    if (p < s.length) to[here.place(p) * s.step] = p > 0 && open(p) ? (sum + first) * share : 0.0f;
    if (p + 1 < s.length) to[here.place(p + 1) * s.step] = open(p + 1) ? sum * share : 0.0f;
  }
}

// Scores' gradients by rows of t: those of columns up to `row` (and for the lower half row + 8)
// less those behind.
template <int NT>
__device__ __forceinline__ void add_signed(Two& sum, const float (&t)[NT][4], int row,
                                           int first_column) {
  const int before = row - first_column - lane_index() % 4 * 2;
#pragma unroll
  for (int n = 0; n < NT; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      sum.upper += n * 8 + e <= before ? t[n][e] : -t[n][e];
      sum.lower += n * 8 + e <= before + 8 ? t[n][2 + e] : -t[n][2 + e];
    }
  }
}

/// pairs: 0 for P x0 and P^T g0 alone, else how many pairs (g, x) have gradients.
template <int D, int NT, int pairs>
__global__ void __launch_bounds__(backward_threads)
    backward(Lines s, const bf16* q, const bf16* k, const float* log_decay, Backward to) {
  extern __shared__ __align__(16) unsigned char memory[];
  const Spot here(s);
  const int stride = s.stride<D, NT>(), padded = s.rows<NT>(), tile = padded * stride,
            warp = warp_index(), lane = lane_index();
  bf16 *const queries = reinterpret_cast<bf16*>(memory), *const keys = queries + tile,
              *const x0 = keys + tile, *const g0 = x0 + tile;
  bf16 *const x1 = g0 + (pairs == 2 ? tile : 0), *const g1 = x1 + (pairs == 2 ? tile : 0);
  bf16 *const stages = g1 + tile, *const stage = stages + warp * 16 * (D + 8);
  float* const sums =
      reinterpret_cast<float*>(stages + static_cast<int>(blockDim.x) / 32 * 16 * (D + 8));
  float *const log_sums = sums + s.group * padded, *const means = log_sums + s.group * padded,
               *const dsums = means + s.group * padded;
  if constexpr (pairs == 2)
    fetch<D, NT>(queries, s, here, {q, k, to.x0, to.g0, to.x1, to.g1});
  else
    fetch<D, NT>(queries, s, here, {q, k, to.x0, to.g0});
  detail::copies_issued();
  if constexpr (pairs > 0) {
    if (to.add) ask_for<D>(to.dq, s, here), ask_for<D>(to.dk, s, here);
    if (to.add_back0) ask_for<D>(to.back0, s, here);
  }
  sum_decays<NT>(sums, log_decay, s, here);
  for (int i = static_cast<int>(threadIdx.x); i < s.group * padded;
       i += static_cast<int>(blockDim.x))
    log_sums[i] = -nowhere, means[i] = 0;
  detail::copies_done<0>();
  __syncthreads();
  const int chunks = NT == 8 ? padded / 64 : 1;
  const bool again = chunks > 1;  // the scores do not stay in registers

  const int head = warp % s.group, first = head * padded;
  const bool walls = any_closed(sums + first, s.length);
  const auto by_queries = [&](int row0) {
    const int row = row0 + lane / 4;
    const bf16* const mine = queries + row0 * stride + head * D;
    const Two own{sums[first + row], sums[first + row + 8]};
    unsigned query[D / 16][4];
    load_left<D>(query, mine, stride);
    float t[NT][4];
    float z[4] = {};
    Two most{nowhere, nowhere};
    {
      float mixed[D / 8][4] = {};
      for (int chunk = 0; chunk < chunks; ++chunk) {
        const int from = chunk * 64 * stride + head * D;
        masked_scores<D, NT>(t, query, keys + from, stride, own, sums + first + chunk * 64, walls);
        const Two factor = softmax_step<NT>(t, most);
        Left<NT> p;
        round_left<NT>(p, t);
        if (chunk > 0) z[0] *= factor.upper, z[2] *= factor.lower;
        add_sums<NT>(z, p);
        if (!to.mixed) continue;
        if (chunk > 0) scale_rows(mixed, factor);
        add_mix<D, NT>(mixed, p, x0 + from, stride);
      }
      if (to.mixed)
        write_rows<D>(stage, D + 8, mixed, {reciprocal(z[0]), reciprocal(z[2])}, s, here, head,
                      row0, nullptr, to.mixed);
    }
    if (lane % 4 == 0) {
      if (row < s.length) log_sums[first + row] = most.upper * log2_e + ::log2f(z[0]);
      if (row + 8 < s.length) log_sums[first + row + 8] = most.lower * log2_e + ::log2f(z[2]);
    }
    if constexpr (pairs > 0) {
      const Two inverse{reciprocal(z[0]), reciprocal(z[2])};
      unsigned up0[D / 16][4], up1[pairs == 2 ? D / 16 : 1][4];
      load_left<D>(up0, g0 + (mine - queries), stride);
      if constexpr (pairs == 2) load_left<D>(up1, g1 + (mine - queries), stride);
      float dp[NT][4];
      const auto slopes = [&](int chunk) {  // t: probabilities times z, dp: their gradients
        const int from = chunk * 64 * stride + head * D;
        if (again) {
          masked_scores<D, NT>(t, query, keys + from, stride, own, sums + first + chunk * 64,
                               walls);
          exponentials<NT>(t, most);
        }
#pragma unroll
        for (int n = 0; n < NT; ++n) dp[n][0] = dp[n][1] = dp[n][2] = dp[n][3] = 0;
        add_scores<D, NT>(dp, up0, x0 + from, stride);
        if constexpr (pairs == 2) add_scores<D, NT>(dp, up1, x1 + from, stride);
      };
      Two mean{0, 0}, dc{0, 0};
      for (int chunk = 0; chunk < chunks; ++chunk) {
        slopes(chunk);
#pragma unroll
        for (int n = 0; n < NT; ++n)
          mean.upper += t[n][0] * dp[n][0] + t[n][1] * dp[n][1],
              mean.lower += t[n][2] * dp[n][2] + t[n][3] * dp[n][3];
      }
      mean = {over_quad(mean.upper) * inverse.upper, over_quad(mean.lower) * inverse.lower};
      const Two less{-mean.upper * inverse.upper, -mean.lower * inverse.lower};
      float dquery[D / 8][4] = {};
      for (int chunk = 0; chunk < chunks; ++chunk) {
        if (again) slopes(chunk);
#pragma unroll
        for (int n = 0; n < NT; ++n) {
          t[n][0] *= ::fmaf(dp[n][0], inverse.upper, less.upper),
              t[n][1] *= ::fmaf(dp[n][1], inverse.upper, less.upper);
          t[n][2] *= ::fmaf(dp[n][2], inverse.lower, less.lower),
              t[n][3] *= ::fmaf(dp[n][3], inverse.lower, less.lower);
        }
        if (to.dlog_decay) add_signed<NT>(dc, t, row, chunk * 64);
        Left<NT> ds;
        round_left<NT>(ds, t);
        add_mix<D, NT>(dquery, ds, keys + chunk * 64 * stride + head * D, stride);
      }
      write_rows<D>(stage, D + 8, dquery, {to.share, to.share}, s, here, head, row0,
                    to.add ? to.dq : nullptr, to.dq);
      dc = {over_quad(dc.upper), over_quad(dc.lower)};
      if (lane % 4 == 0) {
        // elsewhere 0: rows behind the end may have overflowed
        if (row < s.length) means[first + row] = mean.upper;
        if (row + 8 < s.length) means[first + row + 8] = mean.lower;
        dsums[first + row] = dc.upper, dsums[first + row + 8] = dc.lower;
      }
    }
  };
  if (head < here.heads) each_row(s, by_queries);
  __syncthreads();

  const auto by_keys = [&](int row0) {  // everything transposed
    const int row = row0 + lane / 4, column = lane % 4 * 2, at = row0 * stride + head * D;
    const Two own{sums[first + row], sums[first + row + 8]};
    unsigned key[D / 16][4], value0[pairs > 0 ? D / 16 : 1][4], value1[pairs == 2 ? D / 16 : 1][4];
    load_left<D>(key, keys + at, stride);
    if constexpr (pairs > 0) load_left<D>(value0, x0 + at, stride);
    if constexpr (pairs == 2) load_left<D>(value1, x1 + at, stride);
    float out0[D / 8][4] = {}, out1[pairs == 2 ? D / 8 : 1][4] = {},
                   dkey[pairs > 0 ? D / 8 : 1][4] = {};
    Two dc{0, 0};
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int from = chunk * 64 * stride + head * D, c = first + chunk * 64;
      float t[NT][4];
      masked_scores<D, NT>(t, key, queries + from, stride, own, sums + c, walls);
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        const float2 shift = *reinterpret_cast<const float2*>(log_sums + c + n * 8 + column);
        t[n][0] = exp2_fast(::fmaf(t[n][0], log2_e, -shift.x)),
        t[n][1] = exp2_fast(::fmaf(t[n][1], log2_e, -shift.y));
        t[n][2] = exp2_fast(::fmaf(t[n][2], log2_e, -shift.x)),
        t[n][3] = exp2_fast(::fmaf(t[n][3], log2_e, -shift.y));
      }
      Left<NT> p;
      round_left<NT>(p, t);
      if (to.back0) add_mix<D, NT>(out0, p, g0 + from, stride);
      if constexpr (pairs == 2)
        if (to.back1) add_mix<D, NT>(out1, p, g1 + from, stride);
      if constexpr (pairs > 0) {
        float dp[NT][4];
#pragma unroll
        for (int n = 0; n < NT; ++n) {
          const float2 mean = *reinterpret_cast<const float2*>(means + c + n * 8 + column);
          dp[n][0] = dp[n][2] = -mean.x, dp[n][1] = dp[n][3] = -mean.y;
        }
        add_scores<D, NT>(dp, value0, g0 + from, stride);
        if constexpr (pairs == 2) add_scores<D, NT>(dp, value1, g1 + from, stride);
#pragma unroll
        for (int n = 0; n < NT; ++n)
#pragma unroll
          for (int e = 0; e < 4; ++e) t[n][e] *= dp[n][e];
        // -sign(query - key); cancels j = l above
        if (to.dlog_decay) add_signed<NT>(dc, t, row - 1, chunk * 64);
        round_left<NT>(p, t);
        add_mix<D, NT>(dkey, p, queries + from, stride);
      }
    }
    const Two one{1, 1}, share{to.share, to.share};
    if (to.back0)
      write_rows<D>(stage, D + 8, out0, to.back0_is_dv ? share : one, s, here, head, row0,
                    to.add_back0 ? to.back0 : nullptr, to.back0);
    if constexpr (pairs == 2)
      if (to.back1) write_rows<D>(stage, D + 8, out1, one, s, here, head, row0, nullptr, to.back1);
    if constexpr (pairs > 0) {
      write_rows<D>(stage, D + 8, dkey, share, s, here, head, row0, to.add ? to.dk : nullptr,
                    to.dk);
      dc = {over_quad(dc.upper), over_quad(dc.lower)};
      if (lane % 4 == 0) dsums[first + row] += dc.upper, dsums[first + row + 8] += dc.lower;
    }
  };
  if (head < here.heads) each_row(s, by_keys);
  if constexpr (pairs > 0) {
    if (!to.dlog_decay) return;
    __syncthreads();
    sums_to_decays<NT>(sums, dsums, to.share, to.dlog_decay, s, here);
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
