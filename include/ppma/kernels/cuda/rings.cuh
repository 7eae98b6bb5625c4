#pragma once
#include "ppma/core/names_begin.hpp"
// Three depthwise 3x3 kernels at once, whose taps lie 1, 3 and 5 apart (ops/rings.hpp), on the GPU.
//
// A thread has V channels of one column and walks down its rows. Row q of the source, at seven
// columns, is a part of the results of rows q - 5 to q + 5, whose sums are in registers; row q - 5
// is then complete. 25 products a number where a kernel of 11 x 11 has 121.
// Floor: the source read and the result written once; 25 fused multiply-adds a number.
//
// What lies beyond the grid is 0, or its edge again. The gradient of the second kind is computed
// on a grid with 5 rows and columns more on each side, and what falls there is added to the edge.

#include <algorithm>

#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

/// Sizes of images (B,H,W,C).
struct RingsShape {
  i64 batch, h, w, c;
};

/// What a walk makes: results where zeros or edges lie beyond the grid, or the gradient of the
/// latter.
enum class Rings { zeros, edges, folded };

namespace detail {

inline constexpr int rings_reach = 5, rings_taps = 27, ring_slots = 2 * rings_reach + 1;

// Of seven places on an axis: -5, -3, -1, 0, 1, 3, 5.
__host__ __device__ constexpr int ring_offset(int k) {
  return k == 3 ? 0 : k < 3 ? 2 * k - 5 : 2 * k - 7;
}
// Which tap lies at row j and column k of these, -1: none; at the centre three of them, this and
// those 9 and 18 behind it.
__host__ __device__ constexpr int ring_tap(int j, int k) {
  const int y = ring_offset(j), x = ring_offset(k), ay = y < 0 ? -y : y, ax = x < 0 ? -x : x;
  if (y != 0 && x != 0 && ay != ax) return -1;
  const int d = ay > ax ? ay : ax, s = d == 0 ? 0 : (d - 1) / 2;
  return s * 9 + ((y > 0) - (y < 0) + 1) * 3 + (x > 0) - (x < 0) + 1;
}

struct RingsCut {
  int h, w, c, columns, chunks, rows;  // columns: those that are walked
  i64 threads;
};

__device__ __forceinline__ int held_in(int v, int n) { return ::min(::max(v, 0), n - 1); }

// y of x, `turned`: with the taps turned by half a turn. `rim`: of a folded gradient the first and
// last column, into which others fall; else those between.
template <class T, int V, Rings rings, bool rim>
__global__ void __launch_bounds__(128, rim ? 2 : 4)
    rings_walk(RingsCut s, const T* x, const acc_t<T>* taps, bool turned, T* y) {
  using A = acc_t<T>;
  using Raw = RawElements<T, V>;
  constexpr bool folded = rings == Rings::folded, edges = rings == Rings::edges;
  const i64 i = cuda::first();
  if (i >= s.threads) return;
  const int packs = s.c / V, c = static_cast<int>(i % packs) * V;
  i64 rest = i / packs;
  int column = static_cast<int>(rest % s.columns);
  if (folded) column = rim ? column * (s.w - 1) : column + 1;
  rest /= s.columns;
  const int chunk = static_cast<int>(rest % s.chunks), line = s.w * s.c;
  const i64 first = rest / s.chunks * s.h * line + c;
  // source columns of the seven places: one, none, or at the rim several
  int from[7], to[7];
#pragma unroll
  for (int k = 0; k < 7; ++k) {
    const int at = column + ring_offset(k);
    from[k] = to[k] = edges ? held_in(at, s.w) : at;
    if (rim && column == 0) from[k] -= rings_reach;
    if (rim && column == s.w - 1) to[k] += rings_reach;
    from[k] = ::max(from[k], 0), to[k] = ::min(to[k], s.w - 1);
  }
  A tap[7][7][V];  // 0 where the column is none
#pragma unroll
  for (int j = 0; j < 7; ++j)
#pragma unroll
    for (int k = 0; k < 7; ++k) {
      const int t = ring_tap(j, k);
      if (t < 0) continue;
      const int at = turned ? t / 9 * 9 + 8 - t % 9 : t;
      load_pack<V>(taps + at * s.c + c, tap[j][k]);
      if (j == 3 && k == 3)
        for (int more = 9; more < rings_taps; more += 9) {
          A v[V];
          load_pack<V>(taps + (at + more) * s.c + c, v);
#pragma unroll
          for (int l = 0; l < V; ++l) tap[j][k][l] += v[l];
        }
      if (from[k] > to[k]) {
#pragma unroll
        for (int l = 0; l < V; ++l) tap[j][k][l] = 0;
      }
    }
#pragma unroll
  for (int k = 0; k < 7; ++k)
    if (from[k] > to[k]) from[k] = to[k] = column;
  const int begin = chunk * s.rows, end = ::min(begin + s.rows, s.h),
            top = folded && begin == 0 ? -rings_reach : begin,
            bottom = folded && end == s.h ? end + rings_reach : end;
  // rows of the source that are a part of these results
  const int first_row = edges ? top - rings_reach : ::max(top - rings_reach, 0),
            last_row = edges ? bottom + rings_reach : ::min(bottom + rings_reach, s.h);
  int at[7];
#pragma unroll
  for (int k = 0; k < 7; ++k) at[k] = from[k] * s.c;
  Raw next[7];
  const auto fetch = [&](int q) {
    const T* const row = x + first + static_cast<i64>(edges ? held_in(q, s.h) : q) * line;
#pragma unroll
    for (int k = 0; k < 7; ++k) next[k] = *reinterpret_cast<const Raw*>(row + at[k]);
  };
  A sum[ring_slots][V] = {}, hold[V] = {};
  fetch(first_row);
  for (int base = top - rings_reach; base < bottom + rings_reach; base += ring_slots) {
#pragma unroll
    for (int u = 0; u < ring_slots; ++u) {
      const int q = base + u;
      if (q >= first_row && q < last_row) {
        A v[7][V];
#pragma unroll
        for (int k = 0; k < 7; ++k) load_pack<V>(reinterpret_cast<const T*>(&next[k]), v[k]);
        if (q + 1 < last_row) fetch(q + 1);
        if (rim) {
#pragma unroll
          for (int k = 0; k < 7; ++k)
            for (int beside = from[k] + 1; beside <= to[k]; ++beside) {
              A more[V];
              load_pack<V>(x + first + static_cast<i64>(q) * line + beside * s.c, more);
#pragma unroll
              for (int l = 0; l < V; ++l) v[k][l] += more[l];
            }
        }
        // a row's part of the result o rows above it is tap o: rows q - o
#pragma unroll
        for (int j = 0; j < 7; ++j)
#pragma unroll
          for (int k = 0; k < 7; ++k)
            if (ring_tap(j, k) >= 0) {
#pragma unroll
              for (int l = 0; l < V; ++l)
                sum[(u - ring_offset(j) + 2 * ring_slots) % ring_slots][l] +=
                    tap[j][k][l] * v[k][l];
            }
      }
      const int done = q - rings_reach;
      A(&ready)[V] = sum[(u + ring_slots - rings_reach) % ring_slots];
      if (done >= bottom) break;
      if (done >= top) {
        if (folded) {
#pragma unroll
          for (int l = 0; l < V; ++l) ready[l] += hold[l];
        }
        const int row = folded ? held_in(done, s.h) : done;
        const bool more = folded && done + 1 < bottom && held_in(done + 1, s.h) == row;
        if (!more) store_pack<V>(y + first + static_cast<i64>(row) * line + column * s.c, ready);
#pragma unroll
        for (int l = 0; l < V; ++l) hold[l] = more ? ready[l] : A(0);
      }
#pragma unroll
      for (int l = 0; l < V; ++l) ready[l] = 0;
    }
  }
}

inline RingsCut rings_cut(const RingsShape& s, i64 columns, i64 pack) {
  RingsCut cut{static_cast<int>(s.h),
               static_cast<int>(s.w),
               static_cast<int>(s.c),
               static_cast<int>(columns),
               1,
               0,
               0};
  const i64 lines = s.batch * columns * (s.c / pack);
  while (lines * cut.chunks < 512 * cuda::device().multiProcessorCount &&
         cut.h > cut.chunks * 2 * ring_slots)
    cut.chunks *= 2;
  cut.rows = (cut.h + cut.chunks - 1) / cut.chunks;
  cut.chunks = (cut.h + cut.rows - 1) / cut.rows;
  cut.threads = lines * cut.chunks;
  return cut;
}

}  // namespace detail

/// Whether there are kernels for a shape: channels in pairs.
inline bool rings_fit(const RingsShape& s) {
  const i64 most = (i64{1} << 31) - 1;
  return s.c % 2 == 0 && s.h * s.w * s.c <= most && s.batch * s.w * s.c <= most;
}

/// y of x and taps (27,C).
template <class T>
void rings(Cuda, const RingsShape& s, const T* x, const acc_t<T>* taps, bool turned, Rings kind,
           T* y) {
  const auto run = [&](i64 columns, auto kernel) {
    if (columns <= 0) return;
    const detail::RingsCut cut = detail::rings_cut(s, columns, 2);
    kernel<<<static_cast<unsigned>((cut.threads + 127) / 128), 128, 0, cuda::stream()>>>(
        cut, x, taps, turned, y);
    cuda::launched("rings");
  };
  if (kind == Rings::zeros) return run(s.w, detail::rings_walk<T, 2, Rings::zeros, false>);
  if (kind == Rings::edges) return run(s.w, detail::rings_walk<T, 2, Rings::edges, false>);
  run(s.w - 2, detail::rings_walk<T, 2, Rings::folded, false>);
  run(std::min<i64>(s.w, 2), detail::rings_walk<T, 2, Rings::folded, true>);
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
