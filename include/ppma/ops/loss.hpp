#pragma once
#include "ppma/core/names_begin.hpp"
// Cross entropy of logits, fused: no softmax array is made, backward computes it from the logits and one number a row.
//
//   l_k = x_k - m - ln sum_j e^(x_j - m)                  log softmax of a row, m = max x
//   loss of a row = - sum_k t_k l_k                       dx_k = (T softmax(x)_k - t_k) / count,  T = sum_k t_k
//
// A label y means t = one-hot(y). Label smoothing e replaces t by (1 - e) t + e / K.

#include <cmath>

#include "ppma/ops/softmax.hpp"

namespace ppma::inline PPMA_ABI {

struct CrossEntropyOptions {
  double label_smoothing = 0;
  i64 ignore_index = -100;     // rows with this label have no loss
  bool count_ignored = false;  // true: the mean divides by all rows, also the ignored ones
};

namespace kernels {

/// loss[r], log_sum[r] = m + ln sum e^(x - m) of rows x (rows, k) with labels.
template <class T>
void label_loss(Cpu on, i64 rows, i64 k, const T* x, const i64* label, T smoothing, i64 ignore, T* log_sum, T* loss) {
  for_rows(on, rows, k, [=](i64 r) {
    loss[r] = log_sum[r] = 0;
    if (label[r] == ignore) return;
    const T* row = x + r * k;
    const T m = row_max(k, row), s = std::log(row_exp(k, row, m, static_cast<T*>(nullptr)));
    log_sum[r] = m + s;
    loss[r] = s - (1 - smoothing) * (row[label[r]] - m);
    if (smoothing != 0) loss[r] -= smoothing * (sum_contiguous(row, k) / static_cast<T>(k) - m);
  });
}

/// dx = factor * (softmax(x) - t).
template <class T>
void label_loss_backward(Cpu on, i64 rows, i64 k, const T* x, const i64* label, T smoothing, i64 ignore,
                         const T* log_sum, T factor, T* dx) {
  const T even = smoothing / static_cast<T>(k);
  for_rows(on, rows, k, [=](i64 r) {
    T* row = dx + r * k;
    if (label[r] == ignore) {
      std::fill_n(row, k, T(0));
      return;
    }
    const T shift = log_sum[r];
    row_map(k, x + r * k, row, [=](Vec<T> v) { return factor * (exp_of<Vec<T>>(v - shift) - even); });
    row[label[r]] -= factor * (1 - smoothing);
  });
}

/// The same with targets t (rows, k).
template <class T>
void target_loss(Cpu on, i64 rows, i64 k, const T* x, const T* t, T smoothing, T* log_sum, T* loss) {
  for_rows(on, rows, k, [=](i64 r) {
    const T *row = x + r * k, *target = t + r * k;
    const T m = row_max(k, row), s = std::log(row_exp(k, row, m, static_cast<T*>(nullptr)));
    log_sum[r] = m + s;
    // sum t (s - (x - m)), and the same with t = 1 / k.
    const T total = sum_contiguous(target, k);
    loss[r] = (1 - smoothing) * (total * log_sum[r] - row_dot(k, target, row));
    if (smoothing != 0) loss[r] += smoothing * (log_sum[r] - sum_contiguous(row, k) / static_cast<T>(k));
  });
}

template <class T>
void target_loss_backward(Cpu on, i64 rows, i64 k, const T* x, const T* t, T smoothing, const T* log_sum, T factor,
                          T* dx, T* dt) {
  const T even = smoothing / static_cast<T>(k);
  for_rows(on, rows, k, [=](i64 r) {
    const T shift = log_sum[r], total = (1 - smoothing) * sum_contiguous(t + r * k, k) + smoothing;
    if (dx != nullptr)
      row_map(k, x + r * k, t + r * k, dx + r * k, [=](Vec<T> v, Vec<T> p) {
        return factor * (total * exp_of<Vec<T>>(v - shift) - ((1 - smoothing) * p + even));
      });
    if (dt != nullptr)
      row_map(k, x + r * k, dt + r * k, [=](Vec<T> v) { return factor * (1 - smoothing) * (shift - v); });
  });
}

}  // namespace kernels
}  // namespace ppma::inline PPMA_ABI

#if PPMA_CUDA
#include "ppma/ops/loss.cuh"
#endif

namespace ppma::inline PPMA_ABI {

/// Mean cross entropy of logits (..., K), a scalar. target: int64 labels (...), or soft targets (..., K) of the logits'
/// dtype, whose gradient is computed too. Logits of -infinity are classes that cannot be; a row of nothing else has the
/// loss NaN, as softmax. Ignored rows count in the mean only with `count_ignored`; if no row counts
/// the loss is 0. Error: a label outside of [0, K) that is not ignore_index (names where and
/// what); labels on the GPU are not looked at, there such a row counts as ignored.
inline Tensor cross_entropy(const Tensor& logits, const Tensor& target, const CrossEntropyOptions& options = {}) {
  detail::check_defined("cross_entropy", logits);
  detail::check_defined("cross_entropy", target);
  check(logits.rank() >= 1, "cross_entropy: logits must be (..., K), got a scalar");
  check(options.label_smoothing >= 0 && options.label_smoothing <= 1, "cross_entropy: label_smoothing is ",
        options.label_smoothing, ", outside of [0, 1]");
  const i64 k = logits.dim(-1), rows = logits.shape().product(0, logits.rank() - 1);
  check(k > 0 && rows > 0, "cross_entropy: logits of shape ", logits.shape(), " have no elements");
  const bool soft = target.dtype() != DType::int64;
  check(target.device() == logits.device(), "cross_entropy: logits are on the ", logits.device(), ", the target is on the ",
        target.device(), "; move one with .to()");
  i64 counted = rows;
  if (soft) {
    check(target.dtype() == logits.dtype(), "cross_entropy: target is ", target.dtype(),
          "; it must be int64 labels or ", "soft targets of the logits' dtype ", logits.dtype());
    check(target.shape() == logits.shape(), "cross_entropy: soft targets are ", target.shape(), ", logits ",
          logits.shape(), "; the shapes must be equal");
  } else {
    check(target.shape() == detail::without_axis(logits.shape(), logits.rank() - 1), "cross_entropy: labels are ",
          target.shape(), ", logits ", logits.shape(), "; labels must have the logits' shape without the last axis");
    const i64* label = target.data<i64>();
    for (i64 r = 0; r < rows && target.device() == Device::cpu; ++r) {
      if (label[r] == options.ignore_index) {
        if (!options.count_ignored) --counted;
        continue;
      }
      check(label[r] >= 0 && label[r] < k, "cross_entropy: the label at index ", r, " is ", label[r], "; with ", k,
            " classes it must be 0 to ", k - 1, ", or ignore_index (", options.ignore_index, ")");
    }
  }
#if PPMA_CUDA
  if (logits.device() == Device::cuda)
    return detail::cross_entropy_on_gpu(logits, target, options.label_smoothing, options.ignore_index, options.count_ignored);
#endif
  const double mean = counted > 0 ? 1.0 / static_cast<double>(counted) : 0.0;
  Tensor loss = Tensor::empty({}, logits.dtype(), logits.device());
  Tensor log_sum = Tensor::empty({rows}, logits.dtype(), logits.device());
  visit_cpu(logits.device(), logits.dtype(), "cross_entropy", [&](auto on, auto zero) {
    using T = decltype(zero);
    const T smoothing = static_cast<T>(options.label_smoothing);
    const Workspace<T> each(rows);
    if (soft)
      kernels::target_loss(on, rows, k, logits.data<T>(), target.data<T>(), smoothing, log_sum.data<T>(), each.data());
    else
      kernels::label_loss(on, rows, k, logits.data<T>(), target.data<i64>(), smoothing, options.ignore_index,
                          log_sum.data<T>(), each.data());
    *loss.data<T>() = kernels::sum_contiguous(each.data(), rows) * static_cast<T>(mean);
  });
  const bool needs_logits = logits.requires_grad(), needs_target = soft && target.requires_grad();
  return record(loss, "cross_entropy", {logits, target},
                [=, logits = logits.detach(), target = target.detach()](const Tensor& dy) {
                  Tensor dx, dt;
                  if (needs_logits) dx = Tensor::empty(logits.shape(), logits.dtype(), logits.device());
                  if (needs_target) dt = Tensor::empty(logits.shape(), logits.dtype(), logits.device());
                  visit_cpu(dy.device(), dy.dtype(), "cross_entropy", [&](auto on, auto zero) {
                    using T = decltype(zero);
                    const T factor = static_cast<T>(dy.item() * mean),
                            smoothing = static_cast<T>(options.label_smoothing);
                    if (soft)
                      kernels::target_loss_backward(on, rows, k, logits.data<T>(), target.data<T>(), smoothing,
                                                    log_sum.data<T>(), factor, needs_logits ? dx.data<T>() : nullptr,
                                                    needs_target ? dt.data<T>() : nullptr);
                    else
                      kernels::label_loss_backward(on, rows, k, logits.data<T>(), target.data<i64>(), smoothing,
                                                   options.ignore_index, log_sum.data<T>(), factor, dx.data<T>());
                  });
                  return Grads{dx, dt};
                });
}

}  // namespace ppma::inline PPMA_ABI

#include "ppma/core/names_end.hpp"
