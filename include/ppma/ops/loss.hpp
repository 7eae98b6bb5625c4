#pragma once
#include "ppma/core/names_begin.hpp"
// Cross entropy of logits, fused: no softmax array is made, backward computes it from the logits
// and one number a row.
//
//   l_k = x_k - m - ln sum_j e^(x_j - m)                  log softmax of a row, m = max x
//   loss of a row = - sum_k t_k l_k                       dx_k = (T softmax(x)_k - t_k) / count,
//         T = sum_k t_k
//
// A label y means t = one-hot(y). Label smoothing e replaces t by (1 - e) t + e / K.

#include "ppma/tensor/tensor.hpp"

namespace ppma::inline PPMA_ABI {

struct CrossEntropyOptions {
  double label_smoothing = 0;
  i64 ignore_index = -100;     // rows with this label have no loss
  bool count_ignored = false;  // true: the mean divides by all rows, also the ignored ones
};

/// Mean cross entropy of logits (..., K), a scalar. target: int64 labels (...), or soft targets
/// (..., K) of the logits' dtype, whose gradient is computed too. Logits of -infinity are classes
/// that cannot be; a row of nothing else has the loss NaN, as softmax. Ignored rows count in the
/// mean only with `count_ignored`; if no row counts the loss is 0. Error: a label outside of [0, K)
/// that is not ignore_index (names where and what); labels on the GPU are not looked at, there such
/// a row counts as ignored.
PPMA_API Tensor cross_entropy(const Tensor& logits, const Tensor& target,
                              const CrossEntropyOptions& options = {});

}  // namespace ppma::inline PPMA_ABI

#if PPMA_HEADER_ONLY || defined(PPMA_DEFINES_OPS_ROWS)

#include "ppma/kernels/cpu/loss.hpp"
#include "ppma/ops/arithmetic.hpp"
#include "ppma/ops/elementwise.hpp"
#include "ppma/ops/layout.hpp"
#include "ppma/ops/softmax.hpp"

#if PPMA_CUDA
#include "ppma/kernels/cuda/loss.cuh"  // one launch for all of the loss: it works on tensors
#endif

namespace ppma::inline PPMA_ABI {

Tensor cross_entropy(const Tensor& logits, const Tensor& target,
                     const CrossEntropyOptions& options) {
  detail::check_defined("cross_entropy", logits);
  detail::check_defined("cross_entropy", target);
  check(logits.rank() >= 1, "cross_entropy: logits must be (..., K), got a scalar");
  check(options.label_smoothing >= 0 && options.label_smoothing <= 1,
        "cross_entropy: label_smoothing is ", options.label_smoothing, ", outside of [0, 1]");
  const i64 k = logits.dim(-1), rows = logits.shape().product(0, logits.rank() - 1);
  check(k > 0 && rows > 0, "cross_entropy: logits of shape ", logits.shape(), " have no elements");
  const bool soft = target.dtype() != DType::int64;
  check(target.device() == logits.device(), "cross_entropy: logits are on the ", logits.device(),
        ", the target is on the ", target.device(), "; move one with .to()");
  i64 counted = rows;
  if (soft) {
    check(target.dtype() == logits.dtype(), "cross_entropy: target is ", target.dtype(),
          "; it must be int64 labels or ", "soft targets of the logits' dtype ", logits.dtype());
    check(target.shape() == logits.shape(), "cross_entropy: soft targets are ", target.shape(),
          ", logits ", logits.shape(), "; the shapes must be equal");
  } else {
    check(target.shape() == detail::without_axis(logits.shape(), logits.rank() - 1),
          "cross_entropy: labels are ", target.shape(), ", logits ", logits.shape(),
          "; labels must have the logits' shape without the last axis");
    const i64* label = target.data<i64>();
    for (i64 r = 0; r < rows && target.device() == Device::cpu; ++r) {
      if (label[r] == options.ignore_index) {
        if (!options.count_ignored) --counted;
        continue;
      }
      check(label[r] >= 0 && label[r] < k, "cross_entropy: the label at index ", r, " is ",
            label[r], "; with ", k, " classes it must be 0 to ", k - 1, ", or ignore_index (",
            options.ignore_index, ")");
    }
  }
#if PPMA_CUDA
  if (logits.device() == Device::cuda)
    return detail::cross_entropy_on_gpu(logits, target, options.label_smoothing,
                                        options.ignore_index, options.count_ignored);
#endif
  const double mean = counted > 0 ? 1.0 / static_cast<double>(counted) : 0.0;
  Tensor loss = Tensor::empty({}, logits.dtype(), logits.device());
  Tensor log_sum = Tensor::empty({rows}, logits.dtype(), logits.device());
  visit_cpu(logits.device(), logits.dtype(), "cross_entropy", [&](auto on, auto zero) {
    using T = decltype(zero);
    const T smoothing = static_cast<T>(options.label_smoothing);
    const Workspace<T> each(rows);
    if (soft)
      kernels::target_loss(on, rows, k, logits.data<T>(), target.data<T>(), smoothing,
                           log_sum.data<T>(), each.data());
    else
      kernels::label_loss(on, rows, k, logits.data<T>(), target.data<i64>(), smoothing,
                          options.ignore_index, log_sum.data<T>(), each.data());
    *loss.data<T>() = kernels::sum_contiguous(each.data(), rows) * static_cast<T>(mean);
  });
  const bool needs_logits = logits.requires_grad(), needs_target = soft && target.requires_grad();
  return record(loss, "cross_entropy", {logits, target},
                [=, logits = logits.detach(), target = target.detach()](const Tensor& dy) {
                  Tensor dx, dt;
                  if (needs_logits)
                    dx = Tensor::empty(logits.shape(), logits.dtype(), logits.device());
                  if (needs_target)
                    dt = Tensor::empty(logits.shape(), logits.dtype(), logits.device());
                  visit_cpu(dy.device(), dy.dtype(), "cross_entropy", [&](auto on, auto zero) {
                    using T = decltype(zero);
                    const T factor = static_cast<T>(dy.item() * mean),
                            smoothing = static_cast<T>(options.label_smoothing);
                    if (soft)
                      kernels::target_loss_backward(on, rows, k, logits.data<T>(), target.data<T>(),
                                                    smoothing, log_sum.data<T>(), factor,
                                                    needs_logits ? dx.data<T>() : nullptr,
                                                    needs_target ? dt.data<T>() : nullptr);
                    else
                      kernels::label_loss_backward(
                          on, rows, k, logits.data<T>(), target.data<i64>(), smoothing,
                          options.ignore_index, log_sum.data<T>(), factor, dx.data<T>());
                  });
                  return Grads{dx, dt};
                });
}

}  // namespace ppma::inline PPMA_ABI

#endif  // definitions

#include "ppma/core/names_end.hpp"
