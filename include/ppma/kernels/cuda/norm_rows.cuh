#pragma once
#include "ppma/core/names_begin.hpp"
// A layer norm of bf16 rows of 136 to 512 elements.
//
// A warp has several neighbouring rows, all of which are under way at once. Sums over its lanes are
// shared out: a step leaves a lane half of them, so four rows cost six exchanges instead of twenty,
// and the root is taken once for all rows. Two rows of more than 256 elements, four of fewer: more
// are not faster, and leave few rows to too few warps.
//
// Floor: x read and y written once. 25,088 rows of 256 at 4.3 TB/s: 6 us.

#include "ppma/kernels/cuda/lanes.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

__device__ __forceinline__ float inverse_root(float v) { return ::rsqrtf(v); }
__device__ __forceinline__ double inverse_root(double v) { return 1.0 / ::sqrt(v); }

struct NothingMore {
  struct Pack {};
  template <int>
  struct Sums {};
  __device__ Pack pack_of(int, bool) const { return {}; }
  template <class... A>
  __device__ void of_pack(const A&...) const {}
  template <class... A>
  __device__ void operator()(const A&...) const {}
};

inline constexpr int many_warps = 4;

/// Rows of a warp.
template <int K>
inline constexpr int many_rows = K == 1 ? 4 : 2;

template <class After>
inline constexpr bool many_logs = !std::is_same_v<After, NothingMore>;

// Rows of 256 K elements at most; lane l has the packs l, l + 32, ... of each. Parameters come
// before the rows do, but beside logs, whose weights leave no registers for them.
template <int K, class After>
__global__ void __launch_bounds__(32 * many_warps, many_logs<After> ? 6 : 5)
    layer_norm_many(int rows, int cols, const bf16* x, const float* w, const float* b, float eps,
                    bf16* y, float* mean, float* rstd, After after) {
  constexpr bool logs = many_logs<After>;
  constexpr int R = many_rows<K>, lanes = 32 / R;  // that end with the same row's sum
  const int lane = static_cast<int>(threadIdx.x) % 32,
            warp = static_cast<int>(blockIdx.x) * many_warps + static_cast<int>(threadIdx.x) / 32,
            first = warp * R;
  float wk[K][8], bk[K][8];
  typename After::Pack pack[K];
  const auto parameters = [&](int k) {
    const int c = (k * 32 + lane) * 8, from = c < cols ? c : 0;
    load_pack<8>(w + from, wk[k]);
    load_pack<8>(b + from, bk[k]);
    pack[k] = after.pack_of(from, true);
  };
  if constexpr (!logs) {
#pragma unroll
    for (int k = 0; k < K; ++k) parameters(k);
  }
  cuda::wait();  // what is above are parameters
  RawElements<bf16, 8> raw[R][K];
#pragma unroll
  for (int i = 0; i < R; ++i)
#pragma unroll
    for (int k = 0; k < K; ++k) {
      const int c = (k * 32 + lane) * 8;
      raw[i][k] = first + i < rows && c < cols ? *reinterpret_cast<const RawElements<bf16, 8>*>(
                                                     x + static_cast<i64>(first + i) * cols + c)
                                               : RawElements<bf16, 8>{};
    }
  const auto unpack = [&](int i, int k, float(&v)[8]) {
    load_pack<8>(reinterpret_cast<const bf16*>(&raw[i][k]), v);
  };
  const auto of_row = [&](float x, int i) { return __shfl_sync(all_lanes, x, i * lanes); };
  float sums[R];
#pragma unroll
  for (int i = 0; i < R; ++i) {
    sums[i] = 0;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      float v[8];
      unpack(i, k, v);
#pragma unroll
      for (int e = 0; e < 8; ++e) sums[i] += v[e];
    }
  }
  share_out<16, 1>(sums);
  const float m = sums[0] / static_cast<float>(cols);  // of row lane / lanes
#pragma unroll
  for (int i = 0; i < R; ++i) {
    const float less = of_row(m, i);
    sums[i] = 0;
#pragma unroll
    for (int k = 0; k < K; ++k) {
      float v[8];
      unpack(i, k, v);
      if (K == 1 || (k * 32 + lane) * 8 < cols) {
#pragma unroll
        for (int e = 0; e < 8; ++e) sums[i] += (v[e] - less) * (v[e] - less);
      }
    }
    if (K == 1 && lane * 8 >= cols) sums[i] = 0;
  }
  share_out<16, 1>(sums);
  const float s = inverse_root(sums[0] / static_cast<float>(cols) + eps);
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const int c = (k * 32 + lane) * 8;
    const bool there = c < cols;
    [[maybe_unused]] typename After::template Sums<R> of_logs;
    if constexpr (logs) parameters(k);
#pragma unroll
    for (int i = 0; i < R; ++i) {
      const float less = of_row(m, i), by = of_row(s, i);
      float v[8];
      unpack(i, k, v);
#pragma unroll
      for (int e = 0; e < 8; ++e) v[e] = (v[e] - less) * by * wk[k][e] + bk[k][e];
      const RawElements<bf16, 8> stored = rounded_pack<8>(v);
      if (there && first + i < rows)
        *reinterpret_cast<RawElements<bf16, 8>*>(y + static_cast<i64>(first + i) * cols + c) =
            stored;
      if constexpr (logs) after.add(pack[k], i, v, of_logs);
    }
    if constexpr (logs) after.write(pack[k], there, first, rows, of_logs);
  }
  const int row = first + lane / lanes;
  if (mean && lane % lanes == 0 && row < rows) mean[row] = m, rstd[row] = s;
}

/// Whether run_layer_norm_many takes rows of so many elements. (Their numbers have 32 bits: more of
/// them no GPU holds.)
inline bool suits_layer_norm_many(i64 cols) { return cols % 8 == 0 && cols > 128 && cols <= 512; }

template <class After>
void run_layer_norm_many(i64 rows, i64 cols, const bf16* x, const float* w, const float* b,
                         float eps, bf16* y, float* mean, float* rstd, const After& after) {
  const auto run = [&](auto k) {
    constexpr int K = decltype(k)::value;
    constexpr i64 each = many_rows<K> * many_warps;
    cuda::launch("layer_norm", layer_norm_many<K, After>,
                 static_cast<unsigned>((rows + each - 1) / each), 32 * many_warps, 0, rows, cols, x,
                 w, b, eps, y, mean, rstd, after);
  };
  if (cols <= 256)
    run(std::integral_constant<int, 1>{});
  else
    run(std::integral_constant<int, 2>{});
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
