#pragma once
#include "ppma/core/names_begin.hpp"
// A map of at most 16 x 16 in the shared memory of a block, with the tables of its masks: what
// small.cuh and small_backward.cuh work on (the words are small.cuh's).

#include "ppma/kernels/cuda/whole/local_term.cuh"
#include "ppma/kernels/cuda/whole/pieces.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

// Of a block, at most; blocks on a multiprocessor: with three (80 registers a thread) spills cost
// more than the third hides (measured on an H100 and an H200).
inline constexpr int small_warps = 7, small_blocks = 2;
// Where keys are shared out: groups of a block, and warps that share the keys of one, for lines of
// WT pieces of eight cells (measured on an H200).
inline constexpr int few_owners = 2;
constexpr int few_splits(int WT) { return 2 * WT; }

/// The pairs of a lane in both 16 x 8 pieces of a group's scores.
template <class Pair>
struct alignas(2 * sizeof(Pair)) Twin {
  Pair half[2];
};

/// A map in the shared memory of a block. Its cells fall into groups of 16, one line of 16 or two
/// of 8; a warp, or `splits` together, owns one group after the other, and all groups pass by it. x
/// and z are what its products run over: keys and values, or queries and dy.
template <int D, int WT, class Pair>
struct Small {
  static constexpr int padded = 8 * WT, lines_a_group = 2 / WT,
                       joined = D + 4;  // floats that a lane gives to the others of its owner
  int groups, rows, length, lines, lane, warp, warps;
  int owner, owners, part, parts;  // this warp's part of its owner's work
  bf16 (*x)[D + 8], (*z)[D + 8];
  float *a, *b;        // running sums of the decays, by cells
  Twin<Pair>* along;   // A_k[j,l] of every group, by halves of the columns j and lanes
  Twin<Pair>* across;  // of the owner's lines i: B_i[k,l] of every group, by pairs l
  Pair* turn;          // B_i[k,j], the same twice, by cells

  static int groups_of(const Lines& g) { return (g.lines + lines_a_group - 1) / lines_a_group; }
  /// Warps of a block: every one has as many groups.
  static int warps_of(const Lines& g) {
    const int rounds = (groups_of(g) + small_warps - 1) / small_warps;
    return (groups_of(g) + rounds - 1) / rounds;
  }
  /// Bytes of shared memory, with `stats` more for a cell; `splits` and `local` as in forward.
  static int bytes(const Lines& g, int owners, int stats, int splits, bool local) {
    const int n = groups_of(g), pair = static_cast<int>(sizeof(Pair)),
              terms = local ? (LocalTerm::taps + 1) * D + (splits > 1 ? owners * D * 16 : 0) : 0;
    return n * (16 * (4 * (D + 8) + 8 + stats) + WT * 64 * pair +
                owners * lines_a_group * (8 + 16) * pair) +
           (owners * (splits - 1) * joined * 32 + terms) * 4;
  }

  __device__ __forceinline__ Small(const Lines& g, float4* shared, int splits = 1)
      : groups((g.lines + lines_a_group - 1) / lines_a_group),
        rows(16 * groups),
        length(g.length),
        lines(g.lines),
        lane(static_cast<int>(threadIdx.x) % 32),
        warp(static_cast<int>(threadIdx.x) / 32),
        warps(static_cast<int>(blockDim.x) / 32),
        owner(warp / splits),
        owners(warps / splits),
        part(warp % splits),
        parts(splits) {
    along = reinterpret_cast<Twin<Pair>*>(shared);
    across = along + groups * WT * 32 + owner * lines_a_group * groups * 4;
    turn = reinterpret_cast<Pair*>(along + groups * WT * 32 + owners * lines_a_group * groups * 4) +
           owner * lines_a_group * rows;
    x = reinterpret_cast<bf16(*)[D + 8]>(turn + (owners - owner) * lines_a_group * rows),
    z = x + rows;
    a = reinterpret_cast<float*>(z + rows), b = a + rows;
  }
  __device__ __forceinline__ float* stats() const { return b + rows; }

  /// Groups that pass by this warp: from first_passing() to end_passing().
  __device__ __forceinline__ int first_passing() const { return groups * part / parts; }
  __device__ __forceinline__ int end_passing() const { return groups * (part + 1) / parts; }
  /// f(group) for all groups of the owner.
  template <class F>
  __device__ __forceinline__ void each_group(F&& f) const {
    for (int group = static_cast<int>(blockIdx.x) * owners + owner; group < groups;
         group += static_cast<int>(gridDim.x) * owners)
      f(group);
  }
  /// Of the thread's row r (0 or 1, eight rows of a result apart) of a group: line, column, token;
  /// -1: padding.
  __device__ __forceinline__ int line(int group, int r) const {
    return group * lines_a_group + (WT == 1 ? r : 0);
  }
  __device__ __forceinline__ int column(int r) const { return lane / 4 + (WT == 2 ? 8 * r : 0); }
  __device__ __forceinline__ int token(int group, int r) const {
    return line(group, r) < lines && column(r) < length ? line(group, r) * length + column(r) : -1;
  }

  /// A head's tokens into shared memory, in the background; zeros in the padding.
  __device__ __forceinline__ void copy(const Lines& g, const bf16* head, bf16 (*to)[D + 8]) const {
    for (int e = static_cast<int>(threadIdx.x); e < rows * (D / 8);
         e += static_cast<int>(blockDim.x)) {
      const int cell = e / (D / 8), c = e % (D / 8) * 8, l = cell / padded, at = cell % padded;
      const bool there = l < lines && at < length && c < g.head_width;
      copy_async(&to[cell][c],
                 there ? head + (l * length + at) * static_cast<int>(g.channels) + c : head, there);
    }
  }
  /// The running sums of a head; half a warp a line or a column.
  __device__ __forceinline__ void scan(const float* log_a, const float* log_b) const {
    constexpr int ahead = 3;  // loads are under way at once
    const int all_lines = rows / padded, at = lane % 16;
    for (int first = 2 * warp; first < all_lines + padded; first += ahead * 2 * warps) {
      float logs[ahead];
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        const int task = first + i * 2 * warps + lane / 16, c = task - all_lines;
        logs[i] = 0;
        if (task < all_lines) {
          if (task < lines && at > 0 && at < length) logs[i] = log_a[task * length + at];
        } else if (c < length && at > 0 && at < lines) {
          logs[i] = log_b[at * length + c];
        }
      }
#pragma unroll
      for (int i = 0; i < ahead; ++i) {
        const int task = first + i * 2 * warps + lane / 16, c = task - all_lines;
        float sum = polyline_gpu::counted(logs[i], polyline_gpu::limit_bf16);
#pragma unroll
        for (int far_off = 1; far_off < 16; far_off *= 2) {
          const float before = __shfl_up_sync(0xffffffffu, sum, far_off, 16);
          if (at >= far_off) sum += before;
        }
        if (task < all_lines && at < padded) a[task * padded + at] = sum;
        if (task >= all_lines && c < padded && at < all_lines) b[at * padded + c] = sum;
      }
    }
  }
  __device__ __forceinline__ static float decay(float from, float to) {
    return exp2_fast(-::fabsf(from - to) * log2_e);
  }
  /// A_k[j,l] and A_k[j,l+1], of cells that are there, times two factors.
  __device__ __forceinline__ Pair along_line(int k, int j, int l, float2 factors = {1, 1}) const {
    const float from = a[k * padded + j];
    const float2 to = *reinterpret_cast<const float2*>(a + k * padded + l);
    const bool there = k < lines && j < length;
    Pair p;
    set(p, there && l < length ? decay(from, to.x) * factors.x : 0.f,
        there && l + 1 < length ? decay(from, to.y) * factors.y : 0.f);
    return p;
  }
  /// A of all lines, for the block; times a factor of every cell (k,l).
  __device__ __forceinline__ void fill_along(const float* factors = nullptr) const {
    for (int m = warp; m < groups; m += warps)
#pragma unroll
      for (int r = 0; r < WT; ++r)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int k = WT == 2 ? m : 2 * m + half, l = (WT == 2 ? 8 * half : 0) + lane % 4 * 2;
          along[(m * WT + r) * 32 + lane].half[half] = along_line(
              k, column(r), l,
              factors != nullptr ? *reinterpret_cast<const float2*>(factors + k * padded + l)
                                 : float2{1, 1});
        }
  }
  /// B of the lines of a group and the groups that pass by the warp; the row path's times a factor
  /// of every cell (k,l).
  __device__ __forceinline__ void fill_across(int group, const float* factors = nullptr) const {
    __syncwarp();
#pragma unroll
    for (int u = 0; u < lines_a_group; ++u) {
      // a lane stays in its column
      const float* const from = b + (group * lines_a_group + u) * padded + lane % padded;
      for (int cell = 16 * first_passing() + lane; cell < 16 * end_passing(); cell += 32) {
        const float v = cell / padded < lines && cell % padded < length ? decay(*from, b[cell])
                                                                        : 0.f,
                    f = factors != nullptr ? v * factors[cell] : v;
        set(turn[u * rows + cell], v, v);
        // where the pair of lane l % 8 / 2 has its place
        if constexpr (sizeof(Pair) == 4)
          reinterpret_cast<__nv_bfloat16*>(
              across)[(u * groups + cell / 16) * 16 + cell % 8 / 2 * 4 + cell % 16 / 8 * 2 +
                      cell % 2] = __float2bfloat16_rn(f);
        else
          reinterpret_cast<float*>(across)[(u * groups + cell / 16) * 16 + cell % 8 / 2 * 4 +
                                           cell % 16 / 8 * 2 + cell % 2] = f;
      }
    }
    __syncwarp();
  }
  /// A of the group's own lines, by rows and halves (of the line with WT 2, else both the same).
  __device__ __forceinline__ void own_lines(int group, Pair (&own)[2][WT]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int w = 0; w < WT; ++w)
        own[r][w] = along_line(line(group, r), column(r), 8 * w + lane % 4 * 2);
  }
  /// Both masks of group m, by halves and rows.
  __device__ __forceinline__ void masks(int m, const Pair (&own)[2][WT], Pair (&row)[2][2],
                                        Pair (&col)[2][2]) const {
    Twin<Pair> table[WT], over[lines_a_group];
#pragma unroll
    for (int r = 0; r < WT; ++r) table[r] = along[(m * WT + r) * 32 + lane];
#pragma unroll
    for (int u = 0; u < lines_a_group; ++u) over[u] = across[(u * groups + m) * 4 + lane % 4];
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        row[half][r] = times(own[r][WT == 2 ? half : 0], over[WT == 1 ? r : 0].half[half]);
        col[half][r] =
            times(table[WT == 2 ? r : 0].half[half],
                  turn[(WT == 1 ? r * rows : 0) + 16 * m + (WT == 1 ? 8 * half : 0) + column(r)]);
      }
  }
  /// s, the scores of piece n, with the logarithms of both masks.
  __device__ __forceinline__ void add_logs(int group, int n, const float (&s)[4], float (&row)[4],
                                           float (&col)[4]) const {
    const int k = n / WT * padded;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int l = n % WT * 8 + lane % 4 * 2 + e % 2, i = line(group, e / 2) * padded,
                j = column(e / 2);
      const bool there = token(group, e / 2) >= 0 && n / WT < lines && l < length;
      const float by_row = ::fabsf(a[i + j] - a[i + l]) + ::fabsf(b[i + l] - b[k + l]),
                  by_col = ::fabsf(a[k + j] - a[k + l]) + ::fabsf(b[i + j] - b[k + j]);
      row[e] = there && !(by_row >= polyline_gpu::limit_bf16) ? s[e] - by_row : -far;
      col[e] = there && !(by_col >= polyline_gpu::limit_bf16) ? s[e] - by_col : -far;
    }
  }
  /// Every row's score with itself.
  __device__ __forceinline__ void own_scores(int group, const unsigned (&left)[D / 16][4],
                                             float (&own_score)[2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float s[4];
      // these eight cells are the columns, so the diagonal is in row lane / 4 = column
      times_rows<D>(s, left, x + 16 * group + 8 * r);
      own_score[r] = __shfl_sync(0xffffffffu, lane / 4 % 2 == 0 ? s[2 * r] : s[2 * r + 1],
                                 lane / 4 * 4 + lane / 4 / 2);
    }
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor

#include "ppma/core/names_end.hpp"
