#pragma once
#include "ppma/core/names_begin.hpp"
// RoIAlign on the GPU: a thread a pack of channels of one cell of a box.

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
struct RoiSamples {
  double first, step;
  int per_cell, samples, size;

  template <class A>
  __device__ __forceinline__ RoiSamples(A low, A high, double scale, i64 cells, i64 sampling_ratio,
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
  const RoiSamples rows(box[1], box[3], o.scale, o.height, o.sampling_ratio, height),
      cols(box[0], box[2], o.scale, o.width, o.sampling_ratio, width);
  if (rows.samples <= 0 || cols.samples <= 0) return;
  const double share = 1 / (static_cast<double>(rows.per_cell) * cols.per_cell);
  for (int m = i * rows.per_cell; m < (i + 1) * rows.per_cell; ++m) {
    const RoiSamples::Tap row = rows.tap(m);
    if (!row.inside) continue;
    for (int n = j * cols.per_cell; n < (j + 1) * cols.per_cell; ++n) {
      const RoiSamples::Tap col = cols.tap(n);
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

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
