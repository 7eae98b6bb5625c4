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
//
// Gradients of the taps: the same walk, rows of dy in the registers of the sums. A block adds those
// of its threads, each block writes a part of its own.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/pack.cuh"
#include "ppma/kernels/cuda/reduce.cuh"

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
  int h, w, c, chunks, rows;
  i64 threads;
};

__device__ __forceinline__ int held_in(int v, int n) { return ::min(::max(v, 0), n - 1); }

// y of x, `turned`: with the taps turned by half a turn.
template <class T, int V, Rings rings>
__global__ void __launch_bounds__(128, rings == Rings::folded ? 3 : 4)
    rings_walk(RingsCut s, const T* x, const acc_t<T>* taps, bool turned, T* y) {
  using A = acc_t<T>;
  using Raw = RawElements<T, V>;
  const i64 i = cuda::first();
  if (i >= s.threads) return;
  const int packs = s.c / V, c = static_cast<int>(i % packs) * V;
  i64 rest = i / packs;
  const int column = static_cast<int>(rest % s.w);
  rest /= s.w;
  const int chunk = static_cast<int>(rest % s.chunks);
  const i64 first = rest / s.chunks * s.h * s.w * s.c + c;
  A tap[7][7][V];
#pragma unroll
  for (int j = 0; j < 7; ++j)
#pragma unroll
    for (int k = 0; k < 7; ++k) {
      const int t = ring_tap(j, k);
      if (t < 0) continue;
      const int at = turned ? t / 9 * 9 + 8 - t % 9 : t;
      load_pack<V>(taps + at * s.c + c, tap[j][k]);
      if (j != 3 || k != 3) continue;
      for (int more = 9; more < rings_taps; more += 9) {
        A v[V];
        load_pack<V>(taps + (at + more) * s.c + c, v);
#pragma unroll
        for (int l = 0; l < V; ++l) tap[j][k][l] += v[l];
      }
    }
  // source columns of the seven places: one, none, or at the edge of a folded gradient several
  int from[7], to[7];
#pragma unroll
  for (int k = 0; k < 7; ++k) {
    const int at = column + ring_offset(k);
    from[k] = to[k] = rings == Rings::edges ? held_in(at, s.w) : at;
    if (rings == Rings::folded && column == 0) from[k] -= rings_reach;
    if (rings == Rings::folded && column == s.w - 1) to[k] += rings_reach;
    from[k] = ::max(from[k], 0), to[k] = ::min(to[k], s.w - 1);
  }
  const int begin = chunk * s.rows, end = ::min(begin + s.rows, s.h),
            top = rings == Rings::folded && begin == 0 ? -rings_reach : begin,
            bottom = rings == Rings::folded && end == s.h ? end + rings_reach : end;
  const auto row_of = [&](int q) { return rings == Rings::edges ? held_in(q, s.h) : q; };
  const auto there = [&](int q) {
    return q < bottom + rings_reach && (rings == Rings::edges || (q >= 0 && q < s.h));
  };
  Raw next[7];
  const auto fetch = [&](int q) {
    const T* const row = x + first + static_cast<i64>(row_of(q)) * s.w * s.c;
#pragma unroll
    for (int k = 0; k < 7; ++k)
      next[k] = there(q) && from[k] <= to[k]
                    ? *reinterpret_cast<const Raw*>(row + static_cast<i64>(from[k]) * s.c)
                    : Raw{};
  };
  A sum[ring_slots][V] = {}, hold[V] = {};
  fetch(top - rings_reach);
  for (int base = top - rings_reach; base < bottom + rings_reach; base += ring_slots) {
#pragma unroll
    for (int u = 0; u < ring_slots; ++u) {
      const int q = base + u;
      A v[7][V];
#pragma unroll
      for (int k = 0; k < 7; ++k) load_pack<V>(reinterpret_cast<const T*>(&next[k]), v[k]);
      if (rings == Rings::folded && there(q)) {
#pragma unroll
        for (int k = 0; k < 7; ++k)
          for (int at = from[k] + 1; at <= to[k]; ++at) {
            A more[V];
            load_pack<V>(x + first + (static_cast<i64>(q) * s.w + at) * s.c, more);
#pragma unroll
            for (int l = 0; l < V; ++l) v[k][l] += more[l];
          }
      }
      fetch(q + 1);
      // the source's row at offset o above a result's is its tap o: rows q - o
#pragma unroll
      for (int j = 0; j < 7; ++j)
#pragma unroll
        for (int k = 0; k < 7; ++k)
          if (ring_tap(j, k) >= 0) {
#pragma unroll
            for (int l = 0; l < V; ++l)
              sum[(u - ring_offset(j) + 2 * ring_slots) % ring_slots][l] += tap[j][k][l] * v[k][l];
          }
      const int done = q - rings_reach, slot = (u + ring_slots - rings_reach) % ring_slots;
      const bool within = done >= top && done < bottom;
      if constexpr (rings == Rings::folded) {
        if (within) {
#pragma unroll
          for (int l = 0; l < V; ++l) hold[l] += sum[slot][l];
          const int row = held_in(done, s.h);
          if (done + 1 == bottom || held_in(done + 1, s.h) != row) {
            store_pack<V>(y + first + (static_cast<i64>(row) * s.w + column) * s.c, hold);
#pragma unroll
            for (int l = 0; l < V; ++l) hold[l] = 0;
          }
        }
      } else if (within) {
        store_pack<V>(y + first + (static_cast<i64>(done) * s.w + column) * s.c, sum[slot]);
      }
#pragma unroll
      for (int l = 0; l < V; ++l) sum[slot][l] = 0;
    }
  }
}

inline constexpr int ring_lines = 4;  // columns that a block has at a time

// parts (gridDim.y,27,C). A block: 32 packs of channels, `ring_lines` columns.
template <class T, int V, bool edges>
__global__ void __launch_bounds__(32 * ring_lines)
    rings_taps_back(RingsCut s, i64 columns, const T* x, const T* dy, acc_t<T>* parts) {
  using A = acc_t<T>;
  const int c = static_cast<int>(blockIdx.x * 32 + threadIdx.x) * V;
  const bool own = c < s.c;
  A tap[7][7][V] = {};
  for (i64 line = static_cast<i64>(blockIdx.y) * ring_lines + threadIdx.y; own && line < columns;
       line += static_cast<i64>(gridDim.y) * ring_lines) {
    const int column = static_cast<int>(line % s.w);
    const i64 first = line / s.w * s.h * s.w * s.c + c;
    int at[7];
#pragma unroll
    for (int k = 0; k < 7; ++k) {
      at[k] = column + ring_offset(k);
      if (edges) at[k] = held_in(at[k], s.w);
      if (at[k] < 0 || at[k] >= s.w) at[k] = -1;
    }
    A up[ring_slots][V] = {};
    for (int base = -rings_reach; base < s.h + (edges ? rings_reach : 0); base += ring_slots) {
#pragma unroll
      for (int u = 0; u < ring_slots; ++u) {
        const int q = base + u, ahead = q + rings_reach, row = edges ? held_in(q, s.h) : q;
        const bool there = edges ? q < s.h + rings_reach : q >= 0 && q < s.h;
        // rows of dy: q + 5 comes, where q - 6 was
        if (ahead < s.h)
          load_pack<V>(dy + first + (static_cast<i64>(ahead) * s.w + column) * s.c, up[u]);
        else
#pragma unroll
          for (int l = 0; l < V; ++l) up[u][l] = 0;
        if (!there) continue;
        A v[7][V];
#pragma unroll
        for (int k = 0; k < 7; ++k) {
#pragma unroll
          for (int l = 0; l < V; ++l) v[k][l] = 0;
          if (at[k] >= 0)
            load_pack<V>(x + first + (static_cast<i64>(row) * s.w + at[k]) * s.c, v[k]);
        }
#pragma unroll
        for (int j = 0; j < 7; ++j)
#pragma unroll
          for (int k = 0; k < 7; ++k)
            if (ring_tap(j, k) >= 0) {
#pragma unroll
              for (int l = 0; l < V; ++l)
                tap[j][k][l] +=
                    up[(u - rings_reach - ring_offset(j) + 2 * ring_slots) % ring_slots][l] *
                    v[k][l];
            }
      }
    }
  }
  __shared__ A room[ring_lines][32 * V];
#pragma unroll
  for (int j = 0; j < 7; ++j)
#pragma unroll
    for (int k = 0; k < 7; ++k) {
      const int t = ring_tap(j, k);
      if (t < 0) continue;
      __syncthreads();
#pragma unroll
      for (int l = 0; l < V; ++l) room[threadIdx.y][threadIdx.x * V + l] = tap[j][k][l];
      __syncthreads();
      if (threadIdx.y != 0 || !own) continue;
#pragma unroll
      for (int l = 0; l < V; ++l) {
        A total = 0;
        for (int r = 0; r < ring_lines; ++r) total += room[r][threadIdx.x * V + l];
        for (int more = t; more < rings_taps; more += j == 3 && k == 3 ? 9 : rings_taps)
          parts[(static_cast<i64>(blockIdx.y) * rings_taps + more) * s.c + c + l] = total;
      }
    }
}

inline RingsCut rings_cut(const RingsShape& s, i64 pack) {
  RingsCut cut{static_cast<int>(s.h), static_cast<int>(s.w), static_cast<int>(s.c), 1, 0, 0};
  const i64 lines = s.batch * s.w * (s.c / pack);
  while (lines * cut.chunks < 132 * 512 && cut.h > cut.chunks * 2 * ring_slots) cut.chunks *= 2;
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
  const detail::RingsCut cut = detail::rings_cut(s, 2);
  const auto run = [&](auto kernel) {
    kernel<<<static_cast<unsigned>((cut.threads + 127) / 128), 128, 0, cuda::stream()>>>(
        cut, x, taps, turned, y);
  };
  if (kind == Rings::zeros)
    run(detail::rings_walk<T, 2, Rings::zeros>);
  else if (kind == Rings::edges)
    run(detail::rings_walk<T, 2, Rings::edges>);
  else
    run(detail::rings_walk<T, 2, Rings::folded>);
  cuda::launched("rings");
}

/// Gradients of the taps, (27,C).
template <class T>
void rings_dtaps(Cuda, const RingsShape& s, const T* x, const T* dy, bool edges, acc_t<T>* dtaps) {
  const detail::RingsCut cut = detail::rings_cut(s, 2);
  const i64 across = (s.c + 63) / 64, columns = s.batch * s.w,
            down = std::clamp<i64>(132 * 8 / across, 1,
                                   (columns + detail::ring_lines - 1) / detail::ring_lines);
  const Workspace<acc_t<T>> parts(down * detail::rings_taps * s.c, Device::cuda);
  const auto kernel =
      edges ? detail::rings_taps_back<T, 2, true> : detail::rings_taps_back<T, 2, false>;
  kernel<<<dim3(static_cast<unsigned>(across), static_cast<unsigned>(down)),
           dim3(32, detail::ring_lines), 0, cuda::stream()>>>(cut, columns, x, dy, parts.data());
  cuda::launched("rings");
  sum_rows(Cuda{}, down, detail::rings_taps * s.c, static_cast<const acc_t<T>*>(parts.data()),
           dtaps);
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
