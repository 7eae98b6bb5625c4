#pragma once
#include "ppma/core/names_begin.hpp"
// Products of normalised tokens of 64 or 128 channels, bf16: y = LN(x) w^T + b with three times as
// many results as channels. They are the three of an attention, whose queries and keys are turned
// (rotary positions) as they leave, with the log decays beside them; or the first product of a
// feed-forward layer. The normalised tokens are never in memory, but where backward makes the
// products again and reads the tokens too.
//
// The weights (24 or 98 KB) stay in shared memory, and blocks stay on the GPU: each normalises 128
// rows at a time into one of two tiles, the left factor of all its products, and the rows that
// follow are on their way meanwhile. A warp has 32 x 32 results, three times. The columns of its
// eight-wide products are dealt so that a lane ends with eight neighbours of a row: 16 bytes to
// store, four pairs to turn. Log decays are a product of the same left factor: a warp makes those
// of 16 rows and four heads at a time.
//
// Floor: x read and the results written once: 56 x 56 tokens of 64 channels, batch 128: 48 us at
// 4.3 TB/s (as four kernels q, k and v are 16 passes over such a map: 190 us). 10 GFLOP: 25 us at
// what mma.sync reaches.

#include "ppma/kernels/cuda/mma.cuh"
#include "ppma/kernels/cuda/norm_decay.cuh"

namespace ppma::inline PPMA_ABI::kernels {

/// Three products of one norm; w (C,C) and biases (C) each, results `pitch` apart.
struct NormProducts {
  i64 rows, tokens, pitch;  // of all images, of one
  const bf16* x;            // (rows, C)
  const float *gamma, *beta;
  float eps;
  struct Part {
    const bf16 *w, *bias;
    bf16* y;
  } part[3];
  const float *cosine, *sine;  // (tokens, d): part 0 is turned and so is part 1; null: none
  int d;
  float scale;         // of part 1, where it is turned
  float *mean, *rstd;  // (rows), for backward; null: not wanted
  bf16* normed;        // (rows, C), the normalised tokens; null: not wanted
};

namespace detail {

namespace norm_product {
inline constexpr int rows = 128;  // of a tile
template <int C>
inline constexpr int threads = C == 64 ? 256 : 512;  // 4 x C / 32 warps
template <int C>
using Decays = DecaysOfTile<C>;
// The weights; two tiles, and for each cosine and sine of each pair of a head; and what the log
// decays are made of.
constexpr int shared_bytes(int c, int d, bool logs) {
  return 3 * c * c * 2 + 2 * (rows * c * 2 + rows * d / 2 * 8) +
         (!logs     ? 0
          : c == 64 ? Decays<64>::bytes(c / d)
                    : Decays<128>::bytes(c / d));
}

// The 16-byte part `part` of row r of a (.., C) matrix in shared memory, in panels of 64 columns
// and `height` rows: eight rows of a matrix are in different banks.
__device__ __forceinline__ int place(int height, int r, int part, int dealt) {
  return part / 8 * height * 128 + r * 128 + (part % 8 ^ dealt) * 16;
}
}  // namespace norm_product

// Grid: blocks that stay. after: Decays, or nothing.
template <int C, bool turns, class After>
__global__ void __launch_bounds__(norm_product::threads<C>, C == 64 ? 2 : 1)
    norm_products(NormProducts p, After after) {
  using namespace norm_product;
  constexpr int packs = C / 8, all = threads<C>, at_once = all / packs,
                each = norm_product::rows / at_once;
  constexpr bool logs = !std::is_same_v<After, NothingMore>;
  extern __shared__ __align__(16) unsigned char memory[];
  unsigned char *const tiles = memory + 3 * C * C * 2, *const angles =
                                                           tiles + 2 * norm_product::rows * C * 2;
  const int tid = static_cast<int>(threadIdx.x), warp = tid / 32, lane = tid % 32;
#pragma unroll
  for (int part = 0; part < 3; ++part)
    for (int i = tid; i < C * packs; i += all) {
      const int r = i / packs, k = i % packs;
      copy_async_once(
          shared_address(memory + part * C * C * 2 + place(C, r, k, r % 2 + r / 8 % 4 * 2)),
          p.part[part].w + r * C + k * 8);
    }
  copies_issued();
  [[maybe_unused]] unsigned char* const kept = angles + 2 * norm_product::rows * p.d / 2 * 8;
  if constexpr (logs) after.keep(kept);
  cuda::wait();  // weights are parameters

  // The norm: C / 8 lanes a row.
  const int pack = tid % packs, row = tid / packs;
  RawElements<bf16, 8> raw[each];
  const int token_rows = static_cast<int>(p.rows);
  const auto fetch = [&](int tile) {
#pragma unroll
    for (int k = 0; k < each; ++k) {
      const int r = tile * norm_product::rows + k * at_once + row;
      raw[k] = r < token_rows ? *reinterpret_cast<const RawElements<bf16, 8>*>(
                                    p.x + static_cast<i64>(r) * C + pack * 8)
                              : RawElements<bf16, 8>{};
    }
  };
  // Cosine and sine of pair m of a row, in 16-byte parts of two pairs whose banks differ from those
  // of the row below.
  const int pairs = p.d / 2, pairs_shift = 31 - __clz(::max(pairs, 1)),
            turn_bytes = norm_product::rows * pairs * 8;
  const auto turn_at = [&](int r, int m) { return r * pairs * 8 + ((m * 8) ^ (r % 2 * 16)); };
  // Of the tile whose first token this is. A thread has the same pair of every so many rows.
  const auto tokens = static_cast<int>(p.tokens);
  const auto fetch_turns = [&](int first_token, unsigned char* to) {
    if constexpr (turns) {
      const int m = tid & (pairs - 1), at_row = tid >> pairs_shift, step = all >> pairs_shift;
      int token = first_token + at_row;
      for (int r = at_row; r < norm_product::rows; r += step, token += step) {
        while (token >= tokens) token -= tokens;
        const int from = token * p.d + 2 * m;
        const unsigned at = shared_address(to + turn_at(r, m));
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at), "l"(p.cosine + from));
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(at + 4),
                     "l"(p.sine + from + 1));
      }
      copies_issued();
    }
  };
  const auto normalise = [&](int tile, unsigned char* to) {
    float g[8], b[8];
    load_pack<8>(p.gamma + pack * 8, g);
    load_pack<8>(p.beta + pack * 8, b);
    // Beside logs all rows' sums are made at once: an exchange of lanes then does not wait for
    // another row's. (Without logs that was slower.)
    constexpr int group = logs ? each : 1;
    const auto over_row = [](float(&x)[group]) {
#pragma unroll
      for (int o = packs / 2; o > 0; o /= 2)
#pragma unroll
        for (int k = 0; k < group; ++k) x[k] += __shfl_xor_sync(all_lanes, x[k], o);
    };
#pragma unroll
    for (int from = 0; from < each; from += group) {
      float v[group][8], mean[group] = {}, rstd[group] = {};
#pragma unroll
      for (int k = 0; k < group; ++k) {
        load_pack<8>(reinterpret_cast<const bf16*>(&raw[from + k]), v[k]);
#pragma unroll
        for (int i = 0; i < 8; ++i) mean[k] += v[k][i];
      }
      over_row(mean);
#pragma unroll
      for (int k = 0; k < group; ++k) {
        mean[k] /= C;
#pragma unroll
        for (int i = 0; i < 8; ++i) rstd[k] += (v[k][i] - mean[k]) * (v[k][i] - mean[k]);
      }
      over_row(rstd);
#pragma unroll
      for (int k = 0; k < group; ++k) {
        const int local = (from + k) * at_once + row;
        const int r = tile * norm_product::rows + local;
        rstd[k] = inverse_root(rstd[k] / C + p.eps);
        if (p.mean && pack == 0 && r < token_rows) p.mean[r] = mean[k], p.rstd[r] = rstd[k];
#pragma unroll
        for (int i = 0; i < 8; ++i) v[k][i] = (v[k][i] - mean[k]) * rstd[k] * g[i] + b[i];
        const RawElements<bf16, 8> stored = rounded_pack<8>(v[k]);
        *reinterpret_cast<RawElements<bf16, 8>*>(
            to + place(norm_product::rows, local, pack, local % 8)) = stored;
        if (p.normed && r < token_rows)
          *reinterpret_cast<RawElements<bf16, 8>*>(p.normed + static_cast<i64>(r) * C + pack * 8) =
              stored;
      }
    }
  };

  const int down = warp % 4 * 32, across = warp / 4 * 32, q = lane % 4 * 8;
  // Of 64 channels the logs of the first four heads are made beside the first results, from left
  // factors that the warp has then: it has the 16 rows of its logs first. (Of 128 channels that is
  // slower, registers spill.)
  constexpr bool beside = logs && C == 64;
  const int log_rows = down + warp / 4 % 2 * 16, swapped = beside ? warp / 4 * 16 : 0;
  // Rows of the matrices that a lane names: of the tokens, and of the weights (column 8 (i / 2) + 2
  // t + i % 2 is the i-th of product t).
  const int row_a = down + lane % 16, half_a = lane / 16, i = lane % 8,
            row_b = across + i / 2 * 8 + i % 2 + lane / 16 * 2, half_b = lane / 8 % 2,
            dealt_b = i % 2 + i / 2 * 2;
  int tile = static_cast<int>(blockIdx.x);
  const int blocks = static_cast<int>(gridDim.x),
            end = (token_rows + norm_product::rows - 1) / norm_product::rows;
  int first_token = turns ? tile * norm_product::rows % tokens : 0;
  const int later = turns ? blocks * norm_product::rows % tokens : 0;
  fetch(tile);
  fetch_turns(first_token, angles);
  for (int turn = 0; tile < end; tile += blocks, turn ^= 1) {
    unsigned char* const mine = tiles + turn * norm_product::rows * C * 2;
    normalise(tile, mine);
    if (tile + blocks < end) fetch(tile + blocks);
    copies_done<0>();
    __syncthreads();  // who is behind still reads the other tile and its angles
    first_token += later;
    if (first_token >= tokens) first_token -= tokens;
    if (tile + blocks < end) fetch_turns(first_token, angles + (turn ^ 1) * turn_bytes);
    const unsigned char* const turned_by = angles + turn * turn_bytes;
    if constexpr (logs) {
      for (int four = beside ? 1 : warp / 8; four < after.fours(); four += C / 64) {
        SumsOfTile sums;
#pragma unroll
        for (int k = 0; k < C / 16; ++k) {
          unsigned a[4];
          load_matrices(a, shared_address(mine + place(norm_product::rows, log_rows + lane % 16,
                                                       2 * k + half_a, row_a % 8)));
          after.add(kept, four, k, a, sums);
        }
        after.write(kept, four, tile * norm_product::rows + log_rows, token_rows, sums);
      }
    }
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      float c[2][4][4] = {};
      [[maybe_unused]] SumsOfTile sums;
#pragma unroll
      for (int k = 0; k < C / 16; ++k) {
        unsigned a[2][4], b[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m)
          load_matrices(a[m],
                        shared_address(mine + place(norm_product::rows, row_a + (m * 16 ^ swapped),
                                                    2 * k + half_a, row_a % 8)));
#pragma unroll
        for (int t = 0; t < 2; ++t)
          load_matrices(b[t], shared_address(memory + part * C * C * 2 +
                                             place(C, row_b + t * 4, 2 * k + half_b, dealt_b)));
#pragma unroll
        for (int m = 0; m < 2; ++m)
#pragma unroll
          for (int t = 0; t < 4; ++t)
            multiply(c[m][t], a[m], b[t / 2][t % 2 * 2], b[t / 2][t % 2 * 2 + 1]);
        if constexpr (beside) {
          if (part == 0) after.add(kept, 0, k, a[0], sums);
        }
      }
      if constexpr (beside) {
        if (part == 0) after.write(kept, 0, tile * norm_product::rows + log_rows, token_rows, sums);
      }
      float bias[8];
      load_pack<8>(p.part[part].bias + across + q, bias);
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const int r = tile * norm_product::rows + down + (m * 16 ^ swapped) + h * 8 + lane / 4;
          float v[8];
#pragma unroll
          for (int t = 0; t < 4; ++t)
            v[2 * t] = c[m][t][2 * h] + bias[2 * t],
                  v[2 * t + 1] = c[m][t][2 * h + 1] + bias[2 * t + 1];
          if constexpr (turns) {
            if (part < 2) {
              const int local = down + (m * 16 ^ swapped) + h * 8 + lane / 4,
                        first = (across + q) % p.d / 2;
              const float by = part == 1 ? p.scale : 1.f;
              float co[4], si[4];
#pragma unroll
              for (int t = 0; t < 4; t += 2) {
                const float4 two =
                    *reinterpret_cast<const float4*>(turned_by + turn_at(local, first + t));
                co[t] = two.x * by, si[t] = two.y * by;
                co[t + 1] = two.z * by, si[t + 1] = two.w * by;
              }
#pragma unroll
              for (int t = 0; t < 4; ++t) {
                const float even = v[2 * t];
                v[2 * t] = even * co[t] - v[2 * t + 1] * si[t];
                v[2 * t + 1] = v[2 * t + 1] * co[t] + even * si[t];
              }
            }
          }
          if (r < token_rows)
            store_pack<8>(p.part[part].y + static_cast<i64>(r) * p.pitch + across + q, v);
        }
    }
  }
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
