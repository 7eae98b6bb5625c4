#pragma once
#include "ppma/core/names_begin.hpp"
// RoIAlign on the GPU: a thread a pack of channels of one cell of a box. For gradients a thread a
// pack of channels of two cells of the map, which gathers from all boxes near them, in their order.
// A block has a tile of the map and lists the boxes near it once: a detector has thousands, of
// which few are. What a box's cells weigh is a product of its two axes: a thread works out an axis
// of a box for a row or column of the tile, and all channels take it from shared memory. Samples of
// a box lie on a grid with equal steps, so those near a cell are found without looking at the
// others.

#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

/// Four maps (images, height, width, channels), at strides 4 to 32.
template <class T>
struct RoiLevels {
  const T* x[4];
  i64 height[4], width[4];
};

namespace detail {

// The samples of one box along one axis: sample m lies at first + m step; `per_cell` of them share
// a cell.
struct RoiAxis {
  double first, step;
  int per_cell, samples, size;

  template <class A>
  __device__ __forceinline__ RoiAxis(A low, A high, double scale, i64 cells, i64 sampling_ratio,
                                     i64 map)
      : size(static_cast<int>(map)) {
    const double begin = static_cast<double>(low) * scale - 0.5,
                 cell =
                     (static_cast<double>(high) * scale - 0.5 - begin) / static_cast<double>(cells);
    per_cell =
        sampling_ratio > 0 ? static_cast<int>(sampling_ratio) : static_cast<int>(::ceil(cell));
    samples = per_cell > 0 ? per_cell * static_cast<int>(cells) : 0;
    step = cell / per_cell, first = begin + step / 2;
  }
  struct Tap {
    int low, high;
    double f;
    bool inside;
    __device__ __forceinline__ double share(int at) const {
      return inside ? (low == at ? 1 - f : 0) + (high == at ? f : 0) : 0;
    }
  };
  __device__ __forceinline__ Tap tap(int m) const {
    double at = first + m * step;
    if (at < -1 || at > size) return {0, 0, 0, false};
    at = ::fmax(at, 0.0);
    const int low = static_cast<int>(at);
    if (low >= size - 1) return {size - 1, size - 1, 0, true};
    return {low, low + 1, at - low, true};
  }
  // Samples that may touch a cell: begin .. end.
  __device__ __forceinline__ void near(int cell, int& begin, int& end) const {
    begin = 0, end = samples;
    if (step > 0) {
      begin = static_cast<int>(
          ::fmin(::fmax(::floor((cell - 1 - first) / step), 0.0), static_cast<double>(samples)));
      end = static_cast<int>(
          ::fmin(::fmax(::ceil((cell + 1 - first) / step) + 1, 0.0), static_cast<double>(samples)));
    }
  }
};

// sum = cell (i, j) of a box x1 y1 x2 y2 of one map, V channels from `map` on.
template <class T, int V, class A>
__device__ __forceinline__ void sum_roi_cell(const T* map, i64 height, i64 width, i64 channels,
                                             const RoiAlign& o, const A* box, int i, int j,
                                             acc_t<T> (&sum)[V]) {
  const RoiAxis rows(box[1], box[3], o.scale, o.height, o.sampling_ratio, height),
      cols(box[0], box[2], o.scale, o.width, o.sampling_ratio, width);
  if (rows.samples <= 0 || cols.samples <= 0) return;
  const double share = 1 / (static_cast<double>(rows.per_cell) * cols.per_cell);
  for (int m = i * rows.per_cell; m < (i + 1) * rows.per_cell; ++m) {
    const RoiAxis::Tap row = rows.tap(m);
    if (!row.inside) continue;
    for (int n = j * cols.per_cell; n < (j + 1) * cols.per_cell; ++n) {
      const RoiAxis::Tap col = cols.tap(n);
      if (!col.inside) continue;
      const auto add = [&](int a, int b, double weight) {
        acc_t<T> v[V];
        load_pack<V>(map + (a * width + b) * channels, v);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += static_cast<acc_t<T>>(weight) * v[k];
      };
      add(row.low, col.low, share * (1 - row.f) * (1 - col.f)),
          add(row.low, col.high, share * (1 - row.f) * col.f);
      add(row.high, col.low, share * row.f * (1 - col.f)),
          add(row.high, col.high, share * row.f * col.f);
    }
  }
}

template <class T, int V>
__global__ void __launch_bounds__(256)
    roi_cells(i64 total, i64 packs, i64 height, i64 width, RoiAlign o, const T* x,
              const acc_t<T>* boxes, T* y) {
  const i64 channels = packs * V;
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const i64 cell = e / packs, c = (e - cell * packs) * V;
    const acc_t<T>* const box = boxes + cell / (o.height * o.width) * 5;
    acc_t<T> sum[V] = {};
    sum_roi_cell<T, V>(x + static_cast<i64>(box[0]) * height * width * channels + c, height, width,
                       channels, o, box + 1, static_cast<int>(cell / o.width % o.height),
                       static_cast<int>(cell % o.width), sum);
    store_pack<V>(y + e * V, sum);
  }
}

// boxes (images, an_image, 6): the first four numbers of each.
template <class T, int V>
__global__ void __launch_bounds__(256)
    roi_cells_of_levels(i64 total, i64 packs, const __grid_constant__ RoiLevels<T> levels,
                        RoiAlign o, i64 first_image, i64 an_image, double finest,
                        const float* boxes, T* y) {
  const i64 channels = packs * V;
  for (i64 e = cuda::first(); e < total; e += cuda::stride()) {
    const i64 cell = e / packs, c = (e - cell * packs) * V, r = cell / (o.height * o.width);
    const float* const box = boxes + r * 6;
    // roi_level() of heads/regions.hpp
    const double area = static_cast<double>(box[2] - box[0]) * static_cast<double>(box[3] - box[1]),
                 side = ::sqrt(::fmax(0.0, area));
    const int l = static_cast<int>(::fmin(::fmax(::floor(::log2(side / finest + 1e-6)), 0.0), 3.0));
    o.scale = 1 / static_cast<double>(4 << l);
    const i64 height = levels.height[l], width = levels.width[l];
    acc_t<T> sum[V] = {};
    sum_roi_cell<T, V>(levels.x[l] + (first_image + r / an_image) * height * width * channels + c,
                       height, width, channels, o, box, static_cast<int>(cell / o.width % o.height),
                       static_cast<int>(cell % o.width), sum);
    store_pack<V>(y + e * V, sum);
  }
}

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
__device__ __forceinline__ RoiTouched weigh_cells(const RoiAxis& axis, int at, int cells,
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
        const RoiAxis axis(is_row ? box[2] : box[1], is_row ? box[4] : box[3], o.scale,
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

template <class T>
void roi_align(Cuda, const Shape& shape, i64 count, const RoiAlign& o, const T* x,
               const acc_t<T>* boxes, T* y) {
  if (count == 0) return;
  with_pack<T>(shape[3], [&](auto v) {
    constexpr int V = decltype(v)::value;
    const i64 packs = shape[3] / V, total = count * o.height * o.width * packs;
    detail::roi_cells<T, V><<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(
        total, packs, shape[1], shape[2], o, x, boxes, y);
  });
  cuda::launched("roi_align");
}

/// Cells (images, an_image, size, size, channels) of boxes (images, an_image, 6) from the level of
/// their side.
template <class T>
void roi_align_levels(Cuda, const RoiLevels<T>& levels, i64 channels, i64 first_image, i64 images,
                      i64 an_image, i64 size, double finest, const float* boxes, T* y) {
  if (images * an_image == 0) return;
  RoiAlign o;
  o.height = o.width = size;
  with_pack<T>(channels, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const i64 packs = channels / V, total = images * an_image * size * size * packs;
    detail::roi_cells_of_levels<T, V><<<cuda::blocks(total, 256), 256, 0, cuda::stream()>>>(
        total, packs, levels, o, first_image, an_image, finest, boxes, y);
  });
  cuda::launched("roi_align");
}

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
