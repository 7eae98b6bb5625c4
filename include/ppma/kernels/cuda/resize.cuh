#pragma once
#include "ppma/core/names_begin.hpp"
// Resizing on the GPU: a thread a pack of channels of one cell, of the output or, for gradients, of
// the input, which gathers from the outputs that read it. Which cells those are is worked out once
// for each row and column.
// Floor: each map read and written once; overlapping reads come from the cache.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cuda/pack.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

/// What an output reads along an axis: (1 - f) of low, f of high.
template <class A>
struct ResizeTap {
  int low, high;
  A f;
  __device__ __forceinline__ A share(int input) const {
    return (low == input ? 1 - f : A(0)) + (high == input ? f : A(0));
  }
};
struct ResizeRange {
  int begin, end;  // of the outputs that read an input
};

/// taps (rows.n, cols.n); ranges (rows.size, cols.size), or null.
template <class A>
__global__ void __launch_bounds__(128)
    resize_axes(Axis rows, Axis cols, ResizeTap<A>* taps, ResizeRange* ranges) {
  for (i64 e = cuda::first(); e < rows.n + cols.n; e += cuda::stride()) {
    const Axis::Tap t = e < rows.n ? rows.out(e) : cols.out(e - rows.n);
    taps[e] = {static_cast<int>(t.low), static_cast<int>(t.high), static_cast<A>(t.f)};
  }
  if (ranges == nullptr) return;
  for (i64 e = cuda::first(); e < rows.size + cols.size; e += cuda::stride()) {
    const Axis::Range r = e < rows.size ? rows.in(e) : cols.in(e - rows.size);
    ranges[e] = {static_cast<int>(r.begin), static_cast<int>(r.end)};
  }
}

/// x (lines of all images, w, packs V) -> y (..., cols, packs V)
template <class T, int V>
__global__ void __launch_bounds__(256)
    resize_outputs(i64 lines, int height, int h, int width, int w, unsigned packs,
                   const ResizeTap<acc_t<T>>* taps, const T* x, T* y) {
  using A = acc_t<T>;
  const unsigned e = blockIdx.x * 256 + threadIdx.x, at = e / packs, pack = e - at * packs;
  if (at >= static_cast<unsigned>(w)) return;
  const ResizeTap<A> col = taps[h + static_cast<int>(at)];
  const i64 channels = static_cast<i64>(packs) * V;
  for (i64 line = blockIdx.y; line < lines; line += gridDim.y) {
    const i64 image = line / h;
    const ResizeTap<A> row = taps[line - image * h];
    const T* const from = x + image * height * width * channels + pack * V;
    const auto load = [&](int i, int j, A(&v)[V]) {
      load_pack<V>(from + (static_cast<i64>(i) * width + j) * channels, v);
    };
    A v00[V], v01[V], v10[V], v11[V];
    load(row.low, col.low, v00), load(row.low, col.high, v01), load(row.high, col.low, v10),
        load(row.high, col.high, v11);
#pragma unroll
    for (int k = 0; k < V; ++k)
      v00[k] = (1 - row.f) * ((1 - col.f) * v00[k] + col.f * v01[k]) +
               row.f * ((1 - col.f) * v10[k] + col.f * v11[k]);
    store_pack<V>(y + (line * w + at) * channels + pack * V, v00);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(256)
    resize_inputs(i64 lines, int height, int h, int width, int w, unsigned packs,
                  const ResizeTap<acc_t<T>>* taps, const ResizeRange* ranges, const T* dy, T* dx) {
  using A = acc_t<T>;
  const unsigned e = blockIdx.x * 256 + threadIdx.x, at = e / packs, pack = e - at * packs;
  if (at >= static_cast<unsigned>(width)) return;
  const int j = static_cast<int>(at);
  const ResizeRange beside = ranges[height + j];
  const i64 channels = static_cast<i64>(packs) * V;
  for (i64 line = blockIdx.y; line < lines; line += gridDim.y) {
    const i64 image = line / height;
    const int i = static_cast<int>(line - image * height);
    const ResizeRange above = ranges[i];
    A sum[V] = {};
    for (int a = above.begin; a < above.end; ++a) {
      const A of_row = taps[a].share(i);
      if (of_row == 0) continue;
      const T* const from = dy + (image * h + a) * w * channels + pack * V;
#pragma unroll 4
      for (int b = beside.begin; b < beside.end; ++b) {
        const A share = of_row * taps[h + b].share(j);
        A v[V];
        load_pack<V>(from + b * channels, v);
#pragma unroll
        for (int k = 0; k < V; ++k) sum[k] += share * v[k];
      }
    }
    store_pack<V>(dx + (line * width + at) * channels + pack * V, sum);
  }
}

/// Calls f(V, packs, taps, ranges) with the axes' tables.
template <class T, class F>
void with_axes(i64 channels, const Axis& rows, const Axis& cols, bool backward, F&& f) {
  check(std::max({rows.n, rows.size, cols.n, cols.size}) < (i64{1} << 30) &&
            std::max(cols.n, cols.size) * channels < (i64{1} << 31),
        "resize: a grid of ", rows.n, " x ", cols.n, " with ", channels,
        " channels is too large for the GPU");
  const Workspace<ResizeTap<acc_t<T>>> taps(rows.n + cols.n, Device::cuda);
  const Workspace<ResizeRange> ranges(backward ? rows.size + cols.size : 0, Device::cuda);
  resize_axes<<<cuda::blocks(std::max(rows.n + cols.n, rows.size + cols.size), 128), 128, 0,
                cuda::stream()>>>(rows, cols, taps.data(), backward ? ranges.data() : nullptr);
  with_widest_pack<T>(channels, [&](auto v) {
    f(v, static_cast<unsigned>(channels / decltype(v)::value), taps.data(), ranges.data());
  });
  cuda::launched("resize");
}
inline dim3 resize_grid(i64 cells, unsigned packs, i64 lines) {
  return dim3(static_cast<unsigned>((cells * packs + 255) / 256),
              static_cast<unsigned>(std::min<i64>(lines, 65535)));
}

}  // namespace detail

template <class T>
void resize(Cuda, i64 batch, i64 channels, const Axis& rows, const Axis& cols, const T* x, T* y) {
  const int height = static_cast<int>(rows.size), h = static_cast<int>(rows.n),
            width = static_cast<int>(cols.size), w = static_cast<int>(cols.n);
  detail::with_axes<T>(channels, rows, cols, false, [&](auto v, unsigned packs, auto* taps, auto*) {
    detail::resize_outputs<T, decltype(v)::value>
        <<<detail::resize_grid(w, packs, batch * h), 256, 0, cuda::stream()>>>(
            batch * h, height, h, width, w, packs, taps, x, y);
  });
}

template <class T>
void resize_backward(Cuda, i64 batch, i64 channels, const Axis& rows, const Axis& cols, const T* dy,
                     T* dx) {
  const int height = static_cast<int>(rows.size), h = static_cast<int>(rows.n),
            width = static_cast<int>(cols.size), w = static_cast<int>(cols.n);
  detail::with_axes<T>(
      channels, rows, cols, true, [&](auto v, unsigned packs, auto* taps, auto* ranges) {
        detail::resize_inputs<T, decltype(v)::value>
            <<<detail::resize_grid(width, packs, batch * height), 256, 0, cuda::stream()>>>(
                batch * height, height, h, width, w, packs, taps, ranges, dy, dx);
      });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
