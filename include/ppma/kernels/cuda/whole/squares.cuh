#pragma once
#include "ppma/core/names_begin.hpp"
// Whole attention under both polylines on grids of any size, in bf16 on the tensor cores (the words
// are tensor.cuh's): what forward and backward share.
//
// The grid is cut into squares of 8 x 8 tokens, padded at two borders. A block owns the queries (or
// keys) of one; all squares pass by, one column of squares after the other. With A_i[j,l] =
// e^-|a[i,j] - a[i,l]| and B_i[k,c] = e^-|b[i,c] - b[k,c]| the weights of a score s are
//
//   row path      e^(s - r) A_i[j,l] B_i[k,l]        column path   e^(s - r) A_k[j,l] B_i[k,j]
//
// A warp owns two lines i of eight tokens j. While a column of squares passes, its l are the same
// eight: A_i[j,l] stays in registers, and so do the sums of what the decays of the own line get.
// A_k[j,l] of the passing square is a table of 8 x 8 x 8 numbers that the block's warps share;
// both B are 128 numbers a warp. So 1.4 exponentials a score are left of the three that its own
// weight and its two masks would take, and no table grows with the grid.
//
// r and the way out by logarithms where a sum leaves the range: small.cuh.

#include "ppma/kernels/cuda/whole/pairs.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

inline constexpr int side = 8;  // of a square

/// The grid as squares, numbered along its columns. Where rows are longer than columns, rows and
/// columns change places: then fewer columns of squares pass.
struct Squares : Lines {
  int down, over;  // squares in a column and in a row

  explicit Squares(const AttentionShape& x)
      : Lines(x, x.width > x.height),
        down((lines + side - 1) / side),
        over((length + side - 1) / side) {}
  PPMA_HD int tiles() const { return down * over; }
  /// Where cell (line, at) of the padded grid lies among the cells of all squares.
  __device__ __forceinline__ int cell_of(int line, int at) const {
    return (at / side * down + line / side) * cells + line % side * side + at % side;
  }
  /// The token of a cell, -1 for padding.
  __device__ __forceinline__ int token(int tile, int cell) const {
    const int line = tile % down * side + cell / side, at = tile / down * side + cell % side;
    return line < lines && at < length ? line * line_step + at * step : -1;
  }
};

/// (a, b) of every cell of every head, `far` in the padding. A thread a line or a column.
template <class A>
__global__ void __launch_bounds__(128)
    square_sums(Squares g, i64 heads, const A* log_a, const A* log_b, float2* sums) {
  const int rows = g.down * side, columns = g.over * side;
  for (i64 e = cuda::first(); e < heads * (rows + columns); e += cuda::stride()) {
    const i64 head = e / (rows + columns);
    const int r = static_cast<int>(e % (rows + columns));
    const bool along = r < rows;
    const A* const from = (along ? log_a : log_b) + head * g.tokens;
    float* const to = reinterpret_cast<float*>(sums + head * rows * columns) + (along ? 0 : 1);
    float sum = 0;
#pragma unroll 8
    for (int m = 0; m < (along ? columns : rows); ++m) {
      const int line = along ? r : m, at = along ? m : r - rows;
      const bool there = line < g.lines && at < g.length;
      if (there && m > 0)
        sum +=
            polyline_gpu::counted(from[line * g.line_step + at * g.step], polyline_gpu::limit_bf16);
      to[2 * g.cell_of(line, at)] = there ? sum : far;
    }
  }
}

/// Copies squares of one head into shared memory, in the background; zeros in the padding.
template <int D>
struct SquareCopy {
  // 16 bytes each; the next one of a thread lies so many lines below
  static constexpr int pieces = cells * D / 8 / threads, lines_apart = side / pieces;
  int line, at, from;  // of the thread's first in the square in the corner

  __device__ __forceinline__ explicit SquareCopy(const Squares& g) {
    const int e = static_cast<int>(threadIdx.x), cell = e / (D / 8), c = e % (D / 8) * 8;
    line = cell / side, at = c < g.head_width ? cell % side : g.length;
    from = (line * g.line_step + cell % side * g.step) * static_cast<int>(g.channels) + c;
  }
  __device__ __forceinline__ void operator()(const Squares& g, int down, int over, const bf16* head,
                                             bf16 (*to)[D + 8]) const {
    const int channels = static_cast<int>(g.channels), e = static_cast<int>(threadIdx.x);
    const bf16* p = head + (side * (down * g.line_step + over * g.step) * channels + from);
    bf16* const first = &to[e / (D / 8)][e % (D / 8) * 8];
#pragma unroll
    for (int u = 0; u < pieces; ++u, p += lines_apart * g.line_step * channels) {
      const bool there =
          side * down + line + u * lines_apart < g.lines && side * over + at < g.length;
      copy_async(first + u * lines_apart * side * (D + 8), there ? p : head, there);
    }
  }
};

/// The running sums (a, b) that a passing square needs: its own; of its lines in the owner's
/// columns; and, for all of a column of squares, of the owner's lines in its columns.
struct PassingSums {
  alignas(16) float2 other[2][cells], crossing[2][cells], line[2][cells];

  /// In the background: for the square (down, over), the t-th that passes by `tile`.
  __device__ __forceinline__ void fetch(const Squares& g, const float2* plane, int tile, int down,
                                        int over, int t) {
    const int warp = static_cast<int>(threadIdx.x) / 32, i = tile % g.down;
    if (warp > (down == 0 ? 2 : 1)) return;
    float2* const to = warp == 0 ? other[t % 2] : warp == 1 ? crossing[t % 2] : line[over % 2];
    const int square = warp == 0   ? over * g.down + down
                       : warp == 1 ? tile - i + down
                                   : over * g.down + i;
    const int pair = static_cast<int>(threadIdx.x) % 32 * 2;
    copy_async(reinterpret_cast<float*>(to + pair),
               reinterpret_cast<const float*>(plane + square * cells + pair), true);
  }
};

__device__ __forceinline__ float decay_between(float x, float y) {
  return exp2_fast(-::fabsf(x - y) * log2_e);
}

/// The thread's place: row r of its two is the token (line 2 w + r, column lane / 4) of its square,
/// w the warp; its columns of an 8 x 8 piece are l = lane % 4 * 2 and l + 1.
struct SquareOwner {
  int lane, warp, line, tile;  // the line of row 0 in the grid
  float2 sums[2];
  float across[2][2];  // b[i,l] of both rows and columns
  float2 along[2];     // a[i,l] likewise

  __device__ __forceinline__ SquareOwner(const Squares& g, int at, const float2* plane)
      : lane(static_cast<int>(threadIdx.x) % 32),
        warp(static_cast<int>(threadIdx.x) / 32),
        line(at % g.down * side + 2 * warp),
        tile(at) {
#pragma unroll
    for (int r = 0; r < 2; ++r) sums[r] = plane[at * cells + cell(r)];
  }
  __device__ __forceinline__ int cell(int r) const { return 16 * warp + 8 * r + lane / 4; }
  __device__ __forceinline__ int column() const { return lane % 4 * 2; }
  /// A column of squares begins.
  __device__ __forceinline__ void begin(const float2* lines) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float4 two = *reinterpret_cast<const float4*>(lines + (2 * warp + r) * side + column());
      along[r] = {two.x, two.z}, across[r][0] = two.y, across[r][1] = two.w;
    }
  }
  /// A_i[j,l] of row r.
  __device__ __forceinline__ float2 own_line(int r) const {
    return {decay_between(sums[r].x, along[r].x), decay_between(sums[r].x, along[r].y)};
  }
  /// B_i[k,l] of row r, the lane's k being lane / 4.
  __device__ __forceinline__ float2 across_row(int r, const float2* other) const {
    const float4 key = *reinterpret_cast<const float4*>(other + lane / 4 * side + column());
    return {decay_between(across[r][0], key.y), decay_between(across[r][1], key.w)};
  }
  /// B_i[k,j] of row r, the lane's k being its two columns.
  __device__ __forceinline__ float2 across_column(int r, const float2* crossing) const {
    const float2* const at = crossing + column() * side + lane / 4;
    return {decay_between(sums[r].y, at[0].y), decay_between(sums[r].y, at[side].y)};
  }
  /// A_k[j,l] of line k of the passing square.
  __device__ __forceinline__ float2 along_line(int k, const float2* other,
                                               const float2* crossing) const {
    const float from = crossing[k * side + lane / 4].x;
    const float4 key = *reinterpret_cast<const float4*>(other + k * side + column());
    return {decay_between(from, key.x), decay_between(from, key.z)};
  }
  /// s, the scores of piece n, with the logarithms of both masks.
  __device__ __forceinline__ void add_logs(const float (&s)[4], int n, const float2* other,
                                           const float2* crossing, float (&row)[4],
                                           float (&col)[4]) const {
    const float4 key = *reinterpret_cast<const float4*>(other + n * side + column());
    const float2 kj = crossing[n * side + lane / 4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int r = e / 2;
      const float by_row = ::fabsf(sums[r].x - (e % 2 == 0 ? along[r].x : along[r].y)) +
                           ::fabsf(across[r][e % 2] - (e % 2 == 0 ? key.y : key.w)),
                  by_col = ::fabsf(kj.x - (e % 2 == 0 ? key.x : key.z)) + ::fabsf(sums[r].y - kj.y);
      row[e] = by_row >= polyline_gpu::limit_bf16 ? -far : s[e] - by_row;
      col[e] = by_col >= polyline_gpu::limit_bf16 ? -far : s[e] - by_col;
    }
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
