#pragma once
#include "ppma/core/names_begin.hpp"
// tensor_pass.cuh's passes for lines of at most 56 tokens whose heads, 16 or 32 wide, fill a block:
// a warp has a head, so nothing is shared among warps but the tiles that all of them load and
// write. Where the gradient of a score is worked out, by keys, it is used for all that asks for it:
//
//   by queries, 16 at a time:  z, sum P dP (and P x0)
//   by keys, 16 at a time:     dS^T;  dk = dS^T q,  P^T g,  dq += dS k (turned in registers), dc of
//         the keys and of all queries
//
// Results go to the tiles of what is not read any more, so that whole rows of all heads go out.

#include "ppma/kernels/cuda/criss_cross/tensor_pass.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

inline constexpr int short_threads = 128;
template <int D, int NT>
inline constexpr int short_row = most_group<D, NT>* D;  // channels of a block: a head a warp
template <int D, int NT>
inline constexpr int short_tile = (NT + 1) / 2 * 16 * (short_row<D, NT> + 8);

/// An 8 x 8 matrix of bf16, turned.
__device__ __forceinline__ unsigned turned(unsigned x) {
  unsigned y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
/// 16 rows of a head, scaled, to its columns of a tile.
template <int D>
__device__ __forceinline__ void to_tile(bf16* tile, int stride, const float (&c)[D / 8][4], Two f) {
  const int lane = lane_index();
  bf16* const at = tile + lane / 4 * stride + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < D / 8; ++j) {
    *reinterpret_cast<unsigned*>(at + 8 * j) =
        detail::rounded_pair(c[j][0] * f.upper, c[j][1] * f.upper);
    *reinterpret_cast<unsigned*>(at + 8 * j + 8 * stride) =
        detail::rounded_pair(c[j][2] * f.lower, c[j][3] * f.lower);
  }
}

/// A block's tiles and memory: a thread has the same 16 bytes of every `rows`-th row.
template <int D, int NT>
struct Rows {
  static constexpr int width = short_row<D, NT>, packs = width / 8, stride = width + 8,
                       rows = short_threads / packs, padded = (NT + 1) / 2 * 16;
  int row, length;
  i64 from;        // of row 0
  unsigned step;   // elements
  unsigned place;  // in a tile
  __device__ __forceinline__ Rows(const Lines& s, const Spot& here)
      : row(static_cast<int>(threadIdx.x) / packs),
        length(s.length),
        from(here.at + static_cast<int>(threadIdx.x) % packs * 8),
        step(static_cast<unsigned>(here.row_step)),
        place(threadIdx.x / packs * stride + threadIdx.x % packs * 8) {}
  template <int n>
  __device__ __forceinline__ void fetch(bf16* tiles, const bf16* const (&x)[n]) const {
#pragma unroll
    for (int t = 0; t < n; ++t) {
      const bf16* const p = x[t] + from;
#pragma unroll
      for (int i = 0; i < padded / rows; ++i) {
        bf16* const to = tiles + t * short_tile<D, NT> + place + i * rows * stride;
        if (row + i * rows < length)
          detail::copy_async_once(to, p + static_cast<unsigned>(row + i * rows) * step);
        else
          *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
      }
    }
  }
  /// to = tile (+ to)
  __device__ __forceinline__ void write(bf16* to, const bf16* tile, bool add) const {
    uint4 before[padded / rows];
    if (add)
#pragma unroll
      for (int i = 0; i < padded / rows; ++i)
        if (row + i * rows < length)
          before[i] = *reinterpret_cast<const uint4*>(to + from +
                                                      static_cast<unsigned>(row + i * rows) * step);
#pragma unroll
    for (int i = 0; i < padded / rows; ++i) {
      if (row + i * rows >= length) break;
      uint4 x = *reinterpret_cast<const uint4*>(tile + place + i * rows * stride);
      if (add) {
        float a[8], b[8];
        load_pack<8>(reinterpret_cast<const bf16*>(&x), a);
        load_pack<8>(reinterpret_cast<const bf16*>(&before[i]), b);
#pragma unroll
        for (int u = 0; u < 8; ++u) a[u] += b[u];
        store_pack<8>(reinterpret_cast<bf16*>(&x), a);
      }
      *reinterpret_cast<uint4*>(to + from + static_cast<unsigned>(row + i * rows) * step) = x;
    }
  }
};

/// dc of 16 keys (rows of t) and of all queries (columns), from the gradients of their scores: +
/// for a key whose query is before it, - for its query, and the other way round.
template <int NT>
__device__ __forceinline__ void add_both(Two& keys, float (&queries)[NT][2],
                                         const float (&t)[NT][4], int row0) {
  const int lane = lane_index(), behind = lane / 4 - lane % 4 * 2;  // of the own 16 x 16
#pragma unroll
  for (int n = 0; n < NT; n += 2) {
    if (8 * n == row0) {
#pragma unroll
      for (int k = 0; k < 2; ++k)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (n + k >= NT) continue;
          constexpr int last = NT - 1;
          const float(&x)[4] = t[n + k < NT ? n + k : last];
          const int upper = behind - 8 * k - e, lower = upper + 8;
          const float a = upper > 0   ? x[e]
                          : upper < 0 ? -x[e]
                                      : 0.0f,
                      b = lower > 0   ? x[2 + e]
                          : lower < 0 ? -x[2 + e]
                                      : 0.0f;
          keys.upper += a, keys.lower += b;
          queries[n + k < NT ? n + k : last][e] -= a + b;
        }
    } else {
      const float sign = 8 * n < row0 ? 1.0f : -1.0f;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        if (n + k >= NT) continue;
        constexpr int last = NT - 1;
        const int m = n + k < NT ? n + k : last;
        keys.upper = ::fmaf(sign, t[m][0] + t[m][1], keys.upper);
        keys.lower = ::fmaf(sign, t[m][2] + t[m][3], keys.lower);
        queries[m][0] = ::fmaf(-sign, t[m][0] + t[m][2], queries[m][0]);
        queries[m][1] = ::fmaf(-sign, t[m][1] + t[m][3], queries[m][1]);
      }
    }
  }
}

template <int D, int NT, int pairs>
inline constexpr int short_tiles = pairs == 1   ? 4
                                   : pairs == 2 ? 7
                                                : 5;  // with one for P x0

/// As backward(); s.d = D, s.group = most_group, which divides the heads; no order.
template <int D, int NT, int pairs>
__global__ void __launch_bounds__(short_threads, pairs == 0 ? 4 : 3)
    short_backward(Lines s, const bf16* q, const bf16* k, const float* log_decay, Backward to) {
  extern __shared__ __align__(16) unsigned char memory[];
  constexpr int tile = short_tile<D, NT>, stride = Rows<D, NT>::stride, padded = (NT + 1) / 2 * 16;
  const Spot here(s);
  const int head = warp_index(), lane = lane_index();
  bf16 *const queries = reinterpret_cast<bf16*>(memory), *const keys = queries + tile,
              *const x0 = keys + tile, *const g0 = x0 + tile;
  bf16 *const x1 = g0 + (pairs == 2 ? tile : 0), *const g1 = x1 + (pairs == 2 ? tile : 0),
              *const mixed_tile = g1 + (pairs == 1 ? 0 : tile);
  float* const sums = reinterpret_cast<float*>(mixed_tile + tile);
  float *const log_sums = sums + 4 * padded, *const means = log_sums + 4 * padded,
               *const dsums = means + 4 * padded;
  const Rows<D, NT> rows(s, here);
  if constexpr (pairs == 2)
    rows.template fetch<6>(queries, {q, k, to.x0, to.g0, to.x1, to.g1});
  else
    rows.template fetch<4>(queries, {q, k, to.x0, to.g0});
  detail::copies_issued();
  if constexpr (pairs > 0) {
    if (to.add) ask_for<D>(to.dq, s, here), ask_for<D>(to.dk, s, here);
    if (to.add_back0) ask_for<D>(to.back0, s, here);
  }
  sum_decays<NT>(sums, log_decay, s, here);
  const int first = head * padded, column = lane % 4 * 2;
  for (int i = lane; i < padded; i += 32) log_sums[first + i] = -nowhere, means[first + i] = 0;
  detail::copies_done<0>();
  __syncthreads();

  const bool walls = any_closed(sums + first, s.length);
#pragma unroll 1
  for (int row0 = 0; row0 < s.length; row0 += 16) {
    const int row = row0 + lane / 4, at = row0 * stride + head * D;
    const Two own{sums[first + row], sums[first + row + 8]};
    unsigned query[D / 16][4];
    load_left<D>(query, queries + at, stride);
    float t[NT][4], z[4] = {};
    Two most{nowhere, nowhere};
    masked_scores<D, NT>(t, query, keys + head * D, stride, own, sums + first, walls);
    softmax_step<NT>(t, most);
    Left<NT> p;
    round_left<NT>(p, t);
    add_sums<NT>(z, p);
    const Two inverse{reciprocal(z[0]), reciprocal(z[2])};
    if (pairs != 1 && to.mixed) {
      float mixed[D / 8][4] = {};
      add_mix<D, NT>(mixed, p, x0 + head * D, stride);
      to_tile<D>(mixed_tile + at, stride, mixed, inverse);
    }
    if (lane % 4 == 0) {
      if (row < s.length) log_sums[first + row] = most.upper * log2_e + ::log2f(z[0]);
      if (row + 8 < s.length) log_sums[first + row + 8] = most.lower * log2_e + ::log2f(z[2]);
    }
    if constexpr (pairs > 0) {
      unsigned up[D / 16][4];
      float dp[NT][4] = {};
      load_left<D>(up, g0 + at, stride);
      add_scores<D, NT>(dp, up, x0 + head * D, stride);
      if constexpr (pairs == 2) {
        load_left<D>(up, g1 + at, stride);
        add_scores<D, NT>(dp, up, x1 + head * D, stride);
      }
      Two mean{0, 0};
#pragma unroll
      for (int n = 0; n < NT; ++n)
        mean.upper += t[n][0] * dp[n][0] + t[n][1] * dp[n][1],
            mean.lower += t[n][2] * dp[n][2] + t[n][3] * dp[n][3];
      mean = {over_quad(mean.upper) * inverse.upper, over_quad(mean.lower) * inverse.lower};
      if (lane % 4 == 0) {
        // elsewhere 0: rows behind the end may have overflowed
        if (row < s.length) means[first + row] = mean.upper;
        if (row + 8 < s.length) means[first + row + 8] = mean.lower;
      }
    }
  }
  __syncwarp();

  float dquery[pairs > 0 ? (NT + 1) / 2 : 1][D / 8][4] = {}, queries_dc[NT][2] = {};
#pragma unroll 1
  for (int row0 = 0; row0 < s.length; row0 += 16) {  // everything transposed
    const int row = row0 + lane / 4, at = row0 * stride + head * D;
    const Two own{sums[first + row], sums[first + row + 8]};
    float t[NT][4], out0[D / 8][4] = {}, out1[D / 8][4] = {};
    Left<NT> p;
    {
      unsigned key[D / 16][4];
      load_left<D>(key, keys + at, stride);
      masked_scores<D, NT>(t, key, queries + head * D, stride, own, sums + first, walls);
    }
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float2 shift = *reinterpret_cast<const float2*>(log_sums + first + n * 8 + column);
      t[n][0] = exp2_fast(::fmaf(t[n][0], log2_e, -shift.x)),
      t[n][1] = exp2_fast(::fmaf(t[n][1], log2_e, -shift.y));
      t[n][2] = exp2_fast(::fmaf(t[n][2], log2_e, -shift.x)),
      t[n][3] = exp2_fast(::fmaf(t[n][3], log2_e, -shift.y));
    }
    round_left<NT>(p, t);
    add_mix<D, NT>(out0, p, g0 + head * D, stride);
    if (pairs == 2 && to.back1) add_mix<D, NT>(out1, p, g1 + head * D, stride);
    if constexpr (pairs > 0) {
      float dp[NT][4];
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        const float2 mean = *reinterpret_cast<const float2*>(means + first + n * 8 + column);
        dp[n][0] = dp[n][2] = -mean.x, dp[n][1] = dp[n][3] = -mean.y;
      }
      unsigned value[D / 16][4];
      load_left<D>(value, x0 + at, stride);
      add_scores<D, NT>(dp, value, g0 + head * D, stride);
      if constexpr (pairs == 2) {
        load_left<D>(value, x1 + at, stride);
        add_scores<D, NT>(dp, value, g1 + head * D, stride);
      }
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int e = 0; e < 4; ++e) t[n][e] *= dp[n][e];
      if (to.dlog_decay) {
        Two dc{0, 0};
        add_both<NT>(dc, queries_dc, t, row0);
        dc = {over_quad(dc.upper), over_quad(dc.lower)};
        if (lane % 4 == 0) dsums[first + row] = dc.upper, dsums[first + row + 8] = dc.lower;
      }
      round_left<NT>(p, t);
      float dkey[D / 8][4] = {};
      add_mix<D, NT>(dkey, p, queries + head * D, stride);
#pragma unroll
      for (int j = 0; j < D / 16; ++j) {
        unsigned key[4];
        detail::load_turned(key, keys + at + lane % 16 * stride + lane / 16 * 8 + j * 16);
#pragma unroll
        for (int i = 0; i < (NT + 1) / 2; ++i) {
          const bool half = 2 * i + 1 == NT;
          const unsigned ds[4] = {turned(p[i][0]), half ? 0 : turned(p[i][2]), turned(p[i][1]),
                                  half ? 0 : turned(p[i][3])};
          detail::multiply(dquery[i][2 * j], ds, key[0], key[1]);
          detail::multiply(dquery[i][2 * j + 1], ds, key[2], key[3]);
        }
      }
      __syncwarp();  // the keys and x of these rows have been read
      to_tile<D>(keys + at, stride, dkey, {to.share, to.share});
    } else {
      __syncwarp();
    }
    const float f = to.back0_is_dv ? to.share : 1.0f;
    to_tile<D>(x0 + at, stride, out0, {f, f});
    if (pairs == 2 && to.back1) to_tile<D>(x1 + at, stride, out1, {1, 1});
  }
  if constexpr (pairs > 0) {
    __syncwarp();  // the queries have been read
#pragma unroll
    for (int i = 0; i < (NT + 1) / 2; ++i)
      to_tile<D>(queries + i * 16 * stride + head * D, stride, dquery[i], {to.share, to.share});
    if (to.dlog_decay) {
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float x = queries_dc[n][e];
#pragma unroll
          for (int far = 4; far < 32; far *= 2) x += __shfl_xor_sync(~0u, x, far);
          if (lane / 4 == 0) dsums[first + 8 * n + column + e] += x;
        }
      __syncwarp();
      sums_to_decays<NT>(sums, dsums, to.share, to.dlog_decay, s, here);
    }
  }
  __syncthreads();
  if (pairs != 1 && to.mixed) rows.write(to.mixed, mixed_tile, false);
  rows.write(to.back0, x0, to.add_back0);
  if constexpr (pairs > 0) {
    if (pairs == 2 && to.back1) rows.write(to.back1, x1, false);
    rows.write(to.dq, queries, to.add), rows.write(to.dk, keys, to.add);
  }
}

/// False where lines are longer, or blocks would have other heads than they are made for.
template <int D, int NT, int pairs>
bool run_short(const AttentionArgs<bf16>& in, const Lines& s, bool along_rows, const Backward& to) {
  if constexpr (NT < 8 && D <= 32 && most_group<D, NT> * 32 == short_threads) {
    if (s.d != D || s.group != most_group<D, NT> || s.heads % s.group != 0 || s.order != nullptr)
      return false;
    constexpr int bytes =
        short_tiles<D, NT, pairs> * short_tile<D, NT> * 2 + 4 * 4 * ((NT + 1) / 2 * 16) * 4;
    detail::allow_shared(short_backward<D, NT, pairs>, bytes, "criss_cross_attention");
    const dim3 blocks(static_cast<unsigned>(in.shape.batch * s.count),
                      static_cast<unsigned>(s.groups));
    short_backward<D, NT, pairs><<<blocks, short_threads, bytes, cuda::stream()>>>(
        s, in.q, in.k, along_rows ? in.log_alpha : in.log_beta, to);
    return true;
  } else {
    return false;
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
