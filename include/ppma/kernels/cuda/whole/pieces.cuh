#pragma once
#include "ppma/core/names_begin.hpp"
// What the kernels of tensor.cuh share: the grid as lines of padded cells, copies, products, masks.

#include "ppma/kernels/args.hpp"
#include "ppma/kernels/cuda/decay_sums.cuh"
#include "ppma/kernels/cuda/mma.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

using detail::allow_shared;
using detail::as_left;
using detail::copies_done;
using detail::copies_issued;
using detail::copy_async;
using detail::exp2_fast;
using detail::load_matrices;
using detail::load_turned;
using detail::multiply;

inline constexpr int threads = 128, cells = 64;
// Registers decide how many blocks a multiprocessor holds: three hide more latency than two with a
// few spilled values cost (measured on an H200; four spill too much).
template <int D>
inline constexpr int blocks_at_once = D == 32 ? 3 : 2;
inline constexpr float log2_e = 1.4426950408889634f;
inline constexpr float far = 1e30f;  // the sums of padding: whatever meets them has probability 0
// Where one exponential is left of a score (small.cuh): a column of ones, as a right factor, sums
// rows; and in powers of two, the owner's own weight and the largest sum.
inline constexpr unsigned two_ones = 0x3f803f80;
inline constexpr float headroom = 43, sum_limit = 0x1p115f;

/// The grid as lines. Where columns are shorter than 64 and rows are not, columns are the lines.
struct Lines {
  int lines, length, line_step, step, tokens, heads, head_width;
  i64 channels;
  int width;    // 8-cell pieces of a padded line: 1, 2, 4 or 8
  bool turned;  // lines are columns

  Lines(const AttentionShape& x, bool masked)
      : lines(static_cast<int>(x.height)),
        length(static_cast<int>(x.width)),
        line_step(length),
        step(1),
        tokens(static_cast<int>(x.tokens())),
        heads(static_cast<int>(x.heads)),
        head_width(static_cast<int>(x.head_width)),
        channels(x.channels()),
        turned(masked && x.width > cells) {
    if (turned)
      lines = static_cast<int>(x.width), length = static_cast<int>(x.height), line_step = 1,
      step = lines;
    if (!masked) lines = (tokens + cells - 1) / cells, length = cells, line_step = cells;
    width = length <= 8 ? 1 : length <= 16 ? 2 : length <= 32 ? 4 : 8;
  }
  int tiles() const { return (lines + 8 / width - 1) / (8 / width); }
  static bool suits(const AttentionShape& x, bool masked) {
    return x.head_width % 8 == 0 && x.head_width <= 64 &&
           (!masked || std::min(x.height, x.width) <= cells) &&
           x.tokens() * x.channels() < (i64{1} << 30);
  }
  /// Whether small.cuh takes it.
  bool small(bool masked) const { return masked && lines <= 16 && length <= 16; }
  /// The token of a cell, -1 for padding.
  template <int WT>
  __device__ __forceinline__ int token(int tile, int cell) const {
    const int line = tile * (8 / WT) + cell / (8 * WT), at = cell % (8 * WT);
    const int t = line * line_step + at * step;
    return line < lines && at < length && t < tokens ? t : -1;
  }
  /// The first channel of a head.
  __device__ __forceinline__ i64 base(i64 head) const {
    // 32 bits, as a division of 64 is a function call: a launch's heads fit
    const unsigned at = static_cast<unsigned>(head), all = static_cast<unsigned>(heads);
    return static_cast<i64>(at / all) * tokens * channels + static_cast<int>(at % all) * head_width;
  }
};

/// Copies tiles of one head into shared memory, in the background; zeros in the padding. A thread
/// copies the same cells of every tile: where they are is worked out once.
template <int D, int WT>
struct TileCopy {
  static constexpr int pieces = cells * D / 8 / threads;  // of 16 bytes
  // first element of the piece in tile 0; tiles' lines that hold it
  int from[pieces], lines[pieces];
  int tile_step, tile_lines;

  __device__ __forceinline__ explicit TileCopy(const Lines& g)
      : tile_step(8 / WT * g.line_step * static_cast<int>(g.channels)), tile_lines(8 / WT) {
#pragma unroll
    for (int u = 0; u < pieces; ++u) {
      const int e = static_cast<int>(threadIdx.x) + u * threads, cell = e / (D / 8),
                c = e % (D / 8) * 8;
      const int line = cell / (8 * WT), at = cell % (8 * WT);
      from[u] = (line * g.line_step + at * g.step) * static_cast<int>(g.channels) + c;
      // Tile t holds the cell if t * tile_lines is below this; the last line of a grid without mask
      // may be cut short.
      lines[u] =
          at < g.length && c < g.head_width
              ? ::min(g.lines, (g.tokens + g.line_step - 1 - at * g.step) / g.line_step) - line
              : 0;
    }
  }
  __device__ __forceinline__ void operator()(int tile, const bf16* head, bf16 (*to)[D + 8]) const {
#pragma unroll
    for (int u = 0; u < pieces; ++u) {
      const int e = static_cast<int>(threadIdx.x) + u * threads;
      const bool there = tile * tile_lines < lines[u];
      copy_async(&to[e / (D / 8)][e % (D / 8) * 8],
                 there ? head + (tile * tile_step + from[u]) : head, there);
    }
  }
};
/// `bytes` (a multiple of 16) of consecutive memory, likewise.
__device__ __forceinline__ void load_block(void* to, const void* from, int bytes) {
  for (int e = static_cast<int>(threadIdx.x) * 16; e < bytes; e += threads * 16)
    copy_async(reinterpret_cast<bf16*>(to) + e / 2, reinterpret_cast<const bf16*>(from) + e / 2,
               true);
}

/// 16 tokens of a head as left factors, straight from memory.
template <int D>
__device__ __forceinline__ void load_left(const bf16* head, i64 channels, int width, int token0,
                                          int token1, unsigned (&left)[D / 16][4]) {
  const int c = static_cast<int>(threadIdx.x) % 4 * 2;
  const auto pair = [&](int token, int at) {
    return token >= 0 && at < width
               ? *reinterpret_cast<const unsigned*>(head + token * channels + at)
               : 0u;
  };
#pragma unroll
  for (int s = 0; s < D / 16; ++s) {
    left[s][0] = pair(token0, 16 * s + c), left[s][1] = pair(token1, 16 * s + c);
    left[s][2] = pair(token0, 16 * s + 8 + c), left[s][3] = pair(token1, 16 * s + 8 + c);
  }
}
template <int D>
__device__ __forceinline__ void store_rows(bf16* head, i64 channels, int width, int token0,
                                           int token1, const float (&out)[D / 8][4]) {
  const int c = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int s = 0; s < D / 8; ++s) {
    if (8 * s + c >= width) continue;
    if (token0 >= 0)
      *reinterpret_cast<unsigned*>(head + token0 * channels + 8 * s + c) =
          detail::rounded_pair(out[s][0], out[s][1]);
    if (token1 >= 0)
      *reinterpret_cast<unsigned*>(head + token1 * channels + 8 * s + c) =
          detail::rounded_pair(out[s][2], out[s][3]);
  }
}
/// c (16, 8 rows of x) = left (16, D) x^T
template <int D>
__device__ __forceinline__ void times_rows(float (&c)[4], const unsigned (&left)[D / 16][4],
                                           const bf16 (*x)[D + 8]) {
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
/// The right factor x (16 rows, 16 columns from `at`): b[0], b[1] for the first 8 columns, b[2],
/// b[3] for the next.
template <int D>
__device__ __forceinline__ void load_columns(unsigned (&b)[4], const bf16 (*x)[D + 8], int at) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  load_turned(b, &x[lane % 16][at + lane / 16 * 8]);
}

/// The thread's place: two cells, eight rows of a result apart; and what the mask has of them.
template <class Cell>
struct Owner {
  int cell[2], column[2], line[2];
  Cell sums[2];
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

// A mask is a type: `width` of its lines in pieces of 8 cells, whether these are the tokens one
// after the other (`flat`: padding is behind the last one), what a Cell holds of it, whether the
// two softmaxes change places for who looks from the keys (`turns`), any_closed(), add(), and what
// its decays get backward (Gradients, tensor_backward.cuh). Here: none, and both polylines; two
// sequences: scans.cuh.
struct NoMask {
  static constexpr int width = 8;
  static constexpr bool masked = false, flat = true, turns = false;
  using Cell = float2;
  struct Gradients {};
};

/// Whether no cell of the warp has a token: it helps to copy, no more.
template <class Mask>
__device__ __forceinline__ bool is_idle(const Lines& g, int tile) {
  return Mask::flat && tile * cells + static_cast<int>(threadIdx.x) / 32 * 16 >= g.tokens;
}

template <int WT>
struct Polylines {
  static constexpr int width = WT;
  static constexpr bool masked = true, flat = false, turns = true;
  using Cell = float2;  // the running sums a and b
  struct Gradients;

  /// Whether some path of the head may be closed; for all threads of the block. Both parts of a
  /// path fall along their lines: their last sums are the largest.
  __device__ __forceinline__ static bool any_closed(const Lines& g, const float2* plane) {
    constexpr int padded = 8 * WT;
    bool any = false;
    for (int e = static_cast<int>(threadIdx.x); e < g.lines + g.length; e += threads)
      any |= (e < g.lines
                  ? -plane[e * padded + g.length - 1].x
                  : -plane[(g.lines - 1) * padded + e - g.lines].y) >= polyline_gpu::limit_bf16 / 2;
    return __syncthreads_or(any) != 0;
  }
  /// Adds both log masks to the scores s of piece n of a tile. walls: some path of the head may be
  /// closed.
  template <bool walls>
  __device__ __forceinline__ static void add(const float (&s)[4], int n, const Owner<float2>& o,
                                             const float2* own, const float2* other,
                                             float (&row)[4], float (&column)[4]) {
    const int c = static_cast<int>(threadIdx.x) % 4 * 2, l = n % WT * 8 + c;
    // (a, b) at [k,l] and [k,l+1]
    const float4 key = *reinterpret_cast<const float4*>(other + n * 8 + c);
    // at [i,l] and [i,l+1]
    float4 line = *reinterpret_cast<const float4*>(own + (o.cell[0] - o.column[0]) + l);
    const auto masked_by = [](float score, float along, float across) {
      if (walls && along + across >= polyline_gpu::limit_bf16) return negative_infinity<float>();
      return score - along - across;
    };
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      // else both share a line
      if (WT == 1 && r == 1)
        line = *reinterpret_cast<const float4*>(own + (o.cell[1] - o.column[1]) + l);
      const float2 kj = other[n / WT * (8 * WT) + o.column[r]];
      const float across = ::fabsf(o.sums[r].y - kj.y);
      row[2 * r] = masked_by(s[2 * r], ::fabsf(o.sums[r].x - line.x), ::fabsf(line.y - key.y));
      row[2 * r + 1] =
          masked_by(s[2 * r + 1], ::fabsf(o.sums[r].x - line.z), ::fabsf(line.w - key.w));
      column[2 * r] = masked_by(s[2 * r], ::fabsf(kj.x - key.x), across);
      column[2 * r + 1] = masked_by(s[2 * r + 1], ::fabsf(kj.x - key.z), across);
    }
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
