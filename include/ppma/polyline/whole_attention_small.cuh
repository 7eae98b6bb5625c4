#pragma once
// Whole attention with the mask on maps of at most 16 x 16 in bf16: one exponential a score (the words are
// whole_attention_tensor.cuh's).
//
// With A_i[j,l] = e^-|a[i,j] - a[i,l]| and B_i[k,c] = e^-|b[i,c] - b[k,c]| the two weights of a score s are
//
//   row path      e^(s - r) A_i[j,l] B_i[k,l]        column path   e^(s - r) A_k[j,l] B_i[k,j]
//
// All A of a map are 16 x 16 numbers a line: a table in shared memory, as are B of a warp's lines; A_i of its own lines
// are constants of the thread. All keys of the map lie in shared memory too, so nothing but the start waits for others,
// and the running sums of the decays are scanned here.
//
// r must not come from scores that the mask removes, or the sums might vanish: it is the owner's own score less 30,
// which no mask weakens (both paths give it 1). A sum is then at least e^30, and whatever underflows is below e^-27 of it.
// Where the sum leaves the range (some score exceeds the own by more than 49, or a masked one by 58: 2^x is then no
// number), the warp starts again with the logarithms of the masks and the largest masked score: any finite score is
// right. The last bit of the first log sum tells backward, whose weights e^(s - log sum) have the same range.

#include "ppma/polyline/whole_attention_pieces.cuh"

namespace ppma::inline PPMA_ABI::kernels::whole_tensor {

/// A map in the shared memory of a block; a warp owns 16 cells: one line of 16 or two of 8. x and z are what its products
/// run over: keys and values, or queries and dy.
template <int D, int WT>
struct Small {
  static constexpr int padded = 8 * WT, lines_a_warp = 2 / WT, most_warps = 7;
  int groups, rows, length, lines, group, lane;  // groups of 16 cells: all, and the warp's
  int line[2], column[2], token[2];              // of the thread's two rows; token -1: padding
  float own[WT][4];                              // A of these lines
  bf16 (*x)[D + 8], (*z)[D + 8];
  float4* seen;    // of every query, for the keys: least log2 of its sums, its factor in the row path, both means
  float *fold;     // and its factor in the column path
  float *along, *a, *b, *across;  // A of all lines; running sums; B of the warp's lines
  float2* crossing;

  static int groups_of(const Lines& g) { return (g.lines + lines_a_warp - 1) / lines_a_warp; }
  static int parts(const Lines& g) { return (groups_of(g) + most_warps - 1) / most_warps; }
  static int warps(const Lines& g) { return (groups_of(g) + parts(g) - 1) / parts(g); }
  static int bytes(const Lines& g) {
    const int cells = 16 * groups_of(g);
    return cells * (4 * (D + 8) + 16 + 4 * (1 + padded + 2 + warps(g) * lines_a_warp)) + warps(g) * 16 * 8;
  }

  __device__ __forceinline__ Small(const Lines& g, float4* shared)
      : groups((g.lines + lines_a_warp - 1) / lines_a_warp), rows(16 * groups), length(g.length), lines(g.lines), lane(static_cast<int>(threadIdx.x) % 32) {
    const int warp = static_cast<int>(threadIdx.x) / 32, warps = static_cast<int>(blockDim.x) / 32;
    group = static_cast<int>(blockIdx.x) * warps + warp;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      line[r] = group * lines_a_warp + (WT == 1 ? r : 0), column[r] = lane / 4 + (WT == 2 ? 8 * r : 0);
      token[r] = line[r] < lines && column[r] < length ? line[r] * length + column[r] : -1;
    }
    x = reinterpret_cast<bf16(*)[D + 8]>(shared), z = x + rows;
    seen = reinterpret_cast<float4*>(z + rows);
    along = reinterpret_cast<float*>(seen + rows);
    crossing = reinterpret_cast<float2*>(along + rows * padded) + warp * 16;
    fold = along + rows * padded + warps * 32, a = fold + rows, b = a + rows;
    across = b + rows + warp * lines_a_warp * rows;
  }

  /// A head's tokens into shared memory, in the background; zeros in the padding.
  __device__ __forceinline__ void copy(const Lines& g, const bf16* head, bf16 (*to)[D + 8]) const {
    for (int e = static_cast<int>(threadIdx.x); e < rows * (D / 8); e += static_cast<int>(blockDim.x)) {
      const int cell = e / (D / 8), c = e % (D / 8) * 8, l = cell / padded, at = cell % padded;
      const bool there = l < lines && at < length && c < g.head_width;
      copy_async(&to[cell][c], there ? head + (l * length + at) * static_cast<int>(g.channels) + c : head, there);
    }
  }
  /// The running sums of a head; half a warp a line or a column.
  __device__ __forceinline__ void scan(const float* log_a, const float* log_b) const {
    const int all_lines = rows / padded, at = lane % 16, step = static_cast<int>(blockDim.x) / 16;
    for (int first = static_cast<int>(threadIdx.x) / 32 * 2; first < all_lines + padded; first += step) {
      const int task = first + lane / 16, c = task - all_lines;
      float sum = 0;
      if (task < all_lines) {
        if (task < lines && at > 0 && at < length) sum = log_a[task * length + at];
      } else if (c < length && at > 0 && at < lines) {
        sum = log_b[at * length + c];
      }
#pragma unroll
      for (int far_off = 1; far_off < 16; far_off *= 2) {
        const float before = __shfl_up_sync(0xffffffffu, sum, far_off, 16);
        if (at >= far_off) sum += before;
      }
      if (task < all_lines && at < padded) a[task * padded + at] = sum;
      if (task >= all_lines && c < padded && at < all_lines) b[at * padded + c] = sum;
    }
  }
  __device__ __forceinline__ static float decay(float from, float to) { return exp2_fast(-::fabsf(from - to) * log2_e); }

  /// A and B from the sums; with the factors of the queries in A where the owners are keys.
  template <bool of_keys>
  __device__ __forceinline__ void tables() {
    for (int e = static_cast<int>(threadIdx.x); e < rows * padded; e += static_cast<int>(blockDim.x)) {
      const int n = e / (8 * padded), j = e / 8 % padded, k = n / WT, l = n % WT * 8 + e % 8;
      float v = k < lines && j < length && l < length ? decay(a[k * padded + j], a[k * padded + l]) : 0.f;
      if constexpr (of_keys) v *= fold[k * padded + l];
      along[e] = v;
    }
#pragma unroll
    for (int u = 0; u < lines_a_warp; ++u) {
      if (line[u] >= rows / padded) break;
      for (int e = lane; e < rows; e += 32) {
        const bool there = line[u] < lines && e / padded < lines && e % padded < length;  // the last group may hold one line
        across[u * rows + e] = there ? decay(b[line[u] * padded + e % padded], b[e]) : 0.f;
      }
    }
#pragma unroll
    for (int w = 0; w < WT; ++w)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int l = 8 * w + lane % 4 * 2 + e % 2;
        own[w][e] = token[e / 2] >= 0 && l < length ? decay(a[line[e / 2] * padded + column[e / 2]], a[line[e / 2] * padded + l]) : 0.f;
      }
  }
  /// Both masks of piece `half` of a group; `others` scales the row path by column, `mine` the column path by row.
  __device__ __forceinline__ void masks(int m, int half, const float (&others)[2], const float (&mine)[2], float (&row)[4], float (&col)[4]) const {
    const int n = 2 * m + half, c = lane % 4 * 2;
    float2 up = *reinterpret_cast<const float2*>(across + 8 * n + c), table = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (WT == 1 && r == 1) up = *reinterpret_cast<const float2*>(across + rows + 8 * n + c);
      if (WT == 2 || r == 0) table = *reinterpret_cast<const float2*>(along + (n * padded + column[r]) * 8 + c);
      const float over = across[(WT == 1 ? r * rows : 0) + n / WT * padded + column[r]] * mine[r];
      row[2 * r] = own[WT == 2 ? half : 0][2 * r] * (up.x * others[0]), row[2 * r + 1] = own[WT == 2 ? half : 0][2 * r + 1] * (up.y * others[1]);
      col[2 * r] = table.x * over, col[2 * r + 1] = table.y * over;
    }
  }
  /// s with the logarithms of both masks.
  __device__ __forceinline__ void add_logs(int n, const float (&s)[4], float (&row)[4], float (&col)[4]) const {
    const int k = n / WT * padded;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int l = n % WT * 8 + lane % 4 * 2 + e % 2, i = line[e / 2] * padded, j = column[e / 2];
      const bool there = token[e / 2] >= 0 && n / WT < lines && l < length;
      row[e] = there ? s[e] - ::fabsf(a[i + j] - a[i + l]) - ::fabsf(b[i + l] - b[k + l]) : -far;
      col[e] = there ? s[e] - ::fabsf(a[k + j] - a[k + l]) - ::fabsf(b[i + j] - b[k + j]) : -far;
    }
  }
  /// Every row's score with itself.
  __device__ __forceinline__ void own_scores(const unsigned (&left)[D / 16][4], float (&own_score)[2]) const {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float s[4];
      times_rows<D>(s, left, x + 16 * group + 8 * r);  // these eight cells are the columns, so the diagonal is in row lane / 4 = column
      own_score[r] = __shfl_sync(0xffffffffu, lane / 4 % 2 == 0 ? s[2 * r] : s[2 * r + 1], lane / 4 * 4 + lane / 4 / 2);
    }
  }
};

// Two blocks a multiprocessor: with three (80 registers a thread) spills cost more than the third hides (measured on an H200).
inline constexpr unsigned two_ones = 0x3f803f80;  // a column of ones, as a right factor: sums of rows
inline constexpr float headroom = 43, sum_limit = 0x1p115f;  // of the weights, in powers of two

/// See whole_attention_tensor.cuh's forward.
template <int D, int WT>
__global__ void __launch_bounds__(32 * Small<D, WT>::most_warps, 2)
    small_forward(Lines g, const bf16* q, const bf16* k, const bf16* v, const float* log_a, const float* log_b, float share1, float share2, bf16* y, bf16* y1, float2* log_sums) {
  extern __shared__ float4 whole_attention_memory[];
  const i64 head = blockIdx.y, base = g.base(head);
  Small<D, WT> map(g, whole_attention_memory);
  map.copy(g, k + base, map.x);
  map.copy(g, v + base, map.z);
  copies_issued();
  unsigned query[D / 16][4];
  load_left<D>(q + base, g.channels, g.head_width, map.token[0], map.token[1], query);
  map.scan(log_a + head * g.tokens, log_b + head * g.tokens);
  __syncthreads();
  map.template tables<false>();
  copies_done<0>();
  __syncthreads();
  if (map.group >= map.groups) return;

  float out1[D / 8][4], out2[D / 8][4], sum1[4], sum2[4], top1[2], top2[2];
  // The averages of the values with weights 2^(log2_e s - top).
  const auto average = [&](auto by_logs) {
    constexpr bool logs = decltype(by_logs)::value;
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      sum1[e] = sum2[e] = 0;
#pragma unroll
      for (int s = 0; s < D / 8; ++s) out1[s][e] = out2[s][e] = 0;
    }
    for (int m = 0; m < map.groups; ++m) {
      float p1[2][4], p2[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float s[4], row[4], col[4];
        times_rows<D>(s, query, map.x + 16 * m + 8 * half);
        if constexpr (logs) map.add_logs(2 * m + half, s, row, col);
        else map.masks(m, half, {1, 1}, {1, 1}, row, col);
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          if constexpr (logs) {
            p1[half][e] = exp2_fast(::fmaf(row[e], log2_e, -top1[e / 2])), p2[half][e] = exp2_fast(::fmaf(col[e], log2_e, -top2[e / 2]));
          } else {
            const float weight = exp2_fast(::fmaf(s[e], log2_e, -top1[e / 2]));
            p1[half][e] = weight * row[e], p2[half][e] = weight * col[e];
          }
        }
      }
      unsigned left1[4], left2[4];
      as_left(left1, p1[0], p1[1]);
      as_left(left2, p2[0], p2[1]);
      multiply(sum1, left1, two_ones, two_ones);
      multiply(sum2, left2, two_ones, two_ones);
#pragma unroll
      for (int at = 0; at < D; at += 16) {
        unsigned right[4];
        load_columns<D>(right, map.z + 16 * m, at);
        multiply(out1[at / 8], left1, right[0], right[1]);
        multiply(out1[at / 8 + 1], left1, right[2], right[3]);
        multiply(out2[at / 8], left2, right[0], right[1]);
        multiply(out2[at / 8 + 1], left2, right[2], right[3]);
      }
    }
  };
  map.own_scores(query, top1);
#pragma unroll
  for (int r = 0; r < 2; ++r) top1[r] = top2[r] = top1[r] * log2_e - headroom;
  average(std::false_type{});
  const bool left_range = !(sum1[0] < sum_limit && sum1[2] < sum_limit && sum2[0] < sum_limit && sum2[2] < sum_limit);
  const bool again = __any_sync(0xffffffffu, left_range);
  if (again) {
#pragma unroll
    for (int r = 0; r < 2; ++r) top1[r] = top2[r] = -far;
    for (int n = 0; n < 2 * map.groups; ++n) {
      float s[4], row[4], col[4];
      times_rows<D>(s, query, map.x + 8 * n);
      map.add_logs(n, s, row, col);
#pragma unroll
      for (int e = 0; e < 4; ++e) top1[e / 2] = ::fmaxf(top1[e / 2], row[e]), top2[e / 2] = ::fmaxf(top2[e / 2], col[e]);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int step = 1; step < 4; step *= 2) {
        top1[r] = ::fmaxf(top1[r], __shfl_xor_sync(0xffffffffu, top1[r], step));
        top2[r] = ::fmaxf(top2[r], __shfl_xor_sync(0xffffffffu, top2[r], step));
      }
      top1[r] *= log2_e, top2[r] *= log2_e;
    }
    average(std::true_type{});
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (log_sums != nullptr && map.lane % 4 == 0 && map.token[r] >= 0) {
      const int log1 = __float_as_int(top1[r] + ::log2f(sum1[2 * r]));
      log_sums[head * g.tokens + map.token[r]] = {__int_as_float(again ? log1 | 1 : log1 & ~1), top2[r] + ::log2f(sum2[2 * r])};
    }
    const float factor1 = 1 / sum1[2 * r], factor2 = share2 / sum2[2 * r];
#pragma unroll
    for (int s = 0; s < D / 8; ++s)
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; ++e) out1[s][e] *= factor1, out2[s][e] = share1 * out1[s][e] + factor2 * out2[s][e];
  }
  if (y1 != nullptr) store_rows<D>(y1 + base, g.channels, g.head_width, map.token[0], map.token[1], out1);
  store_rows<D>(y + base, g.channels, g.head_width, map.token[0], map.token[1], out2);
}

/// Sums over a row of the product of two left factors: for both rows of the thread.
template <int D>
__device__ __forceinline__ void row_products(const unsigned (&x)[D / 16][4], const unsigned (&y)[D / 16][4], float (&sum)[2]) {
  sum[0] = sum[1] = 0;
#pragma unroll
  for (int s = 0; s < D / 16; ++s)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const float2 a = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(x[s][e])), b = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(y[s][e]));
      sum[e % 2] += a.x * b.x + a.y * b.y;
    }
#pragma unroll
  for (int r = 0; r < 2; ++r)
#pragma unroll
    for (int step = 1; step < 4; step *= 2) sum[r] += __shfl_xor_sync(0xffffffffu, sum[r], step);
}

/// See whole_attention_tensor_backward.cuh's backward. The queries go first: they leave `stats` (query_sums there) for
/// the keys, by padded cells, the last bit of the first telling whether forward took the logarithms.
template <int D, int WT, bool of_keys>
__global__ void __launch_bounds__(32 * Small<D, WT>::most_warps, 2)
    small_backward(Lines g, const bf16* q, const bf16* k, const bf16* v, const float* log_a, const float* log_b, const bf16* y, const bf16* y1, const bf16* dy,
                   const float2* log_sums, float share1, float share2, float4* stats, bf16* out1, bf16* out2, float2* dsums) {
  extern __shared__ float4 whole_attention_memory[];
  const i64 head = blockIdx.y, base = g.base(head);
  Small<D, WT> map(g, whole_attention_memory);
  float4* const of_head = stats + head * map.rows;
  map.copy(g, (of_keys ? q : k) + base, map.x);
  map.copy(g, (of_keys ? dy : v) + base, map.z);
  copies_issued();
  unsigned left_x[D / 16][4], left_z[D / 16][4];
  load_left<D>((of_keys ? k : q) + base, g.channels, g.head_width, map.token[0], map.token[1], left_x);
  load_left<D>((of_keys ? v : dy) + base, g.channels, g.head_width, map.token[0], map.token[1], left_z);
  map.scan(log_a + head * g.tokens, log_b + head * g.tokens);
  [[maybe_unused]] float4 mine[2];
  [[maybe_unused]] float top[2], mine_row[2], mine_col[2] = {1, 1};
  bool by_logs = false;
  if constexpr (of_keys) {
    for (int e = static_cast<int>(threadIdx.x); e < map.rows; e += static_cast<int>(blockDim.x)) {
      const float4 s = of_head[e];
      const float least = ::fminf(s.x, s.y);
      map.seen[e] = {least, exp2_fast(least - s.y), s.w, s.z}, map.fold[e] = exp2_fast(least - s.x);
      by_logs |= (__float_as_int(s.x) & 1) != 0;
    }
    by_logs = __syncthreads_or(by_logs) != 0;
  } else {
    unsigned other[D / 16][4];
    float whole[2], one[2] = {};
    load_left<D>(y + base, g.channels, g.head_width, map.token[0], map.token[1], other);
    row_products<D>(other, left_z, whole);
    if (y1 != nullptr) {
      load_left<D>(y1 + base, g.channels, g.head_width, map.token[0], map.token[1], other);
      row_products<D>(other, left_z, one);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float4 s = {far, far, 0, 0};
      bool logs = false;
      if (map.token[r] >= 0) {
        const float2 log = log_sums[head * g.tokens + map.token[r]];
        logs = (__float_as_int(log.x) & 1) != 0;
        if (share1 > 0) s.x = log.x - ::log2f(share1), s.z = y1 != nullptr ? one[r] : whole[r];
        if (share2 > 0) s.y = log.y - ::log2f(share2), s.w = y1 != nullptr ? (whole[r] - share1 * one[r]) / share2 : whole[r];
      }
      by_logs |= logs;
      const int bits = __float_as_int(s.x);
      s.x = __int_as_float(logs ? bits | 1 : bits & ~1);
      if (map.lane % 4 == 0 && map.group < map.groups) of_head[16 * map.group + 8 * r + map.lane / 4] = s;
      mine[r] = s, top[r] = ::fminf(s.x, s.y);
      mine_row[r] = exp2_fast(top[r] - s.x), mine_col[r] = exp2_fast(top[r] - s.y);
    }
    by_logs = __any_sync(0xffffffffu, by_logs);
    __syncthreads();
  }
  map.template tables<of_keys>();
  if constexpr (!of_keys)
#pragma unroll
    for (int w = 0; w < WT; ++w)
#pragma unroll
      for (int e = 0; e < 4; ++e) map.own[w][e] *= mine_row[e / 2];
  copies_done<0>();
  __syncthreads();
  if (map.group >= map.groups) return;

  float sum1[D / 8][4] = {};
  [[maybe_unused]] float sum2[of_keys ? D / 8 : 1][4] = {};
  float along[WT][4] = {}, across[WT][4] = {}, own_b[2] = {};
  const auto pass = [&](auto with_logs) {
    constexpr bool logs = decltype(with_logs)::value;
    for (int m = 0; m < map.groups; ++m) {
      float ds[2][4], p[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int n = 2 * m + half, w = WT == 2 ? half : 0, cell = 8 * n + map.lane % 4 * 2;
        float s[4], dp[4], row[4], col[4], below[2];
        times_rows<D>(s, left_x, map.x + 8 * n);
        times_rows<D>(dp, left_z, map.z + 8 * n);
        [[maybe_unused]] float4 seen[2];
        if constexpr (of_keys) seen[0] = map.seen[cell], seen[1] = map.seen[cell + 1];
        if constexpr (logs) map.add_logs(n, s, row, col);
        else if constexpr (of_keys) map.masks(m, half, {seen[0].y, seen[1].y}, {1, 1}, row, col);
        else map.masks(m, half, {1, 1}, mine_col, row, col);
#pragma unroll
        for (int r = 0; r < 2; ++r) below[r] = static_cast<float>((map.line[r] > n / WT) - (map.line[r] < n / WT));
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          float p_row, p_col, mean_row, mean_col;
          if constexpr (of_keys) mean_row = seen[e % 2].z, mean_col = seen[e % 2].w;
          else mean_row = mine[e / 2].z, mean_col = mine[e / 2].w;
          if constexpr (logs) {
            const float4 of_query = of_keys ? of_head[cell + e % 2] : mine[e / 2];
            p_row = exp2_fast(::fmaf(row[e], log2_e, of_keys ? -of_query.y : -of_query.x));
            p_col = exp2_fast(::fmaf(col[e], log2_e, of_keys ? -of_query.x : -of_query.y));
          } else {
            const float weight = exp2_fast(::fmaf(s[e], log2_e, of_keys ? -seen[e % 2].x : -top[e / 2]));
            p_row = weight * row[e], p_col = weight * col[e];
          }
          const float ds_row = p_row * (dp[e] - mean_row), ds_col = p_col * (dp[e] - mean_col);
          along[w][e] += ds_row;
          across[w][e] += below[e / 2] * ds_row;
          own_b[e / 2] += below[e / 2] * ds_col;
          ds[half][e] = ds_row + ds_col, p[half][e] = p_row + p_col;
        }
      }
      unsigned left_ds[4];
      [[maybe_unused]] unsigned left_p[4];
      as_left(left_ds, ds[0], ds[1]);
      if constexpr (of_keys) as_left(left_p, p[0], p[1]);
#pragma unroll
      for (int at = 0; at < D; at += 16) {
        unsigned right[4];
        load_columns<D>(right, map.x + 16 * m, at);
        multiply(sum1[at / 8], left_ds, right[0], right[1]);
        multiply(sum1[at / 8 + 1], left_ds, right[2], right[3]);
        if constexpr (of_keys) {
          load_columns<D>(right, map.z + 16 * m, at);
          multiply(sum2[at / 8], left_p, right[0], right[1]);
          multiply(sum2[at / 8 + 1], left_p, right[2], right[3]);
        }
      }
    }
  };
  if (by_logs) pass(std::true_type{});
  else pass(std::false_type{});
  store_rows<D>(out1 + base, g.channels, g.head_width, map.token[0], map.token[1], sum1);
  if constexpr (of_keys) store_rows<D>(out2 + base, g.channels, g.head_width, map.token[0], map.token[1], sum2);

  // What a and b get: a falls along a line, so the sign of -(a[i,j] - a[i,l]) is that of j - l. Summed over l for the
  // owner, over j for the others of its line.
  float own_a[2] = {};
#pragma unroll
  for (int w = 0; w < WT; ++w)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int l = 8 * w + map.lane % 4 * 2 + e;
      float a[2], b[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        a[r] = static_cast<float>((map.column[r] > l) - (map.column[r] < l)) * along[w][2 * r + e], b[r] = across[w][2 * r + e];
        own_a[r] += a[r];
      }
      if (WT == 2) a[0] += a[1], b[0] += b[1];  // one line
#pragma unroll
      for (int r = 0; r < 2 / WT; ++r) {
#pragma unroll
        for (int step = 4; step < 32; step *= 2) a[r] += __shfl_xor_sync(0xffffffffu, a[r], step), b[r] += __shfl_xor_sync(0xffffffffu, b[r], step);
        if (map.lane / 4 == 0) map.crossing[8 * r + l] = {-a[r], b[r]};
      }
    }
  __syncwarp();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
      own_a[r] += __shfl_xor_sync(0xffffffffu, own_a[r], step);
      own_b[r] += __shfl_xor_sync(0xffffffffu, own_b[r], step);
    }
    const float2 others = map.crossing[8 * r + map.lane / 4];
    if (map.lane % 4 == 0 && map.token[r] >= 0) dsums[head * g.tokens + map.token[r]] = {own_a[r] + others.x, own_b[r] + others.y};
  }
}

}  // namespace ppma::inline PPMA_ABI::kernels::whole_tensor
