#pragma once
#include "ppma/core/names_begin.hpp"
// The gradient of the cross entropy of resized logits (resized_loss.cuh): a thread has one class of
// a column of cells and walks down the pixels that read them, so that each is met by two columns of
// cells. What a pixel takes of the three cells around is the same for all classes and rows: a block
// works it out once.

#include "ppma/kernels/cuda/resized_loss.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int loss_strip = 8;  // cells a thread

// Block (image and strip of cells, column of cells, classes).
template <class T>
__global__ void __launch_bounds__(256)
    resized_loss_backward(LossShape s, const ResizeTap<acc_t<T>>* taps, const ResizeRange* ranges,
                          const T* x, const LossPixel<acc_t<T>>* pixels, const T* dy,
                          acc_t<T> share_of_pixel, T* dx) {
  using A = acc_t<T>;
  constexpr A log2_e = A(1.4426950408889634074);
  struct alignas(16) Weights {
    A of[3], share;  // of the three columns of cells around j; of j in what a pixel gives back
  };
  __shared__ Weights weights[2 * most_pixels_a_cell + 8];
  const int strips = (s.height + loss_strip - 1) / loss_strip,
            image = static_cast<int>(blockIdx.x) / strips,
            first = static_cast<int>(blockIdx.x) % strips * loss_strip,
            last = ::min(s.height, first + loss_strip), j = static_cast<int>(blockIdx.y),
            k = static_cast<int>(blockIdx.z * blockDim.x + threadIdx.x);
  const ResizeRange beside = ranges[s.height + j];
  for (int b = beside.begin + static_cast<int>(threadIdx.x); b < beside.end;
       b += static_cast<int>(blockDim.x)) {
    const ResizeTap<A> col = taps[s.h + b];
    const bool from_j = col.low == j;
    weights[b - beside.begin] = {
        {from_j ? A(0) : 1 - col.f, from_j ? 1 - col.f : col.f, from_j ? col.f : A(0)},
        col.share(j)};
  }
  __syncthreads();
  if (k >= s.k) return;
  int begin = 0, end = beside.end - beside.begin;
  while (begin < end && weights[begin].share == 0) ++begin;
  while (begin < end && weights[end - 1].share == 0) --end;
  const i64 cell = static_cast<i64>(image) * s.height * s.width + j;  // of row 0
  // Logits of the three columns around j, of rows `low` and `low` + 1.
  A above[3] = {}, below[3] = {};
  const auto load = [&](int i, A(&v)[3]) {
    const i64 row = cell + static_cast<i64>(::max(0, ::min(i, s.height - 1))) * s.width;
#pragma unroll
    for (int c = 0; c < 3; ++c)
      v[c] = A(x[(row + ::max(-j, ::min(c - 1, s.width - 1 - j))) * s.k + k]) * log2_e;
  };
  const A factor = A(*dy) * share_of_pixel, of_class = static_cast<A>(k);
  int low = first - 1;
  A sum = 0, next = 0;  // of rows low and low + 1
  load(low, above), load(low + 1, below);
  const auto put = [&] {
    if (low >= first && low < last)
      dx[(cell + static_cast<i64>(low) * s.width) * s.k + k] = T(factor * sum);
    sum = next, next = 0, ++low;
  };
  for (int a = ranges[first].begin; a < ranges[last - 1].end; ++a) {
    const ResizeTap<A> row = taps[a];
    if (row.low < first - 1) continue;
    if (row.low >= last) break;
    while (low < row.low) {
      put();
#pragma unroll
      for (int c = 0; c < 3; ++c) above[c] = below[c];
      load(low + 1, below);
    }
    A v[3], of_row = 0;
#pragma unroll
    for (int c = 0; c < 3; ++c) v[c] = (1 - row.f) * above[c] + row.f * below[c];
    const LossPixel<A>* const of_line =
        pixels + (static_cast<i64>(image) * s.h + a) * s.w + beside.begin;
#pragma unroll 4
    for (int b = begin; b < end; ++b) {
      const Weights c = weights[b];
      const LossPixel<A> pixel = of_line[b];
      const A p =
          loss_exp2<T>(c.of[0] * v[0] + (c.of[1] * v[1] + (c.of[2] * v[2] - pixel.log_sum)));
      of_row += c.share * (pixel.label == of_class ? p - 1 : p);
    }
    sum += (1 - row.f) * of_row, next += row.f * of_row;
  }
  while (low < last) put();
}

}  // namespace detail

/// dx of resized_loss() from its pixels.
template <class T>
void resized_loss_backward(Cuda, i64 batch, i64 k, const Axis& rows, const Axis& cols, const T* x,
                           const acc_t<T>* pixels, const T* dy, T* dx) {
  const detail::LossShape s(batch, k, rows, cols);
  const i64 strips = (rows.size + detail::loss_strip - 1) / detail::loss_strip;
  const int threads = std::min(256, (s.k + 31) / 32 * 32);
  check(cols.size < 65536, "resized_cross_entropy: a map of ", cols.size,
        " columns is too wide for the GPU");
  const dim3 grid(static_cast<unsigned>(batch * strips), static_cast<unsigned>(cols.size),
                  static_cast<unsigned>((s.k + threads - 1) / threads));
  detail::with_axes<T>(k, rows, cols, true, [&](auto, unsigned, auto* taps, auto* ranges) {
    detail::resized_loss_backward<T><<<grid, static_cast<unsigned>(threads), 0, cuda::stream()>>>(
        s, taps, ranges, x, reinterpret_cast<const detail::LossPixel<acc_t<T>>*>(pixels), dy,
        static_cast<acc_t<T>>(1 / (static_cast<double>(s.lines) * s.w)), dx);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
