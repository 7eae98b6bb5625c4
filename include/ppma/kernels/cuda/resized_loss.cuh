#pragma once
#include "ppma/core/names_begin.hpp"
// Cross entropy of logits on a small grid, resized to the labels' grid, on the GPU: the resized
// logits exist in registers alone.
//
// A warp walks along a row of pixels, a lane to every 32nd class; the two cells it is between are
// held, resized down the column. Four pixels are reduced over the lanes together. Backward:
// resized_loss_back.cuh.
// Floor: instructions, not bytes (about 85 a pixel and warp forward: 16 x 512 x 512 pixels of 150
// classes in 0.4 ms; in memory, three times 1.3 GB would be written and read).

#include "ppma/kernels/cuda/resize.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

inline constexpr int loss_segment = 64;  // pixels a warp
inline constexpr i64 most_loss_classes = 256, most_pixels_a_cell = 32;

/// Logits (batch, height, width, k), labels (batch, h, w).
struct LossShape {
  i64 lines;  // of the labels, of all images
  int height, width, h, w, k;
  i64 ignore;

  LossShape(i64 batch, i64 classes, const Axis& rows, const Axis& cols, i64 ignored = 0)
      : lines(batch * rows.n),
        height(static_cast<int>(rows.size)),
        width(static_cast<int>(cols.size)),
        h(static_cast<int>(rows.n)),
        w(static_cast<int>(cols.n)),
        k(static_cast<int>(classes)),
        ignore(ignored) {}
};

/// What is kept of a pixel for backward: log2 of its sum of exponentials, and its label, which is
/// -1 (the sum infinite) where it has no loss.
template <class A>
struct alignas(2 * sizeof(A)) LossPixel {
  A log_sum, label;
};

template <class T>
__device__ __forceinline__ acc_t<T> loss_exp2(acc_t<T> x) {
  if constexpr (std::is_same_v<T, bf16>) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  } else {
    return ::exp2(x);
  }
}

// Of four numbers a lane the reduction over the warp: lanes 8 p to 8 p + 7 have that of the p-th.
template <class A, class F>
__device__ __forceinline__ A reduce_four(const A (&v)[4], F f) {
  const unsigned all = 0xffffffffu;
  const bool upper = threadIdx.x & 16, odd = threadIdx.x & 8;
  const A a = f(upper ? v[2] : v[0], __shfl_xor_sync(all, upper ? v[0] : v[2], 16)),
          b = f(upper ? v[3] : v[1], __shfl_xor_sync(all, upper ? v[1] : v[3], 16));
  A r = f(odd ? b : a, __shfl_xor_sync(all, odd ? a : b, 8));
#pragma unroll
  for (int step = 4; step > 0; step /= 2) r = f(r, __shfl_xor_sync(all, r, step));
  return r;
}

// partial (3, warps): losses, pixels that are right, pixels that count. Logits are in units of
// ln 2.
template <class T, int M>
__global__ void __launch_bounds__(256)
    resized_loss(LossShape s, int segments, const ResizeTap<acc_t<T>>* taps, const T* x,
                 const i64* labels, LossPixel<acc_t<T>>* pixels, double* partial) {
  using A = acc_t<T>;
  constexpr A log2_e = A(1.4426950408889634074);
  const i64 piece = cuda::first() / 32, pieces = s.lines * segments, line = piece / segments;
  const int lane = static_cast<int>(threadIdx.x % 32),
            begin = static_cast<int>(piece - line * segments) * loss_segment,
            end = ::min(s.w, begin + loss_segment);
  if (piece >= pieces) return;
  const i64 image = line / s.h;
  const ResizeTap<A> row = taps[line - image * s.h];
  const T* const top = x + (image * s.height + row.low) * s.width * s.k;
  const T* const bottom = x + (image * s.height + row.high) * s.width * s.k;
  const auto logit = [&](int cell, int k) {
    const i64 at = static_cast<i64>(cell) * s.k + k;
    return ((1 - row.f) * A(top[at]) + row.f * A(bottom[at])) * log2_e;
  };
  const auto load = [&](int cell, A(&v)[M]) {
#pragma unroll
    for (int m = 0; m < M; ++m) v[m] = lane + 32 * m < s.k ? logit(cell, lane + 32 * m) : A(0);
  };
  A left[M], right[M], loss = 0;
  int low = -2, hits = 0, counted = 0;
  for (int at = begin; at < end; at += 4) {
    A v[4][M], most[4], sum[4];
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const ResizeTap<A> col = taps[s.h + ::min(at + p, end - 1)];
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
      most[p] = negative_infinity<A>(), sum[p] = 0;
#pragma unroll
      for (int m = 0; m < M; ++m) {
        v[p][m] =
            lane + 32 * m < s.k ? (1 - col.f) * left[m] + col.f * right[m] : negative_infinity<A>();
        most[p] = ::max(most[p], v[p][m]);
      }
    }
    const A largest = reduce_four(most, [](A a, A b) { return ::max(a, b); });
    const int own = lane / 8, pixel = at + own;  // this lane's from here on
    unsigned found = 0;
#pragma unroll
    for (int p = 0; p < 4; ++p) {
      const A of_pixel = __shfl_sync(0xffffffffu, largest, 8 * p);
      unsigned first = 0xffffffffu;
#pragma unroll
      for (int m = M - 1; m >= 0; --m) {
        sum[p] += loss_exp2<T>(v[p][m] - of_pixel);
        if (v[p][m] == of_pixel) first = static_cast<unsigned>(lane + 32 * m);
      }
      first = __reduce_min_sync(0xffffffffu, first);
      if (p == own) found = first;
    }
    const A log_sum = largest + ::log2(reduce_four(sum, [](A a, A b) { return a + b; }));
    if (pixel >= end || lane % 8 != 0) continue;
    const i64 label = labels[line * s.w + pixel];
    const bool counts = label != s.ignore, learns = counts && label >= 0 && label < s.k;
    pixels[line * s.w + pixel] = {learns ? log_sum : -negative_infinity<A>(),
                                  learns ? static_cast<A>(label) : A(-1)};
    counted += counts ? 1 : 0;
    if (!learns) continue;
    const ResizeTap<A> col = taps[s.h + pixel];
    const int k = static_cast<int>(label);
    loss += log_sum - ((1 - col.f) * logit(col.low, k) + col.f * logit(col.high, k));
    hits += found == static_cast<unsigned>(k) ? 1 : 0;
  }
#pragma unroll
  for (int step = 16; step >= 8; step /= 2) {
    loss += __shfl_xor_sync(0xffffffffu, loss, step);
    hits += __shfl_xor_sync(0xffffffffu, hits, step);
    counted += __shfl_xor_sync(0xffffffffu, counted, step);
  }
  if (lane != 0) return;
  partial[piece] = static_cast<double>(loss) * 0.69314718055994530942;
  partial[pieces + piece] = hits, partial[2 * pieces + piece] = counted;
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

}  // namespace detail

/// Whether resized_loss takes so many classes, and columns resized so.
inline bool takes_resized_loss(Cuda, i64 k, const Axis& cols) {
  return k <= detail::most_loss_classes && cols.n <= detail::most_pixels_a_cell * cols.size;
}

/// The mean over all pixels of the cross entropy of resized logits x (batch, height, width, k);
/// pixels (batch, h, w, 2) for backward; accuracy in percent. Ignored pixels have no loss.
template <class T>
void resized_loss(Cuda, i64 batch, i64 k, const Axis& rows, const Axis& cols, const T* x,
                  const i64* labels, i64 ignore, acc_t<T>* pixels, T* loss, double* accuracy) {
  const detail::LossShape s(batch, k, rows, cols, ignore);
  const int segments = (s.w + detail::loss_segment - 1) / detail::loss_segment;
  const i64 pieces = s.lines * segments;
  const Workspace<double> partial(3 * pieces, Device::cuda);
  detail::with_axes<T>(k, rows, cols, false, [&](auto, unsigned, auto* taps, auto*) {
    const auto run = [&](auto m) {
      detail::resized_loss<T, decltype(m)::value>
          <<<static_cast<unsigned>((pieces + 7) / 8), 256, 0, cuda::stream()>>>(
              s, segments, taps, x, labels, reinterpret_cast<detail::LossPixel<acc_t<T>>*>(pixels),
              partial.data());
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

}  // namespace ppma::inline PPMA_ABI::kernels

#include "ppma/core/names_end.hpp"
