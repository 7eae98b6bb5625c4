#pragma once
#include "ppma/core/names_begin.hpp"
// Cross entropy of logits on a small grid, resized to the labels' grid, on the GPU: the resized
// logits exist in registers alone.
//
// Forward a warp walks along a row of pixels, a lane to every 32nd class; the two cells it is
// between are held, resized down the column. Backward a thread has one class of a column of cells
// and walks down the pixels that read them, so that each is met by two columns of cells.
// Floor: instructions, not bytes (about 50 a pixel and warp forward: 16 x 512 x 512 pixels of 150
// classes in 0.25 ms; in memory, three times 1.3 GB would be written and read).

#include "ppma/kernels/cuda/resize.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int loss_segment = 64;  // pixels a warp, forward
inline constexpr int loss_strip = 8;     // cells a thread, backward
inline constexpr i64 most_loss_classes = 256;

/// Logits (batch, height, width, k), labels (batch, h, w).
struct LossShape {
  i64 lines;  // of the labels, of all images
  int height, width, h, w, k;
  i64 ignore;
};

template <class T>
__device__ __forceinline__ acc_t<T> loss_exp(acc_t<T> x) {
  if constexpr (std::is_same_v<T, bf16>)
    return __expf(x);
  else
    return ::exp(x);
}

// log_sum of each pixel; partial (3, warps): losses, pixels that are right, pixels that count.
template <class T, int M>
__global__ void __launch_bounds__(256)
    resized_loss(LossShape s, int segments, const ResizeTap<acc_t<T>>* taps, const T* x,
                 const i64* labels, acc_t<T>* log_sum, double* partial) {
  using A = acc_t<T>;
  const i64 piece = cuda::first() / 32, pieces = s.lines * segments, line = piece / segments;
  const int lane = static_cast<int>(threadIdx.x % 32),
            begin = static_cast<int>(piece - line * segments) * loss_segment,
            end = ::min(s.w, begin + loss_segment);
  if (piece >= pieces) return;
  const i64 image = line / s.h;
  const ResizeTap<A> row = taps[line - image * s.h];
  const T *const top = x + (image * s.height + row.low) * s.width * s.k, *const bottom =
                                                                             x + (image * s.height +
                                                                                  row.high) *
                                                                                     s.width * s.k;
  const auto load = [&](int cell, A(&v)[M]) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
      const i64 at = static_cast<i64>(cell) * s.k + lane + 32 * m;
      v[m] = lane + 32 * m < s.k ? (1 - row.f) * A(top[at]) + row.f * A(bottom[at]) : A(0);
    }
  };
  A left[M], right[M];
  int low = -2;
  double loss = 0;
  int hits = 0, counted = 0;
  for (int at = begin; at < end; ++at) {
    const ResizeTap<A> col = taps[s.h + at];
    if (col.low != low) {
      if (col.low == low + 1) {
#pragma unroll
        for (int m = 0; m < M; ++m) left[m] = right[m];
      } else {
        load(col.low, left);
      }
      load(col.high, right);
      low = col.low;
    }
    const i64 label = labels[line * s.w + at];
    A v[M], most = negative_infinity<A>(), sum = 0, own = 0;
#pragma unroll
    for (int m = 0; m < M; ++m) {
      v[m] =
          lane + 32 * m < s.k ? (1 - col.f) * left[m] + col.f * right[m] : negative_infinity<A>();
      most = ::max(most, v[m]);
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
      most = ::max(most, __shfl_xor_sync(0xffffffffu, most, step));
    unsigned first = 0xffffffffu;  // of the largest logits
#pragma unroll
    for (int m = M - 1; m >= 0; --m) {
      sum += loss_exp<T>(v[m] - most);
      if (v[m] == most) first = static_cast<unsigned>(lane + 32 * m);
      if (lane + 32 * m == label) own = v[m];
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    first = __reduce_min_sync(0xffffffffu, first);
    own = __shfl_sync(0xffffffffu, own, static_cast<int>(label & 31));
    const A of_pixel = most + ::log(sum);
    if (lane == 0) log_sum[line * s.w + at] = of_pixel;
    if (label == s.ignore) continue;
    ++counted;
    if (label >= 0 && label < s.k)
      loss += static_cast<double>(of_pixel - own), hits += first == label ? 1 : 0;
  }
  if (lane != 0) return;
  partial[piece] = loss, partial[pieces + piece] = hits, partial[2 * pieces + piece] = counted;
}

template <class T>
__global__ void __launch_bounds__(1024)
    resized_loss_finish(i64 pieces, double pixels, const double* partial, T* loss,
                        double* accuracy) {
  __shared__ double shared[3][32];
  double sum[3] = {};
  for (i64 i = threadIdx.x; i < pieces; i += 1024)
#pragma unroll
    for (int k = 0; k < 3; ++k) sum[k] += partial[k * pieces + i];
#pragma unroll
  for (int k = 0; k < 3; ++k) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) sum[k] += __shfl_xor_sync(0xffffffffu, sum[k], step);
    if (threadIdx.x % 32 == 0) shared[k][threadIdx.x / 32] = sum[k];
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  double all[3] = {};
  for (int i = 0; i < 32; ++i)
    for (int k = 0; k < 3; ++k) all[k] += shared[k][i];
  *loss = T(static_cast<acc_t<T>>(all[0] / pixels));
  *accuracy = 100 * ((all[1] + 1e-7) / (all[2] + 1e-7));
}

// Block (image and strip of cells, column of cells, classes).
template <class T>
__global__ void __launch_bounds__(256)
    resized_loss_backward(LossShape s, const ResizeTap<acc_t<T>>* taps, const ResizeRange* ranges,
                          const T* x, const i64* labels, const acc_t<T>* log_sum, const T* dy,
                          acc_t<T> share_of_pixel, T* dx) {
  using A = acc_t<T>;
  const int strips = (s.height + loss_strip - 1) / loss_strip,
            image = static_cast<int>(blockIdx.x) / strips,
            first = static_cast<int>(blockIdx.x) % strips * loss_strip,
            last = ::min(s.height, first + loss_strip), j = static_cast<int>(blockIdx.y),
            k = static_cast<int>(blockIdx.z * blockDim.x + threadIdx.x);
  if (k >= s.k) return;
  const A factor = A(*dy) * share_of_pixel;
  const ResizeRange beside = ranges[s.height + j];
  const i64 cell = static_cast<i64>(image) * s.height * s.width + j;  // of row 0
  // Logits of the three columns around j, of rows `low` and `low` + 1.
  A above[3] = {}, below[3] = {};
  const auto load = [&](int i, A(&v)[3]) {
    const i64 row = cell + static_cast<i64>(::max(0, ::min(i, s.height - 1))) * s.width;
#pragma unroll
    for (int c = 0; c < 3; ++c)
      v[c] = A(x[(row + ::max(-j, ::min(c - 1, s.width - 1 - j))) * s.k + k]);
  };
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
    const i64 line = (static_cast<i64>(image) * s.h + a) * s.w;
    for (int b = beside.begin; b < beside.end; ++b) {
      const ResizeTap<A> col = taps[s.h + b];
      const i64 label = labels[line + b];
      if (label == s.ignore || label < 0 || label >= s.k) continue;
      const A share = col.share(j);
      const A logit =
          col.low == j ? (1 - col.f) * v[1] + col.f * v[2] : (1 - col.f) * v[0] + col.f * v[1];
      const A p = loss_exp<T>(logit - log_sum[line + b]);
      if (share != 0) of_row += share * (label == k ? p - 1 : p);
    }
    sum += (1 - row.f) * of_row, next += row.f * of_row;
  }
  while (low < last) put();
}

}  // namespace detail

/// Whether resized_loss takes so many classes.
inline bool takes_resized_loss(Cuda, i64 k) { return k <= detail::most_loss_classes; }

/// The mean over all pixels of the cross entropy of resized logits x (batch, height, width, k);
/// log_sum (batch, h, w) for backward; accuracy in percent. Ignored pixels have no loss.
template <class T>
void resized_loss(Cuda, i64 batch, i64 k, const Axis& rows, const Axis& cols, const T* x,
                  const i64* labels, i64 ignore, acc_t<T>* log_sum, T* loss, double* accuracy) {
  const detail::LossShape s{batch * rows.n,
                            static_cast<int>(rows.size),
                            static_cast<int>(cols.size),
                            static_cast<int>(rows.n),
                            static_cast<int>(cols.n),
                            static_cast<int>(k),
                            ignore};
  const int segments = (s.w + detail::loss_segment - 1) / detail::loss_segment;
  const i64 pieces = s.lines * segments;
  const Workspace<double> partial(3 * pieces, Device::cuda);
  detail::with_axes<T>(k, rows, cols, false, [&](auto, unsigned, auto* taps, auto*) {
    const auto run = [&](auto m) {
      detail::resized_loss<T, decltype(m)::value>
          <<<static_cast<unsigned>((pieces + 7) / 8), 256, 0, cuda::stream()>>>(
              s, segments, taps, x, labels, log_sum, partial.data());
    };
    if (k <= 32)
      run(std::integral_constant<int, 1>{});
    else if (k <= 96)
      run(std::integral_constant<int, 3>{});
    else if (k <= 160)
      run(std::integral_constant<int, 5>{});
    else
      run(std::integral_constant<int, 8>{});
  });
  detail::resized_loss_finish<<<1, 1024, 0, cuda::stream()>>>(
      pieces, static_cast<double>(s.lines) * s.w, partial.data(), loss, accuracy);
  cuda::launched("resized_cross_entropy");
}

template <class T>
void resized_loss_backward(Cuda, i64 batch, i64 k, const Axis& rows, const Axis& cols, const T* x,
                           const i64* labels, i64 ignore, const acc_t<T>* log_sum, const T* dy,
                           T* dx) {
  const detail::LossShape s{batch * rows.n,
                            static_cast<int>(rows.size),
                            static_cast<int>(cols.size),
                            static_cast<int>(rows.n),
                            static_cast<int>(cols.n),
                            static_cast<int>(k),
                            ignore};
  const i64 strips = (rows.size + detail::loss_strip - 1) / detail::loss_strip;
  const int threads = std::min(256, (s.k + 31) / 32 * 32);
  check(cols.size < 65536, "resized_cross_entropy: a map of ", cols.size,
        " columns is too wide for the GPU");
  const dim3 grid(static_cast<unsigned>(batch * strips), static_cast<unsigned>(cols.size),
                  static_cast<unsigned>((s.k + threads - 1) / threads));
  detail::with_axes<T>(k, rows, cols, true, [&](auto, unsigned, auto* taps, auto* ranges) {
    detail::resized_loss_backward<T><<<grid, static_cast<unsigned>(threads), 0, cuda::stream()>>>(
        s, taps, ranges, x, labels, log_sum, dy,
        static_cast<acc_t<T>>(1 / (static_cast<double>(s.lines) * s.w)), dx);
  });
}

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
