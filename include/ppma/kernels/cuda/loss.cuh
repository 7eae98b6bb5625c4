#pragma once
#include "ppma/core/names_begin.hpp"
// Cross entropy on the GPU: a block or a warp a row; the mean is taken on the device, so nothing
// waits. Labels on the GPU are not checked (that would wait too): one outside of [0, K) counts as
// ignored.

#include "ppma/core/buffer.hpp"
#include "ppma/kernels/cpu/reduce.hpp"
#include "ppma/kernels/cuda/softmax.cuh"

namespace ppma::inline PPMA_ABI::kernels {

namespace detail {

// loss and log_sum of each row; counts[r] = 1 where the row has a loss. Label or target is null.
template <class T, class Who>
__global__ void __launch_bounds__(128)
    loss_rows(i64 rows, i64 k, const T* x, const i64* label, const T* target, acc_t<T> smoothing,
              i64 ignore, acc_t<T>* log_sum, acc_t<T>* loss, acc_t<T>* counts, Who) {
  using A = acc_t<T>;
  for (i64 r = Who::row(); r < rows; r += static_cast<i64>(gridDim.x) * Who::rows_a_block) {
    const T* const row = x + r * k;
    A most, sum, all = 0, weighted = 0;
    row_statistics<Who>(k, row, most, sum);
    const A shift = most + ::log(sum);
    if (target || smoothing > 0) {
      for (i64 i = Who::first(); i < k; i += Who::step()) {
        const A l = A(row[i]) - shift;
        all += l;
        if (target) weighted += A(target[r * k + i]) * l;
      }
      all = Who::over(all, Total{});
      if (target) weighted = Who::over(weighted, Total{});
    }
    if (Who::first() != 0) continue;
    const bool counted = !label || (label[r] != ignore && label[r] >= 0 && label[r] < k);
    if (label && counted) weighted = A(row[label[r]]) - shift;
    log_sum[r] = shift;
    counts[r] = counted ? A(1) : A(0);
    loss[r] = counted ? -(A(1) - smoothing) * weighted - smoothing * all / static_cast<A>(k) : A(0);
  }
}

// loss = sum / count, and 1 / count for backward.
template <class T>
__global__ void loss_mean(const acc_t<T>* sums, acc_t<T> all, T* loss, acc_t<T>* inverse) {
  using A = acc_t<T>;
  const A count = all > 0 ? all : sums[1];
  *inverse = count > 0 ? A(1) / count : A(0), *loss = T(count > 0 ? sums[0] / count : A(0));
}

template <class T, class Who>
__global__ void __launch_bounds__(128)
    loss_rows_backward(i64 rows, i64 k, const T* x, const i64* label, const T* target,
                       acc_t<T> smoothing, i64 ignore, const acc_t<T>* log_sum,
                       const acc_t<T>* inverse, const T* dy, T* dx, T* dt, Who) {
  using A = acc_t<T>;
  const A factor = A(*dy) * *inverse, even = smoothing / static_cast<A>(k);
  for (i64 r = Who::row(); r < rows; r += static_cast<i64>(gridDim.x) * Who::rows_a_block) {
    const i64 right = label ? label[r] : -1;
    const bool counted = !label || (right != ignore && right >= 0 && right < k);
    const A shift = log_sum[r];
    A total = 1;
    if (target) {
      total = 0;
      for (i64 i = Who::first(); i < k; i += Who::step()) total += A(target[r * k + i]);
      total = (A(1) - smoothing) * Who::over(total, Total{}) + smoothing;
    }
    for (i64 i = Who::first(); i < k; i += Who::step()) {
      const A l = A(x[r * k + i]) - shift;
      const A t = target ? A(target[r * k + i]) : right == i ? A(1) : A(0);
      if (dx)
        dx[r * k + i] =
            T(counted ? factor * (total * ::exp(l) - ((A(1) - smoothing) * t + even)) : A(0));
      if (dt) dt[r * k + i] = T(-factor * (A(1) - smoothing) * l);
    }
  }
}

}  // namespace detail

}  // namespace ppma::inline PPMA_ABI::kernels

namespace ppma::inline PPMA_ABI::detail {

/// cross_entropy of tensors on the GPU, whose shapes and dtypes were checked.
inline Tensor cross_entropy_on_gpu(const Tensor& logits, const Tensor& target, double smoothing,
                                   i64 ignore, bool count_all) {
  const i64 k = logits.dim(-1), rows = logits.numel() / k;
  const bool soft = target.dtype() != DType::int64;
  const DType wide = accumulator_dtype(logits.dtype());
  Tensor loss = Tensor::empty({}, logits.dtype(), Device::cuda),
         log_sum = Tensor::empty({rows}, wide, Device::cuda);
  Tensor inverse = Tensor::empty({}, wide, Device::cuda);
  const auto on_gpu = [](const Tensor& x, auto&& f) {
    if (x.dtype() == DType::f32)
      f(float{});
    else if (x.dtype() == DType::f64)
      f(double{});
    else
      f(bf16{});
  };
  on_gpu(logits, [&](auto zero) {
    using T = decltype(zero);
    using A = acc_t<T>;
    const Workspace<A> each(2 * rows, Device::cuda), sums(2, Device::cuda);  // losses, counts
    kernels::detail::by_rows(rows, k, [&](auto who, unsigned blocks) {
      kernels::detail::loss_rows<<<blocks, 128, 0, cuda::stream()>>>(
          rows, k, logits.data<T>(), soft ? nullptr : target.data<i64>(),
          soft ? target.data<T>() : nullptr, static_cast<A>(smoothing), ignore, log_sum.data<A>(),
          each.data(), each.data() + rows, who);
    });
    kernels::detail::sum_middle(i64{2}, rows, i64{1}, static_cast<const A*>(each.data()),
                                sums.data());
    kernels::detail::loss_mean<T><<<1, 1, 0, cuda::stream()>>>(
        sums.data(), count_all ? static_cast<A>(rows) : A(0), loss.data<T>(), inverse.data<A>());
    cuda::launched("cross_entropy");
  });
  const bool needs_logits = logits.requires_grad(), needs_target = soft && target.requires_grad();
  return record(loss, "cross_entropy", {logits, target},
                [=, logits = logits.detach(), target = target.detach()](const Tensor& dy) {
                  Tensor dx, dt;
                  if (needs_logits)
                    dx = Tensor::empty(logits.shape(), logits.dtype(), Device::cuda);
                  if (needs_target)
                    dt = Tensor::empty(logits.shape(), logits.dtype(), Device::cuda);
                  on_gpu(logits, [&](auto zero) {
                    using T = decltype(zero);
                    using A = acc_t<T>;
                    kernels::detail::by_rows(rows, k, [&](auto who, unsigned blocks) {
                      kernels::detail::loss_rows_backward<<<blocks, 128, 0, cuda::stream()>>>(
                          rows, k, logits.data<T>(), soft ? nullptr : target.data<i64>(),
                          soft ? target.data<T>() : nullptr, static_cast<A>(smoothing), ignore,
                          log_sum.data<A>(), inverse.data<A>(), dy.data<T>(),
                          needs_logits ? dx.data<T>() : nullptr,
                          needs_target ? dt.data<T>() : nullptr, who);
                    });
                    cuda::launched("cross_entropy");
                  });
                  return Grads{dx, dt};
                });
}

}  // namespace ppma::inline PPMA_ABI::detail

#include "ppma/core/names_end.hpp"
