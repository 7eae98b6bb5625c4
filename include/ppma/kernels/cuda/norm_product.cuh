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
// store, four pairs to turn.
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
using Decays = DecaysOfTile<rows>;
// The weights; two tiles, and for each cosine and sine of each pair of a head, and what the log
// decays are made of.
constexpr int shared_bytes(int c, int d, bool logs) {
  return 3 * c * c * 2 +
         2 * (rows * c * 2 + rows * d / 2 * 8 + (logs ? 2 * c / 8 * Decays::apart * 4 : 0));
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
  constexpr int floats = 2 * packs * Decays::apart;
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
  cuda::wait();  // weights are parameters

  // The norm: C / 8 lanes a row.
  const int pack = tid % packs, row = tid / packs;
  RawElements<bf16, 8> raw[each];
  const auto fetch = [&](i64 tile) {
#pragma unroll
    for (int k = 0; k < each; ++k) {
      const i64 r = tile * norm_product::rows + k * at_once + row;
      raw[k] = r < p.rows ? *reinterpret_cast<const RawElements<bf16, 8>*>(p.x + r * C + pack * 8)
                          : RawElements<bf16, 8>{};
    }
  };
  // Cosine and sine of pair m of a row, in 16-byte parts of two pairs whose banks differ from those
  // of the row below.
  const int pairs = p.d / 2, pairs_shift = 31 - __clz(::max(pairs, 1)),
            turn_bytes = norm_product::rows * pairs * 8;
  const auto turn_at = [&](int r, int m) { return r * pairs * 8 + ((m * 8) ^ (r % 2 * 16)); };
  const auto fetch_turns = [&](i64 tile, unsigned char* to) {
    if constexpr (turns) {
      const auto first = static_cast<int>(tile * norm_product::rows % p.tokens),
                 tokens = static_cast<int>(p.tokens);
      for (int i = tid; i < norm_product::rows * pairs; i += all) {
        const int r = i >> pairs_shift, m = i & (pairs - 1);
        int token = first + r;
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
  const auto normalise = [&](i64 tile, unsigned char* to, [[maybe_unused]] float* of_logs) {
    float g[8], b[8];
    load_pack<8>(p.gamma + pack * 8, g);
    load_pack<8>(p.beta + pack * 8, b);
    const typename After::Pack of_pack = after.pack_of(pack * 8, true);
#pragma unroll
    for (int k = 0; k < each; ++k) {
      const int local = k * at_once + row;
      const i64 r = tile * norm_product::rows + local;
      float v[8], sum = 0, squares = 0;
      load_pack<8>(reinterpret_cast<const bf16*>(&raw[k]), v);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum += v[i];
      const float mean = sum_lanes(sum, packs) / C;
#pragma unroll
      for (int i = 0; i < 8; ++i) squares += (v[i] - mean) * (v[i] - mean);
      const float rstd = inverse_root(sum_lanes(squares, packs) / C + p.eps);
      if (p.mean && pack == 0 && r < p.rows) p.mean[r] = mean, p.rstd[r] = rstd;
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] = (v[i] - mean) * rstd * g[i] + b[i];
      const RawElements<bf16, 8> stored = rounded_pack<8>(v);
      *reinterpret_cast<RawElements<bf16, 8>*>(
          to + place(norm_product::rows, local, pack, local % 8)) = stored;
      if (p.normed && r < p.rows)
        *reinterpret_cast<RawElements<bf16, 8>*>(p.normed + r * C + pack * 8) = stored;
      if constexpr (logs) after.put(of_pack, local, v, of_logs);
    }
  };

  const auto sums_of = [&](int turn) {
    return reinterpret_cast<float*>(angles + 2 * turn_bytes) + turn * floats;
  };
  const int down = warp % 4 * 32, across = warp / 4 * 32, q = lane % 4 * 8;
  // Rows of the matrices that a lane names: of the tokens, and of the weights (column 8 (i / 2) + 2
  // t + i % 2 is the i-th of product t).
  const int row_a = down + lane % 16, half_a = lane / 16, i = lane % 8,
            row_b = across + i / 2 * 8 + i % 2 + lane / 16 * 2, half_b = lane / 8 % 2,
            dealt_b = i % 2 + i / 2 * 2;
  i64 tile = blockIdx.x;
  const i64 end = (p.rows + norm_product::rows - 1) / norm_product::rows;
  fetch(tile);
  fetch_turns(tile, angles);
  for (int turn = 0; tile < end; tile += gridDim.x, turn ^= 1) {
    unsigned char* const mine = tiles + turn * norm_product::rows * C * 2;
    normalise(tile, mine, sums_of(turn));
    if (tile + gridDim.x < end) fetch(tile + gridDim.x);
    copies_done<0>();
    __syncthreads();  // who is behind still reads the other tile and its angles
    if (tile + gridDim.x < end) fetch_turns(tile + gridDim.x, angles + (turn ^ 1) * turn_bytes);
    const unsigned char* const turned_by = angles + turn * turn_bytes;
    if constexpr (logs)
      after.write(static_cast<int>(tile) * norm_product::rows, static_cast<int>(p.rows),
                  sums_of(turn));
#pragma unroll
    for (int part = 0; part < 3; ++part) {
      float c[2][4][4] = {};
#pragma unroll
      for (int k = 0; k < C / 16; ++k) {
        unsigned a[2][4], b[2][4];
#pragma unroll
        for (int m = 0; m < 2; ++m)
          load_matrices(a[m], shared_address(mine + place(norm_product::rows, row_a + m * 16,
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
      }
      float bias[8];
      load_pack<8>(p.part[part].bias + across + q, bias);
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          const i64 r = tile * norm_product::rows + down + m * 16 + h * 8 + lane / 4;
          float v[8];
#pragma unroll
          for (int t = 0; t < 4; ++t)
            v[2 * t] = c[m][t][2 * h] + bias[2 * t],
                  v[2 * t + 1] = c[m][t][2 * h + 1] + bias[2 * t + 1];
          if constexpr (turns) {
            if (part < 2) {
              const int local = down + m * 16 + h * 8 + lane / 4, first = (across + q) % p.d / 2;
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
          if (r < p.rows) store_pack<8>(p.part[part].y + r * p.pitch + across + q, v);
        }
    }
  }
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
