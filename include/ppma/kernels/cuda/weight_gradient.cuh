#pragma once
#include "ppma/core/names_begin.hpp"
// The gradients of a linear layer's weights and bias on the GPU, bf16: dw (M,N) = dy^T x and db
// (M), the sums of dy's columns, for dy (rows, M) and x (rows, N), rows many, M and N few.
//
// A block has a tile of dw and a part of the rows, which come through a ring in shared memory, are
// turned as they are loaded from there (ldmatrix.trans) and multiplied on the tensor cores; sums of
// dy's columns are one more product, with a column of ones. What each part of the rows gave is
// added in order, in clusters of blocks first (cluster.cuh).
//
// Floor: dy and x read once.

#include <algorithm>
#include <memory>
#include <utility>

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/cluster.cuh"
#include "ppma/kernels/cuda/later_sums.cuh"
#include "ppma/kernels/cuda/mma.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// A tile TM x TN by WM x WN warps; KB rows a stage of S; blocks a multiprocessor; of a cluster.
template <int TM_, int TN_, int WM_, int WN_, int KB_, int S_, int blocks_, int cluster_>
struct WeightTile {
  static constexpr int TM = TM_, TN = TN_, WM = WM_, WN = WN_, KB = KB_, S = S_, blocks = blocks_,
                       cluster = cluster_, threads = WM * WN * 32, MT = TM / WM / 16,
                       NT = TN / WN / 8, stage = KB * (TM + TN) * 2, shared = stage * S;
  static_assert(TM % 64 == 0 && TN % 64 == 0 && MT * WM * 16 == TM && NT * WN * 8 == TN &&
                NT % 2 == 0 && KB % 16 == 0 && shared >= (TM * TN + TM) * 4);
};

// partial (parts / blocks of a cluster, M N + M): dw, then db. Grid (tiles, parts).
template <class W>
__global__ void __launch_bounds__(W::threads, W::blocks)
    weight_gradient_pieces(i64 rows, int m, int n, i64 per_part, const bf16* dy, const bf16* x,
                           float* partial) {
  constexpr int MT = W::MT, NT = W::NT, KB = W::KB;
  extern __shared__ __align__(128) unsigned char ring[];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32,
            wm = warp % W::WM, wn = warp / W::WM;
  const int tiles = n / W::TN, m0 = static_cast<int>(blockIdx.x) / tiles * W::TM,
            n0 = static_cast<int>(blockIdx.x) % tiles * W::TN;
  const i64 begin = blockIdx.y * per_part, end = ::min(rows, begin + per_part);
  const int steps = static_cast<int>((end - begin + KB - 1) / KB);
  const unsigned base = shared_address(ring);

  // A row of 16-byte pieces, of which eight neighbours are dealt anew in each of eight rows.
  const auto fetch = [&](int step, unsigned to) {
    const auto part = [&](const bf16* from, int ld, int c0, auto width, unsigned at) {
      constexpr int pieces = decltype(width)::value / 8;
#pragma unroll
      for (int i = thread; i < KB * pieces; i += W::threads) {
        const int r = i / pieces, p = i % pieces;
        const i64 row = begin + static_cast<i64>(step) * KB + r;
        const bool there = row < end;
        const unsigned address = at + static_cast<unsigned>((r * pieces + (p ^ (r & 7))) * 16);
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address),
                     "l"(from + (there ? row : begin) * ld + c0 + p * 8), "r"(there ? 16 : 0));
      }
    };
    part(dy, m, m0, std::integral_constant<int, W::TM>{}, to);
    part(x, n, n0, std::integral_constant<int, W::TN>{}, to + KB * W::TM * 2);
  };

  float c[MT][NT][4] = {}, ones[MT][4] = {};
  const bool sums = n0 == 0 && wn == 0;
#pragma unroll
  for (int s = 0; s < W::S - 1; ++s) {
    if (s < steps) fetch(s, base + static_cast<unsigned>(s * W::stage));
    copies_issued();
  }
  // Of matrix lane / 8: which eight rows, which eight columns.
  const int row_a = lane % 8 + lane / 16 * 8, col_a = lane / 8 % 2,
            row_b = lane % 8 + lane / 8 % 2 * 8, col_b = lane / 16;
  int slot = 0;
  for (int step = 0; step < steps; ++step) {
    copies_done<W::S - 2>();
    __syncthreads();
    const int ahead = step + W::S - 1;
    if (ahead < steps)
      fetch(ahead, base + static_cast<unsigned>((slot == 0 ? W::S - 1 : slot - 1) * W::stage));
    copies_issued();
    const unsigned at_a = base + static_cast<unsigned>(slot * W::stage),
                   at_b = at_a + KB * W::TM * 2;
#pragma unroll
    for (int k = 0; k < KB / 16; ++k) {
      const int k0 = k * 16;
      unsigned a[MT][4], b[NT / 2][4];
#pragma unroll
      for (int i = 0; i < MT; ++i) {
        const int p = (wm * MT + i) * 2 + col_a, r = k0 + row_a;
        load_turned(a[i], at_a + static_cast<unsigned>((r * (W::TM / 8) + (p ^ (r & 7))) * 16));
      }
#pragma unroll
      for (int j = 0; j < NT / 2; ++j) {
        const int p = (wn * (NT / 2) + j) * 2 + col_b, r = k0 + row_b;
        load_turned(b[j], at_b + static_cast<unsigned>((r * (W::TN / 8) + (p ^ (r & 7))) * 16));
      }
#pragma unroll
      for (int i = 0; i < MT; ++i)
#pragma unroll
        for (int j = 0; j < NT; ++j)
          multiply(c[i][j], a[i], b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]);
      if (sums) {
#pragma unroll
        for (int i = 0; i < MT; ++i) multiply(ones[i], a[i], 0x3f803f80u, 0x3f803f80u);
      }
    }
    slot = slot == W::S - 1 ? 0 : slot + 1;
  }
  copies_done<0>();

  __syncthreads();                                    // nobody reads the ring any more
  float* const own = reinterpret_cast<float*>(ring);  // rows of TN, eight neighbours dealt anew
#pragma unroll
  for (int i = 0; i < MT; ++i)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = (wm * MT + i) * 16 + h * 8 + lane / 4;
#pragma unroll
      for (int j = 0; j < NT; ++j)
        *reinterpret_cast<float2*>(own + r * W::TN + ((wn * NT + j) ^ (r & 7)) * 8 + lane % 4 * 2) =
            make_float2(c[i][j][2 * h], c[i][j][2 * h + 1]);
      if (sums && lane % 4 == 0) own[W::TM * W::TN + r] = ones[i][2 * h];
    }
  float* const to = partial + static_cast<i64>(static_cast<int>(blockIdx.y) / cluster_blocks()) *
                                  (static_cast<i64>(m) * n + m);
  sum_cluster<W::threads>(
      own, W::TM * W::TN + (n0 == 0 ? W::TM : 0), [&](int i, const float4& sum) {
        const int r = i / W::TN, col = (i % W::TN / 8 ^ (r & 7)) * 8 + i % 8;
        *reinterpret_cast<float4*>(r < W::TM ? to + static_cast<i64>(m0 + r) * n + n0 + col
                                             : to + static_cast<i64>(m) * n + m0 + i -
                                                   W::TM * W::TN) = sum;
      });
}

template <class W>
void run_weight_gradient(i64 rows, i64 m, i64 n, const bf16* dy, const bf16* x,
                         const ColumnPlaces<float>& to) {
  const auto kernel = weight_gradient_pieces<W>;
  allow_shared(kernel, W::shared, "linear");
  const int cluster = cluster_of(W::cluster);
  static const i64 room = clustered_at_once(kernel, W::threads, W::shared, cluster, W::blocks);
  const i64 tiles = m / W::TM * (n / W::TN),
            at_once = std::max<i64>(1, room / tiles / cluster) * cluster,
            per_part = ((rows + at_once - 1) / at_once + W::KB - 1) / W::KB * W::KB,
            clusters = (rows + per_part * cluster - 1) / (per_part * cluster), sums = m * n + m;
  auto partial = std::make_unique<const Workspace<float>>(clusters * sums, Device::cuda);
  const ClusterLaunch launch(
      dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(clusters * cluster)), W::threads,
      W::shared, cluster);
  cuda::require(cudaLaunchKernelEx(&launch.how, kernel, rows, static_cast<int>(m),
                                   static_cast<int>(n), per_part, dy, x, partial->data()),
                "linear");
  finish_columns_later(std::move(partial), clusters, sums, to, "linear");
}

}  // namespace detail

/// Whether weight_gradient takes dy (rows, M) and x (rows, N), and gains on cuBLASLt's product with
/// the sums after it (the product alone is faster there): layers of 64 channels, and some of 128.
inline bool has_weight_gradient(i64 rows, i64 m, i64 n) {
  return rows >= 32768 && ((n == 64 && (m == 64 || m == 192)) || (n == 192 && m == 64) ||
                           (n == 128 && (m == 128 || m == 384)));
}

/// dw (M,N) = dy^T x and db (M), the sums of dy's columns; they may wait.
inline void weight_gradient(Cuda, i64 rows, i64 m, i64 n, const bf16* dy, const bf16* x, float* dw,
                            float* db) {
  const detail::ColumnPlaces<float> to(dw, m * n, db, m);
  using detail::WeightTile, detail::run_weight_gradient;
  if (m == 64 && n == 64)
    run_weight_gradient<WeightTile<64, 64, 2, 2, 64, 4, 3, 1>>(rows, m, n, dy, x, to);
  else if (n == 64)
    run_weight_gradient<WeightTile<192, 64, 4, 2, 64, 3, 2, 4>>(rows, m, n, dy, x, to);
  else if (m == 64)
    run_weight_gradient<WeightTile<64, 192, 2, 4, 64, 3, 2, 4>>(rows, m, n, dy, x, to);
  else
    run_weight_gradient<WeightTile<128, 128, 4, 2, 64, 3, 2, 4>>(rows, m, n, dy, x, to);
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
