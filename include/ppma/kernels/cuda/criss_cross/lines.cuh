#pragma once
#include "ppma/core/names_begin.hpp"
// One line (a row or a column) of criss-cross attention on the tensor cores: a block has the tokens
// of a few heads in shared memory, a warp works for one of them: it takes 16 queries (or keys) and
// has their scores in registers, 64 keys at a time. Sums are in float, probabilities are rounded to
// bf16 for the product. Tokens behind the end of a line have zeros for vectors and `nowhere` for
// their decay sum: no real query sees them.

#include <algorithm>
#include <type_traits>

#include "ppma/kernels/cpu/head.hpp"
#include "ppma/kernels/cuda/criss_cross/line_memory.cuh"
#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels::cross_tensor {

using detail::exp2_fast;

inline constexpr float log2_e = 1.44269504088896341f, ln_2 = 0.6931471805599453f;
/// The distance of sums that are log2_e times those of log decays, from which a path is closed.
inline constexpr float closed = polyline_gpu::limit_bf16 * log2_e;
/// Sums of weights between the inverse of this and this have no weight that counts out of range.
inline constexpr float sum_limit = 0x1p90f;

__device__ __forceinline__ float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float log2_fast(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// A left factor of 16 rows (x D) from a tile, rows `stride` apart.
template <int D>
__device__ __forceinline__ void load_left(unsigned (&a)[D / 16][4], const bf16* tile, int stride) {
  const int lane = lane_index();
#pragma unroll
  for (int i = 0; i < D / 16; ++i)
    detail::load_matrices(a[i], tile + lane % 16 * stride + i * 16 + lane / 16 * 8);
}
// c += a b^T with 8 NT rows b of a tile.
template <int D, int NT>
__device__ __forceinline__ void add_scores(float (&c)[NT][4], const unsigned (&a)[D / 16][4],
                                           const bf16* tile, int stride) {
  const int lane = lane_index();
  const bf16* const from = tile + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
#pragma unroll
  for (int i = 0; i < D / 16; ++i)
#pragma unroll
    for (int n = 0; n < NT; n += 2) {
      unsigned b[4];
      detail::load_matrices(b, from + n * 8 * stride + i * 16);
      detail::multiply(c[n], a[i], b[0], b[1]);
      if (n + 1 < NT) detail::multiply(c[n + 1], a[i], b[2], b[3]);
    }
}
template <int NT>
using Left = unsigned[(NT + 1) / 2][4];
template <int NT>
__device__ __forceinline__ void round_left(Left<NT>& a, const float (&p)[NT][4]) {
  constexpr float zero[4] = {};
#pragma unroll
  for (int n = 0; n < NT; n += 2) {
    if (n + 1 < NT)
      detail::as_left(a[n / 2], p[n], p[n + 1 < NT ? n + 1 : n]);
    else
      detail::as_left(a[n / 2], p[n], zero);
  }
}
// c += a x with 8 NT rows x of a tile.
template <int D, int NT>
__device__ __forceinline__ void add_mix(float (&c)[D / 8][4], const Left<NT>& a, const bf16* tile,
                                        int stride) {
  const int lane = lane_index();
  const bf16* const from = tile + lane % 16 * stride + lane / 16 * 8;
#pragma unroll
  for (int i = 0; i < (NT + 1) / 2; ++i)
#pragma unroll
    for (int j = 0; j < D / 16; ++j) {
      unsigned b[4];
      detail::load_turned(b, from + i * 16 * stride + j * 16);
      detail::multiply(c[2 * j], a[i], b[0], b[1]);
      detail::multiply(c[2 * j + 1], a[i], b[2], b[3]);
    }
}

// Two rows of a lane: l/4 and l/4 + 8 of its warp's 16.
struct Two {
  float upper, lower;
};
__device__ __forceinline__ float over_quad(float x) {
  x += __shfl_xor_sync(~0u, x, 1);
  return x + __shfl_xor_sync(~0u, x, 2);
}
__device__ __forceinline__ float top_of_quad(float x) {
  x = ::fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return ::fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

// What products of scores start from: x[column], which a lane's two rows share. (Loaded twice and
// not copied: so each tile has four registers that products read as they are.)
template <int NT>
__device__ __forceinline__ void load_columns(float (&t)[NT][4], const float* x) {
  const unsigned from = detail::shared_address(x + lane_index() % 4 * 2);
#pragma unroll
  for (int n = 0; n < NT; ++n)
#pragma unroll
    for (int e = 0; e < 4; e += 2)
      asm volatile("ld.volatile.shared.v2.f32 {%0,%1}, [%2];"
                   : "=f"(t[n][e]), "=f"(t[n][e + 1])
                   : "r"(from + 32u * static_cast<unsigned>(n))
                   : "memory");
}
// Whether a path along a line may be closed: its last sum is the largest. (See sum_decays().)
__device__ __forceinline__ bool any_closed(const float* sums, int length, float unit = 1) {
  return -sums[length - 1] >= polyline_gpu::limit_bf16 * unit;
}
// -infinity for a path that is closed.
template <int NT>
__device__ __forceinline__ void close_paths(float (&t)[NT][4]) {
#pragma unroll
  for (int n = 0; n < NT; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (t[n][e] <= -polyline_gpu::limit_bf16) t[n][e] = negative_infinity<float>();
}
// t = queries keys^T - |own - sums|; the mask is where the product starts from.
template <int D, int NT>
__device__ __forceinline__ void masked_scores(float (&t)[NT][4], const unsigned (&query)[D / 16][4],
                                              const bf16* keys, int stride, Two own,
                                              const float* sums, bool walls) {
  const int column = lane_index() % 4 * 2;
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    const float2 c = *reinterpret_cast<const float2*>(sums + n * 8 + column);
    t[n][0] = -::fabsf(own.upper - c.x), t[n][1] = -::fabsf(own.upper - c.y);
    t[n][2] = -::fabsf(own.lower - c.x), t[n][3] = -::fabsf(own.lower - c.y);
  }
  if (walls) close_paths<NT>(t);
  add_scores<D, NT>(t, query, keys, stride);
}
// t = e^(t - shift), by rows.
template <int NT>
__device__ __forceinline__ void exponentials(float (&t)[NT][4], Two shift) {
  const Two back{-shift.upper * log2_e, -shift.lower * log2_e};
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    t[n][0] = exp2_fast(::fmaf(t[n][0], log2_e, back.upper)),
    t[n][1] = exp2_fast(::fmaf(t[n][1], log2_e, back.upper));
    t[n][2] = exp2_fast(::fmaf(t[n][2], log2_e, back.lower)),
    t[n][3] = exp2_fast(::fmaf(t[n][3], log2_e, back.lower));
  }
}
// One more chunk of keys: t becomes e^(t - most); returns the factor of what was before.
template <int NT>
__device__ __forceinline__ Two softmax_step(float (&t)[NT][4], Two& most) {
  Two now = most;
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    now.upper = ::fmaxf(now.upper, ::fmaxf(t[n][0], t[n][1]));
    now.lower = ::fmaxf(now.lower, ::fmaxf(t[n][2], t[n][3]));
  }
  now = {top_of_quad(now.upper), top_of_quad(now.lower)};
  const Two factor{exp2_fast((most.upper - now.upper) * log2_e),
                   exp2_fast((most.lower - now.lower) * log2_e)};
  most = now;
  exponentials<NT>(t, now);
  return factor;
}
// z[0], z[2] += the rows' sums of the rounded probabilities: a product with ones.
template <int NT>
__device__ __forceinline__ void add_sums(float (&z)[4], const Left<NT>& p) {
  constexpr unsigned ones = 0x3f803f80;
#pragma unroll
  for (int i = 0; i < (NT + 1) / 2; ++i) detail::multiply(z, p[i], ones, ones);
}
template <int N>
__device__ __forceinline__ void scale_rows(float (&c)[N][4], Two f) {
#pragma unroll
  for (int n = 0; n < N; ++n)
    c[n][0] *= f.upper, c[n][1] *= f.upper, c[n][2] *= f.lower, c[n][3] *= f.lower;
}

// Writes a warp's 16 rows of one head to `to` (+ plus, which may be `to`), through `stage` (rows
// `width` apart), so that whole sectors go out.
template <int D>
__device__ __forceinline__ void write_rows(bf16* stage, int width, const float (&c)[D / 8][4],
                                           Two f, const Lines& s, const Spot& here, int head,
                                           int row0, const bf16* plus, bf16* to) {
  const int lane = lane_index(), rows = ::min(16, s.length - row0);
  const int at = head * s.d;
  to += here.at;
  if (plus) plus += here.at;
  __syncwarp();
#pragma unroll
  for (int j = 0; j < D / 8; ++j) {
    bf16* const p = stage + lane / 4 * width + j * 8 + lane % 4 * 2;
    *reinterpret_cast<unsigned*>(p) = detail::rounded_pair(c[j][0] * f.upper, c[j][1] * f.upper);
    *reinterpret_cast<unsigned*>(p + 8 * width) =
        detail::rounded_pair(c[j][2] * f.lower, c[j][3] * f.lower);
  }
  __syncwarp();
  if (s.d % 8 == 0) {
#pragma unroll
    for (int i = lane; i < 2 * D; i += 32) {
      const int row = i / (D / 8), column = i % (D / 8) * 8;
      if (row >= rows || column >= s.d) continue;
      const int e = at + here.place(row0 + row) * here.row_step + column;
      uint4 v = *reinterpret_cast<const uint4*>(stage + row * width + column);
      if (plus) {
        float a[8], b[8];
        load_pack<8>(stage + row * width + column, a);
        load_pack<8>(plus + e, b);
#pragma unroll
        for (int u = 0; u < 8; ++u) a[u] += b[u];
        store_pack<8>(to + e, a);
      } else {
        *reinterpret_cast<uint4*>(to + e) = v;
      }
    }
  } else {
    for (int i = lane; i < 16 * D; i += 32) {
      const int row = i / D, column = i % D;
      if (row >= rows || column >= s.d) continue;
      const int e = at + here.place(row0 + row) * here.row_step + column;
      const float v = stage[row * width + column];
      to[e] = bf16(plus ? v + static_cast<float>(plus[e]) : v);
    }
  }
}

/// The warp's head and every 16 of its queries (or keys) that are the warp's: f(row). All of a
/// head's warps share them.
template <class F>
__device__ __forceinline__ void each_row(const Lines& s, F&& f) {
  const int step = static_cast<int>(blockDim.x) / 32 / s.group * 16;
  for (int row0 = warp_index() / s.group * 16; row0 < s.length; row0 += step) f(row0);
}

/// Bytes of shared memory: tiles of the line, `stages` of 16 rows, and floats for every position
/// and head.
template <int D, int NT>
int shared_bytes(const Lines& s, int tiles, int stages, int floats) {
  return (tiles * s.padded * s.stride<D, NT>() + stages * 16 * (D + 8)) * 2 +
         floats * s.group * s.padded * 4;
}
inline constexpr int good_shared = 99 * 1024;  // what every GPU from sm_80 on has for a block

/// Lines of a pass. A block of up to `warps` warps has a head for each if there is room, but no
/// more than make whole cache lines (64 channels) where that would leave multiprocessors without a
/// block, and one alone where a head a block does not fill them twice.
template <int D, int NT>
Lines lines(const AttentionShape& x, bool along_rows, const polyline_gpu::LineOrders& orders,
            int warps, int tiles, int stages, int floats) {
  Lines s{};
  const int h = static_cast<int>(x.height), w = static_cast<int>(x.width);
  s.count = along_rows ? h : w, s.length = along_rows ? w : h, s.step = along_rows ? 1 : w,
  s.line_step = along_rows ? w : 1;
  s.tokens = h * w, s.heads = static_cast<int>(x.heads), s.d = static_cast<int>(x.head_width),
  s.channels = s.heads * s.d;
  s.order = along_rows ? orders.rows : orders.columns;
  s.padded = NT < 8 ? s.rows<NT>() : (s.length + 63) / 64 * 64;
  constexpr i64 many_blocks = 1024;
  const i64 heads = x.batch * s.count * s.heads;
  s.group = 1;
  while (heads > 2 * cuda::device().multiProcessorCount && s.group < s.heads &&
         s.group < std::min(warps, most_group<D, NT>) &&
         (s.group * D < 64 || heads / (2 * s.group) >= many_blocks)) {
    s.group *= 2;
    if (shared_bytes<D, NT>(s, tiles, stages, floats) > good_shared) {
      s.group /= 2;
      break;
    }
  }
  s.groups = (s.heads + s.group - 1) / s.group;
  s.pack_shift = 0;
  while (1 << s.pack_shift < s.group * D / 8) ++s.pack_shift;
  return s;
}

/// Calls f with the 8-key tiles of a line, at most 8 at a time.
template <class F>
void with_length(i64 length, F&& f) {
  if (length <= 32)
    f(std::integral_constant<int, 4>{});
  else if (length <= 56)
    f(std::integral_constant<int, 7>{});
  else
    f(std::integral_constant<int, 8>{});
}

}  // namespace ppma::inline PPMA_ABI::kernels::cross_tensor

#include "ppma/core/names_end.hpp"
