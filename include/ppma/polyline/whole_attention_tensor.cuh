#pragma once
// whole_attention.hpp in bf16 on the tensor cores, float sums. Scores, masks and probabilities live in registers.
//
//   row path      s - |a[i,j] - a[i,l]| - |b[i,l] - b[k,l]|       along the owner's line, then across
//   column path   s - |a[k,j] - a[k,l]| - |b[i,j] - b[k,j]|       across in the owner's column, then along
//
// (i,j) is the owner, (k,l) the other. Seen from a query the row path is V2H, from a key it is H2V: so one kernel makes
// the gradients of both. a and b are the running sums of the log decays.
//
// Tokens are laid out in lines of at most 64, each padded to 8, 16, 32 or 64 cells; a tile is 64 cells: whole lines. Then
// in every 8 x 8 piece of scores i and k are the same for all, j and l are consecutive, and the decays of a piece are a
// handful of reads from shared memory. A block owns a tile, a warp 16 of its cells; all tiles pass by.
//
// Gradients of the decays: the row path touches a[i,j], a[i,l], b[i,l] in the owner's own line, so the block that owns
// the line sums them alone: T[j,l] = sum_k dS and U[j,l] = sum_k sign(i - k) dS stay in registers. No atomics, the same
// bits every time; O(N) memory.
//
// Floor, forward: two exponentials a score (16 a cycle and multiprocessor) = 0.28 ms for 537 M scores on an H200; about
// 16 other instructions a score would take 0.29 ms more where they do not overlap. Measured there: 0.79 ms, backward 2.05.

#include "ppma/kernels/mma.cuh"
#include "ppma/polyline/decay_sums.cuh"
#include "ppma/polyline/types.hpp"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

using detail::as_left;
using detail::copies_done;
using detail::copies_issued;
using detail::copy_async;
using detail::exp2_fast;
using detail::load_matrices;
using detail::load_turned;
using detail::multiply;

inline constexpr int threads = 128, cells = 64;
// Registers decide how many blocks a multiprocessor holds: three hide more latency than two with a few spilled values cost
// (measured on an H200; four spill too much).
template <int D> inline constexpr int blocks_at_once = D == 32 ? 3 : 2;
inline constexpr float log2_e = 1.4426950408889634f;
inline constexpr float far = 1e30f;  // the sums of padding: whatever meets them has probability 0

/// The grid as lines. Where columns are shorter than 64 and rows are not, columns are the lines.
struct Lines {
  int lines, length, line_step, step, tokens, heads, head_width;
  i64 channels;
  int width;      // 8-cell pieces of a padded line: 1, 2, 4 or 8
  bool turned;    // lines are columns

  Lines(const AttentionShape& x, bool masked)
      : lines(static_cast<int>(x.height)), length(static_cast<int>(x.width)), line_step(length), step(1),
        tokens(static_cast<int>(x.tokens())), heads(static_cast<int>(x.heads)), head_width(static_cast<int>(x.head_width)),
        channels(x.channels()), turned(masked && x.width > cells) {
    if (turned) lines = static_cast<int>(x.width), length = static_cast<int>(x.height), line_step = 1, step = lines;
    if (!masked) lines = (tokens + cells - 1) / cells, length = cells, line_step = cells;
    width = length <= 8 ? 1 : length <= 16 ? 2 : length <= 32 ? 4 : 8;
  }
  int tiles() const { return (lines + 8 / width - 1) / (8 / width); }
  static bool suits(const AttentionShape& x, bool masked) {
    return x.head_width % 8 == 0 && x.head_width <= 64 && (!masked || std::min(x.height, x.width) <= cells) &&
           x.tokens() * x.channels() < (i64{1} << 30);
  }
  /// The token of a cell, -1 for padding.
  template <int WT>
  __device__ __forceinline__ int token(int tile, int cell) const {
    const int line = tile * (8 / WT) + cell / (8 * WT), at = cell % (8 * WT);
    const int t = line * line_step + at * step;
    return line < lines && at < length && t < tokens ? t : -1;
  }
  /// The first channel of a head.
  __device__ __forceinline__ i64 base(i64 head) const { return head / heads * tokens * channels + head % heads * head_width; }
};

/// (a, b) of every cell of every head, `far` in the padding. A thread a line or a column of lines.
template <class A>
__global__ void __launch_bounds__(128) cell_sums(Lines g, i64 heads, int tiles, const A* log_a, const A* log_b, float2* sums) {
  const int padded = 8 * g.width, all_lines = tiles * (8 / g.width);
  for (i64 e = cuda::first(); e < heads * (all_lines + padded); e += cuda::stride()) {
    const i64 head = e / (all_lines + padded);
    const int r = static_cast<int>(e % (all_lines + padded));
    const A *const from_a = log_a + head * g.tokens, *const from_b = log_b + head * g.tokens;
    float2* const to = sums + head * tiles * cells;
    float sum = 0;
    if (r < all_lines) {
      for (int at = 0; at < padded; ++at) {
        const bool there = r < g.lines && at < g.length;
        if (there && at > 0) sum += from_a[r * g.line_step + at * g.step];
        to[r * padded + at].x = there ? sum : far;
      }
    } else {
      const int at = r - all_lines;
      for (int line = 0; line < all_lines; ++line) {
        const bool there = line < g.lines && at < g.length;
        if (there && line > 0) sum += from_b[line * g.line_step + at * g.step];
        to[line * padded + at].y = there ? sum : far;
      }
    }
  }
}

/// Copies tiles of one head into shared memory, in the background; zeros in the padding. A thread copies the same cells
/// of every tile: where they are is worked out once.
template <int D, int WT>
struct TileCopy {
  static constexpr int pieces = cells * D / 8 / threads;  // of 16 bytes
  int from[pieces], lines[pieces];  // first element of the piece in tile 0; tiles' lines that hold it
  int tile_step, tile_lines;

  __device__ __forceinline__ explicit TileCopy(const Lines& g)
      : tile_step(8 / WT * g.line_step * static_cast<int>(g.channels)), tile_lines(8 / WT) {
#pragma unroll
    for (int u = 0; u < pieces; ++u) {
      const int e = static_cast<int>(threadIdx.x) + u * threads, cell = e / (D / 8), c = e % (D / 8) * 8;
      const int line = cell / (8 * WT), at = cell % (8 * WT);
      from[u] = (line * g.line_step + at * g.step) * static_cast<int>(g.channels) + c;
      // Tile t holds the cell if t * tile_lines is below this; the last line of a grid without mask may be cut short.
      lines[u] = at < g.length && c < g.head_width ? ::min(g.lines, (g.tokens + g.line_step - 1 - at * g.step) / g.line_step) - line : 0;
    }
  }
  __device__ __forceinline__ void operator()(int tile, const bf16* head, bf16 (*to)[D + 8]) const {
#pragma unroll
    for (int u = 0; u < pieces; ++u) {
      const int e = static_cast<int>(threadIdx.x) + u * threads;
      const bool there = tile * tile_lines < lines[u];
      copy_async(&to[e / (D / 8)][e % (D / 8) * 8], there ? head + (tile * tile_step + from[u]) : head, there);
    }
  }
};
/// `bytes` (a multiple of 16) of consecutive memory, likewise.
__device__ __forceinline__ void load_block(void* to, const void* from, int bytes) {
  for (int e = static_cast<int>(threadIdx.x) * 16; e < bytes; e += threads * 16)
    copy_async(reinterpret_cast<bf16*>(to) + e / 2, reinterpret_cast<const bf16*>(from) + e / 2, true);
}

/// 16 tokens of a head as left factors, straight from memory.
template <int D>
__device__ __forceinline__ void load_left(const bf16* head, i64 channels, int width, int token0, int token1, unsigned (&left)[D / 16][4]) {
  const int c = static_cast<int>(threadIdx.x) % 4 * 2;
  const auto pair = [&](int token, int at) {
    return token >= 0 && at < width ? *reinterpret_cast<const unsigned*>(head + token * channels + at) : 0u;
  };
#pragma unroll
  for (int s = 0; s < D / 16; ++s) {
    left[s][0] = pair(token0, 16 * s + c), left[s][1] = pair(token1, 16 * s + c);
    left[s][2] = pair(token0, 16 * s + 8 + c), left[s][3] = pair(token1, 16 * s + 8 + c);
  }
}
template <int D>
__device__ __forceinline__ void store_rows(bf16* head, i64 channels, int width, int token0, int token1, const float (&out)[D / 8][4]) {
  const int c = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int s = 0; s < D / 8; ++s) {
    if (8 * s + c >= width) continue;
    if (token0 >= 0) *reinterpret_cast<unsigned*>(head + token0 * channels + 8 * s + c) = detail::rounded_pair(out[s][0], out[s][1]);
    if (token1 >= 0) *reinterpret_cast<unsigned*>(head + token1 * channels + 8 * s + c) = detail::rounded_pair(out[s][2], out[s][3]);
  }
}
/// c (16, 8 rows of x) = left (16, D) x^T
template <int D>
__device__ __forceinline__ void times_rows(float (&c)[4], const unsigned (&left)[D / 16][4], const bf16 (*x)[D + 8]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  c[0] = c[1] = c[2] = c[3] = 0;
#pragma unroll
  for (int s = 0; s < D / 32; ++s) {
    unsigned b[4];
    load_matrices(b, &x[lane % 8][32 * s + lane / 8 * 8]);
    multiply(c, left[2 * s], b[0], b[1]);
    multiply(c, left[2 * s + 1], b[2], b[3]);
  }
}
/// The right factor x (16 rows, 16 columns from `at`): b[0], b[1] for the first 8 columns, b[2], b[3] for the next.
template <int D>
__device__ __forceinline__ void load_columns(unsigned (&b)[4], const bf16 (*x)[D + 8], int at) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  load_turned(b, &x[lane % 16][at + lane / 16 * 8]);
}

/// The thread's place: two cells, eight rows of a result apart.
struct Owner {
  int cell[2], column[2], line[2];
  float2 sums[2];
  template <int WT>
  __device__ __forceinline__ void place(int tile) {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      cell[r] = 16 * warp + 8 * r + lane / 4, column[r] = cell[r] % (8 * WT);
      line[r] = tile * (8 / WT) + (16 * warp + 8 * r) / (8 * WT);  // the same for the warp
    }
  }
};

/// Adds both masks to the scores s of piece n of a tile.
template <int WT>
__device__ __forceinline__ void add_masks(const float (&s)[4], int n, const Owner& o, const float2* own, const float2* other, float (&row)[4], float (&column)[4]) {
  const int c = static_cast<int>(threadIdx.x) % 4 * 2, l = n % WT * 8 + c;
  const float4 key = *reinterpret_cast<const float4*>(other + n * 8 + c);  // (a, b) at [k,l] and [k,l+1]
  float4 line = *reinterpret_cast<const float4*>(own + (o.cell[0] - o.column[0]) + l);  // at [i,l] and [i,l+1]
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (WT == 1 && r == 1) line = *reinterpret_cast<const float4*>(own + (o.cell[1] - o.column[1]) + l);  // else both share a line
    const float2 kj = other[n / WT * (8 * WT) + o.column[r]];
    const float across = ::fabsf(o.sums[r].y - kj.y);
    row[2 * r] = s[2 * r] - ::fabsf(o.sums[r].x - line.x) - ::fabsf(line.y - key.y);
    row[2 * r + 1] = s[2 * r + 1] - ::fabsf(o.sums[r].x - line.z) - ::fabsf(line.w - key.w);
    column[2 * r] = s[2 * r] - ::fabsf(kj.x - key.x) - across;
    column[2 * r + 1] = s[2 * r + 1] - ::fabsf(kj.x - key.z) - across;
  }
}

/// One softmax and its average of values, while keys pass by.
template <int D>
struct Average {
  float most[2] = {-far, -far}, sum[2] = {}, out[D / 8][4] = {};

  /// t -> e^(t - most) as left factors; what came before is rescaled.
  __device__ __forceinline__ void absorb(float (&t)[8][4], unsigned (&left)[4][4]) {
    float now[2] = {most[0], most[1]};
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int r = 0; r < 2; ++r) now[r] = ::fmaxf(now[r], ::fmaxf(t[n][2 * r], t[n][2 * r + 1]));
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      now[r] = ::fmaxf(now[r], __shfl_xor_sync(0xffffffffu, now[r], 1));
      now[r] = ::fmaxf(now[r], __shfl_xor_sync(0xffffffffu, now[r], 2));
    }
    if (__any_sync(0xffffffffu, now[0] > most[0] || now[1] > most[1])) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float factor = exp2_fast((most[r] - now[r]) * log2_e);
        most[r] = now[r], sum[r] *= factor;
#pragma unroll
        for (int s = 0; s < D / 8; ++s) out[s][2 * r] *= factor, out[s][2 * r + 1] *= factor;
      }
    }
    const float shift[2] = {most[0] * log2_e, most[1] * log2_e};
#pragma unroll
    for (int n = 0; n < 8; ++n)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        t[n][e] = exp2_fast(::fmaf(t[n][e], log2_e, -shift[e / 2]));
        sum[e / 2] += t[n][e];
      }
#pragma unroll
    for (int s = 0; s < 4; ++s) as_left(left[s], t[2 * s], t[2 * s + 1]);
  }
  __device__ __forceinline__ void add_values(int at, const unsigned (&left)[4], const unsigned (&b)[4]) {
    multiply(out[at / 8], left, b[0], b[1]);
    multiply(out[at / 8 + 1], left, b[2], b[3]);
  }
  /// out /= sum over all keys; returns log2 of that sum for row r in log_sum.
  __device__ __forceinline__ void finish(float (&log_sum)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 1);
      sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], 2);
      log_sum[r] = most[r] * log2_e + ::log2f(sum[r]);
      const float factor = 1 / sum[r];
#pragma unroll
      for (int s = 0; s < D / 8; ++s) out[s][2 * r] *= factor, out[s][2 * r + 1] *= factor;
    }
  }
};

/// y; and for backward y1, the average of the first softmax alone, and (log2 z1, log2 z2) of every token and head.
template <int D, int WT, bool masked>
__global__ void __launch_bounds__(threads, blocks_at_once<D>) forward(Lines g, const bf16* q, const bf16* k, const bf16* v, const float2* sums, float share1, float share2, bf16* y, bf16* y1,
                                                   float2* log_sums) {
  __shared__ alignas(16) bf16 ks[2][cells][D + 8], vs[2][cells][D + 8];
  __shared__ alignas(16) float2 own[cells], other[2][cells];
  const int tile = static_cast<int>(blockIdx.x), tiles = static_cast<int>(gridDim.x);
  const i64 head = blockIdx.y, base = g.base(head);
  const float2* const plane = sums + head * tiles * cells;
  const TileCopy<D, WT> copy(g);
  const auto fetch = [&](int t) {
    copy(t, k + base, ks[t % 2]);
    copy(t, v + base, vs[t % 2]);
    if constexpr (masked) load_block(other[t % 2], plane + t * cells, sizeof own);
    copies_issued();
  };
  if constexpr (masked) load_block(own, plane + tile * cells, sizeof own);
  fetch(0);
  Owner o;
  o.place<WT>(tile);
  const int token0 = g.token<WT>(tile, o.cell[0]), token1 = g.token<WT>(tile, o.cell[1]);
  unsigned query[D / 16][4];
  load_left<D>(q + base, g.channels, g.head_width, token0, token1, query);
  Average<D> first;
  [[maybe_unused]] Average<masked ? D : 8> second;
  for (int t = 0; t < tiles; ++t) {
    if (t + 1 < tiles) {
      fetch(t + 1);
      copies_done<1>();
    } else {
      copies_done<0>();
    }
    __syncthreads();
    if constexpr (masked)
      if (t == 0) o.sums[0] = own[o.cell[0]], o.sums[1] = own[o.cell[1]];
    float s[8][4], row[8][4];
    unsigned left1[4][4];
    [[maybe_unused]] unsigned left2[4][4];
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      times_rows<D>(s[n], query, &ks[t % 2][8 * n]);
      if constexpr (masked) {
        float column[4];
        add_masks<WT>(s[n], n, o, own, other[t % 2], row[n], column);
#pragma unroll
        for (int e = 0; e < 4; ++e) s[n][e] = column[e];
      } else {
        const int c = t * cells + 8 * n + static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
        for (int e = 0; e < 4; ++e) row[n][e] = c + e % 2 < g.tokens ? s[n][e] : -far;
      }
    }
    first.absorb(row, left1);
    if constexpr (masked) second.absorb(s, left2);
#pragma unroll
    for (int m = 0; m < 4; ++m)
#pragma unroll
      for (int at = 0; at < D; at += 16) {
        unsigned b[4];
        load_columns<D>(b, &vs[t % 2][16 * m], at);
        first.add_values(at, left1[m], b);
        if constexpr (masked) second.add_values(at, left2[m], b);
      }
    __syncthreads();
  }
  float log1[2], log2[2] = {};
  first.finish(log1);
  if constexpr (masked) second.finish(log2);
  if (log_sums != nullptr && threadIdx.x % 4 == 0) {
    if (token0 >= 0) log_sums[head * g.tokens + token0] = {log1[0], log2[0]};
    if (token1 >= 0) log_sums[head * g.tokens + token1] = {log1[1], log2[1]};
  }
  if (y1 != nullptr) store_rows<D>(y1 + base, g.channels, g.head_width, token0, token1, first.out);
#pragma unroll
  for (int s = 0; s < D / 8; ++s)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      first.out[s][e] *= share1;
      if constexpr (masked) first.out[s][e] += share2 * second.out[s][e];
    }
  store_rows<D>(y + base, g.channels, g.head_width, token0, token1, first.out);
}

/// What the gradients need of every query, by cells: log2 of the sums, less log2 of the shares; and sum p dP of both
/// softmaxes, which is dy times the average of each: y = share1 y1 + share2 y2. y1 null: y is the one that counts.
template <class T>
__global__ void __launch_bounds__(128)
    query_sums(Lines g, i64 heads, int tiles, const T* y, const T* y1, const T* dy, const float2* log_sums, float share1, float share2, float4* stats) {
  for (i64 e = cuda::first(); e < heads * tiles * cells; e += cuda::stride()) {
    const i64 head = e / (tiles * cells);
    const int tile = static_cast<int>(e / cells % tiles), cell = static_cast<int>(e % cells);
    const int token = g.width == 1 ? g.token<1>(tile, cell) : g.width == 2 ? g.token<2>(tile, cell) : g.width == 4 ? g.token<4>(tile, cell) : g.token<8>(tile, cell);
    float4 s = {far, far, 0, 0};
    if (token >= 0) {
      const i64 at = g.base(head) + token * g.channels;
      float whole = 0, one = 0;
      for (int c = 0; c < g.head_width; c += 8) {
        float a[8], b[8], d[8];
        load_pack<8>(y + at + c, a);
        load_pack<8>(dy + at + c, d);
        if (y1 != nullptr) load_pack<8>(y1 + at + c, b);
#pragma unroll
        for (int i = 0; i < 8; ++i) whole += a[i] * d[i], one += y1 != nullptr ? b[i] * d[i] : 0.f;
      }
      const float2 log = log_sums[head * g.tokens + token];
      if (share1 > 0) s.x = log.x - ::log2f(share1), s.z = y1 != nullptr ? one : whole;
      if (share2 > 0) s.y = log.y - ::log2f(share2), s.w = y1 != nullptr ? (whole - share1 * one) / share2 : whole;
    }
    stats[e] = s;
  }
}

/// of_keys: dk (out1), dv (out2) of the keys of a tile, all queries passing by; else dq (out1) of its queries. And what the
/// sums a, b of the tile's cells get from the row path and, at the owner, from the column path.
template <int D, int WT, bool masked, bool of_keys>
__global__ void __launch_bounds__(threads, blocks_at_once<D>) backward(Lines g, const bf16* q, const bf16* k, const bf16* v, const bf16* dy, const float2* sums, const float4* stats, bf16* out1,
                                                    bf16* out2, float2* dsums) {
  __shared__ alignas(16) bf16 xs[2][cells][D + 8], zs[2][cells][D + 8];
  __shared__ alignas(16) float2 own[cells], other[2][cells];
  __shared__ alignas(16) float4 seen[of_keys ? 2 : 1][of_keys ? cells : 1];
  const int tile = static_cast<int>(blockIdx.x), tiles = static_cast<int>(gridDim.x), lane = static_cast<int>(threadIdx.x) % 32;
  const i64 head = blockIdx.y, base = g.base(head);
  const float2* const plane = sums + head * tiles * cells;
  const float4* const of_head = stats + head * tiles * cells;
  const bf16 *const x = of_keys ? q : k, *const z = of_keys ? dy : v;  // s = own x^T, dp = own z^T
  const TileCopy<D, WT> copy(g);
  const auto fetch = [&](int t) {
    copy(t, x + base, xs[t % 2]);
    copy(t, z + base, zs[t % 2]);
    if constexpr (masked) load_block(other[t % 2], plane + t * cells, sizeof own);
    if constexpr (of_keys) load_block(seen[t % 2], of_head + t * cells, sizeof seen[0]);
    copies_issued();
  };
  if constexpr (masked) load_block(own, plane + tile * cells, sizeof own);
  fetch(0);
  Owner o;
  o.place<WT>(tile);
  const int token0 = g.token<WT>(tile, o.cell[0]), token1 = g.token<WT>(tile, o.cell[1]);
  unsigned left_x[D / 16][4], left_z[D / 16][4];
  load_left<D>((of_keys ? k : q) + base, g.channels, g.head_width, token0, token1, left_x);
  load_left<D>((of_keys ? v : dy) + base, g.channels, g.head_width, token0, token1, left_z);
  [[maybe_unused]] float4 mine[2];
  if constexpr (!of_keys) mine[0] = of_head[tile * cells + o.cell[0]], mine[1] = of_head[tile * cells + o.cell[1]];
  float sum1[D / 8][4] = {};
  [[maybe_unused]] float sum2[of_keys ? D / 8 : 1][4] = {};
  [[maybe_unused]] float along[masked ? WT : 1][4] = {}, across[masked ? WT : 1][4] = {}, own_b[2] = {};
  for (int t = 0; t < tiles; ++t) {
    if (t + 1 < tiles) {
      fetch(t + 1);
      copies_done<1>();
    } else {
      copies_done<0>();
    }
    __syncthreads();
    if constexpr (masked)
      if (t == 0) o.sums[0] = own[o.cell[0]], o.sums[1] = own[o.cell[1]];
#pragma unroll
    for (int m = 0; m < 4; ++m) {  // 16 cells of the tile
      float ds[2][4], p[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int n = 2 * m + half;
        float s[4], dp[4];
        times_rows<D>(s, left_x, &xs[t % 2][8 * n]);
        times_rows<D>(dp, left_z, &zs[t % 2][8 * n]);
        [[maybe_unused]] float row[4], column[4], below[2];
        if constexpr (masked) {
          add_masks<WT>(s, n, o, own, other[t % 2], row, column);
          const int line = t * (8 / WT) + n / WT;
#pragma unroll
          for (int r = 0; r < 2; ++r) below[r] = static_cast<float>((o.line[r] > line) - (o.line[r] < line));
        }
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float4 of_query;
          if constexpr (of_keys) of_query = seen[t % 2][8 * n + lane % 4 * 2 + e % 2];
          else of_query = mine[e / 2];
          if constexpr (masked) {
            const float log_row = of_keys ? of_query.y : of_query.x, mean_row = of_keys ? of_query.w : of_query.z;
            const float log_column = of_keys ? of_query.x : of_query.y, mean_column = of_keys ? of_query.z : of_query.w;
            const float p_row = exp2_fast(::fmaf(row[e], log2_e, -log_row)), p_column = exp2_fast(::fmaf(column[e], log2_e, -log_column));
            const float ds_row = p_row * (dp[e] - mean_row), ds_column = p_column * (dp[e] - mean_column);
            along[n % WT][e] += ds_row;
            across[n % WT][e] += below[e / 2] * ds_row;
            own_b[e / 2] += below[e / 2] * ds_column;
            ds[half][e] = ds_row + ds_column, p[half][e] = p_row + p_column;
          } else {
            const bool there = of_keys || t * cells + 8 * n + lane % 4 * 2 + e % 2 < g.tokens;
            p[half][e] = there ? exp2_fast(::fmaf(s[e], log2_e, -of_query.x)) : 0.f;
            ds[half][e] = p[half][e] * (dp[e] - of_query.z);
          }
        }
      }
      unsigned left_ds[4];
      [[maybe_unused]] unsigned left_p[4];
      as_left(left_ds, ds[0], ds[1]);
      if constexpr (of_keys) as_left(left_p, p[0], p[1]);
#pragma unroll
      for (int at = 0; at < D; at += 16) {
        unsigned b[4];
        load_columns<D>(b, &xs[t % 2][16 * m], at);
        multiply(sum1[at / 8], left_ds, b[0], b[1]);
        multiply(sum1[at / 8 + 1], left_ds, b[2], b[3]);
        if constexpr (of_keys) {
          load_columns<D>(b, &zs[t % 2][16 * m], at);
          multiply(sum2[at / 8], left_p, b[0], b[1]);
          multiply(sum2[at / 8 + 1], left_p, b[2], b[3]);
        }
      }
    }
    __syncthreads();
  }
  store_rows<D>(out1 + base, g.channels, g.head_width, token0, token1, sum1);
  if constexpr (of_keys) store_rows<D>(out2 + base, g.channels, g.head_width, token0, token1, sum2);
  if constexpr (masked) {
    // a falls along a line: the sign of -(a[i,j] - a[i,l]) is that of j - l. Summed over l for the owner; over j, eight
    // lines of a result at a time, for the others of its line.
    float2(*const crossing)[8 * WT] = reinterpret_cast<float2(*)[8 * WT]>(&xs[0][0][0]);  // of 8 groups of 8 cells
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float own_a = 0;
#pragma unroll
      for (int n = 0; n < WT; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int l = 8 * n + lane % 4 * 2 + e, right = (o.column[r] > l) - (o.column[r] < l);
          float a = static_cast<float>(right) * along[n][2 * r + e], b = across[n][2 * r + e];
          own_a += a;
#pragma unroll
          for (int step = 4; step < 32; step *= 2) a += __shfl_xor_sync(0xffffffffu, a, step), b += __shfl_xor_sync(0xffffffffu, b, step);
          if (lane / 4 == 0) crossing[o.cell[r] / 8][l] = {-a, b};
        }
#pragma unroll
      for (int step = 1; step < 4; step *= 2) {
        own_a += __shfl_xor_sync(0xffffffffu, own_a, step);
        own_b[r] += __shfl_xor_sync(0xffffffffu, own_b[r], step);
      }
      if (lane % 4 == 0) own[o.cell[r]] = {own_a, own_b[r]};
    }
    __syncthreads();
    const int cell = static_cast<int>(threadIdx.x);
    if (cell < cells) {
      float2 total = own[cell];
      const int group = cell / (8 * WT) * WT;
      for (int n = 0; n < WT; ++n) {
        const float2 more = crossing[group + n][cell % (8 * WT)];
        total.x += more.x, total.y += more.y;
      }
      const int token = g.token<WT>(tile, cell);
      if (token >= 0) dsums[head * g.tokens + token] = total;
    }
  }
}

/// Gradients of the log decays: sums of those of a along each line, of b across, from the far end. A thread a line.
template <class A>
__global__ void __launch_bounds__(128) decay_gradients(Lines g, i64 heads, const float2* queries, const float2* keys, A* dlog_a, A* dlog_b) {
  for (i64 e = cuda::first(); e < heads * (g.lines + g.length); e += cuda::stride()) {
    const int r = static_cast<int>(e % (g.lines + g.length));
    const bool along = r < g.lines;
    const i64 at = e / (g.lines + g.length) * g.tokens + (along ? r * g.line_step : (r - g.lines) * g.step);
    const int n = along ? g.length : g.lines, step = along ? g.step : g.line_step;
    A sum = 0;
    for (int m = n - 1; m >= 0; --m) {
      const i64 here = at + m * step;
      sum += along ? queries[here].x + keys[here].x : queries[here].y + keys[here].y;
      (along ? dlog_a : dlog_b)[here] = m > 0 ? sum : A(0);
    }
  }
}

/// Calls f with the head width rounded up to 32 or 64 and the padded line's width as constants.
template <bool masked, class F>
void with_constants(const Lines& g, F&& f) {
  const auto with_width = [&](auto d) {
    if constexpr (masked) {
      if (g.width == 1) return f(d, std::integral_constant<int, 1>{});
      if (g.width == 2) return f(d, std::integral_constant<int, 2>{});
      if (g.width == 4) return f(d, std::integral_constant<int, 4>{});
    }
    return f(d, std::integral_constant<int, 8>{});
  };
  if (g.head_width <= 32) with_width(std::integral_constant<int, 32>{});
  else with_width(std::integral_constant<int, 64>{});
}

/// What both passes share: the lines, the sums of the decays, the shares of the two paths.
struct Call {
  Lines g;
  i64 heads;
  int tiles;
  bool masked;
  float share1, share2;  // of the row path and the column path of a query
  Workspace<float2> sums;
  dim3 grid;

  Call(Paths paths, const AttentionShape& x, const float* log_alpha, const float* log_beta)
      : g(x, paths != Paths::none), heads(x.batch * x.heads), tiles(g.tiles()), masked(paths != Paths::none),
        share1(paths == Paths::both ? 0.5f : paths == Paths::h2v ? 0.f : 1.f), share2(masked ? 1 - share1 : 0.f),
        sums(masked ? heads * tiles * cells : 0, Device::cuda), grid(static_cast<unsigned>(tiles), static_cast<unsigned>(heads)) {
    if (!masked) return;
    if (g.turned) std::swap(share1, share2), std::swap(log_alpha, log_beta);
    cell_sums<<<cuda::blocks(heads * (tiles * 8 / g.width + 8 * g.width), 128), 128, 0, cuda::stream()>>>(g, heads, tiles, log_alpha, log_beta, sums.data());
    cuda::launched("whole_attention");
  }
};

template <bool masked>
void run_forward(const Call& call, const bf16* q, const bf16* k, const bf16* v, bf16* y, bf16* y1, float* log_sums) {
  with_constants<masked>(call.g, [&](auto d, auto width) {
    forward<decltype(d)::value, decltype(width)::value, masked><<<call.grid, threads, 0, cuda::stream()>>>(
        call.g, q, k, v, call.sums.data(), call.share1, call.share2, y, y1, reinterpret_cast<float2*>(log_sums));
  });
  cuda::launched("whole_attention");
}

template <bool masked>
void run_backward(const Call& call, const bf16* q, const bf16* k, const bf16* v, const bf16* y, const bf16* y1, const float* log_sums, const bf16* dy, bf16* dq,
                  bf16* dk, bf16* dv, float* dlog_alpha, float* dlog_beta) {
  const i64 all = call.heads * call.tiles * cells, tokens = masked ? call.heads * call.g.tokens : 0;
  const Workspace<float4> stats(all, Device::cuda);
  const Workspace<float2> dsums(2 * tokens, Device::cuda);
  query_sums<<<cuda::blocks(all, 128), 128, 0, cuda::stream()>>>(call.g, call.heads, call.tiles, y, y1, dy, reinterpret_cast<const float2*>(log_sums), call.share1,
                                                                 call.share2, stats.data());
  with_constants<masked>(call.g, [&](auto d, auto width) {
    constexpr int D = decltype(d)::value, WT = decltype(width)::value;
    backward<D, WT, masked, false><<<call.grid, threads, 0, cuda::stream()>>>(call.g, q, k, v, dy, call.sums.data(), stats.data(), dq, nullptr, dsums.data());
    backward<D, WT, masked, true><<<call.grid, threads, 0, cuda::stream()>>>(call.g, q, k, v, dy, call.sums.data(), stats.data(), dk, dv, dsums.data() + tokens);
  });
  cuda::launched("whole_attention");
  if (!masked) return;
  if (call.g.turned) std::swap(dlog_alpha, dlog_beta);
  decay_gradients<<<cuda::blocks(call.heads * (call.g.lines + call.g.length), 128), 128, 0, cuda::stream()>>>(call.g, call.heads, dsums.data(),
                                                                                                          dsums.data() + tokens, dlog_alpha, dlog_beta);
  cuda::launched("whole_attention");
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor
