#pragma once
#include "ppma/core/names_begin.hpp"
// Gradients of RoIAlign on the GPU: a thread a pack of channels of two cells of the map, which
// gathers from all boxes near them, in their order. A block has a tile of the map and lists the
// boxes near it once: a detector has thousands, of which few are. What a box's cells weigh is a
// product of its two axes: a thread works out an axis of a box for a row or column of the tile, and
// all channels take it from shared memory. Samples of a box lie on a grid with equal steps, so
// those near a cell are found without looking at the others.

#include <algorithm>

#include "ppma/core/error.hpp"
#include "ppma/kernels/cuda/roi_align.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int roi_tile = 4;     // rows and columns of a block's cells
inline constexpr int roi_list = 4096;  // boxes that are looked through together

// list: those of n boxes that may reach into the tile at (i, j) of an image, ascending. Returns how
// many. All 256 threads call it; `counts` has a place for each warp.
template <class A>
__device__ __forceinline__ int list_near(const A* boxes, int n, double scale, i64 image, int i,
                                         int j, unsigned short* list, int* counts) {
  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const auto reaches = [scale](A low, A high, int begin) {
    const double a = static_cast<double>(low) * scale - 0.5,
                 b = static_cast<double>(high) * scale - 0.5;
    return ::fmax(a, b) >= begin - 1 && ::fmin(a, b) <= begin + roi_tile;
  };
  int found = 0;
  for (int from = 0; from < n; from += 256) {
    const int k = from + thread;
    const A* const box = boxes + static_cast<i64>(k) * 5;
    const bool near = k < n && static_cast<i64>(box[0]) == image && reaches(box[2], box[4], i) &&
                      reaches(box[1], box[3], j);
    const unsigned votes = __ballot_sync(0xffffffffu, near);
    __syncthreads();  // what was here before has been read
    if (lane == 0) counts[warp] = __popc(votes);
    __syncthreads();
    int at = found;
#pragma unroll
    for (int w = 0; w < 8; ++w) {
      if (w < warp) at += counts[w];
      found += counts[w];
    }
    if (near) list[at + __popc(votes & ((1u << lane) - 1))] = static_cast<unsigned short>(k);
  }
  __syncthreads();
  return found;
}

// Cells of a box from begin to end touch a row or column of the tile.
struct RoiTouched {
  int begin, end;
};

// weights (cells): of each cell of the box along an axis in the map's cell `at`; 0: none.
template <class A>
__device__ __forceinline__ RoiTouched weigh_cells(const RoiSamples& axis, int at, int cells,
                                                  A* weights) {
  for (int c = 0; c < cells; ++c) weights[c] = 0;
  int begin, end;
  axis.near(at, begin, end);
  RoiTouched touched{cells, 0};
  for (int m = begin; m < end; ++m) {
    const double share = axis.tap(m).share(at);
    if (share == 0) continue;
    const int c = m / axis.per_cell;
    weights[c] += static_cast<A>(share / axis.per_cell);
    touched = {::min(touched.begin, c), c + 1};
  }
  return touched;
}

inline constexpr int roi_chunk = 32;  // boxes whose weights are in shared memory together, at most
inline constexpr int roi_packs = 32;  // of a block: a warp's

// Of a warp: two cells of the tile, one above the other.
template <class T, int V>
__global__ void __launch_bounds__(256)
    roi_inputs(i64 packs, int height, int width, i64 count, RoiAlign o, int chunk,
               const acc_t<T>* boxes, const T* dy, T* dx) {
  using A = acc_t<T>;
  extern __shared__ __align__(16) unsigned char roi_memory[];
  __shared__ unsigned short list[roi_list];
  __shared__ RoiTouched touched[roi_chunk][2 * roi_tile];  // rows, then columns
  __shared__ int counts[8];
  A* const weights = reinterpret_cast<A*>(roi_memory);  // (chunk, 2 roi_tile, most)
  const int rows = static_cast<int>(o.height), columns = static_cast<int>(o.width),
            most = ::max(rows, columns), down = (height + roi_tile - 1) / roi_tile,
            across = (width + roi_tile - 1) / roi_tile, tile = static_cast<int>(blockIdx.x),
            i0 = tile / across % down * roi_tile, j0 = tile % across * roi_tile;
  const i64 image = tile / (down * across), channels = packs * V;
  const int warp = static_cast<int>(threadIdx.x) / 32, i = warp / roi_tile * 2, j = warp % roi_tile;
  const i64 pack = blockIdx.y * i64{roi_packs} + threadIdx.x % 32;
  const bool mine = pack < packs;
  A above[V] = {}, below[V] = {};
  for (i64 begin = 0; begin < count; begin += roi_list) {
    const int found =
        list_near(boxes + begin * 5, static_cast<int>(::min(count - begin, i64{roi_list})), o.scale,
                  image, i0, j0, list, counts);
    for (int first = 0; first < found; first += chunk) {
      const int n = ::min(chunk, found - first);
      __syncthreads();  // the weights before these have been read
      for (int task = static_cast<int>(threadIdx.x); task < n * 2 * roi_tile; task += 256) {
        const int b = task / (2 * roi_tile), line = task % (2 * roi_tile);
        const A* const box = boxes + (begin + list[first + b]) * 5;
        const bool is_row = line < roi_tile;
        const RoiSamples axis(is_row ? box[2] : box[1], is_row ? box[4] : box[3], o.scale,
                              is_row ? rows : columns, o.sampling_ratio, is_row ? height : width);
        touched[b][line] = weigh_cells(axis, is_row ? i0 + line : j0 + line - roi_tile,
                                       is_row ? rows : columns, weights + task * most);
      }
      __syncthreads();
      for (int b = 0; mine && b < n; ++b) {
        const RoiTouched one = touched[b][i], other = touched[b][i + 1],
                         across_it = touched[b][roi_tile + j];
        const A *const up = weights + (b * 2 * roi_tile + i) * most, *const low = up + most,
                       *const side = weights + (b * 2 * roi_tile + roi_tile + j) * most;
        const T* const from = dy + (begin + list[first + b]) * rows * columns * channels + pack * V;
        const int end = ::max(one.end, other.end);
        for (int y = ::min(one.begin, other.begin); y < end; ++y)
          for (int x = across_it.begin; x < across_it.end; ++x) {
            const A of_above = up[y] * side[x], of_below = low[y] * side[x];
            A v[V];
            load_pack<V>(from + (y * columns + x) * channels, v);
#pragma unroll
            for (int k = 0; k < V; ++k) above[k] += of_above * v[k], below[k] += of_below * v[k];
          }
      }
    }
  }
  if (!mine || j0 + j >= width) return;
  T* const to = dx + ((image * height + i0 + i) * width + j0 + j) * channels + pack * V;
  if (i0 + i < height) store_pack<V>(to, above);
  if (i0 + i + 1 < height) store_pack<V>(to + width * channels, below);
}

}  // namespace detail

/// Writes all of dx. Error: boxes of more cells a side than shared memory has weights for.
template <class T>
void roi_align_backward(Cuda, const Shape& shape, i64 count, const RoiAlign& o,
                        const acc_t<T>* boxes, const T* dy, T* dx) {
  constexpr i64 room = 32 << 10;
  const i64 a_box = 2 * detail::roi_tile * std::max(o.height, o.width) * i64{sizeof(acc_t<T>)};
  check(a_box <= room, "roi_align on a GPU: boxes of ", o.height, " x ", o.width,
        " cells; at most ", room / (2 * detail::roi_tile * i64{sizeof(acc_t<T>)}),
        " a side have gradients");
  const int chunk = static_cast<int>(std::min<i64>(detail::roi_chunk, room / a_box));
  with_pack<T>(shape[3], [&](auto v) {
    constexpr int V = decltype(v)::value;
    const i64 tiles = (shape[1] + detail::roi_tile - 1) / detail::roi_tile *
                      ((shape[2] + detail::roi_tile - 1) / detail::roi_tile),
              packs = shape[3] / V;
    const dim3 grid(static_cast<unsigned>(shape[0] * tiles),
                    static_cast<unsigned>((packs + detail::roi_packs - 1) / detail::roi_packs));
    detail::roi_inputs<T, V>
        <<<grid, 256, static_cast<std::size_t>(chunk * a_box), cuda::stream()>>>(
            packs, static_cast<int>(shape[1]), static_cast<int>(shape[2]), count, o, chunk, boxes,
            dy, dx);
  });
  cuda::launched("roi_align");
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
