#pragma once
#include "ppma/core/names_begin.hpp"
// Where the walks over an image get their rows: a thread's own loads, one row ahead (depthwise.cuh,
// depthwise_back.cuh); or, for bf16, a ring of rows in shared memory that the block's threads fill
// several rows ahead (depthwise_stream.cuh). And how images are cut.

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

/// How the streaming kernels cut images: blocks of 64 channels and `strips` strips of 7 columns,
/// `tiles` of them across; chunks of rows. Seven divides 56, 28, 14 and 7.
inline constexpr int strip_width = 7;
struct StreamCut {
  int h, w, c, strips, tiles, chunks, rows;
  i64 image;  // elements of one
};

// A ring of rows in shared memory, for a block of 32 x strips threads: `cols` columns of an image
// from `left` on, 64 channels, 16 bytes a thread and copy. Columns and rows beside the image are
// zeros. Offsets are 32 bits from what all threads share: what a row costs is a few instructions.
inline constexpr int ring_rows = 4;
struct RowRing {
  static constexpr int most = 3;  // copies of a thread in a row
  const unsigned char* image;
  unsigned char* ring;
  int h, row_bytes, pitch, next, last;  // rows next .. last are copied, the others zeros
  unsigned from, step, at, put, own;    // bytes
  int mine;                             // copies of this thread

  __device__ __forceinline__ RowRing(const StreamCut& d, const bf16* x, unsigned char* shared,
                                     int left, int cols, int c0, int first, int end)
      : image(reinterpret_cast<const unsigned char*>(x)),
        ring(shared),
        h(d.h),
        row_bytes(cols * 128),
        pitch(d.w * d.c * 2),
        next(first),
        last(end),
        step(static_cast<unsigned>(d.strips * 4 * d.c * 2)) {
    const int threads = d.strips * 32, tid = static_cast<int>(threadIdx.y * 32 + threadIdx.x);
    for (int i = tid; i < ring_rows * cols * 8; i += threads) {
      const int col = left + i / 8 % cols;
      if (col < 0 || col >= d.w || i % 8 * 8 >= d.c - c0)
        *reinterpret_cast<uint4*>(ring + i * 16) = make_uint4(0, 0, 0, 0);
    }
    const int begin = ::max(left, 0), pieces = (::min(left + cols, d.w) - begin) * 8;
    from = static_cast<unsigned>(((begin + tid / 8) * d.c + c0 + tid % 8 * 8) * 2);
    at = static_cast<unsigned>(((begin - left) * 8 + tid) * 16);
    put = own = 0;
    mine = tid % 8 * 8 < d.c - c0 ? ::max(0, (pieces - tid + threads - 1) / threads) : 0;
  }
  __device__ __forceinline__ void advance(unsigned& slot) const {
    slot += static_cast<unsigned>(row_bytes);
    if (slot == static_cast<unsigned>(ring_rows * row_bytes)) slot = 0;
  }
  /// Begins to copy the next row.
  __device__ __forceinline__ void fetch(int threads) {
    const bool there = next >= 0 && next < h && next < last;
    const unsigned row =
        from + (there ? static_cast<unsigned>(next) * static_cast<unsigned>(pitch) : 0u);
    const unsigned to = shared_address(ring) + put + at;
#pragma unroll
    for (int k = 0; k < most; ++k)
      if (k < mine)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                         to + static_cast<unsigned>(k * threads * 16)),
                     "l"(image + (row + static_cast<unsigned>(k) * step)), "r"(there ? 16 : 0));
    advance(put);
    ++next;
  }
  /// F of what this thread brought of the row that is taken next: there for itself, not yet for
  /// others.
  template <class F>
  __device__ __forceinline__ void apply(int threads) {
    if constexpr (F::acts) {
#pragma unroll
      for (int k = 0; k < most; ++k)
        if (k < mine) {
          bf16* const piece = reinterpret_cast<bf16*>(ring + own + at + k * threads * 16);
          float v[8];
          load_pack<8>(piece, v);
#pragma unroll
          for (int i = 0; i < 8; ++i) v[i] = F::value(v[i]);
          store_pack<8>(piece, v);
        }
      advance(own);
    }
  }
};

__device__ __forceinline__ float low_of(unsigned pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_of(unsigned pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

}  // namespace ppma::inline PPMA_ABI::kernels::detail

#include "ppma/core/names_end.hpp"
