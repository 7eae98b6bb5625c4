#pragma once
#include "ppma/core/names_begin.hpp"
// Where the walks of depthwise.cuh get their rows: a thread's own loads, one row ahead; or, for
// bf16 with whole blocks of 64 channels, a ring of rows in shared memory that the block's threads
// fill several rows ahead. And how images are cut.

#include <algorithm>

#include "ppma/kernels/cuda/copy_async.cuh"
#include "ppma/kernels/cuda/fast_gelu.cuh"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels::detail {

template <class T, int V>
__device__ __forceinline__ RawElements<T, V> load_raw(const T* p) {
  return *reinterpret_cast<const RawElements<T, V>*>(p);
}
template <class T, int V>
__device__ __forceinline__ void unpack(const RawElements<T, V>& raw, acc_t<T> (&v)[V]) {
  load_pack<V>(reinterpret_cast<const T*>(&raw), v);
}

/// How an image is cut: strips of P columns, chunks of rows.
struct DepthwiseCut {
  int h, w, c, strips, chunks, rows;
  i64 image;  // elements of one
};
inline DepthwiseCut depthwise_cut(const DepthwiseShape& s, int pixels, int pack, i64 threads,
                                  int least_rows) {
  DepthwiseCut d{};
  d.h = static_cast<int>(s.h), d.w = static_cast<int>(s.w), d.c = static_cast<int>(s.c);
  d.image = s.h * s.w * s.c;
  d.strips = (d.w + pixels - 1) / pixels;
  d.chunks = 1;
  while (s.batch * d.strips * d.chunks * (s.c / pack) < threads &&
         (d.h + 2 * d.chunks - 1) / (2 * d.chunks) >= least_rows)
    d.chunks *= 2;
  d.rows = (d.h + d.chunks - 1) / d.chunks;
  d.chunks = (d.h + d.rows - 1) / d.rows;
  return d;
}

// A thread's own loads of N pixels a row: pixel columns from `col`, elements of one channel `c`
// apart.
template <class T, int V, int N>
struct OwnRows {
  using Raw = RawElements<T, V>;
  const T* x;
  int col, first, last, h, w, c;  // rows first .. last, of which 0 .. h are in the image
  Raw next[N];

  __device__ __forceinline__ void fetch(int r) {
#pragma unroll
    for (int j = 0; j < N; ++j)
      next[j] = r >= 0 && r < h && r < last && col + j >= 0 && col + j < w
                    ? load_raw<T, V>(x + (r * w + col + j) * c)
                    : Raw{};
  }
  // Row first + n; called for n = 0, 1, ...
  __device__ __forceinline__ void take(int n, Raw (&raw)[N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) raw[j] = next[j];
    if (first + n + 1 < last) fetch(first + n + 1);
  }
};

// Rows of 64 channels that a block of 32 x strips threads keeps in shared memory, `ring_rows` - 1
// rows ahead.
inline constexpr int ring_rows = 6;
struct RingRows {
  const bf16* x;  // of the image, at the block's first channel
  bf16* ring;     // (ring_rows, cols, 64)
  int col, cols, first, last, h, w, c;

  __device__ __forceinline__ void fetch(int n) {
    const int r = first + n;
    if (r < last) {
      bf16* const to = ring + n % ring_rows * cols * 64;
      for (int i = static_cast<int>(threadIdx.y * 32 + threadIdx.x); i < cols * 8;
           i += static_cast<int>(blockDim.y) * 32) {
        const int at = col + i / 8;
        const bool there = r >= 0 && r < h && at >= 0 && at < w;
        copy_async(to + i * 8, there ? x + (r * w + at) * c + i % 8 * 8 : x, there);
      }
    }
  }
  // F of what this thread brought of row n, which is there for itself, not yet for others.
  template <class F>
  __device__ __forceinline__ void apply(int n) {
    if constexpr (F::acts) {
      bf16* const at = ring + n % ring_rows * cols * 64;
      if (first + n < 0 || first + n >= h) return;
      for (int i = static_cast<int>(threadIdx.y * 32 + threadIdx.x); i < cols * 8;
           i += static_cast<int>(blockDim.y) * 32) {
        float v[8];
        load_pack<8>(at + i * 8, v);
#pragma unroll
        for (int k = 0; k < 8; ++k) v[k] = F::value(v[k]);
        store_pack<8>(at + i * 8, v);
      }
    }
  }
  __device__ __forceinline__ const bf16* row(int n) const {
    return ring + n % ring_rows * cols * 64 + threadIdx.x * 2;
  }
};

// Pixels from `at` on of a ring's rows.
template <int N, class F>
struct OneRing {
  RingRows rows;
  int at;
  __device__ __forceinline__ void start() {
    for (int n = 0; n < ring_rows - 1; ++n) rows.fetch(n), copies_issued();
  }
  __device__ __forceinline__ void take(int n, RawElements<bf16, 2> (&raw)[N]) {
    copies_done<ring_rows - 2>();
    rows.template apply<F>(n);
    __syncthreads();
    rows.fetch(n + ring_rows - 1);
    copies_issued();
    const bf16* const from = rows.row(n) + at * 64;
#pragma unroll
    for (int j = 0; j < N; ++j) raw[j] = load_raw<bf16, 2>(from + j * 64);
  }
};

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
