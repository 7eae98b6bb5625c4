#pragma once
#include "ppma/core/names_begin.hpp"
// A map of at most 16 x 16 in the shared memory of a block, with the tables of its masks: what
// small.cuh and small_backward.cuh work on (the words are small.cuh's).

#include "ppma/kernels/cuda/whole/local_term.cuh"
#include "ppma/kernels/cuda/whole/pairs.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// Pairs of bf16 that a lane reads at once: its columns of both 16 x 8 pieces of a group's scores.
struct alignas(8) Twin {
  unsigned half[2];
};

/// Tables of rotary positions (tokens, d) by which q and k are turned, and what k is scaled with,
/// as rotary.cuh does it; null: they come turned and scaled.
struct Turn {
  const float *cosine, *sine;
  float scale;
};

/// A map in the shared memory of a block. Its cells fall into groups of 16, one line of 16 or two
/// of 8; a warp, or `splits` together, owns one group after the other, and all groups pass by it. N
/// arrays of tokens lie next to each other, group by group.
template <int D, int WT, int N>
struct Small {
  static constexpr int padded = 8 * WT, lines_a_group = 2 / WT, pieces = D / 8,
                       square = 16 * D,  // elements of a group in one array
      joined = D + 4;                    // floats that a lane gives to the others of its owner
  int groups, rows, length, lines, lane, warp, warps;
  int owner, owners, part, parts;  // this warp's part of its owner's work
  bf16* tokens;                    // by groups, arrays, and as place() says
  float *a, *b;                    // running sums of the decays by cells, powers of two; or far
  Twin* along;                     // A_k[j,l] of every group, by halves of the columns j and lanes
  Twin* across;     // B_i[k,l] of every line i and group, by lanes of a row of scores
  unsigned spread;  // takes the lane's own column j from the pair that has it, twice

  static int groups_of(const Lines& g) { return (g.lines + lines_a_group - 1) / lines_a_group; }
  /// Warps that share `tasks` evenly, `most` at most.
  static int warps_of(int tasks, int most) {
    const int rounds = (tasks + most - 1) / most;
    return (tasks + rounds - 1) / rounds;
  }
  /// Bytes of shared memory with a number of tables, of both masks each.
  static int bytes(const Lines& g, int tables) {
    const int n = groups_of(g);
    return n * 16 * (N * D * 2 + 8) + tables * n * (WT * 32 + n * lines_a_group * 4) * 8;
  }

  __device__ __forceinline__ Small(const Lines& g, void* shared, int splits = 1)
      : groups((g.lines + lines_a_group - 1) / lines_a_group),
        rows(16 * groups),
        length(g.length),
        lines(g.lines),
        lane(static_cast<int>(threadIdx.x % 32)),
        warp(static_cast<int>(threadIdx.x / 32)),
        warps(static_cast<int>(blockDim.x) / 32),
        owner(warp / splits),
        owners(warps / splits),
        part(warp % splits),
        parts(splits),
        tokens(static_cast<bf16*>(shared)),
        spread(lane / 4 % 2 == 0 ? 0x1010 : 0x3232) {
    along = reinterpret_cast<Twin*>(tokens + groups * N * square);
    across = along + groups * WT * 32;
    a = reinterpret_cast<float*>(across + groups * lines_a_group * groups * 4), b = a + rows;
  }
  /// What lies behind it in shared memory.
  __device__ __forceinline__ float* rest() const { return b + rows; }

  /// Groups that pass by this warp: from first_passing() to end_passing().
  __device__ __forceinline__ int first_passing() const { return groups * part / parts; }
  __device__ __forceinline__ int end_passing() const { return groups * (part + 1) / parts; }
  /// Of the thread's row r (0 or 1, eight rows of a result apart) of a group: line, column, token;
  /// -1: padding.
  __device__ __forceinline__ int line(int group, int r) const {
    return group * lines_a_group + (WT == 1 ? r : 0);
  }
  __device__ __forceinline__ int column(int r) const { return lane / 4 + (WT == 2 ? 8 * r : 0); }
  __device__ __forceinline__ int token(int group, int r) const {
    return line(group, r) < lines && column(r) < length ? line(group, r) * length + column(r) : -1;
  }

  /// Where the channels from c (a multiple of 8) of a cell are in array n: rows of D, whose pieces
  /// of 8 change places, so that eight rows of one piece lie in different banks.
  __device__ __forceinline__ static int place(int n, int cell, int c) {
    return (cell / 16 * N + n) * square + cell % 16 * D +
           ((c / 8) ^ (cell / (8 / pieces) % pieces)) * 8;
  }
  /// What a lane gives to load_matrices() for the first eight rows of array 0 ...
  __device__ __forceinline__ unsigned rows_at() const {
    return detail::shared_address(tokens + place(0, lane % 8, lane / 8 * 8));
  }
  /// ... and for 16 rows and columns, turned as a right factor or not as a left one.
  __device__ __forceinline__ unsigned squares_at() const {
    return detail::shared_address(tokens + place(0, lane % 16, lane / 16 * 8));
  }
  /// c (16, 8) = left (16, D) x^T + from (16, 8); x: half a group of array n, `at` is rows_at().
  template <int n>
  __device__ __forceinline__ static void rows_product(float (&c)[4],
                                                      const unsigned (&left)[D / 16][4],
                                                      unsigned at, int group, int half,
                                                      const float (&from)[4]) {
#pragma unroll
    for (int s = 0; s < D / 32; ++s) {
      unsigned right[4];
      load_matrices(right, (at ^ (64u * static_cast<unsigned>(s))) +
                               static_cast<unsigned>(((group * N + n) * 2 + half) * square));
      if (s == 0)
        multiply(c, left[0], right[0], right[1], from);
      else
        multiply(c, left[2 * s], right[0], right[1]);
      multiply(c, left[2 * s + 1], right[2], right[3]);
    }
  }
  /// The right factor of 16 columns from c: a group of array n; `at` is squares_at().
  template <int n>
  __device__ __forceinline__ static void load_columns(unsigned (&right)[4], unsigned at, int group,
                                                      int c) {
    load_turned(right, (at ^ static_cast<unsigned>(2 * c)) +
                           static_cast<unsigned>((group * N + n) * 2 * square));
  }
  /// sum (16, D) += left (16, 16) x (16, D), likewise.
  template <int n>
  __device__ __forceinline__ static void add_columns(float (&sum)[D / 8][4],
                                                     const unsigned (&left)[4], unsigned at,
                                                     int group) {
#pragma unroll
    for (int c = 0; c < D; c += 16) {
      unsigned right[4];
      load_columns<n>(right, at, group, c);
      multiply(sum[c / 8], left, right[0], right[1]);
      multiply(sum[c / 8 + 1], left, right[2], right[3]);
    }
  }
  /// A group of array n as left factors, likewise.
  template <int n>
  __device__ __forceinline__ static void load_group(unsigned (&left)[D / 16][4], unsigned at,
                                                    int group) {
#pragma unroll
    for (int s = 0; s < D / 16; ++s)
      load_matrices(left[s], (at ^ (32u * static_cast<unsigned>(s))) +
                                 static_cast<unsigned>((group * N + n) * 2 * square));
  }

  /// x (16, D), rounded, into the tokens of a group of a head: by array n, whose group is the
  /// warp's alone, as 16 bytes a lane are fewer and fuller stores than 4.
  template <int n>
  __device__ __forceinline__ void store_group(const Lines& g, bf16* head, int group,
                                              const float (&x)[D / 8][4]) const {
    bf16* const mine = tokens + group * N * square;
    __syncwarp();  // all lanes have read what was there
#pragma unroll
    for (int s = 0; s < D / 8; ++s)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        *reinterpret_cast<unsigned*>(mine + place(n, 8 * r + lane / 4, 8 * s) + lane % 4 * 2) =
            detail::rounded_pair(x[s][2 * r], x[s][2 * r + 1]);
    __syncwarp();
    const int c = lane % pieces * 8, channels = static_cast<int>(g.channels);
#pragma unroll
    for (int first = 0; first < 16; first += 32 / pieces) {
      const int row = first + lane / pieces, l = group * lines_a_group + row / padded,
                at = row % padded;
      if (l < lines && at < length && c < g.head_width)
        *reinterpret_cast<uint4*>(head + ((l * length + at) * channels + c)) =
            *reinterpret_cast<const uint4*>(mine + place(n, row, c));
    }
    __syncwarp();
  }

  /// A head's tokens into the arrays, in the background; zeros in the padding. A warp has a line.
  __device__ __forceinline__ void copy(const Lines& g, const bf16* const (&heads)[N]) const {
    constexpr int each = 32 / pieces;  // cells at once
    const int c = lane % pieces * 8, channels = static_cast<int>(g.channels);
    for (int l = warp; l < rows / padded; l += warps) {
      bf16* const to = tokens + place(0, l * padded, 0);
#pragma unroll
      for (int first = 0; first < padded; first += each) {
        const int at = first + lane / pieces;
        const bool there = l < lines && at < length && c < g.head_width;
        const int from = there ? (l * length + at) * channels + c : 0;
#pragma unroll
        for (int n = 0; n < N; ++n) copy_async(to + place(n, at, c), heads[n] + from, there);
      }
    }
  }
  /// Turns arrays 0 (k, which is scaled) and n (q), each thread what it copied and has waited for:
  /// nobody else has read it yet.
  template <int n>
  __device__ __forceinline__ void turn(const Lines& g, const Turn& by) const {
    constexpr int each = 32 / pieces;
    const int c = lane % pieces * 8;
    if (c >= g.head_width) return;
    for (int l = warp; l < lines; l += warps) {
      bf16* const to = tokens + place(0, l * padded, 0);
#pragma unroll
      for (int first = 0; first < padded; first += each) {
        const int at = first + lane / pieces, from = (l * length + at) * g.head_width + c;
        if (at >= length) continue;
        float cosine[8], sine[8];
        load_pack<8>(by.cosine + from, cosine);
        load_pack<8>(by.sine + from, sine);
#pragma unroll
        for (const int array : {0, n}) {
          const float scale = array == 0 ? by.scale : 1.f;
          bf16* const x = to + place(array, at, c);
          float v[8], out[8];
          load_pack<8>(x, v);
#pragma unroll
          for (int i = 0; i < 8; i += 2) {
            out[i] = v[i] * (scale * cosine[i]) + v[i + 1] * (scale * sine[i]);
            out[i + 1] = v[i + 1] * (scale * cosine[i + 1]) + v[i] * (scale * sine[i + 1]);
          }
          store_pack<8>(x, out);
        }
      }
    }
  }
  /// A of the group's own lines, by rows and halves (of the line with WT 2, else both the same).
  __device__ __forceinline__ void own_lines(int group, unsigned (&own)[2][WT]) const {
#pragma unroll
    for (int r = 0; r < WT; ++r) {
      const Twin line = along[(group * WT + r) * 32 + lane];
      if constexpr (WT == 2)
        own[r][0] = line.half[0], own[r][1] = line.half[1];
      else
        own[0][0] = line.half[0], own[1][0] = line.half[1];
    }
  }
  /// Where a lane finds the masks of the owner of a group: a table of A and one of B for the row
  /// path; the column path's B is that of the keys in the owner's column.
  struct Masks {
    const Twin *along, *over, *turn;  // of group 0
    int line;                         // from a line of B to the next
  };
  __device__ __forceinline__ Masks masks_of(int group, const Twin* table_a,
                                            const Twin* table_b) const {
    const int first = group * lines_a_group * groups * 4;
    return {table_a + lane, table_b + first + lane % 4, across + first + lane / 8, groups * 4};
  }
  /// Both masks of group m, by halves and rows.
  __device__ __forceinline__ void masks(const Masks& of, int m, const unsigned (&own)[2][WT],
                                        unsigned (&row)[2][2], unsigned (&col)[2][2]) const {
    Twin table[WT], over[lines_a_group], turn[lines_a_group];
#pragma unroll
    for (int r = 0; r < WT; ++r) table[r] = of.along[(m * WT + r) * 32];
#pragma unroll
    for (int u = 0; u < lines_a_group; ++u)
      over[u] = of.over[m * 4 + u * of.line], turn[u] = of.turn[m * 4 + u * of.line];
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        row[half][r] = times(own[r][WT == 2 ? half : 0], over[WT == 1 ? r : 0].half[half]);
        col[half][r] = times(
            table[WT == 2 ? r : 0].half[half],
            __byte_perm(WT == 2 ? turn[0].half[r] : turn[WT == 1 ? r : 0].half[half], 0, spread));
      }
  }
  /// s, the scores of piece n, with the logarithms of both masks, in powers of two.
  __device__ __forceinline__ void add_logs(int group, int n, const float (&s)[4], float (&row)[4],
                                           float (&col)[4]) const {
    constexpr float limit = polyline_gpu::limit_bf16 * log2_e;
    const int k = n / WT * padded;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int l = n % WT * 8 + lane % 4 * 2 + e % 2, i = line(group, e / 2) * padded,
                j = column(e / 2);
      const bool there = token(group, e / 2) >= 0 && n / WT < lines && l < length;
      const float by_row = ::fabsf(a[i + j] - a[i + l]) + ::fabsf(b[i + l] - b[k + l]),
                  by_col = ::fabsf(a[k + j] - a[k + l]) + ::fabsf(b[i + j] - b[k + j]);
      row[e] = there && !(by_row >= limit) ? s[e] * log2_e - by_row : -far;
      col[e] = there && !(by_col >= limit) ? s[e] * log2_e - by_col : -far;
    }
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
