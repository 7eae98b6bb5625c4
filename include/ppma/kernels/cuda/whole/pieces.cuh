#pragma once
#include "ppma/core/names_begin.hpp"
// What the kernels of tensor.cuh share: the grid, copies, products, weights.

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

/// The grid as lines, its rows or (turned) its columns, and the heads' channels.
struct Lines {
  int lines, length, line_step, step, tokens, heads, head_width;
  i64 channels;
  bool turned;

  explicit Lines(const AttentionShape& x, bool columns = false)
      : lines(static_cast<int>(x.height)),
        length(static_cast<int>(x.width)),
        line_step(length),
        step(1),
        tokens(static_cast<int>(x.tokens())),
        heads(static_cast<int>(x.heads)),
        head_width(static_cast<int>(x.head_width)),
        channels(x.channels()),
        turned(columns) {
    if (turned) std::swap(lines, length), std::swap(line_step, step);
  }
  static bool suits(const AttentionShape& x) {
    return x.head_width % 8 == 0 && x.head_width <= 64 &&
           x.tokens() * x.channels() < (i64{1} << 30);
  }
  /// Whether small.cuh takes it.
  bool small() const { return lines <= 16 && length <= 16; }
  /// The first channel of a head.
  __device__ __forceinline__ i64 base(i64 head) const {
    // 32 bits, as a division of 64 is a function call: a launch's heads fit
    const unsigned at = static_cast<unsigned>(head), all = static_cast<unsigned>(heads);
    return static_cast<i64>(at / all) * tokens * channels + static_cast<int>(at % all) * head_width;
  }
};

/// Tiles of 64 tokens as they lie.
struct Flat : Lines {
  using Lines::Lines;
  PPMA_HD int tiles() const { return (tokens + cells - 1) / cells; }
  /// The token of a cell, -1 for padding.
  __device__ __forceinline__ int token(int tile, int cell) const {
    const int t = tile * cells + cell;
    return t < tokens ? t : -1;
  }
  /// Whether no cell of the warp has a token: it helps to copy, no more.
  __device__ __forceinline__ bool is_idle(int tile) const {
    return tile * cells + static_cast<int>(threadIdx.x) / 32 * 16 >= tokens;
  }
};

/// Copies tiles of one head into shared memory, in the background; zeros in the padding.
template <int D>
struct TileCopy {
  // 16 bytes each; the next ones of a thread lie so many cells further
  static constexpr int pieces = cells * D / 8 / threads, apart = cells / pieces;
  int cell, c, tokens, channels;

  __device__ __forceinline__ explicit TileCopy(const Flat& g)
      : cell(static_cast<int>(threadIdx.x) / (D / 8)),
        c(static_cast<int>(threadIdx.x) % (D / 8) * 8),
        tokens(c < g.head_width ? g.tokens : 0),
        channels(static_cast<int>(g.channels)) {}
  __device__ __forceinline__ void operator()(int tile, const bf16* head, bf16 (*to)[D + 8]) const {
#pragma unroll
    for (int u = 0; u < pieces; ++u) {
      const int token = tile * cells + cell + u * apart;
      copy_async(&to[cell + u * apart][c], token < tokens ? head + (token * channels + c) : head,
                 token < tokens);
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

/// The thread's place in a tile: two cells, eight rows of a result apart; and what the mask has of
/// them.
template <class Cell>
struct Owner {
  int cell[2];
  Cell sums[2];

  __device__ __forceinline__ Owner() {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    cell[0] = 16 * warp + lane / 4, cell[1] = cell[0] + 8;
  }
};

// A mask over flat tiles is a type: what a Cell holds of it, any_closed(), add(), and what its
// decays get backward (Gradients). None: here; two sequences: scans.cuh.
struct NoMask {
  static constexpr bool masked = false;
  using Cell = float2;
  struct Gradients {};
};

/// Sums over a row of the product of two left factors: for both rows of the thread.
template <int D>
__device__ __forceinline__ void row_products(const unsigned (&x)[D / 16][4],
                                             const unsigned (&y)[D / 16][4], float (&sum)[2]) {
  sum[0] = sum[1] = 0;
#pragma unroll
  for (int s = 0; s < D / 16; ++s)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float2 a = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(x[s][e])),
                   b = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(y[s][e]));
      sum[e % 2] += a.x * b.x + a.y * b.y;
    }
#pragma unroll
  for (int r = 0; r < 2; ++r)
#pragma unroll
    for (int step = 1; step < 4; step *= 2) sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], step);
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
