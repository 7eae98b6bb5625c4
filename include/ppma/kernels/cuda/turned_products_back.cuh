#pragma once
#include "ppma/core/names_begin.hpp"
// The gradients of an attention's three products of tokens x of 64 channels, bf16, in one pass, of
// q = turned(x wq^T + bq), k likewise and scaled, v = x wv^T + bv:
//
//   dx (+)= dq' wq + dk' wk + dv wv,  dw = d'^T x,  db = sums of d'     d' = d turned back, scaled
//
// Blocks stay; each takes rows through two stages of shared memory, turns dq and dk back where
// they lie, and multiplies on the tensor cores: the three parts of dx are one sum, those of dw and
// db are in registers until its rows end. What each block has is added in order afterwards.
//
// Floor: dq, dk, dv, x and what dx has read and dx written: 56 x 56 tokens, batch 128: 72 us at 4.3
// TB/s (one by one, with the rotations, they are 24 passes over such a map).

#include <memory>
#include <utility>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/later_sums.cuh"
#include "ppma/kernels/cuda/mma.cuh"

namespace ppma::inline PPMA_ABI::kernels {

/// What is read and written; channels C in heads of d, here 64.
struct TurnedProductsBack {
  i64 rows, tokens;            // of all images, of one
  const bf16 *dy[3], *x;       // (rows, C): of q, k, v
  const bf16* w[3];            // (C, C)
  const float *cosine, *sine;  // (tokens, d)
  int c, d;                    // C, d
  float scale;                 // of k
  bool add;                    // to what dx has
  bf16* dx;                    // (rows, C)
  float *dw[3], *db[3];        // (C, C) and (C), or null
};

namespace detail {

namespace turned_products {
inline constexpr int channels = 64, rows = 64, threads = 256, square = rows * channels * 2,
                     stage = 4 * square, shared = 3 * square + 2 * stage;
// The 16-byte part `part` of row r of a (.., 64) matrix in shared memory: eight rows are in
// different banks.
__device__ __forceinline__ unsigned place(int r, int part) {
  return static_cast<unsigned>(r * 128 + (part ^ (r & 7)) * 16);
}
}  // namespace turned_products

// sums (parts, 3 C C) of dw, bias_sums (parts, 3 C) of db.
template <int unused = 0>
__global__ void __launch_bounds__(turned_products::threads, 2)
    turned_products_back(TurnedProductsBack p, i64 per_part, float* sums, float* bias_sums) {
  using namespace turned_products;
  extern __shared__ __align__(128) unsigned char squares[];
  const int tid = static_cast<int>(threadIdx.x), lane = tid % 32, warp = tid / 32, wm = warp % 4,
            wn = warp / 4;
  const i64 begin = blockIdx.x * per_part, end = ::min(p.rows, begin + per_part);
  const int steps = static_cast<int>((end - begin + rows - 1) / rows);
  const unsigned weights = shared_address(squares), stages = weights + 3 * square;

  const auto copy = [](unsigned to, const bf16* from, bool there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                 "r"(there ? 16 : 0));
  };
  const int part_of = tid % 8, row_of = tid / 8;  // of copies: 32 rows at once
  const auto fetch = [&](int step) {
    const unsigned to = stages + static_cast<unsigned>(step % 2 * stage);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int r = row_of + k * 32;
      const i64 row = begin + static_cast<i64>(step) * rows + r, at = row * channels + part_of * 8;
      const bool there = row < end;
#pragma unroll
      for (int m = 0; m < 4; ++m)
        copy(to + static_cast<unsigned>(m * square) + place(r, part_of),
             (m < 3 ? p.dy[m] : p.x) + (there ? at : 0), there);
    }
    copies_issued();
  };
#pragma unroll
  for (int m = 0; m < 3; ++m)
#pragma unroll
    for (int k = 0; k < 2; ++k)
      copy(weights + static_cast<unsigned>(m * square) + place(row_of + k * 32, part_of),
           p.w[m] + (row_of + k * 32) * channels + part_of * 8, true);
  if (steps > 0) fetch(0);

  float dw[3][4][4] = {}, ones[3][4] = {};
  const int packs = p.d / 8, heads = channels / p.d;
  // Of matrix lane / 8: which eight rows, which eight columns, as it lies and turned.
  const int eight = lane % 8, lower = lane / 8 % 2, upper = lane / 16;
  for (int step = 0; step < steps; ++step) {
    copies_done<0>();
    __syncthreads();
    if (step + 1 < steps) fetch(step + 1);
    unsigned char* const mine = squares + 3 * square + step % 2 * stage;
    const unsigned at = stages + static_cast<unsigned>(step % 2 * stage);
    const i64 first = begin + static_cast<i64>(step) * rows;
    // dq and dk turned back: a thread has eight channels of a row, in all heads
    for (int i = tid; i < rows * packs * 2; i += threads) {
      const int pack = i % packs, r = i / packs % rows, which = i / packs / rows;
      const auto token =
          static_cast<i64>(static_cast<unsigned>(first + r) % static_cast<unsigned>(p.tokens));
      float c[8], s[8];
      load_pack<8>(p.cosine + token * p.d + pack * 8, c);
      load_pack<8>(p.sine + token * p.d + pack * 8, s);
      const float scale = which == 1 ? p.scale : 1.f;
      for (int h = 0; h < heads; ++h) {
        bf16* const piece =
            reinterpret_cast<bf16*>(mine + which * square + place(r, h * packs + pack));
        float v[8], out[8];
        load_pack<8>(piece, v);
#pragma unroll
        for (int k = 0; k < 8; k += 2) {
          out[k] = v[k] * (scale * c[k]) + v[k + 1] * (-scale * s[k]);
          out[k + 1] = v[k + 1] * (scale * c[k + 1]) + v[k] * (-scale * s[k + 1]);
        }
        store_pack<8>(piece, out);
      }
    }
    // what dx has: the eight columns of two rows that this thread will store
    const int column = wn * 32 + lane % 4 * 8;
    uint4 before[2] = {};
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const i64 row = first + wm * 16 + h * 8 + lane / 4;
      if (p.add && row < end)
        before[h] = *reinterpret_cast<const uint4*>(p.dx + row * channels + column);
    }
    __syncthreads();

    // dw: rows are what is summed over
#pragma unroll
    for (int k = 0; k < rows / 16; ++k) {
      unsigned b[2][4];
#pragma unroll
      for (int j = 0; j < 2; ++j)
        load_turned(b[j],
                    at + 3 * square + place(k * 16 + eight + lower * 8, wn * 4 + j * 2 + upper));
#pragma unroll
      for (int m = 0; m < 3; ++m) {
        unsigned a[4];
        load_turned(a, at + static_cast<unsigned>(m * square) +
                           place(k * 16 + eight + upper * 8, wm * 2 + lower));
#pragma unroll
        for (int j = 0; j < 4; ++j)
          multiply(dw[m][j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
        if (wn == 0) multiply(ones[m], a, 0x3f803f80u, 0x3f803f80u);
      }
    }
    // dx: channels of the results are what is summed over
    float c[4][4] = {};
#pragma unroll
    for (int m = 0; m < 3; ++m)
#pragma unroll
      for (int k = 0; k < channels / 16; ++k) {
        unsigned a[4], b[2][4];
        load_matrices(a, at + static_cast<unsigned>(m * square) +
                             place(wm * 16 + eight + lower * 8, k * 2 + upper));
#pragma unroll
        for (int j = 0; j < 2; ++j)
          load_turned(b[j], weights + static_cast<unsigned>(m * square) +
                                place(k * 16 + eight + lower * 8, wn * 4 + j * 2 + upper));
#pragma unroll
        for (int j = 0; j < 4; ++j) multiply(c[j], a, b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      }
    // The four lanes of a row deal their pairs so that each has eight neighbours.
    const int q = lane % 4;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const i64 row = first + wm * 16 + h * 8 + lane / 4;
      unsigned pair[4], own[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) pair[j] = rounded_pair(c[j][2 * h], c[j][2 * h + 1]);
#pragma unroll
      for (int far = 0; far < 4; ++far) {
        const int to = q ^ far;  // who gets it
        const unsigned give = to == 0 ? pair[0] : to == 1 ? pair[1] : to == 2 ? pair[2] : pair[3];
        const unsigned got = __shfl_xor_sync(0xffffffffu, give, far);
#pragma unroll
        for (int j = 0; j < 4; ++j)
          if (to == j) own[j] = got;  // from lane `to`
      }
      float v[8], old[8];
      load_pack<8>(reinterpret_cast<const bf16*>(own), v);
      load_pack<8>(reinterpret_cast<const bf16*>(&before[h]), old);
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] += old[i];
      if (row < end) store_pack<8>(p.dx + row * channels + column, v);
    }
  }

  const i64 part = blockIdx.x;
#pragma unroll
  for (int m = 0; m < 3; ++m)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = wm * 16 + h * 8 + lane / 4;
#pragma unroll
      for (int j = 0; j < 4; ++j)
        *reinterpret_cast<float2*>(sums + ((part * 3 + m) * channels + r) * channels + wn * 32 +
                                   j * 8 + lane % 4 * 2) =
            make_float2(dw[m][j][2 * h], dw[m][j][2 * h + 1]);
      if (wn == 0 && lane % 4 == 0) bias_sums[(part * 3 + m) * channels + r] = ones[m][2 * h];
    }
}

}  // namespace detail

/// Whether turned_products_back takes so many rows of c channels in heads of d, and gains.
inline bool has_turned_products_back(i64 rows, i64 c, i64 d) {
  return c == 64 && (d == 8 || d == 16 || d == 32 || d == 64) && rows >= 32768 &&
         rows < (i64{1} << 31);
}

/// dx, dw and db; the latter may wait.
inline void turned_products_back(Cuda, const TurnedProductsBack& p) {
  using namespace detail::turned_products;
  const i64 at_once = 2 * cuda::device().multiProcessorCount,
            per_part = ((p.rows + at_once - 1) / at_once + rows - 1) / rows * rows,
            parts = (p.rows + per_part - 1) / per_part;
  constexpr i64 c = detail::turned_products::channels;  // kernels has a function of that name
  auto sums = std::make_unique<const Workspace<float>>(parts * 3 * c * c, Device::cuda),
       bias_sums = std::make_unique<const Workspace<float>>(parts * 3 * c, Device::cuda);
  const auto kernel = detail::turned_products_back<>;
  detail::allow_shared(kernel, shared, "linear");
  kernel<<<static_cast<unsigned>(parts), threads, shared, cuda::stream()>>>(
      p, per_part, sums->data(), bias_sums->data());
  cuda::launched("linear");
  detail::finish_columns_later(std::move(sums), parts, 3 * c * c,
                               detail::ColumnPlaces<float>(p.dw[0], c * c, p.dw[1], c * c, p.dw[2]),
                               "linear");
  detail::finish_columns_later(std::move(bias_sums), parts, 3 * c,
                               detail::ColumnPlaces<float>(p.db[0], c, p.db[1], c, p.db[2]),
                               "linear");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
