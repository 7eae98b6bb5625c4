#pragma once
// Cross entropy on the GPU: a block a row; the mean is taken on the device, so nothing waits. Labels on the GPU are not
// checked (that would wait too): one outside of [0, K) counts as ignored.

#include "ppma/core/buffer.hpp"
#include "ppma/ops/softmax.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// loss and log_sum of each row; counts[r] = 1 where the row has a loss. Label or target is null.
template <class T>
__global__ void __launch_bounds__(128) loss_rows(i64 rows, i64 k, const T* x, const i64* label, const T* target, acc_t<T> smoothing, i64 ignore,
                                                 acc_t<T>* log_sum, acc_t<T>* loss, acc_t<T>* counts) {
  using A = acc_t<T>;
  __shared__ A shared[128];
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    const T* const row = x + r * k;
    A most, sum, all = 0, weighted = 0, total = 0;
    row_statistics(k, row, shared, most, sum);
    const A shift = most + ::log(sum);
    for (i64 i = threadIdx.x; i < k; i += blockDim.x) {
      const A l = A(row[i]) - shift;
      all += l;
      if (target) weighted += A(target[r * k + i]) * l, total += A(target[r * k + i]);
    }
    all = over_block(all, shared, Total{});
    if (target) weighted = over_block(weighted, shared, Total{});
    if (threadIdx.x != 0) continue;
    const bool counted = !label || (label[r] != ignore && label[r] >= 0 && label[r] < k);
    if (label && counted) weighted = A(row[label[r]]) - shift;
    log_sum[r] = shift;
    counts[r] = counted ? A(1) : A(0);
    loss[r] = counted ? -(A(1) - smoothing) * weighted - smoothing * all / static_cast<A>(k) : A(0);
  }
}

// loss = sum / count, and 1 / count for backward. One block.
template <class T>
__global__ void __launch_bounds__(128) loss_mean(i64 rows, bool count_all, const acc_t<T>* each, const acc_t<T>* counts, T* loss, acc_t<T>* inverse) {
  using A = acc_t<T>;
  __shared__ A shared[128];
  A sum = 0, count = 0;
  for (i64 r = threadIdx.x; r < rows; r += blockDim.x) sum += each[r], count += counts[r];
  sum = over_block(sum, shared, Total{});
  count = count_all ? static_cast<A>(rows) : over_block(count, shared, Total{});
  if (threadIdx.x == 0) *inverse = count > 0 ? A(1) / count : A(0), *loss = T(count > 0 ? sum / count : A(0));
}

template <class T>
__global__ void __launch_bounds__(128) loss_rows_backward(i64 rows, i64 k, const T* x, const i64* label, const T* target, acc_t<T> smoothing, i64 ignore,
                                                          const acc_t<T>* log_sum, const acc_t<T>* inverse, const T* dy, T* dx, T* dt) {
  using A = acc_t<T>;
  __shared__ A shared[128];
  const A factor = A(*dy) * *inverse, even = smoothing / static_cast<A>(k);
  for (i64 r = blockIdx.x; r < rows; r += gridDim.x) {
    const bool counted = !label || (label[r] != ignore && label[r] >= 0 && label[r] < k);
    A total = 1;
    if (target) {
      total = 0;
      for (i64 i = threadIdx.x; i < k; i += blockDim.x) total += A(target[r * k + i]);
      total = (A(1) - smoothing) * over_block(total, shared, Total{}) + smoothing;
    }
    for (i64 i = threadIdx.x; i < k; i += blockDim.x) {
      const A l = A(x[r * k + i]) - log_sum[r];
      const A t = target ? A(target[r * k + i]) : label[r] == i ? A(1) : A(0);
      if (dx) dx[r * k + i] = T(counted ? factor * (total * ::exp(l) - ((A(1) - smoothing) * t + even)) : A(0));
      if (dt) dt[r * k + i] = T(-factor * (A(1) - smoothing) * l);
    }
  }
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI::kernels

namespace ppma::inline PPMA_ABI::detail {

/// cross_entropy of tensors on the GPU, whose shapes and dtypes were checked.
inline Tensor cross_entropy_on_gpu(const Tensor& logits, const Tensor& target, double smoothing, i64 ignore, bool count_all) {
  const i64 k = logits.dim(-1), rows = logits.numel() / k;
  const bool soft = target.dtype() != DType::int64;
  const DType wide = accumulator_dtype(logits.dtype());
  Tensor loss = Tensor::empty({}, logits.dtype(), Device::cuda), log_sum = Tensor::empty({rows}, wide, Device::cuda);
  Tensor inverse = Tensor::empty({}, wide, Device::cuda);
  const auto on_gpu = [](const Tensor& x, auto&& f) {
    if (x.dtype() == DType::f32) f(float{});
    else if (x.dtype() == DType::f64) f(double{});
    else f(bf16{});
  };
  on_gpu(logits, [&](auto zero) {
    using T = decltype(zero);
    using A = acc_t<T>;
    const Workspace<A> each(2 * rows, Device::cuda);
    kernels::detail::loss_rows<<<kernels::detail::row_blocks(rows), 128, 0, cuda::stream()>>>(
        rows, k, logits.data<T>(), soft ? nullptr : target.data<i64>(), soft ? target.data<T>() : nullptr, static_cast<A>(smoothing), ignore,
        log_sum.data<A>(), each.data(), each.data() + rows);
    kernels::detail::loss_mean<T><<<1, 128, 0, cuda::stream()>>>(rows, count_all, each.data(), each.data() + rows, loss.data<T>(), inverse.data<A>());
    cuda::launched("cross_entropy");
  });
  const bool needs_logits = logits.requires_grad(), needs_target = soft && target.requires_grad();
  return record(loss, "cross_entropy", {logits, target}, [=, logits = logits.detach(), target = target.detach()](const Tensor& dy) {
    Tensor dx, dt;
    if (needs_logits) dx = Tensor::empty(logits.shape(), logits.dtype(), Device::cuda);
    if (needs_target) dt = Tensor::empty(logits.shape(), logits.dtype(), Device::cuda);
    on_gpu(logits, [&](auto zero) {
      using T = decltype(zero);
      using A = acc_t<T>;
      kernels::detail::loss_rows_backward<<<kernels::detail::row_blocks(rows), 128, 0, cuda::stream()>>>(
          rows, k, logits.data<T>(), soft ? nullptr : target.data<i64>(), soft ? target.data<T>() : nullptr, static_cast<A>(smoothing), ignore,
          log_sum.data<A>(), inverse.data<A>(), dy.data<T>(), needs_logits ? dx.data<T>() : nullptr, needs_target ? dt.data<T>() : nullptr);
      cuda::launched("cross_entropy");
    });
    return Grads{dx, dt};
  });
}

}  // namespace ppma::inline PPMA_ABI::detail
